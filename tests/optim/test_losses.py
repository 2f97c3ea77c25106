"""Losses against numbers by hand, Keras, scikit-learn and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from sklearn.metrics import log_loss

from jaxdl.errors import InputError
from jaxdl.optim import losses

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
  if name in ("huber", "mean_absolute_error"):
    labels = jnp.array(_RNG.normal(size=(5, num_outputs)))
  logits = _RNG.normal(size=(5, num_outputs))
  with jax.enable_x64(True):
    check_grads(
      lambda z: losses.get(name)(z, labels).sum(), (logits,), order=1, modes=["rev"], rtol=1e-5
    )


def test_number_of_outputs():
  assert losses.num_outputs("binary_cross_entropy", 2) == 1
  assert losses.num_outputs("categorical_cross_entropy", 2) == 2
  assert losses.num_outputs("mean_squared_error", 2) == 2
  assert losses.num_outputs("mean_squared_error", 0) == 1
  assert losses.num_outputs("huber(2)", 0, (3,)) == 3
  with pytest.raises(InputError, match="is for classes, but the targets are numbers; choose one"):
    losses.num_outputs("hinge", 0)
  with pytest.raises(InputError, match="is for numbers, but the targets are classes"):
    losses.num_outputs("huber", 3)
  with pytest.raises(InputError, match="tells 2 classes apart, the dataset has 10"):
    losses.num_outputs("binary_cross_entropy", 10)


def test_unknown_names_are_refused():
  with pytest.raises(InputError, match="did you mean 'binary_cross_entropy'"):
    losses.get("binary_crossentropy")


# Made with Keras 3.15.1 on JAX: keras.losses.NAME(one-hot labels, logits or keras.ops.softmax of
# them), cross-entropies with from_logits=True and, in the second rows, label_smoothing=0.1.
_LOGITS = np.array([[0.5, -1.2, 2.0], [3.0, 0.1, -0.7], [-0.3, 0.2, 0.4]], np.float32)
_LABELS = np.array([2, 1, 0])
_SCORES = np.array([[0.5], [-1.2], [2.0], [-3.0]], np.float32)
_BITS = np.array([1, 0, 0, 1])
_KERAS = [
  ("categorical_cross_entropy", 0.0, [0.23419617, 2.9767265, 1.5395463]),
  ("categorical_cross_entropy", 0.1, [0.39086285, 2.9067266, 1.4995462]),
  ("binary_cross_entropy", 0.0, [0.474077, 0.26328245, 2.126928, 3.0485873]),
  ("binary_cross_entropy", 0.1, [0.499077, 0.32328245, 2.0269282, 2.8985875]),
  ("mean_squared_error", 0.0, [0.02526731, 0.58631456, 0.3095437]),
  ("hinge", 0.0, [0.5, 1.7333335, 1.3000001]),
  ("softmax_hinge", 0.0, [0.8058623, 1.2993605, 1.1903478]),
]


@pytest.mark.parametrize(("name", "smoothing", "expected"), _KERAS)
def test_losses_are_those_of_keras(name, smoothing, expected):
  logits, labels = (_SCORES, _BITS) if name.startswith("binary") else (_LOGITS, _LABELS)
  loss = losses.get(name)
  arguments = (jnp.array(logits), jnp.array(labels))
  ours = loss(*arguments, smoothing) if smoothing else loss(*arguments)
  np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_softmax_hinge_is_linear_in_the_probability():
  """1 + (1 - 2 p) / C, at p = 1, 1/3 and 0 of the label; no margin is ever reached."""
  logits = jnp.array([[200.0, 0, 0], [0, 0, 0], [0, 200, 0]])
  np.testing.assert_allclose(
    losses.softmax_hinge(logits, jnp.array([0, 0, 0])), [2 / 3, 10 / 9, 4 / 3], rtol=1e-6
  )


_NUMBERS = st.floats(-1e4, 1e4, width=32)


@given(st.lists(_NUMBERS, min_size=3, max_size=3), st.integers(0, 2), st.floats(0, 1, width=32))
def test_label_smoothing_is_the_cross_entropy_of_smoothed_targets(row, label, smoothing):
  """The definition itself, in float64; at 0 and under a trace, not a bit changes."""
  z, labels = jnp.array([row], jnp.float32), jnp.array([label])
  exact = np.array(row, np.float64)
  log_p = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
  target = (1 - smoothing) * np.eye(3)[label] + smoothing / 3
  ours = losses.categorical_cross_entropy(z, labels, jnp.float32(smoothing))
  scale = np.abs(row).max() * 1e-5
  np.testing.assert_allclose(ours[0], -(target * log_p).sum(), rtol=1e-5, atol=1e-6 + scale)
  bit = label % 2
  y = bit * (1 - smoothing) + smoothing / 2
  expected = -y * -np.logaddexp(0, -exact[0]) - (1 - y) * -np.logaddexp(0, exact[0])
  ours = losses.binary_cross_entropy(z[:, :1], jnp.array([bit]), jnp.float32(smoothing))
  np.testing.assert_allclose(ours[0], expected, rtol=1e-5, atol=1e-6 + scale)
  for loss, logits in (
    (losses.categorical_cross_entropy, z),
    (losses.binary_cross_entropy, z[:, :1]),
  ):
    plain = loss(logits, jnp.array([bit]))
    assert (loss(logits, jnp.array([bit]), jnp.float32(0)) == plain).all()
    assert (loss(logits, jnp.array([bit]), 0.0) == plain).all()


_MANY = tuple(
  name
  for name in losses.NAMES
  if name not in ("binary_cross_entropy", "huber", "mean_absolute_error")
)


def _select(names, index, smoothing):
  return losses.select([losses.Kind(name) for name in names], index, jnp.zeros(0), smoothing)


def _gradients(names, indices, smoothing, logits, labels):
  """Gradients of the chosen losses, `[N, B, C]`, as a population takes them: inside the vmap."""

  def gradient(index, smoothing):
    return jax.grad(lambda z: _select(names, index, smoothing)(z, labels).sum())(logits)

  axes = (0, None if smoothing is None else 0)
  return jax.jit(jax.vmap(gradient, axes))(indices, smoothing)


@pytest.mark.parametrize("smooth", [False, True])
def test_selected_losses_are_the_losses_themselves(smooth):
  """At logits of order 1, 200 and 1e30."""
  logits = jnp.concatenate([jnp.array(_LOGITS) * size for size in (1.0, 200.0, 1e30)])
  labels, indices = jnp.tile(jnp.array(_LABELS), 3), jnp.arange(len(_MANY))
  smoothing = jnp.linspace(0.05, 0.3, len(_MANY)) if smooth else None
  found = _gradients(_MANY, indices, smoothing, logits, labels)
  assert jnp.isfinite(found).all()
  for i, name in enumerate(_MANY):
    extra = (smoothing[i],) if smooth and name in losses.SMOOTHABLE else ()
    value = _select(_MANY, indices[i], smoothing[i] if smooth else None)(logits, labels)
    np.testing.assert_allclose(value, losses.get(name)(logits, labels, *extra), rtol=1e-6)
    direct = jax.grad(lambda z, n=name, e=extra: losses.get(n)(z, labels, *e).sum())(logits)
    np.testing.assert_allclose(found[i], direct, rtol=1e-5, atol=1e-7)


def test_no_gradient_leaks_from_a_loss_not_taken():
  """At an infinite logit, hinge has a gradient and the cross-entropy has none."""
  logits, labels = jnp.array([[jnp.inf, 0.5, -2.0]]), jnp.array([0])
  direct = jax.grad(lambda z: losses.hinge(z, labels).sum())(logits)
  assert jnp.isfinite(direct).all()
  names = ("hinge", "categorical_cross_entropy")
  found = _gradients(names, jnp.array([0, 1, 0]), None, logits, labels)
  assert (found[0] == direct).all()
  assert (found[2] == direct).all()
  assert jnp.isnan(found[1]).any()

  def where(z):  # what `select` would be without the switch
    hinge, other = losses.hinge(z, labels), losses.categorical_cross_entropy(z, labels)
    return jnp.where(True, hinge, other).sum()

  assert jnp.isnan(jax.grad(where)(logits)).any()


def test_a_single_loss_is_compiled_without_a_switch():
  def text(smoothing):
    loss = _select(("hinge",), jnp.int32(0), smoothing)
    return str(jax.make_jaxpr(loss)(jnp.array(_LOGITS), jnp.array(_LABELS)))

  assert "cond" not in text(None)
  plain = jax.make_jaxpr(losses.categorical_cross_entropy)(jnp.array(_LOGITS), jnp.array(_LABELS))
  chosen = _select(("categorical_cross_entropy",), jnp.int32(0), None)
  assert str(jax.make_jaxpr(chosen)(jnp.array(_LOGITS), jnp.array(_LABELS))) == str(plain)
  with pytest.raises(InputError, match="did you mean 'hinge'"):
    _select(("hing",), jnp.int32(0), None)
