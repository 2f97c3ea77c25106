"""Pictures of what happens in each layer of a network."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxdl.report import figures, scales

# The smallest value that a logarithmic axis shows.
_FLOOR = 1e-12

Panels = Mapping[tuple[str, str], Mapping[str, np.ndarray]]


@figures.styled
def layer_profile(profiles: Panels, *, y_label: str, log_y: bool = True) -> Figure:
  """Draws a quantity of each layer, e.g. the norm of its gradient, in rows and columns of panels.

  A line is the mean over seeds (on a logarithmic axis, the geometric mean); the band is the range
  of the seeds. A logarithmic axis shows values below 1e-12, also zero, there. Values that are not
  finite are left out, and the panel says how many lines have any.

  Args:
    profiles: (label of the row, label of the column) -> {name of the line -> values `[S, L]`}.
    y_label: name and unit of the values.
    log_y: use a logarithmic y axis.
  """
  return _profile_panels(profiles, 1, "layer", y_label, _FLOOR if log_y else None)


@figures.styled
def layer_training(
  profiles: Mapping[tuple[str, str], np.ndarray],
  *,
  y_label: str,
  log_y: bool = True,
) -> Figure:
  """Draws a quantity of the first and the last layer over epochs, in panels as `layer_profile`.

  Args:
    profiles: (label of the row, label of the column) -> values `[S, E + 1, L]`; epoch 0 is before
      training.
    y_label: name and unit of the values.
    log_y: use a logarithmic y axis.
  """
  ends = {"first layer": 0, "last layer": -1}
  panels = {
    place: {name: np.asarray(values)[:, :, layer] for name, layer in ends.items()}
    for place, values in profiles.items()
  }
  label = "epoch (0: at initialisation)"
  return _profile_panels(panels, 0, label, y_label, _FLOOR if log_y else None)


def _profile_panels(
  profiles: Panels, first: int, x_label: str, y_label: str, floor: float | None
) -> Figure:
  """Draws panels of lines `[S, n]`, with x counted from `first`; y is linear without a floor."""
  rows = list(dict.fromkeys(row for row, _ in profiles))
  columns = list(dict.fromkeys(column for _, column in profiles))
  names = list(dict.fromkeys(name for lines in profiles.values() for name in lines))
  every = scales.finite([values for lines in profiles.values() for values in lines.values()])
  if not len(every):
    return figures.message(scales.NOTHING)
  width = min((figures.MAX_WIDTH - 0.8) / len(columns), 4.5)
  height = 1.6 if len(rows) > 1 else 2.4
  size = (min(len(columns) * width + 0.8, figures.MAX_WIDTH), len(rows) * height + 0.5)
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots(len(rows), len(columns), squeeze=False, sharey=True)
  drawn = every if floor is None else np.maximum(every, floor)
  limits = scales.set_scale(axes[0, 0].yaxis, [drawn], log=floor is not None, least_factor=1)
  for (i, j), ax in np.ndenumerate(axes):
    lines = profiles.get((rows[i], columns[j]), {})
    _draw_profiles(ax, lines, names, first, floor)
    figures.add_grid_lines(ax)
    if i == 0:
      ax.set_title(figures.fit(columns[j], width - 0.3))
    if i == len(rows) - 1:
      ax.set_xlabel(figures.fit(x_label, width - 0.2))
    if j == 0:
      row = figures.fit(rows[i], height - 0.3)
      unit = figures.fit(y_label, height - 0.3, figures.SMALL_TEXT_SIZE)
      ax.set_ylabel(f"{row}\n{unit}")
  axes[0, 0].set_ylim(*limits)
  num_seeds = max(len(values) for lines in profiles.values() for values in lines.values())
  if num_seeds > 1:
    mean = "means" if floor is None else "geometric means"
    figure.suptitle(f"{num_seeds} seeds: {mean}, bands from the lowest to the highest seed")
  entries = [(figures.legend_text(n), figures.mean_line(index)) for index, n in enumerate(names)]
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _draw_profiles(
  ax: Axes, lines: Mapping[str, np.ndarray], names: list[str], first: int, floor: float | None
) -> None:
  """Draws the lines `[S, n]` of one panel, and says how many have values that are not finite."""
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
    figures.draw_mean(ax, name, names.index(name), x, mean, low, high, num_arms=len(lines))
  scales.set_whole_numbers(ax, first, last)
  if num_broken:
    text = f"not finite: {num_broken} of {len(lines)} lines"
    style = {"ha": "right", "va": "top", "fontsize": 7, "color": figures.GREY}
    style["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    ax.text(0.98, 0.98, text, transform=ax.transAxes, zorder=5, **style)
