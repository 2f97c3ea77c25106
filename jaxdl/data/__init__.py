"""Datasets in memory: by name or from arrays; classes, validation sets, files of their own.

Inputs are uint8, int32 or float32 `[N, ...]`; targets are classes, int32 `[N]` or `[N, L]`, or
numbers, float32 `[N]` or `[N, K]`. Images are not scaled here. Read `dataset.py` first, for what a
dataset is, then `arrays.py`, for what becomes of arrays, and `catalog.py`, for the names that are
known.

Imports: calls, errors, store.
"""

from jaxdl.data.archive import read, save
from jaxdl.data.arrays import from_arrays
from jaxdl.data.cache import cache_root
from jaxdl.data.catalog import load
from jaxdl.data.dataset import Dataset, Split
from jaxdl.data.resampling import Indices, Resampling, check_scheme
from jaxdl.data.splits import (
  VALIDATION_SPLITS,
  check_fraction,
  resample,
  select_classes,
  split_validation,
  take_train,
)

__all__ = (
  "VALIDATION_SPLITS",
  "Dataset",
  "Indices",
  "Resampling",
  "Split",
  "cache_root",
  "check_fraction",
  "check_scheme",
  "from_arrays",
  "load",
  "read",
  "resample",
  "save",
  "select_classes",
  "split_validation",
  "take_train",
)
