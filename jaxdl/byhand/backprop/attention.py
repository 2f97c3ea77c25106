"""What transformers add: embeddings and scaled dot-product attention."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.byhand.backprop import activations
from jaxdl.byhand.backprop.rule import Gradients

RULES = ("embedding", "attention")


def embedding(table: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y[b, l, d] = E[i[b, l], d]`, `[B, L, D]`: rows of a table.

  Args:
    table: E `[V, D]`, which is learned.
    indices: i `[B, L]`, 0 to V - 1. Integers have no gradient.
  """
  return table[indices], (table.shape, indices)


def embedding_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Embedding, from `dy [B, L, D]`: a row collects the gradients of all places where it was used.

  dE[v, d] = sum_bl 1[i[b, l] = v] dy[b, l, d]      [V, D]
  """
  shape, indices = cache
  dtable = np.zeros(shape)
  np.add.at(dtable, indices, dy)
  return dtable, {}


def attention(
  query: np.ndarray, params: Mapping[str, np.ndarray], mask: np.ndarray | None = None
) -> tuple[np.ndarray, Any]:
  """Scaled dot-product attention (Vaswani et al. 2017), for each example and head.

  s[l, m] = sum_d q[l, d] k[m, d] / sqrt(D), p[l, :] = softmax(s[l, :]), y[l, d] = sum_m p[l, m]
  v[m, d]. In matrices, Y = softmax(Q K^T / sqrt(D)) V.

  Args:
    query: q `[B, N, L, D]`, N heads.
    params: `key` k `[B, N, M, D]` and `value` v `[B, N, M, F]`.
    mask: `[L, M]`, true where a query sees a key; elsewhere s is minus infinity. None: everywhere.

  Returns:
    y `[B, N, L, F]`, and the cache.
  """
  key, value = params["key"], params["value"]
  scores = query @ _transposed(key) / math.sqrt(query.shape[-1])  # [B, N, L, M]
  if mask is not None:
    scores = np.where(mask[None, None], scores, -np.inf)
  weights, cache = activations.softmax(scores)
  return weights @ value, (query, key, value, weights, cache)


def attention_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Scaled dot-product attention, from `dy [B, N, L, F]`.

  All sums are within one example and head; ds is 0 where p is 0, as under a mask:

    dv[m, f] = sum_l p[l, m] dy[l, f]                         dV = P^T dY            [B, N, M, F]
    dp[l, m] = sum_f dy[l, f] v[m, f]                         dP = dY V^T            [B, N, L, M]
    ds[l, m] = p[l, m] (dp[l, m] - sum_j dp[l, j] p[l, j])    softmax                [B, N, L, M]
    dq[l, d] = sum_m ds[l, m] k[m, d] / sqrt(D)               dQ = dS K / sqrt(D)    [B, N, L, D]
    dk[m, d] = sum_l ds[l, m] q[l, d] / sqrt(D)               dK = dS^T Q / sqrt(D)  [B, N, M, D]
  """
  query, key, value, weights, softmax_cache = cache
  dvalue = _transposed(weights) @ dy
  dscores, _ = activations.softmax_backward(softmax_cache, dy @ _transposed(value))
  dscaled = dscores / math.sqrt(query.shape[-1])  # [B, N, L, M]
  return dscaled @ key, {"key": _transposed(dscaled) @ query, "value": dvalue}


def _transposed(x: np.ndarray) -> np.ndarray:
  """Returns `[..., M, L]` of `[..., L, M]`."""
  return np.swapaxes(x, -1, -2)
