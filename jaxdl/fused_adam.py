"""Adam for dense layers in one pass on a CPU core, with the gradient of a kernel never stored.

The gradient of a dense layer's kernel is the product of two factors, `inputs^T [D, B] @ cotangents
[B, F]`, the latter those of the layer's outputs. `gradient_in_factors` returns the factors in the
place of the product, and `update` gives them to code in C++ (`fused_adam.cc`, called through XLA's
foreign function interface), which computes a few rows of the product at a time and makes Adam's
step with them at once. XLA by itself writes the product to memory, and reads it back for each of
the three arrays that a step changes. Measured on two cores (AMD Zen 5), epochs of MLPs are 1.1
(batches of 128 and more) to 1.3 times (batches of 1) as fast, with 1.7 million parameters 1.3 to
1.4 times, and of the CNN with half a million 1.1 times.

This is the one piece of the project that is not JAX. It is compiled where the project is installed
if a C++ compiler is there; `why_missing` says why it is not to be had, and everything works without
it. The reference is `jaxdl.optimizers.step` on the product: equal up to rounding.
"""

import ctypes
import functools
import importlib.util
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import layers

_TARGET = "jaxdl_fused_adam"
# Set to 0: as if it were not there.
SWITCH = "JAXDL_FUSED_ADAM"

# Of narrower kernels a tile of the product, 64 columns, would be nearly empty.
_MIN_FEATURES = 8


class Factors(NamedTuple):
  """The gradient of a kernel `[D, F]`, `inputs^T @ cotangents`."""

  inputs: jax.Array  # [B, D], of the layer
  cotangents: jax.Array  # [B, F], of its outputs


@functools.lru_cache(maxsize=1)
def why_missing() -> str | None:
  """Returns in a few words why there is no `update` in this process; None where there is."""
  if os.environ.get(SWITCH) == "0":
    return f"{SWITCH}=0 is set"
  file = library_file()
  if file is None:
    return "it was not compiled when jaxdl was installed, which takes a C++ compiler and JAX"
  try:
    library = ctypes.CDLL(str(file))
    if library.fused_adam_avx512_runs():
      handler = library.fused_adam_avx512
    elif library.fused_adam_avx2_runs():
      handler = library.fused_adam_avx2
    else:
      return "the processor has no AVX2"
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(handler), platform="cpu")
  except Exception as error:  # compiled for another version of JAX, or another machine
    return f"it does not load: {error}".splitlines()[0]
  return None


def library_file() -> pathlib.Path | None:
  """Returns the file of what is compiled; None: there is none."""
  found = importlib.util.find_spec("jaxdl._fused_adam")
  return found and pathlib.Path(found.origin)


def layers_with_factors(
  params: Mapping[str, Any], num_slices: int, slice_len: int
) -> tuple[str, ...]:
  """Returns the names of the layers whose kernel gradient is better left as factors.

  Dense ones. Where a batch is cut into slices, only if the factors of all of it are smaller than
  their product: they have to be kept, where a gradient is summed up.

  Args:
    params: of a model, `{layer: {"kernel": ..., "bias": ...}}`.
    num_slices: K of a batch.
    slice_len: examples in one.
  """

  def is_better(shape):
    if len(shape) != 2 or shape[1] < _MIN_FEATURES:
      return False
    return num_slices == 1 or num_slices * slice_len * sum(shape) <= math.prod(shape)

  return tuple(name for name, of in params.items() if is_better(of["kernel"].shape))


def gradient_in_factors(
  loss: Callable[[dict], tuple[jax.Array, Any]],
  params: dict,
  names: Iterable[str],
  slice_len: int,
) -> tuple[dict, dict[str, Factors], Any]:
  """Returns the gradient of a loss, those of some dense kernels as their factors.

  Args:
    loss: `params -> (loss [], aux)`, with a linen model in it that is applied once.
    params: of the model.
    names: of the layers, `nn.Dense`, that factors are wanted of.
    slice_len: examples that pass through the model.

  Returns:
    `(gradient, factors, aux)`: a tree like `params`, with None for the kernels of those layers, and
    the factors of each of them.
  """
  kernels = {name: params[name]["kernel"] for name in names}

  def with_added(params, added):
    with layers.adding_to_outputs(added) as inputs:
      value, aux = loss(params)
    return value, (inputs, aux)

  zeros = {name: jnp.zeros((slice_len, of.shape[1]), of.dtype) for name, of in kernels.items()}
  (grads, cotangents), (inputs, aux) = jax.grad(with_added, argnums=(0, 1), has_aux=True)(
    params, zeros
  )
  # XLA computes no gradient that is not used.
  grads = {name: {**of, "kernel": None} if name in kernels else of for name, of in grads.items()}
  return grads, {name: Factors(inputs[name], cotangents[name]) for name in kernels}, aux


def update(
  kernel: jax.Array,
  mu: jax.Array,
  nu: jax.Array,
  gradient: Factors,
  *,
  rate: jax.Array,
  epsilon: jax.Array,
  keep: jax.Array,
  b1: float,
  b2: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Makes Adam's step on a kernel, `keep p - rate m / (sqrt(v) + epsilon)`, on CPU.

  Args:
    kernel: p, `[D, F]` float32.
    mu: m, the first moment, likewise; `b1 m + (1 - b1) g` after the step.
    nu: v, the second moment, likewise; `b2 v + (1 - b2) g^2` after the step.
    gradient: g.
    rate: `[]`, the learning rate with the moments' bias corrected.
    epsilon: `[]`, likewise.
    keep: `[]`, 1 without weight decay.
    b1: share of the first moment that is kept.
    b2: share of the second moment that is kept.

  Returns:
    Kernel and moments after the step, in the memory of those before it where nothing else needs
    them.
  """
  assert why_missing() is None, "whoever asks for factors has asked whether they can be used"
  shape = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
  call = jax.ffi.ffi_call(_TARGET, (shape,) * 3, input_output_aliases={0: 0, 1: 1, 2: 2})
  scalars = jnp.stack([rate, epsilon, keep]).astype(jnp.float32)
  return tuple(call(kernel, mu, nu, *gradient, scalars, b1=np.float64(b1), b2=np.float64(b2)))
