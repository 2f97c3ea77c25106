"""The results of a population, `[S, A]`, assembled from those of its chunks."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.data.resampling import Resampling
from jaxdl.errors import InputError, one_line, unknown_name
from jaxdl.member import DIVERGED, RUNNING, STATUS_NAMES, EpochMetrics
from jaxdl.optim import losses, metrics
from jaxdl.population import chunk_result
from jaxdl.population.chunk_result import ChunkResult
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group, Layout

CURVES = ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
_TEST_RATES = ("test_accuracy", "precision", "recall", "f1")
# Of the predicted probabilities: area under the ROC curve, and expected calibration error.
PROBABILISTIC = ("auc", "ece")
# Metrics in [0, 1], which are shown in percent.
RATES = (
  *("val_accuracy", *_TEST_RATES, *(f"{name}_at_half" for name in _TEST_RATES)),
  *PROBABILISTIC,
)
# The metric of `jaxdl.experiment.epochs_to`.
EPOCHS_TO_TARGET = "epochs_to_target"
# The status of members that are not trained because all pairs of their arm were decided before.
NOT_TRAINED = "not_trained"
# Metrics for which lower is better.
_LOWER_IS_BETTER = (
  *("train_loss", "val_loss", "test_loss", "ece", "epochs", EPOCHS_TO_TARGET),
  *("mean_squared_error", "mean_absolute_error"),
)
# Of targets that are numbers, in the place of `_TEST_RATES`.
_TEST_ERRORS = ("mean_squared_error", "mean_absolute_error", "r2")


@dataclasses.dataclass(frozen=True, repr=False)
class Population:
  """The results of all members of an experiment; axes as in `jaxdl.data.dataset`, N test examples.

  A member that diverged, or was not trained because all pairs of its arm were decided, has NaN for
  every metric and no counts in `confusion`.

  Attributes:
    seeds: `[S]`, the replications.
    arms: name -> arm, A of them, in the order in which they were given.
    class_names: `[C]`; empty if targets are numbers.
    test_targets: `[N]` int, the true classes of the test examples; `[N, L]` of sequences; `[N]` or
      `[N, K]` float, if targets are numbers; with a leading axis `[S]` if each seed has its own.
    status: `[S, A]` str: finished, early_stopped, diverged or not_trained. The members of an arm
      that are not trained are those of its last seeds.
    epochs: `[S, A]` int, epochs trained; includes the epoch in which a member diverged.
    best_epoch: `[S, A]` int, the epoch with the lowest validation loss, counted from 1; 0 without
      validation.
    num_params: `[S, A]` int, parameters of a member.
    curves: name in `CURVES`, and `val_NAME` of the arms' metrics -> `[S, A, E]`, NaN after a
      member's last epoch.
    metrics: name in `metric_names(...)`, except "epochs" -> `[S, A]`, of the reported weights.
    confusion: `[S, A, C, C]` int, counts of test examples at the arm's threshold; rows are true
      classes, columns predicted ones.
    confusion_at_half: like `confusion`, at threshold 0.5; None if no model has a threshold.
    mean_probabilities: `[A, N, C]`, predicted probabilities, averaged over the seeds that did not
      diverge; of numbers, the predictions `[A, N, K]`. N is 0 if each seed has its own examples.
    train_seconds: `[S, A]`, the time of a chunk divided by its number of members, without
      compilation; NaN if not trained. Workers train concurrently, so the sum exceeds the time that
      passed.
    compile_seconds: time that compiling all programs took.
    chunks: one layout per program.
    num_workers: workers that trained concurrently.
    split_chunks: names of the chunks that did not fit the device and were trained in halves.
    missing_seeds: seeds that were planned but are left out, because one of their chunks is not
      trained.
    failures: name of a chunk -> why it could not be trained.
    observations: name -> arm -> `[S, E + 1, ...]`, the observer's arrays at initialisation and
      after every epoch, for the weights at that time. They become NaN some time after a member has
      stopped, at the latest when all members of its chunk have.
    logits: arm -> `[S, N, C]` on the test set, NaN if not trained; None unless `keep_logits` was
      set.
    variables: arm -> path of a variable, joined by "/" -> `[S, ...]`, those that results are about,
      of the seeds that the arm was trained with; None unless `keep_params` was set.
    correct: `[S, A, ceil(N / 8)]` uint8, a bit per test example (`numpy.packbits`): whether the
      prediction at the arm's threshold is right.
    correct_at_half: the same at threshold 0.5; None if no model has a threshold.
    calibration: `[S, A, 3, M]`, see `jaxdl.optim.metrics.calibration_counts`.
    resampling: how each seed draws its own split of the training examples; None: all have the same.
  """

  seeds: tuple[int, ...]
  arms: dict[str, Arm]
  class_names: tuple[str, ...]
  test_targets: np.ndarray
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
  chunks: tuple[Layout, ...]
  num_workers: int = 1
  split_chunks: tuple[str, ...] = ()
  missing_seeds: tuple[int, ...] = ()
  failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
  observations: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
  logits: dict[str, np.ndarray] | None = None
  variables: dict[str, dict[str, np.ndarray]] | None = None
  correct: np.ndarray | None = None
  correct_at_half: np.ndarray | None = None
  calibration: np.ndarray | None = None
  resampling: Resampling | None = None

  @property
  def is_trained(self) -> np.ndarray:
    """Which members were trained, `[S, A]` bool."""
    return self.status != NOT_TRAINED

  @property
  def has_result(self) -> np.ndarray:
    """Which members were trained and did not diverge, `[S, A]` bool."""
    return self.is_trained & (self.status != "diverged")

  @property
  def overlap(self) -> float | None:
    """Of the seeds' splits, see `jaxdl.stats.resampled`; None if all seeds have the same."""
    return None if self.resampling is None else self.resampling.overlap

  def __repr__(self) -> str:
    names = ", ".join(map(one_line, self.arms))
    sizes = [
      f"{count} {what}{'s' * (count != 1)}"
      for count, what in ((len(self.seeds), "seed"), (len(self.arms), "arm"))
    ]
    counts = collections.Counter(self.status.ravel().tolist())
    what = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return f"<population of {' x '.join(sizes)} ({names:.200}): {what}>"

  def is_correct(self, metric: str) -> np.ndarray | None:
    """Returns whether each test example is predicted right, `[S, A, N]` bool.

    A member that diverged counts as one that always answers the most frequent class.

    Args:
      metric: "test_accuracy" or "test_accuracy_at_half"; there is None of any other, nor of
        sequences, whose positions are not independent examples.
    """
    bits = {"test_accuracy": self.correct, "test_accuracy_at_half": self.correct_at_half}.get(
      metric
    )
    if bits is None or self.test_targets.ndim > 1:  # also if seeds have different examples
      return None
    labels = self.test_targets
    constant = labels == np.bincount(labels).argmax()
    correct = np.unpackbits(bits, axis=-1, count=len(labels)).astype(bool)
    return np.where((self.status == "diverged")[..., None], constant, correct)

  def scores(self, metric: str, in_order: bool = False) -> stats.Scores:
    """Returns one metric of all members for `jaxdl.stats`, NaN where a member has no result.

    In comparisons a member that diverged counts as `jaxdl.stats.Scores.diverged_as` says.

    Args:
      metric: its name.
      in_order: whether seeds are looked at while they are added, so that what a member counts as
        must not depend on later ones.

    Raises:
      InputError: there is no such metric.
    """
    if metric not in self.metrics and metric != "epochs":
      raise unknown_name("metric", metric, [*self.metrics, "epochs"])
    diverged = self.status == "diverged"
    values = self.epochs.astype(float) if metric == "epochs" else self.metrics[metric]
    return stats.Scores(
      metric=metric,
      # Rates are float64 already, as quotients of counts; losses are float32.
      values=np.where(self.has_result, values, np.nan).astype(float),
      seeds=self.seeds,
      arms=tuple(self.arms),
      axes=stats.AXES,
      higher_is_better=self.higher_is_better(metric),
      diverged_as=self._diverged_as(metric, in_order) if diverged.any() else None,
      overlap=self.overlap,
      num_trained=None if self.is_trained.all() else tuple(self.is_trained.sum(axis=0).tolist()),
    )

  def higher_is_better(self, metric: str) -> bool:
    """Returns whether a higher value of a metric is better."""
    return higher_is_better(metric, self.arms)

  @property
  def has_classes(self) -> bool:
    """Whether targets are classes and not numbers."""
    return len(self.class_names) > 0

  def _diverged_as(self, metric: str, in_order: bool) -> float | np.ndarray | None:
    """Returns what a member that diverged counts as.

    Rates on the test set: those of always answering the most frequent class. Epochs to a target: as
    if it was never reached. All else: the worst that any member has, so far if `in_order`.
    """
    if metric == "auc":
      return 0.5
    if metric == EPOCHS_TO_TARGET:
      return max(arm.num_epochs for arm in self.arms.values()) + 1.0
    rate = metric.removesuffix("_at_half")
    if rate in _TEST_RATES and self.has_classes:
      labels, num_classes = self.test_targets.ravel(), len(self.class_names)
      constant = np.full_like(labels, np.bincount(labels).argmax())
      return float(
        _confusion_metrics(metrics.confusion_matrix(labels, constant, num_classes))[rate]
      )
    values = self.epochs.astype(float) if metric == "epochs" else self.metrics[metric]
    trained = np.where(self.has_result, values, np.nan)
    worst = stats.worst_so_far if in_order else stats.worst
    return worst(trained.astype(float), self.higher_is_better(metric))

  def select(self, arms: Sequence[str]) -> "Population":
    """Returns a population with only the named arms, in the order in which they are named.

    Raises:
      InputError: there is no such arm.
    """
    for arm in arms:
      if arm not in self.arms:
        raise unknown_name("arm", arm, self.arms)
    places = [list(self.arms).index(arm) for arm in arms]

    def part(values):
      return None if values is None else values[:, places]

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
      confusion_at_half=part(self.confusion_at_half),
      correct=part(self.correct),
      correct_at_half=part(self.correct_at_half),
      calibration=part(self.calibration),
      mean_probabilities=self.mean_probabilities[places],
      train_seconds=self.train_seconds[:, places],
      observations={n: {a: of[a] for a in arms} for n, of in self.observations.items()},
      logits=None if self.logits is None else {arm: self.logits[arm] for arm in arms},
      variables=None if self.variables is None else {arm: self.variables[arm] for arm in arms},
    )


