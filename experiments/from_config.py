"""What a config says: arms, the experiment, names. Unknown and unused keys are refused."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxdl.arm import Arm
from jaxdl.errors import InputError, show, unknown_name
from jaxdl.experiment import Experiment

# Config keys that are settings of the whole experiment, not of an arm.
_EXPERIMENT_KEYS = (
  "dataset",
  "classes",
  "num_train",
  "validation_fraction",
  "validation_split",
  "resample",
  "num_seeds",
  "seed",
  "chunk_size",
  "slice_size",
  "margins",
  "alpha",
  "num_resamples",
  "reference",
  "target_loss",
)

ARM_KEYS = tuple(field.name for field in dataclasses.fields(Arm))


def create_experiment(
  config: ConfigDict, question: str, arms: Mapping[str, Arm], own_keys: Sequence[str] = ()
) -> Experiment:
  """Returns the experiment that a config describes.

  Args:
    config: the config, from its file and the command line. 0 stands for None in `chunk_size`,
      `slice_size`, `num_train` and `target_loss`, as does "" in `reference` and `resample`.
    question: the question in one sentence.
    arms: name -> arm.
    own_keys: keys of this experiment only, which its script has read.

  Raises:
    InputError: a key is unknown or has no effect, or a value is out of range.
  """
  known = (*_EXPERIMENT_KEYS, *ARM_KEYS, *own_keys)
  for key in config:
    if key not in known:
      raise unknown_name("config key", key, known)
  values = {key: config[key] for key in _EXPERIMENT_KEYS if key in config}
  for key in ("chunk_size", "slice_size", "num_train", "target_loss", "reference", "resample"):
    values[key] = values.get(key) or None
  for key, read in (("classes", tuple), ("margins", dict)):
    if key in values:
      try:
        values[key] = read(values[key])
      except (TypeError, ValueError) as error:
        raise InputError(f"config key {key!r} cannot be {show(values[key])}") from error
  experiment = Experiment(question=question, arms=arms, **values)
  _check_used(config, arms)
  return experiment


def create_arm(config: ConfigDict, **settings: Any) -> Arm:
  """Returns an arm with the config's settings, except for those given as arguments.

  In a config, -1 stands for None in `patience`, `plateau_patience`, `weight_decay` and
  `dropout_rate`.
  """
  return Arm(**{**_arm_settings(config), **settings})


def _arm_settings(config: ConfigDict) -> dict[str, Any]:
  values = {key: config[key] for key in ARM_KEYS if key in config}
  for key in ("patience", "plateau_patience", "weight_decay", "dropout_rate"):
    if values.get(key) == -1:
      values[key] = None
  return values


def _check_used(config: ConfigDict, arms: Mapping[str, Arm]):
  """Raises InputError if the config has a setting for which every arm has a value of its own."""
  for key, value in _arm_settings(config).items():
    if not any(_has(arm, key, value) for arm in arms.values()):
      raise InputError(f"config key {key!r} has no effect: every arm has a value of its own")


def _has(arm: Arm, key: str, value: Any) -> bool:
  try:
    return arm.replace(**{key: value}) == arm
  except InputError:  # it does not fit the arm's other settings
    return False


def read_names(config: ConfigDict, key: str, kind: str) -> list[str]:
  """Returns the names that a key of a config lists.

  Args:
    config: the config, from its file and the command line.
    key: key of a tuple of names or numbers. A string with commas counts as several names, because
      it is easier to type.
    kind: what the names stand for, for error messages, e.g. "initializer".

  Raises:
    InputError: the config has no such key, or a name occurs twice.
  """
  if key not in config:
    raise InputError(f"the config has no key {key!r}")
  given = (config[key],) if isinstance(config[key], str) else config[key]
  names = [name.strip() for spec in given for name in _split(_text(spec)) if name.strip()]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"{kind} {name!r} is named twice")
  return names


def _text(spec: Any) -> str:
  return spec if isinstance(spec, str) else show(spec)


def _split(names: str) -> list[str]:
  """Splits at commas, except in brackets, where they belong to a name such as `mlp(64,64)`."""
  return re.split(r",(?![^(]*\))", names)


def optional_keys(arm_keys_below: Iterable[str]) -> dict[str, dict[str, Any]]:
  """Returns the keys that need not be in a config, and their defaults; see `ConfigParser`.

  Args:
    arm_keys_below: keys below which are settings of arms, besides those of the config itself.
  """
  arm, experiment = _defaults(Arm, ARM_KEYS), _defaults(Experiment, _EXPERIMENT_KEYS)
  return {"": {**experiment, **arm}, **dict.fromkeys(arm_keys_below, arm)}


def _defaults(kind: type, names: Iterable[str]) -> dict[str, Any]:
  """Returns those of the fields of a dataclass that have a default."""
  given = {field.name: field.default for field in dataclasses.fields(kind)}
  return {name: given[name] for name in names if given[name] is not dataclasses.MISSING}
