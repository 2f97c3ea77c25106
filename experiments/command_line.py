"""What the command lines of all experiments share: flags, errors, how a run starts and ends.

`config_flag.py` reads the config, and `from_config.py` turns it into arms and an experiment.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from jaxdl import data, launch, report
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, brief, one_line
from jaxdl.experiment import Experiment
from jaxdl.population import environment, hosts
from jaxdl.population.programs import Observer
from jaxdl.population.results import Population
from jaxdl.store import interrupts

from . import config_flag, from_config

_PARSER = config_flag.ConfigParser()
_CONFIG = config_flags.DEFINE_config_file(
  config_flag.NAME,
  None,
  "Config file, optionally with a variant: FILE:VARIANT.",
  sys_argv=_PARSER.arguments,
)
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
  _PARSER.optional = {} if script is None else from_config.optional_keys(script.arm_keys_below)

  def call(_):
    try:
      function(_CONFIG.value)
    except InputError as error:
      _fail(error)
    except interrupts.Interrupted as signal:
      # A worker may be in the middle of an epoch, which only the end of the process can stop.
      interrupts.end(str(signal))

  app.run(call, flags_parser=lambda argv: _parse_flags(argv, default_config))


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
  _PARSER.arguments[:] = argv
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
