"""What all pictures share: style, legends, panels, names as plain text, and files.

Every drawing function returns its own `matplotlib.figure.Figure`. It uses neither pyplot nor a
display, and neither reads nor changes matplotlibrc and rcParams. Equal input gives the same bytes
when saved with the same version of matplotlib.

Names of arms and classes are shown as plain text, never as mathematics or markup. A character that
the font lacks is shown as its escape sequence, and a name that is too long is shortened in the
middle.
"""

import bisect
import functools
import io
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from jaxdl.store import files

# In inches; a wider figure would be shrunk in a README, with its text.
MAX_WIDTH = 10.0
# In points.
TEXT_SIZE = 9.0
SMALL_TEXT_SIZE = 8.0
# Bold text is about as wide as plain text of this size.
BOLD_SIZE = 1.15 * TEXT_SIZE

# A decorator. It starts from matplotlib's own defaults, so that matplotlibrc has no effect.
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
      "font.family": ["DejaVu Sans"],  # part of matplotlib, so text has the same width everywhere
      "font.size": TEXT_SIZE,
      "legend.fontsize": TEXT_SIZE,
      "legend.frameon": False,
      "svg.hashsalt": "jaxdl",  # otherwise a file has random identifiers
      "text.parse_math": False,
      "xtick.labelsize": SMALL_TEXT_SIZE,
      "ytick.labelsize": SMALL_TEXT_SIZE,
    },
  ]
)

# Okabe and Ito's palette for colour-blind readers, without its yellow, which is too pale for a line
# on white. No two of the three lengths have a common divisor, so 280 arms look different.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (10, 2)))
_MARKERS = "osD^v<>*"
CORRECT_COLOR, MISTAKE_COLOR = COLORS[:2]
GREY = "0.35"


class ArmStyle(NamedTuple):
  """The style of one arm in all figures, or of one of several lines."""

  color: str
  line_style: str | tuple
  marker: str


def arm_style(index: int) -> ArmStyle:
  """Returns the style of the arm with this index in the order of the arms."""
  return ArmStyle(
    COLORS[index % len(COLORS)],
    _LINE_STYLES[index % len(_LINE_STYLES)],
    _MARKERS[index % len(_MARKERS)],
  )


def mean_line(index: int) -> Line2D:
  """Returns a thick line without data: the mean of the arm with this index."""
  style = arm_style(index)
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


def grey_mark(marker: str, size: float, **style: Any) -> Line2D:
  """Returns a marker for a legend, of no arm in particular."""
  return Line2D([], [], color=GREY, linestyle="", marker=marker, markersize=size, **style)


def draw_mean(
  ax: Axes,
  label: str,
  index: int,
  x: np.ndarray,
  mean: np.ndarray,
  low: np.ndarray,
  high: np.ndarray,
  num_arms: int,
) -> Line2D:
  """Draws the mean of one of several arms and a band around it, at the points `x`, `[E]`."""
  spacing = math.ceil(len(mean) / 8)
  line = mean_line(index)
  line.set(label=label, zorder=3)
  line.set_data(x, mean)
  # Markers of different arms are at different points, so that they do not cover each other.
  line.set_markevery((index % spacing, spacing))
  ax.add_line(line)
  # With many arms, darker bands would hide everything else.
  alpha = float(np.clip(0.5 / max(num_arms, 1), 0.08, 0.18))
  # The band of a single point has no width, so its edge must show it.
  width = 6 if len(mean) == 1 else 0
  ax.fill_between(x, low, high, color=line.get_color(), alpha=alpha, linewidth=width)
  return line


def add_legend(figure: Figure, entries: list[tuple[str, Line2D]]) -> None:
  """Adds a legend below the panels and makes the figure taller by the legend's height."""
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
  # Set afterwards, because some versions of matplotlib drop labels that begin with an underscore.
  for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
    text.set_text(label)


def write_right(ax: Axes, height: float, text: str, va: str) -> None:
  """Writes text to the right of the axes, at a height in data units."""
  where = ax.get_yaxis_transform()
  ax.text(1.02, height, text, transform=where, va=va, fontsize=SMALL_TEXT_SIZE)


def name_rows(ax: Axes, heights: Sequence[float], names: Sequence[str]) -> None:
  """Writes names to the left of the axes, at heights in data units, with neither line nor ticks."""
  ax.set_yticks(heights, names, fontsize=TEXT_SIZE)
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)


