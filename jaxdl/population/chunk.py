"""The training of one chunk, from its first epoch or its last checkpoint to its results."""

import collections
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import train
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.optim import metrics
from jaxdl.population import plan, tuning
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import Observer, Programs, TestResult, compile_group
from jaxdl.population.progress import Progress
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")

# A checkpoint takes about 30 ms of a core, so every five seconds is less than a hundredth.
_SECONDS_BETWEEN_CHECKPOINTS = 5.0


class StoppedError(Exception):
  """Another worker failed, or the user wants to stop."""


class ChunkResult(NamedTuple):
  """What the training of one chunk gives, on the host."""

  status: np.ndarray  # [S, A] int, as in jaxdl.train
  num_epochs: np.ndarray  # [S, A] int
  best_epoch: np.ndarray  # [S, A] int
  curves: train.EpochMetrics  # [S, A, E]
  test_loss: np.ndarray  # [S, A]
  confusion: np.ndarray  # [S, A, C, C] int, at the arm's threshold
  confusion_at_half: np.ndarray  # [S, A, C, C] int, at threshold 0.5
  sum_probabilities: np.ndarray  # [A, N, C], over the seeds that did not diverge
  observations: dict[str, np.ndarray]  # [S, A, E + 1, ...]
  logits: np.ndarray | None  # [S, A, N, C]
  train_seconds: np.ndarray  # [S, A]

  def to_arrays(self) -> dict[str, np.ndarray]:
    """Returns it as arrays by name, for a file."""
    nested = {"curves": self.curves._asdict(), "observations": self.observations}
    flat = {k: v for k, v in self._asdict().items() if k not in nested and v is not None}
    return flat | {f"{k}/{name}": v for k, of in nested.items() for name, v in of.items()}

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ChunkResult":
    """Returns what `to_arrays` was called on.

    Raises:
      ValueError: some of it is missing, or there is more.
    """
    parts: dict[str, Any] = collections.defaultdict(dict)
    for name, array in arrays.items():
      outer, _, inner = name.partition("/")
      if inner:
        parts[outer][inner] = array
      else:
        parts[outer] = array
    try:
      curves = train.EpochMetrics(**parts.pop("curves"))
      optional = {
        "observations": parts.pop("observations", {}),
        "logits": parts.pop("logits", None),
      }
      return cls(curves=curves, **optional, **parts)
    except (KeyError, TypeError) as error:
      raise ValueError(f"these are not the results of a chunk: {error}") from error


def join(results: Sequence[ChunkResult], axis: int) -> ChunkResult:
  """Returns the results of several chunks as those of one, along the seeds (0) or the arms (1)."""

  def along(*leaves):
    return np.concatenate(leaves, axis)

  joined = jax.tree.map(along, *(r._replace(sum_probabilities=None) for r in results))
  sums = [result.sum_probabilities for result in results]  # [A, N, C]
  return joined._replace(sum_probabilities=sum(sums) if axis == 0 else np.concatenate(sums))


def read_chunk(store: Store, group: Group, chunk: Chunk) -> ChunkResult | None:
  """Returns the results of a chunk that are stored; None where there are none that are sound."""
  arrays = store.read_chunk(chunk.name)
  if arrays is None:
    return None
  try:
    result = ChunkResult.from_arrays(arrays)
    if result.status.shape != (group.num_real(chunk), chunk.num_arms):
      raise ValueError("it has other members")
  except ValueError as error:
    _LOGGER.warning("chunk %s is trained again: %s", chunk.name, error)
    store.delete_chunk(chunk.name)
    return None
  return result


def progress_of(group: Group, result: ChunkResult) -> tuple[int, int, int]:
  """Returns what `Progress.resume` wants to know of a chunk that is trained."""
  most = group.recipe.num_epochs
  return int(result.num_epochs.sum()), int((most - result.num_epochs).sum()), result.status.size


