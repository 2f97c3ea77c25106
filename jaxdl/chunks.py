"""How much of a population trains at a time: slices of a batch, chunks of the seeds."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import models, train
from jaxdl.arm import Hyperparams, Recipe

# What a CPU core keeps in a cache of its own: vmapping members whose state outgrows it is slower
# than one by one, up to three times at batch size 1, where a step is little but passing over it.
_CPU_STATE_BYTES = 2 * 2**20
_CPU_MAX_MEMBERS = 8


def default_slice_size(model: str, num_arms: int, platform: str) -> int:
  """Returns how many examples pass through a model at once.

  Args:
    model: its name.
    num_arms: A, arms that train at the same time.
    platform: of the devices, e.g. "cpu".

  Measured on CPU: the patches and feature maps of about 32 images, over all arms, stay in a core's
  cache; those of a whole batch do not. Elsewhere the limit only bounds the memory.
  """
  if not models.is_convolutional(model):
    return 4096
  return max(8, 32 // num_arms) if platform == "cpu" else 512


def default_chunk_size(
  recipe: Recipe,
  num_arms: int,
  member: train.MemberState,
  hyper: Hyperparams,
  image_shape: tuple[int, int, int],
  device: jax.Device,
) -> int:
  """Returns how many seeds a device trains at a time, at least 1.

  Args:
    recipe: the static settings.
    num_arms: A, arms of the program; they all train at the same time.
    member: the shapes of one member.
    hyper: the settings of one arm.
    image_shape: `(H, W, D)`.
    device: the kind of device.

  On CPU as many as gain from it by measurement: one, unless the model is small enough for several
  to stay in the cache. Elsewhere as many as half of the device's memory holds.
  """
  state_bytes = _num_bytes(member)
  if device.platform == "cpu":
    crowded = models.is_convolutional(recipe.model)
    members = 1 if crowded else min(_CPU_MAX_MEMBERS, _CPU_STATE_BYTES // state_bytes)
  else:
    memory = (device.memory_stats() or {}).get("bytes_limit", 8 * 2**30)
    # State, its update and its gradient; and activations.
    member_bytes = 3 * state_bytes + _activation_bytes(recipe, member, hyper, image_shape)
    members = memory // 2 // member_bytes
  return max(1, members // num_arms)


def plan_chunks(num_seeds: int, chunk_size: int, num_devices: int) -> tuple[int, int, int]:
  """Cuts seeds into chunks of equal size, no larger than need be.

  Args:
    num_seeds: S.
    chunk_size: most seeds at a time, over all devices.
    num_devices: devices there are.

  Returns:
    `(size, num_chunks, devices_used)`: `size` is a multiple of `devices_used`, and the last chunk
    is filled up with copies of the last seed, whose results are dropped.
  """
  devices_used = min(num_devices, num_seeds, chunk_size)
  most = chunk_size // devices_used * devices_used
  num_chunks = math.ceil(num_seeds / most)
  per_device = math.ceil(num_seeds / num_chunks / devices_used)
  return per_device * devices_used, num_chunks, devices_used


def _num_bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _activation_bytes(recipe: Recipe, member, hyper, image_shape: tuple[int, int, int]) -> int:
  """Returns an upper bound of the bytes that the gradient of one slice holds at a time.

  The sum over everything that it computes, as if nothing were fused or freed.
  """
  length = min(recipe.slice_size, recipe.batch_size)
  piece = jax.eval_shape(
    lambda: jax.tree.map(
      lambda x: x[0, 0], train.epoch_slices(recipe, train.seed_key(0, 0), 0, length)
    )
  )
  examples = train.Examples(
    jax.ShapeDtypeStruct((length, *image_shape), jnp.uint8),
    jax.ShapeDtypeStruct((length,), jnp.int32),
  )
  gradient = jax.grad(lambda params, *rest: train.slice_loss(recipe, params, *rest)[0])
  traced = jax.make_jaxpr(gradient)(member.params, examples, hyper, piece)
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
