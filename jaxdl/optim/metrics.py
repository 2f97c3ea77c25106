"""Metrics: predictions from logits, confusion matrices from predictions, rates from those counts.

Counts add up exactly over slices of a dataset, so rates are divided only once, at the end.
"""

import jax
import jax.numpy as jnp
import numpy as np

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


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Returns probabilities `[..., C]` from logits `[..., C]`, or `[..., 2]` from `[..., 1]`."""
  logits = np.asarray(logits, np.float64)
  if logits.shape[-1] == 1:
    logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
  shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return shifted / shifted.sum(axis=-1, keepdims=True)


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
