"""Layers on a CPU core, in C++: products with what is mostly zero, and Adam's step.

Inputs are often zero: four in five pixels of handwritten digits, half and more of what a ReLU
returns; and so are cotangents, three in four where a maximum over 2 x 2 numbers was taken. XLA
multiplies by all of them. `product` leaves them out where they are many, forwards and backwards:
the same sum but for the order of its terms, and for zero times what is not finite, no NaN here.

The gradient of a kernel is the product of two factors, `inputs^T [D, B] @ cotangents [B, F]`, the
latter those of the layer's outputs. `gradient_in_factors` returns the factors in the place of the
product, for `adam_step`, which computes a few rows of it at a time and makes Adam's step with them
at once. XLA by itself writes the product to memory, and reads it back for each of the three arrays
that a step changes.

Measured on two cores (AMD Zen 5), four members each: epochs of the MLP on MNIST are 1.5 (batches of
1) to 1.7 times (32, and all) as fast as by XLA alone, of the CNNs 1.4 and 1.5 times, and of the MLP
on CIFAR-10, in which hardly anything is zero, 1.4 times.

This is the one piece of the project that is not JAX (`cpu_layers.cc`, called through XLA's foreign
function interface). It is compiled where the project is installed if a C++ compiler is there;
`why_missing` says why it is not to be had, and everything works without it. The reference is what
XLA does with the same layers, and `jaxdl.optim.optimizers.step`: equal up to rounding.
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
from jax import lax

from jaxdl.nn import layers

_TARGETS = ("adam_step", "outer_product", "sparse_product")
# Set to 0: as if it were not there.
SWITCH = "JAXDL_CPU_LAYERS"

# Of narrower kernels a tile of the product, 64 columns, would be nearly empty.
_MIN_FEATURES = 8
# With smaller kernels, and less multiplications, XLA takes as long as a choice and a call.
_MIN_SIZE, _MIN_WORK = 2**14, 2**20
# Narrower gradients XLA computes faster, unless their inputs are sparse.
_MIN_OUTER_FEATURES = 64
# Below this share of numbers that are not zero a factor is sparse, as in cpu_layers.cc: one of them
# takes two to three times as long to multiply by itself as among many.
_SPARSE = 0.42
# How many numbers of a factor tell whether it is.
_SAMPLE = 2048
# Of fewer examples the gradient by the inputs takes less time than to transpose the kernel for it.
_MIN_TRANSPOSED = 256


class Factors(NamedTuple):
  """The gradient of a dense layer, its kernel's `inputs^T @ cotangents`, its bias's their sum."""

  inputs: jax.Array  # [B, D], of the layer
  cotangents: jax.Array  # [B, F], of its outputs


def is_factors(gradient: Any) -> bool:
  """Returns whether it is the gradient of a layer in factors."""
  return isinstance(gradient, Factors)


@functools.lru_cache(maxsize=1)
def why_missing() -> str | None:
  """Returns in a few words why it is not there in this process; None where there is."""
  if os.environ.get(SWITCH) == "0":
    return f"{SWITCH}=0 is set"
  file = library_file()
  if file is None:
    return "it was not compiled when jaxdl was installed, which takes a C++ compiler and JAX"
  try:
    library = ctypes.CDLL(str(file))
    processors = [name for name in ("avx512", "avx2") if library[f"runs_{name}"]()]
    if not processors:
      return "the processor has no AVX2"
    for target in _TARGETS:
      handler = jax.ffi.pycapsule(library[f"{target}_{processors[0]}"])
      jax.ffi.register_ffi_target(f"jaxdl_{target}", handler, platform="cpu")
  except Exception as error:  # compiled for another version of JAX, or another machine
    return f"it does not load: {error}".splitlines()[0]
  return None


def library_file() -> pathlib.Path | None:
  """Returns the file of what is compiled; None: there is none."""
  found = importlib.util.find_spec("jaxdl.cpu._ops")
  return found and pathlib.Path(found.origin)


def has_large_layer(params: Mapping[str, Any]) -> bool:
  """Returns whether a model has a layer whose `product` may be another than XLA's.

  Args:
    params: of the model, `{layer: {"kernel": ..., "bias": ...}}`, at least their shapes.
  """
  return any(math.prod(of["kernel"].shape) >= _MIN_SIZE for of in params.values())


def layers_with_factors(
  params: Mapping[str, Any], num_slices: int, slice_len: int
) -> tuple[str, ...]:
  """Returns the names of the layers whose kernel gradient is better left as factors.

  Dense ones. Where a batch is cut into slices, only if the factors of all of it are smaller than
  their product: they have to be kept, where a gradient is summed up.

  Args:
    params: of a model, as above.
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
  """Returns the gradient of a loss, those of some dense layers as their factors.

  Args:
    loss: `params -> (loss [], aux)`, with a linen model in it that is applied once.
    params: of the model.
    names: of the layers, `nn.Dense`, that factors are wanted of.
    slice_len: examples that pass through the model.

  Returns:
    `(gradient, factors, aux)`: a tree like `params`, without those layers, and the factors of each
    of them.
  """

  def with_added(params, added):
    with layers.adding_to_outputs(added) as inputs:
      value, aux = loss(params)
    return value, (inputs, aux)

  zeros = {name: jnp.zeros((slice_len, len(params[name]["bias"]))) for name in names}
  (grads, cotangents), (inputs, aux) = jax.grad(with_added, argnums=(0, 1), has_aux=True)(
    params, zeros
  )
  # XLA computes no gradient that is not used.
  grads = {name: of for name, of in grads.items() if name not in zeros}
  return grads, {name: Factors(inputs[name], cotangents[name]) for name in zeros}, aux


