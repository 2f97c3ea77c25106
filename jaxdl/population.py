"""Populations: the functions of `jaxdl.train` mapped over seeds and arms.

Arms are grouped by recipe, one compiled program each, and the members of a group, axes [S, A], are
cut into chunks that train at the same time. Workers take chunks off one list: a thread per
accelerator, or per core of a CPU, none of which ever waits for another.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import arm as arm_lib
from jaxdl import chunks, devices, losses, metrics, stats, train
from jaxdl.arm import Arm, Hyperparams, Recipe
from jaxdl.errors import InputError, check_integer, unknown_name
from jaxdl.progress import Progress
from jaxdl.types import Dataset

CURVES = ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
_TEST_RATES = ("test_accuracy", "precision", "recall", "f1")
# Metrics in [0, 1], shown in percent.
RATES = ("val_accuracy", *_TEST_RATES, *(f"{name}_at_half" for name in _TEST_RATES))
# Of `jaxdl.experiment.epochs_to`.
EPOCHS_TO_TARGET = "epochs_to_target"
# Metrics of which less is better.
_LOWER_IS_BETTER = ("train_loss", "val_loss", "test_loss", "epochs", EPOCHS_TO_TARGET)


@dataclasses.dataclass(frozen=True)
class Population:
  """All members of an experiment, trained; axes as in `jaxdl.types`, N being test examples.

  A member that diverged has NaN as every metric and no counts in `confusion`.

  Attributes:
    seeds: `[S]`.
    arms: name -> arm, `[A]`, in the order in which they were given.
    class_names: `[C]`.
    test_labels: `[N]`.
    status: `[S, A]` str: finished, early_stopped or diverged.
    epochs: `[S, A]` int, epochs trained; of a diverged member, with the one it diverged in.
    best_epoch: `[S, A]` int, of the lowest validation loss, counted from 1; 0 without validation.
    num_params: `[S, A]` int.
    curves: name in `CURVES` -> `[S, A, E]`, NaN after a member's last epoch.
    metrics: name in `metric_names(...)`, "epochs" apart -> `[S, A]`, of the reported weights.
    confusion: `[S, A, C, C]` int, rows true, columns predicted, at the arm's threshold.
    confusion_at_half: the same at threshold 0.5; None where no model has a threshold.
    mean_probabilities: `[A, N, C]`, over the seeds that did not diverge.
    train_seconds: `[S, A]`, a worker's time for a chunk shared between its members, without
      compiling. Workers work at the same time, so their sum is more than what passed.
    compile_seconds: of all programs.
    chunks: one plan per program.
    observations: name -> arm -> `[S, E + 1, ...]`, what was observed at initialisation and after
      every epoch, of the weights as they were then; NaN some time after a member has stopped, at
      the latest once all members of a chunk have.
    logits: arm -> `[S, N, C]` on the test set; None unless they were to be kept.
  """

  seeds: tuple[int, ...]
  arms: dict[str, Arm]
  class_names: tuple[str, ...]
  test_labels: np.ndarray
  status: np.ndarray
  epochs: np.ndarray
  best_epoch: np.ndarray
  num_params: np.ndarray
  curves: dict[str, np.ndarray]
  metrics: dict[str, np.ndarray]
  confusion: np.ndarray
  confusion_at_half: np.ndarray | None
  mean_probabilities: np.ndarray
  train_seconds: np.ndarray
  compile_seconds: float
  chunks: tuple["ChunkPlan", ...]
  observations: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
  logits: dict[str, np.ndarray] | None = None

  def scores(self, metric: str) -> stats.Scores:
    """Returns one metric of all members for `jaxdl.stats`, NaN where a member diverged.

    Raises:
      InputError: when there is no such metric.
    """
    if metric not in self.metrics and metric != "epochs":
      raise unknown_name("metric", metric, [*self.metrics, "epochs"])
    diverged = self.status == "diverged"
    values = self.epochs.astype(float) if metric == "epochs" else self.metrics[metric]
    return stats.Scores(
      metric=metric,
      values=np.where(diverged, np.nan, values),
      seeds=self.seeds,
      arms=tuple(self.arms),
      axes=stats.AXES,
      higher_is_better=higher_is_better(metric),
    )

  def select(self, arms: Sequence[str]) -> "Population":
    """Returns the same population with some of its arms only, in the order in which they are named.

    Raises:
      InputError: when there is no such arm.
    """
    for arm in arms:
      if arm not in self.arms:
        raise unknown_name("arm", arm, self.arms)
    places = [list(self.arms).index(arm) for arm in arms]
    at_half = None if self.confusion_at_half is None else self.confusion_at_half[:, places]
    return dataclasses.replace(
      self,
      arms={arm: self.arms[arm] for arm in arms},
      status=self.status[:, places],
      epochs=self.epochs[:, places],
      best_epoch=self.best_epoch[:, places],
      num_params=self.num_params[:, places],
      curves={name: curve[:, places] for name, curve in self.curves.items()},
      metrics={name: values[:, places] for name, values in self.metrics.items()},
      confusion=self.confusion[:, places],
      confusion_at_half=at_half,
      mean_probabilities=self.mean_probabilities[places],
      train_seconds=self.train_seconds[:, places],
      observations={n: {a: of[a] for a in arms} for n, of in self.observations.items()},
      logits=None if self.logits is None else {arm: self.logits[arm] for arm in arms},
    )


class ChunkPlan(NamedTuple):
  """How one program's members are cut into chunks; only at equal widths are bits equal."""

  arms: tuple[str, ...]
  chunk_size: int  # seeds that train at a time, on one worker
  chunk_arms: int  # arms that train with each of them: all of the program, or one
  num_chunks: int
  num_workers: int
  batch_size: int  # examples per step, at most all there are
  slice_size: int  # examples that pass through the model at once


