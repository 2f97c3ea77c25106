"""The pictures that every report of a run has."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxdl import answer as answer_lib
from jaxdl import batches
from jaxdl import experiment as experiment_lib
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.experiment import Experiment
from jaxdl.nn import augment
from jaxdl.population.results import Population
from jaxdl.report.picture_data import is_image

if TYPE_CHECKING:
  from jaxdl.report.figures import Figure

# Pictures that the page draws itself.
DRAWN_BY_PAGE = (
  *("learning_curves", "metric_distribution", "confusion_matrices", "worst_mistakes"),
  "predictions",
)


def pictures(
  experiment: Experiment, trained: Population, dataset: Dataset
) -> list[tuple[str, str, "Figure"]]:
  """Returns (file name without suffix, caption, figure) of the pictures that every report has."""
  from jaxdl.report import plots

  metric = next(iter(experiment.margins))
  everyone, which = None, ""
  if experiment_lib.is_many(trained.arms):
    everyone, which = trained, f" The best and the worst of {len(trained.arms):,} arms."
    trained = trained.select(answer_lib.shown_arms(trained.scores(metric)))
  found = []

  def add(name: str, caption: str, figure: "Figure", note: str = which) -> None:
    found.append((name, caption + note, figure))

  caption = "Learning curves: mean over seeds with its 95% interval, a thin line per seed."
  add("learning_curves", caption, plots.learning_curves(trained, everyone))
  caption = "of every seed, lines joining the arms of one seed; mean with its 95% interval."
  figure = plots.metric_distribution(trained, metric, everyone)
  add("metric_distribution", f"{metric} {caption}", figure)
  if trained.has_classes:
    caption = "Confusion matrices on the test set, counts summed over seeds."
    ends, note = list(trained.arms), ""
    if everyone is not None:
      ends, note = [ends[0], ends[-1]], " The best and the worst arm."
    add("confusion_matrices", caption, plots.confusion_matrices(trained.select(ends)), note)
    caption = (
      "How often predictions are right, against how confident they are, over all seeds; below, the "
      "share of predictions."
    )
    add("reliability", caption, plots.reliability(trained))
  elif trained.resampling is None:
    caption = "Predicted against true numbers of the test set, means over seeds, and residuals."
    add("predictions", caption, plots.predictions(trained))
  has_one_class_each = trained.has_classes and trained.test_targets.ndim == 1
  if has_one_class_each and is_image(dataset.test.inputs):
    caption = "The test images that arms and seeds together are most wrong about."
    add("worst_mistakes", caption, plots.worst_mistakes(trained, dataset.test.inputs))
  if any(_changes_rate(arm) for arm in trained.arms.values()):
    caption = "The learning rate of each epoch's first step."
    add("learning_rates", caption, plots.learning_rates(trained))
  augmented = [arm for arm in trained.arms.values() if not arm.augmentation.is_identity]
  if augmented:
    caption = "Training images, the originals on the left, as augmentation shows them."
    add("augmentation", caption, _augmentation_picture(experiment, dataset, augmented[0]), "")
  return found


def _changes_rate(arm: Arm) -> bool:
  return str(arm.schedule).strip() != "constant" or arm.plateau_patience is not None


def _augmentation_picture(experiment: Experiment, dataset: Dataset, arm: Arm) -> "Figure":
  """Draws what an arm's augmentation makes of the first training images."""
  from jaxdl.report import plots

  originals = dataset.train.inputs[:5]  # [K, H, W, D] uint8
  pixels = originals.astype(np.float32) / 255
  keys = jax.random.split(batches.seed_key(experiment.seed, 0), (7, len(originals)))
  augmented = [augment.random_affine(row, pixels, arm.augmentation) for row in keys]
  return plots.augmented_images(originals, np.stack(augmented, axis=1))
