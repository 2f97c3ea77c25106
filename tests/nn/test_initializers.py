"""Keras's definitions, by their formulas and by what is drawn."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.errors import InputError
from jaxdl.nn import initializers

_KEY = jax.random.key(0)
# A truncated normal of standard deviation s is a normal of s / 0.87962566 cut at two of its own.
_CUT = 2 / 0.87962566103423978


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ((32,), (32, 32)),
    ((1600, 1), (1600, 1)),
    ((3, 3, 1, 32), (9, 288)),
    ((3, 3, 32, 64), (288, 576)),
  ],
)
def test_fans_are_those_of_keras(shape, expected):
  assert initializers.fans(shape) == expected


@pytest.mark.parametrize(
  ("name", "shape", "limit"),
  [
    ("glorot_uniform", (3, 3, 32, 64), 0.0833333),  # sqrt(6 / (288 + 576))
    ("glorot_uniform", (4096,), 0.0270633),  # a bias: sqrt(6 / (4096 + 4096))
    ("he_uniform", (784, 128), 0.0874818),  # sqrt(6 / 784)
    ("random_uniform", (784, 128), 0.05),
    ("random_uniform", (4096,), 0.05),
  ],
)
def test_uniform_initializers_fill_their_interval(name, shape, limit):
  drawn = initializers.draw(name, _KEY, shape)
  assert limit * 0.995 < np.abs(drawn).max() <= limit * 1.00001
  assert np.std(drawn) == pytest.approx(limit / math.sqrt(3), rel=0.02)
  assert abs(drawn.mean()) < 4 * drawn.std() / math.sqrt(drawn.size)


@pytest.mark.parametrize(
  ("name", "shape", "stddev", "cut"),
  [
    ("random_normal", (784, 128), 0.05, None),
    ("random_normal", (4096,), 0.05, None),
    ("glorot_normal", (784, 128), 0.0468293, _CUT),  # sqrt(2 / (784 + 128))
    ("he_normal", (784, 128), 0.0505076, _CUT),  # sqrt(2 / 784)
    ("he_normal", (4096,), 0.0220971, _CUT),  # a bias: sqrt(2 / 4096)
    ("lecun_normal", (3, 3, 32, 64), 0.0589256, _CUT),  # sqrt(1 / 288)
  ],
)
def test_normal_initializers_have_their_spread(name, shape, stddev, cut):
  drawn = initializers.draw(name, _KEY, shape)
  assert np.std(drawn) == pytest.approx(stddev, rel=0.03)
  largest = np.abs(drawn).max() / stddev
  assert largest > 2.5 if cut is None else 0.97 * cut < largest < 1.001 * cut


def test_constants():
  assert (initializers.draw("zeros", _KEY, (3, 2)) == 0).all()
  assert (initializers.draw("ones", _KEY, (3,)) == 1).all()
  assert (initializers.draw("constant", _KEY, (3,)) == 0).all()
  assert (initializers.draw("constant(0.25)", _KEY, (3, 2)) == 0.25).all()


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (3, 3, 4, 8)])
def test_orthogonal_is_orthonormal_along_its_shorter_side(shape):
  matrix = initializers.draw("orthogonal", _KEY, shape).reshape(-1, shape[-1])
  if matrix.shape[0] < matrix.shape[1]:
    matrix = matrix.T
  np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-5)


@given(
  name=st.sampled_from(["random_uniform", "random_normal", "glorot_uniform", "he_normal"]),
  value=st.floats(1e-3, 1e3),
)
def test_parameter_scales_what_is_drawn(name, value):
  unit, scaled = (initializers.draw(f"{name}({v})", _KEY, (7, 5)) for v in (1.0, value))
  np.testing.assert_allclose(scaled, value * unit, rtol=1e-5)


def test_uniform_family_shares_its_draws():
  """What pairs the arms of a seed: the same numbers underneath, another scale."""
  a = initializers.draw("glorot_uniform", _KEY, (30, 20))
  b = initializers.draw("random_uniform", _KEY, (30, 20))
  assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(1)


_ORTHOGONAL_LAST = [n for n in initializers.NAMES if n != "orthogonal"] + ["orthogonal"]


@jax.jit
def _draw_chosen(index, value):
  """Draws what one of all initializers does, the only one of its values being `value`."""
  return initializers.select(_ORTHOGONAL_LAST, index, value[None])(_KEY, (6, 4))


@pytest.mark.parametrize("name", initializers.NAMES)
def test_traced_choice_draws_what_the_name_draws(name):
  (value,) = [*initializers.parse(name, min_ndim=2)[1].values()] or [0.0]
  np.testing.assert_allclose(
    _draw_chosen(_ORTHOGONAL_LAST.index(name), np.float32(value)),
    initializers.draw(name, _KEY, (6, 4)),
    rtol=1e-6,
  )


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("glorot_unifrom", "did you mean 'glorot_uniform'"),
    ("", "unknown initializer"),
    (None, "unknown initializer"),
    ("zeros(1)", "takes no arguments"),
    ("constant(x)", "must be a finite number"),
    ("constant(nan)", "must be a finite number"),
    ("constant(1e39)", "must be a number of float32"),
    ("random_normal(-1)", "must be a spread"),
    ("constant(1)(2)", "unknown initializer"),
    ("orthogonal", "needs at least 2 dimensions"),
  ],
)
def test_bad_specs_are_refused(spec, message):
  with pytest.raises(InputError, match=message):
    initializers.parse(spec)
