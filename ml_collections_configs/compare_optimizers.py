"""Does the optimizer matter? Seven optimizers, thirteen learning rates each, an MLP, MNIST.

jaxdl run compare_optimizers[:VARIANT] --workdir=DIR

On two CPU cores that also ran other programs (not measured on a GPU), JAX 0.12.0:

  VARIANT   seeds  time    setting and result
  mnist     16     6 min   6,000 images of MNIST, 8 epochs. Best rates: sgd 0.3, momentum 0.1,
                           nesterov 0.03, rmsprop 0.003, adagrad 0.1, adam and adamw 0.003; at
                           these, accuracies differ by less than a point
  full      16     not run all of MNIST, 10 epochs
  smoke     2      seconds digits, 2 epochs, two optimizers with four rates: no claim
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("mnist", "full", "smoke")


def get_config(variant: str = "mnist") -> ConfigDict:
  """Returns the config of a variant: `mnist` takes minutes, `full` longer, `smoke` seconds."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # One arm for each pair of an optimizer and a learning rate.
  config.optimizers = ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw")
  config.learning_rates = (
    *(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01),
    *(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
  )
  # There are 21 pairs of optimizers, so with fewer than 10 seeds nothing could be significant, and
  # with fewer than 16 arms are never shown to be alike.
  config.num_seeds = 16
  config.seed = 0

  config.dataset = "mnist"
  config.num_train = 6_000  # the first training images; 0: all
  config.validation_fraction = 0.2  # the best learning rates are chosen on these images

  config.model = "mlp"
  config.activation = "relu"
  config.kernel_initializer = "glorot_uniform"
  config.bias_initializer = "zeros"
  config.dropout_rate = 0.0
  config.loss = "categorical_cross_entropy"
  config.batch_size = 64
  config.num_epochs = 8
  config.patience = -1  # never stop early: every optimizer gets the same number of steps

  # How fast an optimizer converges: epochs until the training loss is at most this.
  config.target_loss = 0.2
  # Metrics to compare and the largest difference in each that counts as none; the first one is what
  # the answer is about.
  config.margins = ConfigDict({"test_accuracy": 0.005, "epochs_to_target": 0.5}, sort_keys=False)
  config.alpha = 0.05
  config.num_resamples = 99_999

  config.chunk_size = 0  # seeds that train at a time on a worker; 0: automatic
  config.slice_size = 0  # images that pass through the model at once; 0: automatic

  if variant == "full":
    config.num_train = 0
    config.num_epochs = 10
    config.target_loss = 0.1
    config.margins = ConfigDict({"test_accuracy": 0.002, "epochs_to_target": 0.5}, sort_keys=False)
  if variant == "smoke":
    config.dataset = "digits"
    config.num_train = 0
    config.optimizers = ("sgd", "adam")
    config.learning_rates = (1e-4, 0.01, 0.1, 10.0)
    config.num_seeds = 2
    config.num_epochs = 2
    # With 447 test images, one image is 0.2 points.
    config.margins = ConfigDict({"test_accuracy": 0.02, "epochs_to_target": 0.5}, sort_keys=False)
  return config
