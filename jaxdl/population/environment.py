"""What the numbers of a run depend on besides its settings: versions, source, settings of JAX.

And the cache of compiled programs, on which they do not depend.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import pathlib
import re
import sys
import time
from typing import Any

import jax
import jaxlib
from jax._src import lru_cache

from jaxdl.errors import InputError
from jaxdl.store import files

_LOGGER = logging.getLogger("jaxdl")
_DAY = 86_400.0

# Where the library is installed, its folder has these; in a clone they are beside it.
_SCRIPTS = ("experiments/", "ml_collections_configs/")
# Settings of JAX that change numbers.
_SETTINGS = (
  "jax_default_matmul_precision",
  "jax_random_seed_offset",
  "jax_softmax_custom_jvp",
  "jax_threefry_partitionable",
)
# Settings of JAX under which nothing trains, or not in float32, and what they have to be. Of
# members that diverge not all numbers are finite, and that is a result.
_NEEDED = {
  "jax_enable_x64": False,
  "jax_disable_jit": False,
  "jax_debug_infs": False,
  "jax_debug_nans": False,
  "jax_numpy_dtype_promotion": "standard",
}


def check():
  """Raises InputError if JAX has a setting under which populations cannot train."""
  for name, needed in _NEEDED.items():
    value = getattr(jax.config, name)
    if value != needed:
      raise InputError(
        f"populations train with {name}={needed} only, and it is {value}: see the environment "
        f"variable {name.upper()}"
      )


def describe() -> dict[str, Any]:
  """Returns versions, a hash of the source, and settings of JAX, by name."""
  return {
    "jax": jax.__version__,
    "jaxlib": jaxlib.__version__,
    "jaxdl": _version(),
    "source": _source_hash(),
    **{name: getattr(jax.config, name, None) for name in _SETTINGS},
  }


def command() -> list[str]:
  """Returns the command that has started this process, a program's name without its folder."""
  first, *rest = sys.orig_argv or [sys.executable]
  if rest and pathlib.Path(rest[0]).name == "jaxdl":  # a script that pip has installed
    first, *rest = rest
  return [pathlib.Path(first).name, *rest]


def cache_programs(folder: pathlib.Path):
  """Has JAX keep compiled programs in a folder, where programs of any process find them.

  A program is written as a whole or not at all. JAX itself would leave an empty file on a full
  disk, or part of a program when it is killed, and then neither use nor replace it.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
  except OSError:
    return
  if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
    return  # JAX would warn about each program that it cannot cache
  lru_cache.LRUCache.put = _put
  jax.config.update("jax_compilation_cache_dir", str(folder))
  # Cache every program, also those that compile within a second: there are many.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _put(cache: lru_cache.LRUCache, key: str, value: bytes):
  """Takes the place of a method of JAX, see `cache_programs`."""
  file = pathlib.Path(str(cache.path)) / f"{key}-cache"
  try:
    if not file.exists():
      files.write(file, value)
  except OSError as error:
    _warn_once(f"compiled programs are not cached in {file.parent}: {error.strerror or error}")


@functools.cache
def _warn_once(text: str):
  _LOGGER.warning(text)


def _sweep(folder: pathlib.Path):
  """Deletes empty programs, and what processes that were killed left half-written."""
  for entry in os.scandir(folder):
    with contextlib.suppress(FileNotFoundError):  # another process has deleted it
      is_old = time.time() - entry.stat().st_mtime > _DAY
      is_half = is_old and re.fullmatch(r"\..*\.[0-9a-f]{32}\.tmp", entry.name)
      if is_half or (entry.name.endswith("-cache") and entry.stat().st_size == 0):
        os.unlink(entry)


def _version() -> str | None:
  try:
    return importlib.metadata.version("jaxdl")
  except importlib.metadata.PackageNotFoundError:
    return None


@functools.cache  # what has been imported stays as it is
def _source_hash() -> str:
  """Returns a hash of all that is Python in this library, but for the scripts beside it."""
  digest = hashlib.sha256()
  folder = pathlib.Path(__file__).parents[1]
  for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
    if name.startswith(_SCRIPTS):
      continue
    content = (folder / name).read_bytes()
    digest.update(f"{name} {len(content)}\n".encode() + content)
  return digest.hexdigest()[:16]
