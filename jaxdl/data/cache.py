"""A cache of decoded datasets: one uncompressed .npz file for each prepared copy.

A file holds the four arrays and `meta`: a JSON text with the fingerprint of the source, the
checksum of the arrays and the names of the classes, after the SHA-256 of that text. Everything is
checked on every read, and a damaged file is rebuilt.
"""

import functools
import hashlib
import json
import logging
import os
import pathlib
import warnings
import zipfile
from typing import BinaryIO

import numpy as np

from jaxdl import errors
from jaxdl.data.dataset import Dataset, Split, make_dataset
from jaxdl.store import files

_LOGGER = logging.getLogger("jaxdl")

# Part of every fingerprint. Increase it when the arrays or the layout of the file change.
_CACHE_FORMAT = 1


def fingerprint_of(folder: pathlib.Path) -> str:
  """Returns a hash that changes when the size or time of a file in a prepared copy changes."""
  try:
    stats = {path.name: path.stat() for path in folder.iterdir()}
  except OSError as error:
    raise errors.InputError(f"{folder} cannot be read: {errors.brief(error)}") from error
  entries = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
  source = [_CACHE_FORMAT, os.fspath(folder.resolve()), entries]
  return hashlib.sha256(json.dumps(source).encode()).hexdigest()


def cache_root(cache_dir: str | os.PathLike | None = None) -> pathlib.Path | None:
  """Returns the folder of all caches, or None (with a warning) if there is no home directory.

  Args:
    cache_dir: the folder; default $JAXDL_CACHE_DIR, else $XDG_CACHE_HOME/jaxdl, else
      ~/.cache/jaxdl.
  """
  given = cache_dir or os.environ.get("JAXDL_CACHE_DIR")
  xdg = os.environ.get("XDG_CACHE_HOME", "")
  try:
    if given:
      return pathlib.Path(given).expanduser()
    if os.path.isabs(xdg):  # The XDG specification says to ignore a relative path.
      return pathlib.Path(xdg, "jaxdl")
    return pathlib.Path.home() / ".cache" / "jaxdl"
  except RuntimeError as error:
    _warn_once(f"nothing is cached, set JAXDL_CACHE_DIR: {errors.brief(error)}")
    return None


def file_for(
  cache_dir: str | os.PathLike | None, folder: pathlib.Path, name: str
) -> pathlib.Path | None:
  """Returns the cache file of a prepared copy, or None if there is no folder for caches."""
  cache = cache_root(cache_dir)
  if cache is None:
    return None
  # The hash distinguishes copies in different folders.
  source = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
  return cache / f"{name.replace('/', '-')}-{folder.name}-{source}.npz"


def read(file: pathlib.Path | None, fingerprint: str, name: str) -> Dataset | None:
  """Returns the cached dataset, or None if it is missing, damaged or made from another source."""
  if file is None or not os.path.isfile(file):
    return None
  try:
    with open(file, "rb") as stream:
      return _parse(stream, fingerprint, name)
  except (FileNotFoundError, NotADirectoryError, PermissionError):
    return None  # If something is wrong, `write` will warn about it.
  except Exception as error:  # zipfile and numpy raise a dozen types of error on damaged files.
    _LOGGER.warning("rebuilding the damaged cache file %s: %s", file, errors.brief(error))
    return None


def _parse(stream: BinaryIO, fingerprint: str, name: str) -> Dataset | None:
  """Returns the dataset in a cache file, or None if it has another source; raises on damage."""
  with warnings.catch_warnings():
    # numpy only warns about some malformed headers; here they are errors.
    warnings.simplefilter("error", UserWarning)
    with np.load(stream, allow_pickle=False) as arrays:
      if any(part.compress_type != zipfile.ZIP_STORED for part in arrays.zip.infolist()):
        raise ValueError("it is compressed")  # a small file could then fill the memory
      meta = arrays["meta"].tobytes()
      if hashlib.sha256(meta[32:]).digest() != meta[:32]:
        raise ValueError("the checksum of its description is wrong")
      meta = json.loads(meta[32:])
      if meta["fingerprint"] != fingerprint:
        return None
      train = Split(arrays["train_images"], arrays["train_labels"])
      test = Split(arrays["test_images"], arrays["test_labels"])
  for split in (train, test):
    if (split.inputs.dtype, split.inputs.ndim) != (np.uint8, 4) or split.targets.dtype != np.int32:
      raise ValueError("its arrays have the wrong types or shapes")
  dataset = make_dataset(name, train, test, meta["class_names"])
  if dataset.checksum != meta["checksum"]:
    raise ValueError("the checksum of its arrays is wrong")
  return dataset


def write(file: pathlib.Path | None, fingerprint: str, dataset: Dataset) -> None:
  """Writes a cache file atomically; warns once if that is not possible."""
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
        train_images=dataset.train.inputs,
        train_labels=dataset.train.targets,
        test_images=dataset.test.inputs,
        test_labels=dataset.test.targets,
        meta=np.frombuffer(hashlib.sha256(meta).digest() + meta, np.uint8),
      )
  except (OSError, ValueError) as error:  # On a full disk zipfile raises ValueError when closing.
    # Not the whole OSError: it has the name of the temporary file, which would differ each time.
    reason = getattr(error, "strerror", None) or errors.brief(error)
    _warn_once(f"{dataset.name} is not cached in {file.parent}: {reason}")


@functools.cache
def _warn_once(message: str) -> None:
  _LOGGER.warning("%s", message)
