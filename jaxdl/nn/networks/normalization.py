"""The choice between kinds of normalisation."""

from collections.abc import Callable

import flax.linen as nn
import jax

from jaxdl.errors import InputError, unknown_name

NORMS = ("batch", "group", "layer", "none")
NUM_GROUPS = 8


def normalization(norm: str, train: bool) -> Callable[[jax.Array], jax.Array]:
  """Returns a new layer of the module that is being called: `[B, ..., D]` to the same shape.

  Each has a scale and a bias per channel. With x the values that share a mean and a variance, the
  result is `scale (x - mean) / sqrt(variance + 1e-5) + bias`.

  Args:
    norm: `batch`: a channel over the batch and all positions (Ioffe & Szegedy 2015), in evaluation
      with running averages, which keep 0.9 of themselves at each step; `layer`: an example over all
      its positions and channels (Ba et al. 2016); `group`: the same in 8 groups of channels (Wu &
      He 2018); `none`: x as it is.
    train: whether batches are normalised by their own statistics.
  """
  if norm == "batch":
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)
  if norm == "none":
    return lambda x: x
  return nn.GroupNorm(NUM_GROUPS if norm == "group" else 1, epsilon=1e-5)


def check_norm(norm: str, sizes: tuple[int, ...]):
  """Raises InputError unless there is such a normalisation for layers of these sizes."""
  if norm not in NORMS:
    raise unknown_name("norm", norm, NORMS)
  odd = [size for size in sizes if size % NUM_GROUPS]
  if norm == "group" and odd:
    raise InputError(f"norm 'group' makes {NUM_GROUPS} groups, which do not divide {odd[0]}")
