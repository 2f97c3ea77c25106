"""Pictures that compare settings, speed, ensembles, layers and claims.

They draw plain arrays by name, so that any experiment can use them. Colour, line style and marker
of a name follow from its position among the names. If there is nothing to draw, the figure says so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from jaxdl.population.results import Population
from jaxdl.report import figures

_NOTHING = "There is no finite value to draw."
# More lines than this cannot be told apart in one panel, so each gets its own panel.
_MOST_LINES = 4


# --- Learning rates ---


@figures.styled
def learning_rates(population: Population) -> Figure:
  """Draws the learning rate of every arm over epochs.

  A thick line is the mean over the seeds that are still training. Thin lines are single seeds, for
  arms in which seeds differ. The axis is logarithmic if the rates span more than a factor of 10; a
  rate of zero is then drawn at the frame.

  Args:
    population: the trained members.
  """
  rates = np.asarray(population.curves["learning_rate"], float)  # [S, A, E]
  if not np.isfinite(rates).any():
    return figures.message(_NOTHING)
  figure = Figure(figsize=(7.5, 3.4), layout="constrained")
  ax = figure.subplots()
  low, high = _set_scale(ax.yaxis, [rates], log=True, least_factor=10)
  drawn = np.clip(rates, low, high)
  epochs = np.arange(1, rates.shape[-1] + 1)
  entries, differ = [], False
  for index, arm in enumerate(population.arms):
    style = figures.arm_style(index)
    some = np.isfinite(drawn[:, index]).any(axis=0)  # [E]
    seeds = drawn[:, index][:, some]  # [S, e]
    if not some.any():
      continue
    if (np.nanmax(seeds, axis=0) > np.nanmin(seeds, axis=0)).any():
      differ = True
      _draw_seeds(ax, epochs[some], seeds, style.color)
    gap = np.full(some.sum(), np.nan)  # no band, because rates are exact
    mean = np.nanmean(seeds, axis=0)
    figures.draw_mean(ax, arm, index, epochs[some], mean, gap, gap, alpha=0)
    entries.append((_legend_text(arm), figures.mean_line(style)))
  ax.set_ylabel("learning rate")
  _set_whole_numbers(ax, 1, len(epochs))
  ax.set_xlabel("epoch")
  figures.add_grid_lines(ax)
  if differ:
    figure.suptitle(f"{len(rates)} seeds: means, and single seeds as thin lines where they differ")
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _draw_seeds(ax: Axes, x: np.ndarray, values: np.ndarray, color: str) -> None:
  """Draws each row of `[S, n]` as a thin line; the more lines, the fainter."""
  lines = [np.column_stack([x, row])[np.isfinite(row)] for row in values]
  alpha = float(np.clip(3 / len(lines), 0.1, 0.5))
  ax.add_collection(LineCollection(lines, colors=color, alpha=alpha, linewidths=0.6), autolim=False)


# --- Augmented images ---


@figures.styled
def augmented_images(images: np.ndarray, augmented: np.ndarray) -> Figure:
  """Shows one image per row, followed by augmented versions of it.

  Args:
    images: K originals, `[K, H, W, D]` uint8, D = 1 (grey) or 3 (RGB).
    augmented: V augmented versions of each, `[K, V, H, W, D]` float in [0, 1].

  Raises:
    ValueError: the shapes do not match, or the images are neither grey nor RGB.
  """
  images, augmented = np.asarray(images), np.asarray(augmented)
  fits = images.ndim == 4 and augmented.ndim == 5 and images.shape[-1] in (1, 3)
  if not fits or augmented.shape[:1] + augmented.shape[2:] != images.shape:
    raise ValueError(
      "images must be [K, H, W, 1 or 3] and augmented [K, V, H, W, D], "
      f"not {images.shape} and {augmented.shape}"
    )
  num_images, num_versions = augmented.shape[:2]
  if not num_images:
    return figures.message("There are no images.")
  # In inches; a gap separates the originals from the augmented images.
  pad, gap, between, head = 0.1, 0.2, 0.06, 0.3
  room = figures.MAX_WIDTH - 2 * pad - gap
  width = min(1.1, room / (num_versions + 1) - between)
  height = width * min(images.shape[1] / images.shape[2], 3)
  step_x, step_y = width + between, height + between
  full = 2 * pad + gap + (num_versions + 1) * step_x
  # The panels fit the maximum width, except for rounding.
  size = (min(full, figures.MAX_WIDTH), head + pad + num_images * step_y)
  figure = Figure(figsize=size)
  for row in range(num_images):
    shown = [images[row] / 255, *np.clip(augmented[row], 0, 1)]
    for column, image in enumerate(shown):
      left = pad + column * step_x + (gap if column else 0)
      bottom = size[1] - head - row * step_y - height
      place = (left / size[0], bottom / size[1], width / size[0], height / size[1])
      ax = figure.add_axes(place, xticks=[], yticks=[])
      image = image[..., 0] if image.shape[-1] == 1 else image
      ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
      ax.spines[:].set_visible(False)
  top = 1 - 0.5 * head / size[1]
  figure.text(pad / size[0], top, "original", va="center")
  if num_versions:
    figure.text((pad + step_x + gap) / size[0], top, "augmented", va="center")
  return figures.finish(figure)


# --- A metric against a setting ---


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
  _set_scale(panels[0].ax.xaxis, [line.x for line in made], log_x)
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
  summaries = [figures.mean_interval(v, limits) if len(v) else nan for v in finite]
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
      ax.set_ylabel(figures.fit(y_label, height, figures.TEXT_SIZE, max_lines=2))
    if index + num_columns >= len(used):  # the last panel of its column
      ax.set_xlabel(figures.fit(x_label, width - 0.3, figures.TEXT_SIZE, max_lines=2))
      ax.tick_params(labelbottom=True)
    if alone:
      ax.set_title(figures.fit(lines[index].name, width - 0.4, figures.TEXT_SIZE, max_lines=2))
  shown = [[line] for line in lines] if alone else [lines]
  return figure, [_Panel(ax, part, width, height) for ax, part in zip(used, shown, strict=True)]


def _range_text(counts: Sequence[int]) -> str:
  least, most = min(counts), max(counts)
  return str(most) if least == most else f"{least} to {most}"


def _finish_comparison(figure, panels, lines, entries, title: str) -> None:
  """Adds the title and the legend; a single panel has the names of the lines in the legend."""
  if len(panels) == 1:
    styles = [figures.mean_line(figures.arm_style(index)) for index in range(len(lines))]
    names = [_legend_text(line.name) for line in lines]
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
  every = _finite(parts)
  ends = _finite([end for line in lines for end in (line.low, line.high)])
  low, high = every.min(), every.max()
  widen = 0.25 * (high - low) or math.inf
  low = max(low - widen, min(ends.min(initial=low), low))
  most = max(100, high) if percent else math.inf
  high = min(high + widen, max(ends.max(initial=high), high), most)
  pad = 0.06 * (high - low) or 0.02 * abs(high) or 0.02
  return low - pad, high + (pad if high < most else pad / 3)


# --- Accuracy against time or examples ---


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
  _set_scale(ax.xaxis, [line.x for line in made], log_x)
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
    label = _legend_text(line.name)
    label += f" (diverged: {lost.sum()} of {len(lost)})" if lost.any() else ""
    entries.append((label, figures.mean_line(figures.arm_style(index))))
  ax.set_xlabel(figures.fit(x_label, 6.5, figures.TEXT_SIZE, max_lines=2))
  ax.set_ylabel(figures.fit(y_label, 3.4, figures.TEXT_SIZE, max_lines=2))
  figures.add_grid_lines(ax)
  counts = [len(y) for y in ys.values()]
  if max(counts) > 1:
    figure.suptitle(f"{_range_text(counts)} seeds: means with 95% intervals")
  figures.add_legend(figure, entries)
  return figures.finish(figure)


# --- Timings ---


@figures.styled
def timings(rows: Mapping[str, np.ndarray], *, x_label: str, log: bool = True) -> Figure:
  """Draws repeated measurements as dots, with a tick at the median, and writes median and range.

  Args:
    rows: name -> values `[R]`; values that are not finite are left out.
    x_label: name and unit of the values.
    log: use a logarithmic axis if all values are positive and span more than a factor of 3.
  """
  finite = {name: _finite([values]) for name, values in rows.items()}
  if not any(map(len, finite.values())):
    return figures.message(_NOTHING)
  labels = [figures.fit(name, 2.6, figures.TEXT_SIZE, max_lines=2) for name in rows]
  figure = Figure(figsize=(8.5, 0.85 + 0.36 * len(rows)), layout="constrained")
  ax = figure.subplots()
  _set_scale(ax.xaxis, list(finite.values()), log)
  for index, values in enumerate(finite.values()):
    text = "no value"
    if len(values):
      heights = index + 0.4 * _spread(len(values))
      dots = {"color": figures.COLORS[0], "markersize": 4, "markeredgewidth": 0}
      alpha = float(np.clip(6 / len(values), 0.25, 0.6))
      ax.plot(values, heights, "o", alpha=alpha, zorder=4, **dots)
      median = np.median(values)
      ax.vlines(median, index - 0.3, index + 0.3, color="black", linewidth=1.8, zorder=3)
      text = _number(median)
      if len(values) > 1:
        text += f" ({_number(values.min())} to {_number(values.max())})"
    figures.write_right(ax, index, text, va="center")
  figures.write_right(ax, -0.55, "median (min to max)", va="bottom")
  ax.set_yticks(range(len(rows)), labels, fontsize=figures.TEXT_SIZE)
  ax.set_ylim(len(rows) - 0.45, -0.55)
  ax.set_xlabel(figures.fit(x_label, 4.0, figures.TEXT_SIZE, max_lines=2))
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)
  figures.add_grid_lines(ax, axis="x")
  return figures.finish(figure)


def _number(value: float) -> str:
  """Formats a number with three significant digits; from 100 to a million, as a whole number."""
  return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def _spread(num: int) -> np.ndarray:
  """Returns `num` offsets that fill [-0.5, 0.5] evenly: multiples of the golden ratio, modulo 1."""
  if num == 1:
    return np.zeros(1)
  return np.arange(1, num + 1) * (math.sqrt(5) - 1) / 2 % 1 - 0.5


# --- Ensembles ---


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
    return figures.message(_NOTHING)
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


# --- Layers ---

Panels = Mapping[tuple[str, str], Mapping[str, np.ndarray]]


@figures.styled
def layer_profile(
  profiles: Panels, *, y_label: str, log_y: bool = True, log_floor: float = 1e-12
) -> Figure:
  """Draws a quantity of each layer, e.g. the norm of its gradient, in rows and columns of panels.

  A line is the mean over seeds (on a logarithmic axis, the geometric mean); the band is the range
  of the seeds. A logarithmic axis shows values below the floor, also zero, at the floor. Values
  that are not finite are left out, and the panel says how many lines have any.

  Args:
    profiles: (label of the row, label of the column) -> {name of the line -> values `[S, L]`}.
    y_label: name and unit of the values.
    log_y: use a logarithmic y axis.
    log_floor: the smallest value that a logarithmic axis shows.
  """
  return _profile_panels(profiles, 1, "layer", y_label, log_floor if log_y else None)


@figures.styled
def layer_training(
  profiles: Mapping[tuple[str, str], np.ndarray],
  *,
  y_label: str,
  log_y: bool = True,
  log_floor: float = 1e-12,
) -> Figure:
  """Draws a quantity of the first and the last layer over epochs, in panels as `layer_profile`.

  Args:
    profiles: (label of the row, label of the column) -> values `[S, E + 1, L]`; epoch 0 is before
      training.
    y_label: name and unit of the values.
    log_y: use a logarithmic y axis.
    log_floor: the smallest value that a logarithmic axis shows.
  """
  ends = {"first layer": 0, "last layer": -1}
  panels = {
    place: {name: np.asarray(values)[:, :, layer] for name, layer in ends.items()}
    for place, values in profiles.items()
  }
  label = "epoch (0: at initialisation)"
  return _profile_panels(panels, 0, label, y_label, log_floor if log_y else None)


def _profile_panels(
  profiles: Panels, first: int, x_label: str, y_label: str, floor: float | None
) -> Figure:
  """Draws panels of lines `[S, n]`, with x counted from `first`; y is linear without a floor."""
  rows = list(dict.fromkeys(row for row, _ in profiles))
  columns = list(dict.fromkeys(column for _, column in profiles))
  names = list(dict.fromkeys(name for lines in profiles.values() for name in lines))
  every = _finite([values for lines in profiles.values() for values in lines.values()])
  if not len(every):
    return figures.message(_NOTHING)
  width = min((figures.MAX_WIDTH - 0.8) / len(columns), 4.5)
  height = 1.6 if len(rows) > 1 else 2.4
  size = (min(len(columns) * width + 0.8, figures.MAX_WIDTH), len(rows) * height + 0.5)
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots(len(rows), len(columns), squeeze=False, sharey=True)
  drawn = every if floor is None else np.maximum(every, floor)
  limits = _set_scale(axes[0, 0].yaxis, [drawn], log=floor is not None, least_factor=1)
  for (i, j), ax in np.ndenumerate(axes):
    lines = profiles.get((rows[i], columns[j]), {})
    _draw_profiles(ax, lines, names, first, floor)
    figures.add_grid_lines(ax)
    if i == 0:
      ax.set_title(figures.fit(columns[j], width - 0.3, figures.TEXT_SIZE, max_lines=2))
    if i == len(rows) - 1:
      ax.set_xlabel(figures.fit(x_label, width - 0.2, figures.TEXT_SIZE, max_lines=2))
    if j == 0:
      row = figures.fit(rows[i], height - 0.3, figures.TEXT_SIZE, max_lines=2)
      unit = figures.fit(y_label, height - 0.3, figures.SMALL_TEXT_SIZE, max_lines=2)
      ax.set_ylabel(f"{row}\n{unit}")
  axes[0, 0].set_ylim(*limits)
  num_seeds = max(len(values) for lines in profiles.values() for values in lines.values())
  if num_seeds > 1:
    mean = "means" if floor is None else "geometric means"
    figure.suptitle(f"{num_seeds} seeds: {mean}, bands from the lowest to the highest seed")
  styles = [figures.mean_line(figures.arm_style(index)) for index in range(len(names))]
  figures.add_legend(figure, list(zip(map(_legend_text, names), styles, strict=True)))
  return figures.finish(figure)


def _draw_profiles(
  ax: Axes, lines: Mapping[str, np.ndarray], names: list[str], first: int, floor: float | None
) -> None:
  """Draws the lines `[S, n]` of one panel, and says how many have values that are not finite."""
  alpha = float(np.clip(0.5 / max(len(lines), 1), 0.08, 0.18))
  num_broken, last = 0, first
  for name, values in lines.items():
    values = np.asarray(values, float)
    num_broken += not np.isfinite(values).all()
    last = max(last, first + values.shape[1] - 1)
    some = np.isfinite(values).any(axis=0)  # [n]
    kept = np.where(np.isfinite(values), values, np.nan)[:, some]
    if not some.any():
      continue
    if floor is not None:
      kept = np.maximum(kept, floor)
    mean = np.nanmean(kept, axis=0) if floor is None else np.exp(np.nanmean(np.log(kept), axis=0))
    x = first + np.flatnonzero(some)
    low, high = np.nanmin(kept, axis=0), np.nanmax(kept, axis=0)
    figures.draw_mean(ax, name, names.index(name), x, mean, low, high, alpha)
  _set_whole_numbers(ax, first, last)
  if num_broken:
    text = f"not finite: {num_broken} of {len(lines)} lines"
    style = {"ha": "right", "va": "top", "fontsize": 7, "color": figures.GREY}
    style["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    ax.text(0.98, 0.98, text, transform=ax.transAxes, zorder=5, **style)


# --- Claims ---


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
def forest(rows: Sequence[ForestRow], *, title: str | None = None) -> Figure:
  """Draws the effect of each row with its interval, in units of its margin.

  The axis is linear between -1 and 1, where an effect is within its margin, and logarithmic
  beyond. Values past its ends are drawn at the frame. If an effect is not finite or a margin is not
  positive, the row has only its text.

  Args:
    rows: claims or pairs of arms, from top to bottom.
    title: title of the figure; None: no title.

  Raises:
    ValueError: a verdict is neither one of `jaxdl.stats.ledger` nor of `jaxdl.stats`.
  """
  if not rows:
    return figures.message("There is nothing to compare.")
  unknown = {row.verdict for row in rows} - set(_VERDICTS)
  if unknown:
    raise ValueError(f"verdicts must be {', '.join(_VERDICTS)}, not {', '.join(sorted(unknown))}")
  labels = [figures.fit(row.label, 3.4, figures.TEXT_SIZE, max_lines=4) for row in rows]
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
  ax.set_yticks(places, labels, fontsize=figures.TEXT_SIZE)
  ax.set_ylim(bottoms[-1], 0)
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)
  if title:
    figure.suptitle(figures.fit(title, figures.MAX_WIDTH - 0.4, figures.BOLD_SIZE, max_lines=2))
  figures.add_legend(figure, _forest_legend(rows))
  return figures.finish(figure)


def _in_margins(row: ForestRow) -> tuple[float, float, float]:
  """Returns effect, low and high in units of the margin; NaN if there is no such number."""
  if not (math.isfinite(row.effect) and 0 < row.margin < math.inf):
    return (math.nan,) * 3
  return row.effect / row.margin, row.low / row.margin, row.high / row.margin


def _set_forest_axis(ax: Axes, scaled: list[tuple[float, float, float]]) -> float:
  """Sets up a symmetric x axis and returns its limit."""
  effects = np.abs(_finite([[effect for effect, _, _ in scaled]]))
  ends = np.abs(_finite([[low, high] for _, low, high in scaled]))
  most = effects.max(initial=0.0)
  # Wide intervals widen the axis, but not so far that they dwarf everything else.
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


# --- Axes ---


def _legend_text(name: str) -> str:
  return figures.fit(name, 3.2, figures.TEXT_SIZE, max_lines=2)


def _finite(parts: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the finite values of all arrays as one flat array."""
  values = np.concatenate([np.ravel(np.asarray(part, float)) for part in parts] or [[]])
  return values[np.isfinite(values)]


