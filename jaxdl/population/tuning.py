"""Choices that depend on the backend: how many members train at a time, and how XLA compiles."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from jaxdl import batches, forward, train
from jaxdl.batches import Examples, Slice
from jaxdl.cpu import matmul
from jaxdl.member import MemberState
from jaxdl.nn import models
from jaxdl.population.devices import DeviceKind
from jaxdl.recipe import Hyperparams, Recipe

# On CPU, members train one by one, each on its own core, unless they are so small that most of the
# time is XLA's overhead per operation. Measured on networks with 13 to 110 thousand parameters:
# those with up to 27 thousand gain from training together (2.4 times as fast with 13 thousand),
# those with 55 thousand or more do not.
_CPU_SMALL_BYTES = 2**19
_CPU_STATE_BYTES = 2 * 2**20
_CPU_MAX_MEMBERS = 8
# This many chunks keep the workers busy. The number of workers itself must not matter here, because
# results would depend on it.
_CPU_CHUNKS = 8

# More members at a time would not keep an accelerator busier, so the rest become further chunks,
# which other devices can take. Not measured.
_ACCELERATOR_MAX_MEMBERS = 128

# Floating-point operations that a device could do while a program compiles: about three seconds of
# one CPU core at a typical rate; on accelerators, ten seconds at a rate that small networks reach.
_CPU_COMPILE_FLOPS = 1e11
_ACCELERATOR_COMPILE_FLOPS = 3e13


def compile_options(platform: str) -> dict[str, Any]:
  """Returns the compiler options for training and prediction that differ from XLA's defaults.

  On CPU, XLA may use vector registers of 512 bits; its default is 256. Measured on an AMD Zen 5,
  which has them: steps at batch size 1, which are mostly Adam, are 1.6 times as fast, MLPs at batch
  size 32 1.1 times, CNNs 1.02 to 1.05 times. Models with a million parameters or more, which are
  limited by memory, are between 5% slower and 2% faster. On other platforms there are no options.

  Args:
    platform: platform of the devices, e.g. "cpu".
  """
  return {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else {}


def default_slice_size(model: str, platform: str) -> int:
  """Returns how many examples pass through a model at once.

  On CPU, the limit keeps data in a core's own cache: the patches and feature maps of 8 images in a
  CNN, or the activations of 512 in an MLP (measured). On accelerators it only bounds the memory.

  Args:
    model: setting of the model, e.g. "mlp".
    platform: platform of the devices, e.g. "cpu".
  """
  if platform == "cpu":
    return 8 if models.is_convolutional(model) else 512
  return 512 if models.is_convolutional(model) else 4096


def specialize(recipe: Recipe, member: MemberState, num_members: int, platform: str) -> Recipe:
  """Returns the recipe adapted to the number of members that train at a time.

  A CNN on CPU that trains one member at a time predicts with XLA's own convolution, which is fast
  without a gradient and without `vmap`, in slices 32 times as large as for a gradient. Measured
  with 8 examples per slice for a gradient: 1.5 times as fast as with patches of 16 images.

  Args:
    recipe: the recipe of a program.
    member: the shapes of the state of one member.
    num_members: members that the program trains at a time.
    platform: platform of the devices.
  """
  if platform != "cpu" or num_members > 1 or not _has_convolutions(recipe, member):
    return recipe
  size = recipe.predict_size if recipe.is_own else 32 * recipe.slice_size
  return dataclasses.replace(recipe, predict_size=size, native_conv=True)


def _has_convolutions(recipe: Recipe, member: MemberState) -> bool:
  if recipe.is_own:
    return any(leaf.ndim == 4 for leaf in jax.tree.leaves(member.params))
  return models.is_convolutional(recipe.arm.model)


def slice_sizes(chosen: int | None, platform: str) -> Callable[[str], int]:
  """Returns a function from a model to its slice size, for `recipe.group_by_recipe`.

  Args:
    chosen: the user's slice size for every model; None: `default_slice_size`.
    platform: platform of the devices.
  """
  return lambda model: chosen or default_slice_size(model, platform)


def default_chunk(
  recipe: Recipe,
  num_seeds: int,
  num_arms: int,
  member: MemberState,
  hyper: Hyperparams,
  device: DeviceKind,
) -> tuple[int, int]:
  """Returns how many members a worker trains at a time, as `(seeds, arms)`.

  On CPU, one member, unless members are small. On accelerators, all arms with as many seeds as half
  of the device's memory holds, up to a limit. The number of devices must not matter, because
  results would depend on it.

  Args:
    recipe: the static settings.
    num_seeds: S, the seeds of the population.
    num_arms: A, the arms of the program.
    member: the shapes of the state of one member.
    hyper: the settings of one arm.
    device: the kind of device to train on.
  """
  state_bytes = _num_bytes(member)
  if device.platform == "cpu":
    if _has_convolutions(recipe, member) or state_bytes > _CPU_SMALL_BYTES:
      return 1, 1
    members, num_parts = min(_CPU_MAX_MEMBERS, _CPU_STATE_BYTES // state_bytes), _CPU_CHUNKS
  else:
    memory = device.memory_bytes or 8 * 2**30
    # The state, its update and its gradient, plus the activations.
    member_bytes = 3 * state_bytes + activation_bytes(recipe, member, hyper)
    members, num_parts = min(_ACCELERATOR_MAX_MEMBERS, memory // 2 // member_bytes), 1
  most = min(max(1, members // num_arms), math.ceil(num_seeds / num_parts))
  return even_size(num_seeds, most), num_arms


def compacted_size(num_running: int, size: int, seed_work: float, platform: str) -> int:
  """Returns the number of seeds with which a chunk keeps training once others have stopped.

  It is the smallest power of two that holds the running seeds, if that is at most half of the
  present size and saves more work than compiling a program for it costs. It does not depend on
  measured times, so the same run always has the same sizes.

  Args:
    num_running: seeds with at least one arm that is still training.
    size: seeds that train at present.
    seed_work: floating-point operations left to train one seed with all arms to the end.
    platform: platform of the device.

  Returns:
    The new size, or `size` itself.
  """
  smaller = 2 ** math.ceil(math.log2(num_running))
  saved = (size - smaller) * seed_work
  cost = _CPU_COMPILE_FLOPS if platform == "cpu" else _ACCELERATOR_COMPILE_FLOPS
  return smaller if 2 * smaller <= size and saved > cost else size


def even_size(num_seeds: int, most: int) -> int:
  """Returns the size of chunks that cover all seeds: as few chunks as possible, equally large.

  Args:
    num_seeds: S, the seeds to cover.
    most: maximum number of seeds in a chunk.
  """
  return math.ceil(num_seeds / math.ceil(num_seeds / most))


def _num_bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def activation_bytes(recipe: Recipe, member: MemberState, hyper: Hyperparams) -> int:
  """Returns an estimate of the bytes that a member needs besides its state, on an accelerator.

  It is the larger of what the gradient of one slice and the prediction of one slice need, as if XLA
  fused nothing. For the CNNs and ResNets, the buffers that XLA 0.12 assigns on CPU are 0.8 to 1.0
  times as large.

  Args:
    recipe: the static settings.
    member: the shapes of the state of one member.
    hyper: the settings of one arm.
  """
  length = min(recipe.slice_size, recipe.arm.batch_size)
  examples, piece = example_shapes(recipe, length)
  inputs = example_shapes(recipe, recipe.predict_size)[0].inputs

  def gradient(variables, hyper, examples, piece):
    loss = jax.grad(train.slice_loss, has_aux=True)
    return loss(*variables, recipe, hyper, examples, piece, jnp.float32(length))

  def predictions(num_members):  # the inputs are shared
    predict = jax.vmap(lambda v, x: forward.predict(recipe, v, x), (0, None), axis_size=num_members)
    several = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((num_members, *x.shape), x.dtype), member.variables
    )
    return _peak(predict, several, inputs)

  with matmul.xla_alone():  # as on an accelerator, even if this process is on CPU
    training = _peak(gradient, member.variables, hyper, examples, piece)
    return max(training, predictions(2) - predictions(1))


def _peak(function: Callable, *shapes: Any) -> int:
  return peak_bytes(jax.make_jaxpr(function)(*shapes).jaxpr)


def example_shapes(recipe: Recipe, length: int) -> tuple[Examples, Slice]:
  """Returns the shapes of some examples, and of the slice that has all of them."""
  form = recipe.form
  piece = jax.eval_shape(
    lambda: jax.tree.map(
      lambda x: x[0, 0], batches.epoch_slices(recipe, batches.seed_key(0, 0), 0, length)
    )
  )
  examples = Examples(
    jax.ShapeDtypeStruct((length, *form.input_shape), form.input_dtype),
    jax.ShapeDtypeStruct(
      (length, *form.target_shape), jnp.int32 if form.num_classes else jnp.float32
    ),
  )
  return examples, piece


def peak_bytes(jaxpr: Any) -> int:
  """Returns the most bytes that intermediate results take at a time.

  Operations run in the order of the program, none is fused with another, and each result is freed
  after its last use. Arguments are not counted.
  """
  last = {var: place for place, of in enumerate(jaxpr.eqns) for var in _variables(of.invars)}
  last |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
  sizes: dict[Any, int] = {}
  peak = 0
  for place, equation in enumerate(jaxpr.eqns):
    sizes |= {var: _var_bytes(var) for var in equation.outvars}
    inner = [sub for sub in jax.tree.leaves(equation.params) if hasattr(sub, "jaxpr")]
    peak = max(peak, sum(sizes.values()) + max((peak_bytes(sub.jaxpr) for sub in inner), default=0))
    for var in (*_variables(equation.invars), *equation.outvars):
      if last.get(var, place) <= place:
        sizes.pop(var, None)
  return peak


def _variables(atoms: Sequence[Any]) -> list[Any]:
  return [atom for atom in atoms if not isinstance(atom, Literal)]


def _var_bytes(var: Any) -> int:
  return math.prod(var.aval.shape) * getattr(var.aval.dtype, "itemsize", 8)  # 8: of a key
