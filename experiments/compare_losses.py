"""Which loss should a classifier be trained with?

  python -m experiments.compare_losses --config=ml_collections_configs/compare_losses.py \
    --workdir=DIR

trains the same MLP with each loss, all of them in one compiled program. The coursework compiled its
model three times, so that only the last loss, hinge on the softmax outputs, took effect; here that
one is `softmax_hinge`, and `hinge` is on the scores before the softmax.
"""

from ml_collections import ConfigDict

from experiments import command_line
from jaxdl.experiment import Experiment


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm per loss.

  Raises:
    InputError: for an unknown key or loss, or a value out of range.
  """
  arms = {
    name: command_line.create_arm(config, loss=name)
    for name in command_line.read_names(config, "losses", "loss")
  }
  question = f"Does the loss matter to the accuracy on {config.dataset}?"
  return command_line.create_experiment(config, question, arms, own_keys=("losses",))


SCRIPT = command_line.Script(create_experiment)

if __name__ == "__main__":
  command_line.run(SCRIPT)
