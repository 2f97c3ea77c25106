"""Backpropagation by hand, checked line by line.

A worksheet (TOML, see docs/worksheets.md) has the given values, the equations of the forward pass,
and claims: the values that somebody wrote down. `check` compares every claim with the right value,
in float64, and, if it is wrong, with what follows from the claims before it, so that a mistake is
found in the line where it was made and not again in every line after it.

The derivative of u with respect to v treats v as free and lets everything downstream of v follow,
as `jax.grad` of the whole graph does. A claim about an array is a claim about each of its entries,
which share its points and its line of working.

What follows from the claims before a claim ("taken" values) is, in this order:

- with a line of working (`from`): its value, with what was claimed before in place of its names.
- a node: its own equation, at the taken values of what it depends on. A node that was not claimed
  has the value that follows from those that were.
- a derivative du/dv: the chain rule, from u back to v. A factor that was claimed is taken as
  claimed, and if all paths from v lead through m and dm/dv was claimed, so is that; the others are
  derivatives of one equation at taken values. If the last operation of an equation is a sigmoid,
  tanh, exp or sqrt and the node was claimed, its derivative is found from its result, as by hand:
  a (1 - a) for a = sigmoid(z). Using claimed values but no claimed derivative is right, too.
- an updated value w': the rule of the optimizer, such as w - learning_rate * dL/dw, with taken
  values in it. A forward and a backward pass after a step begin with the taken values after it.

A line of working is also checked as mathematics, whatever was computed from it: see `working.py`.
"""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import (
  Derivative,
  Name,
  Quantity,
  quantities,
  spell,
  spell_index,
)
from jaxdl.byhand.worksheet import working
from jaxdl.byhand.worksheet.causes import Causes
from jaxdl.byhand.worksheet.digits import follows, has_a_digit, is_exact, is_truncated, slack
from jaxdl.byhand.worksheet.following import Following
from jaxdl.byhand.worksheet.graph import Graph
from jaxdl.byhand.worksheet.numerals import Numeral
from jaxdl.byhand.worksheet.optimizers import EPS
from jaxdl.byhand.worksheet.reader import parse
from jaxdl.byhand.worksheet.right_values import RightValues, show_value
from jaxdl.byhand.worksheet.sheet import Claim, Worksheet, derivatives, shift

EXACT, TRUNCATED, CARRIED = "exact", "truncated", "carried"
SLIP, WRONG_FORMULA, INCONSISTENT = "slip", "wrong formula", "inconsistent"
STATUSES = (EXACT, TRUNCATED, CARRIED, SLIP, WRONG_FORMULA, INCONSISTENT)
# A worksheet with one of these is wrong.
WRONG = (SLIP, WRONG_FORMULA, INCONSISTENT)

# Wrong formulas are no longer explained once they have had this many items in all.
_MAX_EXPLAINED = 1000


@dataclasses.dataclass(frozen=True)
class CheckedClaim:
  """A claim and the verdict on it.

  Attributes:
    number: of the claim, from 1. A claim about an array has an entry of this kind for each number.
    of: what it is the value of, as in "a1", "dL/da[0,1]", "w7'".
    claimed: the value as written.
    digits: how many digits were written, not counting leading zeros.
    computed: the right value.
    status: one of `STATUSES`.
    expected_from_claims: the value that follows from the claims before; None if it is not finite,
      or if the claim is about a given, which follows from nothing.
    working: the line of working as written; empty without one.
    remark: what else is to be said, in a sentence; empty if nothing.
    points: what the claim is worth.
  """

  number: int
  of: str
  claimed: str
  digits: int
  computed: float
  status: str
  expected_from_claims: float | None
  working: str = ""
  remark: str = ""
  points: float = 1

  @property
  def marks(self) -> float:
    """The points that were earned: all or none. A carried value keeps its points."""
    return 0 if self.status in WRONG else self.points


@dataclasses.dataclass(frozen=True)
class CheckedWorksheet:
  """A worksheet and the verdict on each of its claims.

  Attributes:
    worksheet: as it was parsed.
    claims: in the order of the file, a claim about an array entry by entry.
    known: the right value of every quantity that the worksheet needs, an array of its shape.
    partials: (u, v) -> derivative of u's own equation with respect to v, other names in it held
      fixed, as on the edges of the computation graph. Not finite where there is none; None unless
      u and v are scalars.
  """

  worksheet: Worksheet
  claims: tuple[CheckedClaim, ...]
  known: Mapping[Quantity, np.ndarray]
  partials: Mapping[tuple[str, str], float | None]

  @property
  def title(self) -> str:
    """The worksheet's title."""
    return self.worksheet.title

  @property
  def values(self) -> dict[str, np.ndarray]:
    """The right values of givens and nodes, by name."""
    return {name: self.known[Name(name)] for name in self.worksheet.names}

  @property
  def first_wrong(self) -> CheckedClaim | None:
    """The first claim whose status is in `WRONG`; None if there is none."""
    return next((claim for claim in self.claims if claim.status in WRONG), None)

  @property
  def marks(self) -> float:
    """The points that were earned."""
    return _total(claim.marks for claim in self.claims)

  @property
  def points(self) -> float:
    """The points that could be earned."""
    return _total(claim.points for claim in self.claims)

  @property
  def counts(self) -> dict[str, int]:
    """How many claims have each status."""
    counter = Counter(claim.status for claim in self.claims)
    return {status: counter[status] for status in STATUSES}


