"""The coursework's runs with 64 seeds: an epoch of every program, times how often it runs."""

import concurrent.futures
import dataclasses
import importlib
import runpy
import statistics
import time
from typing import Any

import jax
import numpy as np

from jaxdl import data
from jaxdl import experiment as experiment_lib
from jaxdl.data.dataset import Dataset, Split
from jaxdl.population import devices
from jaxdl.population.plan import Group

from .. import CONFIGS
from .part import Part
from .timing import Program, compile_group, time_epochs

# Those of the coursework, as in ml_collections_configs/claims.py.
_RUNS = {
  "compare_initializers": "mnist",
  "compare_losses": "quick",
  "compare_optimizers": "mnist",
  "compare_strategies": "cifar10",
  "gradient_flow": "mnist",
  "compare_batch_sizes": "mnist",
}

# An epoch of more steps than this is measured on so many, and scaled.
_MAX_STEPS = 2_000


def measure(part: Part):
  kind = devices.kind_of(jax.local_devices()[0])
  work = []
  runs = dict([*_RUNS.items()][:2]) if part.is_tiny else _RUNS
  for name, variant in runs.items():
    experiment, dataset = load_experiment(part, name, variant)
    groups = experiment_lib.plan_groups(experiment, dataset, kind)
    work += [(name, group, dataset) for group in groups]
  start = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(max_workers=devices.num_cores()) as pool:
    compiled = [pool.submit(_compile_some_steps, group, dataset) for _, group, dataset in work]
    concurrent.futures.wait(compiled)
  compiling = time.perf_counter() - start
  part.row("compiling all programs, in parallel", programs=len(work), seconds=compiling)
  totals: dict[str, float] = {}
  measured = 0
  for (name, group, _), future in zip(work, compiled, strict=True):
    if part.seconds_left < 0:
      break
    model = f"{group.recipe.arm.model}, batch {group.recipe.arm.batch_size}"
    with part.trying("programs", run=name, model=model):
      program, share = future.result()
      seconds = statistics.median(time_epochs(program.bound, most=2)) / share
      total = seconds * group.recipe.arm.num_epochs * group.layout.num_chunks
      measured += 1
      totals[name] = totals.get(name, 0.0) + total
      part.row(
        "programs",
        run=name,
        model=model,
        optimizer=str(group.recipe.optimizer),
        members=program.num_members,
        chunks=group.layout.num_chunks,
        epochs=group.recipe.arm.num_epochs,
        seconds_per_epoch=seconds,
        seconds=total,
      )
  for name, total in totals.items():
    part.row("runs, without early stopping", run=name, seconds=total)
  total = sum(totals.values())
  text = f"{total:.0f} s training, {compiling:.0f} s compiling, {measured} of {len(work)} programs"
  is_whole = measured == len(work) and not part.is_tiny
  holds = total + compiling <= 60 if is_whole else None
  part.check("the whole coursework with 64 seeds an arm takes at most 60 s", text, holds)


def _compile_some_steps(group: Group, dataset: Dataset) -> tuple[Program, float]:
  """Compiles a group for at most `_MAX_STEPS` steps; returns their share of an epoch too."""
  steps = -(-len(dataset.train) // group.recipe.arm.batch_size)
  if steps <= _MAX_STEPS:
    return compile_group(group, dataset), 1.0
  num_train = _MAX_STEPS * group.recipe.arm.batch_size
  fewer = data.take_train(dataset, num_train)
  return compile_group(group, fewer), _MAX_STEPS / steps


def load_experiment(part: Part, name: str, variant: str) -> tuple[Any, Dataset]:
  """Returns an experiment of the coursework with 64 seeds, and its data."""
  variant = "smoke" if part.is_tiny else variant
  config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)
  config.num_seeds = 2 if part.is_tiny else 64
  module = importlib.import_module(f"..{name}", __package__)
  experiment = module.SCRIPT.create_experiment(config)
  dataset = part.data.get(experiment.dataset)
  if dataset is not None:  # of CIFAR-10, the file has a part only
    train, test = (_at_least(split, 10_000) for split in (dataset.train, dataset.test))
    dataset = dataclasses.replace(dataset, train=train, test=test)
  return experiment, experiment_lib.load_dataset(experiment, dataset=dataset)


def _at_least(split: Split, size: int) -> Split:
  """Returns a split whose examples are repeated if there are fewer."""
  return split if len(split) >= size else split.take(np.arange(size) % len(split))
