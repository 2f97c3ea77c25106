"""A cache of decoded datasets: one uncompressed .npz file for each prepared copy.

A file has the format of `archive.py` and the fingerprint of its source. Everything is checked on
every read, and a damaged file is rebuilt.
"""

import functools
import hashlib
import json
import logging
import os
import pathlib
import re

from jaxdl import errors
from jaxdl.data import archive
from jaxdl.data.dataset import Dataset
from jaxdl.store import files

_LOGGER = logging.getLogger("jaxdl")

# Part of every fingerprint. Increase it when the arrays or the layout of the file change.
_CACHE_FORMAT = 2


def fingerprint_of(folder: pathlib.Path, name: str) -> str:
  """Returns a hash that changes when the size or time of a file in a prepared copy changes.

  Args:
    folder: the prepared copy.
    name: of the dataset, with the part of it that is read.
  """
  try:
    stats = {path.name: path.stat() for path in folder.iterdir()}
  except OSError as error:
    raise errors.InputError(f"{folder} cannot be read: {errors.brief(error)}") from error
  entries = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
  source = [_CACHE_FORMAT, name, os.fspath(folder.resolve()), entries]
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
      return files.expand_home(given)
    if os.path.isabs(xdg):  # The XDG specification says to ignore a relative path.
      return pathlib.Path(xdg, "jaxdl")
    return pathlib.Path.home() / ".cache" / "jaxdl"
  except (RuntimeError, errors.InputError) as error:  # there is no home
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
  plain = re.sub(r"[^\w.]+", "-", name)
  return cache / f"{plain}-{folder.name}-{source}.npz"


def read(file: pathlib.Path | None, fingerprint: str) -> Dataset | None:
  """Returns the cached dataset, or None if it is missing, damaged or made from another source."""
  if file is None or not os.path.isfile(file):
    return None
  try:
    with open(file, "rb") as stream:
      return archive.parse(stream, fingerprint)
  except (FileNotFoundError, NotADirectoryError, PermissionError):
    return None  # If something is wrong, `write` will warn about it.
  except Exception as error:  # zipfile and numpy raise a dozen types of error on damaged files.
    _LOGGER.warning("rebuilding the damaged cache file %s: %s", file, errors.brief(error))
    return None


def write(file: pathlib.Path | None, fingerprint: str, dataset: Dataset) -> None:
  """Writes a cache file atomically; warns once if that is not possible."""
  if file is None:
    return
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(file) as stream:
      archive.write(stream, dataset, fingerprint)
  except (OSError, ValueError) as error:  # On a full disk zipfile raises ValueError when closing.
    # Not the whole OSError: it has the name of the temporary file, which would differ each time.
    reason = getattr(error, "strerror", None) or errors.brief(error)
    _warn_once(f"{dataset.name} is not cached in {file.parent}: {reason}")


@functools.cache
def _warn_once(message: str) -> None:
  _LOGGER.warning("%s", message)
