"""Trains chunks in this process: from a checkpoint if there is one, with results into a store."""

import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.member import without_weights
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import plan, programs, tuning
from jaxdl.population.chunk import BoundPrograms, ChunkState
from jaxdl.population.chunk_result import ChunkResult, join, progress_of, read_chunk, sum_up
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import Observer, Programs
from jaxdl.population.progress import Progress
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")

# A checkpoint takes about 30 ms of one core, which is below 1% every five seconds.
_SECONDS_BETWEEN_CHECKPOINTS = 5.0


class StoppedError(Exception):
  """Training was stopped: another worker failed, or the user interrupted the run."""


class Trainer:
  """Trains chunks of one population on the workers of this process."""

  def __init__(
    self,
    dataset: Dataset,
    groups: Sequence[Group],
    workers: Sequence[jax.Device],
    *,
    observe: Observer | None = None,
    keep_logits: bool = False,
    keep_params: bool = False,
    store: Store | None = None,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
  ):
    """Puts the data on the devices and starts compiling in the background.

    Args:
      dataset: the dataset to train, validate and test on.
      groups: the result of `jaxdl.population.plan.plan_groups`.
      workers: the device of each worker.
      observe: the observer; see `jaxdl.population.programs.Observer`.
      keep_logits: keep every member's logits on the test set.
      keep_params: keep every member's variables.
      store: where checkpoints and results go, and where earlier ones are looked up; None keeps
        nothing.
      checkpoint_every: epochs between checkpoints of a chunk; None saves every few seconds.
      progress: told about every epoch; None: nothing is.
    """
    self._dataset, self._groups, self._observe = dataset, groups, observe
    self._keep_logits, self._keep_params = keep_logits, keep_params
    self._store, self._every = store, checkpoint_every
    self._progress = progress or Progress(quiet=True)
    self._split: set[str] = set()
    # JAX keeps it by thread, and other threads compile.
    self._precision = jax.config.jax_default_matmul_precision
    self._order = {chunk: place for place, chunk in enumerate(plan.all_chunks(groups), 1)}
    self._splits = {device: programs.put_splits(dataset, device) for device in set(workers)}
    # One program at a time per device, in the order in which they are needed.
    self._compiler = concurrent.futures.ThreadPoolExecutor(max_workers=len(self._splits))
    self._compiled = {
      (group.number, device): self._compiler.submit(self._compile, group, device)
      for group in groups
      for device in self._splits
    }

  def close(self):
    """Cancels compilations that have not started."""
    self._compiler.shutdown(wait=False, cancel_futures=True)

  @property
  def compile_seconds(self) -> float:
    """Total time of the planned compilations that are done."""
    done = [f for f in self._compiled.values() if f.done() and not f.cancelled()]
    return sum(future.result()[1] for future in done if future.exception() is None)

  @property
  def split_chunks(self) -> set[str]:
    """Names of the chunks that did not fit the device and were halved."""
    return self._split

  def train(self, chunk: Chunk, device: jax.Device, stop: threading.Event) -> ChunkResult:
    """Returns the stored results of a chunk, or trains it from its last checkpoint and stores them.

    Args:
      chunk: the chunk to train.
      device: the device to train on.
      stop: once this is set, the chunk is saved after the current epoch and training ends.

    Raises:
      StoppedError: `stop` was set.
      InputError: a single member does not fit the device; the store cannot be written, or belongs
        to another run.
    """
    stored = None
    if self._store is not None:
      self._store.check_run()
      stored = read_chunk(self._store, self._groups[chunk.group], chunk)
    if stored is not None:
      self._progress.resume(*progress_of(self._groups[chunk.group], stored))
      return stored
    result = None
    if not self._is_split(chunk):
      try:
        result = self._train_whole(chunk, device, stop)
      except Exception as error:
        if not is_out_of_memory(error):
          raise
        self._split_up(chunk, device, error)
    if result is None:
      halves = [half for half in chunk.halves() if self._groups[chunk.group].num_real(half)]
      axis = 0 if chunk.num_seeds > 1 else 1
      result = join([self.train(half, device, stop) for half in halves], axis)
    if self._store is not None:
      self._store.commit_chunk(chunk.name, result.to_arrays())
      for half in chunk.halves():
        self._store.delete_chunk(half.name)
    return result

  def _is_split(self, chunk: Chunk) -> bool:
    return self._store is not None and self._store.is_split(chunk.name)

  def _split_up(self, chunk: Chunk, device: jax.Device, error: Exception):
    if not chunk.halves():
      raise InputError(
        f"one member of {', '.join(self._groups[chunk.group].layout.arms)} does not fit the memory "
        f"of {device}; set a smaller slice_size or batch_size"
      ) from error
    _LOGGER.warning("chunk %s does not fit the memory of %s: halved", chunk.name, device)
    self._split.add(chunk.name)
    if self._store is not None:
      self._store.split(chunk.name)

  def _compile(self, group, device, num_seeds=None, num_arms=None) -> tuple[Programs, float]:
    start = time.perf_counter()
    splits = self._splits[device]
    with jax.default_matmul_precision(self._precision):
      compiled = chunk_lib.compile_chunk(group, splits, device, self._observe, num_seeds, num_arms)
    return compiled, time.perf_counter() - start

  def _train_whole(self, chunk: Chunk, device: jax.Device, stop: threading.Event) -> ChunkResult:
    """Trains a chunk until all of its members have stopped, then tests it."""
    group = self._groups[chunk.group]
    most, seeds = group.recipe.arm.num_epochs, np.arange(chunk.num_seeds)
    bound_for = self._bound_for(chunk, device)
    saved = time.monotonic()

    def report(epoch, running, stopped):
      counts = running, stopped * (most - epoch), stopped
      self._progress.update(self._label(chunk), f"{epoch}/{most}", *counts)

    def between(state):
      nonlocal saved
      state = self._compact(group, chunk, state, device)
      if self._store is not None and (stop.is_set() or self._is_due(state.epoch, saved)):
        self._store.save_checkpoint(chunk.name, state.epoch, state.to_arrays())
        saved = time.monotonic()
      if stop.is_set():
        raise StoppedError
      return state

    state = self._resume(chunk, bound_for, device)
    if state is None:
      size = group.num_real(chunk), chunk.num_arms
      state = chunk_lib.begin(bound_for(seeds), chunk.num_seeds, [size], _fetch)
    state = chunk_lib.train_epochs(
      state,
      bound_for,
      _fetch,
      count=lambda state: state.num_running,
      report=report,
      between=between,
    )
    return self._test(group, chunk, state, bound_for(seeds))

  def _bound_for(self, chunk: Chunk, device: jax.Device) -> Callable[[np.ndarray], BoundPrograms]:
    """Returns `indices of seeds -> programs that train them`; compiles programs on demand."""
    group = self._groups[chunk.group]

    def compiled_for(num_seeds):
      if (num_seeds, chunk.num_arms) == (group.layout.chunk_size, group.layout.chunk_arms):
        return self._compiled[group.number, device].result()[0]
      return self._compile(group, device, num_seeds, chunk.num_arms)[0]

    whole = chunk_lib.bind(
      compiled_for(chunk.num_seeds), group, chunk, self._splits[device], device
    )

    @functools.lru_cache(maxsize=2)
    def bound(places):
      if len(places) == chunk.num_seeds:
        return whole
      return whole.of_seeds(np.array(places), compiled_for(len(places)))

    return lambda places: bound(tuple(places.tolist()))

  def _compact(
    self, group: Group, chunk: Chunk, state: ChunkState, device: jax.Device
  ) -> ChunkState:
    """Drops seeds that have stopped from training, if that saves more than it costs."""
    kept = np.flatnonzero(state.records[0].running.any(axis=1))
    member_epochs = (group.recipe.arm.num_epochs - state.epoch) * chunk.num_arms
    seed_work = 6 * group.num_params * self._dataset.num_train * member_epochs
    size = len(state.places)
    smaller = tuning.compacted_size(len(kept), size, seed_work, device.platform)
    # Padded with copies of running seeds.
    return state.narrow(np.resize(kept, smaller)) if smaller < size else state

  def _test(
    self, group: Group, chunk: Chunk, state: ChunkState, bound: BoundPrograms
  ) -> ChunkResult:
    """Tests the members and returns the chunk's results."""
    start = time.perf_counter()
    members = state.whole()
    tested = jax.device_get(bound.test(members))
    variables = None
    if self._keep_params:
      variables = jax.device_get(programs.reported_variables(group.recipe, members))
    members = jax.device_get(without_weights(members))
    seconds = state.seconds + time.perf_counter() - start
    (record,) = state.records
    result = sum_up(
      self._dataset,
      group,
      chunk,
      members,
      record.rows,
      record.observed,
      tested,
      seconds,
      variables,
    )
    return result if self._keep_logits else result._replace(logits=None)

  def _label(self, chunk: Chunk) -> str:
    place = self._order.get(chunk)
    return chunk.name if place is None else f"{place}/{len(self._order)}"

  def _is_due(self, epoch: int, saved: float) -> bool:
    if self._every is not None:
      return epoch % self._every == 0
    return time.monotonic() - saved >= _SECONDS_BETWEEN_CHECKPOINTS

  def _resume(
    self, chunk: Chunk, bound_for: Callable[[np.ndarray], BoundPrograms], device: jax.Device
  ) -> ChunkState | None:
    """Returns the state in the newest intact checkpoint of a chunk, or None if there is none."""
    group = self._groups[chunk.group]
    while self._store is not None and (found := self._store.read_checkpoint(chunk.name)):
      epoch, arrays = found
      try:
        num_real = group.num_real(chunk)
        state = chunk_lib.from_arrays(arrays, chunk, num_real, bound_for, device)
      except (KeyError, ValueError) as error:
        self._store.reject_checkpoint(chunk.name, epoch, str(error))
        continue
      self._progress.resume(*_progress_so_far(group, state))
      return state
    return None


def _fetch(tree: Any) -> list[Any]:
  return [jax.device_get(tree)]


def _progress_so_far(group: Group, state: ChunkState) -> tuple[int, int, int]:
  """Returns the arguments of `Progress.resume` for a chunk in training."""
  running = state.records[0].running
  epochs = jax.device_get(state.whole().num_epochs)[: len(running)]
  skipped = int(((group.recipe.arm.num_epochs - epochs) * ~running).sum())
  return int(epochs.sum()), skipped, int((~running).sum())


def is_out_of_memory(error: Exception) -> bool:
  """Whether an error says that a program needs more memory than the device has."""
  if isinstance(error, MemoryError):
    return True
  return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
