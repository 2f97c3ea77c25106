"""Backpropagation by hand, checked line by line.

A worksheet (TOML, see docs/worksheets.md) has the given values, the equations of the forward pass,
and claims: the values that somebody wrote down. `check` compares every claim with what JAX
computes in float64 and, if it is wrong, with what follows from the claims before it, so that a
mistake is found in the line where it was made and not again in every line after it.

The derivative of u with respect to v treats v as free and lets everything downstream of v follow.
It is what `jax.grad` of the whole graph returns.

What follows from the claims before a claim ("taken" values) is, in this order:

- with a line of working (`from`): its value, with what was claimed before in place of its names.
- a node: its own equation, at the taken values of what it depends on. A node that was not claimed
  has the value that follows from those that were.
- a derivative du/dv: the chain rule, from u back to v. A factor that was claimed is taken as
  claimed, and if all paths from v lead through m and dm/dv was claimed, so is that; the others are
  derivatives of one equation at taken values. If the last step of an equation is a sigmoid, tanh,
  exp or sqrt and the node was claimed, that step's derivative is found from its result, as by hand:
  a (1 - a) for a = sigmoid(z). Using claimed values but no claimed derivative is right, too.
- an updated value w': w - learning_rate * dL/dw, with taken w and dL/dw.

A line of working is also checked as mathematics, whatever was computed from it: see `working.py`.
"""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from jaxdl.byhand.expressions import (
  Derivative,
  Expression,
  Name,
  Quantity,
  Updated,
  excerpt,
  quantities,
  spell,
)
from jaxdl.byhand.worksheet import points, working
from jaxdl.byhand.worksheet.graph import Graph, Taken, by_numerator, evaluate, float64, inputs_of
from jaxdl.byhand.worksheet.reader import MAX_WORK, Claim, Worksheet, parse
from jaxdl.errors import InputError

EXACT, TRUNCATED, CARRIED = "exact", "truncated", "carried"
SLIP, WRONG_FORMULA, INCONSISTENT = "slip", "wrong formula", "inconsistent"
STATUSES = (EXACT, TRUNCATED, CARRIED, SLIP, WRONG_FORMULA, INCONSISTENT)
# A worksheet with one of these is wrong.
WRONG = (SLIP, WRONG_FORMULA, INCONSISTENT)

# Looking for what is wrong with formulas stops when so many of their items were looked at.
_MAX_EXPLAINED = 1500


@dataclasses.dataclass(frozen=True)
class CheckedClaim:
  """A claim and the verdict on it.

  Attributes:
    of: what it is the value of, as in "a1", "dL/da", "w7'".
    claimed: the value as written.
    digits: how many digits were written, not counting leading zeros.
    computed: the right value.
    status: one of `STATUSES`.
    expected_from_claims: the value that follows from the claims before; None if it is not finite,
      or if the claim is about a given, which follows from nothing.
    working: the line of working as written; empty without one.
    remark: what else there is to say, in a sentence, or nothing.
    points: what the claim is worth.
  """

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
    """The points that were earned: all or none. What was carried from a mistake keeps its own."""
    return 0 if self.status in WRONG else self.points


@dataclasses.dataclass(frozen=True)
class CheckedWorksheet:
  """A worksheet and the verdict on each of its claims.

  Attributes:
    worksheet: as it was parsed.
    claims: in the order of the file.
    values: name of a node or given -> right value.
    partials: (u, v) -> derivative of u's own equation with respect to v, other names in it held
      fixed, as on the edges of the computation graph. Not finite where there is none.
  """

  worksheet: Worksheet
  claims: tuple[CheckedClaim, ...]
  values: Mapping[str, float]
  partials: Mapping[tuple[str, str], float]

  @property
  def title(self) -> str:
    """The worksheet's title."""
    return self.worksheet.title

  @property
  def first_wrong(self) -> CheckedClaim | None:
    """The first claim whose status is in `WRONG`; None if there is none."""
    return next((claim for claim in self.claims if claim.status in WRONG), None)

  @property
  def marks(self) -> float:
    """The points that were earned."""
    return sum(claim.marks for claim in self.claims)

  @property
  def points(self) -> float:
    """The points that could be earned."""
    return sum(claim.points for claim in self.claims)

  @property
  def counts(self) -> dict[str, int]:
    """How many claims have each status."""
    counter = Counter(claim.status for claim in self.claims)
    return {status: counter[status] for status in STATUSES}


