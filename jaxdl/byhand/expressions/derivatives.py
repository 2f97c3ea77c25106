"""Derivatives as formulas, as one writes them by hand: of scalars forward, of arrays backward."""

import math
from collections.abc import Callable

from jaxdl.byhand.expressions import evaluation
from jaxdl.byhand.expressions.syntax import (
  Apply,
  Expression,
  Name,
  Number,
  Quantity,
  Shape,
  arguments,
)
from jaxdl.errors import InputError

_OPERATORS = ("+", "-", "*", "/", "**", "negative")
_ZERO, _ONE = (Number(0.0),), (Number(1.0),)
_NEGATIVE = Apply("negative", 1)
_SQUARED = (Number(2.0), Apply("**", 2))


def differentiate(expression: Expression, name: str) -> Expression | None:
  """Returns the derivative with respect to a name as a formula.

  None if a function in it has none that can be written with those there are (gelu), or is not
  differentiable everywhere in a way that a formula could say (abs, max, min, leaky_relu).
  """
  stack: list[tuple[Expression, Expression]] = []  # (part, its derivative)
  for item in expression:
    if not isinstance(item, Apply):
      stack.append(((item,), _ONE if item == Name(name) else _ZERO))
      continue
    args = stack[-item.num_args :]
    del stack[-item.num_args :]
    part = (*(i for arg, _ in args for i in arg), item)
    if all(slope == _ZERO for _, slope in args):
      stack.append((part, _ZERO))
    elif item.function in _OPERATORS:
      stack.append((part, _slope_of_operator(item.function, part, args)))
    elif item.function in _SLOPES:
      ((inner, slope),) = args
      stack.append((part, _times(_SLOPES[item.function](part, inner), slope)))
    else:
      return None
  return stack[-1][1]


def _slope_of_operator(function: str, part: Expression, args: list) -> Expression:
  if function == "negative":
    return _negate(args[0][1])
  (u, du), (v, dv) = args
  if function == "+":
    return _plus(du, dv)
  if function == "-":
    return _plus(du, _negate(dv))
  if function == "*":
    return _plus(_times(du, v), _times(u, dv))
  if function == "/":
    return _plus(_over(du, v), _negate(_over(_times(u, dv), (*v, *_SQUARED))))
  if dv == _ZERO:  # u**v
    less = (Number(v[0].value - 1),) if len(v) == 1 and isinstance(v[0], Number) else None
    less = less or (*v, *_ONE, Apply("-", 2))
    power = u if less == _ONE else (*u, *less, Apply("**", 2))
    return _times(_times(v, power), du)
  log_u = (*u, Apply("log", 1))
  return _times(part, _plus(_times(dv, log_u), _over(_times(v, du), u)))


# Name -> (f(u), u) -> f'(u).
_SLOPES: dict[str, Callable[[Expression, Expression], Expression]] = {
  "sigmoid": lambda y, u: _times(y, _plus(_ONE, _negate(y))),
  "tanh": lambda y, u: _plus(_ONE, _negate((*y, *_SQUARED))),
  "relu": lambda y, u: (*u, Apply("step", 1)),
  "softplus": lambda y, u: (*u, Apply("sigmoid", 1)),
  "step": lambda y, u: _ZERO,
  "exp": lambda y, u: y,
  "log": lambda y, u: _over(_ONE, u),
  "ln": lambda y, u: _over(_ONE, u),
  "sin": lambda y, u: (*u, Apply("cos", 1)),
  "cos": lambda y, u: _negate((*u, Apply("sin", 1))),
  "sqrt": lambda y, u: _over(_ONE, _times((Number(2.0),), y)),
}


def _plus(u: Expression, v: Expression) -> Expression:
  if u == _ZERO or v == _ZERO:
    return v if u == _ZERO else u
  if v[-1] == _NEGATIVE:
    return (*u, *v[:-1], Apply("-", 2))
  return (*u, *v, Apply("+", 2))


def _negate(u: Expression) -> Expression:
  if u == _ZERO:
    return u
  return u[:-1] if u[-1] == _NEGATIVE else (*u, _NEGATIVE)


def _times(u: Expression, v: Expression) -> Expression:
  if _ZERO in (u, v):
    return _ZERO
  if u == _ONE or v == _ONE:
    return v if u == _ONE else u
  if u[-1] == _NEGATIVE:
    return _negate(_times(u[:-1], v))
  if v[-1] == _NEGATIVE:
    return _negate(_times(u, v[:-1]))
  return (*u, *v, Apply("*", 2))


def _over(u: Expression, v: Expression) -> Expression:
  if u == _ZERO:
    return u
  if u[-1] == _NEGATIVE:
    return _negate(_over(u[:-1], v))
  return (*u, *v, Apply("/", 2))


# --- Arrays, backward ---

# A cotangent as a formula, and the shape of what it is the cotangent of. The formula's own shape
# may be smaller: the cotangent of every entry of x in sum(x) is the same number.
_Cotangent = tuple[Expression, Shape]


