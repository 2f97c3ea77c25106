"""The directory of a run: who may use it, what it holds, and how it is written.

What draws and what makes tables is imported where it is used: it takes longer to import than JAX,
and a run that trains first need not wait for it.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl import stats
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import environment
from jaxdl.population.devices import DeviceKind
from jaxdl.population.plan import Group
from jaxdl.population.programs import Observer
from jaxdl.population.results import Population
from jaxdl.report import html, params, run_pictures, setup_tables
from jaxdl.report.origin import provenance, source_revision
from jaxdl.report.params import PARAMS
from jaxdl.report.run_text import ARMS_FILE, FIGURES, RUN, TABLES, render
from jaxdl.report.tables import (
  arms_table,
  confusion_arrays,
  correct_arrays,
  curves_table,
  members_table,
  per_class_table,
  prediction_arrays,
  write_csv,
)
from jaxdl.store import files, interrupts, locks
from jaxdl.store import store as store_lib

if TYPE_CHECKING:
  import pandas as pd

  from jaxdl.report.figures import Figure

CONFIG_FILE = "config.json"
MEMBERS_FILE = "members.csv"
PROVENANCE_FILE = "provenance.json"
_PARTIAL = "partial"
# How long one of several processes waits while another one reports.
_PATIENCE_SECONDS = 600.0
# How long a task may hold the lock of the workdir before others can see that it is one.
_START_SECONDS = 5.0
# What may differ from the run that is there if somebody insists: what decides no member's settings.
_OF_NO_MEMBER = re.compile(
  r"environment(\.(jax|jaxlib|jaxdl|source))?|device_kind|programs(\..*)?|"
  r"config\.(question|alpha|num_resamples|reference|target_loss|num_seeds|chunk_size|slice_size|"
  r"margins(\..*)?)"
)
_REFUSE = "choose another workdir, or replace what is there with --overwrite"
_NAMES = (
  CONFIG_FILE,
  FIGURES,
  PARAMS,
  TABLES,
  MEMBERS_FILE,
  "per_class.csv",
  "curves.parquet",
  "confusion.npz",
  "correct.npz",
  "predictions.npz",
  "verdicts.json",
  "report.md",
  "report.html",
)


class Extra(NamedTuple):
  """What one kind of experiment adds to its report."""

  sections: Sequence[str] = ()  # Markdown, after the pictures
  pictures: Sequence[tuple[str, str, "Figure"]] = ()  # (file name without suffix, caption, figure)
  tables: Mapping[str, "pd.DataFrame"] = {}  # file name without suffix -> table
  answer: str | None = None  # in the place of the one that the verdicts give


def continued_from(path: str | os.PathLike, experiment: Experiment) -> int | None:
  """Returns how many seeds the run in a directory was planned with, if it can be continued.

  It can if it is the same experiment, was planned with a fixed number of seeds, and with fewer.
  Returns None if there is no run, or another one.

  Raises:
    InputError: the run's identity cannot be read.
  """
  running = store_lib.Store(pathlib.Path(path) / RUN).read_identity()
  if running is None:
    return None
  there = running["config"]
  num_seeds = there.get("num_seeds")
  if not isinstance(num_seeds, int) or num_seeds >= experiment.num_seeds:
    return None
  planned = dataclasses.replace(experiment, num_seeds=num_seeds, until_decided=False)
  return num_seeds if there == json.loads(planned.dumps()) else None


class Workdir:
  """The directory of one run: claimed before the training, and filled after it, all at once."""

  def __init__(
    self,
    path: str | os.PathLike,
    experiment: Experiment,
    *,
    overwrite: bool = False,
    resume_anyway: bool = False,
    partial: bool = False,
    shared: bool = False,
  ):
    """Claims the directory, creating it where it is not there.

    Args:
      path: the directory.
      experiment: what is about to run. A run of the same experiment goes on where it was.
      overwrite: start anew, whatever is there.
      resume_anyway: go on with the run that is there although other versions, another kind of
        device or layers by another compiler trained it, or its statistics or widths differ; the
        report begins with what differs. What decides what a member is must not differ.
      partial: report what is trained so far, in a folder `partial` of its own, also while another
        process trains on.
      shared: other processes train and report the same run; see `take_to_report`.

    Raises:
      InputError: where the directory cannot be written, is in use, holds another run, or has
        something that no run has made in the place of what a run makes.
    """
    self.path = pathlib.Path(path)
    if not str(path):
      raise InputError("workdir is empty")
    self._config = json.loads(experiment.dumps())
    self._continued = experiment.continued_from
    self._resume_anyway = resume_anyway
    self.resumed_anyway: list[str] = []  # in what the run that is there differs
    # The date for people; how long it takes by a clock that does not jump.
    self._started, self._clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    # Now, not when the run is over: the source may be edited while it runs.
    self._source = source_revision()
    self.store, self._partial = store_lib.Store(self.path / RUN), partial
    if partial:
      if self.store.read_identity() is None:
        raise InputError(f"no run has begun in workdir {str(self.path)!r}: nothing to report")
      self.path /= _PARTIAL  # the report's own folder, and lock
    self._shared, self._task = shared, contextlib.ExitStack()
    self._lock: locks.Lock | None = self._take_lock()
    try:
      if shared:
        self._task.enter_context(self.store.join_tasks())
      elif not partial and (tasks := self.store.count_tasks()):
        raise InputError(
          f"workdir {str(path)!r} is in use by {tasks} task{'s' if tasks > 1 else ''} of an array; "
          "wait for them, or choose another workdir"
        )
      files.check_replaceable(self.path, _NAMES, PROVENANCE_FILE)
      if overwrite and not partial:
        self.store.clear()
      else:
        self._check_config()
    except BaseException:
      self._task.close()
      self._release()
      raise
    if shared:
      self._release()

  def _take_lock(self) -> locks.Lock:
    """Locks the directory; waits for tasks of this array that report, but for no other run."""
    if not self._shared:
      return locks.Lock(self.path)
    try:
      return locks.Lock(self.path, _START_SECONDS)
    except InputError:
      if not self.store.count_tasks():
        raise
    return locks.Lock(self.path, _PATIENCE_SECONDS)

  def _release(self):
    if self._lock is not None:
      self._lock.release()
      self._lock = None

  def _check_config(self):
    running = self.store.read_identity()
    if running is not None:
      there = {"config": running.get("config")}
      self._refuse_differences(there, {"config": self._begun_config()})
      return
    file = self.path / CONFIG_FILE
    if not file.exists():
      return
    try:
      there = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
      raise InputError(f"cannot read {str(file)!r}: {error}; {_REFUSE}") from error
    for name, old, new in _differences(there, self._config):
      raise InputError(
        f"workdir {str(self.path)!r} holds a run of another config ({name}: {old!r} there, {new!r} "
        f"now); {_REFUSE}"
      )

  def claim(
    self,
    dataset: Dataset,
    groups: Sequence[Group],
    device: DeviceKind,
    observe: Observer | None = None,
    keep_logits: bool = False,
    keep_params: bool = False,
  ):
    """Says what is about to train here, before anything of it does.

    Args:
      dataset: as it will be trained on.
      groups: how its members are cut into chunks.
      device: what they train on.
      observe: what else is recorded, as `jaxdl.launch.run` takes it.
      keep_logits: likewise.
      keep_params: likewise.

    Raises:
      InputError: the run that is there is another one.
    """
    identity = {
      "config": self._begun_config(),
      "dataset_checksum": dataset.checksum,
      "class_names": list(dataset.class_names),
      "environment": environment.describe(),
      "device_kind": device.name,
      "observe": None if observe is None else getattr(observe, "__qualname__", "unnamed"),
      "keep_logits": keep_logits,
      "keep_params": keep_params,
      "programs": {str(group.number): self._program_identity(group) for group in groups},
    }
    there = self.store.join() if self._partial else self.store.claim(identity, self._shared)
    different = self._refuse_differences(there or {}, json.loads(json.dumps(identity)))
    if not self._partial:  # which trains nothing
      self.store.note_continuation(different)

  def _program_identity(self, group: Group) -> dict[str, Any]:
    layout = group.layout._asdict()
    if self._continued is not None:
      begun = group._replace(num_seeds=self._continued)
      layout["num_chunks"] = len(begun.chunks())
    if not layout["kernels"]:
      del layout["kernels"]  # as in runs from before there was a choice
    return layout

  def _begun_config(self) -> dict[str, Any]:
    """Returns the config with which the run began: one that is continued had fewer seeds."""
    if self._continued is None:
      return self._config
    begun = {"num_seeds": self._continued, "until_decided": False, "continued_from": None}
    return self._config | begun

  def _refuse_differences(self, there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compares two identities; returns the differences that concern how chunks are trained."""
    found = {
      name: f"{name.removeprefix('config.')}: {old!r} there, {new!r} now"
      for name, old, new in _differences(there, now)
    }
    other = [text for name, text in found.items() if not _OF_NO_MEMBER.fullmatch(name)]
    if other or (found and not self._resume_anyway):
      what = "of another config" if there["config"] != now["config"] else "that differs"
      rest = "" if other else ", or go on with what is there with --resume_anyway"
      raise InputError(
        f"workdir {str(self.path)!r} holds a run {what} ({[*other, *found.values()][0]:.300}); "
        f"choose another workdir{',' if rest else ' or'} start anew with --overwrite{rest}"
      )
    self.resumed_anyway += [text for text in found.values() if text not in self.resumed_anyway]
    return [text for name, text in found.items() if not name.startswith("config.")]

  def __enter__(self) -> "Workdir":
    return self

  def __exit__(self, *_):
    self.store.close()
    self._task.close()
    self._release()

  def take_to_report(self) -> bool:
    """Returns whether the report is left to this process, after locking a shared directory.

    Raises:
      InputError: another process has locked it for too long.
    """
    if not self._shared:
      return True
    self._lock = locks.Lock(self.path, _PATIENCE_SECONDS)
    file = self.path / CONFIG_FILE  # the last of a report
    return not file.exists() or file.stat().st_mtime < self.store.newest_change()

  def commit(
    self,
    experiment: Experiment,
    dataset: Dataset,
    trained: Population,
    verdicts: Sequence[stats.Verdict],
    extra: Extra = Extra(),  # noqa: B008  (a tuple)
    shown: Population | None = None,
  ):
    """Writes the files of a run and moves them to their places, `config.json` last.

    Args:
      experiment: what was run.
      dataset: as it was trained on.
      trained: the population.
      verdicts: of `jaxdl.experiment.compare`.
      extra: what this kind of experiment adds.
      shown: the part of the population that pictures and tables of the report show; None: all.
    """
    # Without its config a directory is no run, so one that is interrupted while the files move is
    # not taken for one.
    with files.staging(self.path, PROVENANCE_FILE, last=(CONFIG_FILE,)) as stage:
      self._write(stage, experiment, dataset, trained, verdicts, extra, shown or trained)

  def _provenance(self, dataset: Dataset, trained: Population) -> dict[str, Any]:
    origin = {
      **provenance(dataset, trained),
      "source": self._source,
      "started": self._started.isoformat(timespec="seconds"),
      "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "total_seconds": round(time.monotonic() - self._clock, 3),
    }
    anyway = {"resumed_anyway": self.resumed_anyway, "continued": self.store.continuations()}
    return origin | {name: value for name, value in anyway.items() if value}

  def _write(self, stage, experiment, dataset, trained, verdicts, extra, shown):
    from jaxdl.report import figures

    (stage / FIGURES).mkdir()
    pictures = [*run_pictures.pictures(experiment, shown, dataset), *extra.pictures]
    for name, _, figure in pictures:
      interrupts.check()
      figures.save(figure, stage / FIGURES / name)
    if trained.variables is not None:
      params.write(stage / PARAMS, trained)
    tables = {f"{name}.csv": table for name, table in extra.tables.items()}
    if experiment_lib.is_many(shown.arms):
      tables[ARMS_FILE] = arms_table(shown, verdicts)
    if tables:
      (stage / TABLES).mkdir()
    for name, table in tables.items():
      write_csv(stage / TABLES / name, table)
    origin = self._provenance(dataset, trained)
    captions = [(name, caption) for name, caption, _ in pictures]
    few = answer_lib.shown_arms(shown.scores(next(iter(experiment.margins))))
    sections = [*extra.sections, setup_tables.setup_text(shown.arms, few, dataset)]
    text = render(experiment, shown, verdicts, origin, captions, sections, extra.answer)
    (stage / "report.md").write_text(text, encoding="utf-8")
    files.write_json(stage / PROVENANCE_FILE, origin)
    files.write_json(stage / "verdicts.json", [stats.to_json(verdict) for verdict in verdicts])
    write_csv(stage / MEMBERS_FILE, members_table(trained))
    # As bytes: the library that writes them takes no path that is not UTF-8.
    curves = curves_table(trained).to_parquet(None, index=False)
    (stage / "curves.parquet").write_bytes(curves)
    if trained.has_classes:
      write_csv(stage / "per_class.csv", per_class_table(trained))
      np.savez(stage / "confusion.npz", **confusion_arrays(trained))
      np.savez(stage / "correct.npz", **correct_arrays(trained))
    else:
      np.savez(stage / "predictions.npz", **prediction_arrays(trained))
    files.write_json(stage / CONFIG_FILE, self._config)
    written = sorted(path for path in stage.rglob("*") if path.suffix in (".csv", ".parquet"))
    page = html.render(
      experiment,
      dataset,
      shown,
      verdicts,
      origin,
      [
        html.Picture(stage / FIGURES / f"{name}.png", caption)
        for name, caption, _ in pictures
        if name not in run_pictures.DRAWN_BY_PAGE
      ],
      extra.sections,
      [stage / CONFIG_FILE, stage / "verdicts.json", *written],
      extra.answer,
    )
    (stage / "report.html").write_text(page, encoding="utf-8")


def _differences(old: Any, new: Any, name: str = "") -> Iterable[tuple[str, Any, Any]]:
  """Yields (name, old value, new value) for every leaf in which two configs differ."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in dict.fromkeys([*old, *new]):
      inner = f"{name}.{key}" if name else key
      yield from _differences(old.get(key), new.get(key), inner)
  elif old != new:
    yield name, old, new
