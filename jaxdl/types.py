"""The words and the shapes that the whole library shares.

Axes, as written in docstrings and shape comments:

  S seeds, A arms, E epochs, T steps of an epoch, B batch, N examples, C classes (or outputs),
  H W image height and width, D features or image channels.

  seed        one replication: one draw of initial weights, data order and dropout
  arm         one condition under comparison
  member      one (seed, arm) pair: one training run
  population  all members of an experiment, axes [S, A]
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
  """Images and labels of one part of a dataset."""

  images: np.ndarray  # [N, H, W, D] uint8, 0 to 255
  labels: np.ndarray  # [N] int32, 0 to C - 1

  def __len__(self) -> int:
    return len(self.labels)


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
