"""A product that leaves out zeros, in C++, for layers on a CPU core.

Inputs are often zero: four in five pixels of handwritten digits, half and more of what a ReLU
returns; and so are cotangents, three in four where a maximum over 2 x 2 numbers was taken. XLA
multiplies by all of them. `matmul` leaves them out where they are many, forwards and backwards: the
same sum but for the order of its terms, and for zero times what is not finite, no NaN here.

`ops.cc`, called through XLA's foreign function interface, is the one piece of the project that is
not JAX. It is compiled at installation if there is a C++ compiler. Without it, under `vmap` and on
other devices than CPUs, `matmul` is XLA's product.
"""

import contextlib
import contextvars
import ctypes
import functools
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

_TARGETS = ("adam_step", "outer_product", "sparse_product")
# If it is "0", the C++ is not used.
SWITCH = "JAXDL_CPU_LAYERS"

# With smaller kernels, and fewer multiplications, XLA takes as long as a choice and a call.
MIN_SIZE, _MIN_WORK = 2**14, 2**20
# Narrower gradients XLA computes faster, unless their inputs are sparse.
_MIN_OUTER_FEATURES = 64
# Below this share of nonzero numbers a factor is sparse, as in ops.cc: each of them takes two to
# three times as long to multiply by itself as among many.
_SPARSE = 0.42
# How many numbers of a factor are counted to tell whether it is sparse.
_SAMPLE = 2048
# With fewer examples the gradient with respect to the inputs takes less time than transposing the
# kernel for it.
_MIN_TRANSPOSED = 256

_XLA_ALONE = contextvars.ContextVar("xla_alone", default=False)


@functools.lru_cache(maxsize=1)
def why_unavailable() -> str | None:
  """Returns why the C++ kernels are unavailable in this process, or None if they are available."""
  if os.environ.get(SWITCH) == "0":
    return f"{SWITCH}=0 is set"
  file = library_file()
  if file is None:
    return "it was not compiled when jaxdl was installed, which takes a C++ compiler and JAX"
  if jax.default_backend() != "cpu":
    return f"JAX computes on {jax.default_backend()} here"
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
  """Returns the compiled library, or None if there is none."""
  found = importlib.util.find_spec("jaxdl.cpu._ops")
  return None if found is None or found.origin is None else pathlib.Path(found.origin)


@contextlib.contextmanager
def xla_alone() -> Iterator[None]:
  """Has `matmul` traced as XLA's product within, in this thread."""
  token = _XLA_ALONE.set(True)
  try:
    yield
  finally:
    _XLA_ALONE.reset(token)


def matmul(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns `inputs [B, D] @ kernel [D, F]`, with derivatives of the first order only in C++.

  In C++ if the inputs are sparse, or of one example; likewise the gradient with respect to the
  inputs, if the cotangents are. The gradient with respect to the kernel is computed in C++, which
  looks for a sparse factor itself, unless the kernel is narrow. XLA computes whatever is little
  work, and everything under `vmap`.
  """
  is_small = kernel.size < MIN_SIZE or inputs.dtype != jnp.float32 or kernel.dtype != jnp.float32
  if is_small or _XLA_ALONE.get() or why_unavailable() is not None:
    return _xla_product(inputs, kernel)
  return _matmul(inputs, kernel)


@jax.custom_vjp
def _matmul(inputs, kernel):
  return _forward(inputs, kernel)


def _matmul_forward(inputs, kernel):
  return _forward(inputs, kernel), (inputs, kernel)


def _matmul_backward(factors, cotangents):
  return _backward(*factors, cotangents)


_matmul.defvjp(_matmul_forward, _matmul_backward)


@custom_vmap
def _forward(inputs, kernel):
  if len(inputs) == 1:
    return _sparse_product(inputs, kernel)
  return _product(inputs, kernel) if _is_much(inputs, kernel) else _xla_product(inputs, kernel)


@_forward.def_vmap
def _(size, mapped, *arguments):
  return _map_xla(_xla_product, mapped, arguments), True


@custom_vmap
def _backward(inputs, kernel, cotangents):
  is_much = _is_much(inputs, kernel)
  if is_much and len(inputs) >= _MIN_TRANSPOSED:
    of_inputs = _product(cotangents, kernel, transposed=True)
  else:
    of_inputs = _xla_product(cotangents, kernel, transposed=True)
  if is_much and kernel.shape[1] >= _MIN_OUTER_FEATURES:
    of_kernel = call("outer_product", kernel, inputs, cotangents)
  else:
    of_kernel = inputs.T @ cotangents
  return of_inputs, of_kernel


@_backward.def_vmap
def _(size, mapped, *arguments):
  def backward(inputs, kernel, cotangents):
    return jax.vjp(_xla_product, inputs, kernel)[1](cotangents)

  return _map_xla(backward, mapped, arguments), (True, True)


def _map_xla(function, mapped, arguments):
  return jax.vmap(function, tuple(0 if is_mapped else None for is_mapped in mapped))(*arguments)


def _is_much(inputs, kernel):
  return len(inputs) * kernel.size >= _MIN_WORK


def _product(x, kernel, transposed=False):
  """Returns `x @ kernel`, or with its transpose, in C++ if x is sparse, else by XLA."""
  # Or else XLA would compute x once more for the sample.
  x = lax.optimization_barrier(x)
  # Counting all of it takes time; of long rows two suffice.
  sample = x[:: max(1, min(x.size // _SAMPLE, len(x) // 2))]
  return lax.cond(
    jnp.count_nonzero(sample) < _SPARSE * sample.size,
    lambda: _sparse_product(x, kernel.T if transposed else kernel),
    lambda: _xla_product(x, kernel, transposed),
  )


def _xla_product(x, kernel, transposed=False):
  # Not with `kernel.T`, which XLA makes a copy for where there is one example.
  return lax.dot_general(x, kernel, (((1,), (int(transposed),)), ((), ())))


def _sparse_product(inputs, kernel):
  outputs = jax.ShapeDtypeStruct((len(inputs), kernel.shape[1]), kernel.dtype)
  return call("sparse_product", outputs, inputs, kernel)


def call(target: str, shapes: Any, *arguments, in_place=(), **attributes):
  """Calls C++.

  Args:
    target: one of the functions of `ops.cc`.
    shapes: of the results; arrays stand for their shapes.
    *arguments: after those of `in_place`.
    in_place: arguments whose memory the first results take.
    **attributes: constants that are compiled in.
  """
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)
  aliases = {place: place for place in range(len(in_place))}
  function = jax.ffi.ffi_call(f"jaxdl_{target}", shapes, input_output_aliases=aliases)
  return function(*in_place, *arguments, **attributes)
