"""Functions over the axes of arrays: sums, softmax, products, parts."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from jaxdl.byhand.expressions.operation import (
  MAX_SIZE,
  Operation,
  Options,
  broadcast,
  points_of,
  shape_of,
  write_shape,
)
from jaxdl.byhand.expressions.syntax import Index, Shape
from jaxdl.errors import InputError

# --- Sums, means, extremes over axes ---


def axis_of(options: Options, rank: int, default: int = 0) -> int:
  """Returns an axis, counted from the start, of an array with so many axes.

  Raises:
    InputError: if there is no such axis.
  """
  axis = options.get("axis", default)
  if not -rank <= axis < rank:
    raise InputError(f"there is no axis {axis} among {rank}")
  return axis % rank


def _axes(shape: Shape, options: Options) -> tuple[int, ...]:
  return (axis_of(options, len(shape)),) if "axis" in options else tuple(range(len(shape)))


def _reduced_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  (shape,) = shapes
  try:
    axes = _axes(shape, options)
  except InputError as error:
    raise InputError(
      f"there is no axis {options['axis']} in the shape {write_shape(shape)}"
    ) from error
  if options.get("keepdims"):
    return tuple(1 if i in axes else n for i, n in enumerate(shape))
  return tuple(n for i, n in enumerate(shape) if i not in axes)


def _reduction(reduce: Callable, slope: Callable) -> Operation:
  """Returns an operation that reduces axes.

  Args:
    reduce: the function of NumPy.
    slope: (argument, result with the reduced axes kept, axes) -> derivatives, in the shape of the
      argument.
  """

  def value(args, num_points, options):
    axes = _axes(shape_of(args[0], num_points), options)
    return reduce(args[0], axis=axes, keepdims=bool(options.get("keepdims")))

  def pull(cotangent, args, out, num_points, options, place):
    del place
    axes = _axes(shape_of(args[0], num_points), options)
    if not options.get("keepdims"):
      cotangent, out = np.expand_dims(cotangent, axes), np.expand_dims(out, axes)
    return cotangent * slope(args[0], out, axes)

  return Operation(1, 1, _reduced_shape, value, pull, ("axis", "keepdims"))


def slope_of_mean(x, out, axes):
  """Returns the derivatives of a mean over axes."""
  del out
  return np.full(np.shape(x), 1.0) / math.prod(np.shape(x)[axis] for axis in axes)


def slope_of_extreme(x, out, axes):
  """Returns the derivatives of a maximum or minimum over axes, which equal entries share."""
  equal = (x == out).astype(float)
  return equal / equal.sum(axis=axes, keepdims=True)


def _maximum(reduce: Callable, pairwise: Callable) -> Operation:
  """Returns max or min: of one array over its axes, of several elementwise."""
  over_axes = _reduction(reduce, slope_of_extreme)

  def shape(shapes, options):
    if len(shapes) == 1 and shapes[0] == ():
      raise InputError("it takes an array or several arguments, not one number")
    if len(shapes) > 1 and options:
      raise InputError("an axis needs one array")
    return over_axes.shape(shapes, options) if len(shapes) == 1 else broadcast(shapes)

  def value(args, num_points, options):
    if len(args) == 1:
      return over_axes.value(args, num_points, options)
    return functools.reduce(pairwise, args)

  def pull(cotangent, args, out, num_points, options, place):
    if len(args) == 1:
      return over_axes.pull(cotangent, args, out, num_points, options, place)
    num_equal = functools.reduce(np.add, [(arg == out) * 1.0 for arg in args])
    return cotangent * (args[place] == out) / num_equal

  return Operation(1, 2000, shape, value, pull, ("axis", "keepdims"))


# --- Softmax ---


def _softmax_axis(value: Any, num_points: int, options: Options) -> int:
  return axis_of(options, len(shape_of(value, num_points)), -1)


def _softmax_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  (shape,) = shapes
  if not -len(shape) <= options.get("axis", -1) < len(shape):
    raise InputError(
      f"it takes an array that has the axis, not one of shape {write_shape(shape)}; "
      "the softmax of scalars is written softmax([z1, z2])[0]"
    )
  return shape


def _softmax(args, num_points, options):
  return scipy.special.softmax(args[0], axis=_softmax_axis(args[0], num_points, options))


def _softmax_pull(cotangent, args, out, num_points, options, place):
  del place
  axis = _softmax_axis(args[0], num_points, options)
  return out * (cotangent - np.sum(cotangent * out, axis=axis, keepdims=True))


def _log_softmax(args, num_points, options):
  return scipy.special.log_softmax(args[0], axis=_softmax_axis(args[0], num_points, options))


def _log_softmax_pull(cotangent, args, out, num_points, options, place):
  del place
  axis = _softmax_axis(args[0], num_points, options)
  return cotangent - np.exp(out) * np.sum(cotangent, axis=axis, keepdims=True)


# --- Products of arrays ---


def _product_letters(shapes: Sequence[Shape]) -> tuple[str, str, str]:
  """Returns the axes of both factors of @ and of the product, as letters for `numpy.einsum`."""
  left = "ij"[2 - len(shapes[0]) :]
  right = "jk"[: len(shapes[1])]
  return left, right, (left + right).replace("j", "")


def _matmul_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  del options
  left, right = shapes
  if not (1 <= len(left) <= 2 and 1 <= len(right) <= 2):
    raise InputError(
      f"@ multiplies vectors and matrices, not the shapes {write_shape(left)} and "
      f"{write_shape(right)}"
    )
  if left[-1] != right[0]:
    hint = "; the product of a column and a row is written outer(u, v)" if len(right) == 1 else ""
    raise InputError(
      f"the shapes {write_shape(left)} and {write_shape(right)} do not fit together in @{hint}"
    )
  return (*left[:-1], *right[1:])


def _einsum(letters: Sequence[str], result: str, *arrays: Any) -> Any:
  return np.einsum(f"{','.join(f'{x}...' for x in letters)}->{result}...", *arrays)


def _matmul(args, num_points, options):
  del options
  left, right, out = _product_letters([shape_of(arg, num_points) for arg in args])
  return _einsum((left, right), out, *args)


def _matmul_pull(cotangent, args, out, num_points, options, place):
  del out, options
  letters = _product_letters([shape_of(arg, num_points) for arg in args])
  other = 1 - place
  return _einsum((letters[2], letters[other]), letters[place], cotangent, args[other])


def _outer_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  del options
  if [len(shape) for shape in shapes] != [1, 1]:
    text = " and ".join(map(write_shape, shapes))
    raise InputError(f"outer takes two vectors, not the shapes {text}")
  return (*shapes[0], *shapes[1])


def _outer_pull(cotangent, args, out, num_points, options, place):
  del out, num_points, options
  return _einsum(("ij", "ji"[place]), "ij"[place], cotangent, args[1 - place])


# --- Moving entries ---


def _transposed_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  del options
  if len(shapes[0]) > 2:
    raise InputError(f".T takes a matrix, not the shape {write_shape(shapes[0])}")
  return shapes[0][::-1]


def _transpose(x: Any, num_points: int) -> Any:
  return np.swapaxes(x, 0, 1) if np.ndim(x) - num_points == 2 else x


def as_slices(index: Index) -> tuple[int | slice | None, ...]:
  """Returns an index as NumPy takes it."""
  return tuple(slice(*item) if isinstance(item, tuple) else item for item in index)


def indexed_shape(shape: Shape, index: Index) -> Shape:
  """Returns the shape of an array's part.

  Raises:
    InputError: if there is no such part.
  """
  num_indices = sum(item is not None for item in index)
  if num_indices > len(shape):
    raise InputError(f"{num_indices} indices are too many for the shape {write_shape(shape)}")
  try:
    found = np.empty(shape)[as_slices(index)].shape
  except IndexError as error:
    raise InputError(
      f"an index is out of range for the shape {write_shape(shape)}: entries are counted from 0"
    ) from error
  if 0 in found:
    raise InputError(f"a slice of the shape {write_shape(shape)} is empty")
  return found


def _index_pull(cotangent, args, out, num_points, options, place):
  del out, place
  shape = shape_of(args[0], num_points)
  result = np.zeros((*shape, *points_of(cotangent, num_points=num_points)))
  result[as_slices(options["index"])] += cotangent
  return result


def _list_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  del options
  if len(set(shapes)) > 1:
    text = " and ".join(map(write_shape, dict.fromkeys(shapes)))
    raise InputError(f"the parts of a list [...] have different shapes: {text}")
  return (len(shapes), *shapes[0])


def _concat_shape(shapes: Sequence[Shape], options: Options) -> Shape:
  axis, rank = options.get("axis", 0), len(shapes[0])
  fits = -rank <= axis < rank
  axis = axis % rank if fits else axis
  if not fits or len({(len(s), s[:axis], s[axis + 1 :]) for s in shapes}) > 1:
    text = " and ".join(map(write_shape, shapes[:4]))
    raise InputError(f"concat cannot join the shapes {text} along axis {axis}")
  return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _same_points(args: Sequence[Any], num_points: int) -> list[Any]:
  points = points_of(*args, num_points=num_points)
  return [np.broadcast_to(a, (*shape_of(a, num_points), *points)) for a in args]


def _concat_pull(cotangent, args, out, num_points, options, place):
  del out
  axis = axis_of(options, len(shape_of(args[0], num_points)))
  ends = np.cumsum([0, *(shape_of(arg, num_points)[axis] for arg in args)])
  return np.take(cotangent, range(ends[place], ends[place + 1]), axis=axis)


def _flat_pull(cotangent, args, out, num_points, options, place):
  del out, options, place
  points = points_of(cotangent, num_points=num_points)
  return np.reshape(cotangent, (*shape_of(args[0], num_points), *points))


def moved(shape: Callable, value: Callable, pull: Callable, *options: str) -> Operation:
  """Returns an operation that moves the entries of one array."""
  return Operation(1, 1, shape, value, pull, options)


FUNCTIONS: dict[str, Operation] = {
  "max": _maximum(np.max, np.maximum),
  "min": _maximum(np.min, np.minimum),
  "sum": _reduction(np.sum, lambda x, out, axes: np.ones(np.shape(x))),
  "mean": _reduction(np.mean, slope_of_mean),
  "softmax": Operation(1, 1, _softmax_shape, _softmax, _softmax_pull, ("axis",)),
  "log_softmax": Operation(1, 1, _softmax_shape, _log_softmax, _log_softmax_pull, ("axis",)),
  "outer": Operation(
    2, 2, _outer_shape, lambda args, num, options: _einsum("ij", "ij", *args), _outer_pull
  ),
  "concat": Operation(
    2,
    20,
    _concat_shape,
    lambda args, num, options: np.concatenate(
      _same_points(args, num), axis_of(options, len(shape_of(args[0], num)))
    ),
    _concat_pull,
    ("axis",),
  ),
  "flatten": moved(
    lambda shapes, options: (math.prod(shapes[0]),),
    lambda args, num, options: np.reshape(args[0], (-1, *points_of(args[0], num_points=num))),
    _flat_pull,
  ),
}
OPERATORS: dict[str, Operation] = {
  "@": Operation(2, 2, _matmul_shape, _matmul, _matmul_pull),
  "T": moved(
    _transposed_shape,
    lambda args, num, options: _transpose(args[0], num),
    lambda ct, args, out, num, options, place: _transpose(ct, num),
  ),
  "[]": moved(
    lambda shapes, options: indexed_shape(shapes[0], options["index"]),
    lambda args, num, options: args[0][as_slices(options["index"])],
    _index_pull,
  ),
  "list": Operation(
    1,
    MAX_SIZE,
    _list_shape,
    lambda args, num, options: np.stack(_same_points(args, num)),
    lambda ct, args, out, num, options, place: ct[place],
  ),
}
