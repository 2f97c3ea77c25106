"""Derivatives of scalars as formulas, as one writes them by hand. Arrays are in `backward.py`."""

import functools
import math
from collections.abc import Callable

from jaxdl.byhand.expressions.syntax import Apply, Expression, Name, Number, part

OPERATORS = ("+", "-", "*", "/", "**", "negative")
ZERO, ONE = (Number(0.0),), (Number(1.0),)
_NEGATIVE = Apply("negative", 1)
_SQUARED = (Number(2.0), Apply("**", 2))


def differentiate(expression: Expression, name: str) -> Expression | None:
  """Returns the derivative with respect to a name as a formula.

  None if a function in it is over arrays, or is the maximum or minimum of more than two arguments.
  Of two, the formula holds where they are not equal.
  """
  stack: list[tuple[Expression, Expression]] = []  # (part, its derivative)
  for item in expression:
    if not isinstance(item, Apply):
      stack.append(((item,), ONE if item == Name(name) else ZERO))
      continue
    args = stack[-item.num_args :]
    del stack[-item.num_args :]
    out = (*(i for arg, _ in args for i in arg), item)
    if all(slope == ZERO for _, slope in args):
      stack.append((out, ZERO))
    elif item.function in OPERATORS:
      stack.append((out, slope_of_operator(item.function, out, args)))
    elif item.function in SLOPES:
      ((inner, slope),) = args
      stack.append((out, times(SLOPES[item.function](out, inner), slope)))
    elif is_pairwise(item):
      inputs = [arg for arg, _ in args]
      slopes = (times(slope_of_one(item.function, inputs, i), s) for i, (_, s) in enumerate(args))
      stack.append((out, functools.reduce(plus, slopes)))
    else:
      return None
  return stack[-1][1]


def is_pairwise(item: Apply) -> bool:
  """Returns whether a function has a slope for each of its arguments; see `slope_of_one`."""
  return item.function == "leaky_relu" or (item.function in ("max", "min") and item.num_args == 2)


def slope_of_one(function: str, args: list[Expression], number: int) -> Expression:
  """Returns the derivative of a function that `is_pairwise` with respect to one argument."""
  if function == "leaky_relu":
    is_negative = (*negate(args[0]), Apply("step", 1))
    if number == 1:
      return times(args[0], is_negative)
    slope = args[1] if len(args) > 1 else (Number(0.01),)
    return plus(ONE, negate(times(_minus(ONE, slope), is_negative)))
  own, other = args[number], args[1 - number]
  difference = _minus(own, other) if function == "max" else _minus(other, own)
  return (*difference, Apply("step", 1))


def slope_of_operator(function: str, out: Expression, args: list) -> Expression:
  """Returns the derivative of an operator's result `out` from (argument, its derivative) each."""
  if function == "negative":
    return negate(args[0][1])
  (u, du), (v, dv) = args
  if function == "+":
    return plus(du, dv)
  if function == "-":
    return plus(du, negate(dv))
  if function == "*":
    return plus(times(du, v), times(u, dv))
  if function == "/":
    return plus(over(du, v), negate(over(out, v) if dv == ONE else times(out, over(dv, v))))
  if dv == ZERO:  # u**v
    less = (Number(v[0].value - 1),) if len(v) == 1 and isinstance(v[0], Number) else None
    less = less or (*v, *ONE, Apply("-", 2))
    power = u if less == ONE else (*u, *less, Apply("**", 2))
    return times(times(v, power), du)
  log_u = (*u, Apply("log", 1))
  return times(out, plus(times(dv, log_u), over(times(v, du), u)))


_TWO, _PI, _ROOT = (Number(2.0),), (Number(math.pi),), Apply("sqrt", 1)
_TWO_PI = (*_TWO, *_PI, Apply("*", 2))


def _bell(u: Expression, scale: Expression) -> Expression:
  """Returns exp(-u**2 / scale)."""
  return (*negate(over((*u, *_SQUARED), scale)), Apply("exp", 1))


def _normal(u: Expression) -> Expression:
  """Returns (1 + erf(u / sqrt(2))) / 2, the distribution function of the normal distribution."""
  return over(plus(ONE, (*over(u, (*_TWO, _ROOT)), Apply("erf", 1))), _TWO)


