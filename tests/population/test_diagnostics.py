"""Statistics of layers against gradients by hand, hand-computed cases and laws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import create_member, form

from jaxdl import batches
from jaxdl import recipe as recipe_lib
from jaxdl.arm import Arm
from jaxdl.byhand import backprop
from jaxdl.errors import InputError
from jaxdl.forward import Variables
from jaxdl.population import diagnostics
from jaxdl.population.population import train_population

_ARM = Arm(
  model="mlp(7,6,5)",
  loss="categorical_cross_entropy",
  optimizer="sgd",
  kernel_initializer="he_normal",
  bias_initializer="random_normal(0.3)",
  dropout_rate=0.0,
  num_epochs=2,
  patience=None,
)
_IMAGES = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1)).astype(np.uint8)
_LABELS = (np.arange(300) % 3).astype(np.int32)
_TRAIN = batches.Examples(_IMAGES, _LABELS)
_NONE = batches.Examples(_IMAGES[:0], _LABELS[:0])


def _recipe(arm):
  (recipe,) = recipe_lib.group_by_recipe(
    {"a": arm}, form(3, len(_LABELS), _IMAGES.shape[1:]), lambda *_: 4096
  )
  return recipe


def _member(arm):
  """Returns the recipe, the initial parameters and the traced settings of an arm."""
  recipe = _recipe(arm)
  hyper = recipe_lib.hyperparams(arm, recipe)
  # The parameters depend on neither, so that one program draws them for all.
  plain = _recipe(dataclasses.replace(arm, activation=_ARM.activation, loss=_ARM.loss))
  return recipe, create_member(plain, batches.seed_key(0, 1), hyper).params, hyper


def _statistics(arm, change=lambda params: params):
  recipe, params, hyper = _member(arm)
  params = change(params)
  observed = jax.jit(diagnostics.layer_statistics, static_argnums=0)(
    recipe, Variables(params, {}), hyper, _TRAIN, _NONE, _NONE
  )
  float64 = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  return jax.tree.map(np.asarray, observed), float64


@pytest.mark.parametrize("loss", ["categorical_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("activation", backprop.ACTIVATIONS)
def test_gradient_norms_are_those_of_the_gradients_by_hand(activation, loss):
  observed, params = _statistics(dataclasses.replace(_ARM, activation=activation, loss=loss))
  probe = _IMAGES[: diagnostics.PROBE_SIZE] / 255
  labels = _LABELS[: diagnostics.PROBE_SIZE]
  by_hand = backprop.loss_and_gradients("mlp", activation, loss, params, probe, labels)
  expected = [np.linalg.norm(by_hand.params[f"Dense_{i}"]["kernel"]) for i in range(4)]
  np.testing.assert_allclose(observed["gradient_norm"], expected, rtol=1e-4)
  kernels = [np.linalg.norm(params[f"Dense_{i}"]["kernel"]) for i in range(4)]
  np.testing.assert_allclose(observed["kernel_norm"], kernels, rtol=1e-5)


def test_errors_and_saturation_in_numpy():
  """Backpropagation of sigmoid layers written out, with weights that saturate some units."""

  def stretch(params):
    return jax.tree.map(lambda p: 6 * p, params)

  observed, params = _statistics(dataclasses.replace(_ARM, activation="sigmoid"), stretch)
  x = _IMAGES[: diagnostics.PROBE_SIZE].reshape(diagnostics.PROBE_SIZE, -1) / 255
  slopes = []
  for i in range(4):
    layer = params[f"Dense_{i}"]
    z = x @ layer["kernel"] + layer["bias"][None]
    x = 1 / (1 + np.exp(-z))
    slopes.append(x * (1 - x))
  p = np.exp(z - z.max(axis=1, keepdims=True))
  p /= p.sum(axis=1, keepdims=True)
  error = (p - np.eye(3)[_LABELS[: len(p)]]) / len(p)
  expected = [np.linalg.norm(error)]
  for i in (3, 2, 1):
    error = error @ params[f"Dense_{i}"]["kernel"].T * slopes[i - 1]
    expected.insert(0, np.linalg.norm(error))
  np.testing.assert_allclose(observed["error_norm"], expected, rtol=1e-3)

  flat = [slope < 0.01 * 0.25 for slope in slopes[:3]]
  np.testing.assert_allclose(observed["saturated"], [f.mean() for f in flat], atol=1e-6)
  np.testing.assert_allclose(observed["dead"], [f.all(axis=0).mean() for f in flat], atol=1e-6)
  assert 0 < observed["saturated"][0] < 1  # or the two lines above would say little


@pytest.mark.parametrize(
  ("activation", "preactivations", "saturated", "dead"),
  [
    # Unit 0 is flat on both examples, unit 1 on one, unit 2 on none.
    ("relu", [[-1.0, 0.0, 2.0], [0.0, 1.0, 0.1]], 3 / 6, 1 / 3),
    ("sigmoid", [[6.0, -6.0, 0.0], [-7.0, 5.9, 5.9]], 3 / 6, 1 / 3),
    ("tanh", [[3.0, -3.0, 0.0], [-4.0, 2.9, -2.9]], 3 / 6, 1 / 3),
    # GELU falls between its minimum at -0.75 and -3.
    ("gelu", [[-3.1, -0.75, -1.5], [-9.0, -2.9, 9.0]], 3 / 6, 1 / 3),
    ("leaky_relu", [[-100.0, 0.0, 2.0], [-1.0, 1.0, 0.1]], 0, 0),
  ],
)
def test_saturation_by_hand(activation, preactivations, saturated, dead):
  of_activation = jax.jit(diagnostics.saturation, static_argnums=0)
  found = of_activation(activation, np.array(preactivations, np.float32))
  np.testing.assert_allclose(found, (saturated, dead), rtol=1e-6)


def test_relu_network_spreads_a_scale_over_all_gradients():
  """Scaling every kernel by c scales logits by c^L and, at small logits, gradients by c^(L - 1)."""
  arm = dataclasses.replace(_ARM, bias_initializer="zeros")
  small, smaller = (
    _statistics(arm, lambda params, c=c: jax.tree.map(lambda p: c * p, params))[0]
    for c in (1e-3, 1e-4)
  )
  ratio = small["gradient_norm"] / smaller["gradient_norm"]
  np.testing.assert_allclose(ratio, np.full(4, 1e3), rtol=1e-3)


def test_norms_of_numbers_whose_squares_float32_does_not_hold():
  for scale in (1e-30, 1.0, 1e30):
    norm = diagnostics.frobenius_norm(jnp.array([[3.0, 0.0], [0.0, 4.0]]) * scale)
    assert float(norm) == pytest.approx(5 * scale, rel=1e-6)
  assert diagnostics.frobenius_norm(jnp.zeros((2, 3))) == 0
  assert jnp.isnan(diagnostics.frobenius_norm(jnp.array([1.0, jnp.nan])))


def test_ratio_and_attenuation_by_hand():
  norms = np.array([[1e-6, 1e-4, 1e-3, 7.0], [8.0, 1.0, 2.0, 7.0]])  # the last one is not asked
  np.testing.assert_allclose(diagnostics.log10_ratio(norms), [-3, np.log10(4)])
  np.testing.assert_allclose(diagnostics.attenuation(norms), [10**-1.5, 2])
  tiny = float(np.finfo(np.float32).tiny)
  np.testing.assert_allclose(diagnostics.log10_ratio([0.0, 1.0, 1.0]), np.log10(tiny))
  assert np.isnan(diagnostics.log10_ratio([np.nan, 1.0, 1.0]))
  with pytest.raises(ValueError, match="two hidden layers"):
    diagnostics.log10_ratio([1.0, 1.0])


def test_convolutions_are_refused():
  recipe, params, hyper = _member(_ARM)
  recipe = dataclasses.replace(recipe, arm=recipe.arm.replace(model="cnn_binary"))
  with pytest.raises(InputError, match="not for model 'cnn_binary'"):
    diagnostics.layer_statistics(recipe, Variables(params, {}), hyper, _TRAIN, _NONE, _NONE)


def test_as_an_observer(blobs):
  """Of every member, at initialisation and after every epoch."""
  arms = {
    name: dataclasses.replace(_ARM, kernel_initializer=name, learning_rate=0.1)
    for name in ("he_normal", "zeros")
  }
  trained = train_population(blobs, arms, seeds=2, observe=diagnostics.layer_statistics)
  assert set(trained.observations) == set(diagnostics.STATISTICS)
  norms = trained.observations["kernel_norm"]
  assert norms["he_normal"].shape == (2, 3, 4)
  assert (norms["zeros"][:, 0] == 0).all()
  assert (np.diff(norms["he_normal"], axis=1) != 0).all()
  # Kernels of zeros bring no error back, so no kernel but the output's has a gradient.
  gradients = trained.observations["gradient_norm"]["zeros"][:, 0]
  assert (gradients[:, :-1] == 0).all()
  assert (gradients[:, -1] > 0).all()
