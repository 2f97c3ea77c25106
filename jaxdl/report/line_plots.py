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


@figures.styled
def metric_against(
  lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
  *,
  x_label: str,
  y_label: str,
  log_x: bool = True,
  percent: bool = True,
  higher_is_better: bool = True,
) -> Figure:
  """Draws a metric against a setting: means over seeds with 95% intervals as bars.

  The best mean of each line is ringed. Means are over the seeds that did not diverge; a cross with
  a number at the frame says how many did. If there are more than four lines, each gets its own
  panel, with the others in grey.

  Args:
    lines: name -> (x `[n]`, values `[n, S]`, NaN where a seed diverged).
    x_label: name and unit of x.
    y_label: name and unit of the values.
    log_x: use a logarithmic x axis if all x are positive and span more than a factor of 3.
    percent: values are in [0, 1] and shown in %.
    higher_is_better: whether the largest mean is the best one.
  """
  scale = 100 if percent else 1
  made = [
    _line(name, index, x, scale * np.asarray(values, float), percent)
    for index, (name, (x, values)) in enumerate(lines.items())
  ]
  if not any(np.isfinite(line.mean).any() for line in made):
    return figures.message("Every seed diverged: there is nothing to draw.")
  counts = [np.shape(values)[1] for _, values in lines.values()]
  figure, panels = _comparison(made, x_label, y_label)
  low, high = _mean_limits(made, percent)
  scales.set_scale(panels[0].ax.xaxis, [line.x for line in made], log_x)
  for panel in panels:
    _draw_grey(panel, made)
    for place in range(len(panel.lines)):
      _draw_line(panel, place, (low, high))
      _ring_best(panel, place, higher_is_better)
    _draw_diverged(panel, made, (low, high), higher_is_better)
  entries = []
  if any(len(line.x) > 1 for line in made):
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none"}
    entries.append(("best mean of a line", Line2D([], [], color=figures.GREY, ls="", **ring)))
  if any(line.num_missing.any() for line in made):
    cross = Line2D([], [], color=figures.GREY, linestyle="", marker="x", markersize=5)
    entries.append((f"number of seeds that diverged, of {_range_text(counts)}", cross))
  title = f"{_range_text(counts)} seeds: means" if max(counts) > 1 else ""
  _finish_comparison(figure, panels, made, entries, title)
  return figures.finish(figure)


def _line(
  name: str, index: int, x: np.ndarray, values: Sequence[np.ndarray], percent: bool
) -> _Line:
  """Summarizes n arrays of values at x `[n]`; intervals of percentages are cut to 0 and 100."""
  limits = (0, 100) if percent else (-math.inf, math.inf)
  x = np.asarray(x, float)
  order = np.argsort(x, kind="stable")
  every = [np.asarray(values[i], float).ravel() for i in order]
  finite = [v[np.isfinite(v)] for v in every]
  nan = (math.nan,) * 3
  summaries = [mean_interval(v, limits) if len(v) else nan for v in finite]
  mean, low, high = np.array(summaries, float).reshape(-1, 3).T
  missing = np.array([len(a) - len(b) for a, b in zip(every, finite, strict=True)], int)
  return _Line(name, index, x[order], finite, missing, mean, low, high)


class _Panel(NamedTuple):
  ax: Axes
  lines: list[_Line]  # drawn in colour
  width: float  # approximate, in inches
  height: float  # approximate, in inches


def _comparison(lines: list[_Line], x_label: str, y_label: str) -> tuple[Figure, list[_Panel]]:
  """Returns a figure with one panel for all lines, or one per line with shared axes."""
  alone = len(lines) > _MOST_LINES
  num_columns = 1 if not alone else 3 if len(lines) <= 9 else 4
  num_rows = math.ceil(len(lines) / num_columns) if alone else 1
  width = (figures.MAX_WIDTH - 0.7) / num_columns if alone else 7.0
  height = 1.9 if alone else 3.6
  size = (figures.MAX_WIDTH if alone else 7.5, num_rows * height + (0.6 if alone else 0.3))
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True).ravel()
  used = axes[: len(lines) if alone else 1]
  for ax in axes[len(used) :]:
    ax.remove()
  for index, ax in enumerate(used):
    figures.add_grid_lines(ax)
    if index % num_columns == 0:
      ax.set_ylabel(figures.fit(y_label, height))
    if index + num_columns >= len(used):  # the last panel of its column
      ax.set_xlabel(figures.fit(x_label, width - 0.3))
      ax.tick_params(labelbottom=True)
    if alone:
      ax.set_title(figures.fit(lines[index].name, width - 0.4))
  shown = [[line] for line in lines] if alone else [lines]
  return figure, [_Panel(ax, part, width, height) for ax, part in zip(used, shown, strict=True)]


def _range_text(counts: Sequence[int]) -> str:
  least, most = min(counts), max(counts)
  return str(most) if least == most else f"{least} to {most}"


def _finish_comparison(figure, panels, lines, entries, title: str) -> None:
  """Adds the title and the legend; a single panel has the names of the lines in the legend."""
  if len(panels) == 1:
    styles = [figures.mean_line(figures.arm_style(index)) for index in range(len(lines))]
    names = [scales.legend_text(line.name) for line in lines]
    entries = [*zip(names, styles, strict=True), *entries]
  else:
    entries = [*entries, ("means of the others", Line2D([], [], color="0.8", linewidth=1))]
  if title:
    figure.suptitle(f"{title} with 95% intervals")
  figures.add_legend(figure, entries)


def _draw_grey(panel: _Panel, lines: list[_Line]) -> None:
  for line in lines:
    if all(line.number != other.number for other in panel.lines):
      panel.ax.plot(line.x, line.mean, color="0.8", linewidth=1, zorder=1.5)


