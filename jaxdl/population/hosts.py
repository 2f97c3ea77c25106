"""One population over the devices of several hosts, with `jax.distributed`.

All devices of all processes are one mesh, and each trains one chunk of the plan with the functions,
at the width, at which a worker of a single process trains it, so that results are the same bits.
The compiled programs have no collectives: no number of one member ever depends on another. What the
processes have to agree on, they do between programs: that they are about the same run, which chunks
are left, and after each epoch whether any member still trains, so that all of them launch the same
programs in the same order.

They share one fate: when one of them ends, all do. What is committed stays, and the same commands
go on from there.
"""

import contextlib
import functools
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl.batches import Examples
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import environment, local, programs
from jaxdl.population.chunk import BoundPrograms
from jaxdl.population.chunk_result import ChunkResult, progress_of, sum_up
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import Functions, Observer, Programs
from jaxdl.population.progress import Progress
from jaxdl.population.trainer import StoppedError, is_out_of_memory
from jaxdl.store.store import Store

AXIS = "seeds"
_OWN, _SHARED = PartitionSpec(AXIS), PartitionSpec()  # a part of it each; all of it each

# How long processes wait for each other at the beginning; and how long one may give no sign of life
# before JAX ends the others.
_JOIN_SECONDS = 300
_HEARTBEAT_SECONDS = 60
# How long a process that has failed waits for the others to hear of it, and how long the first one
# then stays: with it ends what JAX has beside it, and at that the others abort in many lines.
_TELL_SECONDS = 5.0
_LINGER_SECONDS = 1.0
# Network file systems show a file of another host some time after it was written.
_APPEAR_SECONDS = 60.0

_JOINED = threading.Event()  # once this process is one of several
_FAILED = -1  # what a process says in the place of a number
_LOST = (
  "another process of this run has ended, or cannot be reached: see what it printed; the same "
  "commands go on with the chunks that are not committed"
)


class LostError(Exception):
  """Another process of the run has ended, or cannot be reached; the message is one line."""


