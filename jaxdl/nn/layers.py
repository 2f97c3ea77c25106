"""Linen layers that stay fast inside a loop and under `vmap`.

The gradient of `lax.conv` is slow inside `lax.scan` on CPU, and `vmap` over kernels turns it into a
grouped convolution, which is slow everywhere. Computed from shifted slices and one matrix product,
a convolution is fast in both cases and gives the same numbers up to rounding. Pooling with
`reduce_window` has a slow gradient; the maximum of four strided slices has a fast one. Without
gradients and without `vmap`, XLA's own convolution and pooling are faster.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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


@contextlib.contextmanager
def convolving_as_products() -> Iterator[None]:
  """Makes `nn.Conv` multiply shifted slices of its input when a module is applied in this context.

  The parameters are the same, and the outputs up to rounding. It applies to two spatial dimensions
  without groups, input dilation or masks; other convolutions are XLA's. Measured on two CPU cores,
  inside `lax.scan`, with a small ResNet on 64 images of 32 x 32: a step takes 0.4 s in the place of
  9 s.
  """

  def convolve(call, args, kwargs, context):
    module = context.module
    is_conv = type(module) is nn.Conv and context.method_name == "__call__"
    if not is_conv or len(args) != 1 or kwargs or not _is_plain(module, args[0]):
      return call(*args, **kwargs)
    kernel = module.get_variable("params", "kernel")
    if kernel is None:  # at initialisation
      return call(*args, **kwargs)
    bias = module.get_variable("params", "bias") if module.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(args[0], kernel, bias, dtype=module.dtype)
    x = _convolve(
      x, kernel, _pairs(module.strides), _padding(module), _pairs(module.kernel_dilation)
    )
    return x if bias is None else x + bias.reshape(1, 1, 1, -1)

  with nn.intercept_methods(convolve):
    yield


def _is_plain(conv: nn.Conv, x: jax.Array) -> bool:
  return (
    x.ndim == 4
    and isinstance(conv.kernel_size, Sequence)
    and len(conv.kernel_size) == 2
    and conv.feature_group_count == 1
    and _pairs(conv.input_dilation) == (1, 1)
    and conv.mask is None
    and not (isinstance(conv.padding, str) and conv.padding not in ("SAME", "VALID"))
  )


def _pairs(value: int | Sequence[int] | None) -> tuple[int, int]:
  first, second = (value or 1,) * 2 if isinstance(value, int | None) else value
  return first, second


def _padding(conv: nn.Conv) -> str | tuple[tuple[int, int], ...]:
  if isinstance(conv.padding, str):
    return conv.padding
  sides = (conv.padding,) * 2 if isinstance(conv.padding, int) else conv.padding
  return tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)


def _convolve(
  x: jax.Array,
  kernel: jax.Array,
  strides: tuple[int, int],
  padding: str | tuple[tuple[int, int], ...],
  dilation: tuple[int, int],
) -> jax.Array:
  """Returns the convolution of `[B, H, W, D]` with `[h, w, D, F]`, `[B, H', W', F]`."""
  sizes = [(size - 1) * by + 1 for size, by in zip(kernel.shape[:2], dilation, strict=True)]
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], sizes, strides, padding)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  height, width = (
    (length - size) // by + 1 for length, size, by in zip(x.shape[1:3], sizes, strides, strict=True)
  )
  rows, columns = strides

  def shifted(i, j):  # [B, H', W', D]
    i, j = i * dilation[0], j * dilation[1]
    return x[:, i : i + (height - 1) * rows + 1 : rows, j : j + (width - 1) * columns + 1 : columns]

  pieces = [shifted(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
  windows = pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=-1)
  products = matmul(windows.reshape(-1, windows.shape[-1]), kernel.reshape(-1, kernel.shape[-1]))
  return products.reshape(*windows.shape[:-1], kernel.shape[-1])


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
