"""Which examples a step of training sees, in which order, and with which random numbers.

Everything random is a function of the member's key, which belongs to the seed alone. So the arms of
one seed share the order of the data, the batches gathered from it and their augmentation, and the
dropout masks: they are paired, and under `vmap` what they share is computed once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.arm import Recipe

# Streams of random numbers of one member.
INITIALIZATION, _DATA_ORDER, _DROPOUT, _AUGMENTATION = range(4)


class Examples(NamedTuple):
  """A split on the device."""

  images: jax.Array  # [N, H, W, D] uint8
  labels: jax.Array  # [N] int32


class Slice(NamedTuple):
  """Some examples of one batch: as many as pass through the model at once (`b`)."""

  indices: jax.Array  # [b] int32, into the training set
  weights: jax.Array  # [b] float32, 0 where the slice is padded
  dropout_keys: jax.Array | None  # [b] keys; None where nothing is dropped
  augmentation_keys: jax.Array | None  # [b] keys; None where images stay as they are


def seed_key(root_seed: int, seed: int) -> jax.Array:
  """Returns the key of one seed (one replication) of an experiment.

  Threefry, whatever JAX's default: other generators do not give the same numbers under `vmap`.
  """
  return jax.random.fold_in(jax.random.key(root_seed, impl="threefry2x32"), seed)


def epoch_slices(recipe: Recipe, key: jax.Array, epoch: jax.Array, num_examples: int) -> Slice:
  """Cuts an epoch into T batches of K slices: a new order of all N examples, none left out.

  The order depends on the key and the epoch alone. The dropout and augmentation keys of an example
  depend on the key, the epoch, the step and its place in the batch. So nothing depends on how a
  batch is cut.

  Args:
    recipe: the static settings.
    key: of the member's seed, from `seed_key`.
    epoch: `[]` int32, counted from 0.
    num_examples: N.

  Returns:
    Slices with leading axes `[T, K, b]`; T = ceil(N / B), and the last batch is partial. Padding
    has weight 0.
  """
  batch_size = recipe.arm.batch_size
  num_steps = -(-num_examples // batch_size)
  num_slices, slice_len = slice_shape(recipe)
  shape = (num_steps, num_slices, slice_len)

  order = jax.random.permutation(_fold(key, _DATA_ORDER, epoch), num_examples)  # [N]
  step, place = jnp.arange(num_steps), jnp.arange(num_slices * slice_len)  # [T], [K * b]
  position = batch_size * step[:, None] + place[None]  # [T, K * b]
  valid = (place < batch_size)[None] & (position < num_examples)
  indices = jnp.where(valid, order[jnp.minimum(position, num_examples - 1)], 0)

  def keys(stream):  # [T, K, b]
    step_keys = jax.vmap(jax.random.fold_in, (None, 0))(_fold(key, stream, epoch), step)  # [T]
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return fold(step_keys, place).reshape(shape)

  return Slice(
    indices=indices.reshape(shape),
    weights=valid.astype(jnp.float32).reshape(shape),
    dropout_keys=keys(_DROPOUT) if recipe.arm.dropout_rate > 0 else None,
    augmentation_keys=None if recipe.arm.augmentation.is_identity else keys(_AUGMENTATION),
  )


def slice_shape(recipe: Recipe) -> tuple[int, int]:
  """Returns K, the slices of a batch, and b, the examples in each."""
  num_slices = -(-recipe.arm.batch_size // recipe.slice_size)
  return num_slices, -(-recipe.arm.batch_size // num_slices)


def sum_over_slices(function: Callable[[Slice], Any], batch: Slice) -> Any:
  """Returns the sum of a function over the slices `[K, b]` of a batch.

  Of one slice, the usual number except for convolutions, nothing is added up: where the parameters
  outgrow the cache, passing over sums of gradients takes as long as computing them.
  """
  first = jax.tree.map(lambda x: x[0], batch)
  if len(batch.weights) == 1:
    return function(first)
  zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, first))
  sums, _ = lax.scan(lambda sums, x: (jax.tree.map(jnp.add, sums, function(x)), None), zeros, batch)
  return sums


def _fold(key: jax.Array, stream: int, epoch: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(key, stream), epoch)
