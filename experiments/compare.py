"""A question of your own: a base, arms as changes of it, a data set, margins.

  jaxdl compare FILE --workdir=DIR

`ml_collections_configs/compare.py` is a template of the config, with variants that run.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxdl.errors import InputError, unknown_name
from jaxdl.experiment import Experiment

from . import command_line


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: `config.base` with the changes of each of `config.arms`.

  Raises:
    InputError: a key is missing or unknown, or a value is out of range.
  """
  for key in ("question", "base", "arms"):
    if key not in config:
      raise InputError(f"the config has no key {key!r}")
  arms = {}
  for name, changes in config.arms.items():
    for part, settings in (("base", config.base), (f"arms.{name}", changes)):
      _check_keys(part, settings)
    try:
      arms[name] = command_line.create_arm(ConfigDict({**config.base, **changes}))
    except InputError as error:
      raise InputError(f"arm {name!r}: {error}") from error
  own_keys = ("question", "base", "arms")
  return command_line.create_experiment(config, config.question, arms, own_keys)


def _check_keys(part: str, settings: Any):
  if not isinstance(settings, ConfigDict):
    raise InputError(f"config key {part!r} must be a dict of an arm's settings")
  for key in settings:
    if key not in command_line.ARM_KEYS:
      raise unknown_name(f"setting in {part}", key, command_line.ARM_KEYS)


SCRIPT = command_line.Script(create_experiment, arm_keys_below=("base", "arms"))

if __name__ == "__main__":
  command_line.run(SCRIPT)
