"""Linen layers that stay fast inside a loop and under `vmap`.

The gradient of `lax.conv` is slow inside `lax.scan` on CPU, and `vmap` over kernels turns it into a
grouped convolution, which is slow everywhere. Computed from shifted slices and one matrix product,
a convolution is fast in both cases and gives the same numbers up to rounding. Pooling with
`reduce_window` has a slow gradient; the maximum of four strided slices has a fast one. Without
gradients and without `vmap`, XLA's own convolution and pooling are faster.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.cpu.matmul import matmul


def patches(images: jax.Array, size: int) -> jax.Array:
  """Returns every `size` x `size` window of the images, flattened (im2col).

  Args:
    images: `[B, H, W, D]`.
    size: side of a window, in pixels.

  Returns:
    `[B, H - size + 1, W - size + 1, size * size * D]`. The last axis is ordered by row, column and
    channel, like a kernel `[size, size, D, F]` that is flattened to `[size * size * D, F]`.
  """
  height, width = images.shape[1] - size + 1, images.shape[2] - size + 1
  shifted = [images[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
  return jnp.concatenate(shifted, axis=-1)


def max_pool_2x2(x: jax.Array, native: bool = False) -> jax.Array:
  """Returns the maximum over 2 x 2 windows with stride 2.

  An odd last row or column is dropped, as in Keras.

  Args:
    x: `[B, H, W, D]`.
    native: use `lax.reduce_window`, which is faster without gradients and without `vmap`.

  Returns:
    `[B, H // 2, W // 2, D]`.
  """
  if native:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
  height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
  rows = jnp.maximum(x[:, 0:height:2], x[:, 1:height:2])
  return jnp.maximum(rows[:, :, 0:width:2], rows[:, :, 1:width:2])


@contextlib.contextmanager
def adding_to_outputs(added: Mapping[str, jax.Array]) -> Iterator[dict[str, jax.Array]]:
  """Makes dense layers add arrays to their outputs while a model is applied in this context.

  The derivative with respect to an added array, e.g. of zeros, is the derivative with respect to
  the layer's outputs.

  Args:
    added: path of an `nn.Dense` (names joined by "/") -> array `[B, F]` to add. Other layers are
      unchanged.

  Yields:
    path -> inputs `[B, D]` of the layer; filled when the model is applied.
  """
  inputs = {}

  def add(call, args, kwargs, context):
    outputs = call(*args, **kwargs)
    is_dense = isinstance(context.module, nn.Dense) and context.method_name == "__call__"
    name = "/".join(context.module.path)
    if not is_dense or name not in added:
      return outputs
    inputs[name] = args[0]
    return outputs + added[name]

  with nn.intercept_methods(add):
    yield inputs


class Conv(nn.Module):
  """Convolution without padding, stride 1, optionally followed by 2 x 2 max pooling.

  Pooling is part of the layer, so that outputs that it would drop are never computed. With XLA's
  own convolution (`native`) they are computed, because cropping its input takes longer.
  """

  features: int
  kernel_init: Callable
  bias_init: Callable
  size: int = 3
  pool: bool = False
  native: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[B, H, W, D]` to `[B, H - size + 1, W - size + 1, F]`, or half that when pooling."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape)
    bias = self.param("bias", self.bias_init, (self.features,))
    if self.native:
      numbers = ("NHWC", "HWIO", "NHWC")
      x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)
    else:
      if self.pool:
        even = [(n - self.size + 1) // 2 * 2 + self.size - 1 for n in x.shape[1:3]]
        x = x[:, : even[0], : even[1]]
      x = patches(x, self.size)
      # Multiply matrices: in the gradient of a product with more axes, XLA copies one of the
      # factors and multiplies more slowly. Measured on CPU, training is 1.1 times as fast this way.
      products = matmul(x.reshape(-1, x.shape[-1]), kernel.reshape(-1, self.features))
      x = products.reshape(*x.shape[:-1], self.features)
    x = x + bias.reshape(1, 1, 1, -1)
    return max_pool_2x2(x, self.native) if self.pool else x


def dot_general(inputs: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
  """Returns the product of `nn.Dense`; matrices are multiplied by `matmul`.

  Flax passes dimension numbers and a precision as well; both are always its defaults here.
  """
  if inputs.ndim != 2:
    return jnp.tensordot(inputs, kernel, 1)
  return matmul(inputs, kernel)


class Dropout(nn.Module):
  """Inverted dropout (Srivastava et al. 2014) with one key per example.

  An example's mask depends on its own key and not on the shape of the batch, so it is the same
  however the batch is cut into slices.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """Maps `x [B, ...]` to the same shape.

    Args:
      x: activations.
      keys: `[B]` keys, one per example; None when evaluating, which returns `x` unchanged.
    """
    if keys is None or self.rate == 0:
      return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - self.rate), 0)
