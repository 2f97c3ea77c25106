"""What is specific to a backend: how much of a population trains at a time, and how it compiles."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import batches, train
from jaxdl.arm import Hyperparams, Recipe
from jaxdl.batches import Examples
from jaxdl.cpu import matmul
from jaxdl.nn import models
from jaxdl.population.devices import DeviceKind

# On CPU members train one by one, each on a core, unless they are so small that what XLA spends on
# starting an operation outweighs it: measured on networks with 13 to 110 thousand parameters, up to
# 27 thousand gain from training together (2.4 times as fast with 13), 55 thousand and more do not.
_CPU_SMALL_BYTES = 2**19
_CPU_STATE_BYTES = 2 * 2**20
_CPU_MAX_MEMBERS = 8
# No more chunks than these are needed to keep workers busy; not the number of workers itself, on
# which results would then depend.
_CPU_CHUNKS = 8

# More members at a time than this keep no accelerator busier, so it is rather chunks that other
# devices can take. Not measured.
_ACCELERATOR_MAX_MEMBERS = 128

# What a device computes while a program compiles for it: about three seconds of one CPU core at a
# rate that it reaches; elsewhere ten seconds at a rate that small networks reach.
_CPU_COMPILE_FLOPS = 1e11
_ACCELERATOR_COMPILE_FLOPS = 3e13


def compile_options(platform: str) -> dict[str, Any]:
  """Returns what XLA is told beyond its defaults when it compiles training and prediction.

  Args:
    platform: of the devices, e.g. "cpu".

  On CPU to use all of a vector register; by default it stops at 256 bits. Measured on a processor
  with registers of 512 (AMD Zen 5): steps at batch size 1, most of which is Adam, 1.6 times as
  fast, MLPs at batch size 32 1.1 times, CNNs 1.02 to 1.05 times, and between 5% slower and 2%
  faster with a million parameters or more, which wait for memory. Elsewhere it changes nothing.
  """
  return {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else {}


def default_slice_size(model: str, platform: str) -> int:
  """Returns how many examples pass through a model at once.

  Args:
    model: its name.
    platform: of the devices, e.g. "cpu".

  Measured on CPU: the patches and feature maps of 8 images stay in a core's own cache, and the
  activations of 512 in an MLP; those of a large batch do not. Elsewhere the limit only bounds the
  memory.
  """
  if platform == "cpu":
    return 8 if models.is_convolutional(model) else 512
  return 512 if models.is_convolutional(model) else 4096


def specialize(recipe: Recipe, num_members: int, platform: str) -> Recipe:
  """Returns the recipe for members that train so many at a time.

  A CNN on CPU that is not mapped over members convolves as XLA does where no gradient is taken,
  which wants 32 times as many examples at once: measured with slices of 8 for a gradient, 1.5 times
  as fast as patches of 16 images.

  Args:
    recipe: of a program.
    num_members: that the program maps over at a time.
    platform: of the devices.
  """
  if platform != "cpu" or num_members > 1 or not models.is_convolutional(recipe.arm.model):
    return recipe
  return dataclasses.replace(recipe, predict_size=32 * recipe.slice_size, native_conv=True)


def slice_sizes(chosen: int | None, platform: str) -> Callable[[str], int]:
  """Returns model -> examples that pass through it at once, as `arm.group_by_recipe` takes it.

  Args:
    chosen: what the user wants for every model; None: `default_slice_size`.
    platform: of the devices.
  """
  return lambda model: chosen or default_slice_size(model, platform)


def member_shapes(
  recipe: Recipe, hyper: Hyperparams, image_shape: tuple[int, int, int]
) -> train.MemberState:
  """Returns the shapes of a member; arguments as of `jaxdl.train.create_member`."""
  key = batches.seed_key(0, 0)
  return jax.eval_shape(lambda: train.create_member(recipe, key, hyper, image_shape))


def default_chunk(
  recipe: Recipe,
  num_seeds: int,
  num_arms: int,
  member: train.MemberState,
  hyper: Hyperparams,
  image_shape: tuple[int, int, int],
  device: DeviceKind,
) -> tuple[int, int]:
  """Returns how many members a worker trains at a time, as `(seeds, arms)`.

  Args:
    recipe: the static settings.
    num_seeds: S.
    num_arms: A, arms of the program.
    member: the shapes of one member.
    hyper: the settings of one arm.
    image_shape: `(H, W, D)`.
    device: what they train on.

  On CPU one, unless they are small. Elsewhere all arms, with as many seeds as half of the device's
  memory holds, up to a limit. The number of devices has no say: results would depend on it.
  """
  state_bytes = _num_bytes(member)
  if device.platform == "cpu":
    if models.is_convolutional(recipe.arm.model) or state_bytes > _CPU_SMALL_BYTES:
      return 1, 1
    members, num_parts = min(_CPU_MAX_MEMBERS, _CPU_STATE_BYTES // state_bytes), _CPU_CHUNKS
  else:
    memory = device.memory_bytes or 8 * 2**30
    # State, its update and its gradient; and activations.
    member_bytes = 3 * state_bytes + _activation_bytes(recipe, member, hyper, image_shape)
    members, num_parts = min(_ACCELERATOR_MAX_MEMBERS, memory // 2 // member_bytes), 1
  most = min(max(1, members // num_arms), math.ceil(num_seeds / num_parts))
  return even_size(num_seeds, most), num_arms


def compacted_size(num_running: int, size: int, seed_work: float, platform: str) -> int:
  """Returns how many seeds of a chunk to train on with, once some have stopped with all arms.

  A power of two that holds those that run, if that is half of the chunk or less and saves more than
  the compiling of a program for it costs. It depends on nothing that is measured while it runs, so
  that the same run always has the same widths.

  Args:
    num_running: seeds of which some arm still runs.
    size: seeds that train at present.
    seed_work: floating-point operations of training one seed to the end, all arms.
    platform: of the device.

  Returns:
    The new size, or `size` itself.
  """
  smaller = 2 ** math.ceil(math.log2(num_running))
  saved = (size - smaller) * seed_work
  cost = _CPU_COMPILE_FLOPS if platform == "cpu" else _ACCELERATOR_COMPILE_FLOPS
  return smaller if 2 * smaller <= size and saved > cost else size


def even_size(num_seeds: int, most: int) -> int:
  """Returns the size of chunks that cover all seeds, as few and as equal as may be.

  Args:
    num_seeds: S.
    most: seeds in a chunk, at most.
  """
  return math.ceil(num_seeds / math.ceil(num_seeds / most))


def _num_bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _activation_bytes(recipe: Recipe, member, hyper, image_shape: tuple[int, int, int]) -> int:
  """Returns an upper bound of the bytes that the gradient of one slice holds at a time.

  The sum over everything that it computes, as if nothing were fused or freed.
  """
  length = min(recipe.slice_size, recipe.arm.batch_size)
  piece = jax.eval_shape(
    lambda: jax.tree.map(
      lambda x: x[0, 0], batches.epoch_slices(recipe, batches.seed_key(0, 0), 0, length)
    )
  )
  examples = Examples(
    jax.ShapeDtypeStruct((length, *image_shape), jnp.uint8),
    jax.ShapeDtypeStruct((length,), jnp.int32),
  )
  gradient = jax.grad(lambda params, *rest: train.slice_loss(params, recipe, *rest)[0])
  with matmul.xla_alone():  # as on an accelerator, wherever this is computed
    traced = jax.make_jaxpr(gradient)(member.params, hyper, examples, piece, jnp.float32(length))
  return _intermediate_bytes(traced.jaxpr)


def _intermediate_bytes(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    inner = [sub for sub in jax.tree.leaves(equation.params) if hasattr(sub, "jaxpr")]
    total += sum(_intermediate_bytes(sub.jaxpr) for sub in inner)
    if not inner:
      total += sum(
        math.prod(out.aval.shape) * getattr(out.aval.dtype, "itemsize", 8)
        for out in equation.outvars
      )
  return total
