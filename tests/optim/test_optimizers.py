"""Optimizers against numbers by hand and against Keras."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.optim import optimizers

# Made with Keras 3.15.1 on JAX: where five steps of keras.optimizers.NAME(0.1) lead, with its own
# defaults (momentum=0.9 for two of them), from _START by the gradients _GRADIENTS.
_START = np.array([1.0, -2.0, 0.5], np.float32)
_GRADIENTS = np.array(
  [[0.5, -1.0, 2.0], [1.5, 0.3, -0.8], [-0.7, 0.9, 1.1], [0.2, -1.3, 0.6], [1.0, 0.4, -2.0]],
  np.float32,
)
_KERAS = {
  "adagrad": [0.8017687, -1.9485049, 0.43127847],
  "adam": [0.6754752, -1.8304694, 0.2538118],
  "adamw": [0.6737933, -1.8266822, 0.25307867],
  "momentum": [0.331095, -1.7305601, -0.25599992],
  "nesterov": [0.14798543, -1.6875039, -0.27039993],
  "rmsprop": [0.30066895, -1.8405979, 0.2838929],
  "sgd": [0.74999994, -1.93, 0.41000003],
}
# At a constant rate, and for such gradients, the forms of Keras and of PyTorch agree.
_KERAS |= {f"keras_{name}": _KERAS[name] for name in ("adam", "momentum", "nesterov")}
# keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01)
_KERAS_MOMENTUM_WITH_DECAY = [0.327215, -1.7211848, -0.25675666]


def _descend(name, weight_decay, learning_rate=0.1):
  params = jnp.array(_START)
  state = optimizers.create(name, 0.0, None, weight_decay).init(params)
  step = jax.jit(functools.partial(_step, name))
  for gradient in _GRADIENTS:
    params, state = step(params, state, gradient, learning_rate, weight_decay)
  return params


def _step(name, params, state, gradient, learning_rate, weight_decay=None):
  optimizer = optimizers.create(name, learning_rate, None, weight_decay)
  updates, state = optimizer.update(gradient, state, params)
  return optax.apply_updates(params, updates), state


def test_every_optimizer_is_held_against_keras():
  assert set(_KERAS) == set(optimizers.NAMES)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_steps_are_those_of_keras(name):
  """For gradients of order 1, where the place of Adam's epsilon makes a difference below 1e-5."""
  found = _descend(name, optimizers.default_weight_decay(name) or None)
  np.testing.assert_allclose(found, _KERAS[name], rtol=1e-5)


@pytest.mark.parametrize(("name", "ahead"), [("keras_momentum", 0), ("keras_nesterov", 1)])
def test_velocity_has_the_rate_inside_in_keras_and_outside_in_pytorch(name, ahead):
  """Two steps by hand, the rate a tenth in the second: v = 0.9 v - rate g against 0.9 v + g."""
  found = {}
  for key in (name, name.removeprefix("keras_")):
    params = jnp.zeros(1)
    state = optimizers.create(key, 0.0).init(params)
    for rate in (1.0, 0.1):
      params, state = _step(key, params, state, jnp.ones(1), rate)
    found[key] = float(params[0])
  first = [-1.0, -1.9][ahead]
  in_keras = [0.9 * -1 - 0.1, 0.9 * (0.9 * -1 - 0.1) - 0.1][ahead]
  in_pytorch = [-0.1 * 1.9, -0.1 * (1 + 0.9 * 1.9)][ahead]
  assert found[name] == pytest.approx(first + in_keras)
  assert found[name.removeprefix("keras_")] == pytest.approx(first + in_pytorch)


def test_epsilon_is_added_before_the_correction_in_keras():
  """The first step of a gradient as small as epsilon: sqrt(1 - b2) (1 - b1) g over ..."""
  g, epsilon = 1e-5, 1e-7
  params = jnp.zeros(1)
  for name, expected in (
    ("adam", g / (g + epsilon)),
    ("keras_adam", g / (g + epsilon / np.sqrt(0.001))),
  ):
    state = optimizers.create(name, 0.0).init(params)
    after, _ = _step(name, params, state, jnp.full(1, g), 1.0)
    np.testing.assert_allclose(after, [-expected], rtol=1e-4)


def test_weight_decay_is_an_argument_of_every_optimizer():
  np.testing.assert_allclose(_descend("momentum", 0.01), _KERAS_MOMENTUM_WITH_DECAY, rtol=1e-5)
  np.testing.assert_allclose(_descend("adamw", None), _descend("adam", None), rtol=0)
  assert (_descend("adam", 0.004) == _descend("adamw", 0.004)).all()
  assert (_descend("sgd", 0.0) == _descend("sgd", None)).all()