def write_plain_ticks(axis: Axis) -> None:
  """Writes the major ticks of a logarithmic axis as plain numbers, and no labels between them.

  matplotlib's own formatter writes powers of ten as mathematics, which these figures do not use.
  """
  axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
  axis.set_minor_formatter(ticker.NullFormatter())


def add_grid_lines(ax: Axes, axis: str = "both") -> None:
  """Adds pale lines behind everything else; `axis` is "x", "y" or "both"."""
  ax.grid(axis=axis, color="0.92", linewidth=0.6)
  ax.set_axisbelow(True)


@styled
def message(text: str) -> Figure:
  """Returns a figure with a text that says why there is nothing to draw."""
  figure = Figure(figsize=(5.0, 1.0), layout="constrained")
  figure.text(0.5, 0.5, text, ha="center", va="center")
  return finish(figure)


def grid(figure: Figure, num_panels: int, num_columns: int, **shared: bool) -> list[Axes]:
  """Adds `num_panels` panels to a figure, row by row, and returns their axes.

  `shared` is as of `Figure.subplots`: sharex, sharey.
  """
  num_rows = math.ceil(num_panels / num_columns)
  axes = list(figure.subplots(num_rows, num_columns, squeeze=False, **shared).flat)
  for ax in axes[num_panels:]:
    ax.remove()
  return axes[:num_panels]


def finish(figure: Figure) -> Figure:
  """Fixes the layout of a figure; each file would otherwise have a slightly different one."""
  figure.draw_without_rendering()
  figure.set_layout_engine("none")
  return figure


# --- Files ---


@styled
def save(figure: Figure, path_without_suffix: str | os.PathLike) -> tuple[Path, Path]:
  """Writes a figure as PNG, at 150 dots per inch, and as SVG; no file is ever incomplete.

  Args:
    figure: the figure, from a drawing function of this package.
    path_without_suffix: path of the files without their suffix, e.g. "curves" for curves.png and
      curves.svg.

  Returns:
    The paths of the PNG file and the SVG file.
  """
  name = os.fspath(path_without_suffix)
  paths = Path(f"{name}.png"), Path(f"{name}.svg")
  files.write(paths[0], png(figure))
  files.write(paths[1], _content(figure, "svg", {"Date": None, "Creator": None}))
  return paths


@styled
def png(figure: Figure) -> bytes:
  """Returns a figure as a PNG file, at 150 dots per inch."""
  return _content(figure, "png", {"Software": None})


def _content(figure: Figure, suffix: str, left_out: dict[str, None]) -> bytes:
  """Returns a file without metadata such as the date, so that equal figures give equal files."""
  stream = io.BytesIO()
  figure.savefig(stream, format=suffix, dpi=150, metadata=left_out)
  return stream.getvalue()


# --- Names, which come from users ---


def plain(text: str) -> str:
  """Returns text that can be drawn: white space becomes a space, missing glyphs are escaped."""
  glyphs = _glyphs()
  text = re.sub(r"\s+", " ", text).strip()
  return "".join(
    char if ord(char) in glyphs and unicodedata.category(char)[0] != "C" else ascii(char)[1:-1]
    for char in text or "(no name)"
  )


@functools.cache
def _glyphs() -> frozenset[int]:
  return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def fit(text: str, width: float, size: float = TEXT_SIZE, max_lines: int = 2) -> str:
  """Breaks text of `size` points into lines no wider than `width` inches.

  If there are more than `max_lines`, an ellipsis replaces the middle of the text, because names of
  arms and classes usually differ at their ends.
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


def arm_label(arm: str, diverged: Sequence[bool], width: float, separator: str = "\n") -> str:
  """Returns an arm's name, in up to two lines `width` inches wide, and how many seeds diverged."""
  note = f"{separator}(diverged: {sum(diverged)} of {len(diverged)})" if any(diverged) else ""
  return fit(arm, width) + note


def legend_text(name: str, diverged: Sequence[bool] = ()) -> str:
  """Returns a name for the legend, and how many seeds diverged."""
  return arm_label(name, diverged, 3.2, separator=" ")


def _break_lines(text: str, width: float, size: float) -> list[str]:
  """Breaks text after spaces and punctuation, and within words that are too wide."""
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
  """Returns the width in inches of text of `size` points."""
  return size / 72 * sum(map(_advance, text))


@functools.cache
def _advance(char: str) -> float:
  """Returns the advance width of a character, as a multiple of the text size."""
  font = font_manager.FontProperties(family="DejaVu Sans", size=100)
  alone, between = (
    text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    for text in ("xx", f"x{char}x")
  )
  return (between - alone) / 100
