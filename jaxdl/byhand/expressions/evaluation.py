"""Evaluates formulas in NumPy, and differentiates them in reverse.

Evaluating an expression in postfix order needs no recursion, however long it is. Every number is a
float64: 9**9**9 is infinity, not a computation without end.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np

from jaxdl.byhand.expressions import operations
from jaxdl.byhand.expressions.operation import MAX_AXES, MAX_SIZE, points_of
from jaxdl.byhand.expressions.syntax import (
  Apply,
  Expression,
  Number,
  Quantity,
  Shape,
  arguments,
  part,
  spell,
  write,
)
from jaxdl.errors import InputError

Lookup = Callable[[Quantity], Any]


def options(item: Apply) -> Mapping[str, Any]:
  """Returns the options of a function as its operation takes them."""
  return {"index": item.index} if item.function == "[]" else dict(item.options)


def shapes(expression: Expression, shape_of: Callable[[Quantity], Shape]) -> list[Shape]:
  """Returns the shape after each item of an expression; the last is that of the whole.

  Raises:
    InputError: if shapes do not fit together, or an array becomes too large.
  """
  found: list[Shape] = []
  for place, (item, args) in enumerate(zip(expression, arguments(expression), strict=True)):
    if isinstance(item, Number):
      shape: Shape = ()
    elif isinstance(item, Apply):
      operation = operations.ALL[item.function]
      try:
        shape = operation.shape([found[i] for i in args], options(item))
        _check_size(shape)
      except InputError as error:
        inside = place < len(expression) - 1
        where = f"in {_shorten(write(part(expression, place)))}: " if inside else ""
        raise InputError(f"{where}{error}") from error
    else:
      shape = shape_of(item)
    found.append(shape)
  return found


def _check_size(shape: Shape):
  if len(shape) > MAX_AXES:
    raise InputError(f"an array has {len(shape)} axes, more than {MAX_AXES}")
  if math.prod(shape) > MAX_SIZE:
    raise InputError(f"an array of {math.prod(shape):,} numbers has more than {MAX_SIZE}")


def _shorten(text: str) -> str:
  return text if len(text) <= 80 else f"{text[:77]}..."


def steps(
  expression: Expression,
  lookup: Lookup,
  change: Callable[[int, Any], Any] = lambda _, value: value,
  num_points: int = 0,
) -> list[Any]:
  """Returns the value after each item of an expression; the last is that of the whole.

  Args:
    expression: from `parse`, with shapes that fit together.
    lookup: the value of each quantity in it, `[*shape, *points]`.
    change: (index of an item, its value) -> the value to go on with.
    num_points: how many axes of points every value has.
  """
  stack: list[Any] = []
  values = []
  for index, item in enumerate(expression):
    if isinstance(item, Number):
      value = np.full((1,) * num_points, item.value) if num_points else np.float64(item.value)
    elif isinstance(item, Apply):
      args = stack[len(stack) - item.num_args :]
      del stack[len(stack) - item.num_args :]
      value = operations.ALL[item.function].value(args, num_points, options(item))
    else:
      value = lookup(item)
    stack.append(change(index, value))
    values.append(stack[-1])
  return values


def evaluate(expression: Expression, lookup: Lookup, num_points: int = 0) -> Any:
  """Returns the value of an expression; see `steps`."""
  return steps(expression, lookup, num_points=num_points)[-1]


def pull_back(
  expression: Expression,
  values: Sequence[Any],
  cotangent: Any,
  wanted: Collection[Quantity],
  num_points: int = 0,
  by_output: bool = False,
) -> dict[Quantity, Any]:
  """Returns the cotangents of the quantities in an expression: reverse-mode differentiation.

  Args:
    expression: from `parse`.
    values: from `steps`.
    cotangent: of the value of the expression, in its shape.
    wanted: the quantities whose cotangents are returned, those in the expression.
    num_points: how many axes of points every value has.
    by_output: whether the slope of the last step is found from its result, `values[-1]`, as by
      hand, where that is possible: a (1 - a) for a = sigmoid(z).
  """
  args_of = arguments(expression)
  active: list[bool] = []
  for item, args in zip(expression, args_of, strict=True):
    active.append(any(active[i] for i in args) if isinstance(item, Apply) else item in wanted)
  cotangents: dict[int, Any] = {len(expression) - 1: cotangent}
  found: dict[Quantity, Any] = {}
  for place in range(len(expression) - 1, -1, -1):
    item = expression[place]
    if not active[place]:
      continue
    above = cotangents.pop(place)
    if not isinstance(item, Apply):
      quantity = cast(Quantity, item)
      found[quantity] = found[quantity] + above if quantity in found else above
      continue
    operation = operations.ALL[item.function]
    inputs = [values[i] for i in args_of[place]]
    by_result = operation.slope_by_output if by_output and place == len(expression) - 1 else None
    for number, inner in enumerate(args_of[place]):
      if not active[inner]:
        continue
      if by_result is not None:
        below = above * by_result(values[place])
      else:
        below = operation.pull(above, inputs, values[place], num_points, options(item), number)
      cotangents[inner] = unbroadcast(below, np.shape(inputs[number]), num_points)
  return found


def unbroadcast(cotangent: Any, shape: tuple[int, ...], num_points: int) -> Any:
  """Returns a cotangent summed over the axes along which its value was broadcast.

  Args:
    cotangent: `[*broadcast shape, *points]`.
    shape: of the value, with its points.
    num_points: how many axes of points both have.
  """
  num_axes = len(shape) - num_points
  extra = np.ndim(cotangent) - len(shape)
  if extra > 0:
    cotangent = np.sum(cotangent, axis=tuple(range(extra)))
  repeated = tuple(i for i in range(num_axes) if shape[i] == 1 != np.shape(cotangent)[i])
  if repeated:
    cotangent = np.sum(cotangent, axis=repeated, keepdims=True)
  # A factor without points, or an entry that is the same everywhere, broadcasts up.
  full = (*shape[:num_axes], *points_of(cotangent, num_points=num_points))
  return np.broadcast_to(cotangent, full) if np.shape(cotangent) != full else cotangent


def moves_elementwise(
  expression: Expression, found: Sequence[Shape], names: Collection[str]
) -> bool:
  """Returns whether each entry depends on entries of some names at the same place only.

  Args:
    expression: from `parse`.
    found: from `shapes`.
    names: of quantities.
  """
  depends: list[bool] = []
  for item, args, shape in zip(expression, arguments(expression), found, strict=True):
    if not isinstance(item, Apply):
      depends.append(not isinstance(item, Number) and spell(item) in names)
      if depends[-1] and shape != found[-1]:
        return False
      continue
    depends.append(any(depends[i] for i in args))
    is_pairwise = item.function in ("max", "min") and len(args) > 1
    elementwise = operations.ALL[item.function].elementwise or is_pairwise
    if depends[-1] and not (elementwise and shape == found[-1]):
      return False
  return True
