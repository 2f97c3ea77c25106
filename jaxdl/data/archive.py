"""A dataset as one uncompressed .npz file with checksums: for caches, and for other processes.

It holds the arrays of the three splits and `meta`: a JSON text that says what the dataset is and
has the SHA-256 of the arrays, after the SHA-256 of that text. Reading it runs no code.
"""

import hashlib
import json
import os
import pathlib
from typing import BinaryIO

import numpy as np

from jaxdl import calls, errors
from jaxdl.data.dataset import Dataset, Split, hash_splits
from jaxdl.store import files, packing

_SPLITS = ("train", "validation", "test")
_INPUT_TYPES = (np.uint8, np.int32, np.float32)


def save(dataset: Dataset, path: str | os.PathLike) -> None:
  """Writes a dataset as it is to a file, for `read`, also in another process or on another machine.

  Args:
    dataset: any dataset. Its `preprocess` is saved by name.
    path: the file, with the ending .npz; it is complete or absent, whenever the process ends.

  Raises:
    InputError: the file cannot be written, or `preprocess` cannot be imported by its name.
  """
  if dataset.preprocess is not None and not calls.Call.of(dataset.preprocess).is_text:
    raise errors.InputError(
      f"{dataset.name} cannot be saved, because other processes cannot import its preprocess "
      f"{calls.Call.of(dataset.preprocess)}; define it in a module"
    )
  file = pathlib.Path(path)
  with files.naming(file.parent, "write to"):
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(file) as stream:
      write(stream, dataset)


def read(path: str | os.PathLike) -> Dataset:
  """Returns the dataset that `save` was given; `preprocess` is its name and not yet imported.

  Raises:
    InputError: the file is missing, damaged, or no dataset.
  """
  try:
    with open(path, "rb") as stream:
      dataset = parse(stream)
  except Exception as error:  # zipfile and numpy raise a dozen types of error on damaged files
    raise errors.InputError(
      f"{os.fspath(path)} is no dataset that was saved, or is damaged: {errors.brief(error)}"
    ) from error
  if dataset is None:
    raise errors.InputError(f"{os.fspath(path)} is no dataset that was saved, but one of a cache")
  return dataset


def write(stream: BinaryIO, dataset: Dataset, source: str = "") -> None:
  """Writes a dataset, and a text that identifies its source."""
  meta = {
    "name": dataset.name,
    "class_names": dataset.class_names,
    "checksum": dataset.checksum,
    "preprocess": None if dataset.preprocess is None else str(calls.Call.of(dataset.preprocess)),
    "notes": dataset.notes,
    "arrays": hash_splits(*dataset.splits),
    "source": source,
  }
  text = json.dumps(meta).encode()
  arrays: dict[str, np.ndarray] = {}
  for name, split in zip(_SPLITS, dataset.splits, strict=True):
    arrays |= {f"{name}_inputs": split.inputs, f"{name}_targets": split.targets}
  signed = np.frombuffer(hashlib.sha256(text).digest() + text, np.uint8)
  np.savez(stream, allow_pickle=False, **arrays, meta=signed)


def parse(stream: BinaryIO, source: str = "") -> Dataset | None:
  """Returns a dataset, or None if it has another source; raises some exception if it is damaged."""
  with packing.arrays_in(stream) as arrays:
    meta = arrays["meta"].tobytes()
    if hashlib.sha256(meta[32:]).digest() != meta[:32]:
      raise ValueError("the checksum of its description is wrong")
    meta = json.loads(meta[32:])
    if meta.get("source") != source:
      return None
    train, validation, test = (
      Split(arrays[f"{name}_inputs"], arrays[f"{name}_targets"]) for name in _SPLITS
    )
  for split in (train, validation, test):
    _check_types(split, len(meta["class_names"]))
    if split.inputs.shape[1:] != train.inputs.shape[1:] or split.inputs.dtype != train.inputs.dtype:
      raise ValueError("its splits differ in shape or type")
  if hash_splits(train, validation, test) != meta["arrays"]:
    raise ValueError("the checksum of its arrays is wrong")
  return Dataset(
    meta["name"],
    train,
    validation,
    test,
    tuple(meta["class_names"]),
    meta["checksum"],
    meta["preprocess"],
    tuple(meta["notes"]),
  )


def _check_types(split: Split, num_classes: int) -> None:
  """Raises ValueError unless the arrays are as `Split` says."""
  inputs, targets = split.inputs, split.targets
  if inputs.dtype not in _INPUT_TYPES or targets.dtype != (np.int32 if num_classes else np.float32):
    raise ValueError("its arrays have the wrong types")
  if inputs.ndim < 2 or 0 in inputs.shape[1:] or targets.ndim not in (1, 2):
    raise ValueError("its arrays have the wrong shapes")
  if len(inputs) != len(targets):
    raise ValueError("its arrays differ in length")
  if num_classes and targets.size and not (targets.min() >= 0 and targets.max() < num_classes):
    raise ValueError("its targets are not its classes")
