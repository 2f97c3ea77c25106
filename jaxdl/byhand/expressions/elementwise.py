"""Elementwise functions: their values, and their slopes.

At kinks relu'(0) = abs'(0) = 0 and leaky_relu'(0) = 1. step(0) = 0, and the derivative of step is 0
everywhere.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.special

from jaxdl.byhand.expressions.operation import Operation, broadcast


def elementwise(
  value: Callable,
  *slopes: Callable,
  num_args: int | tuple[int, int] = 1,
  by_output: Callable | None = None,
) -> Operation:
  """Returns an elementwise operation.

  Args:
    value: of the arguments.
    slopes: for each argument, (result, *arguments) -> derivative.
    num_args: how many arguments it takes, or (fewest, most).
    by_output: f'(x) as a function of y = f(x).
  """
  fewest, most = (num_args, num_args) if isinstance(num_args, int) else num_args

  def pull(cotangent, args, out, num_points, options, place):
    del num_points, options
    return cotangent * slopes[place](out, *args)

  return Operation(
    fewest,
    most,
    lambda shapes, options: broadcast(shapes),
    lambda args, num_points, options: value(*args),
    pull,
    elementwise=True,
    slope_by_output=by_output,
  )


def _power_slope(out, x, y):
  del out
  return np.where(y == 0, 0.0, y * np.power(x, y - 1))


def _exponent_slope(out, x, y):
  del y
  return out * np.log(np.where(x == 0, 1.0, x))


def _gelu_slope(y, x):
  del y
  density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
  return scipy.special.ndtr(x) + x * density


def _leaky_relu(x, slope=0.01):
  return np.where(x >= 0, x, slope * x)


_sigmoid = scipy.special.expit
FUNCTIONS: dict[str, Operation] = {
  # For large x, 1 - sigmoid(x) and 1 - tanh(x)² lose all digits; these derivatives do not.
  "sigmoid": elementwise(
    _sigmoid, lambda y, x: _sigmoid(x) * _sigmoid(-x), by_output=lambda y: y * (1 - y)
  ),
  "tanh": elementwise(
    np.tanh, lambda y, x: 1 / np.cosh(x) / np.cosh(x), by_output=lambda y: 1 - y * y
  ),
  "relu": elementwise(lambda x: np.maximum(x, 0.0), lambda y, x: (x > 0) * 1.0),
  "leaky_relu": elementwise(
    _leaky_relu,
    lambda y, x, slope=0.01: np.where(x >= 0, 1.0, slope),
    lambda y, x, slope: np.where(x >= 0, 0.0, x),
    num_args=(1, 2),
  ),
  "gelu": elementwise(lambda x: x * scipy.special.ndtr(x), _gelu_slope),
  "erf": elementwise(scipy.special.erf, lambda y, x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
  "softplus": elementwise(lambda x: np.logaddexp(x, 0.0), lambda y, x: _sigmoid(x)),
  "step": elementwise(lambda x: (x > 0) * 1.0, lambda y, x: 0.0 * x),
  "exp": elementwise(np.exp, lambda y, x: y, by_output=lambda y: y),
  "log": elementwise(np.log, lambda y, x: 1 / x),
  "ln": elementwise(np.log, lambda y, x: 1 / x),
  "sin": elementwise(np.sin, lambda y, x: np.cos(x)),
  "cos": elementwise(np.cos, lambda y, x: -np.sin(x)),
  "sqrt": elementwise(np.sqrt, lambda y, x: 0.5 / y, by_output=lambda y: 0.5 / y),
  "abs": elementwise(np.abs, lambda y, x: np.sign(x)),
}
OPERATORS: dict[str, Operation] = {
  "+": elementwise(np.add, lambda y, u, v: 1.0, lambda y, u, v: 1.0, num_args=2),
  "-": elementwise(np.subtract, lambda y, u, v: 1.0, lambda y, u, v: -1.0, num_args=2),
  "*": elementwise(np.multiply, lambda y, u, v: v, lambda y, u, v: u, num_args=2),
  "/": elementwise(np.divide, lambda y, u, v: 1 / v, lambda y, u, v: -y / v, num_args=2),
  "**": elementwise(np.power, _power_slope, _exponent_slope, num_args=2),
  "negative": elementwise(np.negative, lambda y, u: -1.0),
}