class _TestResult(NamedTuple):
  loss: jax.Array  # []
  logits: jax.Array  # [N, C]
  predicted: jax.Array  # [N] int32, at the arm's threshold
  predicted_at_half: jax.Array  # [N] int32, at threshold 0.5


# What else to record of a member, at initialisation and after every epoch: a pure function
# `(recipe, params, hyper, train, validation, test) -> {name: array}`, the last three the splits.
Observer = Callable[
  [Recipe, dict, Hyperparams, train.Examples, train.Examples, train.Examples], dict[str, jax.Array]
]


class Programs(NamedTuple):
  """What trains the chunks of one group; see `compile_programs`."""

  create: Callable
  train_epoch: Callable
  test: Callable
  observe: Callable = lambda *_: {}  # without an observer nothing is compiled, nor run


def train_population(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  *,
  seeds: int | Sequence[int],
  root_seed: int = 0,
  chunk_size: int | None = None,
  slice_size: int | None = None,
  workers: Sequence[jax.Device] | None = None,
  progress: Progress | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
) -> Population:
  """Trains every arm with every seed and tests the trained models.

  Args:
    dataset: what to train, validate and test on.
    arms: name -> arm, A of them.
    seeds: S replications per arm: how many, or which ones (16 means 0, 1, ... 15). A replication
      is the same whatever S and A are.
    root_seed: of all randomness.
    chunk_size: seeds that train at a time on a worker, with all arms of their program; None chooses
      by model, backend and memory.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    workers: the device of every worker; a CPU can have several, each a core of it. None: all
      there are.
    progress: told about every epoch.
    observe: what else to record of every member along its training; see `Observer`.
    keep_logits: keep every member's logits of the test set, S * A * N * C numbers.

  Returns:
    The population. The same arguments give the same population on the same kind of device.

  Raises:
    InputError: for settings that do not fit the dataset or are out of range.
  """
  seeds = _check_seeds(seeds, root_seed)
  _check(dataset, arms, chunk_size, slice_size)
  workers = tuple(devices.workers() if workers is None else workers)
  sizes = chunks.slice_sizes(slice_size, workers[0].platform)
  recipes = arm_lib.group_by_recipe(arms, dataset.num_classes, len(dataset.train), sizes)
  groups = [
    plan_group(dataset, recipe, {n: arms[n] for n in names}, seeds, root_seed, chunk_size, workers)
    for recipe, names in recipes.items()
  ]
  progress = progress or Progress()
  progress.start(len(arms) * len(seeds), sum(arm.num_epochs for arm in arms.values()) * len(seeds))
  try:
    trained = _train_groups(dataset, groups, workers, observe, keep_logits, progress)
  finally:
    progress.close()
  return _assemble(dataset, arms, seeds, trained)


