"""The picture of confusion matrices."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jaxdl.optim import losses
from jaxdl.population.results import Population
from jaxdl.report import figures


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
  titles = [_confusion_title(population, index, panel) for index in range(num_arms)]
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


def _confusion_title(population: Population, index: int, width: float) -> str:
  name, arm = list(population.arms.items())[index]
  lines = [figures.arm_label(name, population.status[:, index] == "diverged", width)]
  if losses.has_threshold(arm.loss):
    lines.append(f"threshold {arm.threshold:g}")
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
