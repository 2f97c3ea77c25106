"""Normalisation: values that share a mean and a variance, then a scale and a bias per channel.

All three kinds are y = g xhat + b, xhat = (x - m) / s, s = sqrt(v + eps), with the mean m and the
variance v of a set of n values. Every x of the set is in m and in v, so every xhat depends on all
of them. From c = dL/dxhat,

  dv = sum c (x - m) (-1/2) (v + eps)^(-3/2) = -1/2 sum(c xhat) / s^2
  dm = -sum c / s                          (through v nothing comes, as sum (x - m) = 0)
  dx = c / s + dv 2 (x - m) / n + dm / n
     = (c - mean(c) - xhat mean(c xhat)) / s

with sums and means over the set. A normalised layer thus takes from the gradient its mean and its
component along xhat: shifting or scaling the set changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.byhand.backprop.rule import Gradients

RULES = ("batch_norm", "layer_norm", "group_norm")


def _normalize(
  x: np.ndarray, axes: tuple[int, ...], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns xhat, of x's shape, and s, with length 1 along the axes of the sets."""
  centred = x - x.mean(axis=axes, keepdims=True)
  variance = (centred**2).mean(axis=axes, keepdims=True)
  s = np.sqrt(variance + epsilon)
  return centred / s, s


def _normalize_backward(
  xhat: np.ndarray, s: np.ndarray, axes: tuple[int, ...], c: np.ndarray
) -> np.ndarray:
  """Returns dx = (c - mean(c) - xhat mean(c xhat)) / s, of x's shape, from c = dL/dxhat."""
  mean = c.mean(axis=axes, keepdims=True)
  along = (c * xhat).mean(axis=axes, keepdims=True)
  return (c - mean - xhat * along) / s


def batch_norm(
  x: np.ndarray, params: Mapping[str, np.ndarray], epsilon: float = 1e-5
) -> tuple[np.ndarray, Any]:
  """Batch normalisation in training (Ioffe & Szegedy 2015): a set for each channel.

  Args:
    x: `[B, ..., D]`; the mean m `[D]` and the variance v `[D]` are over all axes but the last.
    params: `scale` g `[D]` and `bias` b `[D]`.
    epsilon: eps.

  Returns:
    y of x's shape, and the cache.
  """
  rows = x.reshape(-1, x.shape[-1])  # [n, D]
  xhat, s = _normalize(rows, (0,), epsilon)
  scale = params["scale"][None]
  return (scale * xhat + params["bias"][None]).reshape(x.shape), (xhat, s, scale)


def batch_norm_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Batch normalisation, from `dy [B, ..., D]`.

  With n for an example and a position,

    dg[d]    = sum_n dy[n, d] xhat[n, d]                                        [D]
    db[d]    = sum_n dy[n, d]                                                   [D]
    dx[n, d] = g[d] / s[d] (dy - mean_n dy - xhat mean_n(dy xhat))[n, d]        [B, ..., D]
  """
  xhat, s, scale = cache
  rows = dy.reshape(xhat.shape)  # [n, D]
  dx = _normalize_backward(xhat, s, (0,), scale * rows)
  return dx.reshape(dy.shape), {"scale": (rows * xhat).sum(axis=0), "bias": rows.sum(axis=0)}


def layer_norm(
  x: np.ndarray, params: Mapping[str, np.ndarray], epsilon: float = 1e-6
) -> tuple[np.ndarray, Any]:
  """Layer normalisation as in transformers (Ba et al. 2016): a set for each position.

  Args:
    x: `[B, ..., D]`; the mean and the variance `[B, ...]` are over the last axis.
    params: `scale` g `[D]` and `bias` b `[D]`.
    epsilon: eps.

  Returns:
    y of x's shape, and the cache.
  """
  rows = x.reshape(-1, x.shape[-1])  # [n, D]
  xhat, s = _normalize(rows, (1,), epsilon)
  scale = params["scale"][None]
  return (scale * xhat + params["bias"][None]).reshape(x.shape), (xhat, s, scale)


def layer_norm_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Layer normalisation, from `dy [B, ..., D]`.

  With n for an example and a position; here the scale differs within a set, so it stays inside:

    c[n, d]  = g[d] dy[n, d]
    dg[d]    = sum_n dy[n, d] xhat[n, d]                                        [D]
    db[d]    = sum_n dy[n, d]                                                   [D]
    dx[n, d] = 1 / s[n] (c - mean_d c - xhat mean_d(c xhat))[n, d]              [B, ..., D]
  """
  xhat, s, scale = cache
  rows = dy.reshape(xhat.shape)  # [n, D]
  dx = _normalize_backward(xhat, s, (1,), scale * rows)
  return dx.reshape(dy.shape), {"scale": (rows * xhat).sum(axis=0), "bias": rows.sum(axis=0)}


def group_norm(
  x: np.ndarray, params: Mapping[str, np.ndarray], num_groups: int, epsilon: float = 1e-5
) -> tuple[np.ndarray, Any]:
  """Group normalisation (Wu & He 2018): a set for each example and group of channels.

  Args:
    x: `[B, ..., D]`; with G groups, channel d is in group d // (D / G). Mean and variance `[B, G]`
      are over all positions and the D / G channels of a group. One group is layer normalisation of
      images.
    params: `scale` g `[D]` and `bias` b `[D]`.
    num_groups: G, which divides D.
    epsilon: eps.

  Returns:
    y of x's shape, and the cache.
  """
  groups = x.reshape(len(x), -1, num_groups, x.shape[-1] // num_groups)  # [B, n, G, D / G]
  xhat, s = _normalize(groups, (1, 3), epsilon)
  scale, bias = (params[name].reshape(1, 1, *groups.shape[2:]) for name in ("scale", "bias"))
  return (scale * xhat + bias).reshape(x.shape), (xhat, s, scale)


def group_norm_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Group normalisation, from `dy [B, ..., D]`.

  With n for a position, and d for a channel of group k,

    c[b, n, d]  = g[d] dy[b, n, d]
    dg[d]       = sum_bn dy[b, n, d] xhat[b, n, d]                              [D]
    db[d]       = sum_bn dy[b, n, d]                                            [D]
    dx[b, n, d] = 1 / s[b, k] (c - mean c - xhat mean(c xhat))[b, n, d]         [B, ..., D]

  with means over the positions and channels of (b, k).
  """
  xhat, s, scale = cache
  groups = dy.reshape(xhat.shape)  # [B, n, G, D / G]
  dx = _normalize_backward(xhat, s, (1, 3), scale * groups)
  dscale, dbias = (groups * xhat).sum(axis=(0, 1)), groups.sum(axis=(0, 1))  # [G, D / G]
  return dx.reshape(dy.shape), {"scale": dscale.ravel(), "bias": dbias.ravel()}
