"""Does the weight initializer matter? Three initializers, a CNN, the digits 3 and 7.

jaxdl run compare_initializers[:VARIANT] --workdir=DIR

On two CPU cores, JAX 0.12.0:

  VARIANT   seeds  time    test accuracy: glorot_uniform, random_uniform, random_normal; verdict
  mnist     16     28 min  98.51, 98.60, 98.80 %; random_normal is better than both others (margin
                           0.2 points; the cores also ran other programs)
  digits    16     14 s    all three equivalent within 2 points (this is `jaxdl demo`)
  smoke     2      seconds too few seeds: no claim
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("mnist", "digits", "smoke")


def get_config(variant: str = "mnist") -> ConfigDict:
  """Returns the config of a variant: `mnist` is the coursework's setting, `smoke` takes seconds."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # One arm per initializer: KERNEL, for both kernels and biases, or KERNEL/BIAS.
  config.initializers = ("glorot_uniform", "random_uniform", "random_normal")
  config.num_seeds = 16
  config.seed = 0

  config.dataset = "mnist"
  config.classes = (3, 7)  # the second one is label 1
  config.validation_fraction = 0.2

  config.model = "cnn_binary"
  config.activation = "relu"
  config.dropout_rate = 0.5
  config.loss = "binary_cross_entropy"
  config.optimizer = "adam"
  config.learning_rate = 0.001
  config.batch_size = 512
  config.num_epochs = 20
  config.patience = 4  # on the validation loss; -1: never stop early
  config.min_delta = 0.0
  config.restore_best = False
  config.threshold = 0.9  # class 1 if its probability is above this; results at 0.5 are shown too

  # Metrics to compare and the largest difference in each that counts as none; the first one is what
  # the answer is about.
  config.margins = ConfigDict(
    {"test_accuracy": 0.002, "test_accuracy_at_half": 0.002, "test_loss": 0.005}
  )
  config.alpha = 0.05
  config.num_resamples = 99_999

  config.chunk_size = 0  # seeds that train at a time on a worker; 0: automatic
  config.slice_size = 0  # images that pass through the model at once; 0: automatic

  if variant in ("digits", "smoke"):
    config.dataset = "digits"
    config.num_seeds = 16
    config.num_epochs = 12
    config.batch_size = 32
    # With 89 test images, one image is 1.1 points.
    config.margins = ConfigDict(
      {"test_accuracy": 0.02, "test_accuracy_at_half": 0.02, "test_loss": 0.05}
    )
  if variant == "smoke":
    config.num_seeds = 2
    config.num_epochs = 2
  return config
