"""The pictures that every report of a run has."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxdl import batches
from jaxdl import experiment as experiment_lib
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.experiment import Experiment
from jaxdl.nn import augment
from jaxdl.population.results import Population

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
    trained = trained.select(experiment_lib.shown_arms(trained.scores(metric)))
  pictures = [
    (
      "learning_curves",
      f"Learning curves: mean over seeds with its 95% interval, a thin line per seed.{which}",
      plots.learning_curves(trained, everyone),
    ),
    (
      "metric_distribution",
      f"{metric} of every seed, lines joining the arms of one seed; mean with its 95% interval."
      f"{which}",
      plots.metric_distribution(trained, metric, everyone),
    ),
  ]
  if trained.has_classes:
    caption = "Confusion matrices on the test set, counts summed over seeds."
    caption += " The best and the worst arm." if which else ""
    ends = list(trained.arms) if everyone is None else [*trained.arms][:: len(trained.arms) - 1]
    figure = plots.confusion_matrices(trained.select(ends))
    pictures.append(("confusion_matrices", caption, figure))
    caption = (
      "How often predictions are right, against how confident they are, over all seeds; below, the "
      f"share of predictions.{which}"
    )
    pictures.append(("reliability", caption, plots.reliability(trained)))
  elif trained.resampling is None:
    caption = "Predicted against true numbers of the test set, means over seeds, and residuals."
    caption += which
    pictures.append(("predictions", caption, plots.predictions(trained)))
  has_one_class_each = trained.has_classes and trained.test_targets.ndim == 1
  if has_one_class_each and _are_images(dataset.test.inputs):
    caption = f"The test images that arms and seeds together are most wrong about.{which}"
    pictures.append(("worst_mistakes", caption, plots.worst_mistakes(trained, dataset.test.inputs)))
  if any(_changes_rate(arm) for arm in trained.arms.values()):
    figure = plots.learning_rates(trained)
    caption = f"The learning rate of each epoch's first step.{which}"
    pictures.append(("learning_rates", caption, figure))
  for arm in trained.arms.values():
    if not arm.augmentation.is_identity:
      caption = "Training images, the originals on the left, as augmentation shows them."
      pictures.append(("augmentation", caption, _augmentation_picture(experiment, dataset, arm)))
      break
  return pictures


def _are_images(inputs: np.ndarray) -> bool:
  return inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[-1] in (1, 3)


def _changes_rate(arm: Arm) -> bool:
  return str(arm.schedule).strip() != "constant" or arm.plateau_patience is not None


def _augmentation_picture(
  experiment: Experiment, dataset: Dataset, arm: Arm, num_images: int = 5, num_variants: int = 7
) -> "Figure":
  """Draws what an arm's augmentation makes of the first training images."""
  from jaxdl.report import plots

  originals = dataset.train.inputs[:num_images]  # [K, H, W, D] uint8
  pixels = originals.astype(np.float32) / 255
  keys = jax.random.split(batches.seed_key(experiment.seed, 0), (num_variants, len(originals)))
  augmented = [augment.random_affine(row, pixels, arm.augmentation) for row in keys]
  return plots.augmented_images(originals, np.stack(augmented, axis=1))