def higher_is_better(metric: str, arms: Mapping[str, Arm]) -> bool:
  """Whether a higher value of a metric is better: not for losses, errors and numbers of epochs."""
  for name, direction, _ in (own for arm in arms.values() for own in arm.metrics):
    if metric in (name, f"val_{name}"):
      return direction == "max"
  return metric not in _LOWER_IS_BETTER


def metric_names(arms: Mapping[str, Arm], dataset: Dataset) -> tuple[str, ...]:
  """Returns the metrics that a population of these arms has, in the order of its table."""
  own = _own_metrics(arms)
  names = ["train_loss"]
  if len(dataset.validation):
    names += _validation_curves(dataset.num_classes > 0, arms)
  names.append("test_loss")
  names += _TEST_RATES if dataset.num_classes else _TEST_ERRORS
  if _has_threshold(arms):
    names += [f"{name}_at_half" for name in _TEST_RATES]
  if dataset.num_classes:
    names += PROBABILISTIC
  return (*names, *(name for name in own if name not in names), "epochs")


def _own_metrics(arms: Mapping[str, Arm]) -> list[str]:
  """Returns the names of the metrics of all arms."""
  return list(dict.fromkeys(metric.name for arm in arms.values() for metric in arm.metrics))


def _validation_curves(has_classes: bool, arms: Mapping[str, Arm]) -> list[str]:
  names = ["val_loss", "val_accuracy"] if has_classes else ["val_loss"]
  return [*names, *(f"val_{name}" for name in _own_metrics(arms))]


