"""Which training strategy improves on a plain base? Twelve strategies, an MLP, CIFAR-10.

jaxdl run compare_strategies[:VARIANT] --workdir=DIR

On two CPU cores that also ran other programs (not measured on a GPU), JAX 0.12.0, CIFAR-10 from a
copy whose images were compressed again as JPEG:

  VARIANT   seeds  time    setting and result
  cifar10   16     7 min   5,000 images, 12 epochs, 402,250 parameters: base 36.3 %, cnn 51.8 %,
                           one_cycle 39.0 %, dropout 31.9 %; ensembles of two networks of the base
                           are 1.4 to 2.4 points above their members
  notebook  16     not run all images, 50 epochs, the coursework's 1,707,274 parameters
  smoke     2      seconds digits, 2 epochs, base and four strategies: no claim
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("cifar10", "notebook", "smoke")


def get_config(variant: str = "cifar10") -> ConfigDict:
  """Returns the config of a variant: `cifar10` takes minutes, `notebook` hours, `smoke` seconds."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # Any keys of `changes`; the base is always trained.
  config.strategies = (
    *("base", "early_stopping", "step_decay", "cosine", "reduce_on_plateau", "warmup"),
    *("one_cycle", "dropout", "l2", "label_smoothing", "augmentation", "cnn", "wide"),
  )
  # There are 12 comparisons with the base, so with fewer than 9 seeds nothing could be significant.
  # 16 seeds give 8 ensembles of two; 6 are the fewest that can be significant.
  config.num_seeds = 16
  config.seed = 0

  config.dataset = "cifar10"
  config.num_train = 5_000  # the first training images; 0: all
  config.validation_fraction = 0.1

  # The base has 3,072 inputs, 128 and 64 ReLU units and 10 outputs. Its 402,250 parameters are a
  # quarter of the coursework's, because two cores spend most time on the state of Adam.
  config.model = "mlp(128,64)"
  config.activation = "relu"
  config.kernel_initializer = "glorot_uniform"
  config.bias_initializer = "zeros"
  config.dropout_rate = 0.0
  config.loss = "categorical_cross_entropy"
  config.optimizer = "adam"
  config.learning_rate = 0.001
  config.schedule = "constant"
  config.batch_size = 64
  config.num_epochs = 12
  config.patience = -1  # never stop early
  config.reference = "base"

  # Strategy -> the settings in which it differs from the base.
  config.changes = ConfigDict(
    {
      # Reports the weights of the best epoch, not those of `patience` epochs later.
      "early_stopping": {"patience": 3, "restore_best": True},
      "step_decay": {"schedule": "step(0.5, 4)"},
      "cosine": {"schedule": "cosine"},
      "reduce_on_plateau": {"plateau_patience": 2, "plateau_factor": 0.5},
      "warmup": {"schedule": "warmup(3)"},
      "one_cycle": {"schedule": "one_cycle"},
      "dropout": {"dropout_rate": 0.5},
      "l2": {"l2": 1e-4},
      "label_smoothing": {"label_smoothing": 0.1},
      "augmentation": {"rotation_range": 15.0, "shift_range": 0.1, "horizontal_flip": True},
      # Two blocks of convolution and pooling, then the output: 42,442 parameters for ten classes of
      # 32 x 32 x 3 images.
      "cnn": {"model": "cnn_binary"},
      # 820,874 parameters: a network that costs as much as two.
      "wide": {"model": "mlp(256,128)"},
    }
  )

  # Metrics to compare and the largest difference in each that counts as none; the first one is what
  # the answer is about.
  config.margins = ConfigDict({"test_accuracy": 0.01, "epochs": 1.0}, sort_keys=False)
  config.alpha = 0.05
  config.num_resamples = 99_999

  config.chunk_size = 0  # seeds that train at a time on a worker; 0: automatic
  config.slice_size = 0  # images that pass through the model at once; 0: automatic

  if variant == "notebook":
    # 512 ReLU and 256 tanh units; 1,707,274 parameters.
    config.model = "cifar_mlp"
    config.num_train = 0
    config.num_epochs = 50
    config.changes.early_stopping.patience = 5
    config.changes.step_decay.schedule = "step(0.5, 15)"
    config.changes.reduce_on_plateau.plateau_patience = 3
    config.changes.warmup.schedule = "warmup(5)"
  if variant == "smoke":
    config.dataset = "digits"
    config.num_train = 0
    config.strategies = ("early_stopping", "cosine", "label_smoothing", "cnn")
    config.num_seeds = 2
    config.num_epochs = 2
    config.changes.warmup.schedule = "warmup(1)"
    # With 447 test images, one image is 0.2 points.
    config.margins.test_accuracy = 0.02
  return config
