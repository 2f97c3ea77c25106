"""Trains a population: plan, execute, assemble."""

import functools
from collections.abc import Mapping, Sequence

import jax

from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer
from jaxdl.population import devices, local, plan
from jaxdl.population.local import Execute
from jaxdl.population.plan import Group
from jaxdl.population.programs import Observer
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population, assemble
from jaxdl.store.store import Store


def train_population(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  *,
  seeds: int | Sequence[int],
  root_seed: int = 0,
  chunk_size: int | None = None,
  slice_size: int | None = None,
  workers: Sequence[jax.Device] | None = None,
  groups: Sequence[Group] | None = None,
  progress: Progress | None = None,
  observe: Observer | None = None,
  keep_logits: bool = False,
  store: Store | None = None,
  checkpoint_every: int | None = None,
  execute: Execute | None = None,
) -> Population:
  """Trains every arm with every seed and tests the trained models.

  Args:
    dataset: what to train, validate and test on.
    arms: name -> arm, A of them.
    seeds: S replications per arm: how many, or which ones (16 means 0, 1, ... 15). A replication
      is the same whatever S and A are.
    root_seed: of all randomness.
    chunk_size: seeds that train at a time on a worker, with all arms of their program; None chooses
      by model, backend and memory.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    workers: the device of every worker; a CPU can have several, each a core of it. None: all
      there are.
    groups: of `plan.plan_groups` for the same arguments; None: planned for the first worker.
    progress: told about every epoch.
    observe: what else to record of every member along its training; see `Observer`.
    keep_logits: keep every member's logits of the test set, S * A * N * C numbers.
    store: where checkpoints and results of chunks are kept, and what is there already is not
      trained again; None: nowhere. With a store a chunk that fails, also when it is tried again, is
      left out, and its seeds are the population's `missing_seeds`.
    checkpoint_every: epochs from one checkpoint of a chunk to the next; None: as often as costs
      little.
    execute: what trains the chunks; None: the workers.

  Returns:
    The population. The same arguments give the same population on the same kind of device.

  Raises:
    InputError: for settings that do not fit the dataset or are out of range; all chunks of some arm
      failed.
  """
  seeds = check_seeds(seeds, root_seed)
  if checkpoint_every is not None:
    check_integer("checkpoint_every", checkpoint_every, 1)
  workers = tuple(devices.workers() if workers is None else workers)
  if groups is None:
    kind = devices.kind_of(workers[0])
    groups = plan.plan_groups(dataset, arms, seeds, root_seed, kind, chunk_size, slice_size)
  progress = progress or Progress()
  progress.start(len(arms) * len(seeds), sum(arm.num_epochs for arm in arms.values()) * len(seeds))
  progress.compiling()
  every = plan.all_chunks(groups)
  if store is not None:
    store.log_resumption([chunk.name for chunk in every])
  if execute is None:
    settings = {
      "observe": observe,
      "keep_logits": keep_logits,
      "checkpoint_every": checkpoint_every,
    }
    execute = functools.partial(local.train_here, dataset, workers, store, settings)
  try:
    outcome = execute(groups, every, progress)
  finally:
    progress.close()
  return assemble(dataset, arms, seeds, groups, outcome)


def check_seeds(seeds: int | Sequence[int], root_seed: int) -> tuple[int, ...]:
  """Returns which seeds are meant; see `train_population`.

  Raises:
    InputError: they are not different integers that fit 32 bits.
  """
  if not isinstance(seeds, Sequence):
    check_integer("seeds", seeds, 1)
    seeds = range(seeds)
  seeds = tuple(seeds)
  if not seeds or len(set(seeds)) < len(seeds):
    raise InputError(f"seeds must be one or more different integers, not {seeds!r}")
  for name, value in (("root_seed", root_seed), *(("a seed", seed) for seed in seeds)):
    check_integer(name, value, 0, 2**32 - 1)
  return seeds
