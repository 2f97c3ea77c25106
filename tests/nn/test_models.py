"""Layers against JAX's own, models by their parameter counts."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.nn import layers, models

_KEY = jax.random.key(0)
_INIT = {"kernel_init": nn.initializers.lecun_normal(), "bias_init": nn.initializers.normal()}


def _normal(shape, scale=1.0, seed=0):
  """Draws by NumPy, as JAX would compile a program for each shape."""
  return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def _params(module, x):
  """Returns random parameters of a module for inputs x, small enough for outputs of order 1."""
  shapes = jax.eval_shape(module.init, _KEY, x)["params"]
  return jax.tree.map(lambda of: _normal(of.shape, math.prod(of.shape[:-1]) ** -0.5, 1), shapes)


def _reference_conv(x, kernel, bias):
  dims = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(
    x, kernel, (1, 1), "VALID", dimension_numbers=dims
  ) + bias.reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
  ("height", "width", "channels", "size"),
  [(28, 28, 1, 3), (5, 9, 3, 3), (3, 4, 2, 3), (4, 4, 2, 1)],
)
@pytest.mark.parametrize("native", [False, True])
def test_conv_agrees_with_lax_conv(height, width, channels, size, native):
  x = _normal((2, height, width, channels))
  conv = layers.Conv(4, size=size, native=native, **_INIT)
  params = _params(conv, x)
  expected = jax.jit(_reference_conv)(x, params["kernel"], params["bias"])
  found = jax.jit(conv.apply)({"params": params}, x)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28), (13, 13), (13, 12), (5, 6)])
@pytest.mark.parametrize("native", [False, True])
def test_conv_with_pooling_agrees_with_conv_then_linen_pooling(shape, native):
  """Values and gradients, for sizes where pooling drops a row or a column."""
  x = _normal((3, *shape, 2))
  conv = layers.Conv(4, pool=True, native=native, **_INIT)
  params = _params(conv, x)

  def ours(params, x):
    return conv.apply({"params": params}, x)

  def reference(params, x):
    y = _reference_conv(x, params["kernel"], params["bias"])
    return nn.max_pool(y, (2, 2), (2, 2))

  weights = _normal(jax.eval_shape(ours, params, x).shape)
  (y, a), (expected, b) = (
    jax.jit(
      lambda p, x, f=f: (f(p, x), jax.grad(lambda *of: (weights * f(*of)).sum(), (0, 1))(p, x))
    )(params, x)
    for f in (ours, reference)
  )
  np.testing.assert_allclose(y, expected, atol=1e-5)
  jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=2e-4), a, b)


def test_patches_by_hand():
  x = jnp.arange(6.0).reshape(1, 2, 3, 1)  # [[0, 1, 2], [3, 4, 5]]
  assert layers.patches(x, 2).tolist() == [[[[0, 1, 3, 4], [1, 2, 4, 5]]]]


@pytest.mark.parametrize("native", [False, True])
def test_max_pool_by_hand(native):
  x = jnp.array([[1.0, 5, 9], [2, 3, 9], [9, 9, 9]]).reshape(1, 3, 3, 1)
  assert layers.max_pool_2x2(x, native).tolist() == [[[[5]]]]


def test_dropout_keeps_the_mean_and_follows_the_keys():
  x = jnp.ones((200, 300))
  keys = jax.random.split(_KEY, 200)
  dropped = layers.Dropout(0.3).apply({}, x, keys)
  assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
  assert dropped.mean() == pytest.approx(1, abs=0.01)
  # An example's mask is its own: the same in another batch.
  np.testing.assert_array_equal(layers.Dropout(0.3).apply({}, x[:3], keys[5:8]), dropped[5:8])
  assert (dropped[0] != dropped[1]).any()
  assert layers.Dropout(0.3).apply({}, x, None) is x


@pytest.mark.parametrize(
  ("name", "num_outputs", "expected"),
  [("cnn_binary", 1, 320 + 18_496 + 1_601), ("mlp", 10, 109_386)],
)
def test_parameter_counts(name, num_outputs, expected):
  model = models.create(name, num_outputs=num_outputs, dropout_rate=0.5, **_INIT)
  params = jax.eval_shape(model.init, _KEY, np.zeros((1, 28, 28, 1), np.float32))["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_cnn_agrees_with_the_same_network_in_linen():
  """The coursework's network written with linen's own layers: Conv, ReLU, then pooling."""

  class Reference(nn.Module):
    @nn.compact
    def __call__(self, x):
      for features in (32, 64):
        x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3), padding="VALID")(x)), (2, 2), (2, 2))
      return nn.Dense(1)(x.reshape(x.shape[0], -1))

  x = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
  model = models.create("cnn_binary", num_outputs=1, dropout_rate=0.5, **_INIT)
  params = _params(model, x)
  with jax.numpy_rank_promotion("allow"):
    expected = jax.jit(Reference().apply)({"params": params}, x)
  found = jax.jit(model.apply)({"params": params}, x)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", models.ACTIVATIONS)
def test_activations_that_commute_with_pooling(name):
  """What lets a CNN pool first; GELU, which falls before it rises, does not."""
  activation = models.get_activation(name)
  x = jax.device_put(_normal((2, 6, 5, 3), 2) - 3)  # windows without a positive number, too
  first, last = activation(layers.max_pool_2x2(x)), layers.max_pool_2x2(activation(x))
  assert np.array_equal(first, last) == (name in models.MONOTONE) == (name != "gelu")


def test_a_cnn_pools_after_an_activation_that_is_not_monotone():
  """The model with GELU against its layers one by one."""
  x = np.random.default_rng(0).uniform(size=(2, 10, 10, 1)).astype(np.float32)
  model = models.create("cnn_binary", "gelu", num_outputs=1, dropout_rate=0.0, **_INIT)
  params = _params(model, x)

  @jax.jit
  def layer_by_layer(params, hidden):
    for index, features in enumerate((32, 64)):
      conv = layers.Conv(features, pool=False, **_INIT)
      hidden = conv.apply({"params": params[f"Conv_{index}"]}, hidden)
      hidden = layers.max_pool_2x2(nn.gelu(hidden, approximate=False))
    return nn.Dense(1).apply({"params": params["Dense_0"]}, hidden.reshape(2, -1))

  found = jax.jit(model.apply)({"params": params}, x)
  np.testing.assert_allclose(found, layer_by_layer(params, x), atol=1e-5)


@pytest.mark.parametrize(
  ("spec", "shape", "num_outputs", "expected"),
  [
    ("cnn_mnist", (28, 28, 1), 10, 515_146),
    ("cifar_mlp", (32, 32, 3), 10, 1_707_274),
    ("mlp", (28, 28, 1), 10, 109_386),
    ("mlp(16, 8)", (2, 2, 1), 3, (4 * 16 + 16) + (16 * 8 + 8) + (8 * 3 + 3)),
  ],
)
def test_sizes(spec, shape, num_outputs, expected):
  model = models.create(spec, num_outputs=num_outputs, dropout_rate=0.0, **_INIT)
  params = jax.eval_shape(model.init, _KEY, jnp.zeros((1, *shape)))["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
  "spec", ["mlp()", "mlp(0)", "mlp(64,)", "mlp(64;64)", "cnn_mnist(3)", "mlp(1e9)"]
)
def test_layer_sizes_that_are_none_are_refused(spec):
  with pytest.raises(InputError):
    models.parse(spec)


def test_unknown_names_are_refused():
  with pytest.raises(InputError, match="did you mean 'mlp'"):
    models.create("mpl")
  with pytest.raises(InputError, match="unknown activation 'rleu'; did you mean 'relu'"):
    models.create("mlp", "rleu")
