"""Which loss should a classifier be trained with?

  jaxdl run compare_losses --workdir=DIR

trains the same MLP with each loss, all of them in one compiled program. The coursework compiled its
Keras model three times, so only the last loss took effect: hinge on the softmax outputs. Here that
loss is `softmax_hinge`; `hinge` is on the logits.
"""

from ml_collections import ConfigDict

from jaxdl.experiment import Experiment

from . import command_line, from_config


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm per loss.

  Raises:
    InputError: a key or loss is unknown, or a value is out of range.
  """
  arms = {
    name: from_config.create_arm(config, loss=name)
    for name in from_config.read_names(config, "losses", "loss")
  }
  question = f"Does the loss matter to the accuracy on {config.dataset}?"
  return from_config.create_experiment(config, question, arms, own_keys=("losses",))


SCRIPT = command_line.Script(create_experiment)

if __name__ == "__main__":
  command_line.run(SCRIPT)
