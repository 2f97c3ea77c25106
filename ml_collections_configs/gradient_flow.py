"""Where do gradients vanish and explode? Activations x initializers x depths of an MLP.

jaxdl run gradient_flow[:VARIANT] --workdir=DIR

On two CPU cores (not measured on a GPU), JAX 0.12.0:

  VARIANT  time     dataset              seeds  epochs  activations x initializers x depths
  mnist    1.5 min  mnist, 6,000 images     10       8  5 x 4 x (2, 5, 10)
  full     not run  mnist, all              12      20  5 x 6 x (2, 5, 10, 20, 40)
  smoke    seconds  digits                   2       2  2 x 2 x (2, 3)

Results of `mnist`: a gradient loses four powers of ten on the way through ten layers of sigmoid,
and none through ten layers of ReLU. A ReLU network never learns if its initial weights are a third
of He's, and diverges if they are three times He's.

The optimizer is plain SGD with the same learning rate for all arms. Its step is proportional to the
gradient, so a vanished gradient changes no weight. Adam would divide each gradient by its size and
hide the difference.
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("mnist", "full", "smoke")


def get_config(variant: str = "mnist") -> ConfigDict:
  """Returns the config of a variant: `mnist` takes minutes, `full` hours, `smoke` seconds."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # One arm for each combination. Gradients are compared with those of the first activation, and the
  # speed of learning with that of the first initializer.
  config.activations = ("sigmoid", "tanh", "relu", "leaky_relu", "gelu")
  # The variance that preserves the signal of a ReLU, that of a linear unit, and a standard
  # deviation that is too small or too large. All are multiples of the same random numbers, so
  # within a seed only the scale differs. This also compiles fastest.
  config.initializers = ("he_normal", "glorot_normal", "he_normal(0.3)", "he_normal(3)")
  config.depths = (2, 5, 10)  # hidden layers
  config.width = 64  # units per hidden layer
  # The verdicts are about this arm and those that differ from it in one of the three settings.
  config.reference = "relu/he_normal/depth 10"
  config.num_seeds = 10
  config.seed = 0

  config.dataset = "mnist"
  config.num_train = 6_000  # 0: all
  config.validation_fraction = 0.0

  config.loss = "categorical_cross_entropy"
  config.optimizer = "sgd"
  config.learning_rate = 0.05
  config.bias_initializer = "zeros"
  config.dropout_rate = 0.0
  config.batch_size = 32
  config.num_epochs = 8
  config.patience = -1  # never stop early
  config.target_loss = 0.5  # training loss

  # Metrics to compare and the largest difference in each that counts as none; the first one is what
  # the answer is about.
  config.margins = ConfigDict({"epochs_to_target": 1.0, "test_accuracy": 0.02})
  config.alpha = 0.05
  config.num_resamples = 99_999

  config.chunk_size = 0  # seeds that train at a time on a worker; 0: automatic
  config.slice_size = 0  # images that pass through the model at once; 0: automatic

  if variant == "full":
    config.initializers = (*config.initializers, "orthogonal", "random_normal(0.05)")
    config.depths = (2, 5, 10, 20, 40)
    config.num_seeds = 12
    config.num_train = 0
    config.num_epochs = 20
  if variant == "smoke":
    config.activations = ("sigmoid", "relu")
    config.initializers = ("he_normal", "he_normal(0.3)")
    config.depths = (2, 3)
    config.width = 16
    config.reference = "relu/he_normal/depth 3"
    config.dataset = "digits"
    config.num_train = 0
    config.num_seeds = 2
    config.num_epochs = 2
    config.target_loss = 2.0
  return config