def check(path_or_text: str | os.PathLike) -> CheckedWorksheet:
  """Checks a worksheet.

  Args:
    path_or_text: the file, or the TOML text itself, which is told by a line break or "=" in it.

  Raises:
    InputError: if it cannot be read, is no valid worksheet, or has a value that is not finite.
  """
  worksheet = parse(path_or_text)
  with float64():
    return _Checker(worksheet).check()


class _Checker:
  """Checks the claims of one worksheet in their order; use within `float64`."""

  def __init__(self, sheet: Worksheet):
    self._sheet = sheet
    self._rate = sheet.learning_rate or 0.0  # without one there are no updates
    self._graph = Graph(sheet.equations, sheet.names)
    slopes = self._mentioned_slopes()
    self._points = points.around(sheet.given, {slope.by for slope in slopes})
    self._known = self._compute(slopes)
    self._exact = Taken(
      {name: self._computed(Name(name)) for name in sheet.formulas} | dict(sheet.given)
    )
    self._num_explained = 0

  def check(self) -> CheckedWorksheet:
    taken = Taken(dict(self._exact.values))
    checked = []
    for claim in self._sheet.claims:
      checked.append(self._check_claim(claim, taken))
      self._take(claim, taken)
    partials = {
      (node, name): partial
      for node in self._sheet.equations
      for name, partial in self._graph.partials(node, self._exact).items()
    }
    return CheckedWorksheet(self._sheet, tuple(checked), self._exact.values, partials)

  # --- The right values ---

  def _mentioned_slopes(self) -> list[Derivative]:
    """Returns every derivative that a claim or its line of working needs."""
    return [
      self._sheet.slope_of(quantity)
      for claim in self._sheet.claims
      for quantity in (claim.of, *quantities(claim.working))
      if not isinstance(quantity, Name)
    ]

  def _compute(self, slopes: list[Derivative]) -> dict[Quantity, np.ndarray]:
    """Returns names, learning rate, derivatives and updated values at every point, `[P]` each."""
    sheet = self._sheet
    values = self._graph.values(self._points.given, self._points.number_scale)
    for name, equation in sheet.equations.items():
      if not math.isfinite(values[name][points.GIVEN]):
        raise InputError(
          f"the value of {name} = {excerpt(sheet.formulas[name])} is not finite: "
          f"{_describe_inputs(equation, {n: v[points.GIVEN] for n, v in values.items()})}"
        )
    known: dict[Quantity, np.ndarray] = {Name(name): value for name, value in values.items()}
    if sheet.learning_rate is not None:
      rate = np.full(points.NUM_POINTS, sheet.learning_rate)
      known.setdefault(Name("learning_rate"), rate)
    wanted = by_numerator(slopes)
    if sum(map(self._graph.num_terms, wanted)) > MAX_WORK:
      raise InputError("the worksheet is too large: too many derivatives of too many equations")
    for of, names in wanted.items():
      for by, value in self._graph.gradient(of, names, values).items():
        if not math.isfinite(value[points.GIVEN]):
          raise InputError(f"the derivative d{of}/d{by} is not finite at the given values")
        known[Derivative(of, by)] = value
    if sheet.learning_rate is not None:
      for name in sheet.given:
        gradient = known.get(sheet.slope_of(Updated(name)))
        if gradient is not None:
          known[Updated(name)] = self._step(values[name], gradient)
    return known

  def _computed(self, quantity: Quantity) -> float:
    """Returns the right value, 0 if it differs from 0 by rounding errors only."""
    values = self._known[quantity]
    value = float(values[points.GIVEN])
    rounding = np.nanmax(np.abs(values[points.ROUNDED] - value))
    return 0.0 if abs(value) < min(1e-9, 10 * rounding) else value

  def _step(self, value, slope):
    return value - self._rate * slope

  # --- What follows from the claims before ---

  def _take(self, claim: Claim, taken: Taken):
    """Adds a claim to those that are taken as they stand."""
    taken.claimed[claim.of] = float(claim.value)
    if isinstance(claim.of, Name):
      taken.values[claim.of.name] = float(claim.value)
      for name in self._graph.downstream(claim.of.name):
        if Name(name) not in taken.claimed:
          taken.values[name] = self._graph.value(name, taken.values)

  def _expected(self, claim: Claim, taken: Taken) -> list[float]:
    """Returns what follows from the claims before: what is shown, then what is right as well."""
    if claim.working:
      lookups = (
        lambda q: self._follow(q, taken),
        lambda q: taken.claimed[q] if q in taken.claimed else self._computed(q),
      )
      return [evaluate(claim.working, lookup) for lookup in lookups]
    if isinstance(claim.of, Name):
      return [self._graph.value(claim.of.name, taken.values)]
    follows = [self._follow(claim.of, taken)]
    if not (isinstance(claim.of, Updated) and self._sheet.slope_of(claim.of) in taken.claimed):
      others: dict[Quantity, float] = {
        q: value for q, value in taken.claimed.items() if not isinstance(q, Derivative)
      }
      follows.append(self._follow(claim.of, dataclasses.replace(taken, claimed=others)))
    return follows

  def _follow(self, quantity: Quantity, taken: Taken) -> float:
    """Returns what was claimed, or else what follows from it."""
    if quantity in taken.claimed:
      return taken.claimed[quantity]
    if isinstance(quantity, Derivative):
      return self._graph.chain(quantity, taken)
    if isinstance(quantity, Updated):
      slope = self._follow(self._sheet.slope_of(quantity), taken)
      return self._step(taken.values[quantity.name], slope)
    return taken.values.get(quantity.name, self._rate)

  # --- The verdict on a claim ---

  def _check_claim(self, claim: Claim, taken: Taken) -> CheckedClaim:
    right = self._computed(claim.of)
    if isinstance(claim.of, Name) and claim.of.name in self._sheet.given:
      status = EXACT if _is_exact(claim, Fraction(repr(right))) else INCONSISTENT
      return _checked(claim, right, status, None)
    expected = self._expected(claim, taken)
    status = _status(claim, right, expected)
    remark = _remark_on_digits(claim, right) if status == SLIP else ""
    if claim.working:
      verdict = working.judge(claim.working, self._known[claim.of], self._known, taken.claimed)
      if not verdict.right:
        follows = any(_follows(claim, Fraction(e)) for e in expected if math.isfinite(e))
        status = WRONG_FORMULA if follows or status in (EXACT, TRUNCATED) else SLIP
        remark = self._remark_on_formula(claim, verdict, status)
      elif verdict.simplified:
        remark = remark or self._remark_on_data(claim)
    main = expected[0] if math.isfinite(expected[0]) else None
    return _checked(claim, right, status, main, remark)

  def _remark_on_formula(self, claim: Claim, verdict: working.Verdict, status: str) -> str:
    """Says that a line of working is wrong as mathematics, and, if it can be found, why."""
    target, cause = self._known[claim.of], ""
    self._num_explained += len(claim.working)
    if self._num_explained <= _MAX_EXPLAINED:
      cause = working.explain(
        claim.working, verdict.numbers, target, self._known, self._factors(claim.of)
      )
    also = {SLIP: "also ", WRONG_FORMULA: ""}[status]
    text = " ".join(claim.working_text.split())
    return f"The formula for {spell(claim.of)}, {text}, is {also}wrong{cause and f': {cause}'}."

  def _factors(self, of: Quantity) -> dict[str, np.ndarray]:
    """Returns the factors of the chain rule on the way to a derivative, or to an update."""
    if isinstance(of, Name):
      return {}
    slope = self._sheet.slope_of(of)
    between = self._graph.between(slope.of, slope.by)
    values = {q.name: v for q, v in self._known.items() if isinstance(q, Name)}
    factors = {}
    for node in between[-20:]:
      inputs = [name for name in self._graph.inputs_of.get(node, ()) if name in between]
      for name, value in self._graph.gradient(node, inputs, values).items():
        factors[spell(Derivative(node, name))] = value
    return factors

  def _remark_on_data(self, claim: Claim) -> str:
    """Says which data make a formula right: those in the equations that it sums up, not in it."""
    if isinstance(claim.of, Name):
      nodes = [claim.of.name]
    else:
      slope = self._sheet.slope_of(claim.of)
      nodes = self._graph.between(slope.of, slope.by)[1:]
    used = {name for node in nodes for name in self._graph.inputs_of[node]}
    data = [name for name in self._points.fixed if name in used]
    written = quantities(claim.working)
    data = [name for name in data if Name(name) not in written] or data
    text = " and ".join(f"{name} = {self._sheet.given[name]:g}" for name in data[:4])
    return f"The formula for {spell(claim.of)} is right only because {text}."


