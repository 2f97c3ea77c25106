"""Tables and small images of scikit-learn: examples of functions that return arrays."""

from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


def wine() -> dict[str, Any]:
  """Returns 178 wines of three cultivars with 13 measurements each, standardised."""
  table = datasets.load_wine()
  return _split(table.data, table.target, stratify=table.target) | {
    "class_names": [str(name) for name in table.target_names]
  }


def diabetes(outliers: float = 0.0) -> dict[str, Any]:
  """Returns 442 patients with 10 measurements each, and how diabetes has progressed after a year.

  The targets are in standard deviations of the training part. A share of `outliers` of its targets,
  always the same ones, is off by ten standard deviations.
  """
  table = datasets.load_diabetes()
  parts = _split(table.data, table.target)
  mean, deviation = parts["y_train"].mean(), parts["y_train"].std()
  parts |= {name: (parts[name] - mean) / deviation for name in ("y_train", "y_test")}
  is_off = np.random.default_rng(0).permutation(len(parts["y_train"])) < outliers * len(
    parts["y_train"]
  )
  return parts | {"y_train": parts["y_train"] + 10 * is_off}


def small_digits(rare: bool = False) -> dict[str, Any]:
  """Returns scikit-learn's 1,797 digits as they are, 8 x 8 pixels.

  With `rare`, nine in ten training images of the digits 5 to 9 are left out. The test set stays as
  it is, with equally many of each.
  """
  table = datasets.load_digits()
  images = (15 * table.images).astype(np.uint8)[..., None]  # 0 to 16 becomes 0 to 240
  x_train, x_test, y_train, y_test = train_test_split(
    images, table.target, test_size=0.25, random_state=0, stratify=table.target
  )
  kept = np.ones(len(y_train), bool)
  for digit in range(5, 10) if rare else ():
    kept[np.flatnonzero(y_train == digit)[np.arange((y_train == digit).sum()) % 10 > 0]] = False
  return {"x_train": x_train[kept], "y_train": y_train[kept], "x_test": x_test, "y_test": y_test}


def _split(x: np.ndarray, y: np.ndarray, **options: Any) -> dict[str, Any]:
  """Returns a quarter of a table as the test set; numbers are standardised on the rest."""
  x_train, x_test, y_train, y_test = train_test_split(
    x, y, test_size=0.25, random_state=0, **options
  )
  scaler = StandardScaler().fit(x_train)
  x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)
  return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
