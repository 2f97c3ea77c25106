"""What every experiment's command line has in common: flags, config, errors, devices.

A config is read once, here, into the frozen `Experiment`, which rejects what it does not know.
"""

import dataclasses
import datetime
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from jaxdl import experiment as experiment_lib
from jaxdl import report
from jaxdl.arm import Arm
from jaxdl.errors import InputError, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.population import Population

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "File of the config, with a variant after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the results.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Where TFDS datasets are (default: $TFDS_DATA_DIR)."
)
_OVERWRITE = flags.DEFINE_bool(
  "overwrite", False, "Replace a run of another config in the workdir."
)

# Keys that are not a setting of an arm but of the whole experiment.
_EXPERIMENT_KEYS = (
  "dataset",
  "classes",
  "validation_fraction",
  "num_seeds",
  "seed",
  "chunk_size",
  "slice_size",
  "margins",
  "alpha",
  "num_resamples",
)
_ARM_KEYS = tuple(field.name for field in dataclasses.fields(Arm))


def run(create_experiment: Callable[[ConfigDict], Experiment], sections: Callable | None = None):
  """Runs an experiment from the command line and exits.

  Args:
    create_experiment: turns the config into the experiment.
    sections: `(experiment, population) -> [Markdown]` to show in the report; None: none.

  Exits with status 2 and one line on standard error for bad input.
  """

  def main(_):
    try:
      run_experiment(create_experiment(_CONFIG.value), sections)
    except InputError as error:
      _fail(error)

  app.run(main, flags_parser=_parse_flags)


def run_experiment(experiment: Experiment, sections: Callable | None = None):
  """Trains, compares and reports; prints the verdicts and where the report is."""
  started = datetime.datetime.now(datetime.UTC)
  with report.Workdir(_WORKDIR.value, experiment, _OVERWRITE.value) as workdir:
    dataset = experiment_lib.load_dataset(experiment, _DATA_DIR.value)
    trained = experiment_lib.train(experiment, dataset)
    verdicts = experiment_lib.compare(experiment, trained)
    extra = [] if sections is None else sections(experiment, trained)
    workdir.commit(experiment, dataset, trained, verdicts, started, extra)
  _print_result(experiment, trained, verdicts, workdir.path)


def create_arm(config: ConfigDict, **settings: Any) -> Arm:
  """Returns an arm with the config's settings, but for those given.

  A patience of -1 in a config means None: never stop early.
  """
  values = {key: config[key] for key in _ARM_KEYS if key in config}
  if values.get("patience") == -1:
    values["patience"] = None
  return Arm(**{**values, **settings})


def create_experiment(
  config: ConfigDict, question: str, arms: Mapping[str, Arm], own_keys: Sequence[str] = ()
) -> Experiment:
  """Returns the experiment that a config describes.

  Args:
    config: as its file and the command line give it. A `chunk_size` or `slice_size` of 0 means
      None: chosen automatically.
    question: what is asked.
    arms: name -> arm.
    own_keys: keys that only this experiment has, and has read.

  Raises:
    InputError: for an unknown key or a value out of range.
  """
  known = (*_EXPERIMENT_KEYS, *_ARM_KEYS, *own_keys)
  for key in config:
    if key not in known:
      raise unknown_name("config key", key, known)
  values = {key: config[key] for key in _EXPERIMENT_KEYS if key in config}
  for key in ("chunk_size", "slice_size"):
    values[key] = values.get(key) or None
  values["classes"] = tuple(values.get("classes", ()))
  values["margins"] = dict(values["margins"])
  return Experiment(question=question, arms=arms, **values)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags; a mistake in them is bad input like any other."""
  try:
    rest = app.parse_flags_with_usage(argv) if "--help" in argv else flags.FLAGS(argv)
  except (
    flags.Error,
    OSError,
    ImportError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
  ) as error:
    _fail(error)
  if len(rest) > 1:
    _fail(f"unknown argument {rest[1]!r}; settings are given as --name=value")
  for flag in (_CONFIG, _WORKDIR):
    if flag.value is None:
      _fail(f"--{flag.name} is missing")
  _configure_jax()
  return rest


def _configure_jax():
  """Gives JAX every CPU core as a device of its own, a cache of programs, and quiet logs."""
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  for noisy in ("jax", "absl", "matplotlib"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
  jax.config.update(
    "jax_num_cpu_devices",
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
  )
  cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
  jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "jaxdl" / "programs"))


def _print_result(experiment: Experiment, trained: Population, verdicts, path: pathlib.Path):
  primary = next(iter(experiment.margins))
  print(f"\n{experiment.question}\n{experiment_lib.answer(verdicts, primary)}\n")
  if verdicts:
    print(report.text_table(report.verdict_rows(verdicts)))
  print(f"\nReport: {path / 'report.md'}")


def _fail(error: object):
  """Prints one line on standard error and exits with status 2."""
  line = " ".join(str(error).split())
  print(f"error: {line}", file=sys.stderr)
  sys.exit(2)
