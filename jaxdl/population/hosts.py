"""One population over the devices of several hosts, with `jax.distributed`.

All devices of all processes form one mesh, and each device trains one chunk at a time. It uses the
same functions at the same width as a worker of a single process, so the results are bit-identical.
The compiled programs have no collectives, since no member depends on another. The processes
communicate only between programs, to agree that they belong to the same run, which chunks are left,
and after each epoch whether any member is still training. So all of them launch the same programs
in the same order.

When one process ends, all of them end. Committed chunks are kept, and the same commands continue
from there.
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

from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.member import without_weights
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import environment, local, programs
from jaxdl.population.chunk import BoundPrograms
from jaxdl.population.chunk_result import ChunkResult, progress_of, sum_up
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import Functions, Observer, Programs, Splits
from jaxdl.population.progress import Progress
from jaxdl.population.trainer import StoppedError, is_out_of_memory
from jaxdl.store import interrupts
from jaxdl.store.store import Store

AXIS = "seeds"
_OWN, _SHARED = PartitionSpec(AXIS), PartitionSpec()  # a part on each device; a copy on each device

# How long processes wait for each other at the start, and how long one may send no heartbeat before
# JAX ends the others.
_JOIN_SECONDS = 300
_HEARTBEAT_SECONDS = 60
# How long a process that has failed waits for the others to be told, and how much longer process 0
# stays: JAX's coordination service ends with it, and the others then abort with pages of output.
_TELL_SECONDS = 5.0
_LINGER_SECONDS = 1.0
# On a network file system, a file becomes visible to other hosts some time after it was written.
_APPEAR_SECONDS = 60.0

_JOINED = threading.Event()  # set once this process has joined the others
_FAILED = -1  # what a process sends instead of its number
_LOST = (
  "another process of this run has ended, or cannot be reached: see what it printed; run the same "
  "commands again to train the chunks that are not committed"
)


class LostError(Exception):
  """Another process of the run has ended, or cannot be reached; the message is one line."""


def join(coordinator: str, num_processes: int, process_id: int):
  """Joins this process to the others of a run. Call it before any other use of JAX.

  Args:
    coordinator: HOST:PORT of process 0, to which all others connect.
    num_processes: number of processes, this one included.
    process_id: number of this process, from 0.

  Raises:
    InputError: the processes cannot connect to each other, or their hosts have different numbers of
      devices.
    LostError: another process has already ended.
  """
  if process_id == 0:
    _check_address(coordinator)
  else:
    with interrupts.waiting(f"process 0 at {coordinator}"):
      _await(coordinator)
  # JAX would take SIGTERM for itself, and only note it.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    with interrupts.waiting(f"the other processes, which connect to {coordinator}"):
      jax.distributed.initialize(
        coordinator_address=coordinator,
        coordinator_bind_address=coordinator,  # JAX's default is every network of this machine
        num_processes=num_processes,
        process_id=process_id,
        cluster_detection_method="deactivate",  # the arguments say everything
        initialization_timeout=_JOIN_SECONDS,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
    num_devices = jax.device_count()
  except Exception as error:
    reason = str(error).splitlines()[0]
    raise InputError(f"cannot join the processes at {coordinator}: {reason}") from error
  _JOINED.set()
  # This exchange also connects the processes, so that each notices at once when another ends.
  there = _exchange(jax.local_device_count())
  if num_devices != num_processes * jax.local_device_count():
    raise InputError(f"all processes need the same number of devices; they have {there.tolist()}")


def _check_address(coordinator: str):
  """Raises InputError unless this machine can listen there; JAX would wait, or abort."""
  host, _, port = coordinator.rpartition(":")
  host = host.strip("[]")
  try:
    family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
    socket.create_server((host, int(port)), family=family).close()
  except OSError as error:
    raise InputError(
      f"process 0 cannot listen at {coordinator}, which must be an address of its own machine: "
      f"{error.strerror or error}"
    ) from error


def _await(coordinator: str):
  """Waits until process 0 can be reached, since JAX would abort this process otherwise."""
  host, _, port = coordinator.rpartition(":")
  last = time.monotonic() + _JOIN_SECONDS
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
      return
    except OSError as error:  # including a host name that does not resolve yet
      if time.monotonic() > last:
        raise InputError(f"process 0 cannot be reached at {coordinator}: {error}") from error
    interrupts.check()
    time.sleep(0.5)


def end(status: int, *, tell: bool = True):
  """Exits at once, without waiting for the other processes, which may be waiting for this one.

  At a normal exit of Python, JAX would wait for all processes to end.

  Args:
    status: exit status.
    tell: tell the other processes to end too, each with a one-line error. False if one of them has
      already ended.
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
  """Trains chunks on all devices of all processes. Each process calls this once.

  The processes are disconnected afterwards, so process 0 can use the outcome without the others.

  Args:
    dataset: the dataset to train on.
    store: a store in a folder that all processes see, claimed by process 0.
    settings: `observe`, `keep_logits` and `keep_params`, as in `jaxdl.population.train_population`.
    groups: the groups of the population.
    chunks: the chunks to train, in the order in which they are started.
    progress: told about every epoch, in process 0.

  Returns:
    The results of all chunks in process 0, and no results in the others.

  Raises:
    InputError: the processes have different runs or do not see the same folder, or a chunk does not
      fit the memory of a device.
    LostError: another process has ended.
  """
  mesh = create_mesh()
  what = "another config, dataset, version or installation"
  _check_same(what, _identity(dataset, groups, settings))
  claimed = json.dumps(store.join(), sort_keys=True)
  _check_same("another workdir (all hosts must see the same one)", claimed)
  waiting = _agree_on_waiting(store, groups, chunks, progress)
  trainer = _Trainer(dataset, groups, mesh, store, progress, **settings)
  # In a thread, like the workers of a single process, so that the main thread can stop it.
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
  """Returns a one-dimensional mesh of all devices of all processes."""
  return Mesh(np.array(jax.devices()), (AXIS,))


