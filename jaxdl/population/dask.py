"""One population on many machines: its chunks as tasks of Dask, which repeats those of the dead.

Workers are `dask worker` processes that have jaxdl, one for each device or core. Each loads the
data set once, trains the chunks that it is given as any process would, and commits them to the
workdir, which all machines see; what goes over the network is the name of a chunk, and a line about
it.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, brief
from jaxdl.population import devices, environment, local
from jaxdl.population.chunk_result import progress_of
from jaxdl.population.devices import DeviceKind
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import Observer
from jaxdl.population.progress import Progress
from jaxdl.population.trainer import Trainer
from jaxdl.store import files
from jaxdl.store.store import Store

_CONNECT_SECONDS = 60


# Loads the data and plans the chunks of a run for a kind of device: hashable, equal by value, and
# picklable by reference, so that it can be sent to workers.
Prepare = Callable[[DeviceKind], tuple[Dataset, list[Group]]]


@dataclasses.dataclass(frozen=True)
class Job:
  """What a worker has to know of a run, besides which chunk of it to train.

  Attributes:
    prepare: loads the data and plans the chunks.
    device: what the chunks are planned for.
    folder: of the store, which all workers see.
    run: of the store; a worker stops once another run has taken the folder.
    environment: of the client, as `environment.describe` has it; the workers' must be the same.
    observe: as `jaxdl.population.train_population` takes it, like those that follow.
    keep_logits: keep every member's logits of the test set.
    checkpoint_every: epochs from one checkpoint of a chunk to the next.
    pinned: whether the workers are those of one machine, to be shared out between them.
  """

  prepare: Prepare
  device: DeviceKind
  folder: str
  run: str | None = None
  environment: tuple[tuple[str, Any], ...] = ()
  observe: Observer | None = None
  keep_logits: bool = False
  checkpoint_every: int | None = None
  pinned: bool = False


class Counts(NamedTuple):
  """What a worker says of a chunk that it has committed; as `Progress.update` takes it."""

  trained: int  # member-epochs
  skipped: int  # member-epochs that it did not train, because members stopped
  finished: int  # members


# --- On a worker ---


def train_chunk(job: Job, chunk: Chunk) -> Counts:
  """Trains a chunk of a run on this worker and commits it."""
  store = Store(pathlib.Path(job.folder), job.run)
  try:
    store.check_run()
    # A worker that was thought dead may still be training the same chunk.
    with files.exclusive(store.folder / "locks" / chunk.name):
      trainer, groups = _trainer(job)
      device = jax.local_devices()[0]
      result = trainer.train(chunk, device, threading.Event())
  except InputError:
    raise
  except Exception as error:
    local.note_failure(store, chunk, error, "on a worker")
    raise
  return Counts(*progress_of(groups[chunk.group], result))


@functools.lru_cache(maxsize=1)
def _trainer(job: Job) -> tuple[Trainer, list[Group]]:
  """Loads the data set and plans the run, once for each worker."""
  if job.pinned:
    _take_share()
  _check_environment(job)
  here = devices.kind_of(jax.local_devices()[0])
  if here[:2] != job.device[:2]:
    raise InputError(f"a worker has a {here.name}, but the run is planned for {job.device.name}")
  if here.kernels != job.device.kernels:
    why = devices.why_no_kernels()
    raise InputError(
      f"the run is planned {'with' if job.device.kernels else 'without'} layers in C++, and a "
      f"worker has {'none: ' + why if why else 'them'}; install jaxdl alike for all workers, or "
      f"start all processes with {devices.SWITCH}=0"
    )
  dataset, groups = job.prepare(job.device)
  trainer = Trainer(
    dataset,
    groups,
    jax.local_devices()[:1],
    observe=job.observe,
    keep_logits=job.keep_logits,
    store=Store(pathlib.Path(job.folder), job.run),
    checkpoint_every=job.checkpoint_every,
    progress=Progress(quiet=True),
  )
  return trainer, groups


def _check_environment(job: Job):
  here = environment.describe()
  for name, value in job.environment:
    if here.get(name) != value:
      raise InputError(
        f"a worker has {name} {here.get(name)}, and this process {value}; all workers need the "
        "same versions and settings"
      )


def _take_share():
  """Takes this worker's own core, or accelerator, of a machine, before JAX counts them.

  XLA starts as many threads as there are cores: of two workers that share two cores, each was a
  third slower on convolutions than on one core of its own.
  """
  from distributed import get_worker

  place = int(get_worker().name)
  if _accelerators():
    os.environ["CUDA_VISIBLE_DEVICES"] = _accelerators()[place]
  elif hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    # Those that Dask has started already as well: what they do belongs to this worker, not to the
    # one on the other core.
    for thread in os.listdir("/proc/self/task"):
      with contextlib.suppress(ProcessLookupError):  # it has ended since
        os.sched_setaffinity(int(thread), {cores[place % len(cores)]})


def _accelerators() -> list[str]:
  """Returns the names of this machine's NVIDIA GPUs, found without JAX, which would claim them."""
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  if visible is not None:
    return [name for name in visible.split(",") if name.strip()]
  found = list(pathlib.Path("/proc/driver/nvidia/gpus").glob("*"))
  return [str(place) for place in range(len(found))]


