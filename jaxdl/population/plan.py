"""How the members of a population are cut into chunks, the units of work that workers take.

What a chunk holds depends on the experiment and the kind of device, never on the number of workers.
So a run gives bit-identical results with any number of them.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxdl import batches
from jaxdl import recipe as recipe_lib
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.data.resampling import Indices
from jaxdl.errors import InputError, check_integer
from jaxdl.population import environment, own_check, programs, tuning
from jaxdl.population.devices import DeviceKind
from jaxdl.recipe import Hyperparams, Recipe


class Layout(NamedTuple):
  """How one program's members are cut into chunks. Results are bit-identical for equal layouts."""

  arms: tuple[str, ...]
  chunk_size: int  # seeds that one worker trains at a time
  chunk_arms: int  # arms that train with each of these seeds: all arms of the program, or one
  num_chunks: int
  batch_size: int  # examples per step, at most the size of the training set
  slice_size: int  # examples that pass through the model at once
  kernels: str  # as in `DeviceKind.kernels`


class Chunk(NamedTuple):
  """Members that train at the same time: a range of the seeds and arms of one group."""

  group: int  # index of the group
  seed: int  # index of the first seed
  arm: int  # index of the first arm in the group
  num_seeds: int  # including the seeds that pad the last chunk of a group
  num_arms: int

  @property
  def name(self) -> str:
    """The name of its files: the group, then the first index and the number of seeds and arms."""
    return f"g{self.group}-s{self.seed}x{self.num_seeds}-a{self.arm}x{self.num_arms}"

  def halves(self) -> list["Chunk"]:
    """Splits the chunk in two; returns an empty list if it has only one member."""
    if self.num_seeds > 1:
      first = self.num_seeds // 2
      second = self.num_seeds - first
      return [
        self._replace(num_seeds=first),
        self._replace(seed=self.seed + first, num_seeds=second),
      ]
    if self.num_arms > 1:
      first = self.num_arms // 2
      second = self.num_arms - first
      return [self._replace(num_arms=first), self._replace(arm=self.arm + first, num_arms=second)]
    return []


class Group(NamedTuple):
  """The arms that share one compiled program, and how their members are cut into chunks."""

  number: int  # position in the population's list of groups
  recipe: Recipe
  layout: Layout
  hyper: Hyperparams  # [A, ...], on the host
  keys: jax.Array  # [s * number of chunks along the seeds], padded with the last key
  num_seeds: int
  num_params: int
  split: Indices | None = None  # of every seed, padded as the keys are; None: all have the same

  def chunks(self) -> list[Chunk]:
    """Returns the chunks of the group; arms vary fastest."""
    seeds = range(0, self.num_seeds, self.layout.chunk_size)
    arms = range(0, len(self.layout.arms), self.layout.chunk_arms)
    sizes = self.layout.chunk_size, self.layout.chunk_arms
    return [Chunk(self.number, *first, *sizes) for first in itertools.product(seeds, arms)]

  def parts(self, chunk: Chunk, ends: Mapping[str, int] | None) -> list[Chunk]:
    """Returns what of a chunk is to be trained if some arms end before its first seed.

    Args:
      chunk: the chunk.
      ends: arm -> number of seeds to train; None: all of them.

    Returns:
      The chunk; or a part of it for every run of neighbouring arms that do not end before.
    """
    arms = range(chunk.arm, chunk.arm + chunk.num_arms)
    if ends is None:
      return [chunk]
    runs = itertools.groupby(arms, lambda arm: ends[self.layout.arms[arm]] > chunk.seed)
    kept = [list(run) for is_kept, run in runs if is_kept]
    return [chunk._replace(arm=run[0], num_arms=len(run)) for run in kept]

  def num_real(self, chunk: Chunk) -> int:
    """Returns how many of the chunk's seeds are real and not padding; may be 0 for a half."""
    return max(0, min(chunk.num_seeds, self.num_seeds - chunk.seed))

  def arguments(self, chunk: Chunk) -> tuple[jax.Array, Hyperparams]:
    """Returns a chunk's keys `[s]` and settings `[a, ...]`."""
    hyper = jax.tree.map(lambda leaf: leaf[chunk.arm : chunk.arm + chunk.num_arms], self.hyper)
    return self.keys[chunk.seed : chunk.seed + chunk.num_seeds], hyper

  def split_of(self, chunk: Chunk) -> Indices | None:
    """Returns the split of each of a chunk's seeds, `[s, ...]`; None: all have the same."""
    if self.split is None:
      return None
    return Indices(*(part[chunk.seed : chunk.seed + chunk.num_seeds] for part in self.split))


