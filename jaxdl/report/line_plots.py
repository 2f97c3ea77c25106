"""Lines of means with intervals: a metric against a setting or a cost, and ensembles against size.

They draw plain arrays by name, so that any experiment can use them. Colour, line style and marker
of a name follow from its position among the names. If there is nothing to draw, the figure says so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from jaxdl.report import figures, scales
from jaxdl.report.picture_data import mean_interval

# More lines than this cannot be told apart in one panel, so each gets its own panel.
_MOST_LINES = 4


class _Line(NamedTuple):
  """The values of one line, with their means and intervals, ordered by x."""

  name: str
  number: int  # position among the lines, which sets its style
  x: np.ndarray  # [n]
  values: list[np.ndarray]  # n arrays [s] of the finite values at each x
  num_missing: np.ndarray  # [n], number of values at each x that are not finite
  mean: np.ndarray  # [n]
  low: np.ndarray  # [n], lower end of the 95% interval
  high: np.ndarray  # [n], upper end

  @property
  def color(self) -> str:
    return figures.arm_style(self.number).color

  def interval(self, limits: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of the intervals, cut to the limits of the axis."""
    return np.clip(self.low, *limits), np.clip(self.high, *limits)


@figures.styled
def metric_against(
  lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
  *,
  x_label: str,
  y_label: str,
  percent: bool = True,
  higher_is_better: bool = True,
) -> Figure:
  """Draws a metric against a setting: means over seeds with 95% intervals as bars.

  The best mean of each line is ringed. Means are over the seeds that did not diverge; a cross with
  a number at the frame says how many did. If there are more than four lines, each gets its own
  panel, with the others in grey. The x axis is logarithmic if all x are positive and span more than
  a factor of 3.

  Args:
    lines: name -> (x `[n]`, values `[n, S]`, NaN where a seed diverged).
    x_label: name and unit of x.
    y_label: name and unit of the values.
    percent: values are in [0, 1] and shown in %.
    higher_is_better: whether the largest mean is the best one.
  """
  made = _summarize(lines, percent)
  if not made:
    return figures.message("Every seed diverged: there is nothing to draw.")
  counts = [np.shape(values)[1] for _, values in lines.values()]
  figure, panels = _comparison(made, x_label, y_label)
  low, high = _mean_limits(made, percent)
  scales.set_scale(panels[0].ax.xaxis, [line.x for line in made])
  for panel in panels:
    for place in range(len(panel.lines)):
      _draw_line(panel, place, (low, high))
      _ring_best(panel, place, higher_is_better)
    _draw_diverged(panel, made, (low, high), higher_is_better)
  entries = []
  if any(len(line.x) > 1 for line in made):
    entries.append(("best mean of a line", figures.grey_mark("o", 9, markerfacecolor="none")))
  if any(line.num_missing.any() for line in made):
    text = f"number of seeds that diverged, of {_range_text(counts)}"
    entries.append((text, figures.grey_mark("x", 5)))
  title = f"{_range_text(counts)} seeds: means" if max(counts) > 1 else ""
  return _finish_comparison(figure, panels, made, entries, title)


def _summarize(
  lines: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]], percent: bool
) -> list[_Line]:
  """Returns the lines with their means and intervals; none if no value is finite.

  Args:
    lines: name -> (x `[n]`, n arrays of values).
    percent: values are in [0, 1] and shown in %; intervals are cut there.
  """
  scale, limits = (100, (0, 100)) if percent else (1, (-math.inf, math.inf))
  made = []
  for number, (name, (x, values)) in enumerate(lines.items()):
    x = np.asarray(x, float)
    order = np.argsort(x, kind="stable")
    every = [scale * np.asarray(values[i], float).ravel() for i in order]
    finite = [v[np.isfinite(v)] for v in every]
    summaries = [mean_interval(v, limits) if len(v) else (math.nan,) * 3 for v in finite]
    mean, low, high = np.array(summaries, float).reshape(-1, 3).T
    missing = np.array([len(a) - len(b) for a, b in zip(every, finite, strict=True)], int)
    made.append(_Line(name, number, x[order], finite, missing, mean, low, high))
  return made if any(np.isfinite(line.mean).any() for line in made) else []


class _Panel(NamedTuple):
  ax: Axes
  lines: list[_Line]  # drawn in colour
  width: float  # approximate, in inches
  height: float  # approximate, in inches


