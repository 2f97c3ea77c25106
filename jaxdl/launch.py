"""A whole run with a report: claim the folder, load, plan, train, compare, commit.

The command line of every experiment is flags and a call of `run`; from Python the same call gives
the same files, with the same guarantees: a run that is cut short goes on where it was when it is
called again, and a folder that holds another run is refused.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
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
  """What `run` gives.

  Attributes:
    population: all members, trained.
    verdicts: on every metric that has a margin.
    answer: to the experiment's question, in a sentence.
    workdir: where the report is.
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
  checkpoint_every: int | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
  choose: Callable[[Experiment, Population], Population] | None = None,
  analyze: Callable[[Experiment, Dataset, Population], report.Extra] | None = None,
) -> RunResult:
  """Trains the population of an experiment, compares its arms and writes the report.

  Args:
    experiment: what to do.
    workdir: the folder of the run. If it holds the same run, begun before, that goes on.
    data_dir: where TFDS datasets are; None: $TFDS_DATA_DIR, then TFDS's own.
    overwrite: start anew, whatever run is in the workdir.
    resume_anyway: go on with the run in the workdir although something differs.
    partial: train nothing; report what is trained so far, in the folder `partial`.
    executor: one of `EXECUTORS`: this process, workers of Dask, or several processes as one, in
      which case `jaxdl.population.hosts.join` comes first and the other processes call `follow`.
    scheduler: address of the Dask scheduler; None: a cluster on this machine.
    scheduler_file: file that the Dask scheduler wrote, instead of its address.
    checkpoint_every: epochs from one checkpoint of a chunk to the next; None: as often as costs
      little.
    observe: what else to record of every member along its training.
    keep_logits: keep every member's logits of the test set.
    choose: the part of the population that is compared and shown; None: all of it.
    analyze: what the report shows besides what every report shows.

  Raises:
    InputError: for settings that do not fit; the workdir cannot be written, is in use, or holds
      another run.
    jaxdl.store.interrupts.Interrupted: a signal asked the process to stop; the same call goes on.
  """
  if executor not in EXECUTORS:
    raise InputError(f"executor must be one of {', '.join(EXECUTORS)}, not {executor!r}")
  options = {"observe": observe, "keep_logits": keep_logits, "checkpoint_every": checkpoint_every}
  with (
    report.Workdir(
      os.path.expanduser(workdir),
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


def follow(
  experiment: Experiment,
  workdir: str | os.PathLike,
  *,
  data_dir: str | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
):
  """Trains this process's part of a run over several processes, the first of which calls `run`.

  Args:
    experiment: as of `run`, like all that follow.
    workdir: which all processes see.
    data_dir: where TFDS datasets are.
    observe: what else to record.
    keep_logits: keep logits of the test set.

  Raises:
    InputError: the processes are not about the same run.
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
  scheduler: Sequence[str | None],
  options: dict[str, Any],
) -> Iterator[tuple[DeviceKind, Execute | None]]:
  """Yields what chunks are planned for, and what trains them; None: workers of this process."""
  if executor == "dask":
    from jaxdl.population import dask  # imported here because Dask is optional

    with dask.connect(*scheduler) as cluster:
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
