"""Metrics: predictions from logits, confusion matrices from predictions, rates from those counts.

Counts add up exactly over slices of a dataset, so rates are divided only once, at the end. A metric
of the user's own is the mean of a function of outputs and targets, as losses are.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import calls
from jaxdl.calls import Call
from jaxdl.errors import InputError, show
from jaxdl.optim import losses


class Metric(NamedTuple):
  """A metric of an arm: the mean over examples of a function of the form of a loss."""

  name: str
  direction: str  # "min" or "max": which values are better
  function: str | Call  # a loss, or a call

  def values(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the metric of each example, `[B]` float32."""
    name, numbers = losses.parse(self.function)
    kind = losses.Kind(name, tuple(numbers))
    values = jnp.array([*numbers.values()], jnp.float32)
    return losses.select([kind], 0, values, None)(outputs, targets).astype(jnp.float32)


# By these ends of their names, scikit-learn tells which values of a metric are better.
_MINIMIZED = ("error", "loss", "distance", "deviance", "entropy")
_MAXIMIZED = ("score", "accuracy")


def read(given: Any) -> tuple[Metric, ...]:
  """Reads the metrics of an arm.

  Args:
    given: name -> metric, or a sequence of metrics. A metric is one of `losses.NAMES`, or a
      function `(outputs [B, ...], targets [B, ...]) -> [B]`, also as text,
      `my_metrics:top_3_accuracy`; or a pair `("min" or "max", metric)`, which is needed if the name
      does not end in one of the words by which scikit-learn tells which values are better. A triple
      `(name, direction, metric)` does as well.

  Returns:
    The metrics, in their order.

  Raises:
    InputError: it is unclear what one is, or which of its values are better; or two have one name.
  """
  if isinstance(given, Mapping):
    found = tuple(_read(name, metric) for name, metric in given.items())
  elif isinstance(given, Iterable) and not isinstance(given, str):
    found = tuple(_read(None, metric) for metric in given)
  else:
    raise InputError(f"metrics must be a list or a dict, not {show(given)}")
  names = [metric.name for metric in found]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"two metrics have the name {name!r}")
  return found


def _read(name: str | None, given: Any) -> Metric:
  direction = None
  if isinstance(given, tuple | list):
    if len(given) == 3 and name in (None, given[0]):
      name, direction, given = given
    elif len(given) == 2:
      direction, given = given
    else:
      raise InputError(f"a metric is a function or a pair (direction, function), not {show(given)}")
  function = calls.canonical(given)
  is_own = calls.is_importable(function)
  if not is_own:
    losses.parse(function)
  call = Call.of(function) if is_own else None
  if name is None:
    target = function if call is None else call.target
    name = getattr(target, "__name__", None) or str(target).rpartition(":")[2]
  if not isinstance(name, str) or not name.isidentifier():
    raise InputError(f"the name of a metric must be a word, not {show(name)}")
  if direction is None and (not is_own or name.endswith(_MINIMIZED)):
    direction = "min"
  elif direction is None and name.endswith(_MAXIMIZED):
    direction = "max"
  if direction not in ("min", "max"):
    raise InputError(
      f'metric {name!r} does not say which values are better: give it as ("min", ...) or '
      '("max", ...)'
    )
  return Metric(name, direction, function)


# Of confidences, in calibration errors and reliability diagrams.
NUM_BINS = 15


def predict_class(logits: jax.Array, threshold: jax.Array | float) -> jax.Array:
  """Returns the predicted class of each example.

  Args:
    logits: `[..., C]`, or `[..., 1]` for one sigmoid output.
    threshold: with one output, class 1 is predicted if its probability exceeds this (strictly, as
      in Keras's BinaryAccuracy). It is ignored with several outputs, where the largest logit wins.

  Returns:
    `[...]` int32.
  """
  if logits.shape[-1] == 1:
    return (jax.nn.sigmoid(logits[..., 0]) > threshold).astype(jnp.int32)
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def num_correct(logits: jax.Array, targets: jax.Array, threshold: jax.Array) -> jax.Array:
  """Returns how much of each example is classified correctly: 0 or 1, or a share of its positions.

  Args:
    logits: `[B, C]`; `[B, L, C]` of sequences.
    targets: `[B]` int; `[B, L]` of sequences. Numbers are not classified.
    threshold: as of `predict_class`.

  Returns:
    `[B]` bool, or float32 of sequences; NaN if targets are numbers.
  """
  if jnp.issubdtype(targets.dtype, jnp.floating):
    return jnp.full(len(targets), jnp.nan)
  correct = predict_class(logits, threshold) == targets
  return correct if correct.ndim == 1 else correct.reshape(len(correct), -1).mean(axis=-1)


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Returns probabilities `[..., C]` from logits `[..., C]`, or `[..., 2]` from `[..., 1]`."""
  logits = np.asarray(logits, np.float64)
  if logits.shape[-1] == 1:
    logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
  shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return shifted / shifted.sum(axis=-1, keepdims=True)


def of_numbers(outputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the metrics of predicted numbers: mean squared and absolute error, and R2.

  R2 is 1 - sum (y - p)^2 / sum (y - mean y)^2, averaged over the K numbers of a target, as in
  scikit-learn: 0 for whoever always predicts the mean.

  Args:
    outputs: `[..., N, K]`.
    targets: `[N]` or `[N, K]`.

  Returns:
    name -> `[...]` float64.
  """
  targets = targets.reshape(len(targets), -1).astype(np.float64)  # [N, K]
  errors = outputs.astype(np.float64) - targets  # [..., N, K]
  spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)  # [K]
  with np.errstate(divide="ignore", invalid="ignore"):
    r2 = 1 - np.square(errors).sum(axis=-2) / spread  # [..., K]
  return {
    "mean_squared_error": np.square(errors).mean(axis=(-2, -1)),
    "mean_absolute_error": np.abs(errors).mean(axis=(-2, -1)),
    "r2": r2.mean(axis=-1),
  }


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts examples by true and predicted class.

  Args:
    labels: `[N]`, 0 to C - 1.
    predicted: `[..., N]`, 0 to C - 1; leading axes (seeds, arms) are kept.
    num_classes: C.

  Returns:
    `[..., C, C]` int64, rows true, columns predicted.
  """
  rows = predicted.reshape(-1, len(labels))
  cells = rows + num_classes * np.asarray(labels)
  counts = [np.bincount(row, minlength=num_classes**2) for row in cells]
  return np.stack(counts).reshape(*predicted.shape[:-1], num_classes, num_classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
  """Returns the share on the diagonal, `[...]` from counts `[..., C, C]`; NaN without examples."""
  return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def precision_recall_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns precision, recall and F1, each `[...]` from counts `[..., C, C]`.

  With two classes they are the scores of class 1; with more, the mean over classes (macro average),
  without those that have neither examples nor predictions, as in scikit-learn. There is no micro
  average: it equals the accuracy, because every example has one label.
  """
  scores = per_class(confusion)
  if confusion.shape[-1] == 2:
    return tuple(score[..., 1] for score in scores)
  occurs = confusion.sum(axis=-1) + confusion.sum(axis=-2) > 0  # [..., C]
  return tuple(_ratio((score * occurs).sum(axis=-1), occurs.sum(axis=-1)) for score in scores)


