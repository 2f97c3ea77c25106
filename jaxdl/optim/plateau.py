"""Reducing the learning rate when the validation loss stops improving."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PlateauState(NamedTuple):
  """The state of `reduce_on_plateau` between two epochs of one training run."""

  best: jax.Array  # [] float32, the lowest value so far
  wait: jax.Array  # [] int32, epochs without improvement, outside of cooldowns
  cooldown: jax.Array  # [] int32, epochs left in the cooldown
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
) -> PlateauState:
  """Returns the state after an epoch, as Keras 3's ReduceLROnPlateau in mode "min" does.

  Keras's `min_lr` is for the caller: a floor under the scaled learning rate gives the same rates.

  An epoch improves if its value is below `best` by more than `min_delta`. After `patience` epochs
  in a row without improvement (0 counts as 1) the scale is multiplied by `factor`; the epochs of a
  cooldown do not count. NaN and infinity never improve, not even in the first epoch.

  Args:
    state: before the epoch.
    value: `[]`, what should decrease, e.g. the validation loss.
    patience: `[]`, epochs.
    factor: `[]`, 0 to 1.
    min_delta: `[]`, the smallest decrease that counts as an improvement.
    cooldown: `[]`, epochs after a reduction that do not count.

  Returns:
    The state, whose scale applies to the next epoch.
  """
  cooled = jnp.maximum(state.cooldown - 1, 0)  # Keras decrements before it looks at the value
  wait = jnp.where(state.cooldown > 0, 0, state.wait)
  improved = value + min_delta < state.best  # rounded as in Keras
  waiting = ~improved & (cooled == 0)
  wait = jnp.where(improved, 0, wait + waiting)
  reduce = waiting & (wait >= patience)
  new = PlateauState(
    best=jnp.where(improved, value, state.best),
    wait=jnp.where(reduce, 0, wait),
    cooldown=jnp.where(reduce, cooldown, cooled),
    scale=jnp.where(reduce, state.scale * factor, state.scale),
  )
  return jax.tree.map(lambda after, before: after.astype(before.dtype), new, state)
