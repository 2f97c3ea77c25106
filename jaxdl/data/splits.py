"""Ways to cut a dataset: choose classes, take fewer examples, split off a validation set."""

import dataclasses
import logging
import math
import numbers
import operator
from collections.abc import Sequence

import numpy as np

from jaxdl import errors
from jaxdl.data.dataset import Dataset, Split
from jaxdl.data.resampling import Resampling

_LOGGER = logging.getLogger("jaxdl")

VALIDATION_SPLITS = ("end", "shuffled", "stratified")
# The seed of every draw of examples. It is always the same, so that a dataset has one test set.
DRAW_SEED = 0


def select_classes(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
  """Keeps the examples of some classes, without reordering them, and relabels the classes 0, 1, ...

  Args:
    dataset: any dataset with one class per example.
    classes: the classes to keep, at least two, in the order of their new labels. An int is an index
      into `dataset.class_names`; a string is one of these names.

  Returns:
    The dataset with `class_names` in the order of `classes`. Its checksum is still that of the
    arrays as loaded.

  Raises:
    InputError: for fewer than two classes, a class given twice, an unknown class, or a class
      without a training example.

  Examples:
    >>> import jaxdl
    >>> jaxdl.select_classes(jaxdl.load("digits"), (3, 7))
    <digits: 362 images of 28 x 28 x 1, 2 classes (179 to 183 each); training 273, test 89>
  """
  if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
    raise errors.InputError(f"classes must be a list of classes, not {errors.show(classes)}")
  if not has_one_class_each(dataset):
    raise errors.InputError(
      f"classes cannot be selected: the examples of {dataset.name} do not have one class each"
    )
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


def resample(dataset: Dataset, scheme: str) -> Dataset:
  """Lets every seed draw its own split of the training examples, in the place of the test set.

  The validation set, for early stopping, stays what it is, the same for all seeds. The test set is
  not used any more: all results on "test" examples are about held-out training examples.

  Args:
    dataset: any dataset.
    scheme: "folds(5)", "holdout(0.2)" or "bootstrap"; see `jaxdl.data.resampling`.

  Raises:
    InputError: the scheme is unknown, or there are too few examples for it.
  """
  resampling = Resampling(scheme, len(dataset.train))
  return dataclasses.replace(dataset, test=dataset.train, resampling=resampling)


def has_one_class_each(dataset: Dataset) -> bool:
  """Returns whether targets are classes `[N]`."""
  return dataset.is_classification and dataset.train.targets.ndim == 1


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
  return dataclasses.replace(dataset, train=dataset.train.take(slice(num_train)))


def split_validation(dataset: Dataset, fraction: float, how: str = "end") -> Dataset:
  """Moves a part of the training set to the validation set.

  Of N training examples floor(N * (1 - fraction)) stay, computed in double precision as
  `validation_split` of `keras.Model.fit` does. Both parts keep their order. A dataset that already
  has a validation set keeps it, and a warning says so.

  Args:
    dataset: any dataset.
    fraction: the share of the training set to move, 0 <= fraction < 1. 0 leaves the dataset as it
      is.
    how: which examples are moved. "end": the last ones, as Keras does; where they are of one class
      only, as in data that are sorted by class, a warning says so. "shuffled": drawn at random,
      always the same ones. "stratified": drawn likewise, with the share of every class as in the
      training set, up to one example.

  Raises:
    InputError: the fraction is out of range or leaves one of the two sets empty, or the examples
      have no classes to be stratified by.

  Examples:
    >>> import jaxdl
    >>> digits = jaxdl.split_validation(jaxdl.load("digits"), 0.1)
    >>> len(digits.train), len(digits.validation)
    (1216, 136)
  """
  check_fraction(fraction)
  if how not in VALIDATION_SPLITS:
    raise errors.unknown_name("way to split off a validation set", how, VALIDATION_SPLITS)
  if fraction == 0:
    return dataset
  if len(dataset.validation):
    _LOGGER.warning(
      "%s has a validation set of %s examples; no other one is split off",
      *(dataset.name, f"{len(dataset.validation):,}"),
    )
    return dataset
  num_moved = num_of_fraction("validation", fraction, len(dataset.train))
  if how == "stratified" and not has_one_class_each(dataset):
    raise errors.InputError(
      f"the validation set of {dataset.name} cannot be stratified: its examples do not have one "
      "class each; use 'shuffled'"
    )
  if how == "end":
    train = dataset.train.take(slice(None, -num_moved))
    validation = dataset.train.take(slice(-num_moved, None))
    _warn_of_one_class(dataset, train, validation)
    return dataclasses.replace(dataset, train=train, validation=validation)
  classes = dataset.train.targets if how == "stratified" else None
  moved = draw(len(dataset.train), num_moved, classes)
  return dataclasses.replace(
    dataset,
    train=dataset.train.take(~moved),
    validation=dataset.train.take(moved),
    notes=(*dataset.notes, f"validation set {how} with seed {DRAW_SEED}"),
  )


def _warn_of_one_class(dataset: Dataset, train: Split, validation: Split) -> None:
  if not has_one_class_each(dataset):
    return
  kept = np.unique(validation.targets)
  if len(validation) > len(kept) == 1 and np.any(train.targets != kept[0]):
    _LOGGER.warning(
      "all %d validation examples of %s are of class %r: if its training set is sorted by class, "
      "split it 'stratified'",
      *(len(validation), dataset.name, dataset.class_names[kept[0]]),
    )


def check_fraction(fraction: float, what: str = "validation") -> None:
  """Raises InputError unless a fraction is 0 or more and less than 1."""
  is_number = isinstance(fraction, numbers.Real) and not isinstance(fraction, bool)
  if not is_number or not 0 <= fraction < 1:
    raise errors.InputError(
      f"the {what} fraction must be 0 or more and less than 1, not {errors.show(fraction)}"
    )


def num_of_fraction(what: str, fraction: float, num_examples: int) -> int:
  """Returns how many of N examples a fraction of them is, at least one and less than N.

  Raises:
    InputError: one part would be empty.
  """
  num_left = math.floor(num_examples * (1.0 - float(fraction)))
  if not 0 < num_left < num_examples:
    raise errors.InputError(
      f"a {what} fraction of {fraction} leaves {num_left} of {num_examples} examples for training; "
      "both parts need at least one"
    )
  return num_examples - num_left


def hold_out_test(examples: Split, fraction: float, has_classes: bool) -> tuple[Split, Split, str]:
  """Draws a test set from data that have none, always the same one.

  The other examples are shuffled, so that a validation set from their end is random too.

  Args:
    examples: all examples.
    fraction: the share to draw, 0 < fraction < 1.
    has_classes: whether targets are classes; if there is one per example, the draw is stratified.

  Returns:
    The training and the test set, and a note for the dataset's description.

  Raises:
    InputError: the fraction is out of range or leaves one of the two sets empty.
  """
  check_fraction(fraction, "test")
  num_drawn = num_of_fraction("test", fraction, len(examples))
  stratified = has_classes and examples.targets.ndim == 1
  drawn = draw(len(examples), num_drawn, examples.targets if stratified else None)
  order = random_order(len(examples))
  how = "drawn by class" if stratified else "drawn"
  note = f"the test set is a share of {fraction:g}, {how} with seed {DRAW_SEED}"
  return examples.take(order[~drawn[order]]), examples.take(drawn), note


def random_order(num_examples: int) -> np.ndarray:
  """Returns a permutation `[N]`, the same in every version of NumPy.

  NumPy promises that of the bits of its generators, and not of `Generator.permutation`.
  """
  return np.argsort(np.random.PCG64(DRAW_SEED).random_raw(num_examples), kind="stable")


def draw(num_examples: int, num_drawn: int, classes: np.ndarray | None = None) -> np.ndarray:
  """Draws examples at random, the same ones whenever it is called.

  Args:
    num_examples: N.
    num_drawn: how many to draw.
    classes: `[N]` int; None, or classes to stratify by. Of a class with n examples, n * num_drawn
      / N are then drawn, rounded up or down.

  Returns:
    Which examples are drawn, `[N]` bool.
  """
  order = random_order(num_examples)
  if classes is None:
    chosen = order[:num_drawn]
  else:
    labels, counts = np.unique(classes, return_counts=True)
    quotas, rests = np.divmod(counts * num_drawn, num_examples)
    # What rounding down leaves over goes to the classes that lost most by it.
    quotas[np.argsort(-rests, kind="stable")[: num_drawn - quotas.sum()]] += 1
    pairs = zip(labels, quotas, strict=True)
    chosen = np.concatenate([order[classes[order] == label][:quota] for label, quota in pairs])
  drawn = np.zeros(num_examples, bool)
  drawn[chosen] = True
  return drawn


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
