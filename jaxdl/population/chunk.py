"""The epoch loop, and the state of a chunk between epochs. Read `jaxdl/train.py` first.

`train_epochs` is the project's only loop over epochs of populations: workers of this process, Dask
workers and the devices of several hosts all run it. They differ in the arguments: the compiled
programs, how results reach the host, who counts the members that are still training, and what
happens between two epochs.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.member import RUNNING, EpochMetrics, MemberState
from jaxdl.population import programs
from jaxdl.population.chunk_result import as_float
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import Observer, Programs, Splits, TestResult
from jaxdl.recipe import Hyperparams, Recipe

# Copies a tree of arrays to the host; returns one tree per chunk that trains in this process.
Fetch = Callable[[Any], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class BoundPrograms:
  """Compiled programs together with all their arguments except the state of the members."""

  recipe: Recipe
  programs: Programs
  keys: jax.Array  # [s]
  hyper: Hyperparams  # [a, ...]
  splits: Splits
  put: Callable[[np.ndarray], jax.Array]  # puts a number where the members are

  def of_seeds(self, places: np.ndarray, programs: Programs) -> "BoundPrograms":
    """Returns the programs for some of the seeds, given those that are compiled for so many."""
    train, validation, test = self.splits
    if train.chosen is not None and test.chosen is not None:
      train = train._replace(chosen=train.chosen[places])
      test = test._replace(chosen=test.chosen[places])
    splits = train, validation, test
    return dataclasses.replace(self, programs=programs, keys=self.keys[places], splits=splits)

  def create(self) -> MemberState:
    """Returns the state of the members before their first epoch, `[s, a, ...]`."""
    return self.programs.create(self.keys, self.hyper)

  def train_epoch(self, members: MemberState, epoch: int) -> tuple[MemberState, EpochMetrics]:
    """Trains one epoch; returns the new state, which reuses the old one's memory, and metrics."""
    train, validation, _ = self.splits
    index = self.put(np.int32(epoch))
    return self.programs.train_epoch(members, self.keys, self.hyper, train, validation, index)

  def observe(self, members: MemberState) -> dict[str, jax.Array]:
    """Returns the observer's arrays, each `[s, a, ...]`; empty without an observer."""
    return self.programs.observe(members.variables, self.hyper, *self.splits)

  def test(self, members: MemberState) -> TestResult:
    """Returns the results of all members on the test set."""
    return self.programs.test(members, self.hyper, self.splits[2])


class Record(NamedTuple):
  """The host's record of a chunk in training; S and A count the chunk's members without padding."""

  running: np.ndarray  # [S, A] bool
  rows: tuple[EpochMetrics, ...]  # one per epoch, [s, a]
  observed: tuple[dict[str, np.ndarray], ...]  # at initialisation and after each epoch


class ChunkState(NamedTuple):
  """Everything that training changes in a chunk, between two epochs. A checkpoint holds its arrays.

  Chunks that train in lockstep on several devices share one state, with one record per chunk.
  Once some seeds of a chunk have stopped, training may continue with the others alone (`places`);
  `everyone` then holds all seeds as they were when the chunk was narrowed.
  """

  epoch: int  # epochs trained
  seconds: float  # spent on training, without testing
  members: MemberState  # [w, a, ...], on the device; the next epoch reuses its memory
  records: tuple[Record, ...]
  num_seeds: int  # s
  places: np.ndarray  # [w] int, indices of the seeds that still train
  everyone: MemberState | None = None  # [s, a, ...]; None: `members` has all seeds

  @property
  def num_running(self) -> int:
    """The number of members that are still training in this process."""
    return sum(int(record.running.sum()) for record in self.records)

  def whole(self) -> MemberState:
    """Returns the state of all seeds, `[s, a, ...]`."""
    if self.everyone is None:
      return self.members
    return jax.tree.map(
      lambda whole, part: whole.at[self.places].set(part), self.everyone, self.members
    )

  def narrow(self, places: np.ndarray) -> "ChunkState":
    """Returns the state in which only the seeds at `places` keep training."""
    everyone = self.whole()
    members = jax.tree.map(lambda leaf: leaf[places], everyone)
    return self._replace(members=members, places=places, everyone=everyone)

  def to_arrays(self) -> dict[str, np.ndarray]:
    """Returns the state of a single chunk as name -> array, copied to the host."""
    (record,) = self.records
    arrays = {
      "epoch": np.int64(self.epoch),
      "seconds": np.float64(self.seconds),
      "places": self.places,
      "running": record.running,
    }
    for name, members in (("state", self.members), ("everyone", self.everyone)):
      leaves = enumerate(jax.tree.leaves(members))
      arrays |= {f"{name}/{place}": np.array(leaf) for place, leaf in leaves}
    rows = [row._asdict() for row in record.rows]
    own = [row.pop("val_metrics") for row in rows]
    for name, of in (("rows", rows), ("own", own), ("seen", record.observed)):
      arrays |= {f"{name}/{key}": np.stack([row[key] for row in of]) for key in of[0]}
    return arrays


