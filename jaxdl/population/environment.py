"""What the numbers of a run depend on besides its settings: versions, source, settings of JAX."""

import functools
import hashlib
import importlib.metadata
import pathlib
from typing import Any

import jax
import jaxlib

from jaxdl.errors import InputError

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


def _version() -> str | None:
  try:
    return importlib.metadata.version("jaxdl")
  except importlib.metadata.PackageNotFoundError:
    return None


@functools.cache  # what has been imported stays as it is
def _source_hash() -> str:
  """Returns a hash of all that is Python in this library."""
  digest = hashlib.sha256()
  folder = pathlib.Path(__file__).parents[1]
  for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
    content = (folder / name).read_bytes()
    digest.update(f"{name} {len(content)}\n".encode() + content)
  return digest.hexdigest()[:16]
