"""Compiled programs, and how long they and products of matrices take."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import devices, plan, programs
from jaxdl.population.chunk import BoundPrograms
from jaxdl.population.plan import Group

# Precision of float32 products: of the machine's full float32 units, and of two matrix units.
PRECISIONS = {
  "float32": "float32",
  "TF32": "tensorfloat32",
  "bfloat16": "BF16_BF16_F32",
}


class Program(NamedTuple):
  """The compiled programs of a chunk."""

  group: Group
  bound: BoundPrograms
  compile_seconds: float

  @property
  def num_members(self) -> int:
    """Members that train at a time."""
    return self.group.layout.chunk_size * self.group.layout.chunk_arms

  @property
  def temporary_bytes(self) -> int:
    """Bytes that XLA assigned to an epoch besides its arguments, of all members."""
    analysis = self.bound.programs.train_epoch.memory_analysis()
    return getattr(analysis, "temp_size_in_bytes", 0)


def compile_group(group: Group, dataset: Dataset, precision: str | None = None) -> Program:
  """Compiles the programs of a group's first chunk, with a precision of `PRECISIONS`."""
  device = jax.local_devices()[0]
  splits = programs.put_splits(dataset, device)
  start = time.perf_counter()
  with (
    jax.default_matmul_precision(PRECISIONS[precision]) if precision else contextlib.nullcontext()
  ):
    compiled = chunk_lib.compile_chunk(group, splits, device)
  seconds = time.perf_counter() - start
  bound = chunk_lib.bind(compiled, group, group.chunks()[0], splits, device)
  return Program(group, bound, seconds)


def compile_arm(arm: Arm, dataset: Dataset, width: int, precision: str | None = None) -> Program:
  """Compiles the programs that train one arm with `width` seeds at a time."""
  kind = devices.kind_of(jax.local_devices()[0])
  (group,) = plan.plan_groups(dataset, {"arm": arm}, range(width), 0, kind, width)
  return compile_group(group, dataset, precision)


def time_epochs(bound: BoundPrograms, most: int = 3, seconds: float = 1.0) -> list[float]:
  """Returns the seconds of epochs, after one that warms up: `most`, or as many as fit a time."""
  members = jax.block_until_ready(bound.train_epoch(bound.create(), 0)[0])
  times: list[float] = []
  while not times or (len(times) < most and sum(times) < seconds):
    start = time.perf_counter()
    members, _ = jax.block_until_ready(bound.train_epoch(members, 1 + len(times)))
    times.append(time.perf_counter() - start)
  return times


def matmul_rate(precision: str, size: int, seconds: float = 1.0) -> float:
  """Returns the best measured FLOP/s of the product of two random matrices `[size, size]`."""
  a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
  with jax.default_matmul_precision(PRECISIONS[precision]):
    product = jax.jit(lambda a, b: a @ b).lower(a, b).compile()
  return 2 * size**3 / best_seconds(lambda: product(a, b), seconds)


def best_seconds(function: Callable[[], Any], seconds: float = 0.5) -> float:
  """Returns the shortest time of a call, after one that warms up."""
  jax.block_until_ready(function())
  best, end = float("inf"), time.perf_counter() + seconds
  while time.perf_counter() < end:
    start = time.perf_counter()
    jax.block_until_ready(function())
    best = min(best, time.perf_counter() - start)
  return best
