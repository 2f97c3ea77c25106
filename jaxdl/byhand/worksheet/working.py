"""Is a line of working right as mathematics, whatever was computed from it?

A line of working is a formula for a node, a derivative or an updated value. It is right if it is
the same function of the givens: if it has the same value at points around the given one.

People write numbers for names, as in 1 - 0.1*(0.8807 * 0.0248 * -0.025). So a number may stand for
any quantity whose value, right or claimed, it is when rounded or cut off; the formula is right if
it is so for one choice of what its numbers stand for. A number that stands for no quantity, such as
0.1193 for 1 - a, gets the benefit of the doubt: then the value at the given point decides.

A formula that holds only because some datum is 0, 1 or -1 was simplified, which is right, but worth
a remark. Data are the givens with respect to which nothing is differentiated. Data that are called
alike and add up to 1, such as the targets y1 and y2, are taken to do so always.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Apply, Expression, Number, Quantity
from jaxdl.byhand.worksheet.points import GIVEN, NEAR, SAME_DATA, SAME_SUMS

# At most so many items of a formula are evaluated, over all choices of what its numbers stand for.
_MAX_WORK = 60_000
# Formulas with more items are judged, but not repaired.
_MAX_ITEMS = 60

# What each quantity is at every point, and what it was claimed to be.
AtPoints = Mapping[Quantity, np.ndarray]
Claimed = Mapping[Quantity, float]


class Meaning(NamedTuple):
  """What a number stands for: a quantity or its negative, as numbers are written without a sign."""

  quantity: Quantity
  sign: float


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Whether a formula is right.

  Attributes:
    right: whether it is.
    simplified: whether it is only because some data are 0, 1 or -1.
    numbers: index of a number in the formula -> what it stands for, if not for itself.
  """

  right: bool
  simplified: bool = False
  numbers: Mapping[int, Meaning] = dataclasses.field(default_factory=dict)


def judge(formula: Expression, target: np.ndarray, known: AtPoints, claimed: Claimed) -> Verdict:
  """Returns whether a formula is right.

  Args:
    formula: the line of working.
    target: `[P]`, the right values of what it is a formula for.
    known: what is right for each quantity that the formula mentions, or that a number in it may
      stand for.
    claimed: what was written before.
  """
  written = expressions.numbers(formula)
  meanings = _meanings(formula, known, claimed)
  choices = list(itertools.product(*meanings.values()))
  numbers = {}  # index -> [choices, P]
  for i, index in enumerate(meanings):
    itself = np.full(target.shape, written[index].value)
    chosen = [choice[i] for choice in choices]
    numbers[index] = np.stack([itself if m is None else m.sign * known[m.quantity] for m in chosen])
  values = expressions.steps(
    formula, lambda q: known[q][None], lambda index, value: numbers.get(index, value)
  )
  values = np.stack([np.broadcast_to(v, (len(choices), len(target))) for v in values])
  equal = _are_equal(values, target)  # [choices, P]
  finite = np.isfinite(target) & np.isfinite(values[-1]).all(axis=0)  # [P]
  for points in (NEAR, SAME_SUMS, SAME_DATA):
    if finite[points].any():
      (found,) = np.nonzero((equal | ~finite)[:, points].all(axis=1))
      if len(found):
        choice = dict(zip(meanings, choices[found[0]], strict=True))
        return Verdict(True, points is SAME_DATA, {i: m for i, m in choice.items() if m})
  if (meanings or not finite[NEAR].any()) and _holds_here(formula, target, known):
    return Verdict(True)
  # In 2*a the 2 is a 2, but in 0.3 - 0.1*2 it stands for something.
  has_names = any(not isinstance(item, Number | Apply) for item in formula)
  likely = [i for i in meanings if not has_names or _decimals(written[i])]
  return Verdict(False, numbers={i: m for i in likely if (m := meanings[i][-1])})


