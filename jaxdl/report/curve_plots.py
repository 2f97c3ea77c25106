"""Pictures of a population by epoch: learning curves and learning rates."""

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxdl.optim import losses
from jaxdl.population.results import Population
from jaxdl.report import figures, scales
from jaxdl.report.arm_text import seeds_text
from jaxdl.report.picture_data import (
  curve_interval,
  curve_limits,
  last_points,
  mean_curves,
  valid_curves,
  whole_number_limits,
)


@figures.styled
def learning_curves(population: Population, behind: Population | None = None) -> Figure:
  """Draws loss and accuracy over epochs, in training and, if there is any, in validation.

  If targets are numbers there is no accuracy.

  A thin line is one member, a thick line an arm's mean over seeds, and the band the 95% interval of
  that mean at each epoch (Student's t over seeds; no band for one seed). Mean and band are over the
  same seeds at every epoch: a member that stopped early keeps its last value until the last member
  of its arm stops, and members that diverged are left out. A dot marks the epoch in which a member
  stopped early, a cross the last epoch before a member diverged.

  The limits of the axes are those of the members that did not diverge, so that neither a wide band
  nor a diverging member flattens the other curves. Values beyond the limits are drawn at the frame.
  The axis of the loss is logarithmic if these members span more than a factor of 100.

  Args:
    population: the trained members; losses in nats, accuracies in [0, 1] (shown in %).
    behind: members of further arms, whose means are thin and grey.

  Returns:
    A figure with rows loss and accuracy and columns training and validation; without validation,
    one row with loss and accuracy.
  """
  units = {"loss": "nats", "accuracy": "%"} if population.has_classes else {"loss": ""}
  splits = {"train": "training"}
  if any(np.isfinite(population.curves[f"val_{metric}"]).any() for metric in units):
    splits["val"] = "validation"
  paired = "val" in splits
  shape = (len(units), 2) if paired else (1, len(units))
  figure = Figure(figsize=(figures.MAX_WIDTH, 2.75 * shape[0] + 0.4), layout="constrained")
  sharey = "row" if paired else False
  axes = figure.subplots(*shape, squeeze=False, sharex=True, sharey=sharey)
  rows = axes if paired else axes.T  # [metric, split]
  for (metric, unit), row in zip(units.items(), rows, strict=True):
    curves = {split: valid_curves(population, f"{split}_{metric}") for split in splits}
    limits, log = curve_limits(population, metric, list(curves.values()))
    row[0].set_ylabel(f"{metric} ({unit})" if unit else metric)
    for ax, (split, title) in zip(row, splits.items(), strict=True):
      ax.set_title(f"{title} {metric}" + (_threshold_text(population) if unit == "%" else ""))
      _set_curve_axes(ax, curves[split].shape[-1], limits, log)
      if behind is not None:
        _draw_behind(ax, behind, f"{split}_{metric}")
      _draw_curves(ax, population, metric, curves[split], limits)
  for ax in axes[-1]:
    ax.set_xlabel("epoch")
  if len(population.seeds) > 1:
    diverged = (population.status == "diverged").any()
    figure.suptitle(
      f"{seeds_text(population)}: means{' of those that did not diverge' if diverged else ''} "
      "with 95% intervals, and single seeds as thin lines"
    )
  entries = _curve_legend(population)
  if behind is not None:
    thin = Line2D([], [], color="0.75", linewidth=0.8)
    entries.append((f"means of all {len(behind.arms):,} arms", thin))
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _draw_behind(ax: Axes, population: Population, name: str) -> None:
  """Draws the mean of each arm as a thin grey line; in an SVG they are one picture."""
  means = mean_curves(population, name)  # [A, E]
  epochs = np.arange(1, means.shape[-1] + 1)
  lines = [np.column_stack([epochs, mean])[np.isfinite(mean)] for mean in means]
  alpha = float(np.clip(30 / len(lines), 0.15, 1))
  style = {"colors": "0.6", "linewidths": 0.6, "alpha": alpha, "rasterized": True, "zorder": 0.9}
  ax.add_collection(LineCollection(lines, **style), autolim=False)


def _threshold_text(population: Population) -> str:
  """Returns a text with the decision thresholds, or "" if no model has a single output."""
  thresholds = {
    f"{arm.threshold:g}" for arm in population.arms.values() if losses.has_threshold(arm.loss)
  }
  return f" (threshold {', '.join(sorted(thresholds))})" if thresholds else ""