def _set_whole_numbers(ax: Axes, first: int, last: int) -> None:
  """Sets up an x axis for whole numbers from `first` to `last`."""
  # Below 1, so that there is no tick before the first.
  margin = float(np.clip(0.025 * (last - first), 0.3, 0.9))
  ax.set_xlim(first - margin, last + margin)
  few = last - first <= 6
  ax.xaxis.set_major_locator(
    ticker.FixedLocator(range(first, last + 1))
    if few
    else ticker.MaxNLocator("auto", integer=True, min_n_ticks=1)
  )


def _set_scale(
  axis: Axis, parts: Sequence[np.ndarray], log: bool, least_factor: float = 3
) -> tuple[float, float]:
  """Sets the scale and limits of an axis so that it holds all finite values; returns the limits.

  The axis is logarithmic if `log` is set and the positive values span more than `least_factor`. An
  x axis is linear unless all of its values are positive.
  """
  values = _finite(parts)
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  is_x = axis.axis_name == "x"
  least = values[values > 0].min(initial=math.inf)
  set_limits = axis.axes.set_xlim if is_x else axis.axes.set_ylim
  if log and high > least_factor * least and not (is_x and low <= 0):
    (axis.axes.set_xscale if is_x else axis.axes.set_yscale)("log")
    pad = (high / least) ** 0.04
    limits = (least / pad, high * pad)
    axis.set_major_locator(ticker.FixedLocator(_log_ticks(*limits)))
    figures.write_plain_ticks(axis)
  else:
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.05
    limits = (low - pad, high + pad)
  set_limits(*limits)
  return limits


def _log_ticks(low: float, high: float) -> list[float]:
  """Returns at most about six ticks for a logarithmic axis, which the layout cannot change."""
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  decades = math.log10(high / low)
  step = max(1, math.ceil(decades / 6))
  digits = (1, 2, 5) if decades < 2.2 else (1,)
  powers = [power for power in range(first, last + 1) if power % step == 0]
  ticks = [digit * 10.0**power for power in powers for digit in digits]
  return [tick for tick in ticks if low <= tick <= high]
