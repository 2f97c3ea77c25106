"""A whole run with a report: claim the folder, load, plan, train, compare, commit.

The command line of every experiment parses flags and calls `run`. The same call from Python gives
the same files with the same guarantees: a run that was interrupted continues when `run` is called
again, and a folder that holds a different run is refused.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jaxdl import experiment as experiment_lib
from jaxdl import report, stats
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import devices, hosts, local, plan
from jaxdl.population.devices import DeviceKind
from jaxdl.population.local import Execute
from jaxdl.population.programs import Observer
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population
from jaxdl.store import interrupts
from jaxdl.store.store import Store

EXECUTORS = ("local", "dask", "multihost")


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
  until_decided: bool = False,
  executor: str = "local",
  scheduler: str | None = None,
  scheduler_file: str | None = None,
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
    resume_anyway: continue the run in the workdir although something differs.
    partial: train nothing; report what is trained so far, in the subfolder `partial`.
    until_decided: train seeds only until the question is decided, at most `experiment.num_seeds`;
      see `Experiment.until_decided`. A run in the workdir that was planned with fewer seeds is
      continued; see `Experiment.continued_from`.
    executor: what trains, one of `EXECUTORS`: "local" (this process), "dask" (Dask workers) or
      "multihost" (several processes; each calls `jaxdl.population.hosts.join` first, then process 0
      calls `run` and the others `follow`).
    scheduler: address of the Dask scheduler; None: a cluster on this machine.
    scheduler_file: file that the Dask scheduler wrote, in place of its address.
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
  options = {"observe": observe, "keep_logits": keep_logits, "checkpoint_every": checkpoint_every}
  workdir = os.path.expanduser(workdir)
  if until_decided:
    there = None if overwrite else report.continued_from(workdir, experiment)
    experiment = dataclasses.replace(experiment, until_decided=True, continued_from=there)
  _check_looks(experiment, executor, choose is not None)
  with (
    report.Workdir(
      workdir,
      experiment,
      overwrite=overwrite,
      resume_anyway=resume_anyway,
      partial=partial,
    ) as directory,
    interrupts.interruptible(),
  ):
    dataset = experiment_lib.load_dataset(experiment, data_dir)
    with _executing(
      "partial" if partial else executor,
      directory.store,
      dataset,
      experiment_lib.Source(experiment.dumps(), _absolute(data_dir), dataset.checksum),
      (scheduler, scheduler_file),
      options,
    ) as (kind, execute):
      groups = experiment_lib.plan_groups(experiment, dataset, kind)
      directory.claim(dataset, groups, kind, observe, keep_logits)
      population = experiment_lib.train_arms(
        experiment, dataset, groups=groups, store=directory.store, execute=execute, **options
      )
    shown = population if choose is None else choose(experiment, population)
    verdicts = experiment_lib.compare(experiment, shown)
    extra = report.Extra() if analyze is None else analyze(experiment, dataset, population)
    directory.commit(experiment, dataset, population, verdicts, extra, shown)
  answer = experiment_lib.answer(verdicts, next(iter(experiment.margins)), shown)
  return RunResult(population, verdicts, answer, directory.path)


def _check_looks(experiment: Experiment, executor: str, chooses: bool):
  if experiment.looks is None:
    return
  if executor == "multihost":
    raise InputError("until_decided is for the executors local and dask, not for multihost")
  if chooses:
    raise InputError(
      "until_decided compares all arms; this experiment chooses some of them after all seeds are "
      "trained"
    )


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


@contextlib.contextmanager
def _executing(
  executor: str,
  store: Store,
  dataset: Dataset,
  source: experiment_lib.Source,
  scheduler: tuple[str | None, str | None],
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
    "multihost": functools.partial(hosts.train_across_hosts, dataset, store, settings),
  }[executor]
  yield devices.kind_of(jax.local_devices()[0]), execute


def _absolute(path: str | None) -> str | None:
  return None if path is None else os.path.abspath(os.path.expanduser(path))
