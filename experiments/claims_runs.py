"""The runs that the ledger of claims needs: planned from its config, collected or trained."""

import contextlib
import dataclasses
import functools
import importlib
import json
import pathlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxdl import report, stats
from jaxdl.errors import InputError, check_integer, show, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.store import interrupts
from jaxdl.store.store import Store

from . import CONFIGS, command_line, from_config, own_question
from .coursework_claims import CLAIMS, Run

ROOT = CONFIGS.parent
_KEYS = ("runs", "textbook", "num_seeds", "alpha", "registered", "note")


class Wanted(NamedTuple):
  """A run that claims depend on."""

  name: str  # of the experiment, or of a setting of the textbook
  script: str  # name of the experiment's script
  experiment: Experiment
  arguments: tuple[str, ...]  # command-line arguments, except for the workdir
  setting: Any = None  # of the textbook's list, if it is one


class Found(NamedTuple):
  """The results of a run, and their provenance."""

  wanted: Wanted
  run: Run
  path: pathlib.Path
  provenance: Mapping[str, Any]


def read_runs(config: ConfigDict) -> dict[str, str]:
  """Returns experiment -> variant of its config.

  Raises:
    InputError: a key or experiment is unknown, or a value is out of range.
  """
  for key in config:
    if key not in _KEYS:
      raise unknown_name("config key", key, _KEYS)
  check_integer("num_seeds", config.num_seeds, 0)
  if not re.fullmatch(r"[0-9a-f]{7,40}", str(config.registered)):
    raise InputError(f"registered must be a revision of git, not {show(config.registered)}")
  stats.check_settings(1, 1, config.alpha, stats.NUM_RESAMPLES)
  runs = {name: variant for name, variant in config.runs.items() if variant}
  for name in runs:
    if name not in CLAIMS:
      raise unknown_name("experiment", name, CLAIMS)
  if not runs and not config.textbook:
    raise InputError("the config names no run")
  return runs


@functools.cache
def _textbook() -> dict[str, Any]:
  """Returns what the textbook's list of settings defines."""
  return runpy.run_path(str(CONFIGS / "textbook.py"))


def read_settings(config: ConfigDict) -> dict[str, Any]:
  """Returns the settings of the textbook's list that the config names, by name.

  Raises:
    InputError: there is no such setting, or a claim needs another one.
  """
  listed = _textbook()["SETTINGS"]
  names = from_config.read_names(config, "textbook", "setting")
  if names == ["all"]:
    names = [*listed]
  for name in names:
    if name not in listed:
      raise unknown_name("setting of the textbook", name, listed)
    for claimed in listed[name].claims:
      others = [str(part[3]).rpartition(":")[0] for part in claimed.parts]
      missing = [other for other in others if other and other not in names]
      if missing:
        raise InputError(f"claim {claimed.name!r} needs the setting {missing[0]!r} as well")
  return {name: listed[name] for name in names}


def plan(name: str, variant: str, config: ConfigDict) -> Wanted:
  """Returns the run of an experiment that the config describes."""
  module = importlib.import_module(f".{name}", __package__)
  settings = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)
  arguments = [f"--config=ml_collections_configs/{name}.py:{variant}"]
  if config.num_seeds:
    settings.num_seeds = config.num_seeds
    arguments.append(f"--config.num_seeds={config.num_seeds}")
  return Wanted(name, name, module.SCRIPT.create_experiment(settings), tuple(arguments))


def plan_setting(name: str, setting: Any, config: ConfigDict) -> Wanted:
  """Returns the run of a setting of the textbook."""
  settings = _textbook()["get_config"](name)
  arguments = [f"--config=ml_collections_configs/textbook.py:{name}"]
  if config.num_seeds:
    settings.num_seeds = config.num_seeds
    arguments.append(f"--config.num_seeds={config.num_seeds}")
  experiment = own_question.create_experiment(settings)
  if setting.until_decided:
    experiment = dataclasses.replace(experiment, until_decided=True)
    arguments.append("--until_decided")
  return Wanted(name, "textbook", experiment, tuple(arguments), setting)


def obtain(wanted: Wanted, place: pathlib.Path, others: Sequence[pathlib.Path] = ()) -> Found:
  """Returns a finished run with the same config if there is one, and runs it otherwise.

  Args:
    wanted: the run.
    place: its workdir.
    others: workdirs in which it may be, too.

  Raises:
    InputError: the run fails, or its results cannot be read.
  """
  for path in (place, *others):
    if is_run_of(wanted.experiment, path):
      print(f"{wanted.name}: collected from {path}", file=sys.stderr)
      return read(wanted, path)
  print(f"{wanted.name}: running", file=sys.stderr)
  arguments = [*wanted.arguments, f"--workdir={place.resolve()}"]
  if command_line.OVERWRITE.value and not is_begun(wanted.experiment, place):
    arguments.append("--overwrite")
  if command_line.DATA_DIR.value is not None:
    arguments.append(f"--data_dir={pathlib.Path(command_line.DATA_DIR.value).resolve()}")
  command = [sys.executable, "-m", f"experiments.{wanted.script}", *arguments]
  status = interrupts.run_child(command, cwd=ROOT, stdout=subprocess.DEVNULL)
  if status in (2, interrupts.EXIT_STATUS):
    sys.exit(status)  # the run has already printed why
  if status:
    raise InputError(f"the run of {wanted.name} failed with exit status {status}; see above")
  return read(wanted, place)


def is_begun(experiment: Experiment, path: pathlib.Path) -> bool:
  """Whether a workdir holds an unfinished run of this experiment, which can be continued."""
  try:
    identity = Store(path / report.RUN).read_identity()
    return identity is not None and Experiment.from_json(identity["config"]) == experiment
  except InputError:
    return False


def is_run_of(experiment: Experiment, path: pathlib.Path) -> bool:
  """Whether a workdir holds a finished run of this experiment, with the same effective config."""
  try:
    config = json.loads((path / report.CONFIG_FILE).read_text(encoding="utf-8"))
    return type(experiment).from_json(config) == experiment
  except (OSError, ValueError, RecursionError):  # an InputError is a ValueError
    return False


def read(wanted: Wanted, path: pathlib.Path) -> Found:
  found = report.read_run(path, type(wanted.experiment))
  if found.experiment != wanted.experiment:
    raise InputError(f"the run in {str(path)!r} is of another config")
  run = Run(wanted.name, wanted.experiment, found.members, found.tables)
  return Found(wanted, run, path, found.provenance)


@contextlib.contextmanager
def damage_in(path: pathlib.Path) -> Iterator[None]:
  """Turns the various exceptions that damaged results raise into an InputError."""
  try:
    yield
  except InputError:
    raise
  except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
    reason = f"{type(error).__name__}: {error}"
    raise InputError(f"the run in {str(path)!r} is damaged: {reason}") from error
