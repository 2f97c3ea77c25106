"""The functions of worksheets a second time: formulas are then read as Python, by NumPy or JAX."""

import math

import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import scipy.special


def functions(xp, special):
  """Returns the functions by name.

  Args:
    xp: `numpy` or `jax.numpy`.
    special: `scipy.special`, or that of JAX.
  """

  def windows(picture, size, stride):
    rows, columns = ((n - k) // stride + 1 for n, k in zip(picture.shape, size, strict=True))
    return [
      [
        picture[i * stride : i * stride + size[0], j * stride : j * stride + size[1]]
        for j in range(columns)
      ]
      for i in range(rows)
    ]

  def over_windows(function, picture, size, stride):
    grid = windows(picture, size, stride)
    return xp.stack([xp.stack([function(part) for part in row]) for row in grid])

  def pool(reduce):
    return lambda x, size=2, stride=None: over_windows(reduce, x, (size, size), stride or size)

  def extreme(reduce, pairwise):
    def function(*args, axis=None, keepdims=False):
      if len(args) == 1:
        return reduce(args[0], axis=axis, keepdims=keepdims)
      value = args[0]
      for other in args[1:]:
        value = pairwise(value, other)
      return value

    return function

  def softmax(x, axis=-1):
    powers = xp.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)

  names = ("tanh", "exp", "log", "sin", "cos", "sqrt", "abs", "sum", "mean", "outer", "flip")
  return {
    **{name: getattr(xp, name) for name in names},
    "array": xp.array,
    "ln": xp.log,
    "sigmoid": lambda x: 1 / (1 + xp.exp(-x)),
    "relu": lambda x: xp.where(x > 0, x, 0.0),
    "leaky_relu": lambda x, slope=0.01: xp.where(x >= 0, x, slope * x),
    "gelu": lambda x: x * (1 + special.erf(x / math.sqrt(2))) / 2,
    "softplus": lambda x: xp.logaddexp(x, 0.0),
    "step": lambda x: (x > 0) * 1.0,
    "softmax": softmax,
    "log_softmax": lambda x, axis=-1: x - xp.log(xp.exp(x).sum(axis=axis, keepdims=True)),
    "max": extreme(xp.max, xp.maximum),
    "min": extreme(xp.min, xp.minimum),
    "concat": lambda *args, axis=0: xp.concatenate(args, axis),
    "flatten": xp.ravel,
    "pad": lambda x, width=1: xp.pad(x, width),
    "conv": lambda x, k, stride=1: over_windows(lambda w: xp.sum(w * k), x, k.shape, stride),
    "max_pool": pool(xp.max),
    "mean_pool": pool(xp.mean),
  }


NUMPY = functions(np, scipy.special)
JAX = functions(jnp, jax.scipy.special)
