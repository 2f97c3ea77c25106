"""Dense layers, convolutions, pooling, dropout and residual sums."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.byhand.backprop.rule import Gradients

RULES = (
  "dense",
  "conv",
  "max_pool",
  "avg_pool",
  "global_avg_pool",
  "flatten",
  "dropout",
  "residual_sum",
)


def dense(x: np.ndarray, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Any]:
  """Returns `y = x K + b`, `[B, F]`, of `x [B, D]`, `kernel` K `[D, F]` and `bias` b `[F]`."""
  return x @ params["kernel"] + params["bias"][None], (x, params["kernel"])


def dense_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Dense layer, from `dy [B, F]`.

  y[b, f] = sum_d x[b, d] K[d, f] + b[f], therefore

    dx[b, d] = sum_f dy[b, f] K[d, f]    dx = dy K^T    [B, D]
    dK[d, f] = sum_b x[b, d] dy[b, f]    dK = x^T dy    [D, F]
    db[f]    = sum_b dy[b, f]                           [F]
  """
  x, kernel = cache
  return dy @ kernel.T, {"kernel": x.T @ dy, "bias": dy.sum(axis=0)}


def conv(
  x: np.ndarray,
  params: Mapping[str, np.ndarray],
  strides: tuple[int, int] = (1, 1),
  padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
) -> tuple[np.ndarray, Any]:
  """Convolution: a sum of shifted images over the kernel's positions.

  With x' the images with zeros around them, and strides s and t,

  y[b, i, j, f] = sum_uvd x'[b, s i + u, t j + v, d] K[u, v, d, f] + b[f]

  Args:
    x: `[B, H, W, D]`.
    params: `kernel` K `[U, V, D, F]`, and `bias` b `[F]`.
    strides: s and t.
    padding: how many zeros there are above and below, to the left and to the right.

  Returns:
    y `[B, H', W', F]`, H' = (H + zeros - U) // s + 1, W' likewise, and the cache.
  """
  kernel = params["kernel"]
  padded = np.pad(x, ((0, 0), *padding, (0, 0)))  # x'
  windows = _windows(padded, kernel, strides)
  size = windows[0, 0].shape[1:3]  # H', W'
  y = np.zeros((len(x), *size, kernel.shape[3])) + params["bias"].reshape(1, 1, 1, -1)
  for u, v in np.ndindex(kernel.shape[:2]):
    y += np.tensordot(windows[u, v], kernel[u, v], 1)
  return y, (padded, kernel, strides, padding)


def conv_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Convolution, from `dy [B, H', W', F]`.

  x'[b, m, n, d] is multiplied by K[u, v, d, f] in y[b, i, j, f] where m = s i + u and n = t j + v
  only, therefore

    dx'[b, m, n, d] = sum_uvf dy[b, (m - u) / s, (n - v) / t, f] K[u, v, d, f]
    dK[u, v, d, f]  = sum_bij x'[b, s i + u, t j + v, d] dy[b, i, j, f]      [U, V, D, F]
    db[f]           = sum_bij dy[b, i, j, f]                                 [F]

  with dy = 0 outside its H' x W' positions and between them: every output sends its gradient back
  through the kernel to the window that it came from. dx `[B, H, W, D]` is dx' without the zeros.
  """
  padded, kernel, strides, padding = cache
  dpadded, dkernel = np.zeros(padded.shape), np.zeros(kernel.shape)
  windows, dwindows = _windows(padded, kernel, strides), _windows(dpadded, kernel, strides)
  for u, v in np.ndindex(kernel.shape[:2]):
    dwindows[u, v] += np.tensordot(dy, kernel[u, v].T, 1)
    dkernel[u, v] = np.tensordot(windows[u, v], dy, ((0, 1, 2), (0, 1, 2)))
  (above, below), (left, right) = padding
  dx = dpadded[:, above : dpadded.shape[1] - below, left : dpadded.shape[2] - right]
  return dx, {"kernel": dkernel, "bias": dy.sum(axis=(0, 1, 2))}


def _windows(
  padded: np.ndarray, kernel: np.ndarray, strides: tuple[int, int]
) -> dict[tuple[int, int], np.ndarray]:
  """Returns (u, v) -> the view `padded[b, s i + u, t j + v, d]`, `[B, H', W', D]`."""
  (rows, columns), (height, width) = kernel.shape[:2], padded.shape[1:3]
  s, t = strides
  return {
    (u, v): padded[:, u : height - rows + u + 1 : s, v : width - columns + v + 1 : t]
    for u, v in np.ndindex(rows, columns)
  }


def max_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Maximum over 2 x 2 windows, stride 2: first over pairs of rows, then over pairs of columns.

  An odd last row or column is dropped.

  Args:
    x: `[B, H, W, D]`.

  Returns:
    y `[B, H // 2, W // 2, D]`, and the cache.
  """
  height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
  top, bottom = x[:, 0:height:2, :width], x[:, 1:height:2, :width]
  rows = np.maximum(top, bottom)  # [B, H // 2, W, D]
  left, right = rows[:, :, 0::2], rows[:, :, 1::2]
  return np.maximum(left, right), (x.shape, top, bottom, left, right)