def higher_is_better(metric: str) -> bool:
  """Whether more of a metric is better, as of an accuracy; not so of losses and epochs."""
  return metric not in _LOWER_IS_BETTER


def metric_names(arms: Mapping[str, Arm], dataset: Dataset) -> tuple[str, ...]:
  """Returns the metrics that a population of these arms will have, in the order of its table."""
  names = ["train_loss", "val_loss", "val_accuracy"] if len(dataset.validation) else ["train_loss"]
  names += ["test_loss", *_TEST_RATES]
  if _has_threshold(arms, dataset.num_classes):
    names += [f"{name}_at_half" for name in _TEST_RATES]
  return (*names, "epochs")


def _check_seeds(seeds: int | Sequence[int], root_seed: int) -> tuple[int, ...]:
  """Returns which seeds are meant."""
  if not isinstance(seeds, Sequence):
    check_integer("seeds", seeds, 1)
    seeds = range(seeds)
  seeds = tuple(seeds)
  if not seeds or len(set(seeds)) < len(seeds):
    raise InputError(f"seeds must be one or more different integers, not {seeds!r}")
  for name, value in (("root_seed", root_seed), *(("a seed", seed) for seed in seeds)):
    check_integer(name, value, 0, 2**32 - 1)
  return seeds


def _check(dataset, arms, chunk_size, slice_size):
  for name, value in (("chunk_size", chunk_size), ("slice_size", slice_size)):
    if value is not None:
      check_integer(name, value, 1)
  if not arms:
    raise InputError("there is no arm to train")
  for name, arm in arms.items():
    if len(dataset.validation) == 0 and arm.needs_validation:
      raise InputError(
        f"arm {name!r} needs a validation set (patience={arm.patience}, plateau_patience="
        f"{arm.plateau_patience}, restore_best={arm.restore_best}), but no part of the training "
        "set is kept for it; set a validation fraction, or patience=None and "
        "plateau_patience=None (-1 in a config) and restore_best=False"
      )


class Group(NamedTuple):
  """The arms of one program and how their members are cut into chunks."""

  recipe: Recipe
  plan: ChunkPlan
  hyper: Hyperparams  # [A, ...], on the host
  keys: jax.Array  # [s * number of chunks along the seeds] keys, the last one repeated
  num_seeds: int
  num_params: int

  def chunks(self) -> list[tuple[int, int]]:
    """Returns where each chunk starts, `(seed, arm)`, arms innermost."""
    seeds = range(0, self.num_seeds, self.plan.chunk_size)
    return list(itertools.product(seeds, range(0, len(self.plan.arms), self.plan.chunk_arms)))

  def arguments(self, chunk: tuple[int, int]) -> tuple[jax.Array, Hyperparams]:
    """Returns a chunk's keys `[s]` and settings `[a, ...]`."""
    seed, arm = chunk
    hyper = jax.tree.map(lambda leaf: leaf[arm : arm + self.plan.chunk_arms], self.hyper)
    return self.keys[seed : seed + self.plan.chunk_size], hyper


class _Trained(NamedTuple):
  """What the training of one program gives, S and A being its own."""

  plan: ChunkPlan
  state: train.MemberState  # [S, A] without parameters
  num_params: int
  curves: train.EpochMetrics  # [S, A, E]
  test_loss: np.ndarray  # [S, A]
  predicted: np.ndarray  # [S, A, N]
  predicted_at_half: np.ndarray  # [S, A, N]
  mean_probabilities: np.ndarray  # [A, N, C]
  observations: dict[str, np.ndarray]  # [S, A, E + 1, ...]
  logits: np.ndarray | None  # [S, A, N, C]
  train_seconds: np.ndarray  # [S, A]
  compile_seconds: float


