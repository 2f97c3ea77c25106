"""What pictures show, as numbers: for those that are files and for those of the page."""

import math
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


def mean_curves(population: Population, name: str) -> np.ndarray:
  """Returns the mean curve of each arm in the unit shown, `[A, E]`, NaN after its last epoch."""
  curves = valid_curves(population, name)
  means = np.full(curves.shape[1:], np.nan)
  for index, mean in enumerate(means):
    kept = population.has_result[:, index]
    if kept.any():
      values = last_kept(curves[kept, index], population.epochs[kept, index])
      mean[: values.shape[-1]] = values.mean(axis=0)
  return means


def curve_interval(
  curves: np.ndarray, num_epochs: np.ndarray, possible: tuple[float, float], overlap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the mean of curves `[n, E]` over seeds and the ends of its 95% interval, each `[E]`.

  A curve keeps the value of its last epoch, `num_epochs` `[n]`, until the longest curve ends.
  """
  return mean_interval(last_kept(curves, num_epochs), possible, overlap)


def mean_interval(
  values: np.ndarray, limits: tuple[float, float] = (-math.inf, math.inf), overlap: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the mean of values `[n, ...]` and the ends of its 95% interval, each `[...]`.

  The interval is Student's t, cut to the limits of the metric, as in `jaxdl.stats.summarize`; its
  ends are NaN for fewer than two values. For equal values it has zero width and is not visible.
  `overlap` is that of the splits that the values are from.
  """
  n, mean = len(values), values.mean(axis=0)
  if n < 2:
    return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
  half = t_quantile(0.975, n - 1) * values.std(axis=0, ddof=1) * math.sqrt(1 / n + overlap)
  return mean, np.clip(mean - half, *limits), np.clip(mean + half, *limits)


def last_kept(curves: np.ndarray, num_epochs: np.ndarray) -> np.ndarray:
  """Returns curves `[n, E]` that keep their last value until the longest curve ends."""
  index = np.minimum(np.arange(num_epochs.max()), num_epochs[:, None] - 1)  # [n, E]
  return np.take_along_axis(curves, index, axis=1)


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


def arms_with_results(population: Population) -> list[str]:
  """Returns the arms of which at least one member did not diverge."""
  some = population.has_result.any(axis=0)  # [A]
  return [arm for arm, has_result in zip(population.arms, some, strict=True) if has_result]


class Predictions(NamedTuple):
  true_probability: np.ndarray  # [N], of the true class
  predicted: np.ndarray  # [N]
  predicted_probability: np.ndarray  # [N], of the predicted class


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
  return Predictions(probabilities[examples, labels], predicted, probabilities[examples, predicted])