def test_weight_decay_is_decoupled_and_of_every_leaf():
  """Without a gradient, what is left is p (1 - learning_rate weight_decay), of biases too."""
  params = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, -1.0)}
  zeros = jax.tree.map(jnp.zeros_like, params)
  for name in optimizers.NAMES:
    state = optimizers.create(name, 0.0, None, 0.1).init(params)
    after, _ = _step(name, params, state, zeros, 0.5, 0.1)
    np.testing.assert_allclose(after["kernel"], np.full((2, 3), 1.9), rtol=1e-6)
    np.testing.assert_allclose(after["bias"], np.full(3, -0.95), rtol=1e-6)
    state = optimizers.create(name, 0.0).init(params)
    after, _ = _step(name, params, state, zeros, 0.5)
    jax.tree.map(np.testing.assert_array_equal, after, params)


def test_rates_and_decays_may_differ_between_members():
  rates, decays = jnp.array([0.1, 0.1, 0.2]), jnp.array([0.0, 0.01, 0.01])
  found = jax.vmap(lambda rate, decay: _descend("nesterov", decay, rate))(rates, decays)
  for i in range(3):
    np.testing.assert_allclose(
      found[i], _descend("nesterov", decays[i], rates[i]), rtol=1e-5, atol=1e-6
    )


def test_default_weight_decay():
  defaults = {name: optimizers.default_weight_decay(name) for name in optimizers.NAMES}
  assert {name: decay for name, decay in defaults.items() if decay} == {"adamw": 0.004}


def test_unknown_names_are_refused():
  with pytest.raises(InputError, match="did you mean 'adam'"):
    optimizers.create("adamm", 0.1)


def test_adam_by_hand():
  """Two steps of Kingma & Ba's algorithm 1 with epsilon 1e-7, in float64."""
  tx = optimizers.create("adam", 1.0)
  grads = [np.array([0.1, -2.0, 3e-7]), np.array([0.3, 1.0, -1e-7])]
  state = tx.init(jnp.zeros(3))
  m = v = np.zeros(3)
  for t, g in enumerate(grads, start=1):
    update, state = tx.update(jnp.array(g, jnp.float32), state)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    expected = -(m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    np.testing.assert_allclose(update, expected, rtol=1e-4)


def test_momentum_and_sgd_by_hand():
  grads = jnp.array([1.0, 2.0])
  tx = optimizers.create("sgd", 0.5)
  update, _ = tx.update(grads, tx.init(grads))
  assert (update == -0.5 * grads).all()
  tx = optimizers.create("momentum", 1.0)
  state = tx.init(grads)
  for expected in (1.0, 1.9, 2.71):  # v <- 0.9 v + g
    update, state = tx.update(jnp.array([1.0, 2.0]), state)
    np.testing.assert_allclose(update, -jnp.array([expected, 2 * expected]), rtol=1e-6)
  assert jax.tree.leaves(state)[0].shape == (2,)


@pytest.mark.parametrize(
  ("spec", "expected"),
  [
    ("sgd", {}),
    ("adam", {"b1": 0.9, "b2": 0.999, "epsilon": 1e-7}),
    ("adam(0.8, epsilon=1e-5)", {"b1": 0.8, "b2": 0.999, "epsilon": 1e-5}),
    ("nesterov(decay=0)", {"decay": 0.0}),
  ],
)
def test_settings(spec, expected):
  assert optimizers.parse(spec) == (spec.split("(")[0], expected)


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("adam(b1=1)", r"b1 of optimizer 'adam\(b1=1\)' must be in \[0, 1\), not '1'"),
    ("adam(beta=0.9)", "unknown argument of optimizer 'adam' 'beta'; known: b1, b2, epsilon"),
    ("adam(0.9, b1=0.9)", "wrong arguments; write 'adam"),
    ("adam(b1=0.9, 0.9)", "wrong arguments"),
    ("adam(0.9, 0.9, 1e-7, 1)", "wrong arguments"),
    ("rmsprop(epsilon=0)", "must be > 0"),
    ("sgd(0.1)", "takes no arguments"),
    ("adam(", "unknown optimizer"),
  ],
)
def test_bad_settings_are_refused(spec, message):
  with pytest.raises(InputError, match=message):
    optimizers.parse(spec)


def test_settings_are_those_of_optax():
  """Traced, under `vmap`, beside optax's own optimizers with the same constants."""
  settings = {"b1": jnp.array([0.9, 0.5]), "b2": jnp.array([0.999, 0.9])}
  start, grads = jnp.array([0.5, -1.0]), jnp.array([[0.1, -2.0], [0.3, 1.0], [-0.2, 0.5]])

  def descend(optimizer):
    params, state = start, optimizer.init(start)
    for grad in grads:
      updates, state = optimizer.update(grad, state, params)
      params = optax.apply_updates(params, updates)
    return params

  found = jax.jit(
    jax.vmap(lambda settings: descend(optimizers.create("adam", 0.1, settings | {"epsilon": 1e-3})))
  )(settings)
  for row, b1, b2 in zip(found, (0.9, 0.5), (0.999, 0.9), strict=True):
    np.testing.assert_allclose(row, descend(optax.adam(0.1, b1, b2, 1e-3)), rtol=2e-5)
  momentum = optimizers.create("momentum", 0.1, {"decay": jnp.float32(0.7)})
  np.testing.assert_allclose(descend(momentum), descend(optax.sgd(0.1, 0.7)), rtol=1e-6)