class Trainer:
  """Trains chunks of one population, on any worker of this process."""

  def __init__(
    self,
    dataset: Dataset,
    groups: Sequence[Group],
    workers: Sequence[jax.Device],
    *,
    observe: Observer | None = None,
    keep_logits: bool = False,
    store: Store | None = None,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
  ):
    """Puts the data on the devices and begins to compile, in the background.

    Args:
      dataset: what to train, validate and test on.
      groups: of `jaxdl.population.plan.plan_groups`.
      workers: the device of every worker.
      observe: as `jaxdl.population.train_population` takes it, like those that follow.
      keep_logits: keep every member's logits of the test set.
      store: where checkpoints and results go, and are looked for first; None: nowhere.
      checkpoint_every: epochs from one checkpoint of a chunk to the next; None: as often as costs
        little.
      progress: told about every epoch.
    """
    self._dataset, self._groups, self._observe = dataset, groups, observe
    self._keep_logits, self._store, self._every = keep_logits, store, checkpoint_every
    self._progress = progress or Progress()
    self._split: set[str] = set()
    self._order = {chunk: place for place, chunk in enumerate(plan.all_chunks(groups), 1)}
    self._splits = {device: train.put_splits(dataset, device) for device in set(workers)}
    # In order, one at a time on each device: the first is needed first.
    self._compiler = concurrent.futures.ThreadPoolExecutor(max_workers=len(self._splits))
    self._compiled = {
      (group.index, device): self._compiler.submit(self._compile, group, device)
      for group in groups
      for device in self._splits
    }

  def close(self):
    """Stops compiling what is not needed any more."""
    self._compiler.shutdown(wait=False, cancel_futures=True)

  @property
  def compile_seconds(self) -> float:
    """Of all programs as planned; the compiler must have been waited for."""
    done = [f for f in self._compiled.values() if f.done() and not f.cancelled()]
    return sum(future.result()[1] for future in done if future.exception() is None)

  @property
  def split_chunks(self) -> set[str]:
    """The chunks that did not fit the device in one piece."""
    return self._split

  def train(self, chunk: Chunk, device: jax.Device, stop: threading.Event) -> ChunkResult:
    """Returns the results of a chunk: those that are stored, else of the rest of its training.

    Args:
      chunk: which.
      device: where.
      stop: once it is set, the chunk saves where it is after the epoch in hand.

    Raises:
      StoppedError: it was set.
      InputError: a single member does not fit the device; the store cannot be written.
    """
    stored = None
    if self._store is not None:
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
        f"one member of {', '.join(self._groups[chunk.group].plan.arms)} does not fit the memory "
        f"of {device}; set a smaller slice_size or batch_size"
      ) from error
    _LOGGER.warning("chunk %s does not fit the memory of %s: halved", chunk.name, device)
    self._split.add(chunk.name)
    if self._store is not None:
      self._store.split(chunk.name)

  def _compile(self, group, device, num_seeds=None, num_arms=None) -> tuple[Programs, float]:
    start = time.perf_counter()
    splits = self._splits[device]
    programs = compile_group(group, splits, device, self._observe, num_seeds, num_arms)
    return programs, time.perf_counter() - start

  def _train_whole(self, chunk: Chunk, device: jax.Device, stop: threading.Event) -> ChunkResult:
    """Trains a chunk until its last member stops, then tests it."""
    group = self._groups[chunk.group]

    def compiled_for(num_seeds):
      planned = group.plan.chunk_size, group.plan.chunk_arms
      if (num_seeds, chunk.num_arms) == planned:
        return self._compiled[group.index, device].result()
      return self._compile(group, device, num_seeds, chunk.num_arms)

    run = _Run(group, chunk, self._splits[device], device, compiled_for)
    self._resume(run)
    saved = time.monotonic()
    while run.running.any():
      counts = run.train_epoch()
      self._progress.update(self._label(chunk), f"{run.epoch}/{group.recipe.num_epochs}", *counts)
      if not run.running.any():
        break
      run.compact()
      if self._store is not None and (stop.is_set() or self._is_due(run.epoch, saved)):
        self._store.save_checkpoint(chunk.name, run.epoch, run.snapshot())
        saved = time.monotonic()
      if stop.is_set():
        raise StoppedError
    return run.results(self._dataset, self._keep_logits)

  def _label(self, chunk: Chunk) -> str:
    place = self._order.get(chunk)
    return chunk.name if place is None else f"{place}/{len(self._order)}"

  def _is_due(self, epoch: int, saved: float) -> bool:
    if self._every is not None:
      return epoch % self._every == 0
    return time.monotonic() - saved >= _SECONDS_BETWEEN_CHECKPOINTS

  def _resume(self, run: "_Run"):
    """Brings a chunk to where its newest checkpoint that is sound has it, if there is one."""
    name = run.chunk.name
    while self._store is not None:
      found = self._store.read_checkpoint(name)
      if found is None:
        break
      try:
        run.restore(found[1])
      except (KeyError, ValueError) as error:
        self._store.reject_checkpoint(name, found[0], str(error))
        continue
      self._progress.resume(*run.progress())
      return
    run.begin()


