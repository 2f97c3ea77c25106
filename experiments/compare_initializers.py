"""Does the weight initializer matter?

  jaxdl run compare_initializers --workdir=DIR

trains the same CNN from several initializers, with many seeds each, and says which differences are
real. `jaxdl demo` runs the variant `digits` in runs/demo. `jaxdl help compare_initializers` lists
the variants, their durations and their results.
"""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from jaxdl import report
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import show
from jaxdl.experiment import Experiment
from jaxdl.population.results import Population

from . import command_line, from_config

# Test confusion matrices ([[tn, fp], [fn, tp]], threshold 0.9) of the coursework, one seed each.
COURSEWORK = {
  "glorot_uniform": [[1007, 3], [34, 994]],
  "random_uniform": [[1008, 2], [28, 1000]],
  "random_normal": [[1009, 1], [29, 999]],
}


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm per initializer, which is `KERNEL` (for both) or `KERNEL/BIAS`.

  Raises:
    InputError: a key or initializer is unknown, or a value is out of range.
  """
  arms = {}
  for spec in from_config.read_names(config, "initializers", "initializer"):
    kernel, _, bias = spec.partition("/")
    arms[spec] = from_config.create_arm(
      config, kernel_initializer=kernel, bias_initializer=bias or kernel
    )
  labels = (label if isinstance(label, str) else show(label) for label in config.get("classes", ()))
  classes = " from ".join(labels) or "all classes"
  question = (
    f"Does the weight initializer matter for telling {classes} in {config.get('dataset', 'mnist')}?"
  )
  return from_config.create_experiment(config, question, arms, own_keys=("initializers",))


def analyze(experiment: Experiment, _: Dataset, population: Population) -> report.Extra:
  """Returns the coursework's result beside this one, if the setting is the same."""
  setting = Arm(threshold=0.9)  # all other settings have their defaults
  arms = [
    name
    for name, arm in population.arms.items()
    if name in COURSEWORK
    and arm == dataclasses.replace(setting, kernel_initializer=name, bias_initializer=name)
  ]
  data = (experiment.dataset, tuple(map(str, experiment.classes)), experiment.validation_fraction)
  if not arms or data != ("mnist", ("3", "7"), 0.2):
    return report.Extra()
  rows = [["arm", "cell", "coursework (one seed)", "here, mean", "std", "range"]]
  for name in arms:
    index = list(population.arms).index(name)
    counts = population.confusion[population.has_result[:, index], index]  # [S, 2, 2]
    for cell, (row, column) in {"tn": (0, 0), "fp": (0, 1), "fn": (1, 0), "tp": (1, 1)}.items():
      here = counts[:, row, column]
      spread = f"{here.std(ddof=1):.1f}" if len(here) > 1 else "-"
      mean = f"{here.mean():.1f}" if len(here) else "-"
      limits = f"{here.min()} to {here.max()}" if len(here) else "-"
      rows.append([name, cell, str(np.array(COURSEWORK[name])[row, column]), mean, spread, limits])
  return report.Extra(["## Beside the coursework's own result", report.markdown_table(rows)])


SCRIPT = command_line.Script(create_experiment, analyze)


if __name__ == "__main__":
  command_line.run(SCRIPT)
