"""Pictures of a population. An arm has the same colour, line style and marker in all of them.

`jaxdl.report.figures` has what these pictures share with all others.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from jaxdl import stats
from jaxdl.errors import InputError, unknown_name
from jaxdl.optim import losses
from jaxdl.population.results import RATES, Population
from jaxdl.report import figures
from jaxdl.report.markdown import seeds_text

# --- Learning curves ---


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
      worst = limits[1] if metric == "loss" else limits[0]
      possible = (0, 100) if unit == "%" else (0, np.inf)
      if behind is not None:
        _draw_behind(ax, behind, f"{split}_{metric}")
      _draw_curves(ax, population, curves[split], limits, worst, possible)
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
    entries.append((f"means of all {len(behind.arms):,} arms", _behind_line()))
  figures.add_legend(figure, entries)
  return figures.finish(figure)


def _behind_line() -> Line2D:
  return Line2D([], [], color="0.75", linewidth=0.8)


def _draw_behind(ax: Axes, population: Population, name: str) -> None:
  """Draws the mean of each arm as a thin grey line; in an SVG they are one picture."""
  means = mean_curves(population, name)  # [A, E]
  epochs = np.arange(1, means.shape[-1] + 1)
  lines = [np.column_stack([epochs, mean])[np.isfinite(mean)] for mean in means]
  alpha = float(np.clip(30 / len(lines), 0.15, 1))
  style = {"colors": "0.6", "linewidths": 0.6, "alpha": alpha, "rasterized": True, "zorder": 0.9}
  ax.add_collection(LineCollection(lines, **style), autolim=False)


def mean_curves(population: Population, name: str) -> np.ndarray:
  """Returns the mean curve of each arm in the unit shown, `[A, E]`, NaN after its last epoch."""
  curves = valid_curves(population, name)
  means = np.full(curves.shape[1:], np.nan)
  for index, mean in enumerate(means):
    kept = population.status[:, index] != "diverged"
    if kept.any():
      values = last_kept(curves[kept, index], population.epochs[kept, index])
      mean[: values.shape[-1]] = values.mean(axis=0)
  return means


def _threshold_text(population: Population) -> str:
  """Returns a text with the decision thresholds, or "" if no model has a single output."""
  thresholds = {
    f"{arm.threshold:g}" for arm in population.arms.values() if losses.has_threshold(arm.loss)
  }
  return f" (threshold {', '.join(sorted(thresholds))})" if thresholds else ""


def valid_curves(population: Population, name: str) -> np.ndarray:
  """Returns curves `[S, A, E]` in the unit shown; a diverged member is NaN from that epoch on.

  In that epoch the loss is not finite, so the accuracy has no meaning either.
  """
  curves = population.curves[name] * (100 if name in ("train_accuracy", "val_accuracy") else 1)
  num_valid = population.epochs - (population.status == "diverged")  # [S, A]
  valid = np.arange(curves.shape[-1]) < num_valid[..., None]  # [S, A, E]
  return np.where(valid & np.isfinite(curves), curves, np.nan)


def _draw_curves(
  ax: Axes,
  population: Population,
  curves: np.ndarray,
  limits: tuple[float, float],
  worst: float,
  possible: tuple[float, float],
) -> None:
  """Draws the curves of all members, and each arm's mean with its interval.

  Args:
    ax: axes to draw in.
    population: the members.
    curves: `[S, A, E]`, one metric of the members.
    limits: limits of the y axis.
    worst: the limit at the bad end of the y axis.
    possible: smallest and largest possible value of the metric; intervals are cut there.
  """
  num_seeds = len(population.seeds)
  for index, arm in enumerate(population.arms):
    style = figures.arm_style(index)
    epochs, status = population.epochs[:, index], population.status[:, index]  # [S]
    kept = population.has_result[:, index]
    if kept.any():
      # With many arms, darker bands would hide everything else.
      alpha = float(np.clip(0.5 / len(population.arms), 0.08, 0.18))
      overlap = population.overlap or 0.0
      interval = curve_interval(curves[kept, index], epochs[kept], possible, overlap)
      figures.draw_mean(ax, arm, index, np.arange(1, len(interval[0]) + 1), *interval, alpha)
    # A single seed is its own mean, unless it diverged.
    drawn = np.clip(curves[:, index], *limits)  # [S, E]
    _draw_members(ax, drawn if num_seeds > 1 else drawn[~kept], style.color)
    _mark_ends(ax, drawn, status, style.color, worst)


def _draw_members(ax: Axes, curves: np.ndarray, color: str) -> None:
  """Draws each curve of `[S, E]` as a thin line, or as a dot if it has one point."""
  epochs = np.arange(1, curves.shape[-1] + 1)
  lines = [np.column_stack([epochs, curve])[np.isfinite(curve)] for curve in curves]
  alpha = float(np.clip(3 / max(len(lines), 1), 0.1, 0.5))
  ax.add_collection(LineCollection(lines, colors=color, alpha=alpha, linewidths=0.6), autolim=False)
  for line in lines:
    if len(line) == 1:
      ax.plot(*line.T, ".", color=color, alpha=alpha, markersize=4)


def _mark_ends(ax: Axes, curves: np.ndarray, status: np.ndarray, color: str, worst: float) -> None:
  """Marks the last point of each curve of `[S, E]` that stopped early or diverged."""
  for curve, end in zip(curves, status, strict=True):
    last = np.flatnonzero(np.isfinite(curve))
    # A member that diverged in its first epoch has no values.
    epoch, value = (last[-1] + 1, curve[last[-1]]) if len(last) else (1, worst)
    if end == "early_stopped":
      edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
      ax.plot(epoch, value, "o", color=color, markersize=3, zorder=4, **edge)
    elif end == "diverged":
      edge = {"markeredgewidth": 1.4, "clip_on": False}
      ax.plot(epoch, value, "x", color=color, markersize=6, zorder=5, **edge)


def curve_interval(
  curves: np.ndarray, num_epochs: np.ndarray, possible: tuple[float, float], overlap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the mean of curves `[n, E]` over seeds and the ends of its 95% interval, each `[E]`.

  A curve keeps the value of its last epoch, `num_epochs` `[n]`, until the longest curve ends.
  """
  return figures.mean_interval(last_kept(curves, num_epochs), possible, overlap)


