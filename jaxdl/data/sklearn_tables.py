"""Tables of scikit-learn as data sets: an example of functions that return arrays."""

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


def diabetes() -> dict[str, Any]:
  """Returns 442 patients with 10 measurements each, and how diabetes has progressed after a year.

  The targets are in standard deviations of the training part.
  """
  table = datasets.load_diabetes()
  parts = _split(table.data, table.target)
  mean, deviation = parts["y_train"].mean(), parts["y_train"].std()
  return parts | {name: (parts[name] - mean) / deviation for name in ("y_train", "y_test")}


def _split(x: np.ndarray, y: np.ndarray, **options: Any) -> dict[str, Any]:
  """Returns a quarter of a table as the test set; numbers are standardised on the rest."""
  x_train, x_test, y_train, y_test = train_test_split(
    x, y, test_size=0.25, random_state=0, **options
  )
  scaler = StandardScaler().fit(x_train)
  x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)
  return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
