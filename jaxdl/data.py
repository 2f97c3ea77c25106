"""Datasets by name, as arrays in memory.

`digits` comes with scikit-learn and needs no network. Every other name is an image-classification
dataset of TensorFlow Datasets (TFDS), read without TensorFlow from a copy that TFDS prepared in the
file format `array_record`. Decoding takes seconds, so the arrays are kept in a cache: one file for
each prepared copy, checked on every read and rebuilt when it is damaged.

Images are uint8 [N, H, W, D] and labels int32 [N], both C-contiguous; nothing is scaled here.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import json
import logging
import math
import numbers
import operator
import os
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from absl import logging as absl_logging

from jaxdl import errors, files
from jaxdl.types import Dataset, Split

_LOGGER = logging.getLogger("jaxdl")

_INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
_VERSION = r"\d+\.\d+\.\d+"
_CONFIG = r"\w[\w.\-]*"  # no path, for it becomes the name of a folder
# Records decoded at a time: bounds the memory that encoded records take beside the arrays.
_BATCH = 4096
# Part of every fingerprint; change it with whatever changes the arrays or the layout of the file.
_CACHE_FORMAT = 1


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
      (with a config), "mnist:3.0.1" (with a version; else the newest that is prepared). Its splits
      `train` and `test` are loaded.
    data_dir: folder of prepared TFDS datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      A dataset that is not there is downloaded and prepared there, which needs TensorFlow.
    cache_dir: folder of cached arrays; default $JAXDL_CACHE_DIR, else $XDG_CACHE_HOME/jaxdl, else
      ~/.cache/jaxdl. Where it cannot be written, a warning says so and the dataset loads anyway.
    download_dir: where TFDS finds or puts what it downloads; default `data_dir`/downloads.

  Returns:
    The dataset. Images are uint8 [N, H, W, D], 0 to 255; labels are int32 [N], 0 to C - 1.

  Raises:
    InputError: the name is not known; the dataset is not for image classification, is neither
      prepared nor can be, or is damaged (the message names the file).
  """
  builder_name, config, version = _parse_name(name)
  if builder_name == "digits":
    return _load_digits()
  root = _data_root(data_dir)
  folder = _find_prepared(root, builder_name, config, version)
  if folder is None:
    folder = _prepare(root, builder_name, config, version, download_dir)
  name = f"{builder_name}/{config}" if config else builder_name
  fingerprint = _fingerprint(folder)
  cache_file = _cache_file(cache_dir, folder, name)
  dataset = _read_cache(cache_file, fingerprint, name)
  if dataset is None:
    dataset = _read_prepared(folder, name)
    _write_cache(cache_file, fingerprint, dataset)
  return dataset