def _checked(
  claim: Claim, right: float, status: str, expected: float | None, remark: str = ""
) -> CheckedClaim:
  digits = max(1, len(str(abs(claim.value / claim.unit).numerator)))
  return CheckedClaim(
    spell(claim.of),
    claim.text,
    digits,
    right,
    status,
    expected,
    claim.working_text,
    remark,
    claim.points,
  )


def _describe_inputs(equation: Expression, values: Mapping[str, float]) -> str:
  names = inputs_of(equation)
  text = ", ".join(f"{name} = {values[name]:.6g}" for name in names[:6])
  return (text or "it has no inputs") + (", ..." if len(names) > 6 else "")


# --- Digits ---


def _slack(claim: Claim, value: Fraction) -> Fraction:
  """Returns how far off float64 may be: that must not decide whether something is a tie."""
  return claim.unit / 10**9 + 4 * abs(value) * Fraction(np.finfo(np.float64).eps.item())


def _has_a_digit(claim: Claim, value: Fraction) -> bool:
  """Returns whether a claim has a significant digit of a value: 0.2 of 0.235 has one, 0 has none.

  Its last place must be no higher than the first place of the value rounded to one digit, which is
  1 for 0.96. Of 0 every claim has a digit.
  """
  return value == 0 or (claim.value != 0 and claim.unit * Fraction(95, 100) <= abs(value))


