"""What is wrong with a line of working: the one change that makes it right."""

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Apply, Expression, Number, Quantity
from jaxdl.byhand.worksheet.points import GIVEN, SAME_START, SAME_SUMS
from jaxdl.byhand.worksheet.rewrites import Rewrites
from jaxdl.byhand.worksheet.working import AtPoints, Meaning, are_equal
from jaxdl.errors import InputError

# Formulas with more items, or values with more numbers, are judged, but not repaired.
_MAX_ITEMS = 60
_MAX_SIZE = 100
# Entries of an array that a formula mentions are tried one by one if there are no more.
_MAX_ENTRIES = 40
# At most so many terms of a sum are tried in every combination.
_MAX_TERMS = 6
# What makes a formula right does so at the given point, too, where data are 0. A formula that was
# simplified for them may besides be wrong.
_POINTS = (np.r_[GIVEN, SAME_SUMS], np.r_[GIVEN, SAME_START])
# At most so many numbers are computed to try one kind of change at one place.
_MAX_WORK = 300_000


class Hints(NamedTuple):
  """What is known of a wrong formula.

  Attributes:
    candidates: the quantities that may be missing, the likeliest first.
    factors: text -> `[*shape, P]`: derivatives along the way, which are easily forgotten.
    terms: a right formula, as the sum of these.
    mistakes: what to say -> `[*shape, P]`: what one gets by a usual mistake.
    spell: how a quantity is written.
    has_fixed_data: whether a formula may have been simplified for data that are 0, 1 or -1.
  """

  candidates: Collection[Quantity]
  factors: Mapping[str, np.ndarray]
  terms: Sequence[Expression]
  mistakes: Mapping[str, np.ndarray]
  spell: Callable[[Quantity], str]
  has_fixed_data: bool = False


def explain(
  formula: Expression,
  numbers: Mapping[int, Meaning],
  target: np.ndarray,
  known: AtPoints,
  hints: Hints,
) -> str:
  """Returns what is wrong with a formula if one change makes it right, else nothing.

  Args:
    formula: the wrong formula.
    numbers: what its numbers stand for.
    target: `[*shape, P]`, the right values; the formula's own shape may be another.
    known: as for `judge`.
    hints: what else is known.
  """
  if len(formula) > _MAX_ITEMS or math.prod(target.shape[:-1]) > _MAX_SIZE:
    return ""
  written: list = []
  for index, item in enumerate(formula):
    written += (item,) if index not in numbers else numbers[index].items
  for points in _POINTS if hints.has_fixed_data else _POINTS[:1]:
    right = target[..., points]
    if not np.isfinite(right).all():
      continue
    at = {quantity: values[..., points] for quantity, values in known.items()}
    near = {text: values[..., points] for text, values in hints.factors.items()}
    usual = {said: values[..., points] for said, values in hints.mistakes.items()}
    rewrites = Rewrites(tuple(written), right, at, hints.candidates, hints.terms, hints.spell)
    sentences = itertools.chain(
      rewrites.products(),
      _Repair(tuple(written), right, at, near, rewrites, usual).sentences()
      if _has_value(formula, at)
      else (),
      rewrites.operators(),
      rewrites.signs(),
      rewrites.other_names(),
    )
    for sentence in sentences:
      return sentence
  return ""


