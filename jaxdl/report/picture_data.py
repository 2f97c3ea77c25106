"""What pictures show, as numbers: for those that are files and for those of the page."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxdl.optim import losses
from jaxdl.population.results import Population
from jaxdl.stats.scores import t_quantile


def valid_curves(population: Population, name: str) -> np.ndarray:
  """Returns curves `[S, A, E]` in the unit shown; a diverged member is NaN from that epoch on.

  In that epoch the loss is not finite, so the accuracy has no meaning either.
  """
  curves = population.curves[name] * (100 if name in ("train_accuracy", "val_accuracy") else 1)
  num_valid = population.epochs - (population.status == "diverged")  # [S, A]
  valid = np.arange(curves.shape[-1]) < num_valid[..., None]  # [S, A, E]
  return np.where(valid & np.isfinite(curves), curves, np.nan)


def curve_interval(
  population: Population, arm: int, curves: np.ndarray, metric: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the mean of an arm's curves `[S, E]` and the ends of its 95% interval, each `[e]`.

  They are of the members that have a result, for as long as one of them trains; a member that
  stopped early keeps its last value. Without such a member e is 0.

  Args:
    population: the members.
    arm: index of the arm.
    curves: of all its members, in the unit shown.
    metric: "loss", "accuracy" or another one; the interval is cut to its limits.
  """
  kept = population.has_result[:, arm]
  if not kept.any():
    return (np.empty(0),) * 3
  num_epochs = population.epochs[kept, arm]  # [n]
  index = np.minimum(np.arange(num_epochs.max()), num_epochs[:, None] - 1)  # [n, e]
  values = np.take_along_axis(curves[kept], index, axis=1)
  limits = {"loss": (0, math.inf), "accuracy": (0, 100)}.get(metric, (-math.inf, math.inf))
  return mean_interval(values, limits, population.overlap or 0.0)


def mean_curves(population: Population, name: str) -> np.ndarray:
  """Returns the mean curve of each arm in the unit shown, `[A, E]`, NaN after its last epoch."""
  curves = valid_curves(population, name)
  means = np.full(curves.shape[1:], np.nan)
  for arm, mean in enumerate(means):
    found, *_ = curve_interval(population, arm, curves[:, arm], name)
    mean[: len(found)] = found
  return means


