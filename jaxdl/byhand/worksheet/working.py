"""Is a line of working right as mathematics, whatever was computed from it?

A line of working is a formula for a node, a derivative or an updated value. It is right if it is
the same function of the givens: if it has the same value at points around the given one.

People write numbers for names, as in 1 - 0.1*(0.8807 * 0.0248 * -0.025). So a number may stand for
any quantity, or entry of one, whose value, right or claimed, it is when rounded or cut off; the
formula is right if it is so for one choice of what its numbers stand for. A number that stands for
no quantity, such as 0.1193 for 1 - a, gets the benefit of the doubt: then the value at the given
point decides.

A formula that holds only because some datum is 0, 1 or -1 was simplified, which is right, but worth
a remark. Data are the givens with respect to which nothing is differentiated. Data that are called
alike and add up to 1, such as the targets y1 and y2, are taken to do so always, and so are the rows
of an array.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Apply, Expression, Number, Quantity
from jaxdl.byhand.worksheet.points import GIVEN, NEAR, SAME_DATA, SAME_START, SAME_SUMS

# At most so many numbers are computed, over all choices of what the numbers of a formula stand for.
_MAX_WORK = 60_000

# What each quantity is at every point, `[*shape, P]`, and what it was claimed to be, `[*shape]`.
AtPoints = Mapping[Quantity, np.ndarray]
Claimed = Mapping[Quantity, np.ndarray]


class Meaning(NamedTuple):
  """What a number stands for: an entry or its negative, as numbers are written without a sign."""

  quantity: Quantity
  place: tuple[int, ...]
  sign: float

  def at(self, known: AtPoints) -> np.ndarray:
    """Returns what the number is at every point, `[P]`."""
    return self.sign * known[self.quantity][self.place]

  @property
  def items(self) -> Expression:
    """What may be written instead of the number."""
    result: Expression = (self.quantity,)
    if self.place:
      result += (Apply("[]", 1, index=self.place),)
    return (*result, Apply("negative", 1)) if self.sign < 0 else result


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Whether a formula is right.

  Attributes:
    right: whether it is.
    simplified: whether it is only because some data are 0, 1 or -1.
    numbers: of a wrong formula: index of a number in it -> what it may stand for.
  """

  right: bool
  simplified: bool = False
  numbers: Mapping[int, Sequence[Meaning]] = dataclasses.field(default_factory=dict)


