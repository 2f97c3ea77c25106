"""Workers of this process: threads that take chunks off one list and never wait for each other."""

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax

from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, brief
from jaxdl.population.chunk_result import ChunkResult, read_chunk
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.progress import Progress
from jaxdl.population.trainer import StoppedError, Trainer
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")

# How often a chunk that fails is tried before the run goes on without it.
ATTEMPTS = 3
# How long workers may take for the epoch in hand once they are to stop. Schedulers give 30 seconds
# between their first signal and the end.
_GRACE_SECONDS = 10.0

Job = TypeVar("Job")
Result = TypeVar("Result")


class Outcome(NamedTuple):
  """What became of the chunks of a run."""

  results: dict[Chunk, ChunkResult]
  failures: Mapping[Chunk, str] = MappingProxyType({})  # in one line; tracebacks in the store
  num_workers: int = 0
  compile_seconds: float = 0.0
  split_chunks: Sequence[str] = ()  # that did not fit the device


# What trains the chunks of a population's groups, telling of its progress.
Execute = Callable[[Sequence[Group], Sequence[Chunk], Progress], Outcome]


def train_here(
  dataset: Dataset,
  workers: Sequence[jax.Device],
  store: Store | None,
  settings: Mapping[str, Any],
  groups: Sequence[Group],
  chunks: Sequence[Chunk],
  progress: Progress,
) -> Outcome:
  """Trains chunks on workers of this process.

  Args:
    dataset: what they train on.
    workers: the device of every worker.
    store: where checkpoints and results go. With one, a chunk that fails by itself is tried again,
      then left out; without, what it raises is raised.
    settings: others that `Trainer` takes.
    groups: of the population.
    chunks: in the order in which they are begun.
    progress: told about every epoch.

  Raises:
    InputError: something is wrong that no second attempt will mend.
  """
  trainer = Trainer(dataset, groups, workers, store=store, progress=progress, **settings)
  failures: dict[Chunk, str] = {}

  def train_chunk(chunk, device, stop):
    for attempt in range(1, ATTEMPTS + 1):
      try:
        return trainer.train(chunk, device, stop)
      except (InputError, StoppedError):
        raise
      except Exception as error:
        if store is None:
          raise
        failures[chunk] = note_failure(store, chunk, error, f"attempt {attempt} of {ATTEMPTS}")
    return None

  try:
    trained = share(chunks, workers, train_chunk)
  finally:
    trainer.close()
  results = {c: result for c, result in zip(chunks, trained, strict=True) if result is not None}
  failed = {chunk: failures[chunk] for chunk in chunks if chunk not in results}
  split = store.split_chunks() if store is not None else sorted(trainer.split_chunks)
  return Outcome(results, failed, len(workers), trainer.compile_seconds, split)


def read_committed(
  store: Store, groups: Sequence[Group], chunks: Sequence[Chunk], _: Progress
) -> Outcome:
  """Returns what is there already, training nothing."""
  found = {chunk: read_chunk(store, groups[chunk.group], chunk) for chunk in chunks}
  results = {chunk: result for chunk, result in found.items() if result is not None}
  return Outcome(results, split_chunks=store.split_chunks())


def note_failure(store: Store, chunk: Chunk, error: BaseException, attempt: str) -> str:
  """Keeps the traceback of a chunk that failed, warns, and returns what happened in one line."""
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
  """Has workers take jobs off one list, in order, until it is empty.

  Args:
    jobs: what there is to do.
    workers: the device of each worker.
    do: `(job, device, stop) -> result`; it looks often whether `stop` is set, and then raises
      StoppedError: there is nothing left to work for.

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
      errors.append(error)  # the first is what the user has to know
      stop.set()
    finally:
      with changed:
        busy -= 1
        changed.notify_all()

  # Daemons, so that a second signal does not wait for an epoch.
  for device in workers[: len(jobs)]:
    threading.Thread(target=work, args=(device,), daemon=True).start()
  try:
    with changed:
      changed.wait_for(lambda: busy == 0)
  except BaseException:  # a signal: it is the main thread that gets it
    stop.set()
    with changed:
      changed.wait_for(lambda: busy == 0, _GRACE_SECONDS)
    raise
  if errors:
    raise errors[0]
  return results
