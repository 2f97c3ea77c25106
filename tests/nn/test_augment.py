"""Augmentation against SciPy, against slices and quarter turns, and the laws of its random part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from jaxdl.errors import InputError
from jaxdl.nn import augment
from jaxdl.nn.augment import Augmentation

_RNG = np.random.default_rng(0)
_ALL = Augmentation(rotation_range=20, shift_range=0.2, horizontal_flip=True)
_affine = jax.jit(augment.affine)
_random_affine = jax.jit(augment.random_affine, static_argnums=2)


def _keys(num_keys, seed=0):
  return jax.random.split(jax.random.key(seed, impl="threefry2x32"), num_keys)


def _images(*shape):
  return _RNG.uniform(size=shape).astype(np.float32)


def _fixed(batch_size, angle=0.0, shift_rows=0.0, shift_cols=0.0, flip=False):
  """The same change for every image of a batch."""
  numbers = (np.full(batch_size, x, np.float32) for x in (angle, shift_rows, shift_cols))
  return (*numbers, np.full(batch_size, flip))


def _scipy_affine(images, angle, shift_rows, shift_cols, flip):
  """The definition, in float64, image by image and channel by channel."""
  result = np.zeros(images.shape)
  centre = (np.array(images.shape[1:3]) - 1) / 2
  for i, image in enumerate(np.asarray(images, np.float64)):
    cos, sin = np.cos(np.deg2rad(float(angle[i]))), np.sin(np.deg2rad(float(angle[i])))
    matrix = np.array([[cos, -sin], [sin, cos]])
    shift = np.array([float(shift_rows[i]), float(shift_cols[i])])
    offset = centre + matrix @ (shift - centre)
    for channel in range(image.shape[-1]):
      result[i, :, :, channel] = ndimage.affine_transform(
        image[:, :, channel], matrix, offset, order=1, mode="nearest"
      )
    if flip[i]:
      result[i] = result[i, :, ::-1]
  return result


_BATCH_SIZE = 24  # of tests that share a program
_SHAPES = [(32, 32, 3), (28, 28, 1), (9, 14, 2), (14, 9, 2), (1, 12, 1), (12, 1, 3), (1, 1, 2)]


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
@pytest.mark.parametrize("reach", [0.3, 4.0], ids=["usual", "far"])
def test_agrees_with_scipy(shape, reach):
  """Each image of a batch with its own angle, shifts and flip; some far outside."""
  images = _images(_BATCH_SIZE, *shape)
  angle = _RNG.uniform(-1, 1, _BATCH_SIZE) * min(600 * reach, 720)
  angle[:9] = np.linspace(-180, 180, 9)  # multiples of 45 too
  shifts = (_RNG.uniform(-reach, reach, _BATCH_SIZE) * size for size in shape[:2])
  change = [x.astype(np.float32) for x in (angle, *shifts)]
  change.append(_RNG.random(_BATCH_SIZE) < 0.5)
  np.testing.assert_allclose(_affine(images, *change), _scipy_affine(images, *change), atol=1e-5)


def test_agrees_with_scipy_in_float64():
  change = [_RNG.uniform(-90, 90, 20), *_RNG.uniform(-15, 15, (2, 20)), _RNG.random(20) < 0.5]
  with jax.enable_x64(True):
    images = _RNG.uniform(size=(20, 11, 8, 2))
    ours = _affine(images, *change)
    assert ours.dtype == jnp.float64
  np.testing.assert_allclose(ours, _scipy_affine(images, *change), atol=1e-12)


@given(
  angle=st.floats(-360, 360, width=32),
  shift_rows=st.floats(-16, 16, width=32),
  shift_cols=st.floats(-16, 16, width=32),
  flip=st.booleans(),
)
def test_agrees_with_scipy_wherever_the_pixels_fall(angle, shift_rows, shift_cols, flip):
  images = np.random.default_rng(1).uniform(size=(1, 7, 10, 2)).astype(np.float32)
  change = _fixed(1, angle, shift_rows, shift_cols, flip)
  ours = _affine(images, *change)
  np.testing.assert_allclose(ours, _scipy_affine(images, *change), atol=1e-5)
  assert ours.min() >= images.min() - 1e-6
  assert ours.max() <= images.max() + 1e-6


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_no_change_is_none_bit_for_bit(shape):
  images = _images(_BATCH_SIZE, *shape)
  np.testing.assert_array_equal(_affine(images, *_fixed(_BATCH_SIZE)), images)
  np.testing.assert_array_equal(_affine(images, *_fixed(_BATCH_SIZE, angle=-360)), images)


@pytest.mark.parametrize("size", [8, 9])
def test_quarter_turns(size):
  """R(90) (row, col) = (-col, row): the bottom left moves to the top left, so clockwise."""
  images = _images(2, size, size, 3)
  for turns in (-3, -1, 1, 2, 5):
    ours = _affine(images, *_fixed(2, angle=90 * turns))
    np.testing.assert_array_equal(ours, np.rot90(images, -turns, axes=(1, 2)))
  bottom_left = images[:, -1, 0]
  np.testing.assert_array_equal(_affine(images, *_fixed(2, angle=90))[:, 0, 0], bottom_left)


@given(rows=st.integers(-20, 20), cols=st.integers(-20, 20))
def test_whole_shifts_are_slices_of_the_padded_image(rows, cols):
  images = np.random.default_rng(2).uniform(size=(2, 6, 9, 2)).astype(np.float32)
  padded = np.pad(images, ((0, 0), (20, 20), (20, 20), (0, 0)), mode="edge")
  ours = _affine(images, *_fixed(2, shift_rows=rows, shift_cols=cols))
  np.testing.assert_array_equal(ours, padded[:, 20 + rows : 26 + rows, 20 + cols : 29 + cols])


def test_half_shifts_are_means_of_neighbours():
  images = _images(2, 5, 6, 1)
  below = np.concatenate([images[:, 1:], images[:, -1:]], axis=1)
  ours = _affine(images, *_fixed(2, shift_rows=0.5))
  np.testing.assert_allclose(ours, (images + below) / 2, atol=1e-6)


def test_flips():
  """Alone, twice, and after the rest."""
  images = _images(4, 6, 9, 3)
  flip = jnp.array([True, False, True, False])
  flipped = _affine(images, *_fixed(4)[:3], flip)
  expected = np.where(np.array(flip).reshape(4, 1, 1, 1), images[:, :, ::-1], images)
  np.testing.assert_array_equal(flipped, expected)
  np.testing.assert_array_equal(_affine(flipped, *_fixed(4)[:3], flip), images)
  change = (25.0, 1.3, -2.1)
  turned, both = (_affine(images, *_fixed(4, *change, flip=flip)) for flip in (False, True))
  np.testing.assert_allclose(both, turned[:, :, ::-1], atol=1e-6)


def test_what_is_far_outside_is_the_edge():
  images = _images(2, 5, 6, 2)
  ours = _affine(images, *_fixed(2, shift_rows=-1e6, shift_cols=1e6))
  np.testing.assert_array_equal(ours, np.broadcast_to(images[:, :1, -1:], images.shape))


def test_nan_stays_in_its_image():
  images = _images(2, 5, 6, 2)
  ours = _affine(images, np.array([np.nan, 0.0], np.float32), *_fixed(2)[1:])
  assert jnp.isnan(ours[0]).all()
  np.testing.assert_array_equal(ours[1], images[1])


# Generators of random numbers are slow to compile: the tests share the shapes of batches.
def test_random_affine_is_draw_then_affine():
  keys, images = _keys(6), _images(6, 6, 5, 2)
  ours = _random_affine(keys, images, _ALL)
  expected = _affine(images, *augment.draw(keys, (6, 5, 2), _ALL))
  np.testing.assert_allclose(ours, expected, atol=1e-6)
  assert (np.abs(ours - images).max(axis=(1, 2, 3)) > 0.01).all()


@given(
  some=st.permutations(range(6)).map(lambda order: np.array(order[:3])), seed=st.integers(0, 9)
)
def test_some_of_a_batch_are_the_same_on_their_own(some, seed):
  """Halves of it, and any three in any order."""
  keys, images = _keys(6, seed), np.random.default_rng(3).uniform(size=(6, 6, 5, 2))
  images = images.astype(np.float32)
  whole = _random_affine(keys, images, _ALL)
  for part in (some, slice(0, 3), slice(3, 6)):
    np.testing.assert_allclose(
      _random_affine(keys[part], images[part], _ALL), whole[part], atol=1e-6
    )


def test_draws_follow_the_key_alone():
  keys = _keys(20)
  whole = augment.draw(keys, (32, 32, 3), _ALL)
  part = augment.draw(keys[5:8][::-1], (32, 32, 3), _ALL)
  for a, b in zip(part, whole, strict=True):
    np.testing.assert_array_equal(a, b[5:8][::-1])
  assert all(len(np.unique(x)) == 20 for x in whole[:3])
  with jax.enable_x64(True):
    wide = augment.draw(keys, (32, 32, 3), _ALL)
  for a, b in zip(wide, whole, strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_draws_are_uniform_in_their_ranges():
  """Mean 0 and variance r^2 / 3, within four standard errors or so, and independent."""
  num_keys = 20_000
  angle, shift_rows, shift_cols, flip = augment.draw(_keys(num_keys), (20, 50, 3), _ALL)
  for draws, most in ((angle, 20), (shift_rows, 4), (shift_cols, 10)):
    unit = np.asarray(draws, np.float64) / most
    assert np.abs(unit).max() <= 1 + 1e-6
    assert unit.min() < -0.99
    assert unit.max() > 0.99
    assert unit.mean() == pytest.approx(0, abs=4 / np.sqrt(3 * num_keys))
    assert unit.var() == pytest.approx(1 / 3, abs=0.01)
  assert flip.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(num_keys))
  correlations = np.corrcoef([angle, shift_rows, shift_cols, flip])
  np.testing.assert_allclose(correlations, np.eye(4), atol=4 / np.sqrt(num_keys))


def test_only_what_is_asked_for_is_drawn():
  """The rest is zero, and what is asked for does not depend on the rest."""
  keys, shape = _keys(20), (8, 8, 1)
  everything = augment.draw(keys, shape, _ALL)
  for i, field in ((0, "rotation_range"), (1, "shift_range"), (3, "horizontal_flip")):
    one = Augmentation(**{field: getattr(_ALL, field)})
    drawn = augment.draw(keys, shape, one)
    for j, (ours, both) in enumerate(zip(drawn, everything, strict=True)):
      asked = j == i or (field == "shift_range" and j == 2)
      np.testing.assert_array_equal(ours, both if asked else np.zeros(20))


def test_under_vmap_over_seeds():
  keys, images = _keys(6).reshape(2, 3), _images(2, 3, 6, 5, 2)
  ours = jax.jit(jax.vmap(lambda k, x: augment.random_affine(k, x, _ALL)))(keys, images)
  for seed in range(2):
    expected = _random_affine(keys[seed], images[seed], _ALL)
    np.testing.assert_allclose(ours[seed], expected, atol=1e-6)


def test_inside_a_loss_that_is_differentiated():
  """The gradient passes by the images, which depend on no parameter, in a loop and under vmap."""
  keys, images = _keys(8).reshape(2, 4), jnp.array(_images(4, 5, 5, 1))

  def loss(scale, keys):
    return (scale * augment.random_affine(keys, images, _ALL)).sum()

  def step(scale, keys):
    return scale, jax.grad(loss)(scale, keys)

  _, ours = jax.jit(lambda scale: jax.lax.scan(step, scale, keys))(jnp.float32(2))
  expected = [_random_affine(k, images, _ALL).sum() for k in keys]
  np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_identity_returns_the_images_themselves():
  images = jnp.array(_images(2, 4, 4, 1))
  assert augment.random_affine(_keys(2), images, Augmentation()) is images
  assert Augmentation().is_identity
  for field in dataclasses.fields(Augmentation):
    assert not Augmentation(**{field.name: True if field.type is bool else 0.5}).is_identity


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"rotation_range": -1}, r"rotation_range must be a number in \[0, 180\], not -1"),
    ({"rotation_range": 180.5}, "rotation_range"),
    ({"rotation_range": float("nan")}, "rotation_range"),
    ({"rotation_range": float("inf")}, "rotation_range"),
    ({"rotation_range": 10**400}, "rotation_range"),
    ({"rotation_range": "10"}, "rotation_range must be a number in .* not '10'"),
    ({"rotation_range": True}, "rotation_range"),
    ({"rotation_range": None}, "rotation_range"),
    ({"shift_range": -0.1}, r"shift_range must be a number in \[0, 1\), not -0.1"),
    ({"shift_range": 1}, "shift_range"),
    ({"shift_range": float("nan")}, "shift_range"),
    ({"shift_range": [0.1]}, "shift_range"),
    ({"horizontal_flip": 1}, "horizontal_flip must be True or False, not 1"),
    ({"horizontal_flip": "yes"}, "horizontal_flip"),
  ],
)
def test_bad_settings_are_refused(settings, message):
  with pytest.raises(InputError, match=message) as error:
    Augmentation(**settings)
  assert "\n" not in str(error.value)


def test_good_settings_are_taken():
  assert Augmentation(180, 0.999, True) == Augmentation(180.0, 0.999, True)
  assert hash(Augmentation(10)) == hash(Augmentation(10.0))
