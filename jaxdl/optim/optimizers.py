"""Optimizers: name -> optax transformation without the learning rate and without weight decay.

Both stay outside, in `step`, because optax would bake Python floats into the compiled program,
while here they are arrays that differ between arms and steps. Constants are Keras's defaults.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxdl.cpu import cpu_layers
from jaxdl.errors import unknown_name

_ADAM_B1, _ADAM_B2, _ADAM_EPSILON = 0.9, 0.999, 1e-7


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
    mu = jax.tree.map(lambda g, m: (1 - _ADAM_B1) * g + _ADAM_B1 * m, grads, state.mu)
    nu = jax.tree.map(lambda g, v: (1 - _ADAM_B2) * (g * g) + _ADAM_B2 * v, grads, state.nu)
    factor, epsilon = _adam_factors(count)
    updates = jax.tree.map(lambda m, v: factor * (m / (jnp.sqrt(v) + epsilon)), mu, nu)
    return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _adam_factors(count: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns what the direction is multiplied by, and epsilon, at step `count`, from 1."""
  root = jnp.sqrt(1 - _ADAM_B2**count)
  return root / (1 - _ADAM_B1**count), _ADAM_EPSILON * root


_OPTIMIZERS = {
  # Duchi et al. (2011); the sum of squares starts at 0.1, epsilon is inside the root.
  "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.1, eps=1e-7),
  "adam": _adam,
  # Adam; what makes it AdamW is the weight decay that `step` adds.
  "adamw": _adam,
  "momentum": lambda: optax.trace(decay=0.9),
  # Keras puts the learning rate inside the velocity: the same as long as the rate is constant.
  "nesterov": lambda: optax.trace(decay=0.9, nesterov=True),
  # Tieleman & Hinton (2012); epsilon is inside the root.
  "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=1e-7, eps_in_sqrt=True),
  "sgd": optax.identity,
}
NAMES = tuple(_OPTIMIZERS)
# Those whose step `jaxdl.cpu.cpu_layers` can make.
WITH_FACTORS = ("adam", "adamw")


def get(name: str) -> optax.GradientTransformation:
  """Returns the optimizer of that name. Raises InputError when there is none."""
  if name not in _OPTIMIZERS:
    raise unknown_name("optimizer", name, _OPTIMIZERS)
  return _OPTIMIZERS[name]()


def default_weight_decay(name: str) -> float:
  """Returns the weight decay that an optimizer has by itself: Keras's 0.004 for `adamw`, else 0."""
  get(name)
  return 0.004 if name == "adamw" else 0.0


def step(
  name: str,
  params: optax.Params,
  opt_state: optax.OptState,
  grads: optax.Updates,
  learning_rate: jax.Array,
  weight_decay: jax.Array | None = None,
) -> tuple[optax.Params, optax.OptState]:
  """Makes one step: `p - learning_rate (update + weight_decay p)`.

  The weight decay is decoupled (Loshchilov & Hutter 2019): it goes past the optimizer's moments.
  As in Keras, it is applied to every parameter, biases too.

  Args:
    name: one of `NAMES`.
    params: p, a tree.
    opt_state: of the optimizer, from its `init`.
    grads: a tree like `params`; of Adam also with `cpu_layers.Factors` in the place of layers.
    learning_rate: `[]`.
    weight_decay: `[]`, of any optimizer; None: no decay is compiled in.

  Returns:
    `(params, opt_state)` after the step.
  """
  if any(map(cpu_layers.is_factors, jax.tree.leaves(grads, is_leaf=cpu_layers.is_factors))):
    return _step_with_factors(name, params, opt_state, grads, learning_rate, weight_decay)
  updates, opt_state = get(name).update(grads, opt_state, params)
  if weight_decay is not None:
    updates = jax.tree.map(lambda update, p: update + weight_decay * p, updates, params)
  params = jax.tree.map(lambda p, update: p - learning_rate * update, params, updates)
  return params, opt_state


def _step_with_factors(name, params, opt_state, grads, learning_rate, weight_decay):
  """Makes the `step` of Adam, arguments and results as there, where some gradients are factors."""
  every = functools.partial(jax.tree.map, is_leaf=cpu_layers.is_factors)  # of the leaves of `grads`
  before = params, opt_state.mu, opt_state.nu

  def rest(tree):  # without what has factors
    return every(lambda g, x: None if cpu_layers.is_factors(g) else x, grads, tree)

  state = opt_state._replace(mu=rest(opt_state.mu), nu=rest(opt_state.nu))
  others, state = step(name, rest(params), state, rest(grads), learning_rate, weight_decay)

  factor, epsilon = _adam_factors(state.count)
  scalars = {
    "rate": learning_rate * factor,
    "epsilon": epsilon,
    "keep": 1 if weight_decay is None else 1 - learning_rate * weight_decay,
  }

  def update(g, *of):
    if not cpu_layers.is_factors(g):
      return None
    return cpu_layers.adam_step(*of, g, **scalars, b1=_ADAM_B1, b2=_ADAM_B2)

  fused = every(update, grads, *before)  # in the place of factors: (p, m, v)
  params, mu, nu = (
    every(
      lambda g, of, other, i=i: of[i] if cpu_layers.is_factors(g) else other, grads, fused, tree
    )
    for i, tree in enumerate((others, state.mu, state.nu))
  )
  return params, state._replace(mu=mu, nu=nu)