def max_pool_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """2 x 2 max pooling, from `dy [B, H // 2, W // 2, D]`.

  For m = max(p, q): dp = dm if p > q, dm / 2 if p = q, else 0; and dq = dm - dp. (At a tie every
  split is a subgradient; JAX takes halves.) The gradient goes back through the maximum over columns
  first, then through that over rows. What was dropped has gradient 0. dx: `[B, H, W, D]`.
  """
  shape, top, bottom, left, right = cache
  height, width = shape[1] // 2 * 2, shape[2] // 2 * 2
  drows = np.zeros(top.shape)
  drows[:, :, 0::2] = dy * _share_of_first(left, right)
  drows[:, :, 1::2] = dy * _share_of_first(right, left)
  dx = np.zeros(shape)
  dx[:, 0:height:2, :width] = drows * _share_of_first(top, bottom)
  dx[:, 1:height:2, :width] = drows * _share_of_first(bottom, top)
  return dx, {}


def _share_of_first(p: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Returns d max(p, q) / dp: 1 if p > q, 1/2 if they are equal, else 0."""
  return np.where(p > q, 1.0, np.where(p == q, 0.5, 0.0))


def avg_pool(x: np.ndarray, size: int = 2) -> tuple[np.ndarray, Any]:
  """Mean over `size` x `size` windows that do not overlap.

  y[b, i, j, d] = 1/size^2 sum_uv x[b, size i + u, size j + v, d], u and v from 0 to size - 1. Rows
  and columns that do not fill a window are dropped.

  Args:
    x: `[B, H, W, D]`.
    size: side of a window.

  Returns:
    y `[B, H // size, W // size, D]`, and the cache.
  """
  batch, height, width, channels = x.shape
  rows, columns = height // size, width // size
  whole = x[:, : rows * size, : columns * size]
  windows = whole.reshape(batch, rows, size, columns, size, channels)
  return windows.mean(axis=(2, 4)), (x.shape, size)


def avg_pool_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Average pooling, from `dy [B, H // size, W // size, D]`: a window's pixels share its gradient.

  dx[b, size i + u, size j + v, d] = dy[b, i, j, d] / size^2, and 0 where x was dropped.
  dx: `[B, H, W, D]`.
  """
  shape, size = cache
  dx, share = np.zeros(shape), dy / size**2
  height, width = size * dy.shape[1], size * dy.shape[2]
  for u, v in np.ndindex(size, size):
    dx[:, u:height:size, v:width:size] = share
  return dx, {}


def global_avg_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y[b, d] = 1/(H W) sum_ij x[b, i, j, d]`, `[B, D]`, of `x [B, H, W, D]`."""
  return x.mean(axis=(1, 2)), x.shape


def global_avg_pool_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Global average pooling: dx[b, i, j, d] = dy[b, d] / (H W), `[B, H, W, D]`."""
  _, height, width, _ = cache
  return np.broadcast_to(dy[:, None, None] / (height * width), cache).copy(), {}


def flatten(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `x [B, H, W, D]` as `[B, H * W * D]`, rows first, then columns, then channels."""
  return x.reshape(len(x), -1), x.shape


def flatten_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Flattening moves nothing: dx `[B, H, W, D]` is dy `[B, H * W * D]` in its old shape."""
  return dy.reshape(cache), {}


def dropout(x: np.ndarray, mask: np.ndarray, rate: float) -> tuple[np.ndarray, Any]:
  """Inverted dropout: returns `y = mask x / (1 - rate)`, `[B, D]`.

  Args:
    x: `[B, D]`.
    mask: `[B, D]`, true where a value is kept.
    rate: the share of values that are dropped, in [0, 1).
  """
  return np.where(mask, x / (1 - rate), 0.0), (mask, rate)


def dropout_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Dropout with a given mask: dx[b, d] = mask[b, d] dy[b, d] / (1 - rate), `[B, D]`."""
  mask, rate = cache
  return np.where(mask, dy / (1 - rate), 0.0), {}


def residual_sum(x: np.ndarray, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Any]:
  """Returns `y = x + f`, f the output of the `branch` that a block computes from its input x."""
  return x + params["branch"], None


def residual_sum_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Residual sum (He et al. 2016): dx = dy along the shortcut, df = dy into the branch.

  With y = x + f(x), what f's backward pass returns for df is added to dx. So the gradient of the
  input is never only a product over layers.
  """
  return dy, {"branch": dy}