def _shifted(panel: _Panel, place: int):
  """Returns the transform that shifts a line by a few points, so that bars do not coincide."""
  points = 2.5 * (place - (len(panel.lines) - 1) / 2)
  shift = ScaledTranslation(points / 72, 0, panel.ax.figure.dpi_scale_trans)
  return panel.ax.transData + shift


def _draw_line(panel: _Panel, place: int, limits: tuple[float, float]) -> None:
  """Draws the means of a panel's line and their intervals, clipped to the limits."""
  line = panel.lines[place]
  style = figures.arm_style(line.number)
  where = _shifted(panel, place)
  mean = figures.mean_line(style)
  mean.set(label=line.name, zorder=3, transform=where)
  mean.set_data(line.x, line.mean)
  panel.ax.add_line(mean)
  low, high = (np.clip(end, *limits) for end in (line.low, line.high))
  bars = {"color": style.color, "linewidth": 1.2, "alpha": 0.7, "zorder": 2.5}
  panel.ax.vlines(line.x, low, high, transform=where, **bars)


def _ring_best(panel: _Panel, place: int, higher_is_better: bool) -> None:
  line = panel.lines[place]
  if len(line.x) > 1 and np.isfinite(line.mean).any():
    best = np.nanargmax(line.mean) if higher_is_better else np.nanargmin(line.mean)
    color = figures.arm_style(line.number).color
    ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": color}
    where = _shifted(panel, place)
    x, y = line.x[best], line.mean[best]
    panel.ax.plot(x, y, zorder=4, ls="", transform=where, clip_on=False, **ring)


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
    color = figures.arm_style(line.number).color
    for x, count in zip(line.x, line.num_missing, strict=True):
      if count:
        cross = {"color": color, "markersize": 5, "markeredgewidth": 1.3}
        panel.ax.plot(x, top - 0.28 * row, "x", transform=where, **cross)
        text = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
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
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
  *,
  x_label: str,
  y_label: str = "test accuracy (%)",
  log_x: bool = True,
  percent: bool = True,
) -> Figure:
  """Draws accuracy against its cost: means over seeds with 95% intervals as bands.

  The mean at each x is over the seeds that have a value there. A seed without any value diverged;
  these are counted beside the name. A curve with one point is a marker with a bar.

  Args:
    curves: name -> (x `[E]`, y `[S, E]`, NaN where a seed has no value).
    x_label: name and unit of x, e.g. training time or number of examples.
    y_label: name and unit of y.
    log_x: use a logarithmic x axis if all x are positive and span more than a factor of 3.
    percent: y is in [0, 1] and shown in %.
  """
  scale = 100 if percent else 1
  ys = {name: scale * np.asarray(y, float) for name, (_, y) in curves.items()}
  made = [_line(name, i, x, ys[name].T, percent) for i, (name, (x, _)) in enumerate(curves.items())]
  if not any(np.isfinite(line.mean).any() for line in made):
    return figures.message("Every seed diverged: there is nothing to draw.")
  figure = Figure(figsize=(7.5, 3.9), layout="constrained")
  ax = figure.subplots()
  limits = _mean_limits(made, percent)
  scales.set_scale(ax.xaxis, [line.x for line in made], log_x)
  ax.set_ylim(*limits)
  alpha = float(np.clip(0.5 / len(made), 0.08, 0.18))
  entries = []
  for index, line in enumerate(made):
    low, high = (np.clip(end, *limits) for end in (line.low, line.high))
    mean = figures.draw_mean(ax, line.name, index, line.x, line.mean, low, high, alpha)
    if len(line.x) == 1:
      mean.set_markersize(8)
      ax.vlines(line.x, low, high, color=mean.get_color(), linewidth=1.8)
    lost = (~np.isfinite(ys[line.name])).all(axis=1)  # [S]
    label = scales.legend_text(line.name)
    label += f" (diverged: {lost.sum()} of {len(lost)})" if lost.any() else ""
    entries.append((label, figures.mean_line(figures.arm_style(index))))
  ax.set_xlabel(figures.fit(x_label, 6.5))
  ax.set_ylabel(figures.fit(y_label, 3.4))
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
  made = [
    _line(name, index, sizes, [100 * np.asarray(group, float) for group in groups], percent=True)
    for index, (name, (sizes, groups)) in enumerate(arms.items())
  ]
  if not any(np.isfinite(line.mean).any() for line in made):
    return figures.message(scales.NOTHING)
  figure, panels = _comparison(made, "number of networks in the ensemble", "test accuracy (%)")
  limits = _mean_limits(made, percent=True, dots=True)
  for panel in panels:
    _draw_grey(panel, made)
    for place, line in enumerate(panel.lines):
      style = figures.arm_style(line.number)
      x = np.repeat(line.x, [len(values) for values in line.values])
      dots = {"color": style.color, "markersize": 3.5, "markeredgewidth": 0, "alpha": 0.4}
      values = np.concatenate([[], *line.values])  # of no size, where every seed diverged
      panel.ax.plot(x, values, "o", transform=_shifted(panel, place), zorder=2, **dots)
      _draw_line(panel, place, limits)
    _set_ticks(panel, *limits)
    panel.ax.set_ylim(*limits)
  _set_size_axis(panels[0].ax, max(line.x.max(initial=1) for line in made))
  dot = Line2D([], [], color=figures.GREY, linestyle="", marker="o", markersize=3.5, alpha=0.6)
  _finish_comparison(figure, panels, made, [("one ensemble", dot)], "Means over disjoint ensembles")
  return figures.finish(figure)


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