def _meanings(
  formula: Expression, known: AtPoints, claimed: Claimed
) -> dict[int, list[Meaning | None]]:
  """Returns what each number may stand for, None for itself first; exponents are themselves."""
  quantities = list(known)
  right = np.array([known[q][GIVEN] for q in quantities])
  written = np.array([claimed.get(q, math.nan) for q in quantities])
  meanings: dict[int, list[Meaning | None]] = {}
  for index, item in expressions.numbers(formula).items():
    fits: dict[bytes, Meaning] = {}  # one of those that are equal everywhere
    for values in (right, written):
      for row in np.nonzero(_is_written_as(values, item))[0]:
        meaning = Meaning(quantities[row], math.copysign(1, values[row]))
        same = np.round(meaning.sign * known[meaning.quantity], 12).tobytes()
        fits.setdefault(same, meaning)
    meanings[index] = [None, *fits.values()]
  while math.prod(map(len, meanings.values())) * len(formula) > _MAX_WORK:
    longest = max(meanings.values(), key=len, default=[None])
    if len(longest) == 1:
      break
    longest.pop()
  return meanings


def _is_written_as(values: np.ndarray, number: Number) -> np.ndarray:
  """Returns which values are a number, but for their signs, when rounded or cut off."""
  decimals = _decimals(number)
  unit = 10.0**-decimals if decimals else 0.0
  missing = np.abs(values) - number.value
  return (missing >= -unit / 2 - 1e-9 * unit - 1e-12) & (missing <= unit + 1e-12)


def _decimals(number: Number) -> int:
  return max(0, -int(Decimal(repr(number.value)).normalize().as_tuple().exponent))