class _GroupResult(NamedTuple):
  """The joined results of one program's chunks; S and A are those of the program."""

  group: Group
  places: list[int]  # [S], indices of the seeds for which all arms are trained
  result: ChunkResult  # [S, A]
  mean_probabilities: np.ndarray  # [A, N, C]


def _gather(
  group: Group,
  results: Mapping[Chunk, ChunkResult],
  num_seeds: int,
  ends: Mapping[str, int] | None,
) -> _GroupResult | None:
  """Joins a program's chunks along arms and seeds; None if no seed has all of its arms."""
  rows: dict[int, list[Chunk]] = {}
  for chunk in group.chunks():
    if chunk.seed < num_seeds:
      rows.setdefault(chunk.seed, []).extend(group.parts(chunk, ends))
  whole = {s: parts for s, parts in rows.items() if all(part in results for part in parts)}
  found = {part: results[part] for parts in whole.values() for part in parts}
  if not found:
    return None
  size = group.layout.chunk_size
  places = [i for s in whole for i in range(s, min(s + size, group.num_seeds))]
  of_arms = [num_seeds if ends is None else ends[arm] for arm in group.layout.arms]
  joined = chunk_result.assemble(found, places, of_arms)
  num_valid = np.zeros(len(of_arms))
  for chunk, result in found.items():
    of_chunk = (result.status != DIVERGED).sum(axis=0)
    num_valid[chunk.arm : chunk.arm + chunk.num_arms] += of_chunk
  longest = int(joined.num_epochs.max())
  observations = {name: of[:, :, : longest + 1] for name, of in joined.observations.items()}
  return _GroupResult(
    group=group,
    places=places,
    result=joined._replace(observations=observations),
    mean_probabilities=(joined.sum_probabilities.T / np.maximum(num_valid, 1)).T,
  )