def plan_groups(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  seeds: Sequence[int],
  root_seed: int,
  device: DeviceKind,
  chunk_size: int | None = None,
  slice_size: int | None = None,
  block: int | None = None,
) -> list[Group]:
  """Decides which arms share a program and how its members are cut into chunks.

  Args:
    dataset: the dataset to train on.
    arms: name -> arm.
    seeds: the S seeds.
    root_seed: seed of all randomness.
    device: the kind of device to train on.
    chunk_size: seeds that a worker trains at a time; None chooses by model, backend and memory.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    block: seeds that are trained before it is decided whether to train more: chunks are chosen as
      if there were only so many. None: all of them.

  Raises:
    InputError: a setting is out of range or does not fit the dataset, or JAX is configured so that
      nothing can be trained.
  """
  environment.check()
  _check(dataset, arms, chunk_size, slice_size)
  sizes = tuning.slice_sizes(slice_size, device.platform)
  recipes = recipe_lib.group_by_recipe(arms, recipe_lib.form_of(dataset), sizes)
  keys = functools.partial(_keys, root_seed, seeds)
  split = None if dataset.resampling is None else dataset.resampling.splits(root_seed, seeds)
  counts = len(seeds), min(block or len(seeds), len(seeds)), chunk_size
  return [
    _plan_group(index, recipe, {n: arms[n] for n in names}, counts, keys, split, device)
    for index, (recipe, names) in enumerate(recipes.items())
  ]


def _check(dataset, arms, chunk_size, slice_size):
  for name, value in (("chunk_size", chunk_size), ("slice_size", slice_size)):
    if value is not None:
      check_integer(name, value, 1)
  if not arms:
    raise InputError("there is no arm to train")
  for name, arm in arms.items():
    if len(dataset.validation) == 0 and arm.needs_validation:
      raise InputError(
        f"arm {name!r} needs a validation set (patience={arm.patience}, plateau_patience="
        f"{arm.plateau_patience}, restore_best={arm.restore_best}), but the dataset has none; set "
        "a validation fraction, or patience=None, plateau_patience=None (-1 in a config) and "
        "restore_best=False"
      )


def all_chunks(groups: Sequence[Group]) -> list[Chunk]:
  """Returns the chunks of all groups, those of the first seeds first.

  In this order, a run that is cut short has as many seeds as possible with all of their arms.
  """
  every = [chunk for group in groups for chunk in group.chunks()]
  return sorted(every, key=lambda chunk: chunk.seed + chunk.num_seeds)


def _keys(root_seed: int, seeds: Sequence[int], length: int) -> jax.Array:
  """Returns the keys of the seeds, padded to a length with the last one."""
  padded = _padded(np.array(seeds, np.uint32), length)
  return jax.vmap(functools.partial(batches.seed_key, root_seed))(padded)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
  """Returns rows `[S, ...]`, padded to a length with the last one."""
  return rows[np.minimum(np.arange(length), len(rows) - 1)]


def _plan_group(number, recipe, arms, counts, keys, split, device) -> Group:
  num_seeds, block, chunk_size = counts
  hyper = [recipe_lib.hyperparams(arm, recipe) for arm in arms.values()]
  hyper = jax.tree.map(lambda *leaves: np.stack(leaves), *hyper)  # [A, ...]
  first = jax.tree.map(lambda leaf: leaf[0], hyper)
  member = own_check.member_shapes(recipe, first)
  if chunk_size is None:
    size, chunk_arms = tuning.default_chunk(recipe, block, len(arms), member, first, device)
  else:
    size, chunk_arms = tuning.even_size(block, chunk_size), len(arms)
  num_blocks = -(-num_seeds // size)
  recipe = tuning.specialize(recipe, member, size * chunk_arms, device.platform)
  return Group(
    number=number,
    recipe=recipe,
    layout=Layout(
      arms=tuple(arms),
      chunk_size=size,
      chunk_arms=chunk_arms,
      num_chunks=num_blocks * -(-len(arms) // chunk_arms),
      batch_size=recipe.arm.batch_size,
      slice_size=recipe.slice_size,
      kernels=programs.kernels(recipe, size * chunk_arms, device, member.params),
    ),
    hyper=hyper,
    keys=keys(size * num_blocks),
    num_seeds=num_seeds,
    split=split and Indices(*(_padded(part, size * num_blocks) for part in split)),
    num_params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(member.params)),
  )