def select_classes(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
  """Keeps the examples of some classes, in their order, and relabels the classes 0, 1, ...

  Args:
    dataset: any dataset.
    classes: the classes to keep, at least two, in the order of their new labels. An int is an index
      into `dataset.class_names`, a string is one of these names.

  Returns:
    The dataset with `class_names` in the order of `classes`; its checksum is still that of the
    arrays as loaded.

  Raises:
    InputError: a class that the dataset does not have or has no training example of, a class named
      twice, or fewer than two classes.
  """
  if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
    raise errors.InputError(f"classes must be a list of classes, not {errors.show(classes)}")
  indices = [_class_index(dataset, name) for name in classes]
  if len(indices) < 2:
    raise errors.InputError(f"select two or more classes, not {len(indices)}")
  new_label = np.full(dataset.num_classes, -1, np.int32)  # [C], -1 for a class that is left out
  for label, index in enumerate(indices):
    if new_label[index] >= 0:
      raise errors.InputError(f"class {dataset.class_names[index]!r} is selected twice")
    if not np.any(dataset.train.labels == index):
      raise errors.InputError(
        f"{dataset.name} has no training example of class {dataset.class_names[index]!r}"
      )
    new_label[index] = label

  def keep(split: Split) -> Split:
    labels = new_label[split.labels]
    kept = labels >= 0
    return Split(split.images[kept], labels[kept])

  return dataclasses.replace(
    dataset,
    train=keep(dataset.train),
    validation=keep(dataset.validation),
    test=keep(dataset.test),
    class_names=tuple(dataset.class_names[index] for index in indices),
  )


def take_train(dataset: Dataset, num_train: int) -> Dataset:
  """Keeps the first `num_train` training examples.

  Raises:
    InputError: there are not so many, or the number is none.
  """
  errors.check_integer("num_train", num_train, 1)
  if num_train > len(dataset.train):
    raise errors.InputError(
      f"num_train is {num_train:,}, but {dataset.name} has {len(dataset.train):,} training examples"
    )
  images, labels = dataset.train.images, dataset.train.labels
  return dataclasses.replace(dataset, train=Split(images[:num_train], labels[:num_train]))


def split_validation(dataset: Dataset, fraction: float) -> Dataset:
  """Makes the last examples of the training set the validation set, as Keras does.

  Of N training examples the first floor(N * (1 - fraction)) stay, in double precision as in
  `validation_split` of `keras.Model.fit`.

  Args:
    dataset: a dataset whose validation set is empty.
    fraction: the part of the training set to take, 0 <= fraction < 1; with 0, none.

  Raises:
    InputError: the fraction is out of range or leaves one of the two parts without an example, or
      the dataset has a validation set already.
  """
  check_fraction(fraction)
  if fraction == 0:
    return dataset
  if len(dataset.validation):
    raise errors.InputError(f"{dataset.name} already has a validation set")
  split_at = math.floor(len(dataset.train) * (1.0 - float(fraction)))
  if not 0 < split_at < len(dataset.train):
    raise errors.InputError(
      f"a validation fraction of {fraction} leaves {split_at} of {len(dataset.train)} examples "
      "for training; both parts need at least one"
    )
  images, labels = dataset.train.images, dataset.train.labels
  return dataclasses.replace(
    dataset,
    train=Split(images[:split_at], labels[:split_at]),
    validation=Split(images[split_at:], labels[split_at:]),
  )


def check_fraction(fraction: float):
  """Raises InputError unless the fraction is one that `split_validation` takes."""
  is_number = isinstance(fraction, numbers.Real) and not isinstance(fraction, bool)
  if not is_number or not 0 <= fraction < 1:
    raise errors.InputError(
      f"the validation fraction must be 0 or more and less than 1, not {errors.show(fraction)}"
    )


def _class_index(dataset: Dataset, name: int | str) -> int:
  """Returns the index of a class given by its index or its name."""
  if isinstance(name, str):
    if name not in dataset.class_names:
      raise errors.unknown_name(f"class of {dataset.name}", name, dataset.class_names)
    return dataset.class_names.index(name)
  if not isinstance(name, numbers.Integral) or isinstance(name, bool):
    raise errors.InputError(f"a class is an index or a name, not {errors.show(name)}")
  if not 0 <= name < dataset.num_classes:
    known = ", ".join(f"{index} ({known})" for index, known in enumerate(dataset.class_names))
    raise errors.InputError(f"{dataset.name} has no class {errors.show(name)}; known: {known}")
  return operator.index(name)


def _parse_name(name: str) -> tuple[str, str | None, str | None]:
  """Splits a name into those of the dataset, its config and its version.

  The parts become folder names, so this is also what keeps a name from leaving `data_dir`.
  """
  pattern = rf"([\w\-]+)(?:/(?!{_VERSION}$)({_CONFIG}))?(?:[:/]({_VERSION}))?"
  match = re.fullmatch(pattern, name, re.ASCII) if isinstance(name, str) else None
  if match is None:
    raise errors.InputError(
      "a dataset is named NAME, NAME/CONFIG or NAME:VERSION (mnist, emnist/letters), not "
      f"{errors.show(name)}"
    )
  if match[1] == "digits" and match[0] != "digits":
    raise errors.InputError(f"digits has neither configs nor versions, so there is no {name!r}")
  return match[1], match[2], match[3]


# ----------------------------------------------------------------------------------------------
# digits


def _load_digits() -> Dataset:
  """Loads scikit-learn's 1,797 digits as 28x28 images.

  The test set is every fourth example of each class (its 4th, 8th, ...): stratified, and the same
  for everybody.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklearn import datasets  # Imported here because it takes two seconds.

    digits = datasets.load_digits()
  images = _enlarge_digits(digits.images.astype(np.int64))
  labels = digits.target.astype(np.int32)
  is_test = np.zeros(len(labels), bool)
  for label in range(10):
    is_test[np.flatnonzero(labels == label)[3::4]] = True
  train = Split(images[~is_test], labels[~is_test])
  test = Split(images[is_test], labels[is_test])
  return _dataset("digits", train, test, [str(label) for label in range(10)])


def _enlarge_digits(images: np.ndarray) -> np.ndarray:
  """Resizes images [N, 8, 8], 0 to 16, to uint8 [N, 28, 28, 1], 0 to 255.

  20x20 in the middle of 28x28 is the layout of MNIST. Bilinear, with pixel centres at half integers
  and the border repeated: output pixel i lies at (i + 1/2) * 8 / 20 - 1/2 = (4 i - 3) / 10 of the
  input, so all weights are tenths, and integers give the same pixels on every machine.
  """
  weights = np.zeros((20, 8), np.int64)  # tenths
  for i in range(20):
    low, tenths = divmod(min(max(4 * i - 3, 0), 70), 10)
    weights[i, low] += 10 - tenths
    weights[i, min(low + 1, 7)] += tenths
  enlarged = weights @ images @ weights.T  # [N, 20, 20], 0 to 1600
  pixels = ((255 * enlarged + 800) // 1600).astype(np.uint8)  # rounded half up
  return np.pad(pixels, ((0, 0), (4, 4), (4, 4)))[..., np.newaxis]  # [N, 28, 28, 1]


# ----------------------------------------------------------------------------------------------
# Prepared TFDS datasets


def _data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
  """Returns the folder of prepared datasets."""
  given = os.fspath(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
  if "://" in given:
    raise errors.InputError(f"data_dir must be a folder of this machine, not {given!r}")
  try:
    return pathlib.Path(given).expanduser()
  except RuntimeError as error:  # No home directory.
    raise errors.InputError(f"give a data_dir: {given!r} cannot be resolved ({error})") from error


def _find_prepared(
  root: pathlib.Path, builder_name: str, config: str | None, version: str | None
) -> pathlib.Path | None:
  """Returns the folder NAME[/CONFIG]/VERSION of the newest prepared copy, or None.

  Looked up by hand because TFDS takes half a second to import, more than all else when the arrays
  are in the cache.
  """
  folder = root / builder_name
  default_config = folder / ".config" / "metadata.json"
  if config is None and os.path.isfile(default_config):
    config = _read_json(default_config).get("default_config_name")
    if config and not (isinstance(config, str) and re.fullmatch(_CONFIG, config, re.ASCII)):
      raise errors.InputError(f"{default_config} is damaged: {errors.show(config)} is no config")
  if config:
    folder = folder / config
  versions = [
    path
    for path in folder.glob(version or "*.*.*")
    if re.fullmatch(_VERSION, path.name, re.ASCII) and os.path.isdir(path)
  ]
  return max(versions, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


def _prepare(
  root: pathlib.Path,
  builder_name: str,
  config: str | None,
  version: str | None,
  download_dir: str | os.PathLike | None,
) -> pathlib.Path:
  """Lets TFDS download a dataset and prepare it under `root`; returns its folder."""
  with _quiet():
    import tensorflow_datasets as tfds

  _check_tfds_name(tfds, builder_name, config)
  name = builder_name + (f"/{config}" if config else "") + (f":{version}" if version else "")
  if importlib.util.find_spec("tensorflow") is None:
    raise errors.InputError(
      f"{name} is not prepared in {root}: put a copy that TFDS prepared as array_record there, or "
      "install TensorFlow to prepare it (pip install 'jaxdl[prepare]' or make install-prepare)"
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      builder = tfds.builder(name, data_dir=os.fspath(root), file_format="array_record")
      _supervised_keys(tfds, builder.info)  # Before gigabytes are downloaded in vain.
      builder.download_and_prepare(
        download_dir=None if download_dir is None else os.fspath(download_dir),
        # TFDS's bucket of prepared datasets holds another file format.
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
      )
  except errors.InputError:
    raise
  except Exception as error:  # A network, a disk, a checksum, a manual download, ...
    raise errors.InputError(
      f"TFDS cannot prepare {name} in {root}: {errors.brief(error)}"
    ) from error
  return pathlib.Path(builder.data_dir)


def _check_tfds_name(tfds: Any, builder_name: str, config: str | None) -> None:
  """Raises InputError unless TFDS has code for this dataset and config."""
  known = tfds.list_builders(with_community_datasets=False)
  if builder_name not in known:
    # Not errors.unknown_name: it lists all names, and TFDS has hundreds.
    nearest = difflib.get_close_matches(builder_name.lower(), ["digits", *known], n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise errors.InputError(
      f"unknown dataset {builder_name!r}; {hint}known: digits and the {len(known)} datasets in the "
      "catalog of TFDS"
    )
  try:
    configs = tfds.builder_cls(builder_name).builder_configs
  except ImportError as error:
    raise errors.InputError(f"TFDS cannot build {builder_name}: {errors.brief(error)}") from error
  if config is not None and not configs:
    raise errors.InputError(f"{builder_name} has no configs, so there is no {config!r}")
  if config is not None and config not in configs:
    raise errors.unknown_name(f"config of {builder_name}", config, configs)


def _read_prepared(folder: pathlib.Path, name: str) -> Dataset:
  """Reads a prepared dataset from its record files, without TensorFlow."""
  with _quiet():
    import tensorflow_datasets as tfds

    info = _read_info(tfds, folder)
    image_key, label_key = _supervised_keys(tfds, info)
    missing = {"train", "test"} - set(info.splits)
    if missing:
      raise errors.InputError(
        f"{name} has no split {' and no split '.join(sorted(missing))}; its splits: "
        f"{', '.join(sorted(info.splits)) or 'none'}"
      )
    train, test = (
      _read_split(info, split, image_key, label_key, folder / _INFO_FILE)
      for split in ("train", "test")
    )
    class_names = _class_names(info.features[label_key], folder / f"{label_key}.labels.txt")
    return _dataset(name, train, test, class_names)


def _read_info(tfds: Any, folder: pathlib.Path) -> Any:
  """Returns TFDS's DatasetInfo of a prepared copy, from its files and not from TFDS's own code."""
  metadata = _read_json(folder / _INFO_FILE)
  features = _read_json(folder / _FEATURES_FILE)
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
      # TFDS imports whatever module is named there, and importing is running.
      if not name.startswith("tensorflow_datasets."):
        raise ValueError(f"it names a class that is not of TFDS: {errors.show(name)}")
    tfds.features.FeatureConnector.from_config(os.fspath(folder))
  with _damage_in(folder / _INFO_FILE):
    return tfds.builder_from_directory(os.fspath(folder)).info


def _named_classes(value: Any) -> Iterator[str]:
  """Yields the names of Python classes in a `features.json`, also in JSON text inside of it."""
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


def _supervised_keys(tfds: Any, info: Any) -> tuple[str, str]:
  """Returns the names of the image feature and the label feature, which it checks."""

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
    raise refuse(f"its input {keys[0]!r} is no image but {type(image).__name__}")
  if len(image.shape) != 3 or None in image.shape:
    raise refuse(f"its images differ in size (shape {image.shape})")
  if image.np_dtype != np.uint8:
    raise refuse(f"its images are {np.dtype(image.np_dtype)}, not uint8")
  if not isinstance(label, tfds.features.ClassLabel) or label.num_classes is None:
    raise refuse(f"its label {keys[1]!r} is no class but {type(label).__name__}")
  return keys


def _class_names(label: Any, names_file: pathlib.Path) -> list[str]:
  """Returns the names of the classes; "0", "1", ... where the dataset has no file of names.

  TFDS reads the file too, but in a thread whose errors it drops.
  """
  if not os.path.isfile(names_file):
    return label.names
  with _damage_in(names_file):
    lines = names_file.read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != label.num_classes or len(set(names)) != len(names):
      raise ValueError(f"it must name {label.num_classes} different classes")
  return names


def _read_split(
  info: Any, split: str, image_key: str, label_key: str, info_file: pathlib.Path
) -> Split:
  """Decodes the examples of a split, in the order of its record files."""
  from tensorflow_datasets.proto import tf_example_pb2

  with _damage_in(info_file):
    shards = list(zip(info.splits[split].filepaths, info.splits[split].shard_lengths, strict=True))
  # Every file is opened before memory is taken for what dataset_info.json says that they hold.
  sources = [(path, _open_records(path, length)) for path, length in shards]
  num_examples = sum(length for _, length in shards)
  if num_examples == 0:
    raise errors.InputError(f"{info_file} says that the split {split} has no examples")
  image_feature, num_classes = info.features[image_key], info.features[label_key].num_classes
  shape = image_feature.shape
  try:
    images = np.empty((num_examples, *shape), np.uint8)
  except (MemoryError, ValueError) as error:  # ValueError: larger than any address.
    raise errors.InputError(
      f"{info.full_name} does not fit in memory: {num_examples} images of shape {shape}"
    ) from error
  labels = np.empty(num_examples, np.int32)
  i = 0
  for path, source in sources:
    with _damage_in(path), source:
      for record in _records(source):
        # TFDS's own deserialize_example_np takes nearly twice as long.
        example = tf_example_pb2.Example.FromString(record).features.feature
        image = image_feature.decode_example_np(example[image_key].bytes_list.value[0])
        label = example[label_key].int64_list.value[0]
        if image.shape != shape or image.dtype != np.uint8:
          raise ValueError(f"an image is {image.dtype} {image.shape}, not uint8 {shape}")
        if not 0 <= label < num_classes:
          raise ValueError(f"a label is {label}, not from 0 to {num_classes - 1}")
        images[i], labels[i] = image, label
        i += 1
  return Split(images, labels)


def _open_records(path: os.PathLike, num_records: int) -> Any:
  """Opens a record file, which must hold exactly this number of records."""
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
      raise ValueError(f"it holds {len(source)} examples, {_INFO_FILE} says {num_records}")
  return source


def _records(source: Any) -> Iterator[bytes]:
  """Yields the records in order. Read in batches, which is many times faster than one by one."""
  for start in range(0, len(source), _BATCH):
    yield from source.__getitems__(range(start, min(start + _BATCH, len(source))))


@contextlib.contextmanager
def _damage_in(path: os.PathLike) -> Iterator[None]:
  """Turns whatever reading a file of a prepared copy raises into an InputError that names the file.

  array_record checks a hash of every chunk and raises RuntimeError; protocol buffers, image
  decoders and TFDS itself each raise their own kinds of errors.
  """
  try:
    yield
  except (errors.InputError, MemoryError):
    raise
  except Exception as error:
    raise errors.InputError(f"{path} is damaged: {errors.brief(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps off the screen what TFDS warns of and logs below errors, such as optional packages."""
  logger = absl_logging.get_absl_logger()
  level = logger.level
  logger.setLevel("ERROR")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  finally:
    logger.setLevel(level)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise errors.InputError(f"{path} is missing or damaged: {errors.brief(error)}") from error
  if not isinstance(content, dict):
    raise errors.InputError(f"{path} is damaged: it holds no JSON object")
  return content


def _dataset(name: str, train: Split, test: Split, class_names: Sequence[str]) -> Dataset:
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


def _fingerprint(folder: pathlib.Path) -> str:
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


def _cache_file(
  cache_dir: str | os.PathLike | None, folder: pathlib.Path, name: str
) -> pathlib.Path | None:
  """Returns the cache file of a prepared copy, or None where nothing is cached."""
  cache = cache_root(cache_dir)
  if cache is None:
    return None
  # The hash tells copies in different folders apart.
  source = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
  return cache / f"{name.replace('/', '-')}-{folder.name}-{source}.npz"


def _read_cache(file: pathlib.Path | None, fingerprint: str, name: str) -> Dataset | None:
  """Returns the cached dataset; None where it is not there, of another source, or damaged."""
  if file is None or not os.path.isfile(file):
    return None
  try:
    with open(file, "rb") as stream:
      return _parse_cache(stream, fingerprint, name)
  except (FileNotFoundError, NotADirectoryError, PermissionError):
    return None  # Writing it says what is wrong, if anything is.
  except Exception as error:  # zipfile and numpy raise a dozen kinds on damaged files.
    _LOGGER.warning("rebuilding the damaged cache file %s: %s", file, errors.brief(error))
    return None


def _parse_cache(stream: BinaryIO, fingerprint: str, name: str) -> Dataset | None:
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
  dataset = _dataset(name, train, test, meta["class_names"])
  if dataset.checksum != meta["checksum"]:
    raise ValueError("wrong checksum of its arrays")
  return dataset


def _write_cache(file: pathlib.Path | None, fingerprint: str, dataset: Dataset) -> None:
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
