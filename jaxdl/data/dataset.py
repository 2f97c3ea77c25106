"""Datasets in memory, ways to cut them, and the vocabulary that the whole library shares.

Axes, as written in docstrings and shape comments:

  S seeds, A arms, E epochs, T steps of an epoch, B batch, N examples, C classes (or outputs),
  H W image height and width, D features or image channels.

  seed        one replication: one draw of initial weights, data order and dropout
  arm         one condition under comparison
  member      one (seed, arm) pair: one training run
  population  all members of an experiment, axes [S, A]
"""

import dataclasses
import hashlib
import logging
import math
import numbers
import operator
from collections.abc import Sequence

import numpy as np

from jaxdl import errors

_LOGGER = logging.getLogger("jaxdl")


@dataclasses.dataclass(frozen=True)
class Split:
  """Images and labels of one part of a dataset."""

  inputs: np.ndarray  # [N, ...]
  targets: np.ndarray  # [N]

  def __len__(self) -> int:
    return len(self.targets)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """An image-classification dataset held in memory.

  `validation` is empty (length 0) until `jaxdl.data.split_validation` takes it from `train`.
  """

  name: str
  train: Split
  validation: Split
  test: Split
  class_names: tuple[str, ...]  # [C]
  checksum: str  # SHA-256 (hex) of the arrays as loaded, before classes are chosen

  @property
  def splits(self) -> tuple[Split, Split, Split]:
    """Training, validation and test."""
    return self.train, self.validation, self.test

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


def make_dataset(name: str, train: Split, test: Split, class_names: Sequence[str]) -> Dataset:
  """Returns the dataset of two splits, with its checksum and an empty validation split."""
  validation = Split(train.inputs[:0], train.targets[:0])
  return Dataset(name, train, validation, test, tuple(class_names), _checksum(train, test))


def _checksum(train: Split, test: Split) -> str:
  """Returns the SHA-256 (hex) of the dtypes, shapes and bytes of all arrays."""
  digest = hashlib.sha256()
  for array in (train.inputs, train.targets, test.inputs, test.targets):
    digest.update(f"{array.dtype.str}{list(array.shape)}".encode())
    digest.update(array)
  return digest.hexdigest()


def select_classes(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
  """Keeps the examples of some classes, without reordering them, and relabels the classes 0, 1, ...

  Args:
    dataset: any dataset.
    classes: the classes to keep, at least two, in the order of their new labels. An int is an index
      into `dataset.class_names`; a string is one of these names.

  Returns:
    The dataset with `class_names` in the order of `classes`. Its checksum is still that of the
    arrays as loaded.

  Raises:
    InputError: for fewer than two classes, a class given twice, an unknown class, or a class
      without a training example.
  """
  if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
    raise errors.InputError(f"classes must be a list of classes, not {errors.show(classes)}")
  indices = [_class_index(dataset, name) for name in classes]
  if len(indices) < 2:
    raise errors.InputError(f"select two or more classes, not {len(indices)}")
  new_label = np.full(dataset.num_classes, -1, np.int32)  # [C], -1 for a class that is left out
  for label, index in enumerate(indices):
    if new_label[index] >= 0:
      raise errors.InputError(f"class {dataset.class_names[index]!r} is selected twice")
    if not np.any(dataset.train.targets == index):
      raise errors.InputError(
        f"{dataset.name} has no training example of class {dataset.class_names[index]!r}"
      )
    new_label[index] = label

  def keep(split: Split) -> Split:
    labels = new_label[split.targets]
    kept = labels >= 0
    return Split(split.inputs[kept], labels[kept])

  return dataclasses.replace(
    dataset,
    train=keep(dataset.train),
    validation=keep(dataset.validation),
    test=keep(dataset.test),
    class_names=tuple(dataset.class_names[index] for index in indices),
  )


def take_train(dataset: Dataset, num_train: int) -> Dataset:
  """Keeps the first `num_train` training examples.

  Raises:
    InputError: `num_train` is not a positive integer, or exceeds the number of training examples.
  """
  errors.check_integer("num_train", num_train, 1)
  if num_train > len(dataset.train):
    raise errors.InputError(
      f"num_train is {num_train:,}, but {dataset.name} has {len(dataset.train):,} training examples"
    )
  images, labels = dataset.train.inputs, dataset.train.targets
  return dataclasses.replace(dataset, train=Split(images[:num_train], labels[:num_train]))


def split_validation(dataset: Dataset, fraction: float) -> Dataset:
  """Moves the last examples of the training set to the validation set, as Keras does.

  Of N training examples the first floor(N * (1 - fraction)) stay, computed in double precision as
  `validation_split` of `keras.Model.fit` does. Where the rest is of one class only, as in data that
  are sorted by class, a warning says so.

  Args:
    dataset: a dataset whose validation set is empty.
    fraction: the share of the training set to move, 0 <= fraction < 1. 0 leaves the dataset as it
      is.

  Raises:
    InputError: the fraction is out of range or leaves one of the two sets empty, or the dataset
      already has a validation set.
  """
  check_fraction(fraction)
  if fraction == 0:
    return dataset
  if len(dataset.validation):
    raise errors.InputError(f"{dataset.name} already has a validation set")
  split_at = math.floor(len(dataset.train) * (1.0 - float(fraction)))
  if not 0 < split_at < len(dataset.train):
    raise errors.InputError(
      f"a validation fraction of {fraction} leaves {split_at} of {len(dataset.train)} examples "
      "for training; both parts need at least one"
    )
  images, labels = dataset.train.inputs, dataset.train.targets
  num_validation, kept = len(labels) - split_at, np.unique(labels[split_at:])
  if num_validation > len(kept) == 1 and np.any(labels[:split_at] != kept[0]):
    _LOGGER.warning(
      "all %d validation examples of %s are of class %r: is its training set sorted by class?",
      *(num_validation, dataset.name, dataset.class_names[kept[0]]),
    )
  return dataclasses.replace(
    dataset,
    train=Split(images[:split_at], labels[:split_at]),
    validation=Split(images[split_at:], labels[split_at:]),
  )


def check_fraction(fraction: float):
  """Raises InputError unless `split_validation` accepts the fraction."""
  is_number = isinstance(fraction, numbers.Real) and not isinstance(fraction, bool)
  if not is_number or not 0 <= fraction < 1:
    raise errors.InputError(
      f"the validation fraction must be 0 or more and less than 1, not {errors.show(fraction)}"
    )


def _class_index(dataset: Dataset, name: int | str) -> int:
  """Returns the index of a class that is given by index or by name."""
  if isinstance(name, str):
    if name not in dataset.class_names:
      raise errors.unknown_name(f"class of {dataset.name}", name, dataset.class_names)
    return dataset.class_names.index(name)
  if not isinstance(name, numbers.Integral) or isinstance(name, bool):
    raise errors.InputError(f"a class is an index or a name, not {errors.show(name)}")
  if not 0 <= name < dataset.num_classes:
    known = ", ".join(f"{index} ({known})" for index, known in enumerate(dataset.class_names))
    raise errors.InputError(f"{dataset.name} has no class {errors.show(name)}; known: {known}")
  return operator.index(name)
