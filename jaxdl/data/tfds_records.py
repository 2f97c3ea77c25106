"""A dataset that TFDS prepared as `array_record`, read without TensorFlow.

Its files are not trusted: a damaged one raises an InputError that names it, and none can run code.
"""

import contextlib
import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import logging as absl_logging

from jaxdl import errors
from jaxdl.data.dataset import Dataset, Split, make_dataset
from jaxdl.data.splits import hold_out_test

_INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
# Records read at a time, to limit the memory that encoded records take besides the arrays.
_BATCH = 4096
# What is drawn from a dataset without a split `test`.
_TEST_FRACTION = 0.2


class Part(NamedTuple):
  """A part of the split `train`, written as in TFDS: `[:1000]`, `[10%:20%]`, `[-500:]`.

  An end is a number of examples or percent, from the end of the split if it is negative; empty: the
  start or the end of the split.
  """

  start: str = ""
  stop: str = ""

  def bounds(self, num_examples: int) -> tuple[int, int]:
    """Returns the first example and the one after the last; percent are rounded as TFDS does.

    Raises:
      InputError: the part is empty or goes beyond the split.
    """
    start = self._place(self.start, num_examples) if self.start else 0
    stop = self._place(self.stop, num_examples) if self.stop else num_examples
    if not 0 <= start < stop <= num_examples:
      raise errors.InputError(
        f"{self} of {num_examples:,} examples is from {start:,} to {stop:,}: choose at least one "
        "example, and none beyond the end"
      )
    return start, stop

  @staticmethod
  def _place(text: str, num_examples: int) -> int:
    number = int(text.rstrip("%"))
    place = round(number * num_examples / 100) if text.endswith("%") else number
    return place + num_examples if text.startswith("-") else place

  def __str__(self) -> str:
    return f"[{self.start}:{self.stop}]"


ALL = Part()


def read(folder: pathlib.Path, name: str, part: Part) -> Dataset:
  """Reads a prepared dataset from its record files, without TensorFlow."""
  with quiet():
    import tensorflow_datasets as tfds

    info = _read_info(tfds, folder)
    image_key, label_key = supervised_keys(tfds, info)
    if "train" not in info.splits:
      raise errors.InputError(
        f"{name} has no split train; its splits: {', '.join(sorted(info.splits)) or 'none'}"
      )
    splits = {
      split: _read_split(info, split, part if split == "train" else ALL, image_key, label_key)
      for split in ("train", "validation", "test")
      if split in info.splits
    }
    class_names = _class_names(info.features[label_key], folder / f"{label_key}.labels.txt")
  notes = []
  if "test" not in splits:
    splits["train"], splits["test"], note = hold_out_test(splits["train"], _TEST_FRACTION, True)
    notes.append(note)
  validation = splits.get("validation")
  return make_dataset(name, splits["train"], splits["test"], class_names, validation, notes=notes)


def _read_info(tfds: Any, folder: pathlib.Path) -> Any:
  """Returns TFDS's DatasetInfo of a prepared copy, from its files alone."""
  metadata = read_json(folder / _INFO_FILE)
  features = read_json(folder / _FEATURES_FILE)
  file_format = metadata.get("fileFormat", "tfrecord")
  if file_format != "array_record":
    raise errors.InputError(
      f"{folder} is prepared as {file_format!r} and not as array_record; prepare it in another "
      "data_dir"
    )
  if metadata.get("version") != folder.name:
    raise errors.InputError(
      f"{folder / _INFO_FILE} is damaged: it says version {metadata.get('version')!r}"
    )
  with _damage_in(folder / _FEATURES_FILE):
    for name in _named_classes(features):
      # TFDS imports whatever module is named here, and importing a module runs its code.
      if not name.startswith("tensorflow_datasets."):
        raise ValueError(f"it names a class that is not part of TFDS: {errors.show(name)}")
    tfds.features.FeatureConnector.from_config(os.fspath(folder))
  with _damage_in(folder / _INFO_FILE):
    return tfds.builder_from_directory(os.fspath(folder)).info


def _named_classes(value: Any) -> Iterator[str]:
  """Yields the names of Python classes in a `features.json`, also in JSON nested as text."""
  if isinstance(value, str):
    with contextlib.suppress(ValueError):
      value = json.loads(value)
  if isinstance(value, dict):
    for key, inner in value.items():
      if key in ("pythonClassName", "python_class_name", "type") and isinstance(inner, str):
        yield inner
      else:
        yield from _named_classes(inner)
  elif isinstance(value, list):
    for inner in value:
      yield from _named_classes(inner)


def supervised_keys(tfds: Any, info: Any) -> tuple[str, str]:
  """Checks the image feature and the label feature, and returns their names."""

  def refuse(reason: str) -> errors.InputError:
    return errors.InputError(f"{info.full_name} is not for image classification: {reason}")

  keys, features = info.supervised_keys, info.features
  if not isinstance(features, tfds.features.FeaturesDict):
    raise refuse("its examples are not dictionaries")
  is_pair = isinstance(keys, tuple) and len(keys) == 2
  if not is_pair or any(not isinstance(key, str) or key not in features for key in keys):
    raise refuse(f"its supervised keys {keys!r} do not name an image and a label")
  image, label = (features[key] for key in keys)
  if not isinstance(image, tfds.features.Image):
    raise refuse(f"its input {keys[0]!r} is not an image but {type(image).__name__}")
  if len(image.shape) != 3 or None in image.shape:
    raise refuse(f"its images differ in size (shape {image.shape})")
  if image.np_dtype != np.uint8:
    raise refuse(f"its images are {np.dtype(image.np_dtype)}, not uint8")
  if not isinstance(label, tfds.features.ClassLabel) or label.num_classes is None:
    raise refuse(f"its label {keys[1]!r} is not a class but {type(label).__name__}")
  return keys