def _are_equal(values: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Returns whether the last of a formula's values, `[..., P]`, is the target, but for rounding.

  Args:
    values: `[items, ..., P]`, of every step.
    target: `[P]`.
  """
  with np.errstate(all="ignore"):
    rounding = 1e-13 * np.nanmax(np.abs(np.where(np.isfinite(values), values, 0)), axis=0)
    return np.abs(values[-1] - target) <= 1e-10 * np.abs(target) + rounding


def _holds_here(formula: Expression, target: np.ndarray, known: AtPoints) -> bool:
  """Returns whether a formula has the right value where it is given, within its numbers' digits."""
  exact = {float(values[GIVEN]) for values in known.values()}
  units = {
    index: 10.0 ** -_decimals(item)
    for index, item in enumerate(formula)
    if isinstance(item, Number) and _decimals(item) and item.value not in exact
  }
  shifts = {index: np.zeros(len(units) + 1) for index in units}
  for row, (index, unit) in enumerate(units.items(), 1):
    shifts[index][row] = unit

  def change(index, value):
    return value + shifts[index] if index in shifts else value

  values = expressions.steps(formula, lambda q: known[q][GIVEN], change)
  rows = np.broadcast_to(values[-1], len(units) + 1)
  if not np.isfinite(rows).all():
    return False
  slack = np.abs(rows[1:] - rows[0]).sum()
  size = max(float(np.abs(value).max()) for value in values)
  return bool(abs(rows[0] - target[GIVEN]) <= slack + 1e-10 * abs(target[GIVEN]) + 1e-13 * size)


# --- Repairing ---


def explain(
  formula: Expression,
  numbers: Mapping[int, Meaning],
  target: np.ndarray,
  known: AtPoints,
  factors: Mapping[str, np.ndarray],
) -> str:
  """Returns what is wrong with a formula if one change makes it right, else nothing.

  Args:
    formula: the wrong formula.
    numbers: what its numbers stand for.
    target: `[P]`, the right values.
    known: as for `judge`.
    factors: text -> `[P]`: derivatives along the way, which are easily forgotten.
  """
  if len(formula) > _MAX_ITEMS or not np.isfinite(target[SAME_SUMS]).all():
    return ""
  written: list = []
  for index, item in enumerate(formula):
    meaning = numbers.get(index)
    written.append(item if meaning is None else meaning.quantity)
    if meaning is not None and meaning.sign < 0:
      written.append(Apply("negative", 1))
  at = {quantity: values[SAME_SUMS] for quantity, values in known.items()}
  repair = _Repair(
    tuple(written), target[SAME_SUMS], at, {text: v[SAME_SUMS] for text, v in factors.items()}
  )
  return next(repair.sentences(), "")


class _Repair:
  """Looks for one change that makes a formula right, the likeliest first; P points."""

  def __init__(self, formula: Expression, target: np.ndarray, known: AtPoints, factors: dict):
    self._formula, self._target, self._known = formula, target, known
    self._factors = factors
    self._values = self._steps(lambda _, value: value)

  def _steps(self, change: Callable) -> list[np.ndarray]:
    return expressions.steps(self._formula, lambda q: self._known[q][None], change)

  def sentences(self) -> Iterator[str]:
    """Yields what is wrong with the formula, every way in which one change makes it right."""
    last = len(self._formula) - 1
    names = {expressions.spell(q): v for q, v in self._known.items()}
    sign = {"-1": np.full(self._target.shape, -1.0)}
    constants = {str(n): np.full(self._target.shape, float(n)) for n in range(2, 11)}
    for factors in (sign, self._factors, names, _numbers(self._target, self._values[-1])):
      yield from self._scaled(last, factors)
    for index in range(last - 1, -1, -1):
      yield from self._scaled(index, sign)
    yield from self._replaced(names)
    for index in range(last - 1, -1, -1):
      yield from self._scaled(index, self._factors | names | constants)
    yield from self._term(names)

  def _right(self, values: list) -> np.ndarray:
    """Returns which of the changes, one per row, make the formula right."""
    num = max(np.shape(value)[0] if np.ndim(value) else 1 for value in values)
    rows = np.stack([np.broadcast_to(value, (num, len(self._target))) for value in values])
    return _are_equal(rows, self._target).all(axis=-1)

  def _scaled(self, index: int, factors: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields the factors that are missing at one place of the formula, or one too many."""
    if not factors:
      return
    table = np.stack(list(factors.values()))
    with np.errstate(all="ignore"):
      table = np.concatenate([table, 1 / table])  # [2 F, P]
    usable = np.isfinite(table).all(axis=1) & (np.ptp(table, axis=1) + abs(table[:, 0] - 1) > 1e-9)
    table = np.where(usable[:, None], table, 1.0)
    (found,) = np.nonzero(self._right(self._steps(lambda i, v: v * table if i == index else v)))
    names = list(factors)
    for row in found:
      name, missing = names[row % len(names)], row < len(names)
      yield self._say_factor(index, name, factors[name], missing)

  def _say_factor(self, index: int, name: str, values: np.ndarray, missing: bool) -> str:
    is_whole = index == len(self._formula) - 1
    part = expressions.write(_part(self._formula, index))
    if name == "-1":
      return "its sign is wrong" if is_whole else f"the sign of {part} is wrong"
    is_number = re.fullmatch("-?[0-9]+", name)
    value = "" if is_number or np.ptp(values) > 1e-12 else f" = {values[0]:g}"
    fault = "is missing" if missing else "is one too many"
    where = "" if is_whole else f" in {part}"
    return f"the factor {name}{value}{where} {fault}"

  def _replaced(self, names: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields which quantity should be another."""
    table = np.stack(list(names.values()))
    for index, item in enumerate(self._formula):
      if isinstance(item, Apply | Number):
        continue
      for row in np.nonzero(
        self._right(self._steps(lambda i, v, at=index: table if i == at else v))
      )[0]:
        yield f"{expressions.spell(item)} should be {list(names)[row]}"

  def _term(self, names: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields the term that is missing, or one too many."""
    rest = self._target - self._values[-1].reshape(-1)
    for name, values in names.items():
      for sign, fault in ((1, "missing"), (-1, "one too many")):
        if np.allclose(rest, sign * values, rtol=1e-9, atol=0):
          yield f"the term {name} is {fault}"


def _numbers(target: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the whole number that a formula lacks as a factor, or has too much, if there is one."""
  with np.errstate(all="ignore"):
    ratio = target / np.reshape(value, -1)
  if not np.isfinite(ratio).all() or np.ptp(ratio) > 1e-9 * abs(ratio[0]):
    return {}
  size = max(abs(ratio[0]), 1 / abs(ratio[0]))
  if abs(size - round(size)) > 1e-9 * size or not 2 <= round(size) <= 1000:
    return {}
  number = math.copysign(round(size), ratio[0])
  return {f"{number:g}": np.full(target.shape, number)}


def _part(formula: Expression, index: int) -> Expression:
  """Returns the part of a formula whose value is that after an item."""
  needed, start = 1, index
  while True:
    item = formula[start]
    needed += (item.num_args if isinstance(item, Apply) else 0) - 1
    if needed == 0:
      return formula[start : index + 1]
    start -= 1
