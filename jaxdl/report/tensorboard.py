"""Members as TensorBoard's event files, which other trackers import: curves, results, settings.

There is one run per member, `ARM/seed_N`, with these scalars:

  train_loss, val_loss, learning_rate, ...  by epoch
  final/NAME                                results on the test set and the rest of `members.csv`

The settings of the arm and the seed are hyperparameters of TensorBoard's plugin HParams. Files have
the format of TFRecord. They need tensorboardX and not TensorFlow.
"""

import contextlib
import importlib.util
import logging
import math
import pathlib
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment, with_epochs_to_target
from jaxdl.population import plan
from jaxdl.population.assembly import assemble
from jaxdl.population.chunk_result import ChunkResult, read_chunk
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.results import NOT_TRAINED, Population
from jaxdl.report import params
from jaxdl.report.tables import curves_table, members_table
from jaxdl.store import files, locks
from jaxdl.store.store import Store

if TYPE_CHECKING:
  import pandas as pd

_LOGGER = logging.getLogger("jaxdl")
# In the state of a run: what it writes while it trains.
FOLDER = "tensorboard"
_SECONDS_BETWEEN_LOOKS = 5.0
# Looking takes at most this share of the time.
_SHARE = 0.05
# Without the time that is usual in its name: two tasks of an array must not write a member twice.
_FILE = "events.out.tfevents.0.jaxdl"
_NO_SCALARS = ("seed", "arm", "status")


def check_installed():
  """Raises InputError if tensorboardX is not there."""
  if importlib.util.find_spec("tensorboardX") is None:
    raise InputError(
      "TensorBoard's files are written with tensorboardX, which is not installed: "
      "pip install 'jaxdl[tensorboard]'"
    )


def export(
  out: pathlib.Path,
  experiment: Experiment,
  members: "pd.DataFrame",
  curves: "pd.DataFrame",
  finished: float,
):
  """Writes all members of a finished run into a folder, all at once.

  Args:
    out: created if it does not exist. Files of an earlier export are replaced.
    experiment: what was run.
    members: a row per member, as of `members_table`.
    curves: a row per member and epoch, as of `curves_table`.
    finished: when the run finished, in seconds since 1970.

  Raises:
    InputError: tensorboardX is not there; the folder cannot be written, or something that no export
      has made stands in the place of what this one makes.
  """
  check_installed()
  with locks.Lock(out), files.staging(out) as stage:
    for name, content in _members(experiment, members, curves, finished):
      (stage / name).parent.mkdir(parents=True, exist_ok=True)
      (stage / name).write_bytes(content)


