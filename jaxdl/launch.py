"""A whole run with a report: claim the folder, load, plan, train, compare, commit.

The command line of every experiment parses flags and calls `run`. The same call from Python gives
the same files with the same guarantees: a run that was interrupted continues when `run` is called
again, and a folder that holds a different run is refused.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from jaxdl import answer as answer_lib
from jaxdl import data as data_lib
from jaxdl import experiment as experiment_lib
from jaxdl import recipe, report, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, one_line, show
from jaxdl.experiment import Experiment
from jaxdl.population import array, devices, hosts, local, plan
from jaxdl.population.devices import DeviceKind
from jaxdl.population.local import Execute
from jaxdl.population.plan import Group
from jaxdl.population.programs import Observer
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population
from jaxdl.report import tensorboard as tensorboard_lib
from jaxdl.settings import plain
from jaxdl.store import interrupts
from jaxdl.store.files import expand_home
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")

if TYPE_CHECKING:
  import pandas as pd

EXECUTORS = ("local", "dask", "array", "multihost")
# In the folder of the run: data that other processes cannot load by name.
_DATASET_FILE = "dataset.npz"


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of `run` or `compare`. `print` shows the answer and the verdicts.

  Attributes:
    experiment: what was run.
    population: the trained members.
    verdicts: the verdicts on every metric that has a margin.
    answer: the answer to the experiment's question, in a few sentences.
    workdir: the folder that has the report; None: nothing was written.
  """

  experiment: Experiment
  population: Population
  verdicts: list[stats.Verdict]
  answer: str
  workdir: pathlib.Path | None = None

  @property
  def members(self) -> "pd.DataFrame":
    """A row per member: status, epochs, metrics."""
    return report.members_table(self.population)

  @property
  def curves(self) -> "pd.DataFrame":
    """A row per member and epoch: learning rate, losses, metrics."""
    return report.curves_table(self.population)

  def __str__(self) -> str:
    parts = [one_line(self.experiment.question) + "\n" + one_line(self.answer)]
    shown = answer_lib.shown_verdicts(self.verdicts, self.population)
    if len(shown) < len(self.verdicts):  # of many arms
      metric = next(iter(self.experiment.margins))
      parts.append(report.text_table(report.ranking_rows(shown, self.population, metric)))
    elif shown:
      parts.append(report.text_table(report.verdict_rows(shown)))
    if self.workdir is not None:
      parts.append(f"Report: {one_line(self.workdir / 'report.html')}")
    return "\n\n".join(parts)

  def __repr__(self) -> str:
    return str(self)

  def _repr_html_(self) -> str:
    """Shows the answer, the verdicts and a picture in a notebook."""
    from jaxdl.report import figures, score_plots

    metric = next(iter(self.experiment.margins))
    compared = {arm for verdict in self.verdicts for arm in (verdict.arm_a, verdict.arm_b)}
    arms = [arm for arm in self.population.arms if arm in compared or not compared]
    shown = answer_lib.shown_arms(self.population.select(arms).scores(metric))
    picture = score_plots.metric_distribution(self.population.select(shown), metric)
    return report.html.summary(
      self.experiment.question,
      self.answer,
      answer_lib.shown_verdicts(self.verdicts, self.population),
      figures.png(picture),
      f"{metric} of every member, and the mean of each arm with its 95% interval",
    )


def compare(
  data: Dataset | str,
  arms: Mapping[str, Arm],
  *,
  margins: Mapping[str, float],
  seeds: int | Sequence[int] = 16,
  workdir: str | os.PathLike | None = None,
  question: str | None = None,
  data_dir: str | None = None,
  **settings: Any,
) -> Result:
  """Trains every arm with several seeds and compares the arms.

  Args:
    data: a dataset, or the name of one for `jaxdl.load`.
    arms: name -> arm.
    margins: metric -> the largest difference that counts as none.
    seeds: replications of each arm: how many, or `range(N)`, which says the same.
    workdir: folder for the report and the state of the run, which goes on where it was when it is
      called again; None: nothing is written.
    question: the question in one sentence; "no" must mean that the arms are equivalent.
    data_dir: folder of TFDS datasets; None: $TFDS_DATA_DIR, then TFDS's default.
    **settings: other fields of `Experiment`, and arguments of `run`.

  Raises:
    InputError: a setting is out of range or does not fit the dataset; as of `run`.

  Examples:
    >>> import jaxdl
    >>> arm = jaxdl.Arm(model="mlp(8)", loss="categorical_cross_entropy", num_epochs=1)
    >>> result = jaxdl.compare(
    ...   "digits",
    ...   {"slow": arm, "fast": arm.replace(learning_rate=0.01)},
    ...   seeds=2,
    ...   margins={"test_accuracy": 0.01},
    ...   progress=False,
    ... )
    >>> result.verdicts[0].verdict
    'too few seeds'
    >>> result.members["seed"].tolist()
    [0, 0, 1, 1]
  """
  name, dataset = (data, None) if isinstance(data, str) else (data.name, data)
  fields = {field.name for field in dataclasses.fields(Experiment)}
  options = {key: settings.pop(key) for key in [*settings] if key not in fields}
  experiment = Experiment(
    question=question or f"Do {_listed(arms)} differ on {name}?",
    arms=arms,
    dataset=name,
    num_seeds=_num_seeds(seeds),
    margins=margins,
    **settings,
  )
  if workdir is not None:
    return run(experiment, workdir, dataset=dataset, data_dir=data_dir, **options)
  dataset = experiment_lib.load_dataset(experiment, data_dir, dataset)
  return _judge(experiment, experiment_lib.train_arms(experiment, dataset, **options))


