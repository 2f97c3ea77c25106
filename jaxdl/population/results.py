"""The results of a population, `[S, A]`, and the names of its metrics."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxdl import stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.data.resampling import Resampling
from jaxdl.errors import one_line, unknown_name
from jaxdl.optim import losses, metrics
from jaxdl.population.plan import Layout

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
TEST_ERRORS = ("mean_squared_error", "mean_absolute_error", "r2")
# Attributes of a population that are `[S, A, ...]`.
_BY_MEMBER = (
  *("status", "epochs", "best_epoch", "num_params", "train_seconds"),
  *("confusion", "confusion_at_half", "correct", "correct_at_half", "calibration"),
)


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
    """How much the splits of the seeds overlap; None if all seeds have the same split.

    See `jaxdl.stats.resampled`.
    """
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
    # Rates are float64 already, as quotients of counts; losses are float32.
    values = (self.epochs if metric == "epochs" else self.metrics[metric]).astype(float)
    values = np.where(self.has_result, values, np.nan)
    diverged = self.status == "diverged"
    return stats.Scores(
      metric=metric,
      values=values,
      seeds=self.seeds,
      arms=tuple(self.arms),
      axes=stats.AXES,
      higher_is_better=self.higher_is_better(metric),
      diverged_as=self._diverged_as(metric, values, in_order) if diverged.any() else None,
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

  def _diverged_as(
    self, metric: str, values: np.ndarray, in_order: bool
  ) -> float | np.ndarray | None:
    """Returns what a member that diverged counts as, beside the values `[S, A]` of the others.

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
      return float(confusion_metrics(metrics.confusion_matrix(labels, constant, num_classes))[rate])
    worst = stats.worst_so_far if in_order else stats.worst
    return worst(values, self.higher_is_better(metric))

  def select(self, arms: Sequence[str]) -> "Population":
    """Returns a population with only the named arms, in the order in which they are named.

    Raises:
      InputError: there is no such arm.
    """
    for arm in arms:
      if arm not in self.arms:
        raise unknown_name("arm", arm, self.arms)
    places = [list(self.arms).index(arm) for arm in arms]

    def part(values):  # [S, A, ...]; None stays None
      return None if values is None else values[:, places]

    return dataclasses.replace(
      self,
      arms={arm: self.arms[arm] for arm in arms},
      **{name: part(getattr(self, name)) for name in _BY_MEMBER},
      curves={name: part(curve) for name, curve in self.curves.items()},
      metrics={name: part(values) for name, values in self.metrics.items()},
      mean_probabilities=self.mean_probabilities[places],
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
  own = own_metrics(arms)
  names = ["train_loss"]
  if len(dataset.validation):
    names += validation_curves(dataset.num_classes > 0, arms)
  names.append("test_loss")
  names += _TEST_RATES if dataset.num_classes else TEST_ERRORS
  if has_threshold(arms):
    names += [f"{name}_at_half" for name in _TEST_RATES]
  if dataset.num_classes:
    names += PROBABILISTIC
  return (*names, *(name for name in own if name not in names), "epochs")


def own_metrics(arms: Mapping[str, Arm]) -> list[str]:
  """Returns the names of the metrics of all arms."""
  return list(dict.fromkeys(metric.name for arm in arms.values() for metric in arm.metrics))


def validation_curves(has_classes: bool, arms: Mapping[str, Arm]) -> list[str]:
  """Returns the names of the curves of the validation set."""
  names = ["val_loss", "val_accuracy"] if has_classes else ["val_loss"]
  return [*names, *(f"val_{name}" for name in own_metrics(arms))]


def has_threshold(arms: Mapping[str, Arm]) -> bool:
  """Returns whether the model of any arm has one output, which is compared with a threshold."""
  return any(losses.has_threshold(arm.loss) for arm in arms.values())


def confusion_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the rates `[...]` of confusion matrices `[..., C, C]`, by name."""
  rates = (metrics.accuracy(confusion), *metrics.precision_recall_f1(confusion))
  return dict(zip(_TEST_RATES, rates, strict=True))
