"""A whole run with a report: claim the folder, load, plan, train, compare, commit.

The command line of every experiment parses flags and calls `run`. The same call from Python gives
the same files with the same guarantees: a run that was interrupted continues when `run` is called
again, and a folder that holds a different run is refused.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jaxdl import experiment as experiment_lib
from jaxdl import report, stats
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer
from jaxdl.experiment import Experiment
from jaxdl.population import array, devices, hosts, local, plan
from jaxdl.population.devices import DeviceKind
from jaxdl.population.local import Execute
from jaxdl.population.programs import Observer
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population
from jaxdl.store import interrupts
from jaxdl.store.store import Store

EXECUTORS = ("local", "dask", "array", "multihost")


class RunResult(NamedTuple):
  """The result of `run`.

  Attributes:
    population: the trained members.
    verdicts: the verdicts on every metric that has a margin.
    answer: the answer to the experiment's question, in a few sentences.
    workdir: the folder that has the report.
  """

  population: Population
  verdicts: list[stats.Verdict]
  answer: str
  workdir: pathlib.Path


def run(
  experiment: Experiment,
  workdir: str | os.PathLike,
  *,
  data_dir: str | None = None,
  overwrite: bool = False,
  resume_anyway: bool = False,
  partial: bool = False,
  executor: str = "local",
  scheduler: str | None = None,
  scheduler_file: str | None = None,
  place: tuple[int, int] = (0, 1),
  checkpoint_every: int | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
  choose: Callable[[Experiment, Population], Population] | None = None,
  analyze: Callable[[Experiment, Dataset, Population], report.Extra] | None = None,
) -> RunResult:
  """Trains the population of an experiment, compares its arms and writes the report.

  Args:
    experiment: the experiment.
    workdir: the folder of the run. If it holds an earlier part of the same run, that is continued.
    data_dir: folder of TFDS datasets; None: $TFDS_DATA_DIR, then TFDS's default.
    overwrite: start anew, and replace any run in the workdir.
    resume_anyway: continue the run in the workdir although versions, devices or statistics differ.
    partial: train nothing; report what is trained so far, in the subfolder `partial`.
    executor: what trains, one of `EXECUTORS`: "local" (this process), "dask" (Dask
      workers), "array" (this process and others that are called alike, with another `place`) or
      "multihost" (several processes; each calls `jaxdl.population.hosts.join` first, then process 0
      calls `run` and the others `follow`).
    scheduler: address of the Dask scheduler; None: a cluster on this machine.
    scheduler_file: file that the Dask scheduler wrote, in place of its address.
    place: with the executor "array", the index of this process and the number of processes.
    checkpoint_every: epochs between checkpoints of a chunk; None saves every few seconds.
    observe: records more about every member; see `jaxdl.population.programs.Observer`.
    keep_logits: keep every member's logits on the test set.
    choose: selects the part of the population that is compared and shown; None: all of it.
    analyze: returns further sections, pictures and tables for the report.

  Raises:
    InputError: a setting is out of range or does not fit the dataset; the workdir cannot be
      written, is in use, or holds a different run.
    jaxdl.store.interrupts.Interrupted: a signal asked the process to stop; the same call continues.
  """
  if executor not in EXECUTORS:
    raise InputError(f"executor must be one of {', '.join(EXECUTORS)}, not {executor!r}")
  if executor == "array":
    _check_place(place, overwrite)
  options = {"observe": observe, "keep_logits": keep_logits, "checkpoint_every": checkpoint_every}
  with (
    report.Workdir(
      os.path.expanduser(workdir),
      experiment,
      overwrite=overwrite,
      resume_anyway=resume_anyway,
      partial=partial,
      shared=executor == "array" and not partial,
    ) as directory,
    interrupts.interruptible(),
  ):
    dataset = experiment_lib.load_dataset(experiment, data_dir)
    interrupts.check()
    with _executing(
      "partial" if partial else executor,
      directory.store,
      dataset,
      experiment_lib.Source(experiment.dumps(), _absolute(data_dir), dataset.checksum),
      (scheduler, scheduler_file),
      place,
      options,
    ) as (kind, execute):
      groups = experiment_lib.plan_groups(experiment, dataset, kind)
      directory.claim(dataset, groups, kind, observe, keep_logits)
      population = experiment_lib.train_arms(
        experiment, dataset, groups=groups, store=directory.store, execute=execute, **options
      )
    interrupts.check()
    shown = population if choose is None else choose(experiment, population)
    verdicts = experiment_lib.compare(experiment, shown)
    if directory.take_to_report():
      extra = report.Extra() if analyze is None else analyze(experiment, dataset, population)
      directory.commit(experiment, dataset, population, verdicts, extra, shown)
  answer = experiment_lib.answer(verdicts, next(iter(experiment.margins)), shown)
  return RunResult(population, verdicts, answer, directory.path)


def follow(
  experiment: Experiment,
  workdir: str | os.PathLike,
  *,
  data_dir: str | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
):
  """Trains the share of this process in a run on several hosts; process 0 calls `run` instead.

  Args:
    experiment: the same experiment as in process 0. The other arguments must also be the same.
    workdir: the folder of the run, which all processes must see.
    data_dir: folder of TFDS datasets; None: $TFDS_DATA_DIR, then TFDS's default.
    observe: records more about every member; see `jaxdl.population.programs.Observer`.
    keep_logits: keep every member's logits on the test set.

  Raises:
    InputError: the processes have different runs.
    jaxdl.population.hosts.LostError: another process has ended.
  """
  with interrupts.interruptible():
    dataset = experiment_lib.load_dataset(experiment, data_dir)
    kind = devices.kind_of(jax.local_devices()[0])
    groups = experiment_lib.plan_groups(experiment, dataset, kind)
    store = Store(pathlib.Path(workdir).expanduser() / report.RUN)
    settings = {"observe": observe, "keep_logits": keep_logits}
    chunks = plan.all_chunks(groups)
    hosts.train_across_hosts(dataset, store, settings, groups, chunks, Progress())


def _check_place(place: tuple[int, int], overwrite: bool):
  check_integer("count", place[1], 1)
  check_integer("index", place[0], 0, place[1] - 1)
  if overwrite:
    raise InputError(
      "one process of an array must not start anew what others have begun; choose another workdir"
    )


@contextlib.contextmanager
def _executing(
  executor: str,
  store: Store,
  dataset: Dataset,
  source: experiment_lib.Source,
  scheduler: tuple[str | None, str | None],
  place: tuple[int, int],
  options: dict[str, Any],
) -> Iterator[tuple[DeviceKind, Execute | None]]:
  """Yields the kind of device to plan for, and the executor; None: workers of this process."""
  if executor == "dask":
    from jaxdl.population import dask  # imported here because Dask is optional

    address, file = scheduler
    with dask.connect(address, file) as cluster:
      folder = str(store.folder.absolute())
      job = dask.Job(source, cluster.device, folder, pinned=cluster.is_own, **options)
      yield cluster.device, functools.partial(cluster.train, job)
    return
  settings = {name: options[name] for name in ("observe", "keep_logits")}
  execute = {
    "local": None,
    "partial": functools.partial(local.read_committed, store),
    "array": functools.partial(
      array.train_share, dataset, devices.workers(), store, options, place
    ),
    "multihost": functools.partial(hosts.train_across_hosts, dataset, store, settings),
  }[executor]
  yield devices.kind_of(jax.local_devices()[0]), execute


def _absolute(path: str | None) -> str | None:
  return None if path is None else os.path.abspath(os.path.expanduser(path))