def _comparison(lines: list[_Line], x_label: str, y_label: str) -> tuple[Figure, list[_Panel]]:
  """Returns a figure with one panel for all lines, or one per line with shared axes."""
  alone = len(lines) > _MOST_LINES
  shown = [[line] for line in lines] if alone else [lines]
  num_columns = 1 if not alone else 3 if len(lines) <= 9 else 4
  width = (figures.MAX_WIDTH - 0.7) / num_columns if alone else 7.0
  height = 1.9 if alone else 3.6
  full_height = math.ceil(len(shown) / num_columns) * height + (0.6 if alone else 0.3)
  size = (figures.MAX_WIDTH if alone else 7.5, full_height)
  figure = Figure(figsize=size, layout="constrained")
  axes = figures.grid(figure, len(shown), num_columns, sharex=True, sharey=True)
  for index, ax in enumerate(axes):
    figures.add_grid_lines(ax)
    if index % num_columns == 0:
      ax.set_ylabel(figures.fit(y_label, height))
    if index + num_columns >= len(axes):  # the last panel of its column
      ax.set_xlabel(figures.fit(x_label, width - 0.3))
      ax.tick_params(labelbottom=True)
    if alone:
      ax.set_title(figures.fit(lines[index].name, width - 0.4))
      for other in (*lines[:index], *lines[index + 1 :]):
        ax.plot(other.x, other.mean, color="0.8", linewidth=1, zorder=1.5)
  return figure, [_Panel(ax, part, width, height) for ax, part in zip(axes, shown, strict=True)]


def _range_text(counts: Sequence[int]) -> str:
  least, most = min(counts), max(counts)
  return str(most) if least == most else f"{least} to {most}"


def _finish_comparison(
  figure: Figure,
  panels: list[_Panel],
  lines: list[_Line],
  entries: list[tuple[str, Line2D]],
  title: str,
) -> Figure:
  """Adds the title and the legend; a single panel has the names of the lines in the legend."""
  if len(panels) == 1:
    names = [(figures.legend_text(line.name), figures.mean_line(line.number)) for line in lines]
    entries = [*names, *entries]
  else:
    entries = [*entries, ("means of the others", Line2D([], [], color="0.8", linewidth=1))]
  if title:
    figure.suptitle(f"{title} with 95% intervals")
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _shifted(panel: _Panel, place: int):
  """Returns the transform that shifts a line by a few points, so that bars do not coincide."""
  points = 2.5 * (place - (len(panel.lines) - 1) / 2)
  shift = ScaledTranslation(points / 72, 0, panel.ax.figure.dpi_scale_trans)
  return panel.ax.transData + shift


def _draw_line(panel: _Panel, place: int, limits: tuple[float, float]) -> None:
  """Draws the means of a panel's line and their intervals, clipped to the limits."""
  line = panel.lines[place]
  where = _shifted(panel, place)
  mean = figures.mean_line(line.number)
  mean.set(label=line.name, zorder=3, transform=where)
  mean.set_data(line.x, line.mean)
  panel.ax.add_line(mean)
  bars = {"color": line.color, "linewidth": 1.2, "alpha": 0.7, "zorder": 2.5}
  panel.ax.vlines(line.x, *line.interval(limits), transform=where, **bars)


def _ring_best(panel: _Panel, place: int, higher_is_better: bool) -> None:
  line = panel.lines[place]
  if len(line.x) > 1 and np.isfinite(line.mean).any():
    best = np.nanargmax(line.mean) if higher_is_better else np.nanargmin(line.mean)
    ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
    ring |= {"markeredgecolor": line.color, "linestyle": "", "clip_on": False, "zorder": 4}
    panel.ax.plot(line.x[best], line.mean[best], transform=_shifted(panel, place), **ring)


def _draw_diverged(
  panel: _Panel, lines: list[_Line], limits: tuple[float, float], higher_is_better: bool
) -> None:
  """Sets the y limits, with a strip at the bad end for crosses and counts of diverged seeds."""
  alone = len(panel.lines) < len(lines)
  # Panels share the y axis, so if one needs a strip, all have it.
  marked = [line.number for line in lines if line.num_missing.any()]
  num_rows = min(len(marked), 1) if alone else len(marked)
  row = 0.27 / (panel.height - 0.5)  # as a share of the height of the axes
  low, high = limits
  strip = (high - low) * num_rows * row / (1 - num_rows * row)
  _set_ticks(panel, low, high)
  panel.ax.set_ylim((low - strip, high) if higher_is_better else (low, high + strip))
  if num_rows:
    panel.ax.axhline(low if higher_is_better else high, color="0.75", linewidth=0.6, ls=":")
  where = panel.ax.get_xaxis_transform()
  for line in panel.lines:
    rank = 0 if alone or line.number not in marked else marked.index(line.number)
    top = (num_rows - rank) * row if higher_is_better else 1 - rank * row
    for x, count in zip(line.x, line.num_missing, strict=True):
      if count:
        cross = {"color": line.color, "markersize": 5, "markeredgewidth": 1.3}
        panel.ax.plot(x, top - 0.28 * row, "x", transform=where, **cross)
        text = {"ha": "center", "va": "center", "fontsize": 7, "color": line.color}
        panel.ax.text(x, top - 0.7 * row, str(count), transform=where, **text)


def _set_ticks(panel: _Panel, low: float, high: float) -> None:
  """Sets fixed y ticks between two limits, which the layout cannot change."""
  ticks = ticker.MaxNLocator(6 if panel.height > 3 else 4).tick_values(low, high)
  panel.ax.set_yticks([tick for tick in ticks if low <= tick <= high])