def _is_exact(claim: Claim, value: Fraction) -> bool:
  if value == 0:
    return claim.value == 0
  is_rounded = abs(claim.value - value) <= claim.unit / 2 + _slack(claim, value)
  return is_rounded and _has_a_digit(claim, value)


def _is_truncated(claim: Claim, value: Fraction) -> bool:
  """Returns whether the claim is the value without the digits after its last."""
  if claim.value * value < 0 or not _has_a_digit(claim, value):
    return False
  missing = abs(value) - abs(claim.value)
  return 0 <= missing < claim.unit - _slack(claim, value)


def _follows(claim: Claim, value: Fraction) -> bool:
  """Returns whether a claim is a value to one unit of its last digit."""
  if value == 0:
    return claim.value == 0
  near = abs(claim.value - value) <= claim.unit + _slack(claim, value)
  return near and _has_a_digit(claim, value)


def _status(claim: Claim, right: float, expected: list[float]) -> str:
  """Returns the status of a claim that is not about a given; the digits decide, exactly.

  Only what differs from the right value can have been carried: a claim that is wrong although all
  before it is exact is a slip, however small.
  """
  value = Fraction(right)
  if _is_exact(claim, value):
    return EXACT
  if _is_truncated(claim, value):
    return TRUNCATED
  for other in map(Fraction, filter(math.isfinite, expected)):
    if abs(other - value) > _slack(claim, value) and _follows(claim, other):
      return CARRIED
  return SLIP


def _remark_on_digits(claim: Claim, right: float) -> str:
  value = Fraction(right)
  if _has_a_digit(claim, value) or abs(claim.value - value) > claim.unit:
    return ""
  return (
    f"{spell(claim.of)} = {claim.text} has no significant digit of the right value: write at least "
    f"one, as in {right:.1g}."
  )
