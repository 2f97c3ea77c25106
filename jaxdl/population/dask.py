"""One population on many machines: a chunk is a Dask task, and Dask reruns those of lost workers.

Workers are `dask worker` processes with jaxdl installed, one per device or core. Each loads the
dataset once, trains the chunks that it is given as any other process would, and commits them to the
workdir, which all machines must see. Only the names of chunks and a few counts travel over the
network.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import pickle
import pydoc
import re
import subprocess
import threading
import time
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
from jaxdl.store import interrupts, locks
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")

# How long a scheduler may take to answer, or to have workers, and a worker to import what it needs.
_CONNECT_SECONDS = 60
_ATTEMPT_SECONDS = 5
_ANSWER_SECONDS = 300
_POLL_SECONDS = 0.02


# Loads the data and plans the chunks of a run for a kind of device. It must be hashable, compare by
# value, and pickle by reference, so that it can be sent to workers.
Prepare = Callable[[DeviceKind], tuple[Dataset, list[Group]]]


@dataclasses.dataclass(frozen=True)
class Job:
  """What a worker needs to know about a run, besides the chunk to train.

  Attributes:
    prepare: loads the data and plans the chunks.
    device: the kind of device that the chunks are planned for.
    folder: the folder of the store, which all workers see.
    run: the store's run; a worker stops once another run has taken the folder.
    environment: of the client, as `environment.describe` gives it; the workers' must be the same.
    observe: the observer; see `jaxdl.population.programs.Observer`.
    keep_logits: keep every member's logits on the test set.
    keep_params: keep every member's variables.
    checkpoint_every: epochs between checkpoints of a chunk; None: chosen by time.
    pinned: whether all workers run on one machine and must divide its cores or GPUs among them.
  """

  prepare: Prepare
  device: DeviceKind
  folder: str
  run: str | None = None
  environment: tuple[tuple[str, Any], ...] = ()
  observe: Observer | None = None
  keep_logits: bool = False
  keep_params: bool = False
  checkpoint_every: int | None = None
  pinned: bool = False


class Counts(NamedTuple):
  """What a worker reports about a chunk that it has committed, for `Progress.update`."""

  trained: int  # member-epochs
  skipped: int  # member-epochs that were not needed, because members stopped
  finished: int  # members


# --- On a worker ---


def train_chunk(job: Job, chunk: Chunk) -> Counts:
  """Trains a chunk on this worker and commits its results to the store."""
  store = Store(pathlib.Path(job.folder), job.run)
  try:
    store.check_run()
    # A worker that Dask believes lost may still be training the same chunk.
    with locks.exclusive(store.folder / "locks" / chunk.name):
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
  """Loads the dataset and plans the run, once per worker."""
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
    keep_params=job.keep_params,
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
  """Restricts this worker to its own core or accelerator, before JAX counts them.

  XLA starts one thread per visible core. Two workers that shared two cores were each a third slower
  on convolutions than on one core of their own.
  """
  from distributed import get_worker

  place = int(get_worker().name)
  if _accelerators():
    os.environ["CUDA_VISIBLE_DEVICES"] = _accelerators()[place]
  elif hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    # Threads that Dask has already started need pinning too: their work is this worker's, and would
    # otherwise slow the worker on another core.
    for thread in os.listdir("/proc/self/task"):
      with contextlib.suppress(ProcessLookupError):  # the thread has ended
        os.sched_setaffinity(int(thread), {cores[place % len(cores)]})


def _accelerators() -> list[str]:
  """Returns the NVIDIA GPUs of this machine, found without JAX, which would claim their memory."""
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
  """A Dask cluster: either an existing one, or one that this process has started."""

  def __init__(self, client: Any, is_own: bool):
    """Wraps a Dask client; `is_own` says whether this process has started its workers."""
    self._client, self.is_own = client, is_own
    self._kind: DeviceKind | None = None

  @property
  def device(self) -> DeviceKind:
    """The kind of device of one worker; all other workers must have the same."""
    if self._kind is None:
      try:
        for address, reason in self._without_jaxdl().items():
          raise ImportError(f"{reason} on the worker at {address}")
        future = self._client.submit(_describe, self.is_own, pure=False)
        _wait_for("a worker to say what its device is", future.done, _ANSWER_SECONDS)
        self._kind = future.result()
      except Exception as error:
        raise InputError(
          f"a worker cannot run jaxdl, which all workers need, installed alike: {brief(error)}"
        ) from error
    return DeviceKind(*self._kind)

  def _workers(self) -> dict[str, Any]:
    """Returns the workers by address."""
    return self._client.scheduler_info(n_workers=-1)["workers"]

  def _without_jaxdl(self) -> dict[str, str]:
    """Returns the workers that cannot import this module: address -> why."""
    name = f"{__name__}.Job"  # found by a function that every Python has
    # Not as a task, for which a worker that trains would have no time.
    answers = self._client.run(pydoc.locate, name, on_error="return")
    found = {}
    for address, answer in answers.items():
      if answer is None:
        found[address] = f"no module named {__name__}"
      elif isinstance(answer, Exception) and not isinstance(answer, OSError):  # that is: has left
        found[address] = brief(answer)
    return found

  def train(
    self, job: Job, groups: Sequence[Group], chunks: Sequence[Chunk], progress: Progress
  ) -> Outcome:
    """Trains chunks on the workers.

    Args:
      job: what the workers need to know about the run.
      groups: the groups of the population.
      chunks: the chunks to train, in the order in which they are started.
      progress: told about every chunk that is done.

    Raises:
      InputError: the user must fix something; trying again would not help.
    """
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
    return outcome._replace(failures=failures, num_workers=len(self._workers()))

  def map(
    self, function: Callable[[Chunk], Any], chunks: Sequence[Chunk]
  ) -> Iterator[tuple[Chunk, Any]]:
    """Yields each chunk with the function's result, or with the exception of its last attempt.

    Chunks come in the order in which they finish. One that raises is tried again, up to
    `local.ATTEMPTS` attempts in all. A worker that has joined without jaxdl is sent away, and what
    it was given is done by another.

    Raises:
      InputError: the connection to the scheduler is lost.
    """
    from distributed import as_completed
    from distributed.protocol.pickle import dumps

    waiting = as_completed()
    futures: dict[str, tuple[Any, Chunk]] = {}

    def submit(some: Sequence[Chunk]):
      tasks = [dumps(_Call(function, chunk)) for chunk in some]
      made = self._client.map(pickle.loads, tasks, pure=False, retries=local.ATTEMPTS - 1)
      futures.update({f.key: (f, chunk) for f, chunk in zip(made, some, strict=True)})
      waiting.update(made)

    num_sent_away, again = 0, collections.Counter[Chunk]()
    try:
      submit(chunks)
      while not waiting.is_empty():
        interrupts.check()
        for future in waiting.next_batch(block=False):
          if future.status not in ("finished", "error"):
            raise InputError("lost the Dask cluster; run the same command again to continue")
          _, chunk = futures.pop(future.key)
          error = future.exception()
          if _is_without_jaxdl(error):
            num_sent_away += self._send_away()
            if again[chunk] < num_sent_away:
              again[chunk] += 1
              submit([chunk])
              continue
          yield chunk, error or future.result()
        time.sleep(_POLL_SECONDS)
    finally:
      self._client.cancel([future for future, _ in futures.values()])

  def _send_away(self) -> int:
    """Ends the workers that have joined without jaxdl, and says so; returns how many."""
    found = self._without_jaxdl()
    for address, reason in found.items():
      _LOGGER.warning("the worker at %s is not used, without jaxdl: %s", address, reason)
    if found:
      self._client.retire_workers(list(found), close_workers=True)
    return len(found)


class _Call:
  """A call that is made where this is unpickled.

  A worker that cannot import what it needs then fails in one task. If it could not even read its
  tasks, Dask would end it without a word, and give up on tasks that have ended several workers.
  """

  def __init__(self, function: Callable[[Chunk], Any], chunk: Chunk):
    self._function, self._chunk = function, chunk

  def __reduce__(self):
    return self._function, (self._chunk,)


def _is_without_jaxdl(error: BaseException | None) -> bool:
  name = getattr(error, "name", None) if isinstance(error, ImportError) else None
  return str(name).partition(".")[0] == __name__.partition(".")[0]


@contextlib.contextmanager
def connect(
  scheduler: str | None = None,
  scheduler_file: str | None = None,
  num_workers: int | None = None,
) -> Iterator[Cluster]:
  """Connects to a scheduler, or starts a cluster that only this machine can reach.

  Args:
    scheduler: address of the scheduler, e.g. "tcp://10.0.0.1:8786" or "tls://...".
    scheduler_file: the file that the scheduler wrote, as named by its `--scheduler-file`. Without
      this and `scheduler`, a cluster is started here.
    num_workers: workers to wait for, or to start here; None waits for one, or starts one per GPU or
      core.

  Raises:
    InputError: Dask is not installed, or the scheduler cannot be reached or has too few workers.
  """
  try:
    import distributed
  except ImportError as error:
    raise InputError("--executor=dask needs Dask: pip install 'jaxdl[cluster]'") from error
  # The client needs no accelerator; claiming one would take it from a worker on this machine.
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
      _wait_for(
        f"workers at {client.scheduler.address}",
        lambda: len(client.scheduler_info(n_workers=-1)["workers"]) >= (num_workers or 1),
        _CONNECT_SECONDS,
      )
    except (OSError, ValueError, TimeoutError) as error:
      where = scheduler or scheduler_file or "this machine"
      raise InputError(f"no Dask cluster with workers at {where}: {brief(error)}") from error
    yield Cluster(client, is_own)


def _connect(distributed: Any, scheduler: str | None, scheduler_file: str | None) -> Any:
  address = _read_address(scheduler_file) if scheduler is None else scheduler
  port = re.search(r":(\d+)/?$", address)
  if port is not None and int(port[1]) >= 2**16:
    raise ValueError(f"there is no port {port[1]}")
  last = time.monotonic() + _CONNECT_SECONDS
  with interrupts.waiting(f"the Dask scheduler at {address}"):
    while True:
      try:
        return distributed.Client(address, timeout=_ATTEMPT_SECONDS)
      except OSError:  # and timeouts, which are among them
        if time.monotonic() > last:
          raise
      interrupts.check()


def _create_security(distributed: Any, folder: pathlib.Path) -> Any:
  """Makes a key and a certificate for one cluster. Raises OSError or ValueError."""
  key, certificate = folder / "key.pem", folder / "certificate.pem"
  curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
  files_of = ("-keyout", str(key), "-out", str(certificate))
  command = ["openssl", "req", "-x509", *curve, *files_of, "-days", "365", "-subj", "/CN=jaxdl"]
  made = subprocess.run(command, capture_output=True, text=True, check=False)
  if made.returncode:
    raise ValueError(f"openssl makes no key: {made.stderr.strip()}")
  roles = ("client", "scheduler", "worker")
  return distributed.Security(
    require_encryption=True,
    tls_ca_file=str(certificate),
    **{f"tls_{role}_key": str(key) for role in roles},
    **{f"tls_{role}_cert": str(certificate) for role in roles},
  )


def _read_address(scheduler_file: str | None) -> str:
  """Returns the address of the scheduler that wrote a file. Raises OSError or ValueError."""
  if scheduler_file is None or not os.path.isfile(scheduler_file):
    raise OSError("no such file")
  try:
    address = json.loads(pathlib.Path(scheduler_file).read_text(encoding="utf-8"))["address"]
  except (LookupError, TypeError, ValueError, RecursionError) as error:
    raise ValueError("no scheduler has written this file") from error
  if not isinstance(address, str):
    raise ValueError("no scheduler has written this file")
  return address


def _wait_for(what: str, condition: Callable[[], bool], seconds: float):
  """Waits until a condition holds; says so if it takes long. Raises TimeoutError."""
  last = time.monotonic() + seconds
  with interrupts.waiting(what):
    while not condition():
      if time.monotonic() > last:
        raise TimeoutError(f"waited {seconds:g} s for {what}")
      interrupts.check()
      time.sleep(_POLL_SECONDS)


def _local_cluster(distributed: Any, stack: contextlib.ExitStack, num_workers: int | None) -> Any:
  """Starts a cluster that only this process can use, on the loopback interface."""
  import dask

  # Not all that Dask writes goes to its local directory.
  folder = stack.enter_context(interrupts.temporary_folder("jaxdl-dask-"))
  # Nor is all that it listens for protected by a key: nothing is served over HTTP.
  roles = ("scheduler", "worker", "nanny")
  routes: dict[str, Any] = {f"distributed.{role}.http.routes": [] for role in roles}
  stack.enter_context(dask.config.set({"temporary-directory": folder, **routes}))
  # Any account of this machine could otherwise run code on the workers.
  security = _create_security(distributed, pathlib.Path(folder))
  with interrupts.spared():
    return distributed.LocalCluster(
      security=security,
      protocol="tls://",
      n_workers=num_workers or len(_accelerators()) or devices.num_cores(),
      threads_per_worker=1,
      host="127.0.0.1",
      dashboard_address="127.0.0.1:0",
      memory_limit=None,  # leave it to the system, as in a run without Dask
      silence_logs=logging.ERROR,
      local_directory=folder,
    )
