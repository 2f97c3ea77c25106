"""Image-classification datasets of TensorFlow Datasets (TFDS): found, or prepared, and loaded.

`tfds_records.py` reads a copy that TFDS prepared. If there is no copy yet, TFDS prepares one, which
needs TensorFlow. Decoding takes seconds, so `cache.py` keeps the arrays.
"""

import difflib
import importlib.util
import os
import pathlib
import re
import warnings
from typing import Any

from jaxdl import errors
from jaxdl.data import cache, tfds_records
from jaxdl.data.dataset import Dataset
from jaxdl.store import files

VERSION = r"\d+\.\d+\.\d+"
CONFIG = r"\w[\w.\-]*"  # It becomes the name of a folder, so it must not be a path.


def load(
  builder_name: str,
  config: str | None,
  version: str | None,
  part: tfds_records.Part,
  data_dir: str | os.PathLike | None,
  cache_dir: str | os.PathLike | None,
  download_dir: str | os.PathLike | None,
) -> Dataset:
  """Loads a TFDS dataset from the cache, else from its prepared copy, which is made if necessary.

  Args:
    builder_name: the dataset's name in TFDS.
    config: the builder's config; None: its default.
    version: the version; None: the newest that is prepared.
    part: the part of the split `train` that is read.
    data_dir: see `jaxdl.data.load`.
    cache_dir: see `jaxdl.data.load`.
    download_dir: see `jaxdl.data.load`.

  Raises:
    InputError: see `jaxdl.data.load`.
  """
  root = _data_root(data_dir)
  folder = _find_prepared(root, builder_name, config, version)
  if folder is None:
    folder = _prepare(root, builder_name, config, version, download_dir)
  name = f"{builder_name}/{config}" if config else builder_name
  name += "" if part == tfds_records.ALL else str(part)
  fingerprint = cache.fingerprint_of(folder, name)
  cache_file = cache.file_for(cache_dir, folder, name)
  dataset = cache.read(cache_file, fingerprint)
  if dataset is None:
    dataset = tfds_records.read(folder, name, part)
    cache.write(cache_file, fingerprint, dataset)
  return dataset


def _data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
  """Returns the folder of prepared datasets."""
  given = os.fspath(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
  if "://" in given:
    raise errors.InputError(f"data_dir must be a folder on this machine, not {given!r}")
  try:
    return files.expand_home(given)
  except errors.InputError as error:
    raise errors.InputError(f"set data_dir: {error}") from error


def _find_prepared(
  root: pathlib.Path, builder_name: str, config: str | None, version: str | None
) -> pathlib.Path | None:
  """Returns the folder NAME[/CONFIG]/VERSION of the newest prepared copy, or None.

  It does not ask TFDS, which takes half a second to import: more than everything else when the
  arrays are in the cache.
  """
  folder = root / builder_name
  default_config = folder / ".config" / "metadata.json"
  if config is None and os.path.isfile(default_config):
    config = tfds_records.read_json(default_config).get("default_config_name")
    if config and not (isinstance(config, str) and re.fullmatch(CONFIG, config, re.ASCII)):
      raise errors.InputError(f"{default_config} is damaged: {errors.show(config)} is not a config")
  if config:
    folder = folder / config
  versions = [
    path
    for path in folder.glob(version or "*.*.*")
    if re.fullmatch(VERSION, path.name, re.ASCII) and os.path.isdir(path)
  ]
  return max(versions, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


def _prepare(
  root: pathlib.Path,
  builder_name: str,
  config: str | None,
  version: str | None,
  download_dir: str | os.PathLike | None,
) -> pathlib.Path:
  """Has TFDS download a dataset and prepare it under `root`; returns its folder."""
  with tfds_records.quiet():
    import tensorflow_datasets as tfds

  _check_tfds_name(tfds, builder_name, config)
  name = builder_name + (f"/{config}" if config else "") + (f":{version}" if version else "")
  other = _find_prepared(root, builder_name, config, None)
  where = f"{root}, which has version {other.name}" if other else f"{root}"
  if importlib.util.find_spec("tensorflow") is None:
    raise errors.InputError(
      f"{name} is not prepared in {where}: put a copy that TFDS prepared as array_record there, or "
      "install TensorFlow to prepare it (pip install 'jaxdl[prepare]' or make install-prepare)"
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      builder = tfds.builder(name, data_dir=os.fspath(root), file_format="array_record")
      tfds_records.supervised_keys(
        tfds, builder.info
      )  # Fails before gigabytes are downloaded in vain.
      builder.download_and_prepare(
        download_dir=None if download_dir is None else os.fspath(download_dir),
        # TFDS's bucket of prepared datasets has another file format.
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
      )
  except errors.InputError:
    raise
  except Exception as error:  # The network, the disk, a checksum, a manual download, ...
    raise errors.InputError(
      f"TFDS cannot prepare {name} in {where}: {errors.brief(error)}"
    ) from error
  return pathlib.Path(builder.data_dir)


def _check_tfds_name(tfds: Any, builder_name: str, config: str | None) -> None:
  """Raises InputError unless TFDS has code for this dataset and config."""
  known = tfds.list_builders(with_community_datasets=False)
  if builder_name not in known:
    # TFDS has hundreds of names; errors.unknown_name would list them all.
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