def _num_seeds(seeds: Any) -> Any:
  seeds = plain(seeds)
  if not isinstance(seeds, Sequence) or isinstance(seeds, str):
    return seeds
  if list(seeds) != list(range(len(seeds))):
    raise InputError(f"an experiment trains the seeds 0, 1, 2, ..., not {show(seeds)}")
  return len(seeds)


def _listed(names: Collection[str]) -> str:
  if experiment_lib.is_many(names):
    return f"{len(names):,} arms"
  *others, last = names
  return f"{', '.join(others)} and {last}" if others else last


def _judge(
  experiment: Experiment,
  population: Population,
  shown: Population | None = None,
  workdir: pathlib.Path | None = None,
) -> Result:
  """Returns the result that has the verdicts on the part of a population that is shown."""
  shown = population if shown is None else shown
  verdicts = experiment_lib.compare(experiment, shown)
  answer = answer_lib.answer(verdicts, next(iter(experiment.margins)), shown, experiment.alpha)
  return Result(experiment, population, verdicts, answer, workdir)


def run(
  experiment: Experiment,
  workdir: str | os.PathLike,
  *,
  dataset: Dataset | None = None,
  data_dir: str | None = None,
  overwrite: bool = False,
  resume_anyway: bool = False,
  partial: bool = False,
  until_decided: bool = False,
  executor: str = "local",
  scheduler: str | None = None,
  scheduler_file: str | None = None,
  place: tuple[int, int] = (0, 1),
  checkpoint_every: int | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
  keep_params: bool = True,
  progress: bool = True,
  tensorboard: bool = False,
  choose: Callable[[Experiment, Population], Population] | None = None,
  analyze: Callable[[Experiment, Dataset, Population], report.Extra] | None = None,
) -> Result:
  """Trains the population of an experiment, compares its arms and writes the report.

  Args:
    experiment: the experiment.
    workdir: the folder of the run. If it holds an earlier part of the same run, that is continued.
    dataset: in the place of the one that the experiment names.
    data_dir: folder of TFDS datasets; None: $TFDS_DATA_DIR, then TFDS's default.
    overwrite: start anew, and replace any run in the workdir.
    resume_anyway: continue the run in the workdir although versions, devices or statistics differ.
    partial: train nothing; report what is trained so far, in the subfolder `partial`.
    until_decided: train seeds only until the question is decided, at most `experiment.num_seeds`;
      see `Experiment.until_decided`. A run in the workdir that was planned with fewer seeds is
      continued; see `Experiment.continued_from`.
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
    keep_params: keep every member's variables, for `jaxdl.open_run`; a line says how large they are
      if that is more than 100 MB.
    progress: show progress: a bar on a terminal and in a notebook, elsewhere a line now and then.
    tensorboard: write members as TensorBoard's files while the run trains, to the subfolder
      `run/tensorboard`; see `jaxdl.report.tensorboard.live`.
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
  if tensorboard:
    tensorboard_lib.check_installed()
  _check_arms(experiment, executor)
  kept: dict[str, Any] = {
    "observe": observe,
    "keep_logits": keep_logits,
    "keep_params": keep_params,
  }
  options = {**kept, "checkpoint_every": checkpoint_every}
  workdir = str(expand_home(workdir))
  if until_decided:
    there = None if overwrite else report.continued_from(workdir, experiment)
    experiment = dataclasses.replace(experiment, until_decided=True, continued_from=there)
  _check_looks(experiment, executor, choose is not None)
  _check_resample(experiment, executor, keep_logits)
  with (
    report.Workdir(
      workdir,
      experiment,
      overwrite=overwrite,
      resume_anyway=resume_anyway,
      partial=partial,
      shared=executor == "array" and not partial,
    ) as directory,
    interrupts.interruptible(),
  ):
    whole, dataset = dataset, experiment_lib.load_dataset(experiment, data_dir, dataset)
    interrupts.check()
    with _executing(
      "partial" if partial else executor,
      directory.store,
      dataset,
      functools.partial(_source, experiment, data_dir, dataset, whole, directory.store),
      (scheduler, scheduler_file),
      place,
      options,
    ) as (kind, execute):
      groups = experiment_lib.plan_groups(experiment, dataset, kind)
      directory.claim(dataset, groups, kind, **kept)
      if keep_params:
        _tell_size(groups)
      live = tensorboard_lib.live(directory.store, experiment, dataset, groups)
      with live if tensorboard else contextlib.nullcontext():
        population = experiment_lib.train_arms(
          experiment,
          dataset,
          groups=groups,
          progress=progress,
          store=directory.store,
          execute=execute,
          **options,
        )
      if tensorboard:
        tensorboard_lib.write_missing(directory.store, experiment, population)
    interrupts.check()
    shown = population if choose is None else choose(experiment, population)
    result = _judge(experiment, population, shown, directory.path)
    if directory.take_to_report():
      extra = report.Extra() if analyze is None else analyze(experiment, dataset, population)
      directory.commit(experiment, dataset, population, result.verdicts, extra, shown)
  return result


def _tell_size(groups: Sequence[Group]):
  """Says how large the parameters of all members will be, if that is more than 100 MB."""
  members = [(group.num_params, group.num_seeds * len(group.layout.arms)) for group in groups]
  num_bytes = 4 * sum(params * count for params, count in members)
  if num_bytes > 10**8:
    _LOGGER.info(
      "the parameters of %d members will take %.1f GB of the workdir; --nosave_params "
      "(keep_params=False) leaves them out",
      *(sum(count for _, count in members), num_bytes / 1e9),
    )


def _check_arms(experiment: Experiment, executor: str):
  """Checks what the arms bring, before anything is written."""
  for name, arm in experiment.arms.items():
    if executor != "local" and not arm.is_text:
      raise InputError(
        f"arm {name!r} has a part without an importable name, which other processes cannot build; "
        "put it into a module, and name it as package.module:name"
      )
    recipe.check_own(arm)


def _source(
  experiment: Experiment,
  data_dir: str | None,
  dataset: Dataset,
  whole: Dataset | None,
  store: Store,
) -> experiment_lib.Source:
  """Returns what other processes load the data from: by name, or from a file if there is none."""
  file = None
  if whole is not None:
    file = str(store.folder.absolute() / _DATASET_FILE)
    data_lib.save(whole, file)
  return experiment_lib.Source(experiment.dumps(), _absolute(data_dir), dataset.checksum, file)


def _check_looks(experiment: Experiment, executor: str, chooses: bool):
  if experiment.looks is None:
    return
  if executor == "multihost":
    raise InputError(
      "until_decided is not for the executor multihost: only process 0 knows what is decided"
    )
  if chooses:
    raise InputError(
      "until_decided compares all arms; this experiment chooses some of them after all seeds are "
      "trained"
    )


def _check_resample(experiment: Experiment, executor: str, keep_logits: bool):
  if experiment.resample is None:
    return
  if executor == "multihost":
    raise InputError("resample is for the executors local, dask and array, not for multihost")
  if keep_logits:
    raise InputError(
      "this experiment compares outputs of several seeds on the same test examples, which they do "
      "not have with resample"
    )


def follow(
  experiment: Experiment,
  workdir: str | os.PathLike,
  *,
  dataset: Dataset | None = None,
  data_dir: str | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
  keep_params: bool = True,
):
  """Trains the share of this process in a run on several hosts; process 0 calls `run` instead.

  Args:
    experiment: the same experiment as in process 0. The other arguments must also be the same.
    workdir: the folder of the run, which all processes must see.
    dataset: in the place of the one that the experiment names.
    data_dir: folder of TFDS datasets; None: $TFDS_DATA_DIR, then TFDS's default.
    observe: records more about every member; see `jaxdl.population.programs.Observer`.
    keep_logits: keep every member's logits on the test set.
    keep_params: keep every member's variables.

  Raises:
    InputError: the processes have different runs.
    jaxdl.population.hosts.LostError: another process has ended.
  """
  with interrupts.interruptible():
    dataset = experiment_lib.load_dataset(experiment, data_dir, dataset)
    kind = devices.kind_of(jax.local_devices()[0])
    groups = experiment_lib.plan_groups(experiment, dataset, kind)
    store = Store(expand_home(workdir) / report.RUN)
    settings = {"observe": observe, "keep_logits": keep_logits, "keep_params": keep_params}
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
  source: Callable[[], experiment_lib.Source],
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

      def train(*arguments):
        job = dask.Job(source(), cluster.device, folder, pinned=cluster.is_own, **options)
        return cluster.train(job, *arguments)

      yield cluster.device, train
    return
  settings = {name: of for name, of in options.items() if name != "checkpoint_every"}
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
  return None if path is None else os.path.abspath(expand_home(path))