def plan_group(
  dataset: Dataset,
  recipe: Recipe,
  arms: Mapping[str, Arm],
  seeds: Sequence[int],
  root_seed: int,
  chunk_size: int | None,
  workers: Sequence[jax.Device],
) -> Group:
  """Decides how the members of one program are cut into chunks.

  Args:
    dataset: what they train on.
    recipe: the static settings.
    arms: name -> arm, those that share the recipe.
    seeds: S of them.
    root_seed: of all randomness.
    chunk_size: as `train_population` takes it.
    workers: the device of every worker.
  """
  num_steps = -(-len(dataset.train) // recipe.batch_size)
  hyper = [arm_lib.hyperparams(arm, recipe, num_steps) for arm in arms.values()]
  hyper = jax.tree.map(lambda *leaves: np.stack(leaves), *hyper)  # [A, ...]
  image_shape = dataset.train.images.shape[1:]
  first = jax.tree.map(lambda leaf: leaf[0], hyper)
  member = jax.eval_shape(
    lambda: train.create_member(recipe, train.seed_key(0, 0), first, image_shape)
  )
  if chunk_size is None:
    num_devices = len(set(workers))
    size, chunk_arms = chunks.default_chunk(
      recipe, len(seeds), len(arms), member, first, image_shape, workers[0], num_devices
    )
  else:
    size, chunk_arms = chunks.even_size(len(seeds), chunk_size), len(arms)
  num_blocks = -(-len(seeds) // size)
  padded = np.array([*seeds] + [seeds[-1]] * (size * num_blocks - len(seeds)), np.uint32)
  plan = ChunkPlan(
    arms=tuple(arms),
    chunk_size=size,
    chunk_arms=chunk_arms,
    num_chunks=num_blocks * -(-len(arms) // chunk_arms),
    num_workers=len(workers),
    batch_size=recipe.batch_size,
    slice_size=recipe.slice_size,
  )
  return Group(
    recipe=recipe,
    plan=plan,
    hyper=hyper,
    keys=jax.vmap(functools.partial(train.seed_key, root_seed))(padded),
    num_seeds=len(seeds),
    num_params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(member.params)),
  )


class _Chunk(NamedTuple):
  """What the training of one chunk gives, on the host; as in _Trained."""

  state: train.MemberState
  curves: train.EpochMetrics
  test_loss: np.ndarray
  predicted: np.ndarray
  predicted_at_half: np.ndarray
  sum_probabilities: np.ndarray  # [A, N, C], over the seeds that did not diverge
  observations: dict[str, np.ndarray]
  logits: np.ndarray | None
  train_seconds: np.ndarray


def _train_groups(dataset, groups, workers, observe, keep_logits, progress) -> list[_Trained]:
  """Trains all chunks of all groups; programs are compiled ahead, while others train."""
  splits = {device: train.put_splits(dataset, device) for device in set(workers)}
  jobs = [
    (index, place, chunk)
    for index, group in enumerate(groups)
    for place, chunk in enumerate(group.chunks(), 1)
  ]
  progress.compiling()

  def compile_timed(index, device, size=None):
    start = time.perf_counter()
    programs = compile_group(groups[index], splits[device], device, observe, size)
    return programs, time.perf_counter() - start

  with concurrent.futures.ThreadPoolExecutor(max_workers=len(splits)) as compiler:
    compiled = {
      (index, device): compiler.submit(compile_timed, index, device)
      for index in range(len(groups))
      for device in splits
    }

    def train_job(job, device, check):
      index, place, chunk = job
      group = groups[index]

      def report(*counts):
        check()
        progress.update(f"{place}/{group.plan.num_chunks}", *counts)

      def compiled_for(size):
        if size == group.plan.chunk_size:
          return compiled[index, device].result()
        return compile_timed(index, device, size)

      done = _train_chunk(compiled_for, group, chunk, splits[device], device, report)
      return done if keep_logits else done._replace(logits=None)

    try:
      done = share(jobs, workers, train_job)
    finally:
      compiler.shutdown(cancel_futures=True)
  seconds = [0.0] * len(groups)
  for (index, _), future in compiled.items():
    seconds[index] += 0.0 if future.cancelled() else future.result()[1]
  return [
    _gather(
      group, [c for c, job in zip(done, jobs, strict=True) if job[0] == index], seconds[index]
    )
    for index, group in enumerate(groups)
  ]


class _StoppedError(Exception):
  """Another worker failed, or the user wants to stop."""


def share(jobs: list, workers: Sequence[jax.Device], train_job: Callable) -> list:
  """Has workers take jobs off one list, in order, until it is empty.

  Args:
    jobs: what there is to do.
    workers: the device of each worker.
    train_job: `(job, device, check) -> result`; it calls `check` often, which raises once there is
      nothing left to work for.

  Returns:
    The results, in the order of the jobs.
  """
  results, stop = [None] * len(jobs), threading.Event()
  waiting, lock = iter(range(len(jobs))), threading.Lock()

  def check():
    if stop.is_set():
      raise _StoppedError

  def work(device):
    while True:
      with lock:
        index = next(waiting, None)
      if index is None:
        return
      check()
      results[index] = train_job(jobs[index], device, check)

  busy = workers[: len(jobs)]
  with concurrent.futures.ThreadPoolExecutor(len(busy)) as pool:
    threads = [pool.submit(work, device) for device in busy]
    try:
      # As each ends: what went wrong first is what the user has to know.
      for thread in concurrent.futures.as_completed(threads):
        thread.result()
    except BaseException:
      stop.set()
      raise
  return results


def _train_chunk(compiled_for, group, chunk, splits, device, report) -> _Chunk:
  """Trains one chunk until its last member stops, then tests it. Drops what pads it."""
  programs, _ = compiled_for(group.plan.chunk_size)
  start, compile_seconds = time.perf_counter(), 0.0
  recipe, (train_set, validation, test_set) = group.recipe, splits
  num_real = min(group.plan.chunk_size, group.num_seeds - chunk[0])
  keys, hyper = jax.device_put(group.arguments(chunk), device)
  size, num_arms = len(keys), len(hyper.patience)
  all_programs, all_keys, everyone = programs, keys, None
  state = programs.create(keys, hyper)
  places = np.arange(size)  # in the chunk, of the seeds that `state` holds
  observed = [jax.device_get(programs.observe(state.params, hyper, *splits))]
  rows = []
  running = np.ones((num_real, num_arms), bool)  # [S, A]
  for epoch in range(recipe.num_epochs):
    index = jax.device_put(np.int32(epoch), device)
    state, row = programs.train_epoch(state, keys, hyper, train_set, validation, index)
    rows.append(_spread_seeds(jax.device_get(row), places, size))
    seen = jax.device_get(programs.observe(state.params, hyper, *splits))
    observed.append(_spread_seeds(seen, places, size))
    still_running = np.zeros((size, num_arms), bool)
    still_running[places] = np.asarray(state.status) == train.RUNNING
    still_running = still_running[:num_real]
    stopped = int(running.sum() - still_running.sum())
    left = recipe.num_epochs - epoch - 1
    report(f"{epoch + 1}/{recipe.num_epochs}", int(running.sum()), stopped * left, stopped)
    running = still_running
    if not running.any():
      break
    kept = np.flatnonzero(running.any(axis=1))
    member_work = 6 * group.num_params * len(train_set.labels) * left
    smaller = chunks.compacted_size(len(kept), len(places), num_arms * member_work, device.platform)
    if smaller < len(places):
      everyone = _put_seeds(everyone, places, state)
      places = np.resize(kept, smaller)  # filled up with copies
      state, keys = _take_seeds((everyone, all_keys), places)
      programs, seconds = compiled_for(smaller)
      compile_seconds += seconds
  state = _put_seeds(everyone, places, state)
  tested = jax.device_get(all_programs.test(state, hyper, test_set))
  state = jax.device_get(state._replace(params={}, opt_state=(), best_params={}))
  seconds = time.perf_counter() - start - compile_seconds
  state, tested = jax.tree.map(lambda x: x[:num_real], (state, tested))
  curves = _along_epochs(rows, num_real, recipe.num_epochs)
  observations = _along_epochs(observed, num_real, recipe.num_epochs + 1)
  return _sum_up(state, curves, tested, observations, seconds)


def _sum_up(state, curves, tested: _TestResult, observations, seconds: float) -> _Chunk:
  """Returns a chunk's results, all on the host, with those that diverged at the very end marked."""
  # The last update may have been the one too many, and with it nothing but the test shows that.
  finite = np.isfinite(tested.loss) & np.isfinite(tested.logits).all(axis=(-2, -1))  # [S, A]
  state = state._replace(status=np.where(finite, state.status, train.DIVERGED))
  valid = (state.status != train.DIVERGED)[..., None, None]
  probabilities = metrics.probabilities(np.where(valid, tested.logits, 0)) * valid  # [S, A, N, C]
  return _Chunk(
    state=state,
    curves=curves,
    test_loss=tested.loss,
    predicted=tested.predicted,
    predicted_at_half=tested.predicted_at_half,
    sum_probabilities=probabilities.sum(axis=0),
    observations=observations,
    logits=tested.logits,
    train_seconds=np.full(finite.shape, seconds / finite.size),
  )


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


def _take_seeds(tree: Any, places: np.ndarray) -> Any:
  return jax.tree.map(lambda leaf: leaf[places], tree)


def _put_seeds(everyone: Any, places: np.ndarray, some: Any) -> Any:
  """Returns the state of all seeds of a chunk, `some` at their places; all of them if None."""
  if everyone is None:
    return some
  return jax.tree.map(lambda whole, part: whole.at[places].set(part), everyone, some)


def _gather(group: Group, done: list[_Chunk], compile_seconds: float) -> _Trained:
  """Joins the chunks of one program along the seeds and the arms."""
  across = -(-len(group.plan.arms) // group.plan.chunk_arms)
  grid = [done[start : start + across] for start in range(0, len(done), across)]

  def join(get):  # of each chunk [s, a, ...] -> [S, A, ...]
    rows = [[get(chunk) for chunk in row] for row in grid]
    return jax.tree.map(
      lambda *leaves: np.concatenate(
        [
          np.concatenate(leaves[start : start + across], axis=1)
          for start in range(0, len(leaves), across)
        ]
      ),
      *itertools.chain(*rows),
    )

  state = join(lambda chunk: chunk.state)
  num_valid = np.maximum((state.status != train.DIVERGED).sum(axis=0), 1)  # [A]
  sums = [np.concatenate([chunk.sum_probabilities for chunk in row]) for row in grid]  # [A, N, C]
  longest = int(state.num_epochs.max())
  return _Trained(
    plan=group.plan,
    state=state,
    num_params=group.num_params,
    curves=join(lambda chunk: chunk.curves),
    test_loss=join(lambda chunk: chunk.test_loss),
    predicted=join(lambda chunk: chunk.predicted),
    predicted_at_half=join(lambda chunk: chunk.predicted_at_half),
    mean_probabilities=sum(sums) / num_valid[:, None, None],
    observations=jax.tree.map(
      lambda leaf: leaf[:, :, : longest + 1], join(lambda chunk: chunk.observations)
    ),
    logits=None if done[0].logits is None else join(lambda chunk: chunk.logits),
    train_seconds=join(lambda chunk: chunk.train_seconds),
    compile_seconds=compile_seconds,
  )


def compile_group(
  group: Group,
  splits: Sequence[train.Examples],
  device: jax.Device,
  observe: Observer | None = None,
  size: int | None = None,
) -> Programs:
  """Returns the programs that train the chunks of a group on a device.

  Args:
    group: of `plan_group`.
    splits: training, validation and test examples, on the device.
    device: where.
    observe: as `train_population` takes it.
    size: seeds in a chunk; None: as many as planned.
  """
  keys, hyper = jax.device_put(group.arguments((0, 0)), device)
  shapes = (_abstract(x) for x in (keys[:size], hyper, *splits))
  return compile_programs(group.recipe, observe, *shapes)


@functools.lru_cache(maxsize=64)
def compile_programs(recipe, observer, keys, hyper, train_set, validation, test_set) -> Programs:
  """Compiles the programs of one recipe for one set of shapes on one device, once.

  All arguments after `observer` are the shapes of what the programs are called with: a chunk's keys
  `[s]` and settings `[a, ...]`, and the three splits. What each `in_axes` says: keys belong to
  seeds, settings to arms, and the data to nobody, so that whatever depends on key and data alone is
  computed once for all arms of a seed.
  """
  num_seeds, num_arms = len(keys), len(hyper.patience)

  def population(function, over_arms, over_seeds):
    return _map(_map(function, over_arms, num_arms), over_seeds, num_seeds)

  def lower(function, *shapes, donate=()):
    return jax.jit(function, donate_argnums=donate).lower(*shapes)

  image_shape = train_set.images.shape[1:]
  create = population(
    lambda key, hyper: train.create_member(recipe, key, hyper, image_shape), (None, 0), (0, None)
  )
  epoch = population(
    functools.partial(train.train_epoch, recipe),
    (0, None, 0, None, None, None),
    (0, 0, None, None, None, None),
  )
  test = population(functools.partial(_test_member, recipe), (0, 0, None), (0, None, None))

  here = keys.sharding
  state = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    jax.eval_shape(create, keys, hyper),
  )
  index = jax.ShapeDtypeStruct((), jnp.int32, sharding=here)
  lowered = [
    lower(create, keys, hyper),
    lower(epoch, state, keys, hyper, train_set, validation, index, donate=0),
    lower(test, state, hyper, test_set),
  ]
  if observer is not None:
    observe = population(
      functools.partial(observer, recipe), (0, 0, None, None, None), (0, None, None, None, None)
    )
    lowered.append(lower(observe, state.params, hyper, train_set, validation, test_set))
  # Drawing weights takes milliseconds and is done once, but it is most of what there is to compile:
  # random bits become long code, which on CPU takes five times as long to optimise as to compile.
  on_cpu = next(iter(here.device_set)).platform == "cpu"
  options = [{"xla_backend_optimization_level": 0} if on_cpu else None, *[None] * 3]
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return Programs(*pool.map(lambda p, o: p.compile(compiler_options=o), lowered, options))


def _map(function: Callable, in_axes: Sequence[int | None], size: int) -> Callable:
  """Returns `jax.vmap(function, in_axes)`, for an axis of one without mapping anything.

  XLA multiplies a batch of one matrix by another way than a matrix, which on CPU took twice as long
  for matrices that outgrow the cache.
  """
  if size > 1:
    return jax.vmap(function, in_axes)

  def alone(*arguments):
    pairs = zip(arguments, in_axes, strict=True)
    first = [x if axis is None else jax.tree.map(lambda leaf: leaf[0], x) for x, axis in pairs]
    return jax.tree.map(lambda leaf: leaf[None], function(*first))

  return alone


def _test_member(
  recipe: Recipe, state: train.MemberState, hyper: Hyperparams, test_set: train.Examples
) -> _TestResult:
  """Tests one member on all test examples."""
  params = train.reported_params(recipe, state)
  logits = train.predict(recipe, params, test_set.images)  # [N, C]
  return _TestResult(
    loss=train.mean_loss(recipe, hyper, logits, test_set.labels),
    logits=logits,
    predicted=metrics.predict_class(logits, hyper.threshold),
    predicted_at_half=metrics.predict_class(logits, 0.5),
  )


def _assemble(dataset, arms, seeds, groups: list[_Trained]) -> Population:
  """Puts the arms of all groups side by side, in the order in which they were given."""
  num_epochs = max(int(group.state.num_epochs.max()) for group in groups)
  order = [name for group in groups for name in group.plan.arms]
  places = [order.index(name) for name in arms]

  def join(parts):  # per group [S, a, ...] -> [S, A, ...]
    return np.concatenate(parts, axis=1)[:, places]

  status = join([g.state.status for g in groups])
  epochs, best_epoch = (
    join([getattr(g.state, f) for g in groups]) for f in ("num_epochs", "best_epoch")
  )
  padded = [jax.tree.map(lambda curve: _pad_epochs(curve, num_epochs), g.curves) for g in groups]
  curves = _rates(jax.tree.map(lambda *parts: join(parts), *padded), dataset)
  diverged = status == train.DIVERGED

  def count(predicted):  # [S, A, N] -> [S, A, C, C]
    counts = metrics.confusion_matrix(dataset.test.labels, predicted, dataset.num_classes)
    return np.where(diverged[..., None, None], 0, counts)

  confusion = count(join([g.predicted for g in groups]))
  at_half = None
  if _has_threshold(arms, dataset.num_classes):
    at_half = count(join([g.predicted_at_half for g in groups]))
  kept = groups[0].logits is not None
  restored = np.array([arm.restore_best for arm in arms.values()])
  values = {
    **_curves_at(curves, np.where(restored, best_epoch, epochs), len(dataset.validation) > 0),
    "test_loss": join([g.test_loss for g in groups]),
    **_test_metrics(confusion, at_half),
  }
  return Population(
    seeds=seeds,
    arms=dict(arms),
    class_names=dataset.class_names,
    test_labels=dataset.test.labels,
    status=np.array(train.STATUS_NAMES)[status],
    epochs=epochs,
    best_epoch=best_epoch,
    num_params=join([np.full_like(g.state.status, g.num_params) for g in groups]),
    curves=curves,
    metrics={name: np.where(diverged, np.nan, value) for name, value in values.items()},
    confusion=confusion,
    confusion_at_half=at_half,
    mean_probabilities=np.concatenate([g.mean_probabilities for g in groups])[places],
    train_seconds=join([g.train_seconds for g in groups]),
    compile_seconds=sum(g.compile_seconds for g in groups),
    chunks=tuple(g.plan for g in groups),
    observations={
      name: _per_arm(arms, groups, lambda group, name=name: group.observations[name])
      for name in groups[0].observations
    },
    logits=_per_arm(arms, groups, lambda group: group.logits) if kept else None,
  )


def _per_arm(
  arms: Mapping[str, Arm], groups: list[_Trained], values: Callable[[_Trained], np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns values `[S, a, ...]` of all groups arm by arm, `[S, ...]`, the arms in their order."""
  found = {
    arm: values(group)[:, index] for group in groups for index, arm in enumerate(group.plan.arms)
  }
  return {arm: found[arm] for arm in arms}


def _has_threshold(arms: Mapping[str, Arm], num_classes: int) -> bool:
  return any(losses.num_outputs(arm.loss, num_classes) == 1 for arm in arms.values())


def _rates(curves: train.EpochMetrics, dataset: Dataset) -> dict[str, np.ndarray]:
  """Returns learning curves by name, counts divided by how many examples there are."""
  num_validation = len(dataset.validation) or np.nan
  values = (
    curves.learning_rate,
    curves.train_loss,
    curves.train_correct.astype(np.float64) / len(dataset.train),
    curves.val_loss,
    curves.val_correct.astype(np.float64) / num_validation,
  )
  return dict(zip(CURVES, values, strict=True))


def _along_epochs(epochs: list, num_real: int, length: int) -> Any:
  """Stacks trees of `[s, a, ...]` along epochs, `[S, A, length, ...]`, without what pads them."""
  return jax.tree.map(
    lambda *leaves: _pad_epochs(np.stack(leaves, axis=2)[:num_real], length), *epochs
  )


def _as_float(values: np.ndarray) -> np.ndarray:
  """Returns floats as they are and other numbers as floats: an integer cannot be missing."""
  return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _pad_epochs(curve: np.ndarray, num_epochs: int) -> np.ndarray:
  """Cuts or pads curves `[S, A, e, ...]` to `[S, A, E, ...]`, with NaN after their end."""
  curve = _as_float(curve[:, :, :num_epochs])
  padding = [(0, 0)] * curve.ndim
  padding[2] = (0, num_epochs - curve.shape[2])
  return np.pad(curve, padding, constant_values=np.nan)


def _curves_at(
  curves: dict[str, np.ndarray], epoch: np.ndarray, has_validation: bool
) -> dict[str, np.ndarray]:
  """Returns what the curves say of each member at an epoch `[S, A]`, counted from 1."""
  index = np.maximum(epoch - 1, 0)[..., None]
  names = ("train_loss", "val_loss", "val_accuracy") if has_validation else ("train_loss",)
  return {name: np.take_along_axis(curves[name], index, axis=-1)[..., 0] for name in names}


def _test_metrics(confusion: np.ndarray, at_half: np.ndarray | None) -> dict[str, np.ndarray]:
  """Returns what confusion matrices `[S, A, C, C]` say, each `[S, A]`."""
  values = _confusion_metrics(confusion)
  if at_half is not None:
    values |= {f"{name}_at_half": value for name, value in _confusion_metrics(at_half).items()}
  return values


def _confusion_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
  rates = (metrics.accuracy(confusion), *metrics.precision_recall_f1(confusion))
  return dict(zip(_TEST_RATES, rates, strict=True))


def _abstract(tree: Any) -> Any:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
