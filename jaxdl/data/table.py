"""Tables in CSV files: columns of numbers and of categories -> inputs; one column -> targets."""

import csv
import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxdl import errors
from jaxdl.data.arrays import from_arrays
from jaxdl.data.dataset import Dataset, Split
from jaxdl.data.splits import hold_out_test

TASKS = ("classification", "regression")
# How a cell says that its value is missing, in lower case.
_MISSING = ("", "?", "na", "n/a", "nan", "null")
# More categories than this are names or numbers with a slip in them.
_MOST_CATEGORIES = 100
# An integer target with more values than this may be a class or a number to predict.
_CLEARLY_CLASSES = 20


def load(
  file: pathlib.Path,
  target: str = "",
  task: str = "",
  drop: tuple[str, ...] | str = (),
  test_fraction: float = 0.2,
) -> Dataset:
  """Loads a table with a header; cells are separated by commas, semicolons or tabs.

  A column whose cells are all numbers becomes one input, standardised by its mean and standard
  deviation in the training part, from which a validation set is split off later. Any other column
  becomes one input per category, 1 where a row has it and else 0, in the order of the sorted
  categories of the whole table. The test set is drawn from the rows as in `from_arrays`.

  Args:
    file: the table, in UTF-8.
    target: the column to predict. It stays as it is.
    task: "classification" or "regression"; empty: classification if the target has text, or up to
      20 different integers, and regression if it has numbers with a point or an exponent.
    drop: columns that are left out.
    test_fraction: the share of rows to test on.

  Raises:
    InputError: a value is missing, a number is not finite, the rows differ in length, a column is
      unknown, or the target can be read both ways. The message names row and column; rows are
      counted from 1, after the header.
  """
  if task and task not in TASKS:
    raise errors.unknown_name("task", task, TASKS)
  columns = _read(file)
  drop = drop if isinstance(drop, tuple) else (drop,)
  for name in [target, *drop]:
    if name not in columns:
      what = f"has no column {name!r}" if name else "needs (target=COLUMN)"
      raise errors.InputError(f"{what}; its columns: {', '.join(columns)}")
  class_names, targets = _targets(target, columns.pop(target), task)
  kept = {name: cells for name, cells in columns.items() if name not in drop}
  if not kept:
    raise errors.InputError("has no column besides the target and those that are dropped")
  inputs, is_number, notes = _inputs(kept)
  train, test, note = hold_out_test(Split(inputs, targets), test_fraction, bool(class_names))
  scaled = [_standardise(split.inputs, train.inputs, is_number) for split in (train, test)]
  dataset = from_arrays(
    *(scaled[0], train.targets, scaled[1], test.targets),
    class_names=class_names or None,
    name=file.name,
  )
  return dataclasses.replace(dataset, notes=(*notes, note))


def _read(file: pathlib.Path) -> dict[str, tuple[str, ...]]:
  """Returns column -> cells, none of them missing."""
  try:
    with open(file, encoding="utf-8-sig", newline="") as stream:
      header = stream.readline()
      separator = max(",;\t", key=header.count)
      stream.seek(0)
      rows = [
        [cell.strip() for cell in row]
        for row in csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
        if row
      ]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise errors.InputError(f"cannot be read as a table: {errors.brief(error)}") from error
  if len(rows) < 2:
    raise errors.InputError("has no rows below its header")
  names, *rows = rows
  for place, name in enumerate(names, 1):
    if not name or names.count(name) > 1:
      raise errors.InputError(
        f"has a column without a name, number {place}" if not name else f"has two columns {name!r}"
      )
  for number, row in enumerate(rows, 1):
    if len(row) != len(names):
      raise errors.InputError(f"has {len(row)} cells in row {number}, and {len(names)} columns")
    for name, cell in zip(names, row, strict=True):
      if cell.lower() in _MISSING:
        raise errors.InputError(
          f"has no value of {name!r} in row {number}: fill it in, or leave the row out"
        )
  return dict(zip(names, zip(*rows, strict=True), strict=True))


def _targets(name: str, cells: Sequence[str], task: str) -> tuple[tuple[str, ...], np.ndarray]:
  """Returns the names of the classes, none for regression, and the targets `[N]`."""
  numbers = _numbers(cells)
  are_integers = all(re.fullmatch(r"[+-]?\d{1,9}", cell) for cell in cells)
  if numbers is None and task == "regression":
    place = next(i for i, cell in enumerate(cells) if _numbers([cell]) is None)
    raise errors.InputError(
      f"has {cells[place]!r} in row {place + 1} of {name!r}, which is no number to predict"
    )
  values = sorted(set(cells), key=int if are_integers else str)
  if not task and are_integers and len(values) > _CLEARLY_CLASSES:
    raise errors.InputError(
      f"has {len(values):,} different integers in {name!r}: say task=regression or "
      "task=classification"
    )
  if numbers is not None and (task == "regression" or (not task and not are_integers)):
    _check_finite(name, numbers)
    return (), numbers
  index = {value: place for place, value in enumerate(values)}
  return tuple(values), np.array([index[cell] for cell in cells], np.int32)


def _inputs(
  columns: Mapping[str, Sequence[str]],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Returns inputs `[N, D]`, which of them are numbers `[D]`, and a note on the columns."""
  parts, is_number, categories = [], [], []
  for name, cells in columns.items():
    numbers = _numbers(cells)
    if numbers is not None:
      _check_finite(name, numbers)
      parts.append(numbers[:, np.newaxis])
    else:
      values, index = np.unique(np.array(cells), return_inverse=True)
      _check_categories(name, cells, len(values))
      parts.append(np.eye(len(values))[index])
      categories.append(f"{name} ({len(values)})")
    is_number += [numbers is not None] * parts[-1].shape[1]
  notes = [f"{sum(is_number)} columns of numbers, standardised"] if any(is_number) else []
  notes += [f"categories: {', '.join(categories)}"] if categories else []
  return np.concatenate(parts, axis=1), np.array(is_number), notes


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
  """Returns numbers `[N]` float64, or None if not every cell has one."""
  try:
    return np.array([float(cell) for cell in cells])
  except ValueError:
    return None


def _check_finite(name: str, numbers: np.ndarray) -> None:
  fits = np.abs(numbers) <= np.finfo(np.float32).max
  if not fits.all():
    place = int(np.argmin(fits))
    raise errors.InputError(
      f"has {numbers[place]} in row {place + 1} of {name!r}, which is no number of float32"
    )


def _check_categories(name: str, cells: Sequence[str], num_categories: int) -> None:
  if num_categories > _MOST_CATEGORIES:
    place = next(i for i, cell in enumerate(cells) if _numbers([cell]) is None)
    raise errors.InputError(
      f"has {num_categories:,} different texts in {name!r}, such as {cells[place]!r} in row "
      f"{place + 1}: correct it if these are numbers, or leave the column out with drop={name}"
    )


def _standardise(inputs: np.ndarray, train: np.ndarray, is_number: np.ndarray) -> np.ndarray:
  """Returns inputs `[N, D]` in which numbers are (x - mean) / deviation of the training part."""
  scaled = inputs.copy()
  for column in np.flatnonzero(is_number):
    # math.fsum is exact, so that every machine computes the same bits.
    values = train[:, column]
    mean = math.fsum(values) / len(values)
    variance = math.fsum((values - mean) ** 2) / len(values)
    # The mean of equal values may differ from them by rounding.
    deviation = math.sqrt(variance) if values.min() < values.max() else 0.0
    scaled[:, column] = (inputs[:, column] - mean) / (deviation or 1.0)
  return scaled
