"""A question of the user's own as a config: a base, and arms as changes to it."""

from typing import Any

from ml_collections import ConfigDict

from jaxdl.arm import Arm
from jaxdl.errors import InputError, unknown_name
from jaxdl.experiment import Experiment

from . import from_config

# Of the config; `tune` reads the last ones.
OWN_KEYS = ("question", "base", "arms", "tune", "tune_on", "tune_seeds")


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: `config.base` with the changes of each of `config.arms`.

  Raises:
    InputError: a key is missing or unknown, or a value is out of range.
  """
  check_parts(config)
  arms = {name: create_arm(config, name) for name in config.arms}
  return from_config.create_experiment(config, config.question, arms, OWN_KEYS)


def check_parts(config: ConfigDict):
  """Raises InputError if the config has no question, base or arms, or one has an unknown key."""
  for key in ("question", "base", "arms"):
    if key not in config:
      raise InputError(f"the config has no key {key!r}")
  if not isinstance(config.arms, ConfigDict):
    raise InputError("config key 'arms' must be a dict: name -> settings of the arm")
  check_keys("base", config.base)
  for name, changes in config.arms.items():
    check_keys(f"arms.{name}", changes)


def create_arm(config: ConfigDict, name: str, **settings: Any) -> Arm:
  """Returns an arm of the config, with its base's settings, its own, and these.

  Raises:
    InputError: a value is out of range.
  """
  try:
    return from_config.create_arm(ConfigDict({**config.base, **config.arms[name], **settings}))
  except InputError as error:
    raise InputError(f"arm {name!r}: {error}") from error


def check_keys(part: str, settings: Any):
  """Raises InputError unless a part of the config is a dict of an arm's settings."""
  if not isinstance(settings, ConfigDict):
    raise InputError(f"config key {part!r} must be a dict of an arm's settings")
  for key in settings:
    if key not in from_config.ARM_KEYS:
      raise unknown_name(f"setting in {part}", key, from_config.ARM_KEYS)
