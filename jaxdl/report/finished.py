"""A finished run, read back from its folder; nothing is believed that the run did not write."""

import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdl.errors import InputError, brief
from jaxdl.experiment import Experiment
from jaxdl.member import STATUS_NAMES
from jaxdl.population.results import NOT_TRAINED, PROBABILISTIC, RATES
from jaxdl.report.run_text import TABLES
from jaxdl.report.tables import read_members
from jaxdl.report.workdir import CONFIG_FILE, MEMBERS_FILE, PROVENANCE_FILE
from jaxdl.store import files

if TYPE_CHECKING:
  import pandas as pd


class FinishedRun(NamedTuple):
  """What `read_run` returns."""

  experiment: Experiment
  members: "pd.DataFrame"  # as `jaxdl.report.members_table` made it
  tables: Mapping[str, "pd.DataFrame"]  # file name without suffix -> table
  provenance: Mapping[str, Any]


def read_run(path: pathlib.Path, kind: type[Experiment] = Experiment) -> FinishedRun:
  """Reads the results of a finished run.

  Args:
    path: its folder.
    kind: the class of its experiment, which may have more settings.

  Raises:
    InputError: the folder has no results; a file is missing or has changed since the run wrote it;
      members are missing, or are not those that the config describes.
  """
  import pandas as pd

  names = files.check_intact(path, PROVENANCE_FILE)
  try:
    config, provenance = (
      json.loads((path / name).read_text(encoding="utf-8"))
      for name in (CONFIG_FILE, PROVENANCE_FILE)
    )
    members = read_members(path / MEMBERS_FILE)
    tables = {
      pathlib.PurePath(name).stem: pd.read_csv(path / name)
      for name in names
      if pathlib.PurePath(name).match(f"{TABLES}/*.csv")
    }
    experiment = kind.from_json(config)
    _check_members(experiment, members)
  except InputError as error:
    raise InputError(f"the run in {str(path)!r} cannot be used: {error}") from error
  except (AttributeError, LookupError, OSError, TypeError, ValueError, RecursionError) as error:
    raise InputError(f"cannot read the run in {str(path)!r}: {brief(error)}") from error
  return FinishedRun(experiment, members, tables, provenance)


def _check_members(experiment: Experiment, members: "pd.DataFrame"):
  """Raises InputError unless each seed has each arm once, with values in their ranges."""
  num_seeds = members["seed"].nunique()
  if num_seeds not in (experiment.looks or ()):  # where training may have ended
    num_seeds = experiment.num_seeds
  wanted = list(itertools.product(range(num_seeds), experiment.arms))
  found = list(zip(members["seed"], members["arm"], strict=True))
  if sorted(found) != sorted(wanted):
    raise InputError(
      f"{MEMBERS_FILE} has {len(set(found) & set(wanted))} of {len(wanted)} members in "
      f"{len(found)} rows"
    )
  for status in set(members["status"]) - {*STATUS_NAMES[1:], NOT_TRAINED}:
    raise InputError(f"{MEMBERS_FILE} has a member with the status {status!r}")
  members = members[members["status"] != NOT_TRAINED]
  diverged = (members["status"] == "diverged").to_numpy()
  most = members["arm"].map({name: arm.num_epochs for name, arm in experiment.arms.items()})
  ranges = {"epochs": (1, most.to_numpy())} | dict.fromkeys(RATES, (0, 1))
  for name in members.columns.intersection(list(ranges)):
    values, (low, high) = members[name].to_numpy(float), ranges[name]
    # Without a validation set, or a class in the test set, there may be no value.
    missing = np.isnan(values) & (diverged | (name in ("val_accuracy", *PROBABILISTIC)))
    wrong = ~(missing | ((low <= values) & (values <= high)))
    if wrong.any():
      raise InputError(f"{MEMBERS_FILE} has a member with {name} = {values[wrong][0]:g}")