def _draw_curves(
  ax: Axes, population: Population, metric: str, curves: np.ndarray, limits: tuple[float, float]
) -> None:
  """Draws a metric of all members, `[S, A, E]`, and each arm's mean with its interval."""
  for index, arm in enumerate(population.arms):
    color = figures.arm_style(index).color
    interval = curve_interval(population, index, curves[:, index], metric)
    epochs = np.arange(1, len(interval[0]) + 1)
    if len(epochs):
      figures.draw_mean(ax, arm, index, epochs, *interval, len(population.arms))
    drawn = np.clip(curves[:, index], *limits)  # [S, E]
    # A single seed is its own mean, unless it diverged.
    alone = len(drawn) == 1 and len(epochs)
    _draw_members(ax, drawn[:0] if alone else drawn, color)
    worst = limits[1] if metric == "loss" else limits[0]
    for _, status, *point in last_points(population, index, drawn, worst):
      if status == "early_stopped":
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        ax.plot(*point, "o", color=color, markersize=3, zorder=4, **edge)
      else:
        edge = {"markeredgewidth": 1.4, "clip_on": False}
        ax.plot(*point, "x", color=color, markersize=6, zorder=5, **edge)


def _draw_members(ax: Axes, curves: np.ndarray, color: str) -> None:
  """Draws each curve of `[S, E]` as a thin line, or as a dot if it has one point."""
  lines, alpha = _draw_seeds(ax, np.arange(1, curves.shape[-1] + 1), curves, color)
  for line in lines:
    if len(line) == 1:
      ax.plot(*line.T, ".", color=color, alpha=alpha, markersize=4)


def _set_curve_axes(ax: Axes, num_epochs: int, limits: tuple[float, float], log: bool) -> None:
  ax.set_xlim(*whole_number_limits(1, num_epochs))
  ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
  if log:
    ax.set_yscale("log")
    figures.write_plain_ticks(ax.yaxis)
  ax.set_ylim(*limits)
  figures.add_grid_lines(ax)


def _curve_legend(population: Population) -> list[tuple[str, Line2D]]:
  """Returns the entries of the legend as (text, line)."""
  entries, diverged = [], population.status == "diverged"
  for index, arm in enumerate(population.arms):
    entries.append((figures.legend_text(arm, diverged[:, index]), figures.mean_line(index)))
  for status, text, marker, size in (
    ("early_stopped", "stopped early", "o", 3),
    ("diverged", "diverged", "x", 6),
  ):
    if (population.status == status).any():
      entries.append((text, figures.grey_mark(marker, size)))
  return entries


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
    return figures.message(scales.NOTHING)
  figure = Figure(figsize=(7.5, 3.4), layout="constrained")
  ax = figure.subplots()
  drawn = np.clip(rates, *scales.set_scale(ax.yaxis, [rates], least_factor=10))
  epochs = np.arange(1, rates.shape[-1] + 1)
  entries, differ = [], False
  for index, arm in enumerate(population.arms):
    some = np.isfinite(drawn[:, index]).any(axis=0)  # [E]
    seeds = drawn[:, index][:, some]  # [S, e]
    if not some.any():
      continue
    if (np.nanmax(seeds, axis=0) > np.nanmin(seeds, axis=0)).any():
      differ = True
      _draw_seeds(ax, epochs[some], seeds, figures.arm_style(index).color)
    gap = np.full(some.sum(), np.nan)  # no band, because rates are exact
    figures.draw_mean(ax, arm, index, epochs[some], np.nanmean(seeds, axis=0), gap, gap, num_arms=1)
    entries.append((figures.legend_text(arm), figures.mean_line(index)))
  ax.set_ylabel("learning rate")
  scales.set_whole_numbers(ax, 1, len(epochs))
  ax.set_xlabel("epoch")
  figures.add_grid_lines(ax)
  if differ:
    figure.suptitle(f"{len(rates)} seeds: means, and single seeds as thin lines where they differ")
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _draw_seeds(
  ax: Axes, x: np.ndarray, values: np.ndarray, color: str
) -> tuple[list[np.ndarray], float]:
  """Draws each row of `[S, n]` as a thin line, the more the fainter; returns points and opacity."""
  lines = [np.column_stack([x, row])[np.isfinite(row)] for row in values]
  alpha = float(np.clip(3 / max(len(lines), 1), 0.1, 0.5))
  ax.add_collection(LineCollection(lines, colors=color, alpha=alpha, linewidths=0.6), autolim=False)
  return lines, alpha
