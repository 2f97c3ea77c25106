"""What is wrong with a line of working: the one change that makes it right."""

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Apply, Expression, Number, Quantity
from jaxdl.byhand.worksheet.points import SAME_SUMS
from jaxdl.byhand.worksheet.working import AtPoints, Meaning, are_equal
from jaxdl.errors import InputError

# Formulas with more items, or values with more numbers, are judged, but not repaired.
_MAX_ITEMS = 60
_MAX_SIZE = 100
# Entries of an array that a formula mentions are tried one by one if there are no more.
_MAX_ENTRIES = 40
# At most so many other names are tried.
_MAX_TRIES = 500
_OPERATORS = ("+", "-", "*", "/", "@")
# At most so many numbers are computed to try one kind of change at one place.
_MAX_WORK = 300_000


def explain(
  formula: Expression,
  numbers: Mapping[int, Meaning],
  target: np.ndarray,
  known: AtPoints,
  candidates: Collection[Quantity],
  factors: Mapping[str, np.ndarray],
) -> str:
  """Returns what is wrong with a formula if one change makes it right, else nothing.

  Args:
    formula: the wrong formula.
    numbers: what its numbers stand for.
    target: `[*shape, P]`, the right values; the formula's own shape may be another.
    known: as for `judge`.
    candidates: the quantities that may be missing, the likeliest first.
    factors: text -> `[*shape, P]`: derivatives along the way, which are easily forgotten.
  """
  if len(formula) > _MAX_ITEMS or not np.isfinite(target[..., SAME_SUMS]).all():
    return ""
  if math.prod(target.shape[:-1]) > _MAX_SIZE:
    return ""
  at = {quantity: values[..., SAME_SUMS] for quantity, values in known.items()}
  right = target[..., SAME_SUMS]
  written: list = []
  for index, item in enumerate(formula):
    written += (item,) if index not in numbers else numbers[index].items
  near = {text: values[..., SAME_SUMS] for text, values in factors.items()}
  sentences = itertools.chain(
    _products(formula, right, at),
    _Repair(tuple(written), right, at, candidates, near).sentences()
    if _has_value(formula, at)
    else (),
    _operators(formula, right, at),
    _other_names(formula, right, at, candidates),
  )
  return next(iter(sentences), "")


def _has_value(formula: Expression, at: AtPoints) -> bool:
  """Returns whether the shapes in a formula fit together."""
  try:
    expressions.shapes(formula, lambda q: at[q].shape[:-1])
  except InputError:
    return False
  return True


def _operators(formula: Expression, target: np.ndarray, at: AtPoints) -> Iterator[str]:
  """Yields which operator should be another."""
  for place, item in enumerate(formula):
    if not isinstance(item, Apply) or item.function not in _OPERATORS:
      continue
    part = expressions.part(formula, place)
    for operator in _OPERATORS:
      other = Apply(operator, 2)
      if other != item and _fits((*formula[:place], other, *formula[place + 1 :]), target, at):
        yield f"{expressions.write(part)} should be {expressions.write((*part[:-1], other))}"


def _other_names(
  formula: Expression, target: np.ndarray, at: AtPoints, candidates: Collection[Quantity]
) -> Iterator[str]:
  """Yields which quantity should be another, of another shape."""
  places = [i for i, item in enumerate(formula) if not isinstance(item, Apply | Number)]
  tries = ((place, other) for place in places for other in candidates)
  for place, other in itertools.islice(tries, _MAX_TRIES):
    item = formula[place]
    if isinstance(item, Apply | Number) or at[item].shape == at[other].shape:
      continue
    if _fits((*formula[:place], other, *formula[place + 1 :]), target, at):
      yield f"{expressions.spell(item)} should be {expressions.spell(other)}"


def _products(formula: Expression, target: np.ndarray, at: AtPoints) -> Iterator[str]:
  """Yields which product of arrays should have its factors transposed or swapped."""
  for place, item in enumerate(formula):
    if item != Apply("@", 2) and item != Apply("*", 2):
      continue
    right = expressions.part(formula, place - 1)
    left = expressions.part(formula, place - 1 - len(right))
    start = place - len(right) - len(left)
    for variant in _variants(left, right):
      changed = (*formula[:start], *variant, *formula[place + 1 :])
      if _fits(changed, target, at):
        written = expressions.write(expressions.part(formula, place))
        yield f"{written} should be {expressions.write(variant)}"


def _variants(left: Expression, right: Expression) -> Iterator[Expression]:
  """Yields other products of two factors."""
  for first, second in ((left, right), (right, left)):
    for one in (first, _transposed(first)):
      for two in (second, _transposed(second)):
        yield (*one, *two, Apply("@", 2))
    columns = [part[:-1] if part[-1] == Apply("T", 1) else part for part in (first, second)]
    yield (*columns[0], *columns[1], Apply("outer", 2))
  yield (*left, *right, Apply("*", 2))


def _transposed(part: Expression) -> Expression:
  return part[:-1] if part[-1] == Apply("T", 1) else (*part, Apply("T", 1))


