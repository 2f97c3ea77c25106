"""Decoded arrays of a prepared dataset, kept in one checked file for each prepared copy."""

import functools
import hashlib
import json
import logging
import os
import pathlib
import warnings
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from jaxdl import errors
from jaxdl.data.dataset import Dataset, Split
from jaxdl.store import files

# Part of every fingerprint; change it with whatever changes the arrays or the layout of the file.
_LOGGER = logging.getLogger("jaxdl")

_CACHE_FORMAT = 1


def make_dataset(name: str, train: Split, test: Split, class_names: Sequence[str]) -> Dataset:
  """Makes a dataset of two splits, with its checksum and an empty validation split."""
  validation = Split(train.images[:0], train.labels[:0])
  return Dataset(name, train, validation, test, tuple(class_names), _checksum(train, test))


def _checksum(train: Split, test: Split) -> str:
  """Returns the SHA-256 (hex) of the type, shape and bytes of all arrays."""
  digest = hashlib.sha256()
  for array in (train.images, train.labels, test.images, test.labels):
    digest.update(f"{array.dtype.str}{list(array.shape)}".encode())
    digest.update(array)
  return digest.hexdigest()


# ----------------------------------------------------------------------------------------------
# The cache of arrays: an uncompressed .npz file for each prepared copy
#
# Beside the four arrays it holds `meta`: the SHA-256 of a JSON text, then that text, with the
# fingerprint of the source, the checksum of the arrays and the names of the classes.


def fingerprint_of(folder: pathlib.Path) -> str:
  """Returns a hash that changes when a file of a prepared copy changes its size or its time."""
  try:
    stats = {path.name: path.stat() for path in folder.iterdir()}
  except OSError as error:
    raise errors.InputError(f"{folder} cannot be read: {errors.brief(error)}") from error
  files = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
  source = [_CACHE_FORMAT, os.fspath(folder.resolve()), files]
  return hashlib.sha256(json.dumps(source).encode()).hexdigest()


def cache_root(cache_dir: str | os.PathLike | None = None) -> pathlib.Path | None:
  """Returns the folder for all that is cached, or None (with a warning) where there is no home.

  Args:
    cache_dir: the folder, if it is given; else $JAXDL_CACHE_DIR, else $XDG_CACHE_HOME/jaxdl, else
      ~/.cache/jaxdl.
  """
  given = cache_dir or os.environ.get("JAXDL_CACHE_DIR")
  xdg = os.environ.get("XDG_CACHE_HOME", "")
  try:
    if given:
      return pathlib.Path(given).expanduser()
    if os.path.isabs(xdg):  # A relative one is to be ignored, says the XDG specification.
      return pathlib.Path(xdg, "jaxdl")
    return pathlib.Path.home() / ".cache" / "jaxdl"
  except RuntimeError as error:
    _warn_once(f"nothing is cached, set JAXDL_CACHE_DIR: {errors.brief(error)}")
    return None


def file_for(
  cache_dir: str | os.PathLike | None, folder: pathlib.Path, name: str
) -> pathlib.Path | None:
  """Returns the cache file of a prepared copy, or None where nothing is cached."""
  cache = cache_root(cache_dir)
  if cache is None:
    return None
  # The hash tells copies in different folders apart.
  source = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
  return cache / f"{name.replace('/', '-')}-{folder.name}-{source}.npz"


def read(file: pathlib.Path | None, fingerprint: str, name: str) -> Dataset | None:
  """Returns the cached dataset; None where it is not there, of another source, or damaged."""
  if file is None or not os.path.isfile(file):
    return None
  try:
    with open(file, "rb") as stream:
      return _parse(stream, fingerprint, name)
  except (FileNotFoundError, NotADirectoryError, PermissionError):
    return None  # Writing it says what is wrong, if anything is.
  except Exception as error:  # zipfile and numpy raise a dozen kinds on damaged files.
    _LOGGER.warning("rebuilding the damaged cache file %s: %s", file, errors.brief(error))
    return None


def _parse(stream: BinaryIO, fingerprint: str, name: str) -> Dataset | None:
  """Returns the dataset in a cache file; None where its source is another; raises on damage."""
  with warnings.catch_warnings():
    # numpy only warns of a header that it should not trust.
    warnings.simplefilter("error", UserWarning)
    with np.load(stream, allow_pickle=False) as arrays:
      if any(part.compress_type != zipfile.ZIP_STORED for part in arrays.zip.infolist()):
        raise ValueError("it is compressed")  # so a small file could fill the memory
      meta = arrays["meta"].tobytes()
      if hashlib.sha256(meta[32:]).digest() != meta[:32]:
        raise ValueError("wrong checksum of its description")
      meta = json.loads(meta[32:])
      if meta["fingerprint"] != fingerprint:
        return None
      train = Split(arrays["train_images"], arrays["train_labels"])
      test = Split(arrays["test_images"], arrays["test_labels"])
  for split in (train, test):
    if (split.images.dtype, split.images.ndim) != (np.uint8, 4) or split.labels.dtype != np.int32:
      raise ValueError("arrays of wrong types or shapes")
  dataset = make_dataset(name, train, test, meta["class_names"])
  if dataset.checksum != meta["checksum"]:
    raise ValueError("wrong checksum of its arrays")
  return dataset


def write(file: pathlib.Path | None, fingerprint: str, dataset: Dataset) -> None:
  """Writes a cache file whole or not at all; warns once where that is not possible."""
  if file is None:
    return
  meta = json.dumps(
    {
      "fingerprint": fingerprint,
      "checksum": dataset.checksum,
      "class_names": dataset.class_names,
    }
  ).encode()
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(file) as stream:
      np.savez(
        stream,
        train_images=dataset.train.images,
        train_labels=dataset.train.labels,
        test_images=dataset.test.images,
        test_labels=dataset.test.labels,
        meta=np.frombuffer(hashlib.sha256(meta).digest() + meta, np.uint8),
      )
  except (OSError, ValueError) as error:  # zipfile closes with a ValueError on a full disk.
    # Not all of an OSError: the name of the temporary file differs each time.
    reason = getattr(error, "strerror", None) or errors.brief(error)
    _warn_once(f"{dataset.name} is not cached in {file.parent}: {reason}")


@functools.cache
def _warn_once(message: str) -> None:
  _LOGGER.warning("%s", message)
