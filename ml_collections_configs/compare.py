"""A template for a question of your own, with variants that run.

jaxdl run compare[:VARIANT] --workdir=DIR

  VARIANT     question
  wine        two optimizers on a table: which learns faster to tell three kinds of wine apart?
  diabetes    regression: does a robust loss predict the progress of diabetes better?
  resnet      does batch normalisation help a small ResNet read digits?
  smoke       as wine, with two seeds

Copy this file, change what it says, and run it with `jaxdl compare FILE --workdir=DIR`. Any value
can also be changed on the command line: `--config.arms.lion.learning_rate=0.001`.
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("wine", "diabetes", "resnet", "smoke")


def get_config(variant: str = "wine") -> ConfigDict:
  """Returns the config of a variant; `smoke` takes seconds."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # In one sentence; "no" must mean that the arms are equivalent.
  config.question = "Does Lion tell wines apart better than Adam?"
  # A name ("digits", "mnist"), a file ("wine.npz", "table.csv(target=price)"), a folder of images
  # ("photos/"), or a function that returns arrays.
  config.dataset = "jaxdl.data.sklearn_tables:wine()"
  config.validation_fraction = 0.2
  config.validation_split = "stratified"  # or "end", "shuffled"
  # "": all seeds have the same training and test set. Otherwise every seed is trained and tested on
  # its own split of the training examples: "folds(5)", "holdout(0.2)" or "bootstrap".
  config.resample = ""

  # What all arms have in common: any settings of `jaxdl.Arm`. The others have their defaults.
  config.base = ConfigDict(
    {
      "model": "mlp(16)",  # or one of your own: "my_nets:Net(width=64)"
      "loss": "categorical_cross_entropy",
      "optimizer": "adam",  # or "optax:adamw(b1=0.95)", "my_optimizers:lookahead(k=5)"
      "learning_rate": 0.01,
      "schedule": "constant",
      "batch_size": 16,
      "num_epochs": 20,
      "patience": -1,  # -1: never stop early
      "dropout_rate": 0.0,
    }
  )
  # The arms, as changes of the base.
  config.arms = ConfigDict(
    {
      "adam": {},
      "lion": {"optimizer": "optax:lion(b1=0.95)", "learning_rate": 0.003},
    },
    sort_keys=False,
  )
  # The largest difference that counts as none; the answer is about the first metric.
  config.margins = ConfigDict({"test_accuracy": 0.02, "test_loss": 0.05}, sort_keys=False)
  config.reference = ""  # the arm that all others are compared with; "": every pair

  config.num_seeds = 16
  config.seed = 0
  config.alpha = 0.05

  if variant == "diabetes":
    config.question = "Does a robust loss predict the progress of diabetes better?"
    config.dataset = "jaxdl.data.sklearn_tables:diabetes()"
    config.validation_split = "end"
    config.base.loss = "mean_squared_error"
    config.base.learning_rate = 0.003
    config.arms = ConfigDict(
      {"squared": {}, "huber": {"loss": "huber(0.5)"}, "absolute": {"loss": "mean_absolute_error"}},
      sort_keys=False,
    )
    config.margins = ConfigDict({"r2": 0.01, "mean_absolute_error": 0.01}, sort_keys=False)
  if variant == "resnet":
    config.question = "Does batch normalisation help a small ResNet read digits?"
    config.dataset = "digits"
    config.num_seeds = 8
    config.base.model = "resnet(8, width=8, norm=batch)"
    config.base.learning_rate = 0.003
    config.base.batch_size = 64
    config.base.num_epochs = 5
    config.arms = ConfigDict(
      {
        "batch": {},
        "group": {"model": "resnet(8, width=8, norm=group)"},
        "none": {"model": "resnet(8, width=8, norm=none)"},
      },
      sort_keys=False,
    )
  if variant == "smoke":
    config.num_seeds = 2
    config.base.num_epochs = 2
  return config