def _class_names(label: Any, names_file: pathlib.Path) -> list[str]:
  """Returns the names of the classes, or "0", "1", ... if the dataset has no file of names.

  TFDS reads the file too, but in a thread whose errors it ignores.
  """
  if not os.path.isfile(names_file):
    return label.names
  with _damage_in(names_file):
    lines = names_file.read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != label.num_classes or len(set(names)) != len(names):
      raise ValueError(f"it must name {label.num_classes} different classes")
  return names


def _read_split(info: Any, split: str, part: Part, image_key: str, label_key: str) -> Split:
  """Decodes the examples of a part of a split, in the order of its record files."""
  from tensorflow_datasets.proto import tf_example_pb2

  info_file = pathlib.Path(info.data_dir) / _INFO_FILE
  with _damage_in(info_file):
    shards = list(zip(info.splits[split].filepaths, info.splits[split].shard_lengths, strict=True))
  # Opens every file first: memory is allocated only if they hold what dataset_info.json says.
  sources = [(path, _open_records(path, length)) for path, length in shards]
  num_examples = sum(length for _, length in shards)
  if num_examples == 0:
    raise errors.InputError(f"{info_file} says that the split {split} has no examples")
  start, stop = part.bounds(num_examples)
  image_feature, num_classes = info.features[image_key], info.features[label_key].num_classes
  shape = image_feature.shape
  try:
    images = np.empty((stop - start, *shape), np.uint8)
  except (MemoryError, ValueError) as error:  # ValueError: larger than the address space.
    raise errors.InputError(
      f"{info.full_name} does not fit in memory: {num_examples} images of shape {shape}"
    ) from error
  labels = np.empty(stop - start, np.int32)
  i, first = 0, 0  # the next place in the arrays; the number of the shard's first example
  for path, source in sources:
    with _damage_in(path), source:
      wanted = range(max(start - first, 0), min(stop - first, len(source)))
      first += len(source)
      for record in _records(source, wanted):
        # TFDS's deserialize_example_np takes nearly twice as long.
        example = tf_example_pb2.Example.FromString(record).features.feature
        image = image_feature.decode_example_np(example[image_key].bytes_list.value[0])
        label = example[label_key].int64_list.value[0]
        if image.shape != shape or image.dtype != np.uint8:
          raise ValueError(f"an image is {image.dtype} {image.shape}, not uint8 {shape}")
        if label == -1:  # as TFDS has it where the labels are kept secret
          raise errors.InputError(f"{info.full_name} has examples without a label in {split!r}")
        if not 0 <= label < num_classes:
          raise ValueError(f"a label is {label}, not from 0 to {num_classes - 1}")
        images[i], labels[i] = image, label
        i += 1
  return Split(images, labels)


def _open_records(path: os.PathLike, num_records: int) -> Any:
  """Opens a record file, which must hold exactly `num_records` records."""
  try:
    from array_record.python import array_record_data_source
  except ImportError as error:
    raise errors.InputError(
      f"reading {path} needs the package array_record, which exists for Linux and macOS"
    ) from error
  if not os.path.isfile(path):
    raise errors.InputError(f"{path} is missing")
  with _damage_in(path):
    source = array_record_data_source.ArrayRecordDataSource(os.fspath(path))
    if len(source) != num_records:
      raise ValueError(f"it holds {len(source)} examples, but {_INFO_FILE} says {num_records}")
  return source


def _records(source: Any, wanted: range) -> Iterator[bytes]:
  """Yields records in order, reading in batches: many times faster than one by one."""
  for start in range(0, len(wanted), _BATCH):
    yield from source.__getitems__(wanted[start : start + _BATCH])


@contextlib.contextmanager
def _damage_in(path: os.PathLike) -> Iterator[None]:
  """Turns any error in reading a file of a prepared copy into an InputError that names the file.

  array_record checks a hash of every chunk and raises RuntimeError; protocol buffers, image
  decoders and TFDS each raise errors of their own types.
  """
  try:
    yield
  except (errors.InputError, MemoryError):
    raise
  except Exception as error:
    raise errors.InputError(f"{path} is damaged: {errors.brief(error)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silences TFDS's warnings, and its log below errors, for example about optional packages."""
  logger = absl_logging.get_absl_logger()
  level = logger.level
  logger.setLevel("ERROR")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  finally:
    logger.setLevel(level)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file. Raises InputError: it is missing or damaged."""
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise errors.InputError(f"{path} is missing or damaged: {errors.brief(error)}") from error
  if not isinstance(content, dict):
    raise errors.InputError(f"{path} is damaged: it does not hold a JSON object")
  return content
