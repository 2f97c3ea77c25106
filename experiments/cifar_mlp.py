"""How well does an MLP classify photographs, and what do augmentation and a falling rate add?

  jaxdl run cifar_mlp --workdir=DIR

trains an MLP of 1,707,274 parameters on CIFAR-10 as a coursework did, with augmented images and a
learning rate that is halved every few epochs. Two more arms leave out one of the two.
"""

from ml_collections import ConfigDict

from jaxdl import report
from jaxdl.data.dataset import Dataset
from jaxdl.errors import unknown_name
from jaxdl.experiment import Experiment
from jaxdl.population.results import Population

from . import command_line, from_config

# Results of the coursework after 50 epochs, one seed.
COURSEWORK = {"test_accuracy": 0.5452, "test_loss": 1.2769}

# What each arm changes in the config, which has the setting of the coursework.
ARMS = {
  "coursework": {},
  "no_augmentation": {"rotation_range": 0.0, "shift_range": 0.0, "horizontal_flip": False},
  "constant_rate": {"schedule": "constant"},
}


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm with the config's setting, and arms that leave a part out.

  Raises:
    InputError: a key or arm is unknown, or a value is out of range.
  """
  arms = {}
  for name in from_config.read_names(config, "arms", "arm"):
    if name not in ARMS:
      raise unknown_name("arm", name, ARMS)
    arms[name] = from_config.create_arm(config, **ARMS[name])
  question = "Do augmentation and a falling learning rate matter to an MLP that sees photographs?"
  return from_config.create_experiment(config, question, arms, own_keys=("arms",))


def analyze(experiment: Experiment, _: Dataset, population: Population) -> report.Extra:
  """Returns the coursework's result beside this one, if the setting is the same."""
  arm = population.arms.get("coursework")
  if arm is None or (experiment.dataset, experiment.num_train) != ("cifar10", None):
    return report.Extra()
  if (arm.num_epochs, arm.batch_size) != (50, 64):
    return report.Extra()
  evidence = [("coursework", metric, value) for metric, value in COURSEWORK.items()]
  return report.Extra(
    ["## Beside the coursework's own result", report.beside_table(population, evidence)]
  )


SCRIPT = command_line.Script(create_experiment, analyze)

if __name__ == "__main__":
  command_line.run(SCRIPT)