def is_out_of_memory(error: Exception) -> bool:
  """Whether an error says that a device has not enough memory for a program."""
  if isinstance(error, MemoryError):
    return True
  return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class _Run:
  """A chunk between two epochs.

  Once some of its seeds have stopped, it may train on with those that have not (`places`), while
  `everyone` holds the state of all.
  """

  def __init__(self, group: Group, chunk: Chunk, splits, device, compiled_for: Callable):
    self.group, self.chunk = group, chunk
    self._splits, self._device, self._compiled_for = splits, device, compiled_for
    self._all_programs, _ = compiled_for(chunk.num_seeds)
    self._all_keys, self._hyper = jax.device_put(group.arguments(chunk), device)
    self._num_real = group.num_real(chunk)
    self._seconds = 0.0

  def begin(self):
    """Draws the members' initial weights."""
    start = time.perf_counter()
    self._programs, self._keys = self._all_programs, self._all_keys
    self._places, self._everyone = np.arange(self.chunk.num_seeds), None
    self._state = self._programs.create(self._keys, self._hyper)
    self.epoch, self._rows = 0, []
    self.running = np.ones((self._num_real, self.chunk.num_arms), bool)  # [S, A]
    self._observed = [self._observe()]
    self._seconds += time.perf_counter() - start

  def train_epoch(self) -> tuple[int, int, int]:
    """Trains one epoch; returns what `Progress.update` wants to know."""
    start = time.perf_counter()
    index = jax.device_put(np.int32(self.epoch), self._device)
    train_set, validation, _ = self._splits
    self._state, row = self._programs.train_epoch(
      self._state, self._keys, self._hyper, train_set, validation, index
    )
    self.epoch += 1
    self._rows.append(self._spread(jax.device_get(row)))
    self._observed.append(self._observe())
    before = int(self.running.sum())
    still = np.zeros((self.chunk.num_seeds, self.chunk.num_arms), bool)
    still[self._places] = np.asarray(self._state.status) == train.RUNNING
    self.running = still[: self._num_real]
    stopped = before - int(self.running.sum())
    self._seconds += time.perf_counter() - start
    return before, stopped * self._epochs_left, stopped

  @property
  def _epochs_left(self) -> int:
    return self.group.recipe.num_epochs - self.epoch

  def progress(self) -> tuple[int, int, int]:
    """Returns member-epochs that were trained and that will not be, and members that stopped."""
    epochs = jax.device_get(self._whole().num_epochs)[: self._num_real]
    skipped = int(((self.group.recipe.num_epochs - epochs) * ~self.running).sum())
    return int(epochs.sum()), skipped, int((~self.running).sum())

  def compact(self):
    """Leaves seeds that have stopped out of the rest, where that saves more than it costs."""
    kept = np.flatnonzero(self.running.any(axis=1))
    num_examples = len(self._splits[0].labels)
    seed_work = 6 * self.group.num_params * num_examples * self._epochs_left * self.chunk.num_arms
    size = len(self._places)
    smaller = tuning.compacted_size(len(kept), size, seed_work, self._device.platform)
    if smaller < size:
      self._everyone = self._whole()
      self._narrow(np.resize(kept, smaller))  # filled up with copies
      self._state = _take_seeds(self._everyone, self._places)

  def _narrow(self, places: np.ndarray):
    self._places, self._keys = places, self._all_keys[places]
    self._programs, _ = self._compiled_for(len(places))

  def _whole(self) -> train.MemberState:
    """Returns the state of all seeds."""
    if self._everyone is None:
      return self._state
    return jax.tree.map(
      lambda whole, part: whole.at[self._places].set(part), self._everyone, self._state
    )

  def _observe(self) -> dict[str, np.ndarray]:
    return self._spread(
      jax.device_get(self._programs.observe(self._state.params, self._hyper, *self._splits))
    )

  def _spread(self, tree: Any) -> Any:
    return _spread_seeds(tree, self._places, self.chunk.num_seeds)

  def snapshot(self) -> dict[str, np.ndarray]:
    """Returns all that changes, copied to the host: the next epoch overwrites it on the device."""
    arrays = {
      "epoch": np.int64(self.epoch),
      "seconds": np.float64(self._seconds),
      "places": self._places,
      "running": self.running,
    }
    for name, state in (("state", self._state), ("everyone", self._everyone)):
      leaves = enumerate(jax.tree.leaves(state))
      arrays |= {f"{name}/{place}": np.array(leaf) for place, leaf in leaves}
    for name, rows in (("rows", [row._asdict() for row in self._rows]), ("seen", self._observed)):
      arrays |= {f"{name}/{key}": np.stack([row[key] for row in rows]) for key in rows[0]}
    return arrays

  def restore(self, arrays: Mapping[str, np.ndarray]):
    """Takes up what `snapshot` returned.

    Raises:
      KeyError: something is missing.
      ValueError: something is not of this chunk.
    """
    places, running = arrays["places"], arrays["running"]
    if running.shape != (self._num_real, self.chunk.num_arms) or not running.any():
      raise ValueError("it has other members")
    self._narrow(places)
    state = _put_leaves(arrays, "state", self._programs.state, self._device)
    everyone = None
    if "everyone/0" in arrays:
      everyone = _put_leaves(arrays, "everyone", self._all_programs.state, self._device)
    self.epoch, self._seconds = int(arrays["epoch"]), float(arrays["seconds"])
    self._state, self._everyone, self.running = state, everyone, running
    fields = train.EpochMetrics._fields
    self._rows = [
      train.EpochMetrics(*(arrays[f"rows/{name}"][row] for name in fields))
      for row in range(self.epoch)
    ]
    seen = {name.partition("/")[2]: of for name, of in arrays.items() if name.startswith("seen/")}
    self._observed = [{k: of[row] for k, of in seen.items()} for row in range(self.epoch + 1)]

  def results(self, dataset: Dataset, keep_logits: bool) -> ChunkResult:
    """Tests the members, and returns the results of all but those that fill up the chunk."""
    start = time.perf_counter()
    state = self._whole()
    tested = jax.device_get(self._all_programs.test(state, self._hyper, self._splits[2]))
    state = jax.device_get(state._replace(params={}, opt_state=(), best_params={}))
    seconds = self._seconds + time.perf_counter() - start
    result = sum_up(
      dataset, self.group, self.chunk, state, self._rows, self._observed, tested, seconds
    )
    return result if keep_logits else result._replace(logits=None)


