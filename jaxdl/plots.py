"""Figures of a population or a worksheet: the only place in the library that knows matplotlib.

Every function returns a `matplotlib.figure.Figure` of its own: no pyplot, no display, and whatever
matplotlibrc or rcParams are set, they are neither read nor changed. The same population, or
worksheet, gives the same bytes when saved with the same version of matplotlib.

An arm keeps its colour, line style and marker in all figures. Names of arms and classes are shown
as plain text, never as mathematics or markup; a character that the font lacks appears as its escape
sequence, and a name that is too long loses its middle.
"""

import bisect
import dataclasses
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
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import text_to_path

from jaxdl import graph_layout, losses, stats
from jaxdl.errors import InputError, unknown_name
from jaxdl.population import RATES, Population
from jaxdl.worksheet import WRONG, CheckedClaim, CheckedWorksheet

# In inches; a README shows no more than this without shrinking the text.
_MAX_WIDTH = 10.0
# In points.
_TEXT_SIZE = 9.0
_SMALL_TEXT_SIZE = 8.0

# A decorator. On top of matplotlib's own defaults, so that no matplotlibrc has a say.
_styled = matplotlib.style.context(
  [
    "default",
    {
      "axes.formatter.useoffset": False,
      "axes.labelsize": _TEXT_SIZE,
      "axes.spines.right": False,
      "axes.spines.top": False,
      "axes.titlesize": _TEXT_SIZE,
      "figure.dpi": 150,
      "figure.titlesize": _TEXT_SIZE,
      "figure.titleweight": "bold",
      "font.family": ["DejaVu Sans"],  # comes with matplotlib: text is equally wide everywhere
      "font.size": _TEXT_SIZE,
      "legend.fontsize": _TEXT_SIZE,
      "legend.frameon": False,
      "svg.hashsalt": "jaxdl",  # otherwise identifiers in a file are random
      "text.parse_math": False,
      "xtick.labelsize": _SMALL_TEXT_SIZE,
      "ytick.labelsize": _SMALL_TEXT_SIZE,
    },
  ]
)

# Okabe and Ito's palette, which colour-blind readers tell apart, without its yellow: too pale for a
# line on white. The three lengths have no common divisor, so that 280 arms differ from each other.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (10, 2)))
_MARKERS = "osD^v<>*"
_CORRECT_COLOR, _MISTAKE_COLOR = _COLORS[:2]
_GREY = "0.35"

_UNITS = {"loss": "nats", "accuracy": "%"}


class _ArmStyle(NamedTuple):
  color: str
  line_style: str | tuple
  marker: str


def _arm_style(index: int) -> _ArmStyle:
  cycles = (_COLORS, _LINE_STYLES, _MARKERS)
  return _ArmStyle(*(cycle[index % len(cycle)] for cycle in cycles))


# --- Learning curves ---


@_styled
def learning_curves(population: Population) -> Figure:
  """Draws loss and accuracy over epochs, of training and, where there is any, of validation.

  A thin line is one member, a thick line an arm's mean over seeds, and the band the 95% interval of
  that mean at each epoch (Student t over seeds; none for one seed). Mean and band are over the same
  seeds at every epoch: a member that stopped early keeps its last value until the last member of
  its arm stops, and a member that diverged is left out. A dot marks where a member stopped early, a
  cross the last epoch before a member diverged.

  The members that did not diverge set the limits of the axes, so that neither a wide band nor a
  member on its way to infinity flattens the rest: what lies beyond is drawn at the frame. The loss
  is on a logarithmic axis if they span more than a factor of 100.

  Args:
    population: curves `[S, A, E]`, losses in nats, accuracies in [0, 1] (shown in %).

  Returns:
    A figure with rows loss and accuracy and columns training and validation; without validation,
    one row with loss and accuracy.
  """
  splits = {"train": "training"}
  if any(np.isfinite(population.curves[f"val_{metric}"]).any() for metric in _UNITS):
    splits["val"] = "validation"
  figure = Figure(figsize=(_MAX_WIDTH, 2.75 * len(splits) + 0.4), layout="constrained")
  paired = "val" in splits
  sharey = "row" if paired else False
  axes = figure.subplots(len(splits), 2, squeeze=False, sharex=True, sharey=sharey)
  rows = axes if paired else axes.T  # [metric, split]
  for (metric, unit), row in zip(_UNITS.items(), rows, strict=True):
    curves = {split: _valid_curves(population, f"{split}_{metric}") for split in splits}
    limits, log = _curve_limits(population, metric, list(curves.values()))
    row[0].set_ylabel(f"{metric} ({unit})")
    for ax, (split, title) in zip(row, splits.items(), strict=True):
      ax.set_title(f"{title} {metric}" + (_threshold_text(population) if unit == "%" else ""))
      _set_curve_axes(ax, curves[split].shape[-1], limits, log)
      worst = limits[1] if metric == "loss" else limits[0]
      _draw_curves(ax, population, curves[split], limits, worst)
  for ax in axes[-1]:
    ax.set_xlabel("epoch")
  if len(population.seeds) > 1:
    diverged = (population.status == "diverged").any()
    figure.suptitle(
      f"{len(population.seeds)} seeds: means{' of those that did not diverge' if diverged else ''} "
      "with 95% intervals, and single seeds as thin lines"
    )
  _add_legend(figure, _curve_legend(population))
  return _finish(figure)


