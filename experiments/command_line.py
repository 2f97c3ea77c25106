"""What the command lines of all experiments share: flags, config, errors, devices.

A config is read only here, into the frozen `Experiment`, which rejects unknown settings.
"""

import dataclasses
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import app, flags
from ml_collections import ConfigDict, config_dict, config_flags
from ml_collections.config_flags import config_path

from jaxdl import data, launch, report
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, brief, one_line, show, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.population import environment, hosts
from jaxdl.population.programs import Observer
from jaxdl.population.results import Population
from jaxdl.store import interrupts

# The command line as the config's flag reads it, once `_parse_flags` has it.
_ARGUMENTS: list[str] = []


class _ConfigParser(flags.ArgumentParser):
  """Reads a config file, and makes room for the keys of the command line that it does not list.

  Attributes:
    optional: outermost key, or "" -> the keys that may be added below it, and their defaults.
  """

  optional: Mapping[str, Mapping[str, Any]] = {}

  def parse(self, argument: str) -> ConfigDict:
    """Returns the config in a file. Raises InputError: it cannot be read, or a key is unknown."""
    config = _load(argument)
    with config.unlocked():
      for given in _ARGUMENTS:
        if match := re.match(rf"--?(?:no)?{_CONFIG.name}\.([^=]+)", given):
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


_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config file, optionally with a variant: FILE:VARIANT.",
  sys_argv=_ARGUMENTS,
)
_PARSER = _ConfigParser()
flags.FLAGS[_CONFIG.name].parser = _PARSER
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the results.")
DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Folder of TFDS datasets (default: $TFDS_DATA_DIR)."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Start anew and replace any run in the workdir.")
_RESUME_ANYWAY = flags.DEFINE_bool(
  "resume_anyway",
  False,
  "Continue the run in the workdir although its versions, devices or statistics differ.",
)
_PARTIAL = flags.DEFINE_bool(
  "partial", False, "Train nothing; report what is trained so far, in the subfolder partial."
)
_SAVE_PARAMS = flags.DEFINE_bool(
  "save_params", True, "Keep the parameters of every member in the workdir."
)
_TENSORBOARD = flags.DEFINE_bool(
  "tensorboard",
  False,
  "While the run trains, write members as TensorBoard's files, to the subfolder run/tensorboard.",
)
_UNTIL_DECIDED = flags.DEFINE_bool(
  "until_decided",
  False,
  "Train seeds only until the question is decided, at most config.num_seeds; continues a run that "
  "was planned with fewer.",
)
_CHECKPOINT_EVERY = flags.DEFINE_integer(
  "checkpoint_every",
  0,
  "Epochs between checkpoints of a chunk; 0 saves every few seconds.",
  lower_bound=0,
)
EXECUTOR = flags.DEFINE_enum(
  "executor",
  "local",
  list(launch.EXECUTORS),
  "What trains: this process, Dask workers, tasks of an array, or one program on several hosts.",
)
_SCHEDULER = flags.DEFINE_string(
  "scheduler", None, "Address of the Dask scheduler (default: a cluster on this machine)."
)
_SCHEDULER_FILE = flags.DEFINE_string(
  "scheduler_file", None, "File that the Dask scheduler wrote, in place of its address."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0, with --executor=multihost."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes, with --executor=multihost.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0; process 0 writes the report.", lower_bound=0
)

_INDEX = flags.DEFINE_integer(
  "index", None, "Number of this task, from 0, with --executor=array.", lower_bound=0
)
_COUNT = flags.DEFINE_integer(
  "count", None, "Number of tasks, with --executor=array.", lower_bound=1
)

_PATHS = tuple(flag.name for flag in (_CONFIG, WORKDIR, DATA_DIR, _SCHEDULER_FILE))

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


class Script(NamedTuple):
  """The parts of an experiment's script that differ from other scripts."""

  # Turns the config into the experiment.
  create_experiment: Callable[[ConfigDict], Experiment]
  # Returns further sections, pictures and tables for the report.
  analyze: Callable[[Experiment, Dataset, Population], report.Extra] | None = None
  # Selects the part of the population that is compared and shown; None: all of it.
  choose: Callable[[Experiment, Population], Population] | None = None
  # Keys of the config below which are settings of arms, besides those of the config itself.
  arm_keys_below: Sequence[str] = ()
  # Arguments of `jaxdl.population.train_population`.
  observe: Observer | None = None
  keep_logits: bool = False


