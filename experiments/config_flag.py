"""The flag --config: a config file, perhaps with a variant, and keys that the command line adds."""

import importlib.machinery
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict
from ml_collections.config_flags import config_path

from jaxdl.errors import InputError, brief, show, unknown_name

NAME = "config"


class ConfigParser(flags.ArgumentParser):
  """Reads a config file, and makes room for the keys of the command line that it does not list.

  Attributes:
    arguments: the command line, to be set before it is parsed.
    optional: outermost key, or "" -> the keys that may be added below it, and their defaults.
  """

  def __init__(self):
    """Knows no keys besides those of the config's file."""
    self.arguments: list[str] = []
    self.optional: Mapping[str, Mapping[str, Any]] = {}

  def parse(self, argument: str) -> ConfigDict:
    """Returns the config in a file. Raises InputError: it cannot be read, or a key is unknown."""
    config = _load(argument)
    with config.unlocked():
      for given in self.arguments:
        if match := re.match(rf"--?(?:no)?{NAME}\.([^=]+)", given):
          self._find(config, _keys(match[1]))
    return config.lock()

  def _find(self, config: ConfigDict, keys: Sequence[Any]):
    """Raises InputError if there is neither a value at these keys nor one that may be added."""
    value, above = config, ""
    for place, key in enumerate(keys):
      if not isinstance(key, str):
        return  # an item of a tuple
      if not isinstance(value, ConfigDict):
        raise InputError(f"config key {above[:-1]!r} is a value and has no key {key!r}")
      optional = self.optional.get(keys[0] if place else "", {})
      if key not in value:
        if key not in optional or place + 1 < len(keys):
          known = {f"{above}{other}" for other in (*value, *optional)}
          raise unknown_name("config key", above + key, known)
        default = optional[key]
        value[key] = config_dict.placeholder(object) if default is None else default
      value, above = value[key], f"{above}{key}."


def _keys(path: str) -> Sequence[Any]:
  """Returns the keys, and perhaps an item, of `arms["a/b"].learning_rate` or `classes[0]`."""
  try:
    return config_path.split(path)
  except ValueError:  # as `batch-size`, which is no name
    return path.split(".")


def _load(path: str) -> ConfigDict:
  """Returns the config that `get_config` of a file returns, perhaps for a variant: FILE:VARIANT.

  Raises:
    InputError: the file cannot be read, or fails.
  """
  file, colon, variant = path.partition(":")
  if not os.path.isfile(file):  # reading a pipe might never end
    why = ": it is not a regular file" if os.path.exists(file) else ""
    raise InputError(f"cannot read the config file {file!r}{why}")
  loader = importlib.machinery.SourceFileLoader("config", file)
  module = importlib.util.module_from_spec(importlib.util.spec_from_loader("config", loader))
  try:
    loader.exec_module(module)
    if not hasattr(module, "get_config"):
      raise InputError(f"the config file {file!r} has no function get_config")
    config = module.get_config(*([variant] if colon else []))
  except InputError:
    raise
  except Exception as error:
    raise InputError(f"the config file {path!r} fails: {brief(error)}") from error
  if not isinstance(config, ConfigDict):
    raise InputError(f"get_config of {path!r} returns {show(config)}, which is no ConfigDict")
  return config