def replicate_splits(dataset: Dataset, mesh: Mesh) -> Splits:
  """Returns what `programs.put_splits` does, on each device of a mesh."""
  return programs.put_splits(
    dataset, mesh.local_devices[0], lambda examples, _: _replicate(examples, mesh)
  )


def compile_on_mesh(
  group: Group, splits: Splits, mesh: Mesh, observe: Observer | None = None
) -> Programs:
  """Compiles the programs that train chunks of a group, one chunk on each device of a mesh.

  Args:
    group: one of the groups of `jaxdl.population.plan.plan_groups`.
    splits: training, validation and test examples, from `replicate_splits`.
    mesh: D devices.
    observe: the observer; see `jaxdl.population.programs.Observer`.

  Returns:
    The programs of `chunk.compile_chunk` for D chunks at once: an array `[s, ...]` or `[a, ...]` of
    one chunk becomes `[D * s, ...]` or `[D * a, ...]`, sharded by chunk over the devices.
  """
  layout = group.layout
  functions = programs.map_functions(
    group.recipe,
    layout.kernels,
    observe,
    layout.chunk_size,
    layout.chunk_arms,
  )
  first = Chunk(group.number, 0, 0, layout.chunk_size, layout.chunk_arms)
  keys, hyper = _shard([group.arguments(first)] * len(mesh.local_devices), mesh)
  index = _replicate(np.int32(0), mesh)
  return programs.compile_functions(
    _over_devices(functions, mesh), *map(programs.abstract, (keys, hyper, splits, index))
  )


def _over_devices(functions: Functions, mesh: Mesh) -> Functions:
  """Turns functions of one chunk into functions of D chunks, one on each device of a mesh.

  The arms' settings are sharded too, because the chunks may have different arms.
  """
  epoch_specs = (_OWN, _OWN, _OWN, _SHARED, _SHARED, _SHARED)

  def spread(function, in_specs):
    # No output is replicated, so there is no replication for JAX to check.
    return function and jax.shard_map(
      function, mesh=mesh, in_specs=in_specs, out_specs=_OWN, check_vma=False
    )

  return Functions(
    create=spread(functions.create, (_OWN, _OWN)),
    train_epoch=spread(functions.train_epoch, epoch_specs),
    test=spread(functions.test, (_OWN, _OWN, _SHARED)),
    observe=spread(functions.observe, (_OWN, _OWN, _SHARED, _SHARED, _SHARED)),
  )


