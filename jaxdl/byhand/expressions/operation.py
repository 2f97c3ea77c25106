"""What a function or operator of formulas is: shape, value, and the rule for the backward pass.

An array of shape `[*shape]` that is computed at several points at once is `[*shape, *points]`: the
points come last. Every value of one computation has the same number of axes for points, so NumPy's
broadcasting, which aligns the last axes, holds for shapes and points alike.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl.byhand.expressions.syntax import Shape
from jaxdl.errors import InputError

MAX_AXES = 4
MAX_SIZE = 400  # numbers in an array

Options = Mapping[str, Any]


class Operation(NamedTuple):
  """A function or an operator.

  Attributes:
    fewest: arguments that it takes at least.
    most: arguments that it takes at most.
    shape: (shapes of the arguments, options) -> shape of the result; raises InputError.
    value: (arguments, number of axes for points, options) -> result.
    pull: (cotangent of the result, arguments, result, number of axes for points, options, place of
      an argument) -> its cotangent, whose shape may still be that of the result if the operation is
      elementwise.
    options: the names of the integers that it takes, in order.
    elementwise: whether an entry of the result depends on entries at the same place only.
    slope_by_output: f'(x) as a function of y = f(x), which is what one uses by hand, or None.
  """

  fewest: int
  most: int
  shape: Callable[[Sequence[Shape], Options], Shape]
  value: Callable[[Sequence[Any], int, Options], Any]
  pull: Callable[..., Any]
  options: tuple[str, ...] = ()
  elementwise: bool = False
  slope_by_output: Callable[[Any], Any] | None = None


def broadcast(shapes: Sequence[Shape]) -> Shape:
  """Returns the shape of an elementwise operation.

  Raises:
    InputError: if the shapes do not fit.
  """
  try:
    return np.broadcast_shapes(*shapes)
  except ValueError as error:
    text = " and ".join(map(write_shape, shapes[:4]))
    raise InputError(f"the shapes {text} do not fit together") from error


def write_shape(shape: Shape) -> str:
  """Returns a shape as it is written in Python; that of a scalar is ()."""
  return str(tuple(shape))


def shape_of(value: Any, num_points: int) -> Shape:
  """Returns the shape of a value without its points."""
  shape = np.shape(value)
  return shape[: len(shape) - num_points]


def points_of(*args: Any, num_points: int) -> tuple[int, ...]:
  """Returns the axes for points of several values together."""
  return np.broadcast_shapes(*(np.shape(arg)[np.ndim(arg) - num_points :] for arg in args))