def _threshold_text(population: Population) -> str:
  """Says at which thresholds models with one output decide; empty where there are none."""
  thresholds = {
    f"{arm.threshold:g}"
    for arm in population.arms.values()
    if losses.num_outputs(arm.loss, len(population.class_names)) == 1
  }
  return f" (threshold {', '.join(sorted(thresholds))})" if thresholds else ""


def _valid_curves(population: Population, name: str) -> np.ndarray:
  """Returns curves `[S, A, E]` in their unit, NaN from the epoch on in which a member diverged.

  In that epoch the loss is not finite, and an accuracy computed beside it means nothing.
  """
  curves = population.curves[name] * (100 if "accuracy" in name else 1)
  num_valid = population.epochs - (population.status == "diverged")  # [S, A]
  valid = np.arange(curves.shape[-1]) < num_valid[..., None]  # [S, A, E]
  return np.where(valid & np.isfinite(curves), curves, np.nan)


def _draw_curves(
  ax: Axes,
  population: Population,
  curves: np.ndarray,
  limits: tuple[float, float],
  worst: float,
) -> None:
  """Draws curves `[S, A, E]` of all members, and their means; `worst` is the worse limit."""
  num_seeds = len(population.seeds)
  for index, arm in enumerate(population.arms):
    style = _arm_style(index)
    epochs, status = population.epochs[:, index], population.status[:, index]  # [S]
    kept = status != "diverged"
    if kept.any():
      # Wide bands of many arms would hide everything.
      alpha = float(np.clip(0.5 / len(population.arms), 0.08, 0.18))
      _draw_mean(ax, arm, index, alpha, *_mean_interval(curves[kept, index], epochs[kept]))
    # A member alone is its mean, unless it diverged.
    drawn = np.clip(curves[:, index], *limits)  # [S, E]
    _draw_members(ax, drawn if num_seeds > 1 else drawn[~kept], style.color)
    _mark_ends(ax, drawn, status, style.color, worst)


