"""Convolution and pooling of pictures, zeros around and between their entries.

A picture is a matrix, or several of them, its channels: `[H, W]` or `[C, H, W]`. The other
functions here are over the last two axes, too; of a vector, over its only one.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxdl.byhand.expressions.arrays import moved, slope_of_extreme, slope_of_mean
from jaxdl.byhand.expressions.operation import (
  MAX_SIZE,
  Operation,
  Options,
  points_of,
  shape_of,
  write_shape,
)
from jaxdl.byhand.expressions.syntax import Shape
from jaxdl.errors import InputError

# --- Windows ---


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


# --- Convolution ---


def full_shapes(picture: Shape, kernel: Shape) -> tuple[Shape, Shape]:
  """Returns the shapes of a picture and its kernels with all axes: `[C, H, W]`, `[F, C, U, V]`.

  Raises:
    InputError: if the kernel has other axes or channels than the picture.
  """
  if len(picture) not in (2, 3) or len(kernel) - len(picture) not in (0, 1):
    raise InputError(
      f"conv takes a picture and a kernel, not the shapes {write_shape(picture)} and "
      f"{write_shape(kernel)}; with C channels and F kernels they are (C, H, W) and (F, C, U, V)"
    )
  channels = picture[:-2] or (1,)
  num_kernels = kernel[:1] if len(kernel) > len(picture) else (1,)
  if len(picture) == 3 and kernel[-3] != picture[0]:
    raise InputError(
      f"the picture {write_shape(picture)} has {picture[0]} channels, but the kernel "
      f"{write_shape(kernel)} has {kernel[-3]}"
    )
  return (*channels, *picture[-2:]), (*num_kernels, *channels, *kernel[-2:])


def _conv_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  picture, kernel = full_shapes(*shapes)
  size, _ = _windows(picture[1:], kernel[2:], options.get("stride", 1), "conv")
  return (*kernel[:1], *size) if len(shapes[1]) > len(shapes[0]) else size


def _with_all_axes(args, num_points, options):
  """Returns picture and kernels with all axes, and the places of the windows."""
  shapes = full_shapes(*(shape_of(arg, num_points) for arg in args))
  full = [
    np.reshape(arg, (*shape, *points_of(arg, num_points=num_points)))
    for arg, shape in zip(args, shapes, strict=True)
  ]
  return *full, _windows(shapes[0][1:], shapes[1][2:], options.get("stride", 1), "conv")[1]


def _conv(args, num_points, options):
  picture, kernel, places = _with_all_axes(args, num_points, options)
  terms = (
    np.einsum("fc...,cij...->fij...", kernel[:, :, u, v], picture[:, rows, columns])
    for (u, v), (rows, columns) in places.items()
  )
  total = functools.reduce(np.add, terms)
  has_kernels = np.ndim(args[1]) > np.ndim(args[0])
  return total if has_kernels else total[0]


def _conv_pull(cotangent, args, out, num_points, options, place):
  del out
  picture, kernel, places = _with_all_axes(args, num_points, options)
  above = cotangent if np.ndim(args[1]) > np.ndim(args[0]) else cotangent[None]
  points = points_of(above, picture, kernel, num_points=num_points)
  full = (picture, kernel)[place]
  result = np.zeros((*shape_of(full, num_points), *points))
  for (u, v), (rows, columns) in places.items():
    if place == 0:
      result[:, rows, columns] += np.einsum("fc...,fij...->cij...", kernel[:, :, u, v], above)
    else:
      result[:, :, u, v] = np.einsum("cij...,fij...->fc...", picture[:, rows, columns], above)
  return np.reshape(result, (*shape_of(args[place], num_points), *points))


# --- Pooling ---


def _pool_windows(shape, options):
  size = options.get("size", 2)
  if not 1 <= size <= MAX_SIZE:
    raise InputError("the size of a pool must be at least 1")
  return _windows(shape[-2:], (size, size), options.get("stride", size), "a pool")


def _pool(reduce: Callable, slope: Callable) -> Operation:
  """Returns pooling of a picture: size 2, and a stride as large as the size, if not given."""

  def parts(picture, num_points, options):
    shape = shape_of(picture, num_points)
    _, places = _pool_windows(shape, options)
    return [(slice(None),) * (len(shape) - 2) + place for place in places.values()]

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
    lambda shapes, options: (*shapes[0][:-2], *_pool_windows(shapes[0], options)[0]),
    value,
    pull,
    ("size", "stride"),
  )


# --- Zeros around and between, turning ---


def _picture_axes(shape: Shape) -> range:
  return range(max(0, len(shape) - 2), len(shape))


def widths(shape: Shape, options: Options) -> dict[int, int]:
  """Returns axis -> how many zeros `pad` adds on each of its sides."""
  width = options.get("width", 1)
  return dict(zip(_picture_axes(shape)[::-1], (options.get("columns", width), width), strict=False))


def _pad_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  added = widths(shapes[0], options)
  return tuple(n + 2 * added.get(axis, 0) for axis, n in enumerate(shapes[0]))


def _pad(args, num_points, options):
  added = widths(shape_of(args[0], num_points), options)
  return np.pad(args[0], [(added.get(axis, 0),) * 2 for axis in range(np.ndim(args[0]))])


def _pad_pull(cotangent, args, out, num_points, options, place):
  del out, place
  shape = shape_of(args[0], num_points)
  added = widths(shape, options)
  starts = [added.get(axis, 0) for axis in range(len(shape))]
  return cotangent[tuple(slice(s, s + n) for s, n in zip(starts, shape, strict=True))]


def _flip(x, num_points):
  return np.flip(x, tuple(_picture_axes(shape_of(x, num_points))))


def _dilated_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  stride = options.get("stride", 2)
  if stride < 1:
    raise InputError("dilate: the stride must be at least 1")
  axes = _picture_axes(shapes[0])
  return tuple((n - 1) * stride + 1 if i in axes else n for i, n in enumerate(shapes[0]))


def _every(shape: Shape, options: Options) -> tuple[slice, ...]:
  """Returns where the entries of an array of a shape are after `dilate`."""
  axes, stride = _picture_axes(shape), options.get("stride", 2)
  return tuple(slice(None, None, stride if i in axes else None) for i in range(len(shape)))


def _dilate(args, num_points, options):
  shape = shape_of(args[0], num_points)
  points = points_of(args[0], num_points=num_points)
  result = np.zeros((*_dilated_shape([shape], options), *points))
  result[_every(shape, options)] = args[0]
  return result


FUNCTIONS: dict[str, Operation] = {
  "conv": Operation(2, 2, _conv_shape, _conv, _conv_pull, ("stride",)),
  "max_pool": _pool(np.max, slope_of_extreme),
  "mean_pool": _pool(np.mean, slope_of_mean),
  "pad": moved(_pad_shape, _pad, _pad_pull, "width", "columns"),
  "flip": moved(
    lambda shapes, options: shapes[0],
    lambda args, num, options: _flip(args[0], num),
    lambda ct, args, out, num, options, place: _flip(ct, num),
  ),
  "dilate": moved(
    _dilated_shape,
    _dilate,
    lambda ct, args, out, num, options, place: ct[_every(shape_of(args[0], num), options)],
    "stride",
  ),
}