def last_kept(curves: np.ndarray, num_epochs: np.ndarray) -> np.ndarray:
  """Returns curves `[n, E]` that keep their last value until the longest curve ends."""
  index = np.minimum(np.arange(num_epochs.max()), num_epochs[:, None] - 1)  # [n, E]
  return np.take_along_axis(curves, index, axis=1)


def curve_limits(
  population: Population, metric: str, curves: list[np.ndarray]
) -> tuple[tuple[float, float], bool]:
  """Returns limits for the curves `[S, A, E]` of a metric, and whether the axis is logarithmic."""
  every = np.stack(curves)
  kept = every[:, population.has_result]
  values = kept[np.isfinite(kept)] if np.isfinite(kept).any() else every[np.isfinite(every)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  least = values[values > 0].min(initial=np.inf)
  if metric == "loss" and high > 100 * least:
    pad = (high / least) ** 0.04
    return (least / pad, high * pad), True
  pad = 0.04 * (high - low) or 0.05
  return (low - pad, high + pad), False


def _set_curve_axes(ax: Axes, num_epochs: int, limits: tuple[float, float], log: bool) -> None:
  # Below 1, so that there is no tick for epoch 0.
  margin = float(np.clip(0.025 * (num_epochs - 1), 0.3, 0.9))
  ax.set_xlim(1 - margin, num_epochs + margin)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
  if log:
    ax.set_yscale("log")
    figures.write_plain_ticks(ax.yaxis)
  ax.set_ylim(*limits)
  figures.add_grid_lines(ax)


def _curve_legend(population: Population) -> list[tuple[str, Line2D]]:
  """Returns the entries of the legend as (text, line)."""
  entries = []
  for index, arm in enumerate(population.arms):
    label = _arm_label(arm, _has_diverged(population, arm), width=3.2, separator=" ")
    entries.append((label, figures.mean_line(figures.arm_style(index))))
  for status, text, marker, size in (
    ("early_stopped", "stopped early", "o", 3),
    ("diverged", "diverged", "x", 6),
  ):
    if (population.status == status).any():
      mark = Line2D([], [], color=figures.GREY, linestyle="", marker=marker, markersize=size)
      entries.append((text, mark))
  return entries


# --- Confusion matrices ---


@figures.styled
def confusion_matrices(population: Population) -> Figure:
  """Draws each arm's confusion matrix, pooled over the seeds that did not diverge.

  A cell shows its count and its share of the true class, i.e. of its row; with more than four
  classes only the diagonal shows shares. The colour is the share, on a square-root scale, because a
  good classifier's mistakes are a few percent. With more than 26 classes there is only colour.

  Args:
    population: the trained members; confusion `[S, A, C, C]`, rows true, columns predicted.

  Returns:
    A figure with one panel per arm. Titles of models with one output state the threshold.
  """
  counts = population.confusion.sum(axis=0)  # [A, C, C]
  num_arms, num_classes = counts.shape[:2]
  totals = counts.sum(axis=-1, keepdims=True)  # [A, C, 1]
  rates = counts / np.maximum(totals, 1)  # [A, C, C]
  labels = [
    figures.fit(name, 1.1, figures.SMALL_TEXT_SIZE, max_lines=1) for name in population.class_names
  ]
  label_width = max(figures.text_width(label, figures.SMALL_TEXT_SIZE) for label in labels)
  num_columns, panel, leaning = _confusion_layout(num_arms, num_classes, label_width)
  num_rows = math.ceil(num_arms / num_columns)
  titles = [_confusion_title(population, arm, panel) for arm in population.arms]
  title_height = 0.15 * (1 + max(title.count("\n") for title in titles))
  row_height = panel + title_height + 0.55 + leaning
  figsize = (
    # The layout respects this limit, except for rounding.
    min(num_columns * (panel + 0.2 + leaning) - leaning + label_width + 1.3, figures.MAX_WIDTH),
    num_rows * row_height + 0.1,
  )
  figure = Figure(figsize=figsize, layout="compressed")
  axes = figures.grid(figure, num_arms, num_columns)
  for index, (ax, title) in enumerate(zip(axes, titles, strict=True)):
    image = ax.imshow(rates[index], cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    ax.set_title(title)
    _label_cells(ax, image, counts[index], rates[index], panel / num_classes)
    _label_classes(ax, labels, leaning > 0, panel, first=index % num_columns == 0)
  bar = figure.colorbar(image, ax=axes, shrink=0.9 / num_rows, anchor=(0, 1), aspect=15)
  bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0%", "1%", "10%", "25%", "50%", "100%"])
  bar.set_label("share of the true class")
  return figures.finish(figure)


def _confusion_layout(
  num_arms: int, num_classes: int, label_width: float
) -> tuple[int, float, float]:
  """Returns the number of panels per row, their width, and how far class names stick out of them.

  Lengths are in inches; `label_width` is the width of the longest name. Names that are wider than a
  cell are rotated by 45 degrees, so they extend as far to the left as downwards.
  """
  panel = float(np.clip(0.36 * num_classes, 1.75, 7.5))
  leaning = 0.7 * label_width if label_width > 0.9 * panel / num_classes else 0.0
  # The names of the rows need space on the left, the colour bar on the right.
  room, gap = figures.MAX_WIDTH - label_width - 1.3 + leaning, 0.2 + leaning
  # Shrink panels by up to 15% before putting fewer in a row.
  num_columns = min(num_arms, max(1, int(room / (0.85 * panel + gap))))
  return num_columns, min(panel, room / num_columns - gap), leaning


def _confusion_title(population: Population, arm: str, width: float) -> str:
  lines = [_arm_label(arm, _has_diverged(population, arm), width)]
  if losses.has_threshold(population.arms[arm].loss):
    lines.append(f"threshold {population.arms[arm].threshold:g}")
  return "\n".join(lines)


def _label_cells(
  ax: Axes, image: AxesImage, counts: np.ndarray, rates: np.ndarray, cell: float
) -> None:
  """Writes counts and rates `[C, C]` into cells `cell` inches wide, as large as fits."""
  num_classes = len(counts)
  if num_classes > 26:
    return
  # In inches, per point of text size.
  widest = max(figures.text_width(text, 1) for text in (f"{counts.max():,}", "100.0%"))
  size = min(figures.TEXT_SIZE, 0.85 * cell / widest, 72 * cell / 2.8)
  for row, column in np.ndindex(counts.shape):
    text = f"{counts[row, column]:,}"
    if (num_classes <= 4 or row == column) and counts[row].any():
      text += f"\n{rates[row, column]:.1%}"
    luminance = np.dot(image.to_rgba(rates[row, column])[:3], (0.299, 0.587, 0.114))
    # Black and white have about equal contrast to this luminance.
    color = "white" if luminance < 0.46 else "black" if counts[row, column] else "0.6"
    cell_text = ax.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
    cell_text.set_in_layout(False)  # it cannot leave the panel, and measuring it takes seconds


def _label_classes(ax: Axes, labels: list[str], lean: bool, panel: float, first: bool) -> None:
  """Writes class names below a panel `panel` inches wide and, if it is `first`, to its left."""
  num_classes = len(labels)
  step = math.ceil(num_classes * 0.15 / panel)  # a line of text is about 0.15 inches high
  ticks = np.arange(0, num_classes, step)
  ax.set_xticks(ticks, labels[::step], fontsize=figures.SMALL_TEXT_SIZE)
  rows = (ticks, labels[::step]) if first else ([], [])
  ax.set_yticks(*rows, fontsize=figures.SMALL_TEXT_SIZE)
  if lean:
    for text in ax.get_xticklabels():
      text.set(rotation=45, ha="right", rotation_mode="anchor")
  ax.set_xlabel("predicted")
  if first:
    ax.set_ylabel("true")
  ax.tick_params(length=2)
  ax.spines[:].set_visible(True)
  ax.spines[:].set(color="0.6", linewidth=0.6)
  if num_classes <= 26:
    between = np.arange(1, num_classes) - 0.5
    ax.vlines(between, -0.5, num_classes - 0.5, color="0.85", linewidth=0.5)
    ax.hlines(between, -0.5, num_classes - 0.5, color="0.85", linewidth=0.5)


# --- Distribution of a metric ---


@figures.styled
def metric_distribution(
  population: Population, metric: str = "test_accuracy", everyone: Population | None = None
) -> Figure:
  """Draws one metric of every member, and each arm's mean with its 95% interval.

  A small dot is one member; its vertical offset depends only on the seed, and a thin line joins the
  members of a seed. The large marker is the mean over seeds and the bar its 95% interval (Student's
  t, as in `jaxdl.stats.summarize`; the interval of a rate is cut to 0 and 100%). Both are written
  out on the right. Members that diverged have no value; they are counted below the arm's name. The
  axis holds all members, and intervals widen it by half at most: the interval of two seeds would
  otherwise dwarf everything else.

  Args:
    population: the trained members; accuracy, precision, recall and F1 are shown in %.
    metric: a key of `population.metrics`, or "epochs".
    everyone: members of further arms, whose means are the dots of a last row.

  Returns:
    A figure with one row per arm.

  Raises:
    InputError: there is no such metric.
  """
  further = None if everyone is None else everyone.scores(metric)
  return score_distribution(population.scores(metric), is_rate=metric in RATES, everyone=further)


@figures.styled
def score_distribution(
  scores: stats.Scores, *, is_rate: bool = False, everyone: stats.Scores | None = None
) -> Figure:
  """Draws scores as `metric_distribution` does; lines join the arms of a seed if they are paired.

  Args:
    scores: values [S, A].
    is_rate: whether they are in [0, 1], and shown in %.
    everyone: the scores of further arms, whose means are the dots of a last row.
  """
  scale = 100 if is_rate else 1
  scores = dataclasses.replace(scores, values=scores.values * scale)
  num_seeds, num_arms = scores.values.shape
  num_rows = num_arms + (everyone is not None)
  figure = Figure(figsize=(8.5, 0.95 + 0.62 * num_rows), layout="constrained")
  ax = figure.subplots()
  # Multiples of the golden ratio, modulo 1, fill an interval evenly for any number of seeds.
  spread = np.arange(1, num_seeds + 1) * (math.sqrt(5) - 1) / 2 % 1 - 0.5  # [S]
  heights = np.arange(num_arms) + 0.44 * spread[:, None] - 0.1  # [S, A]
  alpha = float(np.clip(4 / num_seeds, 0.15, 0.5))
  lines = np.stack([scores.values, heights], axis=-1)  # [S, A, 2]
  pairs = LineCollection(lines, colors=figures.GREY, alpha=alpha, linewidths=0.5)
  if scores.paired:
    ax.add_collection(pairs, autolim=False)
  limits = (0, 100) if is_rate else (-np.inf, np.inf)
  summaries = stats.summarize(scores, limits=limits)
  for index, summary in enumerate(summaries):
    style = figures.arm_style(index)
    dots = {"color": style.color, "alpha": 0.55, "markersize": 3.5, "markeredgewidth": 0}
    ax.plot(scores.values[:, index], heights[:, index], "o", **dots)
    _draw_summary(ax, summary, index, style, is_rate)
  if everyone is not None:
    means = scale * np.array([summary.mean for summary in stats.summarize(everyone)])
    _draw_means(ax, means, num_arms)
  _set_metric_limits(ax, scores.values, summaries)
  unit = " in %" if is_rate else " in nats" if scores.metric.endswith("loss") else ""
  direction = "higher" if scores.higher_is_better else "lower"
  ax.set_xlabel(f"{figures.plain(scores.metric.replace('_', ' '))}{unit} ({direction} is better)")
  labels = [
    _arm_label(arm, diverged, width=2.3)
    for arm, diverged in zip(scores.arms, scores.diverged.T, strict=True)
  ]
  if everyone is not None:
    labels.append(f"means of\nall {len(everyone.arms):,} arms")
  ax.set_yticks(range(num_rows), labels, fontsize=figures.TEXT_SIZE)
  ax.set_ylim(num_rows - 0.45, -0.55)
  heading = "mean\n[95% interval]" if num_seeds > 1 else "one seed"
  figures.write_right(ax, -0.55, heading, va="bottom")
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)
  figures.add_grid_lines(ax, axis="x")
  return figures.finish(figure)


def _draw_means(ax: Axes, means: np.ndarray, row: int) -> None:
  """Draws means `[A]` as grey dots in a row; in an SVG they are one picture."""
  heights = row + 0.6 * (np.arange(1, len(means) + 1) * (math.sqrt(5) - 1) / 2 % 1 - 0.5)
  alpha = float(np.clip(100 / len(means), 0.15, 0.6))
  dots = {"color": figures.GREY, "alpha": alpha, "markersize": 3.5, "markeredgewidth": 0}
  ax.plot(means, heights, "o", rasterized=True, **dots)


def _draw_summary(
  ax: Axes, summary: stats.ArmSummary, index: int, style: figures.ArmStyle, is_rate: bool
) -> None:
  """Draws an arm's mean and interval below its dots, and writes both at the right edge."""

  def write(value):
    return f"{value:.2f}" if is_rate else f"{value:.4g}"

  height = index + 0.28
  ax.hlines(height, summary.ci_low, summary.ci_high, color=style.color, linewidth=2.2, zorder=4)
  ax.plot(
    summary.mean,
    height,
    style.marker,
    color=style.color,
    markersize=7,
    markeredgecolor="white",
    markeredgewidth=0.8,
    zorder=5,
  )
  text = write(summary.mean) if summary.n else "no value"
  if summary.n > 1:
    interval = f"[{write(summary.ci_low)}, {write(summary.ci_high)}]"
    text += f"\n{interval if np.isfinite(summary.ci_low) else 'all equal'}"
  figures.write_right(ax, index, text, va="center")


def _set_metric_limits(ax: Axes, values: np.ndarray, summaries: list[stats.ArmSummary]) -> None:
  finite = values[np.isfinite(values)]
  low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
  widen = 0.25 * (high - low)
  ends = [end for arm in summaries for end in (arm.ci_low, arm.ci_high) if np.isfinite(end)]
  low = max(low - widen, min([low, *ends]))
  high = min(high + widen, max([high, *ends]))
  pad = 0.04 * (high - low) or 0.02 * abs(high) or 0.02
  ax.set_xlim(low - pad, high + pad)


# --- Calibration ---


@figures.styled
def reliability(population: Population) -> Figure:
  """Draws a reliability diagram: accuracy against confidence, in bins, over all seeds of an arm.

  On the diagonal, predictions are right as often as their probability says; below it, they are too
  confident. The lower panel has the share of predictions in each bin. The prediction is the class
  with the largest probability, whatever the threshold of the arm. (DeGroot & Fienberg, 1983, The
  Statistician 32:12.)

  Args:
    population: the trained members.
  """
  counts = population.calibration
  if counts is None or not counts.sum():
    return figures.message("There are no predictions to draw.")
  totals = counts.sum(axis=0)  # [A, 3, M]
  figure = Figure(figsize=(6.0, 5.2), layout="constrained")
  upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  upper.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, linestyle="--")
  entries = []
  for index, (arm, (numbers, confidences, correct)) in enumerate(
    zip(population.arms, totals, strict=True)
  ):
    style = figures.arm_style(index)
    some = numbers > 0
    x = 100 * confidences[some] / np.maximum(numbers[some], 1)
    kwargs = {"color": style.color, "linestyle": style.line_style, "linewidth": 1.2}
    kwargs |= {"marker": style.marker, "markersize": 4}
    upper.plot(x, 100 * correct[some] / numbers[some], **kwargs)
    lower.plot(x, 100 * numbers[some] / max(numbers.sum(), 1), **kwargs)
    label = _arm_label(arm, _has_diverged(population, arm), width=3.2, separator=" ")
    entries.append((label, figures.mean_line(style)))
  upper.set_ylabel("right (%)")
  upper.set_ylim(-2, 102)
  lower.set_ylabel("predictions (%)")
  lower.set_xlabel("confidence (%)")
  lower.set_xlim(-2, 102)
  lower.set_ylim(bottom=0)
  for ax in (upper, lower):
    figures.add_grid_lines(ax)
  figures.add_legend(figure, entries)
  return figures.finish(figure)