def _has_value(formula: Expression, at: AtPoints) -> bool:
  """Returns whether the shapes in a formula fit together."""
  try:
    expressions.shapes(formula, lambda q: at[q].shape[:-1])
  except InputError:
    return False
  return True


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
    factors: Mapping[str, np.ndarray],
    rewrites: Rewrites,
    mistakes: Mapping[str, np.ndarray],
  ):
    self._formula, self._target, self._known = formula, target, known
    self._factors, self._rewrites, self._mistakes = factors, rewrites, mistakes
    self._values = self._steps(lambda _, value: value)
    self._shapes = [np.shape(value)[:-2] for value in self._values]
    try:
      wanted = target.shape[:-1]
      self._fits = np.broadcast_shapes(self._shapes[-1], wanted) == wanted
    except ValueError:
      self._fits = False
    # A right formula: text -> `[*shape, P]` of its terms, and of everything in it.
    self._terms: dict[str, np.ndarray] = {}
    self._parts: dict[str, np.ndarray] = {}
    num_points = target.shape[-1]
    for term in rewrites.terms:
      for place, value in enumerate(expressions.steps(term, lambda q: known[q], num_points=1)):
        text, item = rewrites.write(expressions.part(term, place)), term[place]
        full = np.broadcast_to(value, (*value.shape[:-1], num_points))
        is_all = place == len(term) - 1 and len(rewrites.terms) == 1
        if isinstance(item, Apply) and item.function not in ("list", "negative") and not is_all:
          self._parts[text] = full
        if place == len(term) - 1:
          self._terms[text] = np.broadcast_to(full, target.shape)

  def _steps(self, change: Callable) -> list[Any]:
    return expressions.steps(
      self._formula, lambda q: self._known[q][..., None, :], change, num_points=2
    )

  def sentences(self) -> Iterator[str]:
    """Yields what is wrong with the formula, every way in which one change makes it right."""
    rewrites = self._rewrites
    yield from self._reshaped()
    if not self._fits:
      yield from rewrites.axes()
      yield from rewrites.functions()
      return
    for said, values in self._mistakes.items():
      if np.allclose(self._values[-1][..., 0, :], values, rtol=1e-9, atol=1e-13):
        yield said
    last = len(self._formula) - 1
    names = self._names()
    points = self._target.shape[-1]
    sign = {"-1": np.full(points, -1.0)}
    constants = {str(n): np.full(points, float(n)) for n in range(2, 11)}
    yield from self._scaled(last, sign)
    yield from rewrites.axes()
    for factors in (self._factors, names, self._number(), self._parts):
      yield from self._scaled(last, factors)
    for index in range(last - 1, -1, -1):
      yield from self._scaled(index, sign)
    yield from self._terms_that_are(1, "missing")
    yield from self._replaced(names)
    yield from rewrites.swapped()
    yield from self._transposed()
    yield from rewrites.functions()
    yield from rewrites.pairs()
    yield from rewrites.renumbered()
    for index in range(last - 1, -1, -1):
      if isinstance(self._formula[index], Number) or self._is_negligible(index):
        continue
      yield from self._scaled(index, {**self._factors, **names})
      if np.ptp(self._values[index], axis=-1).any():  # an eps may have any size
        yield from self._scaled(index, constants)
    yield from self._other_part()
    yield from self._terms_that_are(-1, "one too many")
    yield from self._term(names)

  def _is_negligible(self, index: int) -> bool:
    """Returns whether a part is so small, like an eps, that many factors of it would be right."""
    largest = max(float(np.abs(value).max()) for value in self._values)
    return float(np.abs(self._values[index]).max()) < 1e-6 * largest

  def _names(self) -> dict[str, np.ndarray]:
    """Returns all quantities, and the entries of those in the formula."""
    write = self._rewrites.write
    names = {write((q,)): self._known[q] for q in self._rewrites.candidates}
    for quantity in expressions.quantities(self._formula):
      values = self._known[quantity]
      if 0 < math.prod(values.shape[:-1]) <= _MAX_ENTRIES and values.ndim > 1:
        for place in np.ndindex(values.shape[:-1]):
          names[write((quantity,)) + expressions.spell_index(place)] = values[place]
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
    part = self._written(index)
    if name == "-1":
      return "its sign is wrong" if is_whole else f"the sign of {part} is wrong"
    is_number = re.fullmatch("-?[0-9]+(/[0-9]+)?", name)
    has_value = not is_number and "sqrt" not in name
    is_constant = values.ndim == 1 and np.ptp(values) <= 1e-12
    value = f" = {values[0]:g}" if is_constant and has_value else ""
    if is_number:
      name, missing = self._say_number(name, missing)
    elif not missing and "/d" not in name and name not in self._rewrites.write(self._formula):
      name, missing = f"1/({name})" if re.search(r"[-+*/@ ]", name) else f"1/{name}", True
      value = ""
    fault = "is missing" if missing else "is one too many"
    where = "" if is_whole else f" in {part}"
    return f"the factor {name}{value}{where} {fault}"

  def _written(self, index: int) -> str:
    """Returns the part of the formula that ends at a place."""
    return self._rewrites.write(expressions.part(self._formula, index))

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
      is_decimal = isinstance(item, Number) and item.value % 1 != 0
      if isinstance(item, Apply | Number) and not (is_entry or is_decimal):
        continue
      group = tables.get(self._shapes[index], {})
      if not group or len(group) * self._target.size > _MAX_WORK:
        continue
      same = {i for i, other in enumerate(self._formula) if other == item and not is_entry}
      for places in ({index}, same) if len(same) > 1 else ({index},):
        yield from self._put(index, group, places)

  def _put(
    self, index: int, group: Mapping[str, np.ndarray], places: Collection[int]
  ) -> Iterator[str]:
    """Yields what should be at some places of the formula, instead of what is."""
    table = np.stack(list(group.values()), axis=-2)
    steps = self._steps(lambda i, value: table if i in places else value)
    for row in np.nonzero(self._right(steps))[0]:
      yield f"{self._written(index)} should be {list(group)[row]}"

  def _terms_that_are(self, sign: int, fault: str) -> Iterator[str]:
    """Yields which terms of a right formula are missing (sign 1), or there twice (-1)."""
    if not 1 < len(self._terms) <= _MAX_TERMS:
      return
    rest = sign * (self._target - self._values[-1][..., 0, :])
    for size in range(1, len(self._terms)):
      for names in itertools.combinations(self._terms, size):
        if np.allclose(rest, sum(self._terms[n] for n in names), rtol=1e-9, atol=1e-13):
          noun, verb = ("term", "is") if size == 1 else ("terms", "are")
          yield f"the {noun} {' and '.join(names)} {verb} {fault}"

  def _other_part(self) -> Iterator[str]:
    """Yields which part should be one of a right formula, or which number another."""
    tables = _by_shape(self._parts)
    numbers = {str(n): np.full(self._target.shape[-1], float(n)) for n in range(11)}
    for text, value in self._parts.items():
      if value.ndim == 1 and not np.ptp(value):
        numbers[text] = value
    for index, item in enumerate(self._formula[:-1]):
      is_constant = not np.ptp(self._values[index], axis=-1).any() and not self._shapes[index]
      group = tables.get(self._shapes[index], {})
      group = numbers if isinstance(item, Number) or is_constant else group
      if group and len(group) * self._target.size <= _MAX_WORK:
        yield from self._put(index, group, {index})

  def _transposed(self) -> Iterator[str]:
    """Yields which square matrix in the formula should be transposed."""
    for index, shape in enumerate(self._shapes):
      if len(shape) != 2 or shape[0] != shape[1]:
        continue

      def transpose(i, value, index=index):
        return np.swapaxes(value, 0, 1) if i == index else value

      if self._right(self._steps(transpose)).all():
        part = self._written(index)
        is_quantity = not isinstance(self._formula[index], Apply)
        yield f"{part} should be {part}.T" if is_quantity else f"{part} should be transposed"

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
    points = self._target.shape[-1]
    for root, power in (("{:g}", 1), ("sqrt({:g})", 2)):
      number = size**power
      if not np.isfinite(number) or abs(number - round(number)) > 1e-9 * number:
        continue
      if 2 <= round(number) <= 1000:
        number = math.copysign(round(number), ratio[0])
        text = root.format(number) if power == 1 or number > 0 else f"-sqrt({-number:g})"
        return {text: np.full(points, math.copysign(size, ratio[0]))}
    return {}
