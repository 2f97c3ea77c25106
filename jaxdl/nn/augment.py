"""Random rotations, shifts and flips of training images, with the semantics of Keras.

One affine map (a rotation, then a shift, about the centre of the image), interpolated between the
four nearest pixels; what lies outside is the nearest pixel of the edge; then the flip. Every
example has its own key, so what happens to it does not depend on how a batch is cut into slices.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.errors import InputError, show


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How training images are changed at random; hashable, so that it can be static under `jit`.

  Raises InputError for a value out of range.

  Attributes:
    rotation_range: the most degrees by which an image is rotated either way, in [0, 180].
    shift_range: the most by which it is shifted either way, as a share of its height and of its
      width, in [0, 1).
    horizontal_flip: whether half of the images, chosen at random, are mirrored left to right.
  """

  rotation_range: float = 0.0
  shift_range: float = 0.0
  horizontal_flip: bool = False

  def __post_init__(self):
    if not _is_number(self.rotation_range) or not 0 <= self.rotation_range <= 180:
      raise InputError(
        f"rotation_range must be a number in [0, 180], not {show(self.rotation_range)}"
      )
    if not _is_number(self.shift_range) or not 0 <= self.shift_range < 1:
      raise InputError(f"shift_range must be a number in [0, 1), not {show(self.shift_range)}")
    if not isinstance(self.horizontal_flip, bool):
      raise InputError(f"horizontal_flip must be True or False, not {show(self.horizontal_flip)}")

  @property
  def is_identity(self) -> bool:
    """Whether it leaves every image as it is."""
    return self.rotation_range == 0 and self.shift_range == 0 and not self.horizontal_flip


def random_affine(keys: jax.Array, images: jax.Array, augmentation: Augmentation) -> jax.Array:
  """Returns the images, each changed at random.

  Args:
    keys: `[B]` keys, one per example.
    images: `[B, H, W, D]` floats.
    augmentation: what is done to them; static.

  Returns:
    `[B, H, W, D]`; the argument itself if there is nothing to do.
  """
  if augmentation.is_identity:
    return images
  return affine(images, *draw(keys, images.shape[1:], augmentation))


def draw(
  keys: jax.Array, image_shape: tuple[int, int, int], augmentation: Augmentation
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Draws what `random_affine` does to each image, uniformly from the ranges.

  All four numbers are drawn whatever is asked for, so that asking for one more kind of change
  leaves the others as they were: two augmentations differ in nothing else.

  Args:
    keys: `[B]` keys, one per example.
    image_shape: `(H, W, D)`.
    augmentation: the ranges.

  Returns:
    `(angle, shift_rows, shift_cols, flip)` for `affine`, each `[B]`.
  """
  # float32 even where JAX's default is float64: the same key then draws the same numbers.
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (4,), jnp.float32))(keys)  # [B, 4]
  either_way = 2 * uniform[:, :3] - 1  # in [-1, 1)
  height, width = image_shape[:2]
  return (
    augmentation.rotation_range * either_way[:, 0],
    augmentation.shift_range * height * either_way[:, 1],
    augmentation.shift_range * width * either_way[:, 2],
    (uniform[:, 3] < 0.5) & augmentation.horizontal_flip,
  )


def affine(
  images: jax.Array,
  angle: jax.Array,
  shift_rows: jax.Array,
  shift_cols: jax.Array,
  flip: jax.Array,
) -> jax.Array:
  """Rotates and shifts each image, then mirrors it left to right where `flip` says so.

  With places measured from the centre, the pixel at (row, col) of the result is what the image has
  at R (row + shift_rows, col + shift_cols), R = [[cos, -sin], [sin, cos]]: a positive shift moves
  the picture up or left, and a positive angle turns it clockwise on a screen, where rows go down.

  Args:
    images: `[B, H, W, D]` floats.
    angle: `[B]` in degrees.
    shift_rows: `[B]` in pixels.
    shift_cols: `[B]` in pixels.
    flip: `[B]` bool.

  Returns:
    `[B, H, W, D]`, of the dtype of the images.
  """
  changed = jax.vmap(_affine)(images, angle, shift_rows, shift_cols, flip)
  # Or else XLA fuses the gathers into whatever reads the images, and a convolution, which reads
  # each pixel through nine slices, gathers it nine times: ten times slower.
  return lax.optimization_barrier(changed)


def _affine(image, angle, shift_rows, shift_cols, flip):
  """`affine` of one image `[H, W, D]`; the other arguments are `[]`."""
  height, width, _ = image.shape
  dtype = image.dtype
  cos, sin = _cos_sin(angle.astype(dtype))
  rows = jnp.arange(height, dtype=dtype) - (height - 1) / 2  # [H]
  cols = jnp.arange(width, dtype=dtype) - (width - 1) / 2  # [W]
  # The flip comes last, so the places of the result are the first that it concerns.
  cols = jnp.where(flip, -cols, cols)
  rows = (rows + shift_rows.astype(dtype))[:, None]
  cols = (cols + shift_cols.astype(dtype))[None]
  above, below, down = _neighbours((height - 1) / 2 + cos * rows - sin * cols, height)  # [H, W]
  left, right, along = _neighbours((width - 1) / 2 + sin * rows + cos * cols, width)

  # One index into a list of pixels, and no filling, is the fastest gather on CPU; "clip" and not a
  # promise, so that a NaN reads no foreign memory.
  pixels = image.reshape(height * width, -1)
  down, along = down[:, :, None], along[:, :, None]

  def on_row(row):
    start, end = (pixels.at[row * width + col].get(mode="clip") for col in (left, right))
    return start + along * (end - start)

  upper, lower = on_row(above), on_row(below)
  return upper + down * (lower - upper)


def _neighbours(place, size):
  """Splits places along an axis into two pixels and how far it is from the first to the second.

  The place is moved inside before it is rounded down, so both pixels exist, and what is
  interpolated is continuous in the place: an error of rounding that moves it across a pixel, or
  across the edge, changes the result as little as any other.

  Args:
    place: floats, counted from pixel 0.
    size: number of pixels on the axis.

  Returns:
    Two int32 and, in [0, 1), a float, of the place's shape.
  """
  place = jnp.clip(place, 0, size - 1)
  first = jnp.floor(place)
  index = first.astype(jnp.int32)
  return index, jnp.minimum(index + 1, size - 1), place - first


def _cos_sin(degrees):
  """Cosine and sine, exact at multiples of 90 degrees, and in float32 precise at large angles.

  Whole quarter turns are taken off while the angle is in degrees, where that is exact.
  """
  turns = jnp.round(degrees / 90)
  rest = jnp.deg2rad(degrees - 90 * turns)
  cos, sin = jnp.cos(rest), jnp.sin(rest)
  quarter = jnp.mod(turns, 4)
  x, y = jnp.where(quarter % 2 == 0, cos, sin), jnp.where(quarter % 2 == 0, sin, cos)
  return (
    jnp.where((quarter == 1) | (quarter == 2), -x, x),
    jnp.where(quarter >= 2, -y, y),
  )


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