def run(script: Script):
  """Runs an experiment from the command line and exits; see `main`."""
  main(lambda config: _launch(script, script.create_experiment(config)), script=script)


def main(
  function: Callable[[ConfigDict], None],
  default_config: str | None = None,
  script: Script | None = None,
):
  """Calls a function with the config from the command line, then exits.

  Args:
    function: the program. An InputError that it raises becomes one line on standard error and exit
      status 2, as does a mistake on the command line.
    default_config: config file to use if none is given; None: one must be given.
    script: the experiment of which it is the config. Its keys can be given on the command line also
      if the config does not list them.
  """
  _PARSER.optional = _optional(script)

  def call(_):
    try:
      function(_CONFIG.value)
    except InputError as error:
      _fail(error)
    except interrupts.Interrupted as signal:
      # A worker may be in the middle of an epoch, which only the end of the process can stop.
      interrupts.end(str(signal))

  app.run(call, flags_parser=lambda argv: _parse_flags(argv, default_config))


def _optional(script: Script | None) -> dict[str, dict[str, Any]]:
  """Returns the keys that need not be in the config of a script; see `_ConfigParser`."""
  if script is None:
    return {}
  arm, experiment = _defaults(Arm, ARM_KEYS), _defaults(Experiment, _EXPERIMENT_KEYS)
  return {"": {**experiment, **arm}, **dict.fromkeys(script.arm_keys_below, arm)}


def _defaults(kind: type, names: Iterable[str]) -> dict[str, Any]:
  """Returns those of the fields of a dataclass that have a default."""
  given = {field.name: field.default for field in dataclasses.fields(kind)}
  return {name: given[name] for name in names if given[name] is not dataclasses.MISSING}


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


def _expand_home(argument: str) -> str:
  """Expands a leading `~` of `--name=~/path`, which a shell leaves alone."""
  name, equals, value = argument.partition("=")
  is_path = name.startswith("-") and name.lstrip("-") in _PATHS
  return name + equals + os.path.expanduser(value) if is_path else argument


def _launch(script: Script, experiment: Experiment):
  """Runs an experiment in this process, or as one of several processes."""
  if EXECUTOR.value != "multihost":
    run_experiment(script, experiment)
    return
  try:
    with interrupts.interruptible():
      hosts.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
      if _PROCESS_ID.value == 0:
        run_experiment(script, experiment)
      else:
        launch.follow(
          experiment,
          WORKDIR.value,
          data_dir=DATA_DIR.value,
          observe=script.observe,
          keep_logits=script.keep_logits,
          keep_params=_SAVE_PARAMS.value,
        )
  except InputError as error:
    _print_error(error)
    hosts.end(2)
  except hosts.LostError as error:
    _print_error(error)
    hosts.end(1, tell=False)
  except interrupts.Interrupted as signal:
    interrupts.say(str(signal))
    hosts.end(interrupts.EXIT_STATUS)
  except Exception:
    traceback.print_exc()
    hosts.end(1)


def run_experiment(script: Script, experiment: Experiment):
  """Trains, compares and writes the report; prints the verdicts and the path of the report."""
  result = train(script, experiment)
  print(f"\n{result}")
  end(result.population)


def end(population: Population):
  """Says how many seeds are missing, and exits with status 1 if a chunk failed."""
  missing = population.missing_seeds
  if missing:
    print(f"{len(missing)} seeds are missing; the report says why", file=sys.stderr)
  if population.failures:
    sys.exit(1)


def train(script: Script, experiment: Experiment) -> launch.Result:
  """Trains, compares and writes the report, as the flags say."""
  return launch.run(
    experiment,
    WORKDIR.value,
    data_dir=DATA_DIR.value,
    overwrite=OVERWRITE.value,
    resume_anyway=_RESUME_ANYWAY.value,
    partial=_PARTIAL.value,
    until_decided=_UNTIL_DECIDED.value,
    executor=EXECUTOR.value,
    scheduler=_SCHEDULER.value,
    scheduler_file=_SCHEDULER_FILE.value,
    place=(_INDEX.value or 0, _COUNT.value or 1),
    checkpoint_every=_CHECKPOINT_EVERY.value or None,
    observe=script.observe,
    keep_logits=script.keep_logits,
    keep_params=_SAVE_PARAMS.value,
    tensorboard=_TENSORBOARD.value,
    choose=script.choose,
    analyze=script.analyze,
  )


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


