"""Name -> dataset: a dataset of TensorFlow Datasets (TFDS), a file, a folder, a function."""

import ast
import dataclasses
import inspect
import os
import re
from collections.abc import Callable
from typing import Any

from jaxdl import calls, errors
from jaxdl.data import digits, folder, npz, table, tfds
from jaxdl.data.arrays import from_arrays
from jaxdl.data.dataset import Dataset
from jaxdl.data.tfds import CONFIG, VERSION
from jaxdl.data.tfds_records import Part
from jaxdl.store import files

# Of a part: percent or a number of examples.
_END = r"-?(?:\d\d?%|100%|\d{1,12})"
_OPTIONS = r"(?:\(((?:[^()]|\([^()]*\))*)\))?"
# What reads a file or folder of such a name.
_READERS: dict[re.Pattern[str], Callable[..., Dataset]] = {
  re.compile(rf"(.+\.npz){_OPTIONS}"): npz.load,
  re.compile(rf"(.+\.csv){_OPTIONS}"): table.load,
  re.compile(rf"((?:[./~].*?|.*/)){_OPTIONS}"): folder.load,
}
_LONGEST_NAME = 4096
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_].*", re.DOTALL)


def load(
  name: str,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
  *,
  download_dir: str | os.PathLike | None = None,
) -> Dataset:
  """Loads a dataset as arrays.

  A name is one of these:

    digits                         scikit-learn's handwritten digits
    mnist, emnist/letters          an image-classification dataset of TFDS, perhaps with a config;
    mnist:3.0.1                    of a version, default: the newest that is prepared;
    mnist[:10%], mnist[100:200]    a part of its split `train`. The splits `test` and, if there is
                                   one, `validation` are loaded too.
    FILE.npz                       arrays `x_train`, `y_train`, and if there `x_test`, `y_test`,
                                   `x_val`, `y_val`, as `from_arrays` takes them
    FILE.csv(target=COLUMN)        a table; also task=regression or task=classification, and
                                   drop=COLUMN or drop=(COLUMN, ...). Names of columns that are not
                                   plain words are quoted.
    FOLDER/                        a folder with a subfolder of images per class, perhaps in
                                   subfolders `train`, `test`, `validation`; FOLDER/(resize=32) or
                                   FOLDER/(resize=(24, 32)). Its name ends with a slash, or starts
                                   with a point, a slash or a tilde.
    package.module:function(...)   what a function returns: a dict of `from_arrays`'s arguments,
                                   `(x_train, y_train)`, `(x_train, y_train, x_test, y_test)`,
                                   `((x_train, y_train), (x_test, y_test))`, or a `Dataset`

  A dataset without a test set gets one: a fifth of it is drawn at random, always the same examples,
  or another share, as in FILE.npz(test_fraction=0.3).

  Args:
    name: see above. A file or folder is looked for from the current folder, and then in `data_dir`.
    data_dir: folder of prepared TFDS datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      A dataset that is missing is downloaded and prepared there, which needs TensorFlow.
    cache_dir: folder of cached arrays of TFDS; default $JAXDL_CACHE_DIR, else
      $XDG_CACHE_HOME/jaxdl, else ~/.cache/jaxdl. If it cannot be written, a warning says so and the
      dataset loads anyway.
    download_dir: where TFDS looks for and saves its downloads; default `data_dir`/downloads.

  Returns:
    The dataset. Images are uint8 [N, H, W, D], 0 to 255; classes are int32 [N], 0 to C - 1.

  Raises:
    InputError: the name is unknown; the dataset is not for image classification, or cannot be
      prepared, or is damaged (the message names the file); or see `from_arrays` and the readers of
      files in `jaxdl.data`.

  Examples:
    >>> import jaxdl
    >>> jaxdl.load("digits")
    <digits: 1,797 images of 28 x 28 x 1, 10 classes (174 to 183 each); training 1,352, test 445>
  """
  text = name if isinstance(name, str) and len(name) <= _LONGEST_NAME else ""
  for pattern, read in _READERS.items():
    if match := pattern.fullmatch(text):
      return _read(read, match[1], match[2] or "", data_dir)
  if _FUNCTION.fullmatch(text):
    return _call(text)
  builder_name, config, version, part = _parse_name(name)
  if builder_name == "digits":
    return digits.load()
  return tfds.load(builder_name, config, version, part, data_dir, cache_dir, download_dir)


def _read(
  read: Callable[..., Dataset], given: str, options: str, data_dir: str | os.PathLike | None
) -> Dataset:
  """Reads a file or folder; every error names it."""
  path = files.expand_home(given)
  places = [path]
  if data_dir and not path.is_absolute():
    places.append(files.expand_home(data_dir) / path)
  kind, is_there = ("folder", os.path.isdir) if read is folder.load else ("file", os.path.isfile)
  found = next((place for place in places if is_there(place)), None)
  if found is None:
    raise errors.InputError(f"there is no {kind} {' and no '.join(map(str, places))}")
  try:
    return read(found.absolute(), **_parse_options(read, options))
  except errors.InputError as error:
    raise errors.InputError(f"{given}: {error}") from error


def _parse_options(read: Callable[..., Dataset], options: str) -> dict[str, Any]:
  """Reads `name=value, ...`, where a value is a literal, a word, or several in brackets."""
  known = list(inspect.signature(read).parameters)[1:]
  try:
    parsed = ast.parse(f"_({options})", mode="eval").body
    if not isinstance(parsed, ast.Call) or parsed.args:
      raise ValueError("options are given by name")
    values = {keyword.arg or "**": _value(keyword.value) for keyword in parsed.keywords}
  except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
    raise errors.InputError(
      f"options are written as ({known[0]}=...), and names that are no plain words in quotes, not "
      f"as ({errors.one_line(options)})"
    ) from error
  for name in values:
    if name not in known:
      raise errors.unknown_name("option", name, known)
  return values


def _value(node: ast.expr) -> Any:
  match node:
    case ast.Name(id=word):
      return word
    case ast.Tuple() | ast.List():
      return tuple(map(_value, node.elts))
    case _:
      return ast.literal_eval(node)


def _call(text: str) -> Dataset:
  """Returns the dataset of what a function returns."""
  call = dataclasses.replace(calls.Call.read(text), has_brackets=True)
  made = call.build()
  if isinstance(made, Dataset):
    return made
  try:
    if isinstance(made, dict):
      known = list(inspect.signature(from_arrays).parameters)
      for key in made:
        if key not in known:
          raise errors.unknown_name("key", key, known)
      return from_arrays(**{"x_train": None, "y_train": None, "name": text, **made})
    if isinstance(made, tuple | list) and len(made) in (2, 4):
      if all(isinstance(pair, tuple) and len(pair) == 2 for pair in made):
        made = [array for pair in made for array in pair]
      return from_arrays(*made, name=text)
  except errors.InputError as error:
    raise errors.InputError(f"{text}: {error}") from error
  raise errors.InputError(
    f"{text} returns {errors.show(made)}: neither arrays (x_train, y_train, x_test, y_test) nor a "
    "dict of the arguments of from_arrays nor a Dataset"
  )


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
      "emnist/letters or mnist[:10%]; FILE.npz, FILE.csv(target=COLUMN), FOLDER/ or "
      f"package.module:function(), not {errors.show(name)}"
    )
  if match[1] == "digits" and match[0] != "digits":
    raise errors.InputError(f"digits has no configs, versions or parts, so there is no {name!r}")
  return match[1], match[2], match[3], Part(match[4] or "", match[5] or "")