# --- Worst mistakes ---


class Predictions(NamedTuple):
  true_probability: np.ndarray  # [N], of the true class
  predicted: np.ndarray  # [N]
  predicted_probability: np.ndarray  # [N], of the predicted class


@figures.styled
def worst_mistakes(
  population: Population, images: np.ndarray, arm: str | None = None, num_images: int = 24
) -> Figure:
  """Shows the worst classified test images.

  Mistakes come first, then correct images if there is room. Both are ordered by the probability of
  the true class, lowest first; ties keep the order of the test set. Probabilities are means over
  the seeds that did not diverge. The prediction is the class with the largest probability or, with
  one output, class 1 if its probability is above the arm's threshold. For several arms, both
  probabilities and thresholds are averaged.

  Args:
    population: the trained members, tested on `images`.
    images: the test images `[N, H, W, D]` uint8, D = 1 (grey) or 3 (RGB).
    arm: the arm that predicts; None averages all arms.
    num_images: maximum number of images to show.

  Returns:
    A figure with a grid of images. Mistakes have a thick orange frame and a cross, correct images a
    thin blue frame and a tick.

  Raises:
    InputError: there is no such arm, or `num_images` is not positive.
    ValueError: the number of images is not that of the test labels, or they are neither grey nor
      RGB.
  """
  if arm is not None and arm not in population.arms:
    raise unknown_name("arm", arm, population.arms)
  if num_images < 1:
    raise InputError(f"num_images must be at least 1, not {num_images}")
  labels = population.test_targets
  if images.ndim != 4 or len(images) != len(labels) or images.shape[-1] not in (1, 3):
    raise ValueError(f"images must be [{len(labels)}, H, W, 1 or 3], not {images.shape}")
  names = [name for name in population.arms if arm in (None, name)]
  names = [name for name in names if not _has_diverged(population, name).all()]
  if not names:
    return figures.message("Every seed diverged: there are no predictions.")
  predictions = predict(population, names)
  correct = predictions.predicted == labels  # [N]
  order = np.lexsort((predictions.true_probability, correct))[:num_images]

  figure, axes = _image_grid(len(order), images.shape[1] / images.shape[2])
  for ax, index in zip(axes, order, strict=True):
    image = images[index, ..., 0] if images.shape[-1] == 1 else images[index]
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _describe(ax, population.class_names, labels[index], predictions, index)
  width, bold = figure.get_figwidth() - 0.4, figures.BOLD_SIZE
  who = f"mean of {len(names)} arms"
  if len(names) == 1:
    who = figures.fit(names[0], width, bold, max_lines=1)
  title = f"{who}: {(~correct).sum():,} mistakes in {len(labels):,} test images, worst first"
  figure.suptitle(figures.fit(title, width, bold, max_lines=3))
  return figures.finish(figure)


