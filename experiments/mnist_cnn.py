"""How well does a small CNN read handwritten digits, and does He initialization help it?

  jaxdl run mnist_cnn --workdir=DIR

trains a CNN of 515,146 parameters on all ten digits. The coursework's table says He initialization,
but its code uses Keras's default, Glorot; here both are arms.
"""

from ml_collections import ConfigDict

from jaxdl import report
from jaxdl.data.dataset import Dataset
from jaxdl.experiment import Experiment
from jaxdl.population.results import Population

from . import command_line, from_config

# Test accuracy of the coursework, one seed.
COURSEWORK_ACCURACY = 0.9907


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm per initializer of the kernels; all biases start at zero.

  Raises:
    InputError: a key or initializer is unknown, or a value is out of range.
  """
  arms = {
    name: from_config.create_arm(config, kernel_initializer=name, bias_initializer="zeros")
    for name in from_config.read_names(config, "initializers", "initializer")
  }
  question = f"Does the initializer of the kernels matter to a CNN that reads {config.dataset}?"
  return from_config.create_experiment(config, question, arms, own_keys=("initializers",))


def analyze(experiment: Experiment, _: Dataset, population: Population) -> report.Extra:
  """Returns the coursework's accuracy beside this one, if the data are the same."""
  if (experiment.dataset, experiment.num_train) != ("mnist", None):
    return report.Extra()
  evidence = [(arm, "test_accuracy", COURSEWORK_ACCURACY) for arm in population.arms]
  return report.Extra(
    ["## Beside the coursework's own result", report.beside_table(population, evidence)]
  )


SCRIPT = command_line.Script(create_experiment, analyze)

if __name__ == "__main__":
  command_line.run(SCRIPT)
