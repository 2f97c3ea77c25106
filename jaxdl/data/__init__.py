"""Datasets in memory: loading them by name, selecting classes, splitting off a validation set.

Images are uint8 `[N, H, W, D]` and labels int32 `[N]`; nothing is scaled here. Read `dataset.py`
first, for what a dataset is, then `catalog.py`, for the names that can be loaded.

Imports: errors, store.
"""

from jaxdl.data.cache import cache_root
from jaxdl.data.catalog import load
from jaxdl.data.dataset import (
  Dataset,
  Split,
  check_fraction,
  select_classes,
  split_validation,
  take_train,
)

__all__ = (
  "Dataset",
  "Split",
  "cache_root",
  "check_fraction",
  "load",
  "select_classes",
  "split_validation",
  "take_train",
)