def pull_back_formula(
  expression: Expression,
  name: str,
  cotangent: Expression,
  shape_of: Callable[[Quantity], Shape],
) -> Expression | None:
  """Returns the cotangent of a name in an expression as a formula.

  None if it cannot be written with the functions that there are.

  Args:
    expression: whose shapes fit.
    name: in the expression.
    cotangent: of the value of the expression.
    shape_of: the shape of each quantity in the expression and the cotangent.
  """
  shapes = evaluation.shapes(expression, shape_of)
  args_of = arguments(expression)
  active: list[bool] = []
  for item, args in zip(expression, args_of, strict=True):
    active.append(any(active[i] for i in args) if isinstance(item, Apply) else item == Name(name))
  cotangents = {len(expression) - 1: cotangent}
  total: Expression = _ZERO
  for place in range(len(expression) - 1, -1, -1):
    if not active[place]:
      continue
    item, above = expression[place], cotangents[place]
    if not isinstance(item, Apply):
      total = _plus(total, above)
      continue
    parts = [evaluation.part(expression, i) for i in args_of[place]]
    for number, inner in enumerate(args_of[place]):
      if active[inner]:
        out = evaluation.part(expression, place)
        found = [shapes[i] for i in args_of[place]]
        below = _pull(item, above, parts, out, found, number)
        if below is not None:
          below = _summed(below, shapes[place], shapes[inner], item, shape_of)
        if below is None:
          return None
        cotangents[inner] = below
  return total


def _pull(
  item: Apply, above: Expression, args: list, out: Expression, shapes: list[Shape], number: int
) -> Expression | None:
  """Returns the cotangent of an argument, before it is summed over the axes of broadcasting."""
  function, options = item.function, dict(item.options)
  u, v = args[0], args[-1]
  if function in ("@", "outer", "conv"):
    return _pull_product(function, options, above, u, v, shapes, number)
  if function in ("sum", "mean"):
    axis = options.get("axis")
    if axis is not None and axis > 0 and not options.get("keepdims"):
      return None
    count = math.prod(shapes[0]) if axis is None else shapes[0][axis]
    return above if function == "sum" else _over(above, (Number(float(count)),))
  if function in ("softmax", "log_softmax"):
    return _pull_softmax(function, options, above, u, out, len(shapes[0]))
  if function == "T":
    return _turned(above)
  if function == "flip":
    return (*above, Apply("flip", 1))
  if function in _OPERATORS:
    slopes = [_ONE if i == number else _ZERO for i in range(len(args))]
    if function in ("+", "-", "negative") or (function == "/" and number == 0):
      return _slope_of_operator(
        function,
        out,
        [(arg, above if slope == _ONE else _ZERO) for arg, slope in zip(args, slopes, strict=True)],
      )
    slope = _slope_of_operator(function, out, list(zip(args, slopes, strict=True)))
    return _times(above, slope)
  if function in _SLOPES:
    return _times(above, _SLOPES[function](out, u))
  return None


def _pull_product(
  function: str,
  options: dict[str, int],
  above: Expression,
  u: Expression,
  v: Expression,
  shapes: list[Shape],
  number: int,
) -> Expression | None:
  left, right = map(len, shapes)
  if function == "outer":
    return (*above, *v, Apply("@", 2)) if number == 0 else (*u, *above, Apply("@", 2))
  if function == "conv":
    rows, columns = shapes[1]
    if options.get("stride", 1) != 1:
      return None
    if number == 1:
      return (*u, *above, Apply("conv", 2))
    if rows != columns:
      return None
    padded = (*above, Apply("pad", 1, (("width", rows - 1),))) if rows > 1 else above
    return (*padded, *v, Apply("flip", 1), Apply("conv", 2))
  if left == right == 1:
    return _times(above, v if number == 0 else u)
  if number == 0:
    if right == 1:
      return (*above, *v, Apply("outer", 2))
    return (*v, *above, Apply("@", 2)) if left == 1 else (*above, *_turned(v), Apply("@", 2))
  if left == 1:
    return (*u, *above, Apply("outer", 2))
  return (*_turned(u), *above, Apply("@", 2))


def _turned(matrix: Expression) -> Expression:
  return matrix[:-1] if matrix[-1] == Apply("T", 1) else (*matrix, Apply("T", 1))


def _pull_softmax(
  function: str,
  options: dict[str, int],
  above: Expression,
  u: Expression,
  out: Expression,
  rank: int,
) -> Expression:
  axis = options.get("axis", rank - 1)
  total = Apply("sum", 1, (("axis", axis), ("keepdims", 1)) if rank > 1 else ())
  if function == "softmax":
    inner = (*_times(above, out), total)
    return _times(out, _plus(above, _negate(inner)))
  softmax = (*u, Apply("softmax", 1, tuple(options.items())))
  return _plus(above, _negate(_times(softmax, (*above, total))))


def _summed(
  cotangent: Expression, shape: Shape, wanted: Shape, item: Apply, shape_of: Callable
) -> Expression | None:
  """Returns a cotangent summed over the axes along which the argument was broadcast."""
  if item.function not in _OPERATORS or shape == wanted:
    return cotangent
  try:
    own = evaluation.shapes(cotangent, shape_of)[-1]
  except InputError:
    return None
  if own == wanted:
    return cotangent
  if own != shape:
    return None
  if wanted == ():
    return (*cotangent, Apply("sum", 1))
  for _ in range(len(shape) - len(wanted)):
    cotangent = (*cotangent, Apply("sum", 1, (("axis", 0),)))
  for axis, size in enumerate(wanted):
    if size == 1 != shape[len(shape) - len(wanted) + axis]:
      cotangent = (*cotangent, Apply("sum", 1, (("axis", axis), ("keepdims", 1))))
  return cotangent