def assemble(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  seeds: Sequence[int],
  groups: Sequence[Group],
  outcome: Outcome,
  ends: Mapping[str, int] | None = None,
) -> Population:
  """Assembles the population from trained chunks; it has the seeds for which all arms are trained.

  Args:
    dataset: the dataset that was trained on.
    arms: name -> arm, in the order that the population gets.
    seeds: the planned seeds.
    groups: the result of `jaxdl.population.plan.plan_groups`.
    outcome: the results and failures of the groups' chunks.
    ends: arm -> how many of the seeds it was to be trained with, if its question was decided then;
      None: all.

  Raises:
    InputError: no seed has all of its arms.
  """
  gathered = [_gather(group, outcome.results, len(seeds), ends) for group in groups]
  failures = {chunk.name: reason for chunk, reason in outcome.failures.items()}
  places = set(range(len(seeds))).intersection(*(g.places if g else () for g in gathered))
  if not places:
    failed = "".join(f"; chunk {name} failed: {reason}" for name, reason in failures.items())
    raise InputError(f"no seed has finished with all of its arms{failed[:500]}")
  some = [_select_seeds(result, sorted(places)) for result in gathered if result is not None]
  population = _assemble(dataset, arms, [seeds[place] for place in sorted(places)], some)
  missing = tuple(seed for place, seed in enumerate(seeds) if place not in places)
  return dataclasses.replace(
    population,
    compile_seconds=outcome.compile_seconds,
    num_workers=outcome.num_workers,
    split_chunks=tuple(outcome.split_chunks),
    missing_seeds=missing,
    failures=failures,
  )


def _select_seeds(group: _GroupResult, places: list[int]) -> _GroupResult:
  """Returns the results for some of a program's seeds; `mean_probabilities` keeps all of them."""
  if group.places == places:
    return group
  rows = [group.places.index(place) for place in places]
  by_seed = group.result._replace(sum_probabilities=None)
  chosen = jax.tree.map(lambda leaf: leaf[rows], by_seed)
  return group._replace(places=places, result=chosen)


def _assemble(dataset, arms, seeds, groups: list[_GroupResult]) -> Population:
  """Puts the arms of all groups side by side, in the order in which they were given."""
  results = [group.result for group in groups]
  num_epochs = max(int(result.num_epochs.max()) for result in results)
  order = [name for group in groups for name in group.group.layout.arms]
  places = [order.index(name) for name in arms]

  def join(field):  # per group [S, a, ...] -> [S, A, ...]
    return np.concatenate([getattr(r, field) for r in results], axis=1)[:, places]

  status, epochs, best_epoch = (join(f) for f in ("status", "num_epochs", "best_epoch"))
  padded = [
    jax.tree.map(lambda curve: chunk_result.pad_epochs(curve, num_epochs), r.curves)
    for r in results
  ]
  own = _own_metrics(arms)
  padded = [
    curve._replace(val_metrics=_filled(own, curve.val_metrics, curve.val_loss)) for curve in padded
  ]
  joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, places], *padded)
  curves = _rates(joined, dataset)
  has_result = ~np.isin(status, (DIVERGED, RUNNING))
  confusion = join("confusion")
  at_half = join("confusion_at_half") if _has_threshold(arms) else None
  restored = np.array([arm.restore_best for arm in arms.values()])
  names = dict.fromkeys([*_TEST_ERRORS, *own] if dataset.num_classes == 0 else own)
  tested = [_filled(names, r.metrics, r.test_loss) for r in results]
  validated = _validation_curves(dataset.num_classes > 0, arms) if len(dataset.validation) else []
  reported = np.where(restored & (best_epoch > 0), best_epoch, epochs)
  values = {
    **_curves_at(curves, reported, ["train_loss", *validated]),
    "test_loss": join("test_loss"),
    **(_test_metrics(confusion, at_half) if dataset.num_classes else {}),
    **(_probabilistic(join) if dataset.num_classes else {}),
    **{n: np.concatenate([of[n] for of in tested], axis=1)[:, places] for n in names},
  }
  num_params = np.array([g.group.num_params for g in groups for _ in g.group.layout.arms])[places]
  logits = None
  if results[0].logits is not None:
    logits = _per_arm(arms, groups, lambda result: result.logits)
  return Population(
    seeds=tuple(seeds),
    arms=dict(arms),
    class_names=dataset.class_names,
    test_targets=_test_targets(dataset, groups[0]),
    # A member that never began to run has the first status.
    status=np.array((NOT_TRAINED, *STATUS_NAMES[1:]))[status],
    epochs=epochs,
    best_epoch=best_epoch,
    num_params=np.tile(num_params, (len(seeds), 1)),
    curves=curves,
    metrics={name: np.where(has_result, value, np.nan) for name, value in values.items()},
    confusion=confusion,
    confusion_at_half=at_half,
    mean_probabilities=np.concatenate([g.mean_probabilities for g in groups])[places],
    train_seconds=join("train_seconds"),
    compile_seconds=0.0,  # `assemble` sets it
    chunks=tuple(group.group.layout for group in groups),
    observations={
      name: _per_arm(arms, groups, functools.partial(_observation, name))
      for name in results[0].observations
    },
    logits=logits,
    variables=_variables(arms, groups),
    correct=join("correct"),
    correct_at_half=None if at_half is None else join("correct_at_half"),
    calibration=join("calibration"),
    resampling=dataset.resampling,
  )


