"""The data of the GPU check: packed on a machine that has it, read on the one with the GPU."""

import argparse
import dataclasses
import importlib.util
import pathlib
import shutil

import numpy as np

from jaxdl import data
from jaxdl.data.dataset import Dataset, Split


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
