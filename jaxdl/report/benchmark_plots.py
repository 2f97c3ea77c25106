"""Pictures of measured times, from plain numbers: each one, ratios to a peer, and against size."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from jaxdl.report import figures, scales
from jaxdl.report.picture_data import spread

_NOTHING = "There are no measurements to draw here."


@figures.styled
def ratios(rows: Mapping[str, tuple[float, float, float]], *, x_label: str) -> Figure:
  """Draws ratios on a logarithmic axis, with a line at 1, where both sides are equal.

  Args:
    rows: name -> (median, min, max), all > 0.
    x_label: label of the axis; it should say what a ratio above 1 means.
  """
  if not rows:
    return figures.message(_NOTHING)
  figure = Figure(figsize=(8.0, 0.9 + 0.34 * len(rows)), layout="constrained")
  ax = figure.subplots()
  for index, (median, low, high) in enumerate(rows.values()):
    color = figures.COLORS[0] if median >= 1 else figures.COLORS[1]
    ax.plot([low, high], [index, index], color=color, linewidth=1.5)
    ax.plot(median, index, "o", color=color, markersize=6)
    text = f"{median:.3g} ({low:.3g} to {high:.3g})"
    figures.write_right(ax, index, text, va="center")
  figures.write_right(ax, -0.6, "median (min to max)", va="bottom")
  ax.axvline(1, color="black", linewidth=1)
  labels = [figures.fit(name, 2.6) for name in rows]
  ax.set_yticks(range(len(rows)), labels, fontsize=figures.TEXT_SIZE)
  ax.set_ylim(len(rows) - 0.45, -0.6)
  _set_log_axis(ax.xaxis, [*np.ravel(list(rows.values())), 1.0])
  ax.set_xlabel(x_label)
  figures.add_grid_lines(ax, axis="x")
  return figures.finish(figure)


@figures.styled
def timings(rows: Mapping[str, np.ndarray], *, x_label: str) -> Figure:
  """Draws repeated measurements as dots, with a tick at the median, and writes median and range.

  The axis is logarithmic if all values are positive and span more than a factor of 3.

  Args:
    rows: name -> values `[R]`; values that are not finite are left out.
    x_label: name and unit of the values.
  """
  finite = {name: scales.finite([values]) for name, values in rows.items()}
  if not any(map(len, finite.values())):
    return figures.message(scales.NOTHING)
  labels = [figures.fit(name, 2.6) for name in rows]
  figure = Figure(figsize=(8.5, 0.85 + 0.36 * len(rows)), layout="constrained")
  ax = figure.subplots()
  scales.set_scale(ax.xaxis, list(finite.values()))
  for index, values in enumerate(finite.values()):
    text = "no value"
    if len(values):
      heights = index + 0.4 * spread(len(values)) if len(values) > 1 else [index]
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
  figures.name_rows(ax, range(len(rows)), labels)
  ax.set_ylim(len(rows) - 0.45, -0.55)
  ax.set_xlabel(figures.fit(x_label, 4.0))
  figures.add_grid_lines(ax, axis="x")
  return figures.finish(figure)


def _number(value: float) -> str:
  """Formats a number with three significant digits; from 100 to a million, as a whole number."""
  return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


@figures.styled
def against_size(
  panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]],
  *,
  x_label: str,
  y_label: str,
) -> Figure:
  """Draws times against a size, both on logarithmic axes, with a panel per workload.

  Args:
    panels: workload -> system -> points (size, median, min, max), all > 0. A system has the same
      colour in all panels.
    x_label: name of the size.
    y_label: name and unit of the time.
  """
  panels = {name: lines for name, lines in panels.items() if lines}
  if not panels:
    return figures.message(_NOTHING)
  systems = list(dict.fromkeys(system for lines in panels.values() for system in lines))
  num_columns = min(3, len(panels))
  num_rows = -(-len(panels) // num_columns)
  figure = Figure(figsize=(3.3 * max(num_columns, 2), 2.9 * num_rows), layout="constrained")
  for (name, lines), ax in zip(
    panels.items(), figures.grid(figure, len(panels), num_columns), strict=True
  ):
    points = [point for line in lines.values() for point in line]
    for system, line in lines.items():
      size, median, low, high = np.array(sorted(line), float).T
      mean = figures.mean_line(systems.index(system))
      mean.set_data(size, median)
      ax.fill_between(size, low, high, color=mean.get_color(), alpha=0.15, linewidth=0)
      ax.add_line(mean)
    sizes, times = [p[0] for p in points], [value for p in points for value in p[1:]]
    _set_log_axis(ax.xaxis, sizes)
    _set_log_axis(ax.yaxis, times)
    ax.set_title(figures.fit(name, 2.6, figures.BOLD_SIZE, max_lines=1), fontweight="bold")
    ax.set_xlabel(x_label)  # per panel; the legend would cover a single one
    figures.add_grid_lines(ax)
  figure.supylabel(y_label, fontsize=figures.TEXT_SIZE)
  entries = [
    (figures.fit(system, 2.6, max_lines=1), figures.mean_line(index))
    for index, system in enumerate(systems)
  ]
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _set_log_axis(axis: Axis, values: Sequence[float]) -> None:
  """Makes an axis logarithmic, wide enough for all values, with at least two tick labels."""
  low, high = min(values) / 1.25, max(values) * 1.25
  name = axis.axis_name
  axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
  steps = (1, 2, 5) if high / low < 300 else (1,)
  exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
  ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
  axis.set_ticks([tick for tick in ticks if low <= tick <= high])
  figures.write_plain_ticks(axis)