def judge(
  formula: Expression,
  target: np.ndarray,
  known: AtPoints,
  claimed: Claimed,
  start: Collection[Quantity],
  circular: Collection[Quantity],
) -> Verdict:
  """Returns whether a formula is right.

  Args:
    formula: the line of working, whose shapes fit.
    target: `[*shape, P]`, the right values of what it is a formula for; its own value broadcasts to
      that shape.
    known: what is right for each quantity that the formula mentions, or that a number in it may
      stand for.
    claimed: what was written before.
    start: what an optimizer starts with. A formula may leave it out as it is 0, but not change it.
    circular: what no number can stand for: what the formula is for, and what follows from it.
  """
  written = expressions.numbers(formula)
  size = len(formula) * math.prod(target.shape[:-1])
  others = {quantity: values for quantity, values in known.items() if quantity not in circular}
  meanings = _meanings(formula, others, claimed, _MAX_WORK // size)
  sizes = tuple(map(len, meanings.values()))
  choices = np.indices(sizes).reshape(len(sizes), math.prod(sizes))  # every combination of meanings
  numbers = {}  # index -> [choices, P]
  for chosen, (index, options) in zip(choices, meanings.items(), strict=True):
    itself = np.full(target.shape[-1], written[index].value)
    numbers[index] = np.stack([itself if m is None else m.at(known) for m in options])[chosen]
  values = expressions.steps(
    formula,
    lambda q: known[q][..., None, :],
    lambda index, value: numbers.get(index, value),
    num_points=2,
  )
  shape = (*target.shape[:-1], math.prod(sizes), target.shape[-1])
  values.append(np.broadcast_to(values[-1], shape))
  equal = are_equal(values, target)  # [choices, P]
  axes = tuple(range(target.ndim))
  finite = np.isfinite(target).all(axis=axes[:-1]) & np.isfinite(values[-1]).all(axis=axes)  # [P]
  has_start = any(quantity in start for quantity in expressions.quantities(formula))
  for points in (NEAR, SAME_SUMS, SAME_DATA) + (() if has_start else (SAME_START,)):
    if finite[points].any() and (equal | ~finite)[:, points].all(axis=1).any():
      return Verdict(True, points in (SAME_DATA, SAME_START))
  has_doubt = bool(meanings) or not finite[NEAR].any()
  # Here any factor of a start of 0 would be right.
  if has_doubt and not has_start and _holds_here(formula, target, known):
    return Verdict(True)
  # In 2*a the 2 is a 2, but in 0.3 - 0.1*2 it stands for something.
  has_names = any(not isinstance(item, Number | Apply) for item in formula)
  likely = [i for i in meanings if not has_names or _decimals(written[i])]
  return Verdict(False, numbers={i: [m for m in meanings[i] if m is not None] for i in likely})


def _meanings(
  formula: Expression, known: AtPoints, claimed: Claimed, most: int
) -> dict[int, list[Meaning | None]]:
  """Returns what each number may stand for, None for itself first; exponents are themselves.

  Args:
    formula: the line of working.
    known: as for `judge`.
    claimed: as for `judge`.
    most: how many combinations there may be.
  """
  entries = [(q, place) for q, values in known.items() for place in np.ndindex(values.shape[:-1])]
  right = np.array([known[q][place][GIVEN] for q, place in entries])
  written = np.array([claimed[q][place] if q in claimed else math.nan for q, place in entries])
  meanings: dict[int, list[Meaning | None]] = {}
  for index, item in expressions.numbers(formula).items():
    fits: dict[bytes, Meaning] = {}  # one of those that are equal everywhere
    for values in (right, written):
      for row in np.nonzero(_is_written_as(values, item))[0]:
        quantity, place = entries[row]
        meaning = Meaning(quantity, place, math.copysign(1, values[row]))
        fits.setdefault(np.round(meaning.at(known), 12).tobytes(), meaning)
    meanings[index] = [None, *fits.values()]
  while math.prod(map(len, meanings.values())) > most:
    longest = max(meanings.values(), key=len, default=[None])
    if len(longest) == 1:
      break
    longest.pop()
  return meanings


def _is_written_as(values: np.ndarray, number: Number) -> np.ndarray:
  """Returns which values are a number, but for their signs, when rounded or cut off.

  As in a claim, a number has at least one significant digit of what it stands for.
  """
  decimals = _decimals(number)
  unit = 10.0**-decimals if decimals else 0.0
  missing = np.abs(values) - number.value
  below = unit - 1e-9 * unit if decimals else 1e-12
  near = (missing >= -unit / 2 - 1e-9 * unit - 1e-12) & (missing < below)
  return near & (np.abs(values) >= 0.95 * unit)


def _decimals(number: Number) -> int:
  return max(0, -int(Decimal(repr(number.value)).normalize().as_tuple().exponent))


def are_equal(values: list[Any], target: np.ndarray) -> np.ndarray:
  """Returns whether the last of a formula's values is the target, but for rounding, `[rows, P]`.

  Args:
    values: of every step, `[*shape, rows or 1, P or 1]`; the last has the target's shape.
    target: `[*shape, P]`.
  """
  with np.errstate(all="ignore"):
    largest = np.zeros(())
    for value in values:
      sizes = np.abs(np.where(np.isfinite(value), value, 0))
      largest = np.maximum(largest, sizes.max(axis=tuple(range(sizes.ndim - 2))))
    missing = np.abs(values[-1] - target[..., None, :])
    near = missing <= 1e-10 * np.abs(target[..., None, :]) + 1e-13 * largest
    return near.all(axis=tuple(range(near.ndim - 2)))


def _holds_here(formula: Expression, target: np.ndarray, known: AtPoints) -> bool:
  """Returns whether a formula has the right value where it is given, within its numbers' digits."""
  exact = {float(value) for values in known.values() for value in values[..., GIVEN].flat}
  units = {
    index: 10.0 ** -_decimals(item)
    for index, item in enumerate(formula)
    if isinstance(item, Number) and _decimals(item) and item.value not in exact
  }
  shifts = {index: np.zeros(len(units) + 1) for index in units}
  for row, (index, unit) in enumerate(units.items(), 1):
    shifts[index][row] = unit
  values = expressions.steps(
    formula,
    lambda q: known[q][..., GIVEN, None],
    lambda index, value: value + shifts[index] if index in shifts else value,
    num_points=1,
  )
  right = target[..., GIVEN]
  rows = np.broadcast_to(values[-1], (*right.shape, len(units) + 1))
  if not np.isfinite(rows).all():
    return False
  slack = np.abs(rows[..., 1:] - rows[..., :1]).sum(axis=-1)
  size = max(float(np.abs(value).max()) for value in values)
  near = np.abs(rows[..., 0] - right) <= slack + 1e-10 * np.abs(right) + 1e-13 * size
  return bool(near.all())