def predict(population: Population, names: list[str]) -> Predictions:
  """Returns the predictions of the mean over these arms and their seeds."""
  labels = population.test_targets
  places = [list(population.arms).index(name) for name in names]
  probabilities = population.mean_probabilities[places].mean(axis=0)  # [N, C]
  num_examples, num_classes = probabilities.shape
  predicted = probabilities.argmax(axis=-1)  # [N]
  if num_classes == 2:
    # With two outputs the larger one wins, which is a threshold of one half.
    thresholds = [
      arm.threshold if losses.has_threshold(arm.loss) else 0.5
      for arm in (population.arms[name] for name in names)
    ]
    predicted = (probabilities[:, 1] > np.mean(thresholds)).astype(int)  # [N]
  examples = np.arange(num_examples)
  return Predictions(probabilities[examples, labels], predicted, probabilities[examples, predicted])


def _image_grid(num_images: int, aspect: float) -> tuple[Figure, list[Axes]]:
  """Returns a figure with one panel per image; `aspect` is an image's height over its width."""
  num_columns = min(6, num_images)
  num_rows = math.ceil(num_images / num_columns)
  width = max(num_columns * figures.MAX_WIDTH / 6, 4.0)
  height = num_rows * (1.3 * min(aspect, 2) + 0.55) + 0.4
  figure = Figure(figsize=(width, height), layout="constrained")
  return figure, figures.grid(figure, num_images, num_columns)


