"""Metrics: predictions from logits, confusion matrices from predictions, rates from those counts.

Counts add up exactly over slices of a dataset, so rates are divided only once, at the end.
"""

import jax
import jax.numpy as jnp
import numpy as np


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
