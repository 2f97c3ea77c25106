"""Losses: one number per example, `loss [B]`; backward passes take dL/dloss, `[B]`."""

from typing import Any

import numpy as np

from jaxdl.byhand.backprop import activations
from jaxdl.byhand.backprop.rule import Gradients

RULES = (
  "binary_cross_entropy",
  "categorical_cross_entropy",
  "mean_squared_error",
  "mean_absolute_error",
  "huber",
  "hinge",
)


def binary_cross_entropy(
  z: np.ndarray, labels: np.ndarray, label_smoothing: float = 0.0
) -> tuple[np.ndarray, Any]:
  """Returns `-y log p - (1 - y) log(1 - p)`, `[B]`, p = sigmoid(z), for the logits `z [B, 1]`.

  Computed as max(z, 0) - z y + log(1 + exp(-|z|)), which is the same and stays finite.

  Args:
    z: `[B, 1]`.
    labels: `[B]`, 0 or 1.
    label_smoothing: s; y = (1 - s) label + s / 2.
  """
  score, y = z[:, 0], (1 - label_smoothing) * labels + label_smoothing / 2  # [B]
  loss = np.maximum(score, 0) - score * y + np.log1p(np.exp(-np.abs(score)))
  return loss, (score, y)


def binary_cross_entropy_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Binary cross-entropy of a logit, from `dloss [B]`; y may lie between 0 and 1.

  dloss/dp = (p - y) / (p (1 - p)) and dp/dz = p (1 - p) cancel to p - y, therefore

    dz[b, 0] = dloss[b] (sigmoid(z[b, 0]) - y[b])      [B, 1]
  """
  score, y = cache
  return (dloss * (activations.sigmoid(score)[0] - y))[:, None], {}


def categorical_cross_entropy(
  z: np.ndarray, labels: np.ndarray, label_smoothing: float = 0.0
) -> tuple[np.ndarray, Any]:
  """Returns `-sum_c y[b, c] log p[b, c]`, `[B]`, p = softmax(z).

  As sum_c y[b, c] = 1, this is log sum_c exp(z[b, c]) - sum_c y[b, c] z[b, c].

  Args:
    z: logits `[B, C]`.
    labels: `[B]`, 0 to C - 1.
    label_smoothing: s; y[b, c] = (1 - s) 1[c = label[b]] + s / C.
  """
  num_classes = z.shape[1]
  y = (1 - label_smoothing) * one_hot(labels, num_classes) + label_smoothing / num_classes
  top = z.max(axis=1)  # [B]
  log_sum = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
  return log_sum - (y * z).sum(axis=1), (z, y)


def categorical_cross_entropy_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Categorical cross-entropy of logits, from `dloss [B]`.

  With respect to z[c], log sum_k exp(z[k]) has the derivative p[c] and sum_k y[k] z[k] has y[c],
  therefore

    dz[b, c] = dloss[b] (p[b, c] - y[b, c])      [B, C]
  """
  z, y = cache
  return dloss[:, None] * (activations.softmax(z)[0] - y), {}


def mean_squared_error(y: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `1/K sum_k (y[b, k] - t[b, k])^2`, `[B]`.

  Args:
    y: outputs `[B, K]`; of classes the probabilities `[B, C]`.
    targets: t `[B, K]`; of classes 1 for the label and 0 elsewhere, see `one_hot`.
  """
  error = y - targets  # [B, K]
  return (error**2).mean(axis=1), error


def mean_squared_error_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Mean squared error, from `dloss [B]`: dy[b, k] = dloss[b] 2/K (y[b, k] - t[b, k])."""
  error = cache
  return dloss[:, None] * 2 * error / error.shape[1], {}


def mean_absolute_error(y: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `1/K sum_k |y[b, k] - t[b, k]|`, `[B]`, of outputs y and targets t, both `[B, K]`."""
  error = y - targets  # [B, K]
  return np.abs(error).mean(axis=1), error


def mean_absolute_error_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Mean absolute error, from `dloss [B]`; at the kink y = t the derivative is 0.

  dy[b, k] = dloss[b] / K if y[b, k] > t[b, k], -dloss[b] / K if y[b, k] < t[b, k]      [B, K]
  """
  error = cache
  return dloss[:, None] * np.sign(error) / error.shape[1], {}


def huber(y: np.ndarray, targets: np.ndarray, delta: float = 1.0) -> tuple[np.ndarray, Any]:
  """Returns Huber's loss (1964), `[B]`: the mean over k of h(e), e = y[b, k] - t[b, k].

  h(e) = e^2 / 2 if |e| <= delta, else delta (|e| - delta / 2)

  Args:
    y: outputs `[B, K]`.
    targets: t `[B, K]`.
    delta: where the parabola ends, > 0.
  """
  error = y - targets  # [B, K]
  size = np.abs(error)
  near, far = error**2 / 2, delta * (size - delta / 2)
  return np.where(size <= delta, near, far).mean(axis=1), (error, delta)


def huber_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Huber's loss, from `dloss [B]`. The slopes e and +-delta meet, so there is no kink.

  dy[b, k] = dloss[b] / K max(-delta, min(e, delta)), e = y[b, k] - t[b, k]      [B, K]
  """
  error, delta = cache
  slope = np.maximum(-delta, np.minimum(error, delta))  # [B, K]
  return dloss[:, None] * slope / error.shape[1], {}


def hinge(z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `1/C sum_c max(0, 1 - t[b, c] z[b, c])`, `[B]`, t = 1 for the label, else -1.

  Args:
    z: `[B, C]`, logits or probabilities.
    labels: `[B]`, 0 to C - 1.
  """
  target = 2 * one_hot(labels, z.shape[1]) - 1  # [B, C]
  lack = 1 - target * z  # [B, C], of margin
  return np.maximum(lack, 0).mean(axis=1), (target, lack)


def hinge_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Hinge loss, from `dloss [B]`; at the kink t z = 1 the derivative is 0.

  dz[b, c] = -dloss[b] t[b, c] / C if 1 - t[b, c] z[b, c] > 0, else 0      [B, C]
  """
  target, lack = cache
  return dloss[:, None] * np.where(lack > 0, -target, 0.0) / target.shape[1], {}


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns `1[c = label[b]]`, `[B, C]`."""
  return (labels[:, None] == np.arange(num_classes)[None]).astype(float)
