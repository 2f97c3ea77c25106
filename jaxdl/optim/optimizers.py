"""Optimizers: name -> optax transformation. Constants are Keras's defaults.

Where Keras itself differs from optax and PyTorch, its form has a name of its own, `keras_...`.

They are made where they are used, inside the traced function, so that the learning rate, the weight
decay and every setting are arrays that may differ between arms of one program.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl import calls
from jaxdl.calls import Argument, Call
from jaxdl.errors import InputError

Setting: TypeAlias = jax.Array | float


def _adam(
  b1: Setting, b2: Setting, epsilon: Setting, is_keras: bool = False
) -> optax.GradientTransformation:
  """Adam's direction (Kingma & Ba 2015), `optax.scale_by_adam` in the order that is cheapest.

  m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon), with both corrections of the bias taken out of
  the division: sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon sqrt(1 - b2^t)), the form at
  the end of section 2 of the paper. Equal up to rounding, with one division per parameter instead
  of three: at batch size 1, where Adam is most of a step on CPU, steps are a sixth faster.

  Keras's epsilon, ten times optax's. It is added after correcting the bias of the second moment, as
  in algorithm 1 of the paper and in PyTorch; `keras_adam` adds it before, as Keras does and as the
  end of section 2 has it, which makes it 32 times as large at the first step and ten times at the
  tenth. The first update for a gradient of 1e-3 is 0.3% smaller in Keras, for one of 1e-5 a quarter
  smaller.
  """

  def update(grads, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    mu = jax.tree.map(lambda g, m: (1 - b1) * g + b1 * m, grads, state.mu)
    nu = jax.tree.map(lambda g, v: (1 - b2) * (g * g) + b2 * v, grads, state.nu)
    factor, scaled_epsilon = adam_factors(count, b1, b2, epsilon, is_keras)
    updates = jax.tree.map(lambda m, v: factor * (m / (jnp.sqrt(v) + scaled_epsilon)), mu, nu)
    return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


def adam_factors(
  count: jax.Array, b1: Setting, b2: Setting, epsilon: Setting, is_keras: bool = False
) -> tuple[jax.Array, Setting]:
  """Returns what Adam's direction is multiplied by, and its epsilon, at step `count`, from 1."""
  root = jnp.sqrt(1 - b2**count)
  return root / (1 - b1**count), epsilon if is_keras else epsilon * root


def _share(name: str, default: float) -> Argument:
  return Argument(name, lambda value: 0 <= value < 1, "in [0, 1)", default)


_EPSILON = Argument("epsilon", lambda value: value > 0, "> 0", 1e-7)
_START = Argument("initial_accumulator_value", lambda value: value >= 0, ">= 0", 0.1)
_ADAM_SETTINGS = (_share("b1", 0.9), _share("b2", 0.999), _EPSILON)

# Name -> its direction, made from its settings, and what they are. optax's names, but `epsilon`.
_OPTIMIZERS: dict[str, tuple[Callable[..., optax.GradientTransformation], tuple]] = {
  # Duchi et al. (2011); epsilon is inside the root.
  "adagrad": (
    lambda initial_accumulator_value, epsilon: optax.scale_by_rss(
      initial_accumulator_value, eps=epsilon
    ),
    (_START, _EPSILON),
  ),
  "adam": (_adam, _ADAM_SETTINGS),
  # Adam; what makes it AdamW is its weight decay.
  "adamw": (_adam, _ADAM_SETTINGS),
  "keras_adam": (functools.partial(_adam, is_keras=True), _ADAM_SETTINGS),
  "keras_momentum": (optax.trace, (_share("decay", 0.9),)),
  "keras_nesterov": (functools.partial(optax.trace, nesterov=True), (_share("decay", 0.9),)),
  # As in PyTorch, the learning rate multiplies the velocity.
  "momentum": (optax.trace, (_share("decay", 0.9),)),
  "nesterov": (functools.partial(optax.trace, nesterov=True), (_share("decay", 0.9),)),
  # Tieleman & Hinton (2012); epsilon is inside the root.
  "rmsprop": (
    lambda decay, epsilon: optax.scale_by_rms(decay, eps=epsilon, eps_in_sqrt=True),
    (_share("decay", 0.9), _EPSILON),
  ),
  "sgd": (optax.identity, ()),
}
NAMES = tuple(_OPTIMIZERS)
KERAS_ADAM = "keras_adam"
# Adam, with and without weight decay by default, and as Keras has it.
ADAMS = ("adam", "adamw", KERAS_ADAM)
# Keras has the learning rate inside the velocity. That is the same as long as the rate is constant;
# after a rate that falls, velocities of before count with the rates of before.
_RATE_INSIDE = ("keras_momentum", "keras_nesterov")


