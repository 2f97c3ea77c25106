"""What the parts of the GPU check measure with: workloads, their data, programs and clocks."""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxdl import data
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset, Split
from jaxdl.nn.networks import ResNet
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import devices, plan, programs
from jaxdl.population.chunk import BoundPrograms
from jaxdl.population.plan import Group

ROOT = pathlib.Path(__file__).parents[1]
# Precision of float32 products: of the machine's full float32 units, and of two matrix units.
PRECISIONS = {
  "float32": "float32",
  "TF32": "tensorfloat32",
  "bfloat16": "BF16_BF16_F32",
}
_PATIENT = {"patience": None, "num_epochs": 1_000}
_CLASSES = {"loss": "categorical_cross_entropy", **_PATIENT}


class Workload(NamedTuple):
  """A network of the coursework, as the benchmark has it.

  Attributes:
    arm: its settings.
    data: name of its data in `Data`.
    num_train: examples of an epoch that is timed, in whole batches.
    flops: floating-point operations of the products per training example, forwards and backwards.
  """

  arm: Arm
  data: str
  num_train: int
  flops: int


# Operations: two a product; the first layer takes two thirds, since its inputs have no gradient.
WORKLOADS = {
  "cnn_binary": Workload(
    Arm(batch_size=512, **_PATIENT), "two", 4096, 4 * 26**2 * 288 + 6 * (100 * 288 * 64 + 1600)
  ),
  "mlp_minibatch": Workload(
    Arm(model="mlp", batch_size=32, dropout_rate=0.0, **_CLASSES),
    "mnist",
    4096,
    4 * 784 * 128 + 6 * (128 * 64 + 640),
  ),
  "cifar_mlp": Workload(
    Arm(model="cifar_mlp", batch_size=64, dropout_rate=0.0, **_CLASSES),
    "cifar10",
    4096,
    4 * 3072 * 512 + 6 * (512 * 256 + 2560),
  ),
  "resnet8": Workload(
    Arm(model="resnet(8)", batch_size=64, **_CLASSES),
    "cifar10",
    1024,
    4 * 1024 * 27 * 16
    + 6 * (2 * 1024 * 144 * 16 + 256 * (144 + 288) * 32 + 64 * (288 + 576) * 64 + 640),
  ),
}


class XlaConv(nn.Conv):
  """A convolution that stays XLA's own; `nn.Conv` itself is computed as a product."""


class NativeResNet(ResNet):
  """A ResNet with XLA's own convolutions."""

  def _conv(self, x, features, stride=1, size=3):
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    conv = XlaConv(features, (size, size), (stride, stride), size // 2, use_bias=False, **init)
    return conv(x)


class Part:
  """What a part is given, and where its measurements go."""

  def __init__(self, name: str, options: argparse.Namespace):
    """Starts the part's clock."""
    self.name, self.options = name, options
    self.is_tiny = options.scale == "tiny"
    self._end = time.monotonic() + options.seconds

  @property
  def seconds_left(self) -> float:
    """Seconds until the part should have stopped by itself."""
    return self._end - time.monotonic()

  @functools.cached_property
  def data(self) -> dict[str, Dataset]:
    """Name -> data: `mnist`, `two` of its digits, and `cifar10`."""
    return load(None if self.is_tiny else self.options.data)

  def row(self, table: str, **row: Any):
    """Writes a row of a table."""
    self._write({"table": table, "row": row})

  def check(self, check: str, value: Any, holds: bool | None):
    """Writes whether something holds; None: it was not measured."""
    self._write({"check": check, "value": value, "holds": None if holds is None else bool(holds)})

  def _write(self, record: Mapping[str, Any]):
    with open(self.options.out, "a", encoding="utf-8") as file:
      file.write(json.dumps({"part": self.name, **record}, default=float) + "\n")

  @contextlib.contextmanager
  def trying(self, table: str, **row: Any) -> Iterator[None]:
    """Writes a row with the last line of an error, if there is one, and goes on."""
    try:
      yield
    except Exception as error:
      lines = str(error).strip().splitlines() or ["no message"]
      self.row(table, **row, error=f"{type(error).__name__}: {lines[0][:200]}")


def load(file: str | None) -> dict[str, Dataset]:
  """Reads the file of `pack`; None makes small data of the digits of scikit-learn and of noise."""
  if file is None:
    digits = data.load("digits")
    mnist = digits.train.inputs[:600], digits.train.targets[:600]
    test = digits.test.inputs[:100], digits.test.targets[:100]
    noise = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3), np.uint8)
    labels = np.arange(150, dtype=np.int32) % 10
    arrays = {"mnist": (*mnist, *test), "cifar10": (noise, labels, noise[:50], labels[:50])}
  else:
    with np.load(file, allow_pickle=False) as found:
      arrays = {
        name: tuple(found[f"{name}_{part}"] for part in ("x_train", "y_train", "x_test", "y_test"))
        for name in ("mnist", "cifar10")
      }
  every = {
    name: Dataset(
      name=name,
      train=Split(of[0], of[1].astype(np.int32)),
      validation=Split(of[0][:0], of[1][:0].astype(np.int32)),
      test=Split(of[2], of[3].astype(np.int32)),
      class_names=tuple(map(str, range(10))),
      checksum="",
    )
    for name, of in arrays.items()
  }
  two = data.split_validation(data.select_classes(every["mnist"], (3, 7)), 0.2)
  return {**every, "two": two}


def pack(options: argparse.Namespace) -> int:
  """Writes `data.npz`, and `packages`, the Python packages that machines often lack."""
  folder = pathlib.Path(options.out)
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {}
  for name, sizes in {"mnist": (None, None), "cifar10": (6_000, 2_000)}.items():
    dataset = data.load(name, data_dir=options.data_dir)
    for part, split, size in (("train", dataset.train, sizes[0]), ("test", dataset.test, sizes[1])):
      arrays[f"{name}_x_{part}"] = split.inputs[:size]
      arrays[f"{name}_y_{part}"] = split.targets[:size]
  np.savez_compressed(folder / "data.npz", **arrays)
  source = importlib.util.find_spec("ml_collections").submodule_search_locations[0]
  target = folder / "packages" / "ml_collections"
  ignore = shutil.ignore_patterns("__pycache__", "tests")
  shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
  size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
  print(f"{folder}: {size / 2**20:.1f} MiB")
  return 0


def first_examples(dataset: Dataset, num_train: int) -> Dataset:
  """Returns a dataset of so many training examples, repeated if there are fewer; no validation."""
  places = np.arange(num_train) % len(dataset.train)
  none, few = slice(0), slice(256)
  return dataclasses.replace(
    dataset,
    train=dataset.train.take(places),
    validation=dataset.train.take(none),
    test=dataset.test.take(few),
  )


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
  with jax.default_matmul_precision(PRECISIONS[precision]) if precision else _nothing():
    compiled = chunk_lib.compile_chunk(group, splits, device)
  seconds = time.perf_counter() - start
  bound = chunk_lib.bind(compiled, group, group.chunks()[0], splits, device)
  return Program(group, bound, seconds)


def compile_arm(arm: Arm, dataset: Dataset, width: int, precision: str | None = None) -> Program:
  """Compiles the programs that train one arm with `width` seeds at a time."""
  kind = devices.kind_of(jax.local_devices()[0])
  (group,) = plan.plan_groups(dataset, {"arm": arm}, range(width), 0, kind, width)
  return compile_group(group, dataset, precision)


_nothing = contextlib.nullcontext


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


def device_memory() -> str:
  """Returns what `nvidia-smi` says of the memory in use, or an empty text."""
  query = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader"]
  try:
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return ""
