"""Which examples each step of training sees, and the random numbers that it uses.

Everything random is a function of the member's key, which depends on the seed and not on the arm.
So the arms of one seed share the order of the data, the batches, their augmentation and the dropout
masks. This pairs the arms, and under `vmap` whatever they share is computed once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.recipe import Recipe

# The streams of random numbers of a member.
INITIALIZATION, _DATA_ORDER, _DROPOUT, _AUGMENTATION = range(4)

# Whatever JAX's default is: other generators give different numbers under `vmap`.
_GENERATOR = "threefry2x32"


class Examples(NamedTuple):
  """The examples of one split, on a device."""

  inputs: jax.Array  # [N, ...]; [N, H, W, D] uint8 for images
  targets: jax.Array  # [N] int32 for classes
  chosen: jax.Array | None = None  # [n] int32, indices of those that count; None: all do

  @property
  def size(self) -> int:
    """How many examples count."""
    return len(self.targets if self.chosen is None else self.chosen)

  def taken(self) -> "Examples":
    """Returns the examples that count, in arrays of their own."""
    if self.chosen is None:
      return self
    return Examples(self.inputs[self.chosen], self.targets[self.chosen])


class Slice(NamedTuple):
  """A part of a batch: the `b` examples that pass through the model at once."""

  indices: jax.Array  # [b] int32, into the training set
  weights: jax.Array  # [b] float32; 1, or 0 for padding
  dropout_keys: jax.Array | None  # [b] keys; None without dropout
  augmentation_keys: jax.Array | None  # [b] keys; None without augmentation
  step_key: jax.Array | None = None  # [] key, of the step; only for models of the user's own


def seed_key(root_seed: int, seed: int) -> jax.Array:
  """Returns the key of one seed (one replication) of an experiment.

  The arms of a seed share it.
  """
  return jax.random.fold_in(jax.random.key(root_seed, impl=_GENERATOR), seed)


def shared_key() -> jax.Array:
  """Returns the key of what is the same for all seeds."""
  return jax.random.key(0, impl=_GENERATOR)


def epoch_slices(recipe: Recipe, key: jax.Array, epoch: jax.Array, num_examples: int) -> Slice:
  """Shuffles all N examples and cuts them into T batches of K slices each.

  The order depends only on the key and the epoch; with `Arm.same_order`, on the epoch alone. The
  dropout and augmentation keys of an example depend only on the key, the epoch, the step and the
  example's place in the batch. So results do not depend on how a batch is cut into slices, except
  for rounding.

  Args:
    recipe: the static settings.
    key: the key of the member's seed, from `seed_key`.
    epoch: number of the epoch, `[]` int32, counted from 0.
    num_examples: N, the size of the training set.

  Returns:
    Slices with leading axes `[T, K, b]`, where T = ceil(N / B) for batches of size B. If B does not
    divide N, the last batch is padded. Padding has weight 0. `step_key` has the axes `[T, K]`.
  """
  batch_size = recipe.arm.batch_size
  num_steps = -(-num_examples // batch_size)
  num_slices, slice_len = slice_shape(recipe)
  shape = (num_steps, num_slices, slice_len)

  order_key = _fold(shared_key() if recipe.arm.same_order else key, _DATA_ORDER, epoch)
  order = jax.random.permutation(order_key, num_examples)  # [N]
  step, place = jnp.arange(num_steps), jnp.arange(num_slices * slice_len)  # [T], [K * b]
  position = batch_size * step[:, None] + place[None]  # [T, K * b]
  valid = (place < batch_size)[None] & (position < num_examples)
  indices = jnp.where(valid, order[jnp.minimum(position, num_examples - 1)], 0)

  def step_keys(stream):  # [T]
    return jax.vmap(jax.random.fold_in, (None, 0))(_fold(key, stream, epoch), step)

  def keys(stream):  # [T, K, b]
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return fold(step_keys(stream), place).reshape(shape)

  has_masks = bool(recipe.arm.dropout_rate) and not recipe.is_own
  return Slice(
    indices=indices.reshape(shape),
    weights=valid.astype(jnp.float32).reshape(shape),
    dropout_keys=keys(_DROPOUT) if has_masks else None,
    augmentation_keys=None if recipe.arm.augmentation.is_identity else keys(_AUGMENTATION),
    step_key=step_keys(_DROPOUT)[:, None] if recipe.is_own else None,
  )


def split_ragged(recipe: Recipe, batches: Slice, num_examples: int) -> tuple[Slice, Slice | None]:
  """Separates a last batch that is smaller, where padding would change what a model computes.

  Statistics of a batch, as batch normalisation takes them, must not include padding; a model of the
  user's own may have some.

  Args:
    recipe: the static settings.
    batches: the result of `epoch_slices`.
    num_examples: N.

  Returns:
    The batches that have their full size, `[T - 1, 1, b]`, and the last one without padding,
    `[1, r]`; or all batches and None.
  """
  rest = num_examples % recipe.arm.batch_size
  if not (recipe.is_own and rest):
    return batches, None
  step_key: Any = batches.step_key
  last = jax.tree.map(lambda x: x[-1, :, :rest], batches._replace(step_key=None))
  return jax.tree.map(lambda x: x[:-1], batches), last._replace(step_key=step_key[-1])


def slice_shape(recipe: Recipe) -> tuple[int, int]:
  """Returns K, the number of slices of a batch, and b, the number of examples in each."""
  num_slices = -(-recipe.arm.batch_size // recipe.slice_size)
  return num_slices, -(-recipe.arm.batch_size // num_slices)


def sum_over_slices(function: Callable[[Slice], Any], batch: Slice) -> Any:
  """Returns the sum of a function over the slices `[K, b]` of a batch.

  A single slice, which is the usual case except for convolutions, is returned without adding it to
  zeros: if the parameters are larger than the cache, adding gradients takes as long as computing
  them.
  """
  first = jax.tree.map(lambda x: x[0], batch)
  if len(batch.weights) == 1:
    return function(first)
  zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, first))
  sums, _ = lax.scan(lambda sums, x: (jax.tree.map(jnp.add, sums, function(x)), None), zeros, batch)
  return sums


def _fold(key: jax.Array, stream: int, epoch: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(key, stream), epoch)
