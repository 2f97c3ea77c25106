"""Workers of this process: threads that take chunks from one list and never wait for each other."""

import contextlib
import functools
import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax

from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, brief
from jaxdl.population.chunk_result import ChunkResult, read_chunk
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.progress import Progress
from jaxdl.population.trainer import StoppedError, Trainer
from jaxdl.store import interrupts
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")

# How many times a chunk that fails is tried before the run continues without it.
ATTEMPTS = 3
# How long workers may take to finish their epoch when the run is to stop. Schedulers of clusters
# usually allow 30 seconds between the first signal and the kill.
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1

Job = TypeVar("Job")
Result = TypeVar("Result")


class Outcome(NamedTuple):
  """What became of the chunks of a run."""

  results: dict[Chunk, ChunkResult]
  failures: Mapping[Chunk, str] = MappingProxyType({})  # one line each; tracebacks are in the store
  num_workers: int = 0
  compile_seconds: float = 0.0
  split_chunks: Sequence[str] = ()  # names of chunks that did not fit the device


# Trains the chunks of a population's groups and reports progress.
Execute = Callable[[Sequence[Group], Sequence[Chunk], Progress], Outcome]


@contextlib.contextmanager
def here(
  dataset: Dataset,
  workers: Sequence[jax.Device],
  store: Store | None,
  settings: Mapping[str, Any],
) -> Iterator[Execute]:
  """Yields what trains chunks on workers of this process, for one population.

  It may be called several times with chunks of the same groups, whose programs it compiles once.

  Args:
    dataset: the dataset to train on.
    workers: the device of each worker.
    store: where checkpoints and results go. With a store, a chunk that fails is tried again, up to
      `ATTEMPTS` attempts, and then left out; without one, its exception propagates.
    settings: the other keyword arguments of `Trainer`.
  """
  trainers: list[Trainer] = []

  def execute(groups, chunks, progress):
    if not trainers:
      trainers.append(Trainer(dataset, groups, workers, store=store, progress=progress, **settings))
    return _train_here(trainers[0], workers, store, chunks)

  try:
    yield execute
  finally:
    for trainer in trainers:
      trainer.close()


def _train_here(
  trainer: Trainer,
  workers: Sequence[jax.Device],
  store: Store | None,
  chunks: Sequence[Chunk],
) -> Outcome:
  failures: dict[Chunk, str] = {}
  trained = share(chunks, workers, functools.partial(attempt, trainer, store, failures))
  results = {c: result for c, result in zip(chunks, trained, strict=True) if result is not None}
  failed = {chunk: failures[chunk] for chunk in chunks if chunk not in results}
  split = store.split_chunks() if store is not None else sorted(trainer.split_chunks)
  return Outcome(results, failed, len(workers), trainer.compile_seconds, split)


def attempt(
  trainer: Trainer,
  store: Store | None,
  failures: dict[Chunk, str],
  chunk: Chunk,
  device: jax.Device,
  stop: threading.Event,
) -> ChunkResult | None:
  """Trains a chunk, up to `ATTEMPTS` times; then notes why it failed, and returns None."""
  for number in range(1, ATTEMPTS + 1):
    try:
      return trainer.train(chunk, device, stop)
    except (InputError, StoppedError):
      raise
    except Exception as error:
      if store is None:
        raise
      failures[chunk] = note_failure(store, chunk, error, f"attempt {number} of {ATTEMPTS}")
  return None


def read_committed(
  store: Store, groups: Sequence[Group], chunks: Sequence[Chunk], _: Progress
) -> Outcome:
  """Returns the results that are already stored; trains nothing."""
  found = {chunk: read_chunk(store, groups[chunk.group], chunk) for chunk in chunks}
  results = {chunk: result for chunk, result in found.items() if result is not None}
  return Outcome(results, split_chunks=store.split_chunks())


def note_failure(store: Store, chunk: Chunk, error: BaseException, attempt: str) -> str:
  """Stores the traceback of a failed chunk, logs a warning, and returns the reason in one line."""
  text = f"chunk {chunk.name}, {attempt}\n" + "".join(traceback.format_exception(error))
  file = store.write_failure(chunk.name, text)
  reason = brief(error)
  _LOGGER.warning("chunk %s failed (%s): %.200s; see %s", chunk.name, attempt, reason, file)
  return reason


def share(
  jobs: Sequence[Job],
  workers: Sequence[jax.Device],
  do: Callable[[Job, jax.Device, threading.Event], Result],
) -> list[Result]:
  """Runs jobs on workers, which take them from one list, in order, until it is empty.

  Args:
    jobs: the jobs, in the order in which they are started.
    workers: the device of each worker.
    do: `(job, device, stop) -> result`, called in a worker's thread. It must check the event `stop`
      regularly and raise StoppedError once it is set: then the results are no longer wanted.

  Returns:
    The results, in the order of the jobs.
  """
  results: list = [None] * len(jobs)
  waiting, changed = iter(range(len(jobs))), threading.Condition()
  stop, errors, busy = threading.Event(), [], len(workers[: len(jobs)])

  def work(device):
    nonlocal busy
    try:
      while not stop.is_set():
        with changed:
          index = next(waiting, None)
        if index is None:
          break
        results[index] = do(jobs[index], device, stop)
    except StoppedError:
      pass
    except BaseException as error:
      errors.append(error)  # only the first is raised
      stop.set()
    finally:
      with changed:
        busy -= 1
        changed.notify_all()

  # Daemon threads, so that after a second signal the process does not wait for an epoch.
  for device in workers[: len(jobs)]:
    threading.Thread(target=work, args=(device,), daemon=True).start()
  try:
    with changed:
      while not changed.wait_for(lambda: busy == 0, _POLL_SECONDS):
        interrupts.check()
  except BaseException:
    stop.set()
    with changed:
      changed.wait_for(lambda: busy == 0, _GRACE_SECONDS)
    raise
  if errors:
    raise errors[0]
  return results