def sum_up(
  dataset: Dataset,
  group: Group,
  chunk: Chunk,
  state: train.MemberState,
  rows: Sequence[train.EpochMetrics],
  observed: Sequence[dict[str, np.ndarray]],
  tested: TestResult,
  seconds: float,
) -> ChunkResult:
  """Returns the results of a chunk's members, but for those that fill it up.

  Args:
    dataset: what they trained on.
    group: of the chunk.
    chunk: which.
    state: `[s, a]` after the last epoch, on the host like all that follows; no parameters needed.
    rows: metrics `[s, a]` of each epoch.
    observed: at initialisation and after each epoch, `[s, a, ...]`.
    tested: `[s, a, ...]`. Members that diverged at the very end are marked so.
    seconds: that all of it took.
  """
  num_epochs, num_real = group.recipe.num_epochs, group.num_real(chunk)
  state, tested = jax.tree.map(lambda x: x[:num_real], (state, tested))
  # The last update may have been the one too many, and with it nothing but the test shows that.
  finite = np.isfinite(tested.loss) & np.isfinite(tested.logits).all(axis=(-2, -1))  # [S, A]
  status = np.where(finite, state.status, train.DIVERGED)
  valid = (status != train.DIVERGED)[..., None, None]
  probabilities = metrics.probabilities(np.where(valid, tested.logits, 0)) * valid  # [S, A, N, C]

  def count(predicted):  # [S, A, N] -> [S, A, C, C]
    counts = metrics.confusion_matrix(dataset.test.labels, predicted, dataset.num_classes)
    return np.where(valid, counts, 0)

  return ChunkResult(
    status=status,
    num_epochs=state.num_epochs,
    best_epoch=state.best_epoch,
    curves=_along_epochs(rows, num_real, num_epochs),
    test_loss=tested.loss,
    confusion=count(tested.predicted),
    confusion_at_half=count(tested.predicted_at_half),
    sum_probabilities=probabilities.sum(axis=0),
    observations=_along_epochs(observed, num_real, num_epochs + 1),
    logits=tested.logits,
    train_seconds=np.full(finite.shape, seconds / finite.size),
  )