# Name -> (f(u), u) -> f'(u).
SLOPES: dict[str, Callable[[Expression, Expression], Expression]] = {
  "sigmoid": lambda y, u: times(y, plus(ONE, negate(y))),
  "tanh": lambda y, u: plus(ONE, negate((*y, *_SQUARED))),
  "relu": lambda y, u: (*u, Apply("step", 1)),
  "softplus": lambda y, u: (*u, Apply("sigmoid", 1)),
  "step": lambda y, u: ZERO,
  "exp": lambda y, u: y,
  "log": lambda y, u: over(ONE, u),
  "ln": lambda y, u: over(ONE, u),
  "sin": lambda y, u: (*u, Apply("cos", 1)),
  "cos": lambda y, u: negate((*u, Apply("sin", 1))),
  "abs": lambda y, u: (*u, Apply("step", 1), *negate(u), Apply("step", 1), Apply("-", 2)),
  "erf": lambda y, u: times(over((Number(2.0),), (*_PI, _ROOT)), _bell(u, ONE)),
  "gelu": lambda y, u: plus(_normal(u), times(u, over(_bell(u, _TWO), (*_TWO_PI, _ROOT)))),
  "sqrt": lambda y, u: over(ONE, times((Number(2.0),), y)),
}


# --- Sums and products, without what need not be written ---


def plus(u: Expression, v: Expression) -> Expression:
  """Returns u + v."""
  if u == ZERO or v == ZERO:
    return v if u == ZERO else u
  if v[-1] == _NEGATIVE:
    return (*u, *v[:-1], Apply("-", 2))
  return (*u, *v, Apply("+", 2))


def _minus(u: Expression, v: Expression) -> Expression:
  return plus(u, negate(v))


def negate(u: Expression) -> Expression:
  """Returns -u."""
  if u == ZERO:
    return u
  return u[:-1] if u[-1] == _NEGATIVE else (*u, _NEGATIVE)


def times(u: Expression, v: Expression) -> Expression:
  """Returns u * v."""
  if ZERO in (u, v):
    return ZERO
  if u == ONE or v == ONE:
    return v if u == ONE else u
  if u[-1] == _NEGATIVE:
    return negate(times(u[:-1], v))
  if v[-1] == _NEGATIVE:
    return negate(times(u, v[:-1]))
  if v[0] == ONE[0] and v[-1] == Apply("/", 2) and len(part(v, len(v) - 2)) == len(v) - 2:
    return over(u, v[1:-1])  # v is 1 / x
  (a, x), (b, y) = _split(u), _split(v)
  merged = _with_factor(a * b, x if y == ONE else y if x == ONE else (*x, *y, Apply("*", 2)))
  return (a != 1 and b != 1 and merged) or (*u, *v, Apply("*", 2))


def over(u: Expression, v: Expression) -> Expression:
  """Returns u / v."""
  if u == ZERO or v == ONE:
    return u
  if u[-1] == _NEGATIVE:
    return negate(over(u[:-1], v))
  (a, x), divisor = _split(u), _value(v)
  merged = _with_factor(a / divisor, x) if divisor and a != 1 and x != ONE else None
  return merged or (*u, *v, Apply("/", 2))


def _value(u: Expression) -> float | None:
  """Returns the value of a number, or of a quotient of two, such as 1 / 2; else None."""
  values = [item.value for item in u if isinstance(item, Number)]
  if len(u) == 1 and values:
    return values[0]
  is_quotient = len(values) == 2 and u[2:] == (Apply("/", 2),)
  return values[0] / values[1] if is_quotient and values[1] else None


def _split(u: Expression) -> tuple[float, Expression]:
  """Returns a number and the rest of a product: 2 and x of 2 * x, 1 / 2 and x of x / 2."""
  value = _value(u)
  if value is not None:
    return value, ONE
  if u[-1] in (Apply("*", 2), Apply("/", 2)):
    right = part(u, len(u) - 2)
    left = u[: -1 - len(right)]
    if u[-1] == Apply("/", 2) and (divisor := _value(right)):
      return 1 / divisor, left
    if u[-1] == Apply("*", 2) and (factor := _value(left)):
      return factor, right
  return 1.0, u


def _with_factor(factor: float, u: Expression) -> Expression | None:
  """Returns factor * u if that is u, or u times or over a small number; else None."""
  if abs(factor - 1) < 1e-12:
    return u
  for number, operator in ((factor, "*"), (factor and 1 / factor, "/")):
    if 2 <= number <= 100 and abs(number - round(number)) < 1e-9:
      whole = (Number(float(round(number))),)
      return (*whole, *u, Apply("*", 2)) if operator == "*" else (*u, *whole, Apply("/", 2))
  return None
