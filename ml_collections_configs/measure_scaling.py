"""What do checkpoints cost, and how does a run spread over workers?

jaxdl run measure_scaling[:VARIANT] --workdir=DIR

The network and the data are those of compare_initializers. `full` takes eleven minutes on two idle
CPU cores (AMD Zen 5); its results are in docs/scaling.md.
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a variant; `smoke` takes seconds."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  config.dataset = "mnist"
  config.classes = (3, 7)
  config.model = "cnn_binary"
  config.batch_size = 512
  config.seed = 0
  config.rounds = 5  # rounds in which runs that are compared take turns

  # The cost of checkpoints: members, on all cores, and epochs of each.
  config.checkpoint_members = 4
  config.checkpoint_epochs = 10
  # Strong scaling: one worker against two, each with its own core.
  config.scaling_members = 8
  config.scaling_epochs = 3
  config.scaling_train = 4_000
  # Chunks that train nothing, to measure the overhead per chunk.
  config.num_empty_chunks = 10_000
  # The cost model: (members, epochs, training and validation images) of the runs to which it is
  # fitted, and of the run that it must predict.
  config.fitted = ((4, 2, 1_000), (4, 6, 1_000), (4, 2, 4_000), (4, 6, 4_000), (12, 2, 1_000))
  config.predicted = (8, 5, 8_000)

  if variant == "smoke":
    config.dataset = "digits"
    config.model = "mlp(8)"
    config.batch_size = 32
    config.rounds = 2
    config.checkpoint_members = 2
    config.checkpoint_epochs = 2
    config.scaling_members = 2
    config.scaling_epochs = 1
    config.scaling_train = 100
    config.num_empty_chunks = 100
    config.fitted = ((2, 1, 100), (2, 3, 100), (2, 1, 200), (4, 1, 100))
    config.predicted = (2, 2, 200)
  return config
