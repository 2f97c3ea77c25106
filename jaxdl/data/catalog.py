"""Name -> dataset: `digits`, or any image-classification dataset of TensorFlow Datasets (TFDS)."""

import os
import re

from jaxdl import errors
from jaxdl.data import digits, tfds
from jaxdl.data.dataset import Dataset
from jaxdl.data.tfds import CONFIG, VERSION, Part

# Of a part: percent or a number of examples.
_END = r"-?(?:\d\d?%|100%|\d{1,12})"


def load(
  name: str,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
  *,
  download_dir: str | os.PathLike | None = None,
) -> Dataset:
  """Loads a dataset as arrays.

  Args:
    name: "digits", or the TFDS name of an image-classification dataset: "mnist", "emnist/letters"
      (with a config), "mnist:3.0.1" (with a version; default: the newest that is prepared),
      "mnist[:10%]" or "mnist[1000:2000]" (with a part of its split `train`). The splits `train`,
      `test` and, if there is one, `validation` are loaded. If there is no split `test`, a fifth of
      `train` is drawn at random, always the same examples.
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
  builder_name, config, version, part = _parse_name(name)
  if builder_name == "digits":
    return digits.load()
  return tfds.load(builder_name, config, version, part, data_dir, cache_dir, download_dir)


def _parse_name(name: str) -> tuple[str, str | None, str | None, Part]:
  """Splits a name into the names of the dataset, its config, its version, and a part.

  The parts become folder names, so the pattern also keeps a name from leading out of `data_dir`.
  """
  pattern = rf"([\w\-]+)(?:/(?!{VERSION}$)({CONFIG}))?(?:[:/]({VERSION}))?"
  pattern += rf"(?:\[({_END})?:({_END})?\])?"
  match = re.fullmatch(pattern, name, re.ASCII) if isinstance(name, str) else None
  if match is None:
    raise errors.InputError(
      "a dataset must be NAME, NAME/CONFIG or NAME:VERSION, perhaps with a part, such as mnist, "
      f"emnist/letters or mnist[:10%], not {errors.show(name)}"
    )
  if match[1] == "digits" and match[0] != "digits":
    raise errors.InputError(f"digits has no configs, versions or parts, so there is no {name!r}")
  return match[1], match[2], match[3], Part(match[4] or "", match[5] or "")
