"""Name -> dataset: `digits`, or any image-classification dataset of TensorFlow Datasets (TFDS)."""

import os
import re

from jaxdl import errors
from jaxdl.data import digits, tfds
from jaxdl.data.dataset import Dataset
from jaxdl.data.tfds import CONFIG, VERSION


def load(
  name: str,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
  *,
  download_dir: str | os.PathLike | None = None,
) -> Dataset:
  """Loads a dataset as arrays, with an empty validation split.

  Args:
    name: "digits", or the TFDS name of an image-classification dataset: "mnist", "emnist/letters"
      (with a config), "mnist:3.0.1" (with a version; default: the newest that is prepared). The
      splits `train` and `test` are loaded.
    data_dir: folder of prepared TFDS datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      A dataset that is missing is downloaded and prepared there, which needs TensorFlow.
    cache_dir: folder of cached arrays; default $JAXDL_CACHE_DIR, else $XDG_CACHE_HOME/jaxdl, else
      ~/.cache/jaxdl. If it cannot be written, a warning says so and the dataset loads anyway.
    download_dir: where TFDS looks for and saves its downloads; default `data_dir`/downloads.

  Returns:
    The dataset. Images are uint8 [N, H, W, D], 0 to 255; labels are int32 [N], 0 to C - 1.

  Raises:
    InputError: the name is unknown; the dataset is not for image classification, or cannot be
      prepared, or is damaged (the message names the file).
  """
  builder_name, config, version = _parse_name(name)
  if builder_name == "digits":
    return digits.load()
  return tfds.load(builder_name, config, version, data_dir, cache_dir, download_dir)


def _parse_name(name: str) -> tuple[str, str | None, str | None]:
  """Splits a name into the names of the dataset, its config and its version.

  The parts become folder names, so the pattern also keeps a name from leading out of `data_dir`.
  """
  pattern = rf"([\w\-]+)(?:/(?!{VERSION}$)({CONFIG}))?(?:[:/]({VERSION}))?"
  match = re.fullmatch(pattern, name, re.ASCII) if isinstance(name, str) else None
  if match is None:
    raise errors.InputError(
      "a dataset must be NAME, NAME/CONFIG or NAME:VERSION, such as mnist or emnist/letters, not "
      f"{errors.show(name)}"
    )
  if match[1] == "digits" and match[0] != "digits":
    raise errors.InputError(f"digits has neither configs nor versions, so there is no {name!r}")
  return match[1], match[2], match[3]
