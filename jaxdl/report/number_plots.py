"""Pictures of predicted numbers: against the true ones, and their residuals."""

import numpy as np
from matplotlib.figure import Figure

from jaxdl.population.results import Population
from jaxdl.report import figures
from jaxdl.report.markdown import seeds_text

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
  true = population.test_targets.reshape(len(population.test_targets), -1)  # [N, K]
  chosen = np.linspace(0, len(true) - 1, min(len(true), _MAX_POINTS)).astype(int)
  true = true[chosen].ravel()
  predicted = population.mean_probabilities[:, chosen].reshape(len(population.arms), -1)
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
    above.set_title(figures.fit(arm, width / num_columns - 0.5, figures.TEXT_SIZE, max_lines=2))
    below.set_xlabel("true")
    for ax in (above, below):
      figures.add_grid_lines(ax)
  for row in range(num_rows):
    axes[2 * row, 0].set_ylabel("predicted")
    axes[2 * row + 1, 0].set_ylabel("predicted - true")
  for unused in range(len(population.arms), num_rows * num_columns):
    for ax in axes[-2:, unused % num_columns]:
      ax.set_visible(False)
  figure.suptitle(f"Means of {seeds_text(population)} on {len(chosen):,} test examples")
  return figures.finish(figure)
