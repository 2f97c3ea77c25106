"""Reducing the learning rate when the validation loss stops improving."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PlateauState(NamedTuple):
  """What `reduce_on_plateau` remembers of one training run."""

  best: jax.Array  # [] float32, the lowest value so far
  wait: jax.Array  # [] int32, epochs since then
  cooldown: jax.Array  # [] int32, epochs that are not counted
  scale: jax.Array  # [] float32, the factor on the scheduled learning rate


def initial_plateau() -> PlateauState:
  """Returns the state before the first epoch."""
  return PlateauState(
    best=jnp.float32(jnp.inf), wait=jnp.int32(0), cooldown=jnp.int32(0), scale=jnp.float32(1)
  )


def reduce_on_plateau(
  state: PlateauState,
  value: jax.Array,
  *,
  patience: jax.Array,
  factor: jax.Array,
  min_delta: jax.Array,
  cooldown: jax.Array,
  min_scale: jax.Array,
) -> PlateauState:
  """Returns the state after an epoch: Keras 3's ReduceLROnPlateau in mode "min".

  An epoch whose value is not below `best` by more than `min_delta` is waited through, outside of a
  cooldown; after `patience` such epochs in a row (0 counts as 1) the scale is multiplied by
  `factor`. NaN and infinity never improve on anything, not even in the first epoch.

  Args:
    state: before the epoch.
    value: `[]`, what should go down, e.g. the validation loss.
    patience: `[]`, epochs.
    factor: `[]`, 0 to 1.
    min_delta: `[]`, the least improvement.
    cooldown: `[]`, epochs after a reduction in which none is waited through.
    min_scale: `[]`, the lowest scale: Keras's `min_lr` by the learning rate.

  Returns:
    The state whose scale holds for the next epoch.
  """
  cooled = jnp.maximum(state.cooldown - 1, 0)  # an epoch of a cooldown starts by shortening it
  wait = jnp.where(state.cooldown > 0, 0, state.wait)
  improved = value + min_delta < state.best  # in this form Keras rounds, too
  waiting = ~improved & (cooled == 0)
  wait = jnp.where(improved, 0, wait + waiting)
  reduce = waiting & (wait >= patience) & (state.scale > min_scale)
  new = PlateauState(
    best=jnp.where(improved, value, state.best),
    wait=jnp.where(reduce, 0, wait),
    cooldown=jnp.where(reduce, cooldown, cooled),
    scale=jnp.where(reduce, jnp.maximum(state.scale * factor, min_scale), state.scale),
  )
  return jax.tree.map(lambda after, before: after.astype(before.dtype), new, state)