def from_arrays(
  arrays: Mapping[str, np.ndarray],
  chunk: Chunk,
  num_real: int,
  bound_for: Callable[[np.ndarray], BoundPrograms],
  device: jax.Device,
) -> ChunkState:
  """Rebuilds the state that `ChunkState.to_arrays` was called on, on a device.

  Args:
    arrays: the result of `ChunkState.to_arrays`.
    chunk: the chunk that the state should belong to.
    num_real: number of the chunk's seeds that are not padding.
    bound_for: indices of seeds -> programs that train them.
    device: where the chunk trains.

  Raises:
    KeyError: an array is missing.
    ValueError: an array does not fit the chunk.
  """
  places, running, epoch = arrays["places"], arrays["running"], int(arrays["epoch"])
  if running.shape != (num_real, chunk.num_arms) or not running.any():
    raise ValueError("it has other members")
  everyone = None
  if "everyone/0" in arrays:
    shapes = bound_for(np.arange(chunk.num_seeds)).programs.state
    everyone = _put_leaves(arrays, "everyone", shapes, device)
  row, own, seen = (
    {name.partition("/")[2]: of for name, of in arrays.items() if name.startswith(prefix)}
    for prefix in ("rows/", "own/", "seen/")
  )

  def at(place, of):
    return {name: array[place] for name, array in of.items()}

  record = Record(
    running=running,
    rows=tuple(EpochMetrics(**at(e, row), val_metrics=at(e, own)) for e in range(epoch)),
    observed=tuple(at(e, seen) for e in range(epoch + 1)),
  )
  return ChunkState(
    epoch=epoch,
    seconds=float(arrays["seconds"]),
    members=_put_leaves(arrays, "state", bound_for(places).programs.state, device),
    records=(record,),
    num_seeds=chunk.num_seeds,
    places=places,
    everyone=everyone,
  )


def begin(
  bound: BoundPrograms, num_seeds: int, sizes: Sequence[tuple[int, int]], fetch: Fetch
) -> ChunkState:
  """Draws the initial weights of a chunk, or of several chunks that train in lockstep.

  Args:
    bound: the programs, for all seeds.
    num_seeds: s, the seeds of each chunk, padding included.
    sizes: `(S, A)` without padding, for each chunk that `fetch` returns.
    fetch: copies arrays to the host.
  """
  start = time.perf_counter()
  members = bound.create()
  seen = fetch(bound.observe(members))
  records = tuple(
    Record(np.ones(size, bool), (), (observed,)) for size, observed in zip(sizes, seen, strict=True)
  )
  return ChunkState(
    epoch=0,
    seconds=time.perf_counter() - start,
    members=members,
    records=records,
    num_seeds=num_seeds,
    places=np.arange(num_seeds),
  )


def next_epoch(bound: BoundPrograms, state: ChunkState, fetch: Fetch) -> ChunkState:
  """Trains one epoch; it reuses the memory of `state.members`, which are invalid afterwards."""
  start = time.perf_counter()
  members, row = bound.train_epoch(state.members, state.epoch)
  seen = fetch((row, bound.observe(members), members.status))
  return state._replace(
    epoch=state.epoch + 1,
    members=members,
    records=tuple(
      _extend(state, record, *of) for record, of in zip(state.records, seen, strict=True)
    ),
    seconds=state.seconds + time.perf_counter() - start,
  )


def _extend(state: ChunkState, record: Record, row, observed, status) -> Record:
  """Adds an epoch to a chunk's record, unless all members of the chunk had stopped before it."""
  if not record.running.any():
    return record
  row, observed = (_spread_seeds(x, state.places, state.num_seeds) for x in (row, observed))
  running = np.zeros((state.num_seeds, status.shape[1]), bool)
  running[state.places] = status == RUNNING
  return Record(
    running=running[: len(record.running)],
    rows=(*record.rows, row),
    observed=(*record.observed, observed),
  )