def _fits(formula: Expression, target: np.ndarray, known: AtPoints) -> bool:
  """Returns whether a formula has the shape and the values of the target, `[*shape, P]`."""
  try:
    found = expressions.shapes(formula, lambda q: known[q].shape[:-1])
  except InputError:
    return False
  if found[-1] != target.shape[:-1]:
    return False
  values = expressions.steps(formula, lambda q: known[q][..., None, :], num_points=2)
  shape = (*target.shape[:-1], 1, target.shape[-1])
  return bool(are_equal([*values, np.broadcast_to(values[-1], shape)], target).all())


# Text -> values, `[*shape, P]`, by shape.
_Tables = Mapping[tuple[int, ...], Mapping[str, np.ndarray]]


def _by_shape(values: Mapping[str, np.ndarray]) -> _Tables:
  tables: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
  for name, value in values.items():
    tables.setdefault(value.shape[:-1], {})[name] = value
  return tables


class _Repair:
  """Looks for one change that makes a formula right, the likeliest first; P points."""

  def __init__(
    self,
    formula: Expression,
    target: np.ndarray,
    known: AtPoints,
    candidates: Collection[Quantity],
    factors: Mapping[str, np.ndarray],
  ):
    self._formula, self._target, self._known = formula, target, known
    self._candidates, self._factors = candidates, factors
    self._values = self._steps(lambda _, value: value)
    self._shapes = [np.shape(value)[:-2] for value in self._values]
    self._fits = self._shapes[-1] == target.shape[:-1] or not self._shapes[-1]

  def _steps(self, change: Callable) -> list[Any]:
    return expressions.steps(
      self._formula, lambda q: self._known[q][..., None, :], change, num_points=2
    )

  def sentences(self) -> Iterator[str]:
    """Yields what is wrong with the formula, every way in which one change makes it right."""
    yield from self._reshaped()
    if not self._fits:
      yield from self._reduced_otherwise()
      return
    last = len(self._formula) - 1
    names = self._names()
    points = self._target.shape[-1]
    sign = {"-1": np.full(points, -1.0)}
    constants = {str(n): np.full(points, float(n)) for n in range(2, 11)}
    yield from self._scaled(last, sign)
    yield from self._reduced_otherwise()
    for factors in (self._factors, names, self._number()):
      yield from self._scaled(last, factors)
    for index in range(last - 1, -1, -1):
      yield from self._scaled(index, sign)
    yield from self._replaced(names)
    yield from self._transposed()
    for index in range(last - 1, -1, -1):
      yield from self._scaled(index, {**self._factors, **names, **constants})
    yield from self._term(names)

  def _names(self) -> dict[str, np.ndarray]:
    """Returns all quantities, and the entries of those in the formula."""
    names = {expressions.spell(q): self._known[q] for q in self._candidates}
    for quantity in expressions.quantities(self._formula):
      values = self._known[quantity]
      if 0 < math.prod(values.shape[:-1]) <= _MAX_ENTRIES and values.ndim > 1:
        for place in np.ndindex(values.shape[:-1]):
          names[expressions.spell(quantity) + expressions.spell_index(place)] = values[place]
    return names

  def _right(self, values: list) -> np.ndarray:
    """Returns which of the changes, one per row, make the formula right."""
    num = max(np.shape(value)[-2] for value in values)
    shape = self._target.shape
    values = [*values, np.broadcast_to(values[-1], (*shape[:-1], num, shape[-1]))]
    return are_equal(values, self._target).all(axis=-1)

  def _reshaped(self) -> Iterator[str]:
    """Yields that the whole should be transposed or summed."""
    value, shape = self._values[-1], self._shapes[-1]
    num_axes, wanted = len(shape), self._target.shape[:-1]
    changed = {}
    if num_axes == 2:
      changed["it should be transposed"] = np.swapaxes(value, 0, 1)
    for axis in range(num_axes):
      over = f"over axis {axis}" if num_axes > 1 else "over the entries"
      changed[f"the sum {over} is missing"] = value.sum(axis=axis)
      changed[f"the mean {over} is missing"] = value.mean(axis=axis)
    if num_axes == 2:
      changed["the sum over all entries is missing"] = value.sum(axis=(0, 1))
      changed["the mean over all entries is missing"] = value.mean(axis=(0, 1))
    for sentence, result in changed.items():
      if np.shape(result)[:-2] == wanted and self._right([*self._values[:-1], result]).all():
        yield sentence

  def _scaled(self, index: int, factors: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields the factors that are missing at one place of the formula, or one too many."""
    size = math.prod(self._shapes[index])
    for shape, group in _by_shape(factors).items():
      try:
        fits = np.broadcast_shapes(shape, self._shapes[index]) == self._shapes[index]
      except ValueError:
        fits = False
      if not fits or 2 * len(group) * size * self._target.size > _MAX_WORK:
        continue
      table = np.stack(list(group.values()), axis=-2)
      with np.errstate(all="ignore"):
        table = np.concatenate([table, 1 / table], axis=-2)  # [*shape, 2 F, P]
      axes = (*range(len(shape)), -1)
      usable = np.isfinite(table).all(axis=axes) & (np.abs(table - 1).max(axis=axes) > 1e-9)
      table = np.where(usable[:, None], table, 1.0)

      def scale(i, value, table=table):
        return value * table if i == index else value

      (found,) = np.nonzero(self._right(self._steps(scale)))
      names = list(group)
      for row in found:
        name, missing = names[row % len(names)], row < len(names)
        yield self._say_factor(index, name, group[name], missing)

  def _say_factor(self, index: int, name: str, values: np.ndarray, missing: bool) -> str:
    is_whole = index == len(self._formula) - 1
    part = expressions.write(expressions.part(self._formula, index))
    if name == "-1":
      return "its sign is wrong" if is_whole else f"the sign of {part} is wrong"
    is_number = re.fullmatch("-?[0-9]+(/[0-9]+)?", name)
    is_constant = values.ndim == 1 and np.ptp(values) <= 1e-12
    value = f" = {values[0]:g}" if is_constant and not is_number else ""
    if is_number:
      name, missing = self._say_number(name, missing)
    fault = "is missing" if missing else "is one too many"
    where = "" if is_whole else f" in {part}"
    return f"the factor {name}{value}{where} {fault}"

  def _say_number(self, name: str, missing: bool) -> tuple[str, bool]:
    """Returns a factor as it would be written, and whether it is missing or one too many.

    A factor 3 that is not in the formula cannot be one too many: 1/3 is missing. A formula with / 3
    to which a factor 3 is missing has 1/3 too much.
    """
    number = Number(float(name))
    divides = any(
      item == number and self._formula[i + 1 : i + 2] == (Apply("/", 2),)
      for i, item in enumerate(self._formula)
    )
    if (missing and divides) or (not missing and number not in self._formula):
      return f"1/{name}", not missing
    return name, missing

  def _replaced(self, names: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields which quantity, or entry of one, should be another."""
    tables = _by_shape(names)
    for index, item in enumerate(self._formula):
      is_entry = isinstance(item, Apply) and item.function == "[]"
      if is_entry:
        is_entry = not isinstance(self._formula[index - 1], Apply | Number)
      if isinstance(item, Apply | Number) and not is_entry:
        continue
      group = tables.get(self._shapes[index], {})
      if not group or len(group) * self._target.size > _MAX_WORK:
        continue
      table = np.stack(list(group.values()), axis=-2)

      def replace(i, value, table=table, index=index):
        return table if i == index else value

      written = expressions.write(expressions.part(self._formula, index))
      for row in np.nonzero(self._right(self._steps(replace)))[0]:
        yield f"{written} should be {list(group)[row]}"

  def _transposed(self) -> Iterator[str]:
    """Yields which square matrix in the formula should be transposed."""
    for index, shape in enumerate(self._shapes):
      if len(shape) != 2 or shape[0] != shape[1]:
        continue

      def transpose(i, value, index=index):
        return np.swapaxes(value, 0, 1) if i == index else value

      if self._right(self._steps(transpose)).all():
        part = expressions.write(expressions.part(self._formula, index))
        is_quantity = not isinstance(self._formula[index], Apply)
        yield f"{part} should be {part}.T" if is_quantity else f"{part} should be transposed"

  def _reduced_otherwise(self) -> Iterator[str]:
    """Yields which sum should be a mean, or the other way round, or over another axis."""
    for index, item in enumerate(self._formula):
      if not isinstance(item, Apply) or item.function not in ("sum", "mean"):
        continue
      part = expressions.part(self._formula, index)
      num_axes = len(self._shapes[index - 1])
      options = dict(item.options)
      for function in ("sum", "mean"):
        for axis in range(num_axes) if "axis" in options else (None,):
          changed = {**options, "axis": axis} if axis is not None else options
          other = Apply(function, 1, tuple(sorted(changed.items())))
          formula = (*self._formula[:index], other, *self._formula[index + 1 :])
          if other != item and _fits(formula, self._target, self._known):
            replaced = (*part[:-1], other)
            yield f"{expressions.write(part)} should be {expressions.write(replaced)}"

  def _term(self, names: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields the term that is missing, or one too many."""
    rest = self._target - self._values[-1][..., 0, :]
    for name, values in names.items():
      for sign, fault in ((1, "missing"), (-1, "one too many")):
        same = values.shape == rest.shape
        if same and np.allclose(rest, sign * values, rtol=1e-9, atol=0):
          yield f"the term {name} is {fault}"

  def _number(self) -> dict[str, np.ndarray]:
    """Returns the whole number that the formula lacks as a factor, or has too much."""
    with np.errstate(all="ignore"):
      ratio = self._target / self._values[-1][..., 0, :]
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size or not np.isfinite(self._values[-1]).all():
      return {}
    if np.ptp(ratio) > 1e-9 * abs(ratio[0]):
      return {}
    with np.errstate(all="ignore"):
      size = max(abs(ratio[0]), 1 / abs(ratio[0]))
    if not np.isfinite(size) or abs(size - round(size)) > 1e-9 * size:
      return {}
    if not 2 <= round(size) <= 1000:
      return {}
    number = math.copysign(round(size), ratio[0])
    return {f"{number:g}": np.full(self._target.shape[-1], number)}
