"""Pictures of differences with their intervals, one below the other: claims, or pairs of arms."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxdl.report import figures, scales


class ForestRow(NamedTuple):
  """A claim, or a pair of arms: an effect with its interval and margin, all in the same unit."""

  label: str
  effect: float
  low: float
  high: float
  margin: float
  verdict: str  # of `jaxdl.stats.ledger` or `jaxdl.stats`
  text: str  # the effect with its unit


_VERDICTS = {
  "holds": (figures.CORRECT_COLOR, "o"),
  "does not hold": (figures.MISTAKE_COLOR, "D"),
  "too small to count": (figures.MISTAKE_COLOR, "v"),
  "better": (figures.CORRECT_COLOR, "o"),
  "worse": (figures.MISTAKE_COLOR, "D"),
  "equivalent": (figures.COLORS[2], "^"),
  "undecided": (figures.GREY, "s"),
  "too few seeds": (figures.GREY, "x"),
}


@figures.styled
def forest(rows: Sequence[ForestRow]) -> Figure:
  """Draws the effect of each row with its interval, in units of its margin.

  The axis is linear between -1 and 1, where an effect is within its margin, and logarithmic
  beyond. Values past its ends are drawn at the frame. If an effect is not finite or a margin is not
  positive, the row has only its text.

  Args:
    rows: claims or pairs of arms, from top to bottom.

  Raises:
    ValueError: a verdict is neither one of `jaxdl.stats.ledger` nor of `jaxdl.stats`.
  """
  if not rows:
    return figures.message("There is nothing to compare.")
  unknown = {row.verdict for row in rows} - set(_VERDICTS)
  if unknown:
    raise ValueError(f"verdicts must be {', '.join(_VERDICTS)}, not {', '.join(sorted(unknown))}")
  labels = [figures.fit(row.label, 3.4, max_lines=4) for row in rows]
  texts = [figures.fit(row.text, 2.1, figures.SMALL_TEXT_SIZE, max_lines=3) for row in rows]
  heights = [
    0.15 * max(label.count("\n"), text.count("\n")) + 0.3
    for label, text in zip(labels, texts, strict=True)
  ]
  bottoms = np.cumsum(heights)
  places = bottoms - np.array(heights) / 2  # [R], in inches
  figure = Figure(figsize=(figures.MAX_WIDTH, bottoms[-1] + 0.8), layout="constrained")
  ax = figure.subplots()
  scaled = [_in_margins(row) for row in rows]
  limit = _set_forest_axis(ax, scaled)
  for row, (effect, low, high), place, text in zip(rows, scaled, places, texts, strict=True):
    figures.write_right(ax, place, text, va="center")
    if math.isfinite(effect):
      color, marker = _VERDICTS[row.verdict]
      ends = np.clip([low, high], -limit, limit)
      ax.plot(ends, [place, place], color=color, linewidth=1.8, solid_capstyle="butt")
      dot = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.8}
      ax.plot(np.clip(effect, -limit, limit), place, marker, color=color, zorder=3, **dot)
  ax.hlines(bottoms[:-1], -limit, limit, color="0.94", linewidth=0.6, zorder=0.5)
  figures.name_rows(ax, places, labels)
  ax.set_ylim(bottoms[-1], 0)
  figures.add_legend(figure, _forest_legend(rows))
  return figures.finish(figure)


def _in_margins(row: ForestRow) -> tuple[float, float, float]:
  """Returns effect, low and high in units of the margin; NaN if there is no such number."""
  if not (math.isfinite(row.effect) and 0 < row.margin < math.inf):
    return (math.nan,) * 3
  return row.effect / row.margin, row.low / row.margin, row.high / row.margin


def _set_forest_axis(ax: Axes, scaled: list[tuple[float, float, float]]) -> float:
  """Sets up a symmetric x axis and returns its limit."""
  effects = np.abs(scales.finite([[effect for effect, _, _ in scaled]]))
  ends = np.abs(scales.finite([[low, high] for _, low, high in scaled]))
  most = effects.max(initial=0.0)
  # The axis grows with the intervals, up to ten times the largest effect: beyond that, effects
  # would be too small to see.
  limit = min(max(2.0, 1.2 * most, min(1.2 * ends.max(initial=0), 10 * max(most, 1))), 1e6)
  ax.set_xscale("symlog", linthresh=1, linscale=1)
  ax.set_xlim(-limit, limit)
  steps = [1, 2, 5] if limit < 15 else [1]
  positive = [s * 10.0**p for p in range(7) for s in steps if s * 10.0**p <= limit]
  ax.xaxis.set_major_locator(ticker.FixedLocator([-x for x in positive] + [0] + positive))
  ax.xaxis.set_minor_locator(ticker.NullLocator())
  figures.write_plain_ticks(ax.xaxis)
  ax.axvspan(-1, 1, color="0.93", linewidth=0, zorder=0)
  ax.axvline(0, color="0.6", linewidth=0.8, zorder=1)
  ax.set_xlabel("effect, in units of its margin")
  return limit


def _forest_legend(rows: Sequence[ForestRow]) -> list[tuple[str, Line2D | Patch]]:
  entries: list[tuple[str, Line2D | Patch]] = []
  for verdict, (color, marker) in _VERDICTS.items():
    if any(row.verdict == verdict for row in rows):
      line = Line2D([], [], color=color, linewidth=1.8, marker=marker, markersize=6.5)
      line.set(markeredgecolor="white", markeredgewidth=0.8)
      entries.append((verdict, line))
  return [*entries, ("within the margin", Patch(color="0.93"))]
