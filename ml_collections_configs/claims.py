"""Which claims of the coursework and of textbooks hold? The ledger, and the runs that it needs.

jaxdl run claims[:VARIANT] --workdir=DIR

docs/CLAIMS.md is the result of `quick`. On two CPU cores that also ran other programs (not measured
on a GPU) its runs took 74 minutes: compare_initializers 28, the other experiments of the coursework
32, and all settings of the textbooks 14. `--config.textbook=` leaves those out. `smoke` has the
smallest run of each experiment.
"""

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

VARIANTS = ("quick", "smoke")


def get_config(variant: str = "quick") -> ConfigDict:
  """Returns the config of a variant; `smoke` has the smallest runs and decides nothing."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  config = ConfigDict()
  # Experiment -> variant of its config; an empty variant leaves out the experiment's claims.
  config.runs = ConfigDict(
    {
      "compare_initializers": "mnist",
      "compare_batch_sizes": "mnist",
      "compare_losses": "quick",
      "compare_optimizers": "mnist",
      "compare_strategies": "cifar10",
      "gradient_flow": "mnist",
    }
  )
  config.textbook = "all"  # settings of textbook.py, by name; "": none
  config.num_seeds = 0  # seeds of every run; 0: as in its own config
  config.alpha = 0.05
  # The revision in which claims, metrics, margins and arms were written down, before their runs.
  # The ledger says whether they have changed since.
  config.registered = "33a9ac8"
  config.note = ""  # on the data or the machine, shown in the ledger

  if variant == "smoke":
    for name in config.runs:
      # The smallest runs of two experiments lack arms that claims need.
      config.runs[name] = "" if name in ("compare_strategies", "gradient_flow") else "smoke"
    config.textbook = "outliers"
  return config
