"""Random rotations, shifts and flips of training images, with the semantics of Keras.

Two conventions differ, and make no difference with ranges that are symmetric and images that are
square: Keras's layers turn the other way, and exchange the shifts of height and width.

The rotation and the shift are one affine map about the centre of the image, with bilinear
interpolation; beyond an edge its nearest pixel is repeated. The flip comes last. Every example has
its own key, so the result does not depend on how a batch is cut into slices.
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
    rotation_range: the largest rotation in either direction, in degrees, in [0, 180].
    shift_range: the largest shift in either direction, as a fraction of the height and of the
      width, in [0, 1).
    horizontal_flip: whether each image is mirrored left to right with probability 1/2.
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
    """Whether it leaves every image unchanged."""
    return self.rotation_range == 0 and self.shift_range == 0 and not self.horizontal_flip


def random_affine(keys: jax.Array, images: jax.Array, augmentation: Augmentation) -> jax.Array:
  """Returns the images, each changed at random.

  Args:
    keys: `[B]` keys, one per example.
    images: `[B, H, W, D]` floats.
    augmentation: the ranges of the changes; static.

  Returns:
    `[B, H, W, D]`; `images` itself if the augmentation changes nothing.
  """
  if augmentation.is_identity:
    return images
  return affine(images, *draw(keys, images.shape[1:], augmentation))


def draw(
  keys: jax.Array, image_shape: tuple[int, int, int], augmentation: Augmentation
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Draws the change that `random_affine` makes to each image, uniformly from the ranges.

  All four numbers are always drawn, so that enabling one kind of change leaves the draws of the
  others the same.

  Args:
    keys: `[B]` keys, one per example.
    image_shape: `(H, W, D)`.
    augmentation: the ranges.

  Returns:
    `(angle, shift_rows, shift_cols, flip)` for `affine`, each `[B]`.
  """
  # float32 even if JAX's default is float64, so that a key always draws the same numbers.
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (4,), jnp.float32))(keys)  # [B, 4]
  signed = 2 * uniform[:, :3] - 1  # [B, 3] in [-1, 1)
  height, width = image_shape[:2]
  return (
    augmentation.rotation_range * signed[:, 0],
    augmentation.shift_range * height * signed[:, 1],
    augmentation.shift_range * width * signed[:, 2],
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

  Before the flip, and with coordinates relative to the centre, the result at (row, col) is the
  image at R (row + shift_rows, col + shift_cols), R = [[cos, -sin], [sin, cos]]. A positive shift
  moves the picture up or left; a positive angle turns it clockwise on a screen, where rows go down.

  Args:
    images: `[B, H, W, D]` floats.
    angle: `[B]` in degrees.
    shift_rows: `[B]` in pixels.
    shift_cols: `[B]` in pixels.
    flip: `[B]` bool.

  Returns:
    `[B, H, W, D]`, in the dtype of the images.
  """
  changed = jax.vmap(_affine)(images, angle, shift_rows, shift_cols, flip)
  # Without the barrier XLA fuses the gathers into whatever reads the images. A convolution reads
  # each pixel through nine slices, so it would gather each pixel nine times: ten times slower.
  return lax.optimization_barrier(changed)


def _affine(image, angle, shift_rows, shift_cols, flip):
  """`affine` of one image `[H, W, D]`; the other arguments are `[]`."""
  height, width, _ = image.shape
  dtype = image.dtype
  cos, sin = _cos_sin(angle.astype(dtype))
  rows = jnp.arange(height, dtype=dtype) - (height - 1) / 2  # [H]
  cols = jnp.arange(width, dtype=dtype) - (width - 1) / 2  # [W]
  # The flip comes last, so it is the first change to the coordinates of the result.
  cols = jnp.where(flip, -cols, cols)
  rows = (rows + shift_rows.astype(dtype))[:, None]
  cols = (cols + shift_cols.astype(dtype))[None]
  above, below, down = _neighbours((height - 1) / 2 + cos * rows - sin * cols, height)  # [H, W]
  left, right, along = _neighbours((width - 1) / 2 + sin * rows + cos * cols, width)

  # The fastest gather on CPU has one index into a list of pixels and no fill value. Indices are
  # clipped, not promised to be in bounds, so that a NaN cannot read other memory.
  pixels = image.reshape(height * width, -1)
  down, along = down[:, :, None], along[:, :, None]

  def on_row(row):
    start, end = (pixels.at[row * width + col].get(mode="clip") for col in (left, right))
    return start + along * (end - start)

  upper, lower = on_row(above), on_row(below)
  return upper + down * (lower - upper)


def _neighbours(position, size):
  """Returns the two pixels next to a position on an axis, and its distance from the first.

  Positions are clipped to the image before they are rounded down, so both pixels exist and the
  interpolation is a continuous function of the position. A rounding error that moves a position
  across a pixel or an edge therefore changes the result no more than any other.

  Args:
    position: floats, counted from pixel 0.
    size: number of pixels on the axis.

  Returns:
    `(first, second, distance)`, each of the position's shape: two int32, and a float in [0, 1).
  """
  position = jnp.clip(position, 0, size - 1)
  first = jnp.floor(position)
  index = first.astype(jnp.int32)
  return index, jnp.minimum(index + 1, size - 1), position - first


def _cos_sin(degrees):
  """Returns cosine and sine, exact at multiples of 90 degrees and accurate at large angles.

  Whole quarter turns are subtracted while the angle is in degrees, where that is exact.
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
