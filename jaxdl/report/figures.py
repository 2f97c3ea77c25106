"""What all pictures share: their style, legends, panels, names as plain text, and files.

Every function that draws returns a `matplotlib.figure.Figure` of its own: no pyplot, no display,
and whatever matplotlibrc or rcParams are set, they are neither read nor changed. Equal input gives
the same bytes when saved with the same version of matplotlib.

Names of arms and classes are shown as plain text, never as mathematics or markup; a character that
the font lacks appears as its escape sequence, and a name that is too long loses its middle.
"""

import bisect
import functools
import math
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
import scipy.stats
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

# In inches; a README shows no more than this without shrinking the text.
MAX_WIDTH = 10.0
# In points.
TEXT_SIZE = 9.0
SMALL_TEXT_SIZE = 8.0
# Bold text is about as wide as plain text of this size.
BOLD_SIZE = 1.15 * TEXT_SIZE

# A decorator. On top of matplotlib's own defaults, so that no matplotlibrc has a say.
styled = matplotlib.style.context(
  [
    "default",
    {
      "axes.formatter.useoffset": False,
      "axes.labelsize": TEXT_SIZE,
      "axes.spines.right": False,
      "axes.spines.top": False,
      "axes.titlesize": TEXT_SIZE,
      "figure.dpi": 150,
      "figure.titlesize": TEXT_SIZE,
      "figure.titleweight": "bold",
      "font.family": ["DejaVu Sans"],  # comes with matplotlib: text is equally wide everywhere
      "font.size": TEXT_SIZE,
      "legend.fontsize": TEXT_SIZE,
      "legend.frameon": False,
      "svg.hashsalt": "jaxdl",  # otherwise identifiers in a file are random
      "text.parse_math": False,
      "xtick.labelsize": SMALL_TEXT_SIZE,
      "ytick.labelsize": SMALL_TEXT_SIZE,
    },
  ]
)

# Okabe and Ito's palette, which colour-blind readers tell apart, without its yellow: too pale for a
# line on white. The three lengths have no common divisor, so that 280 arms differ from each other.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (10, 2)))
_MARKERS = "osD^v<>*"
CORRECT_COLOR, MISTAKE_COLOR = COLORS[:2]
GREY = "0.35"


class ArmStyle(NamedTuple):
  """How all figures draw one arm, or one line of several."""

  color: str
  line_style: str | tuple
  marker: str


def arm_style(index: int) -> ArmStyle:
  """Returns the style of the arm at a place in the order of the arms."""
  return ArmStyle(
    COLORS[index % len(COLORS)],
    _LINE_STYLES[index % len(_LINE_STYLES)],
    _MARKERS[index % len(_MARKERS)],
  )


def mean_line(style: ArmStyle) -> Line2D:
  """Returns a thick line without data: the mean of an arm."""
  return Line2D(
    [],
    [],
    color=style.color,
    linestyle=style.line_style,
    linewidth=1.8,
    marker=style.marker,
    markersize=4.5,
    markeredgecolor="white",
    markeredgewidth=0.6,
  )


def draw_mean(
  ax: Axes,
  label: str,
  index: int,
  x: np.ndarray,
  mean: np.ndarray,
  low: np.ndarray,
  high: np.ndarray,
  alpha: float,
) -> Line2D:
  """Draws the mean of the arm at a place in their order, and a band around it, each `[E]`."""
  spacing = math.ceil(len(mean) / 8)
  line = mean_line(arm_style(index))
  line.set(label=label, zorder=3)
  line.set_data(x, mean)
  # Each arm at places of its own, lest markers cover each other.
  line.set_markevery((index % spacing, spacing))
  ax.add_line(line)
  # The band of a single point has no width but that of its edge.
  width = 6 if len(mean) == 1 else 0
  ax.fill_between(x, low, high, color=line.get_color(), alpha=alpha, linewidth=width)
  return line


