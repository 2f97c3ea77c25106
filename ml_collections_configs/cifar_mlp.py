"""How well does an MLP classify photographs, and what do augmentation and a falling rate add?

jaxdl run cifar_mlp[:VARIANT] --workdir=DIR

The coursework's network with 1,707,274 parameters on CIFAR-10. After 50 epochs the coursework had
54.52 % accuracy and a loss of 1.2769.

On two CPU cores with other load (not measured on a GPU), JAX 0.12.0, CIFAR-10 from a copy whose
images were compressed again as JPEG:

  VARIANT   seeds  time     test accuracy: coursework, no_augmentation, constant_rate
  quick     7      5.5 min  33.9, 35.4, 33.0 %; both undecided at a margin of 1 point
  notebook  10     25 min   only the arm coursework, on all training images as in the coursework
                            (--config.arms=coursework --config.reference=
                            --config.validation_fraction=0 --config.num_seeds=10): 54.36 % (53.99
                            to 54.79), loss 1.285 (1.273 to 1.296); the coursework's results are
                            within both ranges
  notebook  4      29 min   the same with a tenth for validation: 53.85 % (53.68 to 54.09), loss
                            1.297 (1.293 to 1.302)
  smoke     2      seconds  digits; too few seeds: no claim
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("quick", "notebook", "smoke")


def get_config(variant: str = "quick") -> ConfigDict:
  """Returns the config of a variant: `notebook` is the coursework's setting, `smoke` takes seconds.

  `quick` has a tenth of the training images and a fifth of the epochs.
  """
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # `coursework` has the settings below; the others leave out one part of them.
  config.arms = ("coursework", "no_augmentation", "constant_rate")
  config.reference = "coursework"
  config.num_seeds = 4
  config.seed = 0

  config.dataset = "cifar10"
  config.num_train = 0  # number of training images; 0: all
  config.validation_fraction = 0.1

  config.model = "cifar_mlp"
  config.dropout_rate = 0.0
  config.loss = "categorical_cross_entropy"
  config.optimizer = "adam"
  config.learning_rate = 0.001
  config.schedule = "step(0.5, 10)"  # halved every 10 epochs
  config.batch_size = 64
  config.num_epochs = 50
  config.patience = -1  # never stop early

  config.rotation_range = 15.0  # degrees
  config.shift_range = 0.1  # of height and width
  config.horizontal_flip = True

  # Metrics to compare and the largest difference in each that counts as none.
  config.margins = ConfigDict({"test_accuracy": 0.01, "test_loss": 0.02})
  config.alpha = 0.05
  config.num_resamples = 99_999

  config.chunk_size = 0  # seeds that train at a time on a worker; 0: automatic
  config.slice_size = 0  # images that pass through the model at once; 0: automatic

  if variant == "quick":
    config.num_seeds = 7
    config.num_train = 5_000
    config.schedule = "step(0.5, 2)"
    config.num_epochs = 10
  if variant == "smoke":
    config.dataset = "digits"
    config.num_seeds = 2
    config.num_train = 300
    config.schedule = "step(0.5, 1)"
    config.num_epochs = 2
  return config