@contextlib.contextmanager
def live(
  store: Store, experiment: Experiment, dataset: Dataset, groups: Sequence[Group]
) -> Iterator[None]:
  """Writes members while they train in the block, by this process or by others.

  A seed is written once all of its arms are trained, within seconds. At the end of the block
  everything is there, except for what `write_missing` writes. The files are part of the state of
  the run, and written once.

  Raises:
    InputError: a file cannot be written.
  """
  writer = _Live(store, experiment, dataset, groups)
  done = threading.Event()

  def watch():
    pause = _SECONDS_BETWEEN_LOOKS
    try:
      while not done.wait(pause):
        start = time.monotonic()
        writer.write()
        pause = max(_SECONDS_BETWEEN_LOOKS, (time.monotonic() - start) / _SHARE)
    except Exception as error:  # the run goes on, and at its end this is tried again
      _LOGGER.warning("TensorBoard's files are written at the end of the run only: %s", error)

  thread = threading.Thread(target=watch, name="tensorboard", daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
  writer.write()


class _Live:
  """Writes what is committed to a store and is not written yet."""

  def __init__(
    self, store: Store, experiment: Experiment, dataset: Dataset, groups: Sequence[Group]
  ):
    self._store, self._groups = store, groups
    self._experiment, self._dataset = experiment, dataset
    self._waiting = list(plan.all_chunks(groups))  # for being committed
    # Committed, of seeds whose other arms are not.
    self._committed: dict[Chunk, ChunkResult] = {}
    self._written: set[int] = set()

  def write(self):
    """Writes the seeds all of whose arms are committed by now."""
    self._read()
    if not self._committed:
      return
    seeds = range(self._experiment.num_seeds)
    try:
      population = assemble(
        self._dataset, self._experiment.arms, seeds, self._groups, Outcome(self._committed)
      )
    except InputError:  # no seed has all of its arms
      return
    population = with_epochs_to_target(self._experiment, population)
    write_missing(self._store, self._experiment, population)
    self._written.update(population.seeds)
    for chunk in list(self._committed):
      last = chunk.seed + self._groups[chunk.group].num_real(chunk)
      if self._written.issuperset(range(chunk.seed, last)):
        del self._committed[chunk]

  def _read(self):
    """Reads what has been committed since the last time."""
    new = [chunk for chunk in self._waiting if self._store.has_chunk(chunk.name)]
    for chunk in new:
      result = read_chunk(self._store, self._groups[chunk.group], chunk)
      if result is not None:  # a damaged one is trained again
        self._waiting.remove(chunk)
        self._committed[chunk] = result._replace(variables=None, logits=None)


def write_missing(store: Store, experiment: Experiment, population: Population):
  """Writes the members of a population that are not written yet, into the state of the run.

  Those that `live` leaves out: of seeds that some arms do not train because they are decided.

  Raises:
    InputError: a file cannot be written.
  """
  tables = members_table(population), curves_table(population)
  folder = store.folder / FOLDER
  with files.naming(folder):
    for name, content in _members(experiment, *tables, time.time()):
      place = folder / name
      if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write(place, content)


def _members(
  experiment: Experiment, members: "pd.DataFrame", curves: "pd.DataFrame", ended: float
) -> Iterator[tuple[str, bytes]]:
  """Yields the name of each member's file in the folder of all runs, and its content."""
  by_member = dict(iter(curves.groupby(["arm", "seed"], sort=False)))
  for row in members[members.status != NOT_TRAINED].to_dict("records"):
    arm, seed = str(row["arm"]), int(row["seed"])
    settings = {"arm": arm, "seed": seed, "dataset": experiment.dataset}
    settings |= experiment.arms[arm].to_json()
    final = {f"final/{name}": value for name, value in row.items() if name not in _NO_SCALARS}
    by_epoch = by_member[arm, seed].drop(columns=["seed", "arm"]).to_dict("records")
    yield (
      f"{params.folder_name(arm)}/seed_{seed}/{_FILE}",
      _events(settings, by_epoch, final, ended),
    )


def _events(
  settings: Mapping[str, Any],
  by_epoch: Sequence[Mapping[str, float]],
  final: Mapping[str, Any],
  ended: float,
) -> bytes:
  """Returns the content of a member's file.

  Times are those at which the member would have trained if it ended just now, every epoch took
  equally long, and nothing else ran.
  """
  from tensorboardX.proto.event_pb2 import Event
  from tensorboardX.proto.summary_pb2 import Summary
  from tensorboardX.summary import hparams

  def scalars(values):
    return Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])

  last, seconds = len(by_epoch), float(final["final/train_seconds"])
  start = ended - seconds
  results = {name: float(v) for name, v in final.items() if _is_there(v)}
  plain = {
    name: value if isinstance(value, bool | int | float) else str(value)
    for name, value in settings.items()
    if value is not None
  }
  # Without the first of the three, TensorBoard finds the names of all runs, not of one only.
  _, begin, end = hparams(plain, {})
  events = [
    Event(wall_time=start, file_version="brain.Event:2"),
    Event(wall_time=start, summary=begin),
  ]
  for row in by_epoch:
    epoch = int(row["epoch"])
    values = {name: value for name, value in row.items() if name != "epoch"}
    at = start + seconds * epoch / last
    events.append(Event(wall_time=at, step=epoch, summary=scalars(values)))
  events.append(Event(wall_time=ended, step=last, summary=scalars(results)))
  events.append(Event(wall_time=ended, summary=end))
  return b"".join(_record(event.SerializeToString()) for event in events)


def _is_there(value: Any) -> bool:
  """Whether a cell has a value: not `pandas.NA`, and not NaN, which marks a missing one."""
  return isinstance(value, int | float) and not math.isnan(value)


def _record(data: bytes) -> bytes:
  """Returns a record in the format of TFRecord: length and data, each with a masked CRC-32C."""
  from tensorboardX.record_writer import masked_crc32c

  def checked(part):
    return part + struct.pack("<I", masked_crc32c(part))

  return checked(struct.pack("<Q", len(data))) + checked(data)