def mean_interval(
  values: np.ndarray, limits: tuple[float, float] = (-math.inf, math.inf), overlap: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the mean of values `[n, ...]` and the ends of its 95% interval, each `[...]`.

  The interval is Student's t, cut to the limits of the metric, as in `jaxdl.stats.summarize`; its
  ends are NaN for fewer than two values. For equal values it has zero width and is not visible.
  `overlap` is that of the splits that the values are from.
  """
  values = values.astype(np.float64)  # in float32 the square of a loss of 1e20 is infinite
  n, mean = len(values), values.mean(axis=0)
  if n < 2:
    return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
  half = t_quantile(0.975, n - 1) * values.std(axis=0, ddof=1) * math.sqrt(1 / n + overlap)
  return mean, np.clip(mean - half, *limits), np.clip(mean + half, *limits)


def last_points(
  population: Population, arm: int, curves: np.ndarray, worst: float
) -> Iterator[tuple[int, str, int, float]]:
  """Yields where members of an arm stopped early or diverged: seed, status, epoch and value.

  Args:
    population: the members.
    arm: index of the arm.
    curves: `[s, E]`, of its first members, NaN after the last value.
    worst: the value of a member that diverged in its first epoch and has none.
  """
  for seed, curve, status in zip(population.seeds, curves, population.status[:, arm], strict=False):
    if status in ("early_stopped", "diverged"):
      there = np.flatnonzero(np.isfinite(curve))
      yield seed, str(status), *((there[-1] + 1, curve[there[-1]]) if len(there) else (1, worst))


def curve_limits(
  population: Population, metric: str, curves: list[np.ndarray]
) -> tuple[tuple[float, float], bool]:
  """Returns limits for the curves `[S, A, E]` of a metric, and whether the axis is logarithmic."""
  every = np.stack(curves)
  kept = every[:, population.has_result]
  values = kept[np.isfinite(kept)] if np.isfinite(kept).any() else every[np.isfinite(every)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  least = values[values > 0].min(initial=np.inf)
  if metric == "loss" and high > 100 * least:
    pad = (high / least) ** 0.04
    return (least / pad, high * pad), True
  pad = 0.04 * (high - low) or 0.05
  return (low - pad, high + pad), False


def whole_number_limits(first: int, last: int) -> tuple[float, float]:
  """Returns limits of an axis of whole numbers, such that there is no tick beyond them."""
  margin = float(np.clip(0.025 * (last - first), 0.3, 0.9))
  return first - margin, last + margin


def score_limits(values: np.ndarray, ends: Iterable[float]) -> tuple[float, float]:
  """Returns limits that hold all values; the ends of intervals widen them by a half at most."""
  values = values[np.isfinite(values)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  widen = 0.25 * (high - low)
  ends = [end for end in ends if math.isfinite(end)]
  low, high = max(low - widen, min([low, *ends])), min(high + widen, max([high, *ends]))
  pad = 0.04 * (high - low) or 0.02 * abs(high) or 0.02
  return float(low - pad), float(high + pad)


def spread(num: int) -> np.ndarray:
  """Returns offsets that fill [-0.5, 0.5] evenly: multiples of the golden ratio, modulo 1."""
  return np.arange(1, num + 1) * (math.sqrt(5) - 1) / 2 % 1 - 0.5


def numbers(population: Population, most: int) -> tuple[np.ndarray, np.ndarray, int]:
  """Returns true and predicted numbers of test examples, `[n]` and `[A, n]`, of `most` at most.

  Those of several outputs stand one after the other; the last is the number of examples.
  """
  true = population.test_targets.reshape(len(population.test_targets), -1)  # [N, K]
  chosen = np.linspace(0, len(true) - 1, min(len(true), most)).astype(int)
  predicted = population.mean_probabilities[:, chosen].reshape(len(population.arms), -1)
  return true[chosen].ravel(), predicted, len(chosen)


def is_image(inputs: np.ndarray) -> bool:
  """Whether inputs `[N, ...]` are grey or RGB images."""
  return inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[-1] in (1, 3)


def arms_with_results(population: Population) -> list[str]:
  """Returns the arms of which at least one member did not diverge."""
  some = population.has_result.any(axis=0)  # [A]
  return [arm for arm, has_result in zip(population.arms, some, strict=True) if has_result]


class Predictions(NamedTuple):
  """What is predicted of each test example."""

  true_probability: np.ndarray  # [N], of the true class
  predicted: np.ndarray  # [N]
  predicted_probability: np.ndarray  # [N], of the predicted class
  correct: np.ndarray  # [N]

  @property
  def worst_first(self) -> np.ndarray:
    """The examples, `[N]`: mistakes first, each by the probability of the true class."""
    return np.lexsort((self.true_probability, self.correct))


def predict(population: Population, names: list[str]) -> Predictions:
  """Returns the predictions of the mean over these arms and their seeds."""
  labels = population.test_targets
  places = [list(population.arms).index(name) for name in names]
  probabilities = population.mean_probabilities[places].mean(axis=0)  # [N, C]
  num_examples, num_classes = probabilities.shape
  predicted = probabilities.argmax(axis=-1)  # [N]
  if num_classes == 2:
    # With two outputs the larger one wins, which is a threshold of one half.
    thresholds = [
      arm.threshold if losses.has_threshold(arm.loss) else 0.5
      for arm in (population.arms[name] for name in names)
    ]
    predicted = (probabilities[:, 1] > np.mean(thresholds)).astype(int)  # [N]
  examples = np.arange(num_examples)
  return Predictions(
    true_probability=probabilities[examples, labels],
    predicted=predicted,
    predicted_probability=probabilities[examples, predicted],
    correct=predicted == labels,
  )