def _total(points: Iterable[float]) -> float:
  """Returns a sum without the rounding errors of its parts, such as thirds of a point."""
  return round(math.fsum(points), 9)


def check(path_or_text: str | os.PathLike) -> CheckedWorksheet:
  """Checks a worksheet.

  Args:
    path_or_text: the file, or the TOML text itself, recognised by a line break or "=".

  Raises:
    InputError: if it cannot be read, is no valid worksheet, or has a value that is not finite.
  """
  worksheet = parse(path_or_text)
  with np.errstate(all="ignore"):
    return _Checker(worksheet).check()


class _Checker:
  """Checks the claims of one worksheet in their order."""

  def __init__(self, sheet: Worksheet):
    self._sheet = sheet
    self._graph = Graph(sheet.equations, sheet.names, sheet.shapes)
    self._known = RightValues(sheet, self._graph)
    self._causes = Causes(sheet, self._graph, self._known)
    self._num_explained = 0

  def check(self) -> CheckedWorksheet:
    following = Following(self._sheet, self._graph)
    checked: list[CheckedClaim] = []
    for number, claim in enumerate(self._sheet.claims, 1):
      checked += self._check_claim(number, claim, following)
      following.take(claim)
    known = {quantity: self._known.here(quantity) for quantity in self._known.values}
    values = {name: known[Name(name)] for name in self._sheet.names}
    return CheckedWorksheet(self._sheet, tuple(checked), known, self._partials(values))

  def _partials(self, values: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float | None]:
    partials: dict[tuple[str, str], float | None] = {}
    for node in self._sheet.equations:
      names = self._graph.inputs_of[node]
      slopes = self._graph.pull_back(node, values, self._graph.seed(node), names)
      for name in names:
        is_scalar = self._sheet.shapes[node] == self._sheet.shapes[name] == ()
        partials[node, name] = float(slopes[name]) if is_scalar else None
    return partials

  # --- What follows from the claims before ---

  def _expected(self, claim: Claim, following: Following) -> list[np.ndarray]:
    """Returns what follows from the claims before: first what is shown, then what is also right."""
    if claim.working:
      if claim.misfit:
        return []
      lookups = (
        following.follow,
        lambda q: following.with_claims(q, self._known.here(q)),
        self._known.here,
      )
      shape = self._known.points(claim).shape[:-1]
      found = [expressions.evaluate(claim.working, lookup) for lookup in lookups]
      return [np.broadcast_to(value, shape) for value in found]
    of = claim.of
    found = [following.from_before(of)]
    slopes = [of] if isinstance(of, Derivative) else []
    if isinstance(of, Name) and of.step and of.name in self._sheet.steps.rules:
      slopes = [shift(q, of.step - 1) for q in derivatives(self._sheet.steps.rules[of.name])]
      slopes = [] if any(slope in following.claimed for slope in slopes) else slopes
    if slopes:
      found.append(following.from_before(of, by_claims=False))
    return [value[claim.index] for value in found]

  # --- The verdict on a claim ---

  def _check_claim(self, number: int, claim: Claim, following: Following) -> list[CheckedClaim]:
    """Returns the verdicts on the entries of a claim."""
    right = self._known.here(claim.of)
    if self._is_given(claim.of):
      return [
        _checked(number, claim, entry, right, _status_of_given(entry, float(right[entry.place])))
        for entry in claim.entries
      ]
    expected = self._expected(claim, following)
    verdict = self._judge(claim, following)
    result = []
    for entry in claim.entries:
      inner = entry.place[len(claim.index) :]
      expected_here = [float(value[inner]) for value in expected]
      status = _status(entry, float(right[entry.place]), expected_here)
      if verdict is not None and not verdict.right:
        arithmetic = any(follows(entry, Fraction(e)) for e in expected_here if math.isfinite(e))
        is_right = status in (EXACT, TRUNCATED)
        status = WRONG_FORMULA if arithmetic or is_right or claim.misfit else SLIP
      shown = next(filter(math.isfinite, expected_here[:1]), None)
      result.append(_checked(number, claim, entry, right, status, shown))
    return self._with_remarks(claim, verdict, result)

  def _is_given(self, of: Quantity) -> bool:
    """Returns whether a claim is about what is given, which follows from nothing."""
    if isinstance(of, Derivative) or of.name in self._sheet.equations:
      return False
    return self._sheet.state(of.name, of.step) is not None

  def _judge(self, claim: Claim, following: Following) -> working.Verdict | None:
    """Returns whether a line of working is right as mathematics; None without one."""
    if not claim.working or claim.misfit:
      return working.Verdict(False) if claim.misfit else None
    target = self._known.points(claim)
    known, start = self._known.values, {Name(name) for name in self._sheet.steps.initial}
    if EPS in self._sheet.steps.settings:
      start |= {
        quantity for quantity in known if isinstance(quantity, Name) and quantity.name == EPS
      }
    circular = {quantity for quantity in known if self._causes.follows(quantity, claim.of)}
    return working.judge(claim.working, target, known, following.claimed, start, circular)

  def _with_remarks(
    self, claim: Claim, verdict: working.Verdict | None, checked: list[CheckedClaim]
  ) -> list[CheckedClaim]:
    """Returns the verdicts with their remarks."""
    remark = ""
    if verdict is not None and not verdict.right:
      has_slip = any(c.status == SLIP for c in checked)
      remark = self._remark_on_formula(claim, verdict, has_slip)
    elif verdict is not None and verdict.simplified:
      remark = self._remark_on_data(claim)
    result = []
    for entry, c in zip(claim.entries, checked, strict=True):
      own = _remark_on_digits(c.of, entry, c.computed) if c.status == SLIP else ""
      is_wrong = verdict is not None and not verdict.right
      result.append(dataclasses.replace(c, remark=remark if is_wrong else own or remark))
    return result

  def _remark_on_formula(self, claim: Claim, verdict: working.Verdict, also: bool) -> str:
    """Says that a line of working is wrong as mathematics, and, if it can be found, why."""
    cause = ""
    self._num_explained += len(claim.working)
    if self._num_explained <= _MAX_EXPLAINED:
      cause = self._causes.find(claim, verdict.numbers)
    cause = "; ".join(filter(None, (claim.misfit, cause)))
    text = " ".join(claim.working_text.split())
    word = "also wrong" if also else "wrong"
    return f"The formula for {claim}, {text}, is {word}{cause and f': {cause}'}."

  def _remark_on_data(self, claim: Claim) -> str:
    """Says which data make a formula right: those in the equations that it sums up, not in it."""
    slope = self._sheet.slope_of(claim.of)
    if slope is None:
      nodes = [str(getattr(claim.of, "name", ""))]
    else:
      nodes = self._graph.between(slope.of, slope.by)[1:]
    used = {name for node in nodes for name in self._graph.inputs_of.get(node, ())}
    if isinstance(claim.of, Name):
      rule = self._sheet.steps.rules.get(claim.of.name, ())
      if Name(EPS) in rule and EPS in self._sheet.steps.settings:
        eps = self._sheet.steps.settings[EPS][0]
        return f"The formula for {claim} is right but for eps = {eps:g}, which it leaves out."
      used |= {quantity.name for quantity in quantities(rule) if isinstance(quantity, Name)}
    data = [name for name in self._known.fixed if name in used]
    written = [q.name for q in quantities(claim.working) if isinstance(q, Name)]
    data = [name for name in data if name not in written] or data
    step = claim.of.step if slope is None else slope.step
    texts = [f"{name} = {show_value(self._known.here(Name(name, step)))}" for name in data]
    return f"The formula for {claim} is right only because {' and '.join(texts[:4])}."


