"""Backward passes of arrays as formulas, as one writes them by hand."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxdl.byhand.expressions import evaluation, operations
from jaxdl.byhand.expressions.arrays import axis_of
from jaxdl.byhand.expressions.derivatives import (
  ONE,
  OPERATORS,
  SLOPES,
  ZERO,
  is_pairwise,
  negate,
  over,
  plus,
  slope_of_one,
  slope_of_operator,
  times,
)
from jaxdl.byhand.expressions.pictures import full_shapes, widths
from jaxdl.byhand.expressions.syntax import (
  Apply,
  Expression,
  Index,
  Name,
  Number,
  Quantity,
  Shape,
  arguments,
  part,
)
from jaxdl.errors import InputError

# Of a function without a formula, so many entries are written one by one, with so many terms each.
_MAX_ENTRIES = 64
_MAX_TERMS = 4


def pull_back_formula(
  expression: Expression,
  name: str,
  cotangent: Expression,
  shape_of: Callable[[Quantity], Shape],
  lookup: evaluation.Lookup,
) -> Expression | None:
  """Returns the cotangent of a name in an expression as a formula.

  Its own shape may be smaller than that of the name: the cotangent of every entry of x in sum(x) is
  the same number. What no function says, such as the way back through a maximum, is a list of
  entries; it holds where the names have the values of `lookup`. None if that were too long.

  Args:
    expression: whose shapes fit.
    name: in the expression.
    cotangent: of the value of the expression.
    shape_of: the shape of each quantity in the expression and the cotangent.
    lookup: the value of each quantity in the expression.
  """
  return _Backward(expression, shape_of, lookup).formula(name, cotangent)


def as_list(array: np.ndarray) -> Expression:
  """Returns an array of numbers as a formula."""
  if np.ndim(array) == 0:
    number = (Number(abs(float(array))),)
    return negate(number) if array < 0 else number
  return _list([as_list(inner) for inner in array])


class _Backward:
  """The way back through one expression."""

  def __init__(self, expression, shape_of, lookup):
    self._expression, self._shape_of = expression, shape_of
    self._shapes = evaluation.shapes(expression, shape_of)
    self._values = evaluation.steps(expression, lookup)

  def formula(self, name: str, cotangent: Expression) -> Expression | None:
    """Returns the cotangent of a name."""
    expression, args_of = self._expression, arguments(self._expression)
    active: list[bool] = []
    for item, args in zip(expression, args_of, strict=True):
      active.append(any(active[i] for i in args) if isinstance(item, Apply) else item == Name(name))
    cotangents = {len(expression) - 1: cotangent}
    total: Expression = ZERO
    for place in range(len(expression) - 1, -1, -1):
      if not active[place]:
        continue
      if not isinstance(expression[place], Apply):
        total = plus(total, cotangents[place])
        continue
      for number, inner in enumerate(args_of[place]):
        if active[inner]:
          below = self._step(place, args_of[place], number, cotangents[place])
          if below is None:
            return None
          cotangents[inner] = below
    return total

  def _step(
    self, place: int, args: Sequence[int], number: int, above: Expression
  ) -> Expression | None:
    """Returns the cotangent of an argument of one function."""
    item, inner = self._expression[place], self._shapes[args[number]]
    assert isinstance(item, Apply)
    below = _pull(
      item,
      above,
      [part(self._expression, i) for i in args],
      part(self._expression, place),
      [self._shapes[i] for i in args],
      number,
      self._own_shape(above) or (),
      self._shapes[place],
    )
    if below is not None and (item.function in OPERATORS or is_pairwise(item)):
      below = self._summed(below, self._shapes[place], inner)
    is_tie = item.function in ("max", "min") and self._is_tie(args)
    if below is not None and not is_tie and self._fits(below, inner):
      return below
    return self._entry_by_entry(place, args, number, above)

  def _is_tie(self, args: Sequence[int]) -> bool:
    """Returns whether entries of two arguments are equal, so that they share the derivative."""
    return len(args) == 2 and bool(np.any(self._values[args[0]] == self._values[args[1]]))

  def _own_shape(self, formula: Expression) -> Shape | None:
    try:
      return evaluation.shapes(formula, self._shape_of)[-1]
    except InputError:
      return None

  def _fits(self, formula: Expression, shape: Shape) -> bool:
    own = self._own_shape(formula)
    try:
      return own is not None and np.broadcast_shapes(own, shape) == shape
    except ValueError:
      return False

  def _summed(self, cotangent: Expression, shape: Shape, wanted: Shape) -> Expression | None:
    """Returns a cotangent summed over the axes along which the argument was broadcast."""
    own = self._own_shape(cotangent)
    if own == wanted or shape == wanted:
      return cotangent
    if own != shape:
      return None
    if cotangent[-1] == Apply("negative", 1):
      below = self._summed(cotangent[:-1], shape, wanted)
      return below and negate(below)
    if wanted == ():
      return (*cotangent, Apply("sum", 1))
    for _ in range(len(shape) - len(wanted)):
      cotangent = (*cotangent, Apply("sum", 1, (("axis", 0),)))
    for axis, size in enumerate(wanted):
      if size == 1 != shape[len(shape) - len(wanted) + axis]:
        cotangent = (*cotangent, Apply("sum", 1, (("axis", axis), ("keepdims", 1))))
    return cotangent

  def _entry_by_entry(
    self, place: int, args: Sequence[int], number: int, above: Expression
  ) -> Expression | None:
    """Returns a list with the cotangent of each entry of an argument."""
    item, shape, inner = self._expression[place], self._shapes[place], self._shapes[args[number]]
    assert isinstance(item, Apply)
    own, size = self._own_shape(above), math.prod(shape)
    if own not in ((), shape) or math.prod(inner) > _MAX_ENTRIES:
      return None
    slopes = operations.ALL[item.function].pull(
      np.eye(size).reshape(*shape, size),
      [np.asarray(self._values[i])[..., None] for i in args],
      np.asarray(self._values[place])[..., None],
      1,
      evaluation.options(item),
      number,
    )
    slopes = evaluation.unbroadcast(slopes, (*inner, 1), num_points=1)
    slopes = np.broadcast_to(slopes, (*inner, size))
    if (np.count_nonzero(slopes, axis=-1) > _MAX_TERMS).any():
      return None

    def entry(at: np.ndarray) -> Expression:
      total: Expression = ZERO
      for i in np.flatnonzero(at):
        slope = (Number(abs(float(at[i]))),)
        term = times(slope, above if own == () else _part(above, np.unravel_index(i, shape)))
        total = plus(total, negate(term) if at[i] < 0 else term)
      return total

    def entries(array: np.ndarray) -> Expression:
      return entry(array) if array.ndim == 1 else _list([entries(inner) for inner in array])

    return entries(slopes)


def _list(parts: Sequence[Expression]) -> Expression:
  return (*(item for inner in parts for item in inner), Apply("list", len(parts)))


def _part(array: Expression, index: Sequence) -> Expression:
  """Returns a part of an array."""
  plain: Index = tuple(int(i) if isinstance(i, np.integer) else i for i in index)
  last = array[-1]
  if isinstance(last, Apply) and all(isinstance(i, int) for i in last.index):
    array, plain = (array[:-1], (*last.index, *plain)) if last.index else (array, plain)
  return (*array, Apply("[]", 1, index=plain)) if plain else array


_ALL: Index = ((None, None),)


def _pull(
  item: Apply,
  above: Expression,
  args: list,
  out: Expression,
  shapes: list[Shape],
  number: int,
  own: Shape,
  shape: Shape,
) -> Expression | None:
  """Returns the cotangent of an argument, before it is summed over the axes of broadcasting.

  Args:
    item: the function.
    above: the cotangent of its result.
    args: its arguments.
    out: its result.
    shapes: of its arguments.
    number: which argument.
    own: the shape of `above`, which may be smaller than that of the result.
    shape: of the result.
  """
  function, options = item.function, dict(item.options)
  if function in OPERATORS:
    return _pull_operator(function, above, args, out, number)
  if function in SLOPES:
    return times(above, SLOPES[function](out, args[0]))
  if is_pairwise(item):
    return times(above, slope_of_one(function, args, number))
  if function in ("softmax", "log_softmax"):
    return _pull_softmax(function, options, above, args[0], out, len(shapes[0]))
  if function in ("@", "outer"):
    return _pull_product(function, above, args[0], args[1], shapes, number)
  if function in ("sum", "mean"):
    axis = axis_of(options, len(shapes[0])) if "axis" in options else None
    count = math.prod(shapes[0]) if axis is None else shapes[0][axis]
    if axis and not options.get("keepdims") and len(own) == len(shape):
      above = _part(above, (*_ALL * axis, None))
    return above if function == "sum" else over(above, (Number(float(count)),))
  if function == "T":
    return _turned(above)
  if function == "flip":
    return (*above, Apply("flip", 1))
  if own != shape:
    return None
  if function == "conv":
    return _pull_conv(options.get("stride", 1), above, args, shapes, number)
  if function == "[]" and all(i is None or i == _ALL[0] for i in item.index):
    return _without_axes(above, [axis for axis, i in enumerate(item.index) if i is None])
  if function == "list":
    return _part(above, (number,))
  if function == "concat":
    axis = axis_of(options, len(shapes[0]))
    start = sum(shape[axis] for shape in shapes[:number])
    return _part(above, (*_ALL * axis, (start, start + shapes[number][axis])))
  if function == "pad":
    added = widths(shapes[0], options)
    starts = [(added.get(axis, 0), n) for axis, n in enumerate(shapes[0])]
    return _part(above, tuple((start, start + n) for start, n in starts))
  return None


def _without_axes(above: Expression, axes: list[int]) -> Expression:
  """Returns a cotangent without axes of length 1, which mostly are those of sums that kept them."""
  inner, kept = above, []
  while isinstance(inner[-1], Apply) and inner[-1].function == "sum":
    options = dict(inner[-1].options)
    if not options.get("keepdims") or options.get("axis") not in axes:
      break
    kept.append(options["axis"])
    inner = inner[:-1]
  if sorted(kept) != axes:
    every = range(max(axes, default=-1) + 1)
    return _part(above, [0 if axis in axes else _ALL[0] for axis in every])
  for axis in reversed(axes):
    inner = (*inner, Apply("sum", 1, (("axis", axis),)))
  return inner


def _pull_operator(
  function: str, above: Expression, args: list, out: Expression, number: int
) -> Expression:
  slopes: list[Expression] = [ONE if i == number else ZERO for i in range(len(args))]
  if function in ("+", "-", "negative") or (function == "/" and number == 0):
    slopes = [above if slope == ONE else ZERO for slope in slopes]
    return slope_of_operator(function, out, list(zip(args, slopes, strict=True)))
  return times(above, slope_of_operator(function, out, list(zip(args, slopes, strict=True))))


def _pull_product(
  function: str, above: Expression, u: Expression, v: Expression, shapes: list[Shape], number: int
) -> Expression:
  left, right = map(len, shapes)
  if function == "outer":
    return (*above, *v, Apply("@", 2)) if number == 0 else (*u, *above, Apply("@", 2))
  if left == right == 1:
    return times(above, v if number == 0 else u)
  if number == 0:
    if right == 1:
      return (*above, *v, Apply("outer", 2))
    return (*v, *above, Apply("@", 2)) if left == 1 else (*above, *_turned(v), Apply("@", 2))
  if left == 1:
    return (*u, *above, Apply("outer", 2))
  return (*_turned(u), *above, Apply("@", 2))


def _turned(matrix: Expression) -> Expression:
  """Returns the transpose: of A.T @ B, for example, B.T @ A."""
  if matrix[-1] == Apply("T", 1):
    return matrix[:-1]
  if matrix[-1] == Apply("@", 2):
    right = part(matrix, len(matrix) - 2)
    left = matrix[: -1 - len(right)]
    if Apply("T", 1) in (left[-1], right[-1]):
      return (*_turned(right), *_turned(left), Apply("@", 2))
  return (*matrix, Apply("T", 1))


def _pull_softmax(
  function: str,
  options: dict[str, int],
  above: Expression,
  u: Expression,
  out: Expression,
  rank: int,
) -> Expression:
  axis = axis_of(options, rank, -1)
  total = Apply("sum", 1, (("axis", axis), ("keepdims", 1)) if rank > 1 else ())
  if function == "softmax":
    inner = (*times(above, out), total)
    return times(out, plus(above, negate(inner)))
  softmax = (*u, Apply("softmax", 1, tuple(options.items())))
  return plus(above, negate(times(softmax, (*above, total))))


def _pull_conv(
  stride: int, above: Expression, args: list, shapes: list[Shape], number: int
) -> Expression:
  """Returns the cotangent of a picture or kernel; see the chapter on backpropagation."""
  picture, kernel = full_shapes(*shapes)
  rest = [(n - k) % stride for n, k in zip(picture[1:], kernel[2:], strict=True)]
  spread = (*above, Apply("dilate", 1, (("stride", stride),))) if stride > 1 else above
  if number == 1:
    image = args[0]
    if any(rest):  # the last rows or columns are in no window
      used = ((None, n - r if r else None) for n, r in zip(picture[1:], rest, strict=True))
      image = _part(image, (*_ALL * (len(shapes[0]) - 2), *used))
    if len(shapes[0]) == 2:
      return (*image, *spread, Apply("conv", 2))
    channels = range(picture[0])
    if len(shapes[1]) == 3:
      return _list([(*_part(image, (c,)), *spread, Apply("conv", 2)) for c in channels])
    return _list(
      [
        _list([(*_part(image, (c,)), *_part(spread, (f,)), Apply("conv", 2)) for c in channels])
        for f in range(kernel[0])
      ]
    )
  rows, columns = kernel[2] - 1, kernel[3] - 1
  padded = _padded(spread, rows, columns)
  turned = (*args[1], Apply("flip", 1)) if rows or columns else args[1]
  if len(shapes[1]) < 4:
    found: Expression = (*padded, *turned, Apply("conv", 2))
  else:
    kernels = [_part(turned, (*_ALL, c)) for c in range(picture[0])]
    found = _list([(*padded, *kernel, Apply("conv", 2)) for kernel in kernels])
  if any(rest):  # zeros on both sides, without those on the first
    below: Index = tuple((n or None, None) for n in rest)
    found = _part(_padded(found, *rest), (*_ALL * (len(shapes[0]) - 2), *below))
  return found


def _padded(picture: Expression, rows: int, columns: int) -> Expression:
  """Returns a picture with zeros around it."""
  added = (("width", rows),) if rows == columns else (("columns", columns), ("width", rows))
  return (*picture, Apply("pad", 1, added)) if rows or columns else picture
