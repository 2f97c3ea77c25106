"""Datasets in memory, and the vocabulary that the whole library shares.

Axes, as written in docstrings and shape comments:

  S seeds, A arms, E epochs, T steps of an epoch, B batch, N examples, C classes (or outputs),
  H W image height and width, D features or image channels, L positions of a sequence, K numbers to
  predict.

  seed        one replication: one draw of initial weights, data order and dropout
  arm         one condition under comparison
  member      one (seed, arm) pair: one training run
  population  all members of an experiment, axes [S, A]
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdl import calls
from jaxdl.data.resampling import Resampling


@dataclasses.dataclass(frozen=True)
class Split:
  """The examples of one part of a dataset."""

  inputs: np.ndarray  # [N, ...] uint8, int32 or float32
  targets: np.ndarray  # [N] or [N, L] int32: classes; [N] or [N, K] float32: numbers to predict

  def __len__(self) -> int:
    return len(self.targets)

  def take(self, chosen: Any) -> "Split":
    """Returns the examples that a slice, a mask `[N]` or indices choose."""
    return Split(self.inputs[chosen], self.targets[chosen])


# A traced function: inputs `[b, ...]` -> floats `[b, ...]`; or what `calls.Call.of` makes one of,
# such as its name, "package.module:function".
Preprocess = Callable[[Any], Any] | str | calls.Call


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
  """A dataset held in memory. `print` shows what is in it.

  `validation` is empty (length 0) if the data have no validation set of their own, until
  `jaxdl.data.split_validation` takes one from `train`.
  """

  name: str
  train: Split
  validation: Split
  test: Split
  class_names: tuple[str, ...]  # [C]; empty for regression
  # SHA-256 (hex) of the arrays as loaded, before classes are chosen, and of what preprocesses them.
  checksum: str
  # Applied inside the step. None: uint8 images are scaled by 1/255, all else is taken as it is.
  preprocess: Preprocess | None = None
  notes: tuple[str, ...] = ()  # how it came about, for the description
  # If set, every seed draws its own split of `train`, which `test` then is as well.
  resampling: Resampling | None = None

  @property
  def splits(self) -> tuple[Split, Split, Split]:
    """Training, validation and test."""
    return self.train, self.validation, self.test

  @property
  def stored(self) -> tuple[Split, ...]:
    """The splits without the test examples if they are training examples too."""
    return self.splits if self.resampling is None else self.splits[:2]

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def num_train(self) -> int:
    """Examples that a member is trained on."""
    return len(self.train) if self.resampling is None else self.resampling.num_train

  @property
  def num_test(self) -> int:
    """Examples that a member is tested on."""
    return len(self.test) if self.resampling is None else self.resampling.num_test

  @property
  def is_classification(self) -> bool:
    """Whether targets are classes; if not, they are numbers to predict (regression)."""
    return bool(self.class_names)

  @property
  def description(self) -> str:
    """What is in it, in one line, e.g. "iris: 150 examples with 4 numbers, 3 classes (50 each)"."""
    count = sum(map(len, self.stored))
    sizes = [f"training {self.num_train:,}", f"test {self.num_test:,}"]
    if len(self.validation):
      sizes.insert(1, f"validation {len(self.validation):,}")
    found = f"{count:,} {_describe_inputs(self.train.inputs)}, {self._describe_targets()}"
    parts = [found, ", ".join(sizes), *self.notes]
    if self.resampling is not None:
      parts.append(f"every seed has its own split: {self.resampling.scheme}")
    return f"{self.name}: {'; '.join(parts)}"

  def _describe_targets(self) -> str:
    targets = [split.targets for split in self.stored if len(split)]
    shape = self.train.targets.shape[1:]
    if not self.is_classification:
      least, most = min(t.min() for t in targets), max(t.max() for t in targets)
      what = f"{shape[0]} targets" if shape else "targets"
      return f"{what} from {least:.4g} to {most:.4g}"
    if shape:
      return f"{self.num_classes:,} classes at each of {shape[0]:,} positions"
    counts = sum(np.bincount(t, minlength=self.num_classes) for t in targets)  # [C]
    least, most = int(counts.min()), int(counts.max())
    each = f"{least:,} each" if least == most else f"{least:,} to {most:,} each"
    return f"{self.num_classes:,} classes ({each})"

  def __repr__(self) -> str:
    return f"<{self.description}>"


def _describe_inputs(inputs: np.ndarray) -> str:
  shape = inputs.shape[1:]
  size = " x ".join(map(str, shape))
  if inputs.dtype == np.uint8 and len(shape) == 3:
    return f"images of {size}"
  kind = {"u": "byte", "i": "integer", "f": "number"}[inputs.dtype.kind]
  return f"examples with {size} {kind}{'' if size == '1' else 's'}"


def make_dataset(
  name: str,
  train: Split,
  test: Split,
  class_names: Sequence[str],
  validation: Split | None = None,
  preprocess: Preprocess | None = None,
  notes: Sequence[str] = (),
) -> Dataset:
  """Returns the dataset of two or three splits, with its checksum."""
  validation = train.take(slice(0)) if validation is None else validation
  digest = hash_splits(train, validation, test)
  if preprocess is not None:
    digest = hashlib.sha256(f"{digest} {calls.Call.of(preprocess)}".encode()).hexdigest()
  names = tuple(class_names)
  return Dataset(name, train, validation, test, names, digest, preprocess, tuple(notes))


def hash_splits(train: Split, validation: Split, test: Split) -> str:
  """Returns the SHA-256 (hex) of the dtypes, shapes and bytes of all arrays.

  An empty validation split leaves no trace in it.
  """
  digest = hashlib.sha256()
  for split in (train, test, *[validation] * (len(validation) > 0)):
    for array in (split.inputs, split.targets):
      digest.update(f"{array.dtype.str}{list(array.shape)}".encode())
      digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()
