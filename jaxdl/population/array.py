"""One population over the tasks of a batch system's array, which know of each other by files alone.

Every task takes chunks that nobody trains and nobody has trained, those of its own share first. A
lease says that a task trains a chunk; it ends with the task, so that others take over from tasks
that died, or did not start yet.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxdl.data.dataset import Dataset
from jaxdl.population import local
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.progress import Progress
from jaxdl.population.trainer import Trainer
from jaxdl.store import interrupts
from jaxdl.store.store import Store

# How often a task without work looks whether there is some again.
_POLL_SECONDS = 2.0


def train_share(
  dataset: Dataset,
  workers: Sequence[jax.Device],
  store: Store,
  settings: Mapping[str, Any],
  place: tuple[int, int],
  groups: Sequence[Group],
  chunks: Sequence[Chunk],
  progress: Progress,
) -> Outcome:
  """Trains chunks together with the other tasks, until all of them are trained or have failed.

  Args:
    dataset: the dataset to train on.
    workers: the device of each worker of this task.
    store: in a folder that all tasks see.
    settings: the other keyword arguments of `Trainer`.
    place: the index of this task, from 0, and the number of tasks.
    groups: the groups of the population.
    chunks: its chunks.
    progress: told about every epoch of this task.

  Returns:
    The results of all chunks, the same in every task.

  Raises:
    InputError: the user must fix something; trying again would not help.
  """
  index, count = place
  order = [chunk for turn in range(count) for chunk in chunks[(index + turn) % count :: count]]
  failed_before = {chunk: _failure_of(store, chunk) for chunk in chunks}
  trainer = Trainer(dataset, groups, workers, store=store, progress=progress, **settings)
  failures: dict[Chunk, str] = {}

  def is_over(chunk):
    """Whether the chunk is trained, or has failed in some task since this one began."""
    failure = _failure_of(store, chunk)
    return store.has_chunk(chunk.name) or failure not in (None, failed_before[chunk])

  def take(chunk, device, stop):
    """Trains a chunk, if no other task does; returns whether it was free."""
    try:
      with store.lease(chunk.name):
        if not is_over(chunk):
          local.attempt(trainer, store, failures, chunk, device, stop)
    except BlockingIOError:
      return False
    return True

  def left():
    """Returns the chunks that are not over, or may not be because a task tries once more."""
    return [c for c in order if not is_over(c) or store.lease_file(c.name).exists()]

  try:
    while waiting := left():
      if not any(local.share(waiting, workers, take)):
        _wait_for_change(store, waiting, left)
  finally:
    trainer.close()
  outcome = local.read_committed(store, groups, chunks, progress)
  missing = [chunk for chunk in chunks if chunk not in outcome.results]
  reasons = {chunk: failures.get(chunk, "it failed in another task") for chunk in missing}
  return outcome._replace(
    failures=reasons, num_workers=len(workers), compile_seconds=trainer.compile_seconds
  )


def _failure_of(store: Store, chunk: Chunk) -> int | None:
  """Returns when the failure of a chunk was written down, None if it has not failed."""
  try:
    return store.failure_file(chunk.name).stat().st_mtime_ns
  except FileNotFoundError:
    return None


def _wait_for_change(store: Store, waiting: Sequence[Chunk], left: Callable[[], list[Chunk]]):
  """Waits while other tasks train all chunks that are left."""
  with interrupts.waiting("other tasks, which train the chunks that are left"):
    while left() == waiting and not any(_is_free(store, chunk) for chunk in waiting):
      interrupts.check()
      time.sleep(_POLL_SECONDS)


def _is_free(store: Store, chunk: Chunk) -> bool:
  try:
    store.lease(chunk.name).release()
  except BlockingIOError:
    return False
  return True