def train_epochs(
  state: ChunkState,
  bound_for: Callable[[np.ndarray], BoundPrograms],
  fetch: Fetch,
  *,
  count: Callable[[ChunkState], int],
  report: Callable[[int, int, int], None],
  between: Callable[[ChunkState], ChunkState],
) -> ChunkState:
  """Trains until every member has stopped. This is the epoch loop.

  Args:
    state: a chunk before its first epoch, or from a checkpoint.
    bound_for: indices of seeds -> programs that train them.
    fetch: copies arrays to the host.
    count: returns how many members are still training, in all processes together.
    report: called after every epoch with the epoch's number, from 1, the number of members that
      trained in it, and how many of them have stopped.
    between: called between two epochs; returns the state to continue with.

  Returns:
    The state after the last epoch.
  """
  running = count(state)
  while running:
    state = next_epoch(bound_for(state.places), state, fetch)
    before, running = running, count(state)
    report(state.epoch, before, before - running)
    if running:
      state = between(state)
  return state


def compile_chunk(
  group: Group,
  splits: Splits,
  device: jax.Device,
  observe: Observer | None = None,
  num_seeds: int | None = None,
  num_arms: int | None = None,
) -> Programs:
  """Compiles the programs that train chunks of a group on a device.

  Args:
    group: one of the groups of `jaxdl.population.plan.plan_groups`.
    splits: training, validation and test examples, on the device.
    device: where the chunks train.
    observe: the observer; see `jaxdl.population.programs.Observer`.
    num_seeds: seeds per chunk; None: as planned.
    num_arms: arms per chunk; None: as planned.
  """
  size = num_seeds or group.layout.chunk_size, num_arms or group.layout.chunk_arms
  first = Chunk(group.number, 0, 0, *size)
  arguments = jax.device_put(group.arguments(first), device)
  shapes = map(programs.abstract, (*arguments, *_own_splits(group, first, splits, device)))
  precision = jax.config.jax_default_matmul_precision
  return programs.compile_programs(group.recipe, group.layout.kernels, observe, precision, *shapes)


def bind(
  compiled: Programs,
  group: Group,
  chunk: Chunk,
  splits: Splits,
  device: jax.Device,
) -> BoundPrograms:
  """Binds the programs of `compile_chunk` to the keys and settings of a chunk, on its device."""
  keys, hyper = jax.device_put(group.arguments(chunk), device)
  put = functools.partial(jax.device_put, device=device)
  splits = _own_splits(group, chunk, splits, device)
  return BoundPrograms(group.recipe, compiled, keys, hyper, splits, put)


def _own_splits(group: Group, chunk: Chunk, splits: Splits, device: jax.Device) -> Splits:
  """Returns the splits, with the examples that each seed of the chunk has if they differ."""
  own = group.split_of(chunk)
  if own is None:
    return splits
  train, validation, test = splits
  chosen = jax.device_put(own, device)
  return train._replace(chosen=chosen.train), validation, test._replace(chosen=chosen.test)


def _put_leaves(arrays, name: str, shapes: Any, device: jax.Device) -> Any:
  """Returns the arrays `name/0`, `name/1`, ... as a tree like `shapes`, on a device."""
  leaves, structure = jax.tree.flatten(shapes)
  found = [arrays[f"{name}/{place}"] for place in range(len(leaves))]
  for leaf, array in zip(leaves, found, strict=True):
    if leaf.shape != array.shape or leaf.dtype != array.dtype:
      raise ValueError(f"{array.dtype}{array.shape} is not {leaf.dtype}{leaf.shape}")
  return jax.device_put(jax.tree.unflatten(structure, found), device)


def _spread_seeds(tree: Any, places: np.ndarray, size: int) -> Any:
  """Scatters arrays `[w, ...]` of some seeds into arrays of all, `[size, ...]`; the rest is NaN."""
  if len(places) == size:
    return tree

  def spread(leaf):
    leaf = as_float(leaf)
    whole = np.full((size, *leaf.shape[1:]), np.nan, leaf.dtype)
    whole[places] = leaf
    return whole

  return jax.tree.map(spread, tree)