def _put_leaves(arrays, name: str, shapes: Any, device: jax.Device) -> Any:
  """Returns the arrays `name/0`, `name/1`, ... as a tree of these shapes, on a device."""
  leaves, structure = jax.tree.flatten(shapes)
  found = [arrays[f"{name}/{place}"] for place in range(len(leaves))]
  for leaf, array in zip(leaves, found, strict=True):
    if leaf.shape != array.shape or leaf.dtype != array.dtype:
      raise ValueError(f"{array.dtype}{array.shape} is not {leaf.dtype}{leaf.shape}")
  return jax.device_put(jax.tree.unflatten(structure, found), device)


def _take_seeds(tree: Any, places: np.ndarray) -> Any:
  return jax.tree.map(lambda leaf: leaf[places], tree)


def _spread_seeds(tree: Any, places: np.ndarray, size: int) -> Any:
  """Returns arrays `[s, ...]` of some seeds as those of all, `[size, ...]`, NaN elsewhere."""
  if len(places) == size:
    return tree

  def spread(leaf):
    leaf = _as_float(leaf)
    whole = np.full((size, *leaf.shape[1:]), np.nan, leaf.dtype)
    whole[places] = leaf
    return whole

  return jax.tree.map(spread, tree)


def _along_epochs(epochs: Sequence, num_real: int, length: int) -> Any:
  """Stacks trees of `[s, a, ...]` along epochs, `[S, A, length, ...]`, without what pads them."""
  return jax.tree.map(
    lambda *leaves: pad_epochs(np.stack(leaves, axis=2)[:num_real], length), *epochs
  )


def _as_float(values: np.ndarray) -> np.ndarray:
  """Returns floats as they are and other numbers as floats: an integer cannot be missing."""
  return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def pad_epochs(curve: np.ndarray, num_epochs: int) -> np.ndarray:
  """Cuts or pads curves `[S, A, e, ...]` to `[S, A, E, ...]`, with NaN after their end."""
  curve = _as_float(curve[:, :, :num_epochs])
  padding = [(0, 0)] * curve.ndim
  padding[2] = (0, num_epochs - curve.shape[2])
  return np.pad(curve, padding, constant_values=np.nan)