def _test_targets(dataset: Dataset, group: _GroupResult) -> np.ndarray:
  if group.group.draw is None:
    return dataset.test.targets
  return dataset.test.targets[group.group.draw(group.places).test]  # [S, N, ...]


def _filled(
  names: Iterable[str], values: Mapping[str, np.ndarray], like: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns an array for every name. Where `values` has none, it is NaN in the shape of `like`."""
  return {name: values.get(name, np.full(like.shape, np.nan)) for name in names}


def _variables(
  arms: Mapping[str, Arm], groups: list[_GroupResult]
) -> dict[str, dict[str, np.ndarray]] | None:
  """Returns the variables `[S, ...]` of every arm, by path; None if none were kept."""
  found = {}
  for group in groups:
    kept = group.result.variables
    if kept is None:
      return None
    is_trained = group.result.status != RUNNING  # [S, A]
    for index, arm in enumerate(group.group.layout.arms):
      found[arm] = {path: leaf[is_trained[:, index], index] for path, leaf in kept.items()}
  return {arm: found[arm] for arm in arms}


def _observation(name: str, result: ChunkResult) -> np.ndarray:
  return result.observations[name]


def _per_arm(
  arms: Mapping[str, Arm],
  groups: list[_GroupResult],
  values: Callable[[ChunkResult], Any],
) -> dict[str, np.ndarray]:
  """Splits the values `[S, a, ...]` of all groups by arm, `[S, ...]`, in the order of `arms`."""
  found = {
    arm: values(group.result)[:, index]
    for group in groups
    for index, arm in enumerate(group.group.layout.arms)
  }
  return {arm: found[arm] for arm in arms}


def _has_threshold(arms: Mapping[str, Arm]) -> bool:
  return any(losses.has_threshold(arm.loss) for arm in arms.values())


def _rates(curves: EpochMetrics, dataset: Dataset) -> dict[str, np.ndarray]:
  """Returns name -> learning curve; numbers of correct predictions become accuracies."""
  num_validation = len(dataset.validation) or np.nan
  values = (
    curves.learning_rate,
    curves.train_loss,
    curves.train_correct.astype(np.float64) / dataset.num_train,
    curves.val_loss,
    curves.val_correct.astype(np.float64) / num_validation,
  )
  own = {f"val_{name}": values for name, values in curves.val_metrics.items()}
  return {**dict(zip(CURVES, values, strict=True)), **own}


def _curves_at(
  curves: dict[str, np.ndarray], epoch: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns the values of some curves at each member's `epoch`, `[S, A]`, counted from 1."""
  index = np.maximum(epoch - 1, 0)[..., None]
  return {name: np.take_along_axis(curves[name], index, axis=-1)[..., 0] for name in names}


def _probabilistic(join: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
  """Returns name -> metric of the predicted probabilities, `[S, A]`."""
  ece = metrics.expected_calibration_error(join("calibration"))
  return {"auc": join("auc"), "ece": ece}


def _test_metrics(confusion: np.ndarray, at_half: np.ndarray | None) -> dict[str, np.ndarray]:
  """Returns name -> metric `[S, A]`, from confusion matrices `[S, A, C, C]`."""
  values = _confusion_metrics(confusion)
  if at_half is not None:
    values |= {f"{name}_at_half": value for name, value in _confusion_metrics(at_half).items()}
  return values


def _confusion_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
  rates = (metrics.accuracy(confusion), *metrics.precision_recall_f1(confusion))
  return dict(zip(_TEST_RATES, rates, strict=True))