def _parse_flags(argv: Sequence[str], default_config: str | None) -> list[str]:
  """Parses flags; a mistake in them is bad input like any other."""
  if {"--help", "-h", "--helpfull"} & set(argv):
    main_module, this = sys.modules["__main__"], sys.modules[__name__]
    print(f"{main_module.__doc__}\n--config.KEY=VALUE changes a setting of the config.")
    print(flags.FLAGS.main_module_help() + flags.FLAGS.module_help(this))
    sys.exit(0)
  argv = [argv[0], *map(_expand_home, argv[1:])]
  is_given = any(re.match(rf"--?{_CONFIG.name}(=|$)", argument) for argument in argv)
  if default_config is not None and not is_given:
    argv.insert(1, f"--{_CONFIG.name}={default_config}")
  _ARGUMENTS[:] = argv
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    cause = error.__context__
    _fail(cause if isinstance(cause, InputError) else error)
  except Exception as error:  # ml_collections raises errors of many types
    _fail(f"a value cannot be set in the config: {brief(error)}")
  if len(rest) > 1:
    _fail(f"unknown argument {rest[1]!r}; settings are given as --name=value")
  if EXECUTOR.value != "dask" and (_SCHEDULER.value or _SCHEDULER_FILE.value):
    _fail("--scheduler and --scheduler_file are for --executor=dask")
  for flag in (_SCHEDULER, _SCHEDULER_FILE):
    if flag.value == "" and EXECUTOR.value == "dask":
      _fail(f"--{flag.name} is empty")
  for flag in (_CONFIG, WORKDIR):
    if flag.value is None:
      _fail(f"--{flag.name} is missing")
  if not WORKDIR.value:
    _fail("--workdir is empty")
  mistake = _array_mistake() or _multihost_mistake()
  if mistake is not None:
    _fail(mistake)
  _configure_jax()
  return rest


def _array_mistake() -> str | None:
  """Returns what is wrong with the flags of `--executor=array`, in one line."""
  for flag in (_INDEX, _COUNT):
    if (flag.value is not None) != (EXECUTOR.value == "array"):
      needs = (f"--{flag.name}", "--executor=array")
      return "{} needs {}".format(*(needs if flag.value is not None else reversed(needs)))
  if EXECUTOR.value == "array" and _INDEX.value >= _COUNT.value:
    return f"--index must be less than --count={_COUNT.value}"
  return None


def _multihost_mistake() -> str | None:
  """Returns what is wrong with the flags of `--executor=multihost`, in one line."""
  needed = (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)
  if EXECUTOR.value != "multihost":
    given = [flag.name for flag in needed if flag.value is not None]
    return f"--{given[0]} needs --executor=multihost" if given else None
  for flag in needed:
    if flag.value is None:
      return f"--executor=multihost needs --{flag.name}"
  address = re.fullmatch(r"(?:\[[^]]+\]|[^:\[\]]+):([0-9]{1,5})", _COORDINATOR.value)
  if address is None or not 0 < int(address[1]) < 2**16:
    return f"--coordinator must be HOST:PORT, not {_COORDINATOR.value!r}"
  if _PROCESS_ID.value >= _NUM_PROCESSES.value:
    return f"--process_id must be less than --num_processes={_NUM_PROCESSES.value}"
  if _UNTIL_DECIDED.value:
    return "--until_decided is for --executor=local and --executor=dask"
  if _PARTIAL.value:
    return "--partial trains nothing, so it needs no --executor=multihost"
  if _CHECKPOINT_EVERY.value:
    return "--executor=multihost saves no checkpoints, so there is no --checkpoint_every"
  return None


def _configure_jax():
  """Sets up the log, and JAX's cache of compiled programs."""
  logger = logging.getLogger("jaxdl")
  logger.setLevel(logging.INFO)
  logger.addHandler(logging.StreamHandler())  # plain lines, without absl's prefix
  logger.propagate = False
  for name in ("jax", "matplotlib"):  # matplotlib announces each new list of fonts
    logging.getLogger(name).setLevel(logging.WARNING)
  cache = data.cache_root()
  if cache is not None:
    environment.cache_programs(cache / "programs")


def _fail(error: object):
  """Prints one line on standard error and exits with status 2."""
  _print_error(error)
  sys.exit(2)


def _print_error(error: object):
  print(f"error: {one_line(error)}", file=sys.stderr)
