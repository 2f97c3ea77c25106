"""Activations: elementwise, for any shape, except softmax."""

import math
from typing import Any

import numpy as np

from jaxdl.byhand.backprop.rule import Gradients

RULES = ("sigmoid", "tanh", "relu", "leaky_relu", "gelu", "softmax")


def sigmoid(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = 1 / (1 + exp(-x))`, computed from exp(-|x|), which cannot overflow."""
  small = np.exp(-np.abs(x))
  y = np.where(x >= 0, 1.0, small) / (1 + small)
  return y, y


def sigmoid_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Sigmoid: dy/dx = exp(-x) / (1 + exp(-x))^2 = y (1 - y), therefore dx = dy y (1 - y)."""
  y = cache
  return dy * y * (1 - y), {}


def tanh(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns the hyperbolic tangent of x."""
  y = np.tanh(x)
  return y, y


def tanh_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Hyperbolic tangent: dy/dx = 1 / cosh(x)^2 = 1 - y^2, therefore dx = dy (1 - y^2)."""
  y = cache
  return dy * (1 - y**2), {}


def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = max(x, 0)`."""
  return np.maximum(x, 0.0), x


def relu_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """ReLU: dx = dy if x > 0, else 0; at the kink x = 0 the derivative is 0."""
  x = cache
  return np.where(x > 0, dy, 0.0), {}


def leaky_relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = x` if x >= 0, else `0.2 x`."""
  return np.where(x >= 0, x, 0.2 * x), x


def leaky_relu_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Leaky ReLU: dx = dy if x >= 0, else 0.2 dy; at the kink x = 0 the derivative is 1."""
  x = cache
  return np.where(x >= 0, dy, 0.2 * dy), {}


def gelu(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = x Phi(x)`, Phi(x) = (1 + erf(x / sqrt(2))) / 2 (Hendrycks & Gimpel 2016)."""
  share = (1 + _erf(x / math.sqrt(2))) / 2  # Phi: the distribution function of N(0, 1)
  return x * share, (x, share)


def gelu_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """GELU: dx = dy (Phi(x) + x phi(x)), phi the density of N(0, 1), the derivative of Phi.

  phi(x) = exp(-x^2 / 2) / sqrt(2 pi). Below x = -0.75 dy/dx is negative: GELU is not monotone.
  """
  x, share = cache
  density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
  return dy * (share + x * density), {}


_erf = np.vectorize(math.erf, otypes=[float])


def softmax(z: np.ndarray, axis: int = -1) -> tuple[np.ndarray, Any]:
  """Returns `p[c] = exp(z[c]) / sum_k exp(z[k])`, c and k along an axis, shifted against overflow.

  Args:
    z: any shape, such as logits `[B, C]`.
    axis: along which the results add up to 1.
  """
  shifted = np.exp(z - z.max(axis=axis, keepdims=True))
  p = shifted / shifted.sum(axis=axis, keepdims=True)
  return p, (p, axis)


def softmax_backward(cache: Any, dp: np.ndarray) -> Gradients:
  """Softmax along an axis, from `dp` of its shape. Its Jacobian is symmetric but not diagonal.

  d p[k] / d z[c] = p[k] (1[k = c] - p[c]), therefore, at every place of the other axes,

    dz[c] = sum_k dp[k] p[k] (1[k = c] - p[c])
          = p[c] (dp[c] - sum_k dp[k] p[k])
  """
  p, axis = cache
  return p * (dp - (dp * p).sum(axis=axis, keepdims=True)), {}