def mean_interval(
  values: np.ndarray, limits: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns mean, lower and upper end of its 95% interval, `[...]`, of values `[n, ...]`.

  The interval is Student's t cut to the limits of the metric, as in `jaxdl.stats.summarize`; NaN
  for fewer than two values. Equal values have an interval without width here, which is not seen.
  """
  n, mean = len(values), values.mean(axis=0)
  if n < 2:
    return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
  half = scipy.stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
  return mean, np.clip(mean - half, *limits), np.clip(mean + half, *limits)


def add_legend(figure: Figure, entries: list[tuple[str, Line2D]]) -> None:
  """Adds a legend below the panels and makes the figure as much higher."""
  lines = [text.split("\n") for text, _ in entries]
  widest = max(text_width(line, TEXT_SIZE) for text in lines for line in text)
  most_columns = max(1, int((figure.get_figwidth() - 0.3) / (widest + 0.75)))
  num_rows = math.ceil(len(entries) / most_columns)
  row_height = 0.08 + 0.14 * max(map(len, lines))
  figure.set_figheight(figure.get_figheight() + num_rows * row_height)
  legend = figure.legend(
    [handle for _, handle in entries],
    [" "] * len(entries),
    loc="outside lower center",
    ncols=math.ceil(len(entries) / num_rows),
    handlelength=3.2,
  )
  # Afterwards, because versions of matplotlib drop labels that begin with an underscore.
  for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
    text.set_text(label)


def write_right(ax: Axes, height: float, text: str, va: str) -> None:
  """Writes right of the axes, at a height in units of data."""
  where = ax.get_yaxis_transform()
  ax.text(1.02, height, text, transform=where, va=va, fontsize=SMALL_TEXT_SIZE)


def write_plain_ticks(axis: Axis) -> None:
  """Writes the powers of ten of a logarithmic axis as numbers, and nothing between them.

  matplotlib's own formatter writes powers as mathematics, which is switched off.
  """
  axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
  axis.set_minor_formatter(ticker.NullFormatter())


def add_grid_lines(ax: Axes, axis: str = "both") -> None:
  """Adds pale lines behind everything else; `axis` is "x", "y" or "both"."""
  ax.grid(axis=axis, color="0.92", linewidth=0.6)
  ax.set_axisbelow(True)


@styled
def message(text: str) -> Figure:
  """Returns a figure that says why there is nothing to be drawn."""
  figure = Figure(figsize=(5.0, 1.0), layout="constrained")
  figure.text(0.5, 0.5, text, ha="center", va="center")
  return finish(figure)


def grid(figure: Figure, num_panels: int, num_columns: int) -> list[Axes]:
  """Adds panels row by row."""
  num_rows = math.ceil(num_panels / num_columns)
  axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
  for ax in axes[num_panels:]:
    ax.remove()
  return axes[:num_panels]


def finish(figure: Figure) -> Figure:
  """Lays a figure out once and for all: doing it anew for each file would shift it a little."""
  figure.draw_without_rendering()
  figure.set_layout_engine("none")
  return figure


# --- Files ---


@styled
def save(figure: Figure, path_without_suffix: str | os.PathLike) -> tuple[Path, Path]:
  """Writes a figure as PNG, at 150 dots per inch, and as SVG.

  Each file is written under a temporary name beside its place and then moved there, so that nobody
  ever reads half of one.

  Args:
    figure: from a function of `plots`, `graph_plots` or `comparison_plots`.
    path_without_suffix: where to, e.g. "curves" for curves.png and curves.svg.

  Returns:
    The paths of the PNG and of the SVG file.
  """
  png, svg = (Path(f"{os.fspath(path_without_suffix)}.{suffix}") for suffix in ("png", "svg"))
  # Without metadata that would differ from day to day.
  for path, metadata in ((png, {"Software": None}), (svg, {"Date": None, "Creator": None})):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
      figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)
  return png, svg


# --- Names, which are not ours ---


def plain(text: str) -> str:
  """Returns text that can be drawn: white space becomes a space, what has no glyph is escaped."""
  glyphs = _glyphs()
  text = re.sub(r"\s+", " ", text).strip()
  return "".join(
    char if ord(char) in glyphs and unicodedata.category(char)[0] != "C" else ascii(char)[1:-1]
    for char in text or "(no name)"
  )


@functools.cache
def _glyphs() -> frozenset[int]:
  return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def fit(text: str, width: float, size: float, max_lines: int) -> str:
  """Breaks text of a size in points into lines no wider than `width` inches.

  If that takes more than `max_lines`, the middle of the text gives way to an ellipsis: names of
  arms and classes mostly differ at their ends.
  """
  if len(text) > 1000:
    text = f"{text[:500]}…{text[-500:]}"
  text = plain(text)
  lines = _break_lines(text, width, size)
  if len(lines) <= max_lines:
    return "\n".join(lines)

  def shorten(keep):
    return _break_lines(f"{text[: -(-keep // 2)]}…{text[len(text) - keep // 2 :]}", width, size)

  keep = bisect.bisect(range(len(text)), max_lines, key=lambda keep: len(shorten(keep))) - 1
  return "\n".join(shorten(keep))


def _break_lines(text: str, width: float, size: float) -> list[str]:
  """Breaks after spaces and punctuation between words, and within words where it must."""
  lines = [""]
  for word in re.findall(r"[ _/,]*[^ _/,]+(?: |[_/,]+ ?)?|[ _/,]+", text):
    if text_width((lines[-1] + word).rstrip(), size) > width and lines[-1]:
      lines.append("")
    for char in word:
      if text_width(lines[-1] + char, size) > width and char != " ":
        lines.append("")
      lines[-1] += char
  return [line.strip() for line in lines if line.strip()]


def text_width(text: str, size: float) -> float:
  """Returns the width in inches of text of a size in points."""
  return size / 72 * sum(map(_advance, text))


@functools.cache
def _advance(char: str) -> float:
  """Returns how far a character moves the next one, relative to the size of the text."""
  font = font_manager.FontProperties(family="DejaVu Sans", size=100)
  alone, between = (
    text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    for text in ("xx", f"x{char}x")
  )
  return (between - alone) / 100