def _mean_limits(lines: list[_Line], percent: bool, dots: bool = False) -> tuple[float, float]:
  """Returns y limits that hold all means and, if `dots`, all values; intervals widen them by half.

  An interval does not widen them beyond 100%.
  """
  parts = [line.mean for line in lines]
  if dots:
    parts += [values for line in lines for values in line.values]
  every = scales.finite(parts)
  ends = scales.finite([end for line in lines for end in (line.low, line.high)])
  low, high = every.min(), every.max()
  widen = 0.25 * (high - low) or math.inf
  low = max(low - widen, min(ends.min(initial=low), low))
  most = max(100, high) if percent else math.inf
  high = min(high + widen, max(ends.max(initial=high), high), most)
  pad = 0.06 * (high - low) or 0.02 * abs(high) or 0.02
  return low - pad, high + (pad if high < most else pad / 3)


@figures.styled
def accuracy_against(
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, x_label: str
) -> Figure:
  """Draws test accuracy against its cost: means over seeds with 95% intervals as bands.

  The mean at each x is over the seeds that have a value there. A seed without any value diverged;
  these are counted beside the name. A curve with one point is a marker with a bar. The x axis is
  logarithmic if all x are positive and span more than a factor of 3.

  Args:
    curves: name -> (x `[E]`, y `[S, E]` in [0, 1], NaN where a seed has no value).
    x_label: name and unit of x, e.g. training time or number of examples.
  """
  ys = {name: np.asarray(y, float) for name, (_, y) in curves.items()}
  made = _summarize({name: (x, ys[name].T) for name, (x, _) in curves.items()}, percent=True)
  if not made:
    return figures.message("Every seed diverged: there is nothing to draw.")
  figure = Figure(figsize=(7.5, 3.9), layout="constrained")
  ax = figure.subplots()
  limits = _mean_limits(made, percent=True)
  scales.set_scale(ax.xaxis, [line.x for line in made])
  ax.set_ylim(*limits)
  entries = []
  for line in made:
    ends, number = line.interval(limits), line.number
    mean = figures.draw_mean(ax, line.name, number, line.x, line.mean, *ends, num_arms=len(made))
    if len(line.x) == 1:
      mean.set_markersize(8)
      ax.vlines(line.x, *ends, color=line.color, linewidth=1.8)
    lost = (~np.isfinite(ys[line.name])).all(axis=1)  # [S]
    entries.append((figures.legend_text(line.name, lost), figures.mean_line(number)))
  ax.set_xlabel(figures.fit(x_label, 6.5))
  ax.set_ylabel("test accuracy (%)")
  figures.add_grid_lines(ax)
  counts = [len(y) for y in ys.values()]
  if max(counts) > 1:
    figure.suptitle(f"{_range_text(counts)} seeds: means with 95% intervals")
  figures.add_legend(figure, entries)
  return figures.finish(figure)


@figures.styled
def ensemble_accuracy(arms: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]]) -> Figure:
  """Draws the accuracy of ensembles against their size: a dot per ensemble, means and intervals.

  The axis of sizes is logarithmic if there is one above 8. If there are more than four arms, each
  gets its own panel, with the means of the others in grey.

  Args:
    arms: name -> (sizes `[K]`, K arrays with the accuracies, in [0, 1], of the disjoint ensembles
      of each size).
  """
  made = _summarize(arms, percent=True)
  if not made:
    return figures.message(scales.NOTHING)
  figure, panels = _comparison(made, "number of networks in the ensemble", "test accuracy (%)")
  limits = _mean_limits(made, percent=True, dots=True)
  for panel in panels:
    for place, line in enumerate(panel.lines):
      x = np.repeat(line.x, [len(values) for values in line.values])
      dots = {"color": line.color, "markersize": 3.5, "markeredgewidth": 0, "alpha": 0.4}
      values = np.concatenate([[], *line.values])  # of no size, where every seed diverged
      panel.ax.plot(x, values, "o", transform=_shifted(panel, place), zorder=2, **dots)
      _draw_line(panel, place, limits)
    _set_ticks(panel, *limits)
    panel.ax.set_ylim(*limits)
  _set_size_axis(panels[0].ax, max(line.x.max(initial=1) for line in made))
  dot = figures.grey_mark("o", 3.5, alpha=0.6)
  title = "Means over disjoint ensembles"
  return _finish_comparison(figure, panels, made, [("one ensemble", dot)], title)


def _set_size_axis(ax: Axes, most: float) -> None:
  if most > 8:
    ax.set_xscale("log", base=2)
    ticks = 2 ** np.arange(math.floor(math.log2(most)) + 1)
    ax.set_xlim(2**-0.3, most * 2**0.3)
  else:
    ticks = np.arange(1, int(most) + 1)
    ax.set_xlim(0.6, most + 0.4)
  ax.xaxis.set_major_locator(ticker.FixedLocator(ticks))
  ax.xaxis.set_minor_locator(ticker.NullLocator())
  figures.write_plain_ticks(ax.xaxis)
