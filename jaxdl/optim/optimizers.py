"""Optimizers: name -> optax transformation. Constants are Keras's defaults.

They are made where they are used, inside the traced function, so that the learning rate and the
weight decay are arrays that may differ between arms and steps.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.errors import unknown_name

ADAM_B1, ADAM_B2, ADAM_EPSILON = 0.9, 0.999, 1e-7


def _adam() -> optax.GradientTransformation:
  """Adam's direction (Kingma & Ba 2015), `optax.scale_by_adam` in the order that is cheapest.

  m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon), with both corrections of the bias taken out of
  the division: sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon sqrt(1 - b2^t)), the form at
  the end of section 2 of the paper. Equal up to rounding, with one division per parameter instead
  of three: at batch size 1, where Adam is most of a step on CPU, steps are a sixth faster.

  Keras's epsilon, ten times optax's. It is added after correcting the bias of the second moment, as
  in algorithm 1 of the paper; Keras adds it before, which makes it 32 times as large at the first
  step and ten times at the tenth. The first update for a gradient of 1e-3 is 0.3% smaller in Keras,
  for one of 1e-5 a quarter smaller.
  """

  def update(grads, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    mu = jax.tree.map(lambda g, m: (1 - ADAM_B1) * g + ADAM_B1 * m, grads, state.mu)
    nu = jax.tree.map(lambda g, v: (1 - ADAM_B2) * (g * g) + ADAM_B2 * v, grads, state.nu)
    factor, epsilon = adam_factors(count)
    updates = jax.tree.map(lambda m, v: factor * (m / (jnp.sqrt(v) + epsilon)), mu, nu)
    return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


def adam_factors(count: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns what the direction is multiplied by, and epsilon, at step `count`, from 1."""
  root = jnp.sqrt(1 - ADAM_B2**count)
  return root / (1 - ADAM_B1**count), ADAM_EPSILON * root


_OPTIMIZERS = {
  # Duchi et al. (2011); the sum of squares starts at 0.1, epsilon is inside the root.
  "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.1, eps=1e-7),
  "adam": _adam,
  # Adam; what makes it AdamW is its weight decay.
  "adamw": _adam,
  "momentum": lambda: optax.trace(decay=0.9),
  # Keras puts the learning rate inside the velocity: the same as long as the rate is constant.
  "nesterov": lambda: optax.trace(decay=0.9, nesterov=True),
  # Tieleman & Hinton (2012); epsilon is inside the root.
  "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=1e-7, eps_in_sqrt=True),
  "sgd": optax.identity,
}
NAMES = tuple(_OPTIMIZERS)
# Adam, with and without weight decay by default.
ADAMS = ("adam", "adamw")


def create(
  name: str, learning_rate: jax.Array | float, weight_decay: jax.Array | float | None = None
) -> optax.GradientTransformation:
  """Returns an optimizer, whose updates are `-learning_rate (direction + weight_decay p)`.

  The weight decay is decoupled (Loshchilov & Hutter 2019): it goes past the optimizer's moments.
  As in Keras, it is applied to every parameter, biases too.

  Args:
    name: one of `NAMES`.
    learning_rate: `[]`.
    weight_decay: `[]`, of any optimizer; None: no decay is compiled in.

  Raises:
    InputError: there is no optimizer of that name.
  """
  if name not in _OPTIMIZERS:
    raise unknown_name("optimizer", name, _OPTIMIZERS)
  decay = () if weight_decay is None else (optax.add_decayed_weights(weight_decay),)
  direction = optax.chain(_OPTIMIZERS[name](), *decay)

  def update(grads, state, params=None):
    rate = _after_backward(learning_rate, grads)
    updates, state = direction.update(grads, state, params)
    return jax.tree.map(lambda leaf: -rate * leaf, updates), state

  return optax.GradientTransformation(direction.init, update)


def _after_backward(learning_rate: jax.Array | float, grads: optax.Updates) -> jax.Array:
  """Returns the learning rate, once the backward pass is over.

  XLA does not see by itself that a kernel can be updated in place once the gradient of the layer
  before it is computed, and copies kernels that it may read after they are updated. So no weight is
  updated before the gradients of all biases are there.
  """
  biases = [leaf for leaf in jax.tree.leaves(grads) if leaf.ndim == 1]
  rate, _ = lax.optimization_barrier((learning_rate, biases))
  return rate


def default_weight_decay(name: str) -> float:
  """Returns the weight decay that an optimizer has by itself: Keras's 0.004 for `adamw`, else 0."""
  return 0.004 if name == "adamw" else 0.0