@jax.custom_vjp
def product(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns `inputs [B, D] @ kernel [D, F]`, on CPU, with gradients of the first order.

  By C++ where the inputs are sparse, and of one example; likewise the gradient by the inputs, if
  the cotangents are. That by the kernel comes from C++, which looks for a sparse factor itself,
  but for narrow kernels. By XLA whatever is little work.
  """
  if len(inputs) == 1 and kernel.size >= _MIN_SIZE:
    return _sparse_product(inputs, kernel)
  return _product(inputs, kernel) if _is_much(inputs, kernel) else inputs @ kernel


def _product_forward(inputs, kernel):
  return product(inputs, kernel), (inputs, kernel)


def _product_backward(factors, cotangents):
  inputs, kernel = factors
  is_much = _is_much(inputs, kernel)
  if is_much and len(inputs) >= _MIN_TRANSPOSED:
    of_inputs = _product(cotangents, kernel, transposed=True)
  else:
    of_inputs = _xla_product(cotangents, kernel, transposed=True)
  if is_much and kernel.shape[1] >= _MIN_OUTER_FEATURES:
    of_kernel = _call("outer_product", kernel, inputs, cotangents)
  else:
    of_kernel = inputs.T @ cotangents
  return of_inputs, of_kernel


product.defvjp(_product_forward, _product_backward)


def _is_much(inputs, kernel):
  return kernel.size >= _MIN_SIZE and len(inputs) * kernel.size >= _MIN_WORK


def _product(x, kernel, transposed=False):
  """Returns `x @ kernel`, or with its transpose, by C++ where x is sparse, else by XLA."""
  # Or else XLA would compute x once more for the sample.
  x = lax.optimization_barrier(x)
  # Counting all of it takes time; of long lines two tell.
  sample = x[:: max(1, min(x.size // _SAMPLE, len(x) // 2))]
  return lax.cond(
    jnp.count_nonzero(sample) < _SPARSE * sample.size,
    lambda: _sparse_product(x, kernel.T if transposed else kernel),
    lambda: _xla_product(x, kernel, transposed),
  )


def _xla_product(x, kernel, transposed):
  # Not with `kernel.T`, which XLA makes a copy for where there is one example.
  return lax.dot_general(x, kernel, (((1,), (int(transposed),)), ((), ())))


def _sparse_product(inputs, kernel):
  outputs = jax.ShapeDtypeStruct((len(inputs), kernel.shape[1]), kernel.dtype)
  return _call("sparse_product", outputs, inputs, kernel)


def _call(target, shapes, *arguments, in_place=(), **attributes):
  """Calls C++; results are of `shapes`, and the first ones `in_place` of as many arguments."""
  assert why_missing() is None, "whoever asks for layers in C++ has asked whether they are there"
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)
  aliases = {place: place for place in range(len(in_place))}
  call = jax.ffi.ffi_call(f"jaxdl_{target}", shapes, input_output_aliases=aliases)
  return call(*in_place, *arguments, **attributes)


def adam_step(
  params: dict,
  mu: dict,
  nu: dict,
  gradient: Factors,
  *,
  rate: jax.Array,
  epsilon: jax.Array,
  keep: jax.Array,
  b1: float,
  b2: float,
) -> tuple[dict, dict, dict]:
  """Makes Adam's step on a dense layer, `keep p - rate m / (sqrt(v) + epsilon)`, on CPU.

  Args:
    params: p, `{"kernel": [D, F], "bias": [F]}`, float32.
    mu: m, the first moment, likewise; `b1 m + (1 - b1) g` after the step.
    nu: v, the second moment, likewise; `b2 v + (1 - b2) g^2` after the step.
    gradient: g.
    rate: `[]`, the learning rate with the moments' bias corrected.
    epsilon: `[]`, likewise.
    keep: `[]`, 1 without weight decay.
    b1: share of the first moment that is kept.
    b2: share of the second moment that is kept.

  Returns:
    Parameters and moments after the step, in the memory of those before it where nothing else needs
    them.
  """
  before = [of[name] for name in ("kernel", "bias") for of in (params, mu, nu)]
  scalars = jnp.stack([rate, epsilon, keep]).astype(jnp.float32)
  settings = {"b1": np.float64(b1), "b2": np.float64(b2)}
  after = _call("adam_step", before, *gradient, scalars, in_place=before, **settings)
  return tuple(
    {"kernel": kernel, "bias": bias} for kernel, bias in zip(after[:3], after[3:], strict=True)
  )