def parse(spec: str | Call) -> tuple[str | Call, dict[str, float]]:
  """Reads an optimizer from a setting.

  Args:
    spec: one of `NAMES`, with settings if they are not to have their defaults, which are Keras's:

      - `sgd`;
      - `momentum(decay)`, `nesterov(decay)`: 0.9;
      - `adagrad(initial_accumulator_value, epsilon)`: 0.1, 1e-7;
      - `rmsprop(decay, epsilon)`: 0.9, 1e-7;
      - `adam(b1, b2, epsilon)`, `adamw(b1, b2, epsilon)`: 0.9, 0.999, 1e-7;
      - `keras_adam(b1, b2, epsilon)`, `keras_momentum(decay)`, `keras_nesterov(decay)`: as Keras
        computes them, where the others do as optax and PyTorch.

      Or a call of a function `(learning_rate, ...) -> optax transformation`, as every optimizer of
      optax is: `optax:lion(b1=0.95)`.

  Returns:
    `(name, settings)`, with defaults filled in. Of a call, the settings are its floats, which are
    traced; where optax needs to know one while it is traced, they stay in the call.

  Raises:
    InputError: for an unknown name or setting, one that is out of range, or a function that cannot
      be imported or is no optimizer.
  """
  if calls.is_importable(spec):
    return _split(Call.of(spec))
  known = {name: arguments for name, (_, arguments) in _OPTIMIZERS.items()}
  return calls.parse("optimizer", spec, known)


@functools.cache
def _split(call: Call) -> tuple[Call, dict[str, float]]:
  """Splits off the floats of a call, unless the optimizer must know them while it is traced."""
  static, settings = call.split()
  if "learning_rate" not in call.parameters() or "learning_rate" in settings:
    raise InputError(
      f"optimizer {call} must take a learning_rate, which the arm's setting of that name gives"
    )
  try:
    _try_step(static, settings)
  except InputError as error:
    if not isinstance(error.__cause__, jax.errors.JAXTypeError):
      raise
    _try_step(call, {})
    return call, {}
  return static, settings


def _try_step(call: Call, settings: Mapping[str, float]):
  """Raises InputError unless a call makes an optimizer, and that a step, with traced settings."""
  params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}

  def step(settings):
    optimizer = call.build(learning_rate=jnp.float32(0.1), **settings)
    return optimizer.update(params, optimizer.init(params), params)

  try:
    jax.eval_shape(step, settings)
  except InputError:
    raise
  except Exception as error:  # whatever the code of somebody else raises
    raise InputError(f"optimizer {call} fails: {calls.one_line(error)}") from error


def create(
  name: str | Call,
  learning_rate: Setting,
  settings: Mapping[str, Setting] | None = None,
  weight_decay: Setting | None = None,
) -> optax.GradientTransformation:
  """Returns an optimizer, whose updates are `-learning_rate (direction + weight_decay p)`.

  Of `keras_momentum` and `keras_nesterov`, the direction is that of `-learning_rate g`.

  The weight decay is decoupled (Loshchilov & Hutter 2019): it goes past the optimizer's moments.
  As in Keras, it is applied to every parameter, biases too.

  Args:
    name: one of `NAMES`, or a call; the learning rate and the weight decay of that are its own
      business.
    learning_rate: `[]`.
    settings: of `parse`, each `[]`; None: the defaults.
    weight_decay: `[]`, of any optimizer; None: no decay is compiled in.

  Raises:
    InputError: there is no optimizer of that name.
  """
  settings = parse(name)[1] if settings is None else settings
  if isinstance(name, Call):
    return name.build(learning_rate=learning_rate, **settings)
  direction = _OPTIMIZERS[name][0](**settings)
  is_inside = name in _RATE_INSIDE
  decay: tuple[optax.GradientTransformation, ...] = ()
  if weight_decay is not None:
    factor = -learning_rate if is_inside else 1
    decay = (optax.add_decayed_weights(factor * weight_decay),)
  if is_inside:
    return optax.chain(optax.scale(-learning_rate), direction, *decay)
  direction = optax.chain(direction, *decay)

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


def default_weight_decay(name: str | Call) -> float:
  """Returns the weight decay that an optimizer has by itself: Keras's 0.004 for `adamw`, else 0."""
  return 0.004 if name == "adamw" else 0.0