def per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns precision, recall and F1 of every class, each `[..., C]` from counts `[..., C, C]`.

  precision = tp / (tp + fp), recall = tp / (tp + fn), F1 = 2 tp / (2 tp + fp + fn). A class that is
  never predicted has precision 0, as in scikit-learn. Without examples all three are NaN.
  """
  true_positives = np.diagonal(confusion, axis1=-2, axis2=-1)  # [..., C]
  predicted, actual = confusion.sum(axis=-2), confusion.sum(axis=-1)  # [..., C]
  scores = (
    true_positives / np.maximum(predicted, 1),
    true_positives / np.maximum(actual, 1),
    2 * true_positives / np.maximum(predicted + actual, 1),
  )
  empty = confusion.sum(axis=(-2, -1)) == 0
  return tuple(np.where(empty[..., None], np.nan, score) for score in scores)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def calibration_counts(
  probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> np.ndarray:
  """Counts examples by how confident a prediction is, in bins of equal width.

  The prediction is the class with the largest probability, and that is its confidence (Guo et al.,
  2017, On Calibration of Modern Neural Networks, ICML).

  Args:
    probabilities: `[..., N, C]`.
    labels: `[N]`, 0 to C - 1.
    num_bins: M; bin m has confidences in (m / M, (m + 1) / M].

  Returns:
    `[..., 3, M]`: numbers of examples, sums of confidences, numbers of correct predictions.
  """
  confidence = probabilities.max(axis=-1)  # [..., N]
  correct = probabilities.argmax(axis=-1) == labels
  place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
  rows = [
    [np.bincount(of, weights, minlength=num_bins) for weights in (np.ones(len(of)), c, r)]
    for of, c, r in zip(
      *(x.reshape(-1, len(labels)) for x in (place, confidence, correct.astype(float))), strict=True
    )
  ]
  return np.array(rows).reshape(*confidence.shape[:-1], 3, num_bins)


def expected_calibration_error(counts: np.ndarray) -> np.ndarray:
  """Returns the mean over examples of |accuracy - confidence| of their bin, `[...]`.

  Args:
    counts: `[..., 3, M]` of `calibration_counts`.
  """
  numbers, confidences, correct = np.moveaxis(counts, -2, 0)
  return _ratio(np.abs(correct - confidences).sum(axis=-1), numbers.sum(axis=-1))


def auc(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the area under the ROC curve, `[...]`.

  It is the share of pairs of an example of the class and one of another in which the former has the
  larger probability of the class; ties count half. With two classes it is that of class 1; with
  more the mean over classes, each against the rest, as scikit-learn's macro average. It is NaN if
  no class has both examples and others.

  Args:
    probabilities: `[..., N, C]`.
    labels: `[N]`, 0 to C - 1.
  """
  num_classes = probabilities.shape[-1]
  classes = [1] if num_classes == 2 else range(num_classes)
  classes = [label for label in classes if 0 < np.sum(labels == label) < len(labels)]
  members = probabilities.reshape(-1, *probabilities.shape[-2:])
  areas = [
    np.mean([_area(member[:, label], labels == label) for label in classes]) if classes else np.nan
    for member in members
  ]
  return np.array(areas).reshape(probabilities.shape[:-2])


def _area(scores: np.ndarray, is_positive: np.ndarray) -> float:
  positive, negative = scores[is_positive], np.sort(scores[~is_positive])
  below, up_to = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
  return float((below + up_to).mean() / 2 / len(negative))
