"""Convolution and pooling of one picture, a matrix."""

import functools
from collections.abc import Callable

import numpy as np

from jaxdl.byhand.expressions.arrays import slope_of_extreme, slope_of_mean
from jaxdl.byhand.expressions.operation import (
  MAX_SIZE,
  Operation,
  points_of,
  shape_of,
  write_shape,
)
from jaxdl.byhand.expressions.syntax import Shape
from jaxdl.errors import InputError


def _windows(
  picture: Shape, window: Shape, stride: int, name: str
) -> tuple[Shape, dict[tuple[int, int], tuple[slice, slice]]]:
  """Returns how many windows there are, and the entries at each place of all windows."""
  if len(picture) != 2 or len(window) != 2 or window[0] > picture[0] or window[1] > picture[1]:
    raise InputError(
      f"{name} takes a picture and a window that is no larger, not the shapes "
      f"{write_shape(picture)} and {write_shape(window)}"
    )
  if stride < 1:
    raise InputError(f"{name}: the stride must be at least 1")
  rows, columns = ((n - w) // stride + 1 for n, w in zip(picture, window, strict=True))

  def part(start, num):
    return slice(start, start + (num - 1) * stride + 1, stride)

  return (rows, columns), {
    (i, j): (part(i, rows), part(j, columns)) for i, j in np.ndindex(*window)
  }


def _conv_windows(shapes, options):
  return _windows(shapes[0], shapes[1], options.get("stride", 1), "conv")


def _conv(args, num_points, options):
  picture, kernel = args
  _, places = _conv_windows([shape_of(arg, num_points) for arg in args], options)
  return functools.reduce(np.add, (kernel[place] * picture[part] for place, part in places.items()))


def _conv_pull(cotangent, args, out, num_points, options, place):
  del out
  _, places = _conv_windows([shape_of(arg, num_points) for arg in args], options)
  picture, kernel = args
  points = points_of(cotangent, *args, num_points=num_points)
  result = np.zeros((*shape_of(args[place], num_points), *points))
  for at, part in places.items():
    if place == 0:
      result[part] += kernel[at] * cotangent
    else:
      result[at] = (picture[part] * cotangent).sum(axis=(0, 1))
  return result


def _pool_windows(shape, options):
  size = options.get("size", 2)
  if not 1 <= size <= MAX_SIZE:
    raise InputError("the size of a pool must be at least 1")
  return _windows(shape, (size, size), options.get("stride", size), "a pool")


def _pool(reduce: Callable, slope: Callable) -> Operation:
  """Returns pooling of a picture: size 2, and a stride as large as the size, if not given."""

  def parts(picture, num_points, options):
    _, places = _pool_windows(shape_of(picture, num_points), options)
    return list(places.values())

  def value(args, num_points, options):
    (picture,) = args
    return reduce([picture[part] for part in parts(picture, num_points, options)], axis=0)

  def pull(cotangent, args, out, num_points, options, place):
    del place
    (picture,) = args
    places = parts(picture, num_points, options)
    slopes = slope(np.stack([picture[part] for part in places]), out, (0,))
    points = points_of(cotangent, picture, num_points=num_points)
    result = np.zeros((*shape_of(picture, num_points), *points))
    for part, weight in zip(places, slopes, strict=True):
      result[part] += weight * cotangent
    return result

  return Operation(
    1,
    1,
    lambda shapes, options: _pool_windows(shapes[0], options)[0],
    value,
    pull,
    ("size", "stride"),
  )


FUNCTIONS: dict[str, Operation] = {
  "conv": Operation(
    2, 2, lambda shapes, options: _conv_windows(shapes, options)[0], _conv, _conv_pull, ("stride",)
  ),
  "max_pool": _pool(np.max, slope_of_extreme),
  "mean_pool": _pool(np.mean, slope_of_mean),
}
