"""The pictures of a population, in one place for those who draw them by hand.

An arm has the same colour, line style and marker in all of them.
"""

from jaxdl.report.confusion_plots import confusion_matrices
from jaxdl.report.curve_plots import learning_curves, learning_rates
from jaxdl.report.example_plots import augmented_images, worst_mistakes
from jaxdl.report.prediction_plots import predictions, reliability
from jaxdl.report.score_plots import metric_distribution, score_distribution

__all__ = (
  "augmented_images",
  "confusion_matrices",
  "learning_curves",
  "learning_rates",
  "metric_distribution",
  "predictions",
  "reliability",
  "score_distribution",
  "worst_mistakes",
)