def _describe(
  ax: Axes, class_names: tuple[str, ...], label: int, predictions: Predictions, index: int
) -> None:
  """Titles and frames the panel of an image according to its prediction."""
  predicted = predictions.predicted[index]
  mistake = predicted != label
  true_name, predicted_name = (
    figures.fit(class_names[i], 0.85, figures.SMALL_TEXT_SIZE, max_lines=1)
    for i in (label, predicted)
  )
  probability = predictions.predicted_probability[index]
  p = "p > 0.99" if probability >= 0.995 else f"p = {probability:.2f}"
  text = f"{'✗' if mistake else '✓'} true {true_name}, predicted {predicted_name}"
  text = figures.fit(text, 1.45, figures.SMALL_TEXT_SIZE, max_lines=4)
  ax.set_title(f"{text}\n({p})", fontsize=figures.SMALL_TEXT_SIZE)
  color = figures.MISTAKE_COLOR if mistake else figures.CORRECT_COLOR
  ax.set(xticks=[], yticks=[])
  ax.spines[:].set_visible(True)
  ax.spines[:].set(color=color, linewidth=2.5 if mistake else 1.0)


# --- Arms ---


def _has_diverged(population: Population, arm: str) -> np.ndarray:
  """Returns which seeds of an arm diverged, `[S]` bool."""
  return population.status[:, list(population.arms).index(arm)] == "diverged"


def _arm_label(arm: str, diverged: np.ndarray, width: float, separator: str = "\n") -> str:
  """Returns an arm's name, in up to two lines `width` inches wide, and how many seeds diverged."""
  label = figures.fit(arm, width, figures.TEXT_SIZE, max_lines=2)
  if diverged.any():
    label += f"{separator}(diverged: {diverged.sum()} of {len(diverged)})"
  return label
