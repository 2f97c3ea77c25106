"""Which loss should a classifier be trained with? Four losses, an MLP, CIFAR-10.

jaxdl run compare_losses[:VARIANT] --workdir=DIR

On two CPU cores (not measured on a GPU), JAX 0.12.0, CIFAR-10 from a copy whose images were
compressed again as JPEG:

  VARIANT   seeds  time    test accuracy: cross-entropy, squared error, hinge, hinge on softmax
  quick     10     1 min   38.2, 37.8, 36.5, 20.8 %; the first two are better than both hinges, but
                           undecided against each other
  notebook  4      not run
  smoke     2      seconds digits; too few seeds: no claim
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("quick", "notebook", "smoke")


def get_config(variant: str = "quick") -> ConfigDict:
  """Returns the config of a variant: `notebook` is the coursework's setting, `smoke` takes seconds.

  `quick` has a quarter of the parameters and a fifth of the training images and epochs.
  """
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # Cross-entropy and squared error of the softmax outputs; hinge on the logits, and hinge on the
  # softmax outputs, as in the coursework.
  config.losses = ("categorical_cross_entropy", "mean_squared_error", "hinge", "softmax_hinge")
  config.num_seeds = 4
  config.seed = 0

  config.dataset = "cifar10"
  config.num_train = 0  # number of training images; 0: all
  config.validation_fraction = 0.1

  config.model = "cifar_mlp"
  config.dropout_rate = 0.0
  config.optimizer = "adam"
  config.learning_rate = 0.001
  config.schedule = "step(0.5, 10)"  # halved every 10 epochs
  config.batch_size = 64
  config.num_epochs = 50
  config.patience = -1  # never stop early

  config.rotation_range = 15.0  # degrees
  config.shift_range = 0.1  # of height and width
  config.horizontal_flip = True

  # Metrics to compare and the largest difference in each that counts as none. Losses are not
  # compared, because their units differ.
  config.margins = ConfigDict({"test_accuracy": 0.01, "f1": 0.01}, sort_keys=False)
  config.alpha = 0.05
  config.num_resamples = 99_999

  config.chunk_size = 0  # seeds that train at a time on a worker; 0: automatic
  config.slice_size = 0  # images that pass through the model at once; 0: automatic

  if variant == "quick":
    # A quarter of the parameters, 402,250, because two cores spend most time on the state of Adam.
    config.model = "mlp(128,64)"
    config.num_seeds = 10
    config.num_train = 10_000
    config.schedule = "step(0.5, 2)"
    config.num_epochs = 10
  if variant == "smoke":
    config.dataset = "digits"
    config.num_seeds = 2
    config.num_train = 300
    config.num_epochs = 2
  return config