def join(coordinator: str, num_processes: int, process_id: int):
  """Makes this process one of several; before JAX is used for anything else.

  Args:
    coordinator: HOST:PORT, of the first process, to which all others connect.
    num_processes: how many there are.
    process_id: which this is, from 0.

  Raises:
    InputError: they do not find together; their hosts have unequal numbers of devices.
    LostError: another one has ended already.
  """
  if process_id > 0:
    _await(coordinator)
  try:
    jax.distributed.initialize(
      coordinator_address=coordinator,
      num_processes=num_processes,
      process_id=process_id,
      cluster_detection_method="deactivate",  # all is said
      initialization_timeout=_JOIN_SECONDS,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
    num_devices = jax.device_count()
  except Exception as error:
    reason = str(error).splitlines()[0]
    raise InputError(f"cannot join the processes at {coordinator}: {reason}") from error
  _JOINED.set()
  # Also connects them, after which each knows at once when another one ends.
  there = _exchange(jax.local_device_count())
  if num_devices != num_processes * jax.local_device_count():
    raise InputError(f"all processes need as many devices; they have {there.tolist()}")


def _await(coordinator: str):
  """Waits until the first process is there: JAX aborts where it does not come."""
  host, _, port = coordinator.rpartition(":")
  last = time.monotonic() + _JOIN_SECONDS
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
      return
    except OSError as error:  # also of a name that is not known yet
      if time.monotonic() > last:
        raise InputError(f"process 0 is not to be reached at {coordinator}: {error}") from error
    time.sleep(0.5)


def end(status: int, *, tell: bool = True):
  """Ends this process at once, without waiting for the others, who may be waiting for it.

  Python's usual end would have JAX wait for all processes to end.

  Args:
    status: of its exit.
    tell: have the others end too, each with a line of its own; not if it is they who ended.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  if _JOINED.is_set():
    if tell:
      teller = threading.Thread(target=_tell_failure, daemon=True)
      teller.start()
      teller.join(_TELL_SECONDS)
    if jax.process_index() == 0:
      time.sleep(_LINGER_SECONDS)
  os._exit(status)


def _tell_failure():
  with contextlib.suppress(LostError):
    _gather(_FAILED)


def train_across_hosts(
  dataset: Dataset,
  store: Store,
  settings: Mapping[str, Any],
  groups: Sequence[Group],
  chunks: Sequence[Chunk],
  progress: Progress,
) -> Outcome:
  """Trains chunks on all devices of all processes, each of which calls this once.

  Afterwards the processes are apart: what the first one does with the outcome concerns no other.

  Args:
    dataset: what they train on.
    store: in a folder that all processes see; the first one has claimed it.
    settings: `observe` and `keep_logits`, as `jaxdl.population.train_population` takes them.
    groups: of the population.
    chunks: in the order in which they are begun.
    progress: told about every epoch, in the first process.

  Returns:
    The results of all chunks; none in processes other than the first.

  Raises:
    InputError: the processes are not about the same run, or do not see the same folder; a device's
      memory is too small.
    LostError: another process has ended.
  """
  mesh = create_mesh()
  what = "another config, dataset, version or installation"
  _check_same(what, _identity(dataset, groups, settings))
  claimed = json.dumps(store.join(), sort_keys=True)
  _check_same("another workdir (all hosts must see the same one)", claimed)
  waiting = _agree_on_waiting(store, groups, chunks, progress)
  trainer = _Trainer(dataset, groups, mesh, store, progress, **settings)
  # In a thread, as the workers of a single process, so that signals are noticed.
  local.share(trainer.rounds(waiting), [mesh.local_devices[0]], trainer.train)
  _exchange(0)  # all chunks are committed
  if _JOINED.is_set():
    _JOINED.clear()
    jax.distributed.shutdown()
  outcome = Outcome({}, num_workers=mesh.size, compile_seconds=trainer.compile_seconds)
  if jax.process_index() != 0:
    return outcome
  return outcome._replace(results=_read_all(store, groups, chunks))


def create_mesh() -> Mesh:
  """Returns all devices of all processes, in a row."""
  return Mesh(np.array(jax.devices()), (AXIS,))


def put_splits(dataset: Dataset, mesh: Mesh) -> tuple[Examples, ...]:
  """Returns the training, validation and test examples of a dataset, on every device of a mesh."""
  examples = (Examples(split.images, split.labels) for split in dataset.splits)
  return tuple(_replicate(split, mesh) for split in examples)


def compile_on_mesh(
  group: Group, splits: Sequence[Examples], mesh: Mesh, observe: Observer | None = None
) -> Programs:
  """Returns the programs that train chunks of a group, one on each device of a mesh.

  Args:
    group: of `jaxdl.population.plan.plan_groups`.
    splits: of `put_splits`.
    mesh: D devices.
    observe: as `jaxdl.population.train_population` takes it.

  Returns:
    As `chunk.compile_chunk`, but that what a chunk has as `[s, ...]` or `[a, ...]`, the D
    chunks have as `[D * s, ...]` or `[D * a, ...]`, each its part on its device.
  """
  layout, image_shape = group.layout, splits[0].images.shape[1:]
  functions = programs.map_functions(
    group.recipe,
    layout.kernels,
    observe,
    layout.chunk_size,
    layout.chunk_arms,
    image_shape,
  )
  first = Chunk(group.index, 0, 0, layout.chunk_size, layout.chunk_arms)
  keys, hyper = _shard([group.arguments(first)] * len(mesh.local_devices), mesh)
  index = _replicate(np.int32(0), mesh)
  return programs.compile_functions(
    _over_devices(functions, mesh), *map(programs.abstract, (keys, hyper, splits, index))
  )


def _over_devices(functions: Functions, mesh: Mesh) -> Functions:
  """Returns functions of one chunk as functions of as many as there are devices, each on its own.

  The settings of the arms are a part for each device too, as chunks may be of different arms.
  """
  specs = Functions(
    create=(_OWN, _OWN),
    train_epoch=(_OWN, _OWN, _OWN, _SHARED, _SHARED, _SHARED),
    test=(_OWN, _OWN, _SHARED),
    observe=(_OWN, _OWN, _SHARED, _SHARED, _SHARED),
  )

  def spread(function, in_specs):
    # Nothing is the same on all devices that would have to be checked for it.
    return function and jax.shard_map(
      function, mesh=mesh, in_specs=in_specs, out_specs=_OWN, check_vma=False
    )

  return Functions(*map(spread, functions, specs))


class _Trainer:
  """Trains rounds of chunks: one on each device, with no device waiting within an epoch."""

  def __init__(self, dataset, groups, mesh, store, progress, observe=None, keep_logits=False):
    self._dataset, self._groups, self._mesh = dataset, groups, mesh
    self._store, self._progress = store, progress
    self._observe, self._keep_logits = observe, keep_logits
    self._splits = put_splits(dataset, mesh)
    self._programs: dict[int, Programs] = {}
    self.compile_seconds = 0.0

  def rounds(self, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Returns chunks, as many at a time as there are devices, those of the first seeds first."""
    size, rounds = self._mesh.size, []
    for group in self._groups:
      own = [chunk for chunk in chunks if chunk.group == group.index]
      rounds += [own[first : first + size] for first in range(0, len(own), size)]
    return sorted(rounds, key=lambda chunks_of: chunks.index(chunks_of[0]))

  def train(self, chunks: Sequence[Chunk], _, stop):
    """Trains chunks until the last member of all stops, and commits those of this process."""
    group = self._groups[chunks[0].group]
    try:
      results = self._train(group, chunks, stop)
    except Exception as error:
      if is_out_of_memory(error):
        raise InputError(
          f"{chunks[0].name} does not fit the memory of a device; set a smaller chunk_size"
        ) from error
      raise
    for chunk, result in results.items():
      result = result if self._keep_logits else result._replace(logits=None)
      self._store.commit_chunk(chunk.name, result.to_arrays())

  def _train(self, group: Group, chunks: Sequence[Chunk], stop) -> dict[Chunk, ChunkResult]:
    most = group.recipe.arm.num_epochs
    mesh = self._mesh
    # The last round may have fewer chunks than there are devices. The others repeat the first.
    filled = [*chunks, *[chunks[0]] * (mesh.size - len(chunks))]
    here = [place for place, d in enumerate(mesh.devices.flat) if d in mesh.local_devices]
    own = [chunks[place] for place in here if place < len(chunks)]
    keys, hyper = _shard([group.arguments(filled[place]) for place in here], mesh)
    put = functools.partial(_replicate, mesh=mesh)
    bound = BoundPrograms(group.recipe, self._programs_of(group), keys, hyper, self._splits, put)
    fetch = functools.partial(_fetch, [mesh.devices.flat[place] for place in here][: len(own)])

    def report(epoch, running, stopped):
      if jax.process_index() == 0:
        label = f"{chunks[0].name} and {len(chunks) - 1} more" if chunks[1:] else chunks[0].name
        counts = running, stopped * (most - epoch), stopped
        self._progress.update(label, f"{epoch}/{most}", *counts)

    def between(state):
      if stop.is_set():
        raise StoppedError
      return state

    start = time.perf_counter()
    sizes = [(group.num_real(chunk), chunk.num_arms) for chunk in own]
    state = chunk_lib.train_epochs(
      chunk_lib.begin(bound, chunks[0].num_seeds, sizes, fetch),
      lambda _: bound,
      fetch,
      count=lambda state: int(_exchange(state.num_running).sum()),
      report=report,
      between=between,
    )
    members = state.members._replace(params={}, opt_state=(), best_params={})
    tested = fetch((members, bound.test(state.members)))
    seconds = time.perf_counter() - start
    return {
      chunk: sum_up(
        self._dataset, group, chunk, members, record.rows, record.observed, test, seconds
      )
      for chunk, record, (members, test) in zip(own, state.records, tested, strict=True)
    }

  def _programs_of(self, group: Group) -> Programs:
    if group.index not in self._programs:
      start = time.perf_counter()
      found = compile_on_mesh(group, self._splits, self._mesh, self._observe)
      self._programs[group.index] = found
      self.compile_seconds += time.perf_counter() - start
    return self._programs[group.index]


def _fetch(devices: Sequence[jax.Device], tree: Any) -> list[Any]:
  """Returns the parts of arrays that are on devices of this process, device by device."""

  def part(leaf, device):
    return next(np.asarray(s.data) for s in leaf.addressable_shards if s.device == device)

  return [jax.tree.map(lambda leaf, d=device: part(leaf, d), tree) for device in devices]


def _shard(trees: Sequence[Any], mesh: Mesh) -> Any:
  """Returns arrays `[n, ...]`, one tree for each device here, as parts of arrays `[D * n, ...]`."""
  return _assemble(trees, mesh, _OWN, lambda shape: (mesh.size * shape[0], *shape[1:]))


def _replicate(tree: Any, mesh: Mesh) -> Any:
  """Returns arrays that each device has a copy of."""
  return _assemble([tree] * len(mesh.local_devices), mesh, _SHARED, lambda shape: shape)


def _assemble(trees, mesh, spec, shape_of):
  here = [device for device in mesh.devices.flat if device in mesh.local_devices]
  placed = [jax.device_put(tree, device) for tree, device in zip(trees, here, strict=True)]

  def whole(*parts):
    sharding = NamedSharding(mesh, spec)
    shape = shape_of(parts[0].shape)
    return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

  return jax.tree.map(whole, *placed)


def _gather(value: int | np.ndarray) -> np.ndarray:
  """Returns what each process calls this with, `[P, ...]` int32; all wait for the last of them.

  Raises:
    LostError: one of them will not come.
  """
  try:
    return multihost_utils.process_allgather(np.asarray(value, np.int32))
  except Exception as error:
    raise LostError(_LOST) from error


def _exchange(number: int) -> np.ndarray:
  """Returns the number that each process calls this with, `[P]`; as `_gather`.

  Raises:
    LostError: one of them has failed, or will not come.
  """
  numbers = _gather(number)
  if (numbers == _FAILED).any():
    raise LostError(_LOST)
  return numbers


def _check_same(what: str, text: str):
  """Raises InputError, in all processes, if one has another text than the first process."""
  digest = hashlib.sha256(text.encode()).digest()
  numbers = _exchange(int.from_bytes(digest[:4], "big") >> 1)
  for process, number in enumerate(numbers):
    if number != numbers[0]:
      raise InputError(f"process {process} of this run has {what} than process 0")


def _identity(dataset: Dataset, groups: Sequence[Group], settings: Mapping[str, Any]) -> str:
  """Returns everything that the order and the results of the programs depend on."""
  digest = hashlib.sha256()
  for leaf in _leaves_of(dataset, groups):
    digest.update(np.ascontiguousarray(leaf).view(np.uint8).reshape(-1).data)
  plans = [(group.recipe, group.layout, group.num_seeds) for group in groups]
  extra = settings.get("keep_logits", False), settings.get("observe") is not None
  return repr((digest.hexdigest(), dataset.checksum, plans, extra, environment.describe()))


def _leaves_of(dataset: Dataset, groups: Sequence[Group]) -> Iterable[np.ndarray]:
  for split in dataset.splits:
    yield from (split.images, split.labels)
  for group in groups:
    yield np.asarray(jax.random.key_data(group.keys))
    yield from jax.tree.leaves(group.hyper)


def _agree_on_waiting(
  store: Store, groups: Sequence[Group], chunks: Sequence[Chunk], progress: Progress
) -> list[Chunk]:
  """Returns the chunks that are not committed, or are damaged, as the first process sees it."""
  done = np.zeros(len(chunks), np.int32)
  if jax.process_index() == 0:
    there = local.read_committed(store, groups, chunks, progress).results
    for chunk, result in there.items():
      progress.resume(*progress_of(groups[chunk.group], result))
    done[:] = [chunk in there for chunk in chunks]
  done = _gather(done)[0]
  return [chunk for chunk, is_done in zip(chunks, done, strict=True) if not is_done]


def _read_all(store: Store, groups: Sequence[Group], chunks: Sequence[Chunk]):
  """Returns the results of all chunks, once they are all to be seen here."""
  last = time.monotonic() + _APPEAR_SECONDS
  while True:
    missing = [chunk.name for chunk in chunks if not store.has_chunk(chunk.name)]
    if not missing or time.monotonic() > last:
      break
    time.sleep(1)
  results = local.read_committed(store, groups, chunks, Progress()).results
  missing = [chunk.name for chunk in chunks if chunk not in results]
  if missing:
    raise InputError(
      f"chunk {missing[0]} was committed by another process and is not in {str(store.folder)!r}"
    )
  return results