class _Trainer:
  """Trains rounds of chunks, one chunk on each device; devices wait only between epochs."""

  def __init__(
    self,
    dataset,
    groups,
    mesh,
    store,
    progress,
    observe=None,
    keep_logits=False,
    keep_params=False,
  ):
    self._dataset, self._groups, self._mesh = dataset, groups, mesh
    self._store, self._progress = store, progress
    self._observe, self._keep_logits, self._keep_params = observe, keep_logits, keep_params
    self._splits = replicate_splits(dataset, mesh)
    self._programs: dict[int, Programs] = {}
    self.compile_seconds = 0.0

  def rounds(self, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Splits chunks into rounds of at most one chunk per device, those of the first seeds first."""
    size, rounds = self._mesh.size, []
    for group in self._groups:
      own = [chunk for chunk in chunks if chunk.group == group.number]
      rounds += [own[first : first + size] for first in range(0, len(own), size)]
    return sorted(rounds, key=lambda chunks_of: chunks.index(chunks_of[0]))

  def train(self, chunks: Sequence[Chunk], _, stop):
    """Trains chunks until all their members have stopped, and commits those of this process."""
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
    # The last round may have fewer chunks than devices; the devices left over repeat the first one.
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
    members = without_weights(state.members)
    variables = None
    if self._keep_params:
      variables = programs.reported_variables(group.recipe, state.members)
    tested = fetch((members, bound.test(state.members), variables))
    seconds = time.perf_counter() - start
    return {
      chunk: sum_up(
        self._dataset, group, chunk, members, record.rows, record.observed, test, seconds, kept
      )
      for chunk, record, (members, test, kept) in zip(own, state.records, tested, strict=True)
    }

  def _programs_of(self, group: Group) -> Programs:
    if group.number not in self._programs:
      start = time.perf_counter()
      found = compile_on_mesh(group, self._splits, self._mesh, self._observe)
      self._programs[group.number] = found
      self.compile_seconds += time.perf_counter() - start
    return self._programs[group.number]


def _fetch(devices: Sequence[jax.Device], tree: Any) -> list[Any]:
  """Copies the shards of arrays on this process's devices to the host, one tree per device."""

  def part(leaf, device):
    return next(np.asarray(s.data) for s in leaf.addressable_shards if s.device == device)

  return [jax.tree.map(lambda leaf, d=device: part(leaf, d), tree) for device in devices]


def _shard(trees: Sequence[Any], mesh: Mesh) -> Any:
  """Joins arrays `[n, ...]`, one tree per device of this process, to arrays `[D * n, ...]`."""
  return _assemble(trees, mesh, _OWN, lambda shape: (mesh.size * shape[0], *shape[1:]))


def _replicate(tree: Any, mesh: Mesh) -> Any:
  """Returns arrays with a copy on every device."""
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
  """Returns the values that the P processes call this with, `[P, ...]` int32; waits for them all.

  Raises:
    LostError: another process has ended.
  """
  try:
    return multihost_utils.process_allgather(np.asarray(value, np.int32))
  except Exception as error:
    raise LostError(_LOST) from error


def _exchange(number: int) -> np.ndarray:
  """Returns the numbers that the P processes call this with, `[P]` int32; waits for them all.

  Raises:
    LostError: another process has failed or has ended.
  """
  numbers = _gather(number)
  if (numbers == _FAILED).any():
    raise LostError(_LOST)
  return numbers


def _check_same(what: str, text: str):
  """Raises InputError in all processes if the text of any differs from that of process 0."""
  digest = hashlib.sha256(text.encode()).digest()
  numbers = _exchange(int.from_bytes(digest[:4], "big") >> 1)
  for process, number in enumerate(numbers):
    if number != numbers[0]:
      raise InputError(f"process {process} of this run has {what} than process 0")


def _identity(dataset: Dataset, groups: Sequence[Group], settings: Mapping[str, Any]) -> str:
  """Returns everything that determines the order and the results of the programs, as text."""
  digest = hashlib.sha256()
  for leaf in _leaves_of(dataset, groups):
    digest.update(np.ascontiguousarray(leaf).view(np.uint8).reshape(-1).data)
  plans = [(group.recipe, group.layout, group.num_seeds) for group in groups]
  extra = [settings.get(name, False) for name in ("keep_logits", "keep_params")]
  extra.append(settings.get("observe") is not None)
  return repr((digest.hexdigest(), dataset.checksum, plans, extra, environment.describe()))


def _leaves_of(dataset: Dataset, groups: Sequence[Group]) -> Iterable[np.ndarray]:
  for split in dataset.splits:
    yield from (split.inputs, split.targets)
  for group in groups:
    yield np.asarray(jax.random.key_data(group.keys))
    yield from jax.tree.leaves(group.hyper)


def _agree_on_waiting(
  store: Store, groups: Sequence[Group], chunks: Sequence[Chunk], progress: Progress
) -> list[Chunk]:
  """Returns the chunks that process 0 finds to be uncommitted or damaged, in every process."""
  done = np.zeros(len(chunks), np.int32)
  if jax.process_index() == 0:
    there = local.read_committed(store, groups, chunks, progress).results
    for chunk, result in there.items():
      progress.resume(*progress_of(groups[chunk.group], result))
    done[:] = [chunk in there for chunk in chunks]
  done = _gather(done)[0]
  return [chunk for chunk, is_done in zip(chunks, done, strict=True) if not is_done]


def _read_all(store: Store, groups: Sequence[Group], chunks: Sequence[Chunk]):
  """Returns the results of all chunks, once all of their files are visible here."""
  last = time.monotonic() + _APPEAR_SECONDS
  with interrupts.waiting(f"files of other processes to appear in {str(store.folder)!r}"):
    while not all(store.has_chunk(chunk.name) for chunk in chunks) and time.monotonic() < last:
      interrupts.check()
      time.sleep(1)
  results = local.read_committed(store, groups, chunks, Progress()).results
  missing = [chunk.name for chunk in chunks if chunk not in results]
  if missing:
    raise InputError(
      f"chunk {missing[0]} was committed by another process and is not in {str(store.folder)!r}"
    )
  return results
