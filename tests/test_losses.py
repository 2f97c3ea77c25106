"""Losses against numbers by hand, scikit-learn and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.metrics import log_loss

from jaxdl import losses, optimizers
from jaxdl.errors import InputError

_RNG = np.random.default_rng(0)


def test_binary_cross_entropy_by_hand():
  logits = jnp.array([[0.0], [2.0], [2.0], [-100.0]])
  labels = jnp.array([1, 1, 0, 1])
  # log 2; log(1 + e^-2); log(1 + e^2); 100 to the precision of a float32
  expected = [0.6931472, 0.1269280, 2.1269280, 100.0]
  np.testing.assert_allclose(losses.binary_cross_entropy(logits, labels), expected, rtol=1e-6)


def test_categorical_cross_entropy_by_hand():
  logits = jnp.array([[0.0, 0.0, 0.0, 0.0], [np.log(3), 0.0, -1e9, -1e9]])
  labels = jnp.array([2, 0])
  np.testing.assert_allclose(
    losses.categorical_cross_entropy(logits, labels), [np.log(4), np.log(4 / 3)], rtol=1e-6
  )


def test_mean_squared_error_by_hand():
  """Probabilities (3/4, 1/4) and (1/4, 1/4, 1/2), the label last; divided by C, as in Keras."""
  two = losses.mean_squared_error(jnp.log(jnp.array([[3.0, 1.0]])), jnp.array([1]))
  three = losses.mean_squared_error(jnp.log(jnp.array([[1.0, 1.0, 2.0]])), jnp.array([2]))
  np.testing.assert_allclose(two, [(9 + 9) / 16 / 2], rtol=1e-6)
  np.testing.assert_allclose(three, [(1 + 1 + 4) / 16 / 3], rtol=1e-6)


def test_hinge_by_hand():
  """The first row is the example of Keras's documentation: (1 + 0.6 + 1 - 0.4) / 2."""
  logits, labels = jnp.array([[0.6, 0.4], [3.0, -1.0], [-2.0, 5.0]]), jnp.array([1, 0, 0])
  np.testing.assert_allclose(losses.hinge(logits, labels), [1.1, 0, (3 + 6) / 2], rtol=1e-6)
  kink = jax.grad(lambda z: losses.hinge(z, jnp.array([0])).sum())(jnp.array([[1.0, 0.0]]))
  assert kink.tolist() == [[0, 0.5]]


def test_means_agree_with_scikit_learn():
  logits, labels = _RNG.normal(size=(50, 5)), _RNG.integers(0, 5, 50)
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  ours = losses.categorical_cross_entropy(jnp.array(logits), jnp.array(labels)).mean()
  assert ours == pytest.approx(log_loss(labels, p, labels=range(5)), rel=1e-5)
  binary = losses.binary_cross_entropy(jnp.array(logits[:, :1]), jnp.array(labels > 2)).mean()
  assert binary == pytest.approx(log_loss(labels > 2, 1 / (1 + np.exp(-logits[:, 0]))), rel=1e-5)


@pytest.mark.parametrize(
  ("name", "num_outputs"), [(n, 1 if "binary" in n else 4) for n in losses.NAMES]
)
def test_gradients_agree_with_finite_differences(name, num_outputs):
  labels = jnp.array([0, 1, 1, 0, 1])
  logits = jnp.array(_RNG.normal(size=(5, num_outputs)), jnp.float32)
  check_grads(
    lambda z: losses.get(name)(z, labels).sum(), (logits,), order=1, modes=["rev"], rtol=0.01
  )


def test_number_of_outputs():
  assert losses.num_outputs("binary_cross_entropy", 2) == 1
  assert losses.num_outputs("categorical_cross_entropy", 2) == 2
  with pytest.raises(InputError, match="tells 2 classes apart, the dataset has 10"):
    losses.num_outputs("binary_cross_entropy", 10)


def test_unknown_names_are_refused():
  with pytest.raises(InputError, match="did you mean 'binary_cross_entropy'"):
    losses.get("binary_crossentropy")
  with pytest.raises(InputError, match="did you mean 'adam'"):
    optimizers.get("adamm")


def test_adam_by_hand():
  """Two steps of Kingma & Ba's algorithm 1 with epsilon 1e-7, in float64."""
  tx = optimizers.get("adam")
  grads = [np.array([0.1, -2.0, 3e-7]), np.array([0.3, 1.0, -1e-7])]
  state = tx.init(jnp.zeros(3))
  m = v = np.zeros(3)
  for t, g in enumerate(grads, start=1):
    update, state = tx.update(jnp.array(g, jnp.float32), state)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    expected = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    np.testing.assert_allclose(update, expected, rtol=1e-4)


def test_momentum_and_sgd_by_hand():
  grads = jnp.array([1.0, 2.0])
  update, _ = optimizers.get("sgd").update(grads, optimizers.get("sgd").init(grads))
  assert (update == grads).all()
  tx = optimizers.get("momentum")
  state = tx.init(grads)
  for expected in (1.0, 1.9, 2.71):  # v <- 0.9 v + g
    update, state = tx.update(jnp.array([1.0, 2.0]), state)
    np.testing.assert_allclose(update, jnp.array([expected, 2 * expected]), rtol=1e-6)
  assert jax.tree.leaves(state)[0].shape == (2,)