def _checked(
  number: int, claim: Claim, entry: Numeral, right: Any, status: str, expected: float | None = None
) -> CheckedClaim:
  return CheckedClaim(
    number=number,
    of=f"{spell(claim.of)}{spell_index(entry.place)}",
    claimed=entry.text,
    digits=max(1, len(str(abs(entry.value / entry.unit).numerator))),
    computed=float(right[entry.place]),
    status=status,
    expected_from_claims=expected,
    working=claim.working_text,
    points=claim.points / len(claim.entries),
  )


def _status_of_given(claim: Numeral, right: float) -> str:
  return EXACT if is_exact(claim, Fraction(repr(right))) else INCONSISTENT


def _status(claim: Numeral, right: float, expected: list[float]) -> str:
  """Returns the status of a claim that is not about a given; the digits decide, exactly.

  Only what differs from the right value can have been carried: a claim that is wrong although all
  before it is exact is a slip, however small.
  """
  value = Fraction(right)
  if is_exact(claim, value):
    return EXACT
  if is_truncated(claim, value):
    return TRUNCATED
  for other in map(Fraction, filter(math.isfinite, expected)):
    if abs(other - value) > slack(claim, value) and follows(claim, other):
      return CARRIED
  return SLIP


def _remark_on_digits(of: str, claim: Numeral, right: float) -> str:
  value = Fraction(right)
  if has_a_digit(claim, value) or abs(claim.value - value) > claim.unit:
    return ""
  return (
    f"{of} = {claim.text} has no significant digit of the right value: write at least "
    f"one, as in {right:.1g}."
  )
