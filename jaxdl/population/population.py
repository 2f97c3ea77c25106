"""Trains a population: plan the chunks, train them, assemble the results."""

import contextlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, show
from jaxdl.population import devices, local, plan
from jaxdl.population.assembly import assemble
from jaxdl.population.local import Execute
from jaxdl.population.looks import Looks, train_looks
from jaxdl.population.plan import Group
from jaxdl.population.programs import Observer
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population
from jaxdl.settings import plain
from jaxdl.store.store import Store


def train_population(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  *,
  seeds: int | Sequence[int] | np.ndarray,
  root_seed: int = 0,
  chunk_size: int | None = None,
  slice_size: int | None = None,
  workers: Sequence[jax.Device] | None = None,
  groups: Sequence[Group] | None = None,
  progress: Progress | bool = True,
  observe: Observer | None = None,
  keep_logits: bool = False,
  keep_params: bool = False,
  store: Store | None = None,
  checkpoint_every: int | None = None,
  execute: Execute | None = None,
  until_decided: Looks | None = None,
) -> Population:
  """Trains every arm with every seed and tests the trained models.

  Args:
    dataset: the dataset to train, validate and test on.
    arms: name -> arm, A of them.
    seeds: the S replications of each arm: how many, or which ones (16 means 0, 1, ... 15). A
      replication does not depend on S or A.
    root_seed: seed of all randomness.
    chunk_size: seeds that a worker trains at a time, with all arms of their program; None chooses
      by model, backend and memory.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    workers: one device per worker; a CPU device may occur several times, once per core to use.
      None uses all local devices.
    groups: the result of `plan.plan_groups` for these arguments; None plans for the first worker.
    progress: show progress: a bar on a terminal and in a notebook, elsewhere a line now and then.
      Or what is told about every epoch.
    observe: records more about every member during training; see `Observer`.
    keep_logits: keep every member's logits on the test set, S * A * N * C numbers.
    keep_params: keep every member's variables, those that results are about.
    store: where checkpoints and results of chunks are kept; what it already has is not trained
      again. None keeps nothing. With a store, a chunk that fails in every attempt is left out, and
      its seeds become the population's `missing_seeds`.
    checkpoint_every: epochs between checkpoints of a chunk; None saves every few seconds.
    execute: trains the chunks; None uses `workers`.
    until_decided: after which numbers of seeds to look, and which arms to train on; see
      `jaxdl.population.until_decided`. None trains all seeds of all arms.

  Returns:
    The population, of the seeds up to the look at which training ended. The same arguments give
    the same population on the same kind of device.

  Raises:
    InputError: a setting is out of range or does not fit the dataset, or no seed could be trained
      with all of its arms.

  Examples:
    >>> import jaxdl
    >>> arm = jaxdl.Arm(model="mlp(8)", loss="categorical_cross_entropy", num_epochs=1)
    >>> dataset = jaxdl.split_validation(jaxdl.load("digits"), 0.2)
    >>> population = jaxdl.train_population(dataset, {"mlp": arm}, seeds=2, progress=False)
    >>> population
    <population of 2 seeds x 1 arm (mlp): 2 finished>
    >>> population.metrics["test_accuracy"].shape
    (2, 1)
  """
  root_seed, chunk_size, slice_size = map(plain, (root_seed, chunk_size, slice_size))
  seeds = check_seeds(seeds, root_seed)
  if checkpoint_every is not None:
    check_integer("checkpoint_every", checkpoint_every, 1)
  workers = tuple(devices.workers() if workers is None else workers)
  if groups is None:
    kind = devices.kind_of(workers[0])
    block = None if until_decided is None else until_decided.sizes[0]
    groups = plan.plan_groups(dataset, arms, seeds, root_seed, kind, chunk_size, slice_size, block)
  progress = Progress.of(progress)
  progress.start(len(arms) * len(seeds), sum(arm.num_epochs for arm in arms.values()) * len(seeds))
  progress.compiling()
  every = plan.all_chunks(groups)
  if store is not None:
    store.log_resumption([chunk.name for chunk in every])
  settings = {
    "observe": observe,
    "keep_logits": keep_logits,
    "keep_params": keep_params,
    "checkpoint_every": checkpoint_every,
  }
  with contextlib.ExitStack() as stack:
    stack.callback(progress.close)
    if execute is None:
      execute = stack.enter_context(local.here(dataset, workers, store, settings))
    if until_decided is not None:
      return train_looks(
        until_decided,
        execute,
        groups,
        every,
        progress,
        lambda size, outcome, ends: assemble(dataset, arms, seeds[:size], groups, outcome, ends),
      )
    outcome = execute(groups, every, progress)
  return assemble(dataset, arms, seeds, groups, outcome)


def check_seeds(seeds: int | Sequence[int] | np.ndarray, root_seed: int) -> tuple[int, ...]:
  """Returns the seeds that the argument `seeds` of `train_population` stands for.

  Raises:
    InputError: the seeds are not distinct integers that fit 32 bits.
  """
  seeds = plain(seeds)
  if not isinstance(seeds, Sequence):
    check_integer("seeds", seeds, 1)
    seeds = range(seeds)
  seeds = tuple(map(plain, seeds))
  for name, value in (("root_seed", root_seed), *(("a seed", seed) for seed in seeds)):
    check_integer(name, value, 0, 2**32 - 1)
  if not seeds or len(set(seeds)) < len(seeds):
    raise InputError(f"seeds must be one or more distinct integers, not {show(seeds)}")
  return seeds
