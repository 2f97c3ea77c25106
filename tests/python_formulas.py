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
    """Pictures are `[H, W]` or `[C, H, W]`."""
    sizes = zip(picture.shape[-2:], size, strict=True)
    rows, columns = ((n - k) // stride + 1 for n, k in sizes)
    return [
      [
        picture[..., i * stride : i * stride + size[0], j * stride : j * stride + size[1]]
        for j in range(columns)
      ]
      for i in range(rows)
    ]

  def over_windows(function, picture, size, stride):
    grid = windows(picture, size, stride)
    return xp.stack([xp.stack([function(part) for part in row], axis=-1) for row in grid], axis=-2)

  def conv(x, kernel, stride=1):
    if kernel.ndim > x.ndim:
      return xp.stack([conv(x, one, stride) for one in kernel])
    return over_windows(lambda part: xp.sum(part * kernel), x, kernel.shape[-2:], stride)

  def pad(x, width=1, columns=None):
    columns = width if columns is None else columns
    around = [(0, 0)] * (x.ndim - 2) + [(width, width), (columns, columns)]
    return xp.pad(x, around[-x.ndim :])

  def dilate(x, stride=2):
    result = np.zeros((*x.shape[:-2], *((n - 1) * stride + 1 for n in x.shape[-2:])))
    if xp is np:
      result[..., ::stride, ::stride] = x
      return result
    return xp.asarray(result).at[..., ::stride, ::stride].set(x)

  def pool(reduce):
    def over_last_two(part):
      return reduce(part, axis=(-2, -1))

    return lambda x, size=2, stride=None: over_windows(
      over_last_two, x, (size, size), stride or size
    )

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

  names = ("tanh", "exp", "log", "sin", "cos", "sqrt", "abs", "sum", "mean", "outer")
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
    "pad": pad,
    "flip": lambda x: x[..., ::-1, ::-1] if x.ndim > 1 else x[::-1],
    "dilate": dilate,
    "conv": conv,
    "erf": special.erf,
    "max_pool": pool(xp.max),
    "mean_pool": pool(xp.mean),
  }


NUMPY = functions(np, scipy.special)
JAX = functions(jnp, jax.scipy.special)
