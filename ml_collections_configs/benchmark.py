"""How fast is jaxdl compared with Keras and PyTorch, on the same work and the same machine?

make install-peers
jaxdl run benchmark[:VARIANT] --workdir=DIR

  VARIANT  what
  full     every workload as in the coursework: about forty minutes
  quick    the CNNs and CIFAR-10 with a tenth to a half of the examples: twenty minutes
  smoke    two tiny workloads on the digits of scikit-learn, without peers: seconds
  gpu      64 and more members on a GPU: not run

On two CPU cores (AMD EPYC, Zen 5), JAX 0.12.0, five rounds, `full`: jaxdl trains 1.9 (cifar_mlp) to
14 (mlp_stochastic) times as fast as the fastest peer, and 1.4 to 10 times without its layers in
C++. docs/benchmark.md has the table. Such ratios vary by a quarter from one hour to another.
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("full", "quick", "smoke", "gpu")

# The settings of every workload, unless it says otherwise below.
_DEFAULTS = {
  "dataset": "mnist",
  "classes": (),  # empty: all
  "num_train": 0,  # training images, after the classes are selected; 0: all
  "model": "mlp",  # see `jaxdl.nn.models.parse`
  "activation": "relu",
  "dropout_rate": 0.0,
  "loss": "categorical_cross_entropy",
  "optimizer": "adam",
  "learning_rate": 0.001,
  "batch_size": 32,
  "rotation_range": 0.0,
  "shift_range": 0.0,
  "horizontal_flip": False,
}
_CIFAR = {"dataset": "cifar10", "model": "cifar_mlp", "batch_size": 64}
_WORKLOADS = {
  "cnn_binary": {
    "classes": (3, 7),
    "num_train": 9_916,
    "model": "cnn_binary",
    "dropout_rate": 0.5,
    "loss": "binary_cross_entropy",
    "batch_size": 512,
  },
  "cnn_mnist": {"num_train": 54_000, "model": "cnn_mnist"},
  "mlp_minibatch": {},
  "mlp_stochastic": {"num_train": 6_000, "batch_size": 1},
  "mlp_full_batch": {"batch_size": 60_000},
  "cifar_mlp": _CIFAR,
  "cifar_mlp_augmented": {
    **_CIFAR,
    "rotation_range": 15.0,
    "shift_range": 0.1,
    "horizontal_flip": True,
  },
}


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a variant; the module's docstring lists the variants."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  config.workloads = ConfigDict(
    {name: ConfigDict({**_DEFAULTS, **own}) for name, own in _WORKLOADS.items()}, sort_keys=False
  )
  # The workloads for which training, inference, populations of several sizes, and the cold start
  # (with a full and an empty cache of programs) are measured.
  config.train = tuple(_WORKLOADS)
  config.inference = ("cnn_binary", "cnn_mnist", "mlp_minibatch", "cifar_mlp")
  config.population = ("cnn_binary", "mlp_minibatch", "cifar_mlp")
  config.cold_start = ("cnn_binary",)
  config.population_sizes = (1, 2, 4)

  config.rounds = 5
  config.num_members = 4  # members of jaxdl in training; they show the spread between seeds
  config.seed = 0
  config.device = "cpu"
  config.threads = 0  # threads of every peer, and workers of jaxdl; 0: one per core
  config.peers = ("keras-tensorflow", "keras-jax", "torch")
  config.peers_python = ".venv-peers/bin/python"
  # Variants of each peer from which a short trial chooses; empty: all, which takes long.
  augmented = ("fit_generator", "fit_tf_data")
  config.variants = ConfigDict(
    {
      "keras_tensorflow": ("fit_steps", "fit_steps_jit", *augmented),
      "keras_jax": ("fit", *augmented),
      "torch": ("eager", "eager_channels_last", "compile_step"),
    },
    sort_keys=False,
  )
  # Whether to time the fastest whole-epoch program written by hand around a peer's layers. It gets
  # a separate row, and nothing is compared with it, because the peer does not offer it.
  config.loops_by_hand = True
  # Whether to time jaxdl without its layers in C++ too (see `jaxdl.cpu`).
  config.xla_alone = True

  if variant == "quick":
    for name, num_train in {
      "cnn_binary": 4_096,
      "cnn_mnist": 6_400,
      "cifar_mlp": 6_400,
      "cifar_mlp_augmented": 6_400,
    }.items():
      config.workloads[name].num_train = num_train
  if variant == "smoke":
    small = {**_DEFAULTS, "dataset": "digits", "num_train": 200, "model": "mlp(16)"}
    config.workloads = ConfigDict({"mlp": ConfigDict(small)})
    config.workloads.cnn = ConfigDict({**small, "model": "cnn_binary", "batch_size": 100})
    config.train = ("mlp", "cnn")
    config.inference = config.population = ("mlp",)
    config.population_sizes = (1, 2)
    config.cold_start = ()
    config.rounds, config.num_members = 2, 2
    config.peers = ()
  if variant == "gpu":
    config.device = "gpu"
    for peer in config.variants:  # it is unknown which is fastest there
      config.variants[peer] = ()
    config.train = config.inference = config.population = ("cnn_binary", "mlp_minibatch")
    config.cold_start = ()
    config.num_members = 64
    config.population_sizes = (1, 4, 16, 64, 256)
  return config
