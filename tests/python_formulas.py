"""The functions of worksheets a second time, for JAX: formulas are then read as Python."""

import math

import jax
import jax.numpy as jnp
import jax.scipy.special


def _conv(picture, kernel, stride=1):
  out = jax.lax.conv_general_dilated(
    picture[None, None], kernel[None, None], (stride, stride), "VALID"
  )
  return out[0, 0]


def _pool(reduce):
  def pool(picture, size=2, stride=None):
    stride = stride or size
    rows, columns = ((n - size) // stride + 1 for n in picture.shape)
    windows = [
      [
        reduce(picture[i * stride : i * stride + size, j * stride : j * stride + size])
        for j in range(columns)
      ]
      for i in range(rows)
    ]
    return jnp.array(windows)

  return pool


def _extreme(reduce, pairwise):
  def extreme(*args, axis=None, keepdims=False):
    if len(args) == 1:
      return reduce(args[0], axis=axis, keepdims=keepdims)
    value = args[0]
    for other in args[1:]:
      value = pairwise(value, other)
    return value

  return extreme


PYTHON = {
  **{name: getattr(jnp, name) for name in ("tanh", "exp", "log", "sin", "cos", "sqrt", "abs")},
  **{name: getattr(jnp, name) for name in ("sum", "mean", "outer", "flip")},
  **{name: getattr(jax.nn, name) for name in ("sigmoid", "relu", "softplus", "softmax")},
  "log_softmax": jax.nn.log_softmax,
  "leaky_relu": lambda x, slope=0.01: jnp.where(x >= 0, x, slope * x),
  "gelu": lambda x: x * (1 + jax.scipy.special.erf(x / math.sqrt(2))) / 2,
  "step": lambda x: (x > 0) * 1.0,
  "ln": jnp.log,
  "max": _extreme(jnp.max, jnp.maximum),
  "min": _extreme(jnp.min, jnp.minimum),
  "concat": lambda *args, axis=0: jnp.concatenate(args, axis),
  "flatten": jnp.ravel,
  "pad": lambda x, width=1: jnp.pad(x, width),
  "conv": _conv,
  "max_pool": _pool(jnp.max),
  "mean_pool": _pool(jnp.mean),
  "array": jnp.array,
}