def _draw_mean(
  ax: Axes, arm: str, index: int, alpha: float, mean: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
  """Draws an arm's mean and the band around it, each `[E]`."""
  epochs = np.arange(1, len(mean) + 1)
  spacing = math.ceil(len(mean) / 8)
  line = _mean_line(_arm_style(index))
  line.set(label=arm, zorder=3)
  line.set_data(epochs, mean)
  # Each arm at epochs of its own, lest markers cover each other.
  line.set_markevery((index % spacing, spacing))
  ax.add_line(line)
  # The band of a single epoch has no width but that of its edge.
  width = 6 if len(mean) == 1 else 0
  ax.fill_between(epochs, low, high, color=line.get_color(), alpha=alpha, linewidth=width)


def _mean_line(style: _ArmStyle) -> Line2D:
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


def _draw_members(ax: Axes, curves: np.ndarray, color: str) -> None:
  """Draws a thin line for each curve of `[S, E]`, or a dot, fainter the more there are."""
  epochs = np.arange(1, curves.shape[-1] + 1)
  lines = [np.column_stack([epochs, curve])[np.isfinite(curve)] for curve in curves]
  alpha = float(np.clip(3 / max(len(lines), 1), 0.1, 0.5))
  ax.add_collection(LineCollection(lines, colors=color, alpha=alpha, linewidths=0.6), autolim=False)
  for line in lines:
    if len(line) == 1:
      ax.plot(*line.T, ".", color=color, alpha=alpha, markersize=4)


def _mark_ends(ax: Axes, curves: np.ndarray, status: np.ndarray, color: str, worst: float) -> None:
  """Marks the last points of those curves `[S, E]` that stopped early or diverged."""
  for curve, end in zip(curves, status, strict=True):
    last = np.flatnonzero(np.isfinite(curve))
    # Of one that diverged in its first epoch nothing was recorded.
    epoch, value = (last[-1] + 1, curve[last[-1]]) if len(last) else (1, worst)
    if end == "early_stopped":
      edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
      ax.plot(epoch, value, "o", color=color, markersize=3, zorder=4, **edge)
    elif end == "diverged":
      edge = {"markeredgewidth": 1.4, "clip_on": False}
      ax.plot(epoch, value, "x", color=color, markersize=6, zorder=5, **edge)


def _mean_interval(
  curves: np.ndarray, num_epochs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns mean, lower and upper end of its 95% interval, `[E]`, of curves `[n, E]` over seeds.

  Curves keep their last value, that of epoch `num_epochs` `[n]`, until the last of them ends.
  """
  index = np.minimum(np.arange(num_epochs.max()), num_epochs[:, None] - 1)  # [n, E]
  values = np.take_along_axis(curves, index, axis=1)  # [n, E]
  n, mean = len(values), values.mean(axis=0)
  if n < 2:
    return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
  half = scipy.stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
  return mean, mean - half, mean + half


def _curve_limits(
  population: Population, metric: str, curves: list[np.ndarray]
) -> tuple[tuple[float, float], bool]:
  """Returns limits that hold the curves `[S, A, E]` of one metric, and whether on a log scale."""
  every = np.stack(curves)
  kept = every[:, population.status != "diverged"]
  values = kept[np.isfinite(kept)] if np.isfinite(kept).any() else every[np.isfinite(every)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  least = values[values > 0].min(initial=np.inf)
  if metric == "loss" and high > 100 * least:
    pad = (high / least) ** 0.04
    return (least / pad, high * pad), True
  pad = 0.04 * (high - low) or 0.05
  return (low - pad, high + pad), False


def _set_curve_axes(ax: Axes, num_epochs: int, limits: tuple[float, float], log: bool) -> None:
  # Less than one, or there would be a tick for epoch 0.
  margin = float(np.clip(0.025 * (num_epochs - 1), 0.3, 0.9))
  ax.set_xlim(1 - margin, num_epochs + margin)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
  if log:
    ax.set_yscale("log")
    # matplotlib's own formatter writes powers as mathematics, which is switched off.
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(ticker.NullFormatter())
  ax.set_ylim(*limits)
  ax.grid(color="0.92", linewidth=0.6)
  ax.set_axisbelow(True)


def _curve_legend(population: Population) -> list[tuple[str, Line2D]]:
  """Returns the texts of the legend, and what stands beside each."""
  entries = []
  for index, arm in enumerate(population.arms):
    label = _arm_label(population, arm, width=3.2, separator=" ")
    entries.append((label, _mean_line(_arm_style(index))))
  for status, text, marker, size in (
    ("early_stopped", "stopped early", "o", 3),
    ("diverged", "diverged", "x", 6),
  ):
    if (population.status == status).any():
      mark = Line2D([], [], color=_GREY, linestyle="", marker=marker, markersize=size)
      entries.append((text, mark))
  return entries


def _add_legend(figure: Figure, entries: list[tuple[str, Line2D]]) -> None:
  """Adds a legend below the panels and makes the figure as much higher."""
  lines = [text.split("\n") for text, _ in entries]
  widest = max(_width(line, _TEXT_SIZE) for text in lines for line in text)
  most_columns = max(1, int((_MAX_WIDTH - 0.3) / (widest + 0.75)))
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


# --- Confusion matrices ---


@_styled
def confusion_matrices(population: Population) -> Figure:
  """Draws each arm's confusion matrix, pooled over the seeds that did not diverge.

  A cell holds its count and its share of its row, i.e. of the true class; with more than four
  classes the share is written on the diagonal alone. Colour is the share, on a square-root scale,
  since a good classifier's mistakes are a few percent. With more than 26 classes only colour is
  left.

  Args:
    population: confusion `[S, A, C, C]`, rows true, columns predicted.

  Returns:
    A figure with one panel per arm. Titles of models with one output state the threshold.
  """
  counts = population.confusion.sum(axis=0)  # [A, C, C]
  num_arms, num_classes = counts.shape[:2]
  totals = counts.sum(axis=-1, keepdims=True)  # [A, C, 1]
  rates = counts / np.maximum(totals, 1)  # [A, C, C]
  labels = [_fit(name, 1.1, _SMALL_TEXT_SIZE, max_lines=1) for name in population.class_names]
  label_width = max(_width(label, _SMALL_TEXT_SIZE) for label in labels)
  num_columns, panel, leaning = _confusion_layout(num_arms, num_classes, label_width)
  num_rows = math.ceil(num_arms / num_columns)
  titles = [_confusion_title(population, arm, panel) for arm in population.arms]
  title_height = 0.15 * (1 + max(title.count("\n") for title in titles))
  row_height = panel + title_height + 0.55 + leaning
  figsize = (
    # The layout keeps to the limit, but rounding may not.
    min(num_columns * (panel + 0.2 + leaning) - leaning + label_width + 1.3, _MAX_WIDTH),
    num_rows * row_height + 0.1,
  )
  figure = Figure(figsize=figsize, layout="compressed")
  axes = _grid(figure, num_arms, num_columns)
  for index, (ax, title) in enumerate(zip(axes, titles, strict=True)):
    image = ax.imshow(rates[index], cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    ax.set_title(title)
    _label_cells(ax, image, counts[index], rates[index], panel / num_classes)
    _label_classes(ax, labels, leaning > 0, panel, first=index % num_columns == 0)
  bar = figure.colorbar(image, ax=axes, shrink=0.9 / num_rows, anchor=(0, 1), aspect=15)
  bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0%", "1%", "10%", "25%", "50%", "100%"])
  bar.set_label("share of the true class")
  return _finish(figure)


def _confusion_layout(
  num_arms: int, num_classes: int, label_width: float
) -> tuple[int, float, float]:
  """Returns how many panels stand in a row, their width, and how far names lean out of them.

  All in inches, as is `label_width`, that of the longest name. Names that are wider than a cell
  lean by 45 degrees, and so reach as far to the left as below.
  """
  panel = float(np.clip(0.36 * num_classes, 1.75, 7.5))
  leaning = 0.7 * label_width if label_width > 0.9 * panel / num_classes else 0.0
  # On the left stand the names of the rows, on the right the colour bar.
  room, gap = _MAX_WIDTH - label_width - 1.3 + leaning, 0.2 + leaning
  # Smaller panels rather than fewer in a row, within reason.
  num_columns = min(num_arms, max(1, int(room / (0.85 * panel + gap))))
  return num_columns, min(panel, room / num_columns - gap), leaning


def _confusion_title(population: Population, arm: str, width: float) -> str:
  num_classes = len(population.class_names)
  lines = [_arm_label(population, arm, width)]
  if losses.num_outputs(population.arms[arm].loss, num_classes) == 1:
    lines.append(f"threshold {population.arms[arm].threshold:g}")
  return "\n".join(lines)


def _label_cells(
  ax: Axes, image: AxesImage, counts: np.ndarray, rates: np.ndarray, cell: float
) -> None:
  """Writes counts and rates `[C, C]` into cells `cell` inches wide, as large as they fit."""
  num_classes = len(counts)
  if num_classes > 26:
    return
  widest = max(_width(text, 1) for text in (f"{counts.max():,}", "100.0%"))  # inches per point
  size = min(_TEXT_SIZE, 0.85 * cell / widest, 72 * cell / 2.8)
  for row, column in np.ndindex(counts.shape):
    text = f"{counts[row, column]:,}"
    if (num_classes <= 4 or row == column) and counts[row].any():
      text += f"\n{rates[row, column]:.1%}"
    luminance = np.dot(image.to_rgba(rates[row, column])[:3], (0.299, 0.587, 0.114))
    # About where black and white are equally far from the cell's colour.
    color = "white" if luminance < 0.46 else "black" if counts[row, column] else "0.6"
    cell_text = ax.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
    cell_text.set_in_layout(False)  # it never leaves the panel, and measuring it takes seconds


def _label_classes(ax: Axes, labels: list[str], lean: bool, panel: float, first: bool) -> None:
  """Names classes on both axes of a panel `panel` inches wide; rows only where it is `first`."""
  num_classes = len(labels)
  step = math.ceil(num_classes * 0.15 / panel)  # a line of text is about 0.15 inches high
  ticks = np.arange(0, num_classes, step)
  ax.set_xticks(ticks, labels[::step], fontsize=_SMALL_TEXT_SIZE)
  rows = (ticks, labels[::step]) if first else ([], [])
  ax.set_yticks(*rows, fontsize=_SMALL_TEXT_SIZE)
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


@_styled
def metric_distribution(population: Population, metric: str = "test_accuracy") -> Figure:
  """Draws one metric of every member, and each arm's mean with its 95% interval.

  A small dot is one member, spread vertically by its seed alone; a thin line joins the members of a
  seed. The large marker is the mean over seeds, the bar its 95% interval (Student t, as in
  `jaxdl.stats.summarize`), and both are written out on the right. Members that diverged have no
  value: they are counted under the arm's name. The members set the limits of the axis, an interval
  widens them by half at most: that of two seeds would leave nothing else to be seen.

  Args:
    population: metrics `[S, A]`; accuracy, precision, recall and F1 are shown in %.
    metric: one of `population.metrics`, or "epochs".

  Returns:
    A figure with one row per arm.

  Raises:
    InputError: when there is no such metric.
  """
  scores = population.scores(metric)
  is_rate = metric in RATES
  scores = dataclasses.replace(scores, values=scores.values * (100 if is_rate else 1))
  num_seeds, num_arms = scores.values.shape
  figure = Figure(figsize=(8.5, 0.95 + 0.62 * num_arms), layout="constrained")
  ax = figure.subplots()
  # Multiples of the golden ratio fill an interval evenly, however many there are.
  spread = np.arange(1, num_seeds + 1) * (math.sqrt(5) - 1) / 2 % 1 - 0.5  # [S]
  heights = np.arange(num_arms) + 0.44 * spread[:, None] - 0.1  # [S, A]
  alpha = float(np.clip(4 / num_seeds, 0.15, 0.5))
  lines = np.stack([scores.values, heights], axis=-1)  # [S, A, 2]
  ax.add_collection(LineCollection(lines, colors=_GREY, alpha=alpha, linewidths=0.5), autolim=False)
  summaries = stats.summarize(scores)
  for index, summary in enumerate(summaries):
    style = _arm_style(index)
    dots = {"color": style.color, "alpha": 0.55, "markersize": 3.5, "markeredgewidth": 0}
    ax.plot(scores.values[:, index], heights[:, index], "o", **dots)
    _draw_summary(ax, summary, index, style, is_rate)
  _set_metric_limits(ax, scores.values, summaries)
  unit = " in %" if is_rate else " in nats" if metric.endswith("loss") else ""
  direction = "higher" if scores.higher_is_better else "lower"
  ax.set_xlabel(f"{metric.replace('_', ' ')}{unit} ({direction} is better)")
  labels = [_arm_label(population, arm, width=2.3) for arm in population.arms]
  ax.set_yticks(range(num_arms), labels, fontsize=_TEXT_SIZE)
  ax.set_ylim(num_arms - 0.45, -0.55)
  heading = "mean\n[95% interval]" if num_seeds > 1 else "one seed"
  _write_right(ax, -0.55, heading, va="bottom")
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)
  ax.grid(axis="x", color="0.92", linewidth=0.6)
  ax.set_axisbelow(True)
  return _finish(figure)


def _draw_summary(
  ax: Axes, summary: stats.ArmSummary, index: int, style: _ArmStyle, is_rate: bool
) -> None:
  """Draws an arm's mean and interval under its dots, and writes them at the right edge."""

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
    text += f"\n[{write(summary.ci_low)}, {write(summary.ci_high)}]"
  _write_right(ax, index, text, va="center")


def _write_right(ax: Axes, height: float, text: str, va: str) -> None:
  """Writes right of the axes, at a height in units of data."""
  where = ax.get_yaxis_transform()
  ax.text(1.02, height, text, transform=where, va=va, fontsize=_SMALL_TEXT_SIZE)


def _set_metric_limits(ax: Axes, values: np.ndarray, summaries: list[stats.ArmSummary]) -> None:
  finite = values[np.isfinite(values)]
  low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
  widen = 0.25 * (high - low)
  ends = [end for arm in summaries for end in (arm.ci_low, arm.ci_high) if np.isfinite(end)]
  low = max(low - widen, min([low, *ends]))
  high = min(high + widen, max([high, *ends]))
  pad = 0.04 * (high - low) or 0.02 * abs(high) or 0.02
  ax.set_xlim(low - pad, high + pad)


# --- Worst mistakes ---


class _Predictions(NamedTuple):
  true_probability: np.ndarray  # [N], of the true class
  predicted: np.ndarray  # [N]
  predicted_probability: np.ndarray  # [N], of the predicted class


@_styled
def worst_mistakes(
  population: Population, images: np.ndarray, arm: str | None = None, num_images: int = 24
) -> Figure:
  """Shows the test images that are classified worst.

  First mistakes, then, if there is room, correct ones; both by the probability of the true class,
  lowest first, and in the order of the test set where it is the same. Probabilities are means over
  the seeds that did not diverge, and the prediction is made from them: the class of the largest,
  or, with one output, class 1 where its probability is above the arm's threshold. Over several
  arms, both probabilities and thresholds are averaged.

  Args:
    population: mean probabilities `[A, N, C]` and test labels `[N]`.
    images: the test images `[N, H, W, D]` uint8, D = 1 (grey) or 3 (RGB).
    arm: the arm that predicts; None takes the mean over all arms.
    num_images: most images to show.

  Returns:
    A figure with a grid of images. Mistakes have a thick orange frame and a cross, correct ones a
    thin blue frame and a tick.

  Raises:
    InputError: when there is no such arm, or `num_images` is not positive.
    ValueError: when the images are not those of the test labels, or neither grey nor RGB.
  """
  if arm is not None and arm not in population.arms:
    raise unknown_name("arm", arm, population.arms)
  if num_images < 1:
    raise InputError(f"num_images must be at least 1, not {num_images}")
  labels = population.test_labels
  if images.ndim != 4 or len(images) != len(labels) or images.shape[-1] not in (1, 3):
    raise ValueError(f"images must be [{len(labels)}, H, W, 1 or 3], not {images.shape}")
  names = [name for name in population.arms if arm in (None, name)]
  names = [name for name in names if not _has_diverged(population, name).all()]
  if not names:
    return _message("Every seed diverged: there are no predictions.")
  predictions = _predict(population, names)
  correct = predictions.predicted == labels  # [N]
  order = np.lexsort((predictions.true_probability, correct))[:num_images]

  figure, axes = _image_grid(len(order), images.shape[1] / images.shape[2])
  for ax, index in zip(axes, order, strict=True):
    image = images[index, ..., 0] if images.shape[-1] == 1 else images[index]
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _describe(ax, population.class_names, labels[index], predictions, index)
  width, bold = figure.get_figwidth() - 0.4, 1.15 * _TEXT_SIZE  # bold text is that much wider
  who = f"mean of {len(names)} arms" if len(names) > 1 else _fit(names[0], width, bold, max_lines=1)
  title = f"{who}: {(~correct).sum():,} mistakes in {len(labels):,} test images, worst first"
  figure.suptitle(_fit(title, width, bold, max_lines=3))
  return _finish(figure)


def _predict(population: Population, names: list[str]) -> _Predictions:
  """Returns what the mean over these arms and their seeds predicts."""
  labels = population.test_labels
  places = [list(population.arms).index(name) for name in names]
  probabilities = population.mean_probabilities[places].mean(axis=0)  # [N, C]
  num_examples, num_classes = probabilities.shape
  predicted = probabilities.argmax(axis=-1)  # [N]
  if num_classes == 2:
    # The largest of two outputs wins: a threshold of one half.
    thresholds = [
      arm.threshold if losses.num_outputs(arm.loss, num_classes) == 1 else 0.5
      for arm in (population.arms[name] for name in names)
    ]
    predicted = (probabilities[:, 1] > np.mean(thresholds)).astype(int)  # [N]
  examples = np.arange(num_examples)
  return _Predictions(
    probabilities[examples, labels], predicted, probabilities[examples, predicted]
  )


def _image_grid(num_images: int, aspect: float) -> tuple[Figure, list[Axes]]:
  """Returns a figure with one panel per image, `aspect` being height by width."""
  num_columns = min(6, num_images)
  num_rows = math.ceil(num_images / num_columns)
  width = max(num_columns * _MAX_WIDTH / 6, 4.0)
  height = num_rows * (1.3 * min(aspect, 2) + 0.55) + 0.4
  figure = Figure(figsize=(width, height), layout="constrained")
  return figure, _grid(figure, num_images, num_columns)


def _describe(
  ax: Axes, class_names: tuple[str, ...], label: int, predictions: _Predictions, index: int
) -> None:
  """Titles and frames a panel by what is predicted for its image."""
  predicted = predictions.predicted[index]
  mistake = predicted != label
  true_name, predicted_name = (
    _fit(class_names[i], 0.85, _SMALL_TEXT_SIZE, max_lines=1) for i in (label, predicted)
  )
  probability = predictions.predicted_probability[index]
  p = "p > 0.99" if probability >= 0.995 else f"p = {probability:.2f}"
  text = f"{'✗' if mistake else '✓'} true {true_name}, predicted {predicted_name}"
  text = _fit(text, 1.45, _SMALL_TEXT_SIZE, max_lines=4)
  ax.set_title(f"{text}\n({p})", fontsize=_SMALL_TEXT_SIZE)
  color = _MISTAKE_COLOR if mistake else _CORRECT_COLOR
  ax.set(xticks=[], yticks=[])
  ax.spines[:].set_visible(True)
  ax.spines[:].set(color=color, linewidth=2.5 if mistake else 1.0)


def _message(text: str) -> Figure:
  figure = Figure(figsize=(5.0, 1.0), layout="constrained")
  figure.text(0.5, 0.5, text, ha="center", va="center")
  return _finish(figure)


# --- Computation graph of a worksheet ---

# In inches: a line of text, the margin around it, the column of derivatives beside the givens of a
# node, the gaps between columns and between nodes.
_LINE, _PAD, _BRANCH, _GAP_X, _GAP_Y = 0.17, 0.07, 0.78, 0.95, 0.16
# A larger graph is no longer a picture to look at.
_MOST_BOXES, _MOST_EDGES = 300, 1000


class _Box(NamedTuple):
  lines: list[str]  # the name with its value, then wrong claims
  leaves: list[tuple[str, str, list[str]]]  # given, derivative, wrong claims


@_styled
def computation_graph(checked: CheckedWorksheet) -> Figure:
  """Draws a worksheet's computation graph, values on the nodes, derivatives on the edges.

  An arrow leads to a node from each name in its equation and carries the derivative of that
  equation by the name, others held fast. Givens that only one node uses hang below it. Values are
  the right ones. A claim that is wrong (a slip, or inconsistent) is written in orange where it
  belongs: at its node or given, at its edge, or, for other derivatives, at what they are by.

  Returns:
    A figure as large as the graph; one that says so if the graph is too large to be drawn.
  """
  sheet = checked.worksheet
  users = {
    name: [n for n in sheet.equations if (n, name) in checked.partials] for name in sheet.given
  }
  leaves = {name for name, nodes in users.items() if len(nodes) == 1}
  names = [name for name in users if len(users[name]) != 1] + list(sheet.equations)
  inputs = {name: [n for n in names if (name, n) in checked.partials] for name in names}
  if len(names) + len(leaves) > _MOST_BOXES or len(checked.partials) > _MOST_EDGES:
    return _message("The graph is too large to be drawn.")
  wrong = _wrong_claims(checked)
  boxes = {
    name: _Box(
      _box_lines(checked, name, wrong),
      [
        (
          _value_text(checked, n),
          _slope_text(checked, name, n),
          [*_wrong_text(wrong, n), *_wrong_text(wrong, n, name)],
        )
        for n in sheet.given
        if n in leaves and users[n] == [name]
      ],
    )
    for name in names
  }
  sizes = {name: _box_size(box) for name, box in boxes.items()}
  on_edges = [text for node, name in wrong if node for text in _wrong_text(wrong, name, node)]
  widest = max((_width(text, _SMALL_TEXT_SIZE) for text in on_edges), default=0)
  layout = graph_layout.place(inputs, sizes, max(_GAP_X, min(2 * widest, 3.0)), _GAP_Y)
  figure, ax = _graph_axes(checked.title, layout)
  _draw_edges(ax, checked, layout, wrong)
  for name, box in boxes.items():
    is_wrong = len(box.lines) > 1
    _draw_box(ax, layout, name, box, name in sheet.given, is_wrong)
  return _finish(figure)


def _wrong_claims(checked: CheckedWorksheet) -> dict[tuple[str, str], list[CheckedClaim]]:
  """Returns the wrong claims by where they belong: (node, given) for an edge, ("", name) else."""
  places: dict[tuple[str, str], list[CheckedClaim]] = {}
  for claim, result in zip(checked.worksheet.claims, checked.claims, strict=True):
    if result.status in WRONG:
      of, by = getattr(claim.of, "of", ""), getattr(claim.of, "by", None)
      if by is None:
        place = ("", claim.of.name)
      else:
        place = (of, by) if (of, by) in checked.partials else ("", by)
      places.setdefault(place, []).append(result)
  return places


def _wrong_text(wrong, name: str, user: str = "") -> list[str]:
  """Returns the wrong claims of a name's own place, or of its edge to a user."""
  claims = [*wrong.get((user, name), ())]
  return [f"✗ {claim.of} = {claim.claimed}" for claim in claims]


def _value_text(checked: CheckedWorksheet, name: str) -> str:
  return f"{name} = {checked.values[name]:.5g}"


def _slope_text(checked: CheckedWorksheet, node: str, name: str) -> str:
  return f"{checked.partials[node, name] + 0.0:.4g}"  # never -0


def _box_lines(checked: CheckedWorksheet, name: str, wrong) -> list[str]:
  return [_value_text(checked, name), *_wrong_text(wrong, name)]


def _box_text(line: str) -> str:
  return _fit(line, 2.4, _SMALL_TEXT_SIZE, max_lines=1)


def _box_size(box: _Box) -> graph_layout.Size:
  width = max(_width(_box_text(line), _SMALL_TEXT_SIZE) for line in box.lines)
  below = 0.0
  for text, _, mistakes in box.leaves:
    lines = [text, *mistakes]
    inner = max(_width(_box_text(line), _SMALL_TEXT_SIZE) for line in lines)
    width = max(width, _BRANCH + inner + 0.1)
    below += _LINE * len(lines) + 0.5 * _PAD
  height = _LINE * len(box.lines) + 2 * _PAD
  return graph_layout.Size(width + 4 * _PAD, height / 2, height / 2 + below)


def _graph_axes(title: str, layout: graph_layout.Layout) -> tuple[Figure, Axes]:
  """Returns a figure with room for the graph, whose unit is the inch, y downwards."""
  margin, head, foot = 0.2, 0.4, 0.6
  width = max(layout.width, 6.0) + 2 * margin
  height = layout.height + head + foot
  figure = Figure(figsize=(width, height))
  ax = figure.add_axes((0, 0, 1, 1))
  left = -(width - layout.width) / 2
  ax.set(xlim=(left, left + width), ylim=(height - head, -head))
  ax.set_axis_off()
  bold = 1.15 * _TEXT_SIZE
  middle = left + width / 2
  ax.text(
    middle,
    -head / 2,
    _fit(title, width - 2 * margin, bold, max_lines=1),
    ha="center",
    va="center",
    fontweight="bold",
  )
  legend = (
    "In a box: the right value. On a line: the derivative of the equation that it leads to by what "
    "it comes from. Orange, ✗: as it was claimed, wrongly."
  )
  ax.text(
    middle,
    layout.height + foot - 0.12,
    _fit(legend, width - 2 * margin, _SMALL_TEXT_SIZE, max_lines=3),
    ha="center",
    va="bottom",
    color=_GREY,
    fontsize=_SMALL_TEXT_SIZE,
  )
  return figure, ax


def _draw_box(
  ax: Axes, layout: graph_layout.Layout, name: str, box: _Box, is_given: bool, is_wrong: bool
) -> None:
  """Draws a node, and the givens below it like the branches of a tree."""
  left, width, y = layout.left[name], layout.widths[name], layout.y[name]
  height = _LINE * len(box.lines) + 2 * _PAD
  ax.add_patch(
    FancyBboxPatch(
      (left, y - height / 2),
      width,
      height,
      boxstyle=f"round,pad=0,rounding_size={0.12 if is_given else 0.03}",
      facecolor="0.95" if is_given else "white",
      edgecolor=_MISTAKE_COLOR if is_wrong else _GREY,
      linewidth=1.8 if is_wrong else 1.0,
      zorder=3,
    )
  )
  for index, line in enumerate(box.lines):
    _write(ax, left + width / 2, y - height / 2 + _PAD + _LINE * (index + 0.5), line, index > 0)
  trunk, at = left + 0.12, y + height / 2
  for text, slope, mistakes in box.leaves:
    row = at + 0.5 * _PAD + _LINE / 2
    color = _MISTAKE_COLOR if mistakes else _GREY
    ax.plot([trunk, trunk], [y + height / 2, row], color=_GREY, linewidth=0.8, zorder=2)
    ax.plot([trunk, trunk + _BRANCH - 0.1], [row, row], color=color, linewidth=0.8, zorder=2)
    _label(ax, trunk + (_BRANCH - 0.1) / 2, row, slope, wrong=False)
    for index, line in enumerate([text, *mistakes]):
      _write(ax, left + _BRANCH + 0.1, row + _LINE * index, line, index > 0, ha="left")
    at += _LINE * (1 + len(mistakes)) + 0.5 * _PAD


def _write(ax: Axes, x: float, y: float, text: str, wrong: bool, ha: str = "center") -> None:
  color = _MISTAKE_COLOR if wrong else "black"
  style = {"fontsize": _SMALL_TEXT_SIZE, "va": "center_baseline", "zorder": 4}
  ax.text(x, y, _box_text(text), ha=ha, color=color, **style)


def _label(ax: Axes, x: float, y: float, text: str, wrong: bool) -> None:
  ax.text(
    x,
    y,
    text,
    ha="center",
    va="center",
    fontsize=_SMALL_TEXT_SIZE - 1,
    color=_MISTAKE_COLOR if wrong else _CORRECT_COLOR,
    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    zorder=2.5,
  )


def _draw_edges(ax: Axes, checked: CheckedWorksheet, layout: graph_layout.Layout, wrong) -> None:
  """Draws the arrows, then their derivatives where they cover least of each other."""
  ends = {edge: (points[-2], points[-1]) for edge, points in layout.routes.items()}
  taken: list[tuple[float, float, float, float]] = []
  for (name, node), points in layout.routes.items():
    mistakes = _wrong_text(wrong, name, node) if (node, name) in wrong else []
    color = _MISTAKE_COLOR if mistakes else "0.55"
    ax.plot(*zip(*points, strict=True), color=color, linewidth=0.8, zorder=1)
    arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", points[-1], points[-2], arrowprops=arrow, zorder=1)
    text = "\n".join([_slope_text(checked, node, name), *mistakes])
    x, y = _label_place(text, ends, (name, node), taken)
    _label(ax, x, y, text, wrong=bool(mistakes))


def _label_place(text: str, ends, edge, taken) -> tuple[float, float]:
  """Returns where along its edge a label covers least, and notes it in `taken`."""
  lines = text.split("\n")
  half_width = max(_width(line, _SMALL_TEXT_SIZE) for line in lines) / 2 + 0.02
  half_height = 0.07 * len(lines)
  (x0, y0), (x1, y1) = ends[edge]

  def rectangle(t):
    x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
    return x - half_width, y - half_height, x + half_width, y + half_height

  def cost(t):
    a = rectangle(t)
    labels = sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken)
    lines = sum(other != edge and _crosses(*ends[other], a) for other in ends)
    return 100 * labels + lines + abs(t - 0.45)

  best = min(np.linspace(0.2, 0.75, 23), key=cost)
  taken.append(rectangle(best))
  return (taken[-1][0] + taken[-1][2]) / 2, (taken[-1][1] + taken[-1][3]) / 2


def _crosses(start, end, rectangle: tuple[float, float, float, float]) -> bool:
  """Returns whether a line from left to right goes through a rectangle."""
  (x0, y0), (x1, y1) = start, end
  low, high = max(x0, rectangle[0]), min(x1, rectangle[2])
  if low >= high:
    return False
  at = sorted(y0 + (x - x0) / (x1 - x0) * (y1 - y0) for x in (low, high))
  return at[0] < rectangle[3] and rectangle[1] < at[1]


# --- Files ---


@_styled
def save(figure: Figure, path_without_suffix: str | os.PathLike) -> tuple[Path, Path]:
  """Writes a figure as PNG, at 150 dots per inch, and as SVG.

  Each file is written under a temporary name beside its place and then moved there, so that nobody
  ever reads half of one.

  Args:
    figure: from a function of this module.
    path_without_suffix: where to, e.g. "curves" for curves.png and curves.svg.

  Returns:
    The paths of the PNG and of the SVG file.
  """
  paths = []
  # Without metadata that would differ from day to day.
  for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
    path = Path(f"{os.fspath(path_without_suffix)}.{suffix}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
      figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)
    paths.append(path)
  return tuple(paths)


def _grid(figure: Figure, num_panels: int, num_columns: int) -> list[Axes]:
  """Adds panels row by row."""
  num_rows = math.ceil(num_panels / num_columns)
  axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
  for ax in axes[num_panels:]:
    ax.remove()
  return axes[:num_panels]


def _finish(figure: Figure) -> Figure:
  """Lays a figure out once and for all: doing it anew for each file would shift it a little."""
  figure.draw_without_rendering()
  figure.set_layout_engine("none")
  return figure


# --- Names, which are not ours ---


def _has_diverged(population: Population, arm: str) -> np.ndarray:
  """Returns `[S]` bool."""
  return population.status[:, list(population.arms).index(arm)] == "diverged"


def _arm_label(population: Population, arm: str, width: float, separator: str = "\n") -> str:
  """Returns an arm's name, in at most two lines `width` inches wide, and how many diverged."""
  diverged = _has_diverged(population, arm)
  label = _fit(arm, width, _TEXT_SIZE, max_lines=2)
  if diverged.any():
    label += f"{separator}(diverged: {diverged.sum()} of {len(diverged)})"
  return label


def _plain(text: str) -> str:
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


def _fit(text: str, width: float, size: float, max_lines: int) -> str:
  """Breaks text of a size in points into lines no wider than `width` inches.

  If that takes more than `max_lines`, the middle of the text gives way to an ellipsis: names of
  arms and classes mostly differ at their ends.
  """
  if len(text) > 1000:
    text = f"{text[:500]}…{text[-500:]}"
  text = _plain(text)
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
    if _width((lines[-1] + word).rstrip(), size) > width and lines[-1]:
      lines.append("")
    for char in word:
      if _width(lines[-1] + char, size) > width and char != " ":
        lines.append("")
      lines[-1] += char
  return [line.strip() for line in lines if line.strip()]


def _width(text: str, size: float) -> float:
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