def _describe(pinned: bool) -> DeviceKind:
  if pinned:
    _take_share()
  return devices.kind_of(jax.local_devices()[0])


# --- On the client ---


class Cluster:
  """A connection to a scheduler, or a cluster of this machine's own."""

  def __init__(self, client: Any, is_own: bool):
    """Wraps a Dask client; `is_own` says whether its workers are this process's."""
    self._client, self.is_own = client, is_own
    self._kind: DeviceKind | None = None

  @property
  def device(self) -> DeviceKind:
    """What the workers train on: that of one of them, which all others must have."""
    if self._kind is None:
      self._kind = self._client.submit(_describe, self.is_own, pure=False).result()
    return DeviceKind(*self._kind)

  def train(
    self, job: Job, groups: Sequence[Group], chunks: Sequence[Chunk], progress: Progress
  ) -> Outcome:
    """Trains chunks on the workers; arguments and errors as of `local.train_here`."""
    store = Store(pathlib.Path(job.folder))
    store.join()
    described = tuple(environment.describe().items())
    job = dataclasses.replace(job, run=store.run, environment=described)
    there = local.read_committed(store, groups, chunks, progress).results
    waiting = [chunk for chunk in chunks if chunk not in there]
    failures = {}
    task = functools.partial(train_chunk, job)
    for done, (chunk, result) in enumerate(self.map(task, waiting), 1):
      if isinstance(result, InputError):
        raise result
      if isinstance(result, BaseException):
        failures[chunk] = brief(result)
        if not store.failure_file(chunk.name).exists():
          local.note_failure(store, chunk, result, "with its workers")
        continue
      epochs = groups[chunk.group].recipe.arm.num_epochs
      progress.update(f"{done}/{len(waiting)}", f"{epochs}/{epochs}", *result)
    outcome = local.read_committed(store, groups, chunks, progress)
    num_workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
    return outcome._replace(failures=failures, num_workers=num_workers)

  def map(
    self, function: Callable[[Chunk], Any], chunks: Sequence[Chunk]
  ) -> Iterator[tuple[Chunk, Any]]:
    """Yields each chunk with what the function returns, or the exception that it raises in the end.

    In the order in which they are done. What raises is tried again, as often as `executors` does.

    Raises:
      InputError: the scheduler is gone.
    """
    from distributed import as_completed

    futures = self._client.map(function, chunks, pure=False, retries=local.ATTEMPTS - 1)
    places = {future.key: chunk for future, chunk in zip(futures, chunks, strict=True)}
    try:
      for future in as_completed(futures):
        if future.status not in ("finished", "error"):
          raise InputError("the Dask cluster has gone; once it is back the same command goes on")
        yield places[future.key], future.exception() or future.result()
    finally:
      self._client.cancel(futures)


@contextlib.contextmanager
def connect(
  scheduler: str | None = None,
  scheduler_file: str | None = None,
  num_workers: int | None = None,
) -> Iterator[Cluster]:
  """Connects to a scheduler; without one, starts a cluster on this machine's loopback interface.

  Args:
    scheduler: its address, e.g. "tcp://10.0.0.1:8786" or "tls://...".
    scheduler_file: the file that it wrote with `--scheduler-file`.
    num_workers: to wait for, or to start here; None: one, or one per device or core there is.

  Raises:
    InputError: Dask is not installed, the scheduler is not there or has no worker.
  """
  try:
    import distributed
  except ImportError as error:
    raise InputError("--executor=dask needs Dask: pip install 'jaxdl[cluster]'") from error
  # Workers may have accelerators of this machine, which JAX would claim for the client.
  jax.config.update("jax_platforms", "cpu")
  logging.getLogger("distributed").setLevel(logging.ERROR)
  with contextlib.ExitStack() as stack:
    is_own = scheduler is None and scheduler_file is None
    try:
      if is_own:
        where = stack.enter_context(_local_cluster(distributed, stack, num_workers))
        client = distributed.Client(where)
      else:
        client = _connect(distributed, scheduler, scheduler_file)
      stack.enter_context(client)
      client.wait_for_workers(num_workers or 1, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
      where = scheduler or scheduler_file or "this machine"
      raise InputError(f"no Dask cluster with workers at {where}: {brief(error)}") from error
    yield Cluster(client, is_own)


def _connect(distributed: Any, scheduler: str | None, scheduler_file: str | None) -> Any:
  if scheduler is not None:
    return distributed.Client(scheduler, timeout=_CONNECT_SECONDS)
  if not os.path.isfile(scheduler_file):
    raise OSError("there is no such file")
  return distributed.Client(scheduler_file=scheduler_file, timeout=_CONNECT_SECONDS)


def _local_cluster(distributed: Any, stack: contextlib.ExitStack, num_workers: int | None) -> Any:
  """Returns a cluster that only this machine can reach."""
  return distributed.LocalCluster(
    n_workers=num_workers or len(_accelerators()) or devices.num_cores(),
    threads_per_worker=1,
    host="127.0.0.1",
    dashboard_address="127.0.0.1:0",
    memory_limit=None,  # as in one process: what does not fit is for the system to say
    local_directory=stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxdl-dask-")),
  )
