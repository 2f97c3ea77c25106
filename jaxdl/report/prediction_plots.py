"""Pictures of predictions: numbers against the true ones, and how confident is how right."""

import numpy as np
from matplotlib.figure import Figure

from jaxdl.population.results import Population
from jaxdl.report import figures
from jaxdl.report.arm_text import seeds_text
from jaxdl.report.picture_data import numbers

# More points hide each other.
_MAX_POINTS = 2000


_MAX_COLUMNS = 3


@figures.styled
def predictions(population: Population) -> Figure:
  """Draws predicted against true numbers of the test set, and the residuals, a column per arm.

  A prediction is the mean over the seeds that did not diverge. Numbers of several outputs are drawn
  together.

  Args:
    population: the trained members; their targets are numbers.

  Returns:
    A figure with two rows of panels for every three arms: predictions above, residuals below.
  """
  true, predicted, num_shown = numbers(population, _MAX_POINTS)
  num_columns = min(_MAX_COLUMNS, len(population.arms))
  num_rows = -(-len(population.arms) // num_columns)
  width = max(figures.MAX_WIDTH * num_columns / _MAX_COLUMNS, 3.6)
  figure = Figure(figsize=(width, 4.6 * num_rows), layout="constrained")
  axes = figure.subplots(2 * num_rows, num_columns, squeeze=False)
  ends = np.array([true.min(), true.max()])
  residuals = predicted - true[None]  # [A, N]
  largest = 1.05 * np.abs(residuals).max() or 1.0
  for index, arm in enumerate(population.arms):
    row, column = divmod(index, num_columns)
    above, below = axes[2 * row, column], axes[2 * row + 1, column]
    dots = {"color": figures.arm_style(index).color, "markersize": 2, "alpha": 0.5}
    above.plot(ends, ends, color=figures.GREY, linewidth=0.8)
    above.plot(true, predicted[index], ".", **dots)
    below.axhline(0, color=figures.GREY, linewidth=0.8)
    below.plot(true, residuals[index], ".", **dots)
    below.set_ylim(-largest, largest)
    above.set_title(figures.fit(arm, width / num_columns - 0.5))
    below.set_xlabel("true")
    for ax in (above, below):
      figures.add_grid_lines(ax)
  for row in range(num_rows):
    axes[2 * row, 0].set_ylabel("predicted")
    axes[2 * row + 1, 0].set_ylabel("predicted - true")
  for unused in range(len(population.arms), num_rows * num_columns):
    for ax in axes[-2:, unused % num_columns]:
      ax.set_visible(False)
  figure.suptitle(f"Means of {seeds_text(population)} on {num_shown:,} test examples")
  return figures.finish(figure)


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
  for index, (arm, (sizes, confidences, correct)) in enumerate(
    zip(population.arms, totals, strict=True)
  ):
    style = figures.arm_style(index)
    some = sizes > 0
    x = 100 * confidences[some] / sizes[some]
    kwargs = {"color": style.color, "linestyle": style.line_style, "linewidth": 1.2}
    kwargs |= {"marker": style.marker, "markersize": 4}
    upper.plot(x, 100 * correct[some] / sizes[some], **kwargs)
    lower.plot(x, 100 * sizes[some] / max(sizes.sum(), 1), **kwargs)
    label = figures.legend_text(arm, population.status[:, index] == "diverged")
    entries.append((label, figures.mean_line(index)))
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
