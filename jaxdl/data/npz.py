"""Arrays in an .npz file, with the keys of Keras's files."""

import pathlib
import zipfile
from typing import Any

import numpy as np

from jaxdl import errors
from jaxdl.data import memory
from jaxdl.data.arrays import from_arrays
from jaxdl.data.dataset import Dataset

_REQUIRED = ("x_train", "y_train")
_KEYS = (*_REQUIRED, "x_test", "y_test", "x_val", "y_val", "class_names")


def load(file: pathlib.Path, test_fraction: float = 0.2) -> Dataset:
  """Loads `x_train`, `y_train` and, if there, `x_test`, `y_test`, `x_val`, `y_val`, `class_names`.

  What becomes of the arrays, and what is drawn if there is no test set, is as in `from_arrays`.

  Raises:
    InputError: the file is no such file, is damaged, holds pickled objects, or unpacks to more than
      this machine's memory; or `from_arrays` refuses the arrays.
  """
  try:
    arrays = _read(file)
  except errors.InputError:
    raise
  except Exception as error:  # zipfile and numpy raise a dozen types of error on damaged files
    reason = errors.brief(error)
    raise errors.InputError(f"is no .npz file of arrays, or is damaged: {reason}") from error
  if "x_val" in arrays or "y_val" in arrays:
    arrays["validation"] = arrays.pop("x_val", None), arrays.pop("y_val", None)
  return from_arrays(**arrays, test_fraction=test_fraction, name=file.name)


def _read(file: pathlib.Path) -> dict[str, Any]:
  with zipfile.ZipFile(file) as archive:
    # zipfile unpacks no more of a part than the size that the archive gives for it.
    memory.check_fits(sum(part.file_size for part in archive.infolist()))
  with np.load(file, allow_pickle=False) as arrays:
    for key in arrays.files:
      if key not in _KEYS:
        raise errors.unknown_name("array", key, _KEYS)
    missing = [key for key in _REQUIRED if key not in arrays.files]
    if missing:
      raise errors.InputError(f"has no {' and no '.join(missing)}")
    return {key: arrays[key] for key in arrays.files}
