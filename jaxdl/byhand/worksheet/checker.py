"""Backpropagation by hand, checked line by line.

A worksheet (TOML, see docs/worksheets.md) has the given values, the equations of the forward pass,
and claims: the values that somebody wrote down. `check` compares every claim with what JAX
computes in float64, and, where it is wrong, with what follows from the claims before it, so that a
mistake is found in the line where it was made and not again in every line after it.

The derivative of u by v treats v as free and lets everything downstream of v follow. It is what
`jax.grad` says of the whole graph.

What follows from the claims before a claim ("taken" values) is, in this order:

- with a line of working (`from`): its value, with what was claimed before in the place of names.
- a node: its own equation, at the taken values of what it depends on. A node that was not claimed
  has the value that follows from those that were.
- a derivative du/dv: the chain rule, from u back to v. A factor that was claimed is taken as
  claimed, and, where all paths from v lead through m and dm/dv was claimed, so is that; others are
  derivatives of one equation at taken values. Where the last step of an equation is a sigmoid,
  tanh, exp or sqrt and the node was claimed, that step's derivative is found from its result, as by
  hand: a (1 - a) for a = sigmoid(z). Using claimed values but no claimed derivative is right, too.
- an updated value w': w - learning_rate * dL/dw, with taken w and dL/dw.
"""

import contextlib
import dataclasses
import functools
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Derivative, Expression, Name, Quantity, Updated, excerpt
from jaxdl.byhand.worksheet.reader import MAX_WORK, Claim, Worksheet, inputs_of, parse, spell
from jaxdl.errors import InputError

EXACT, TRUNCATED, CARRIED = "exact", "truncated", "carried"
SLIP, INCONSISTENT = "slip", "inconsistent"
STATUSES = (EXACT, TRUNCATED, CARRIED, SLIP, INCONSISTENT)
# A worksheet with one of these is not right.
WRONG = (SLIP, INCONSISTENT)


@dataclasses.dataclass(frozen=True)
class CheckedClaim:
  """A claim and what is to be said about it.

  Attributes:
    of: what it is the value of, as in "a1", "dL/da", "w7'".
    claimed: the value as written.
    digits: how many digits were written, leading zeros not counted.
    computed: the right value.
    status: one of `STATUSES`.
    expected_from_claims: the value that follows from the claims before; None: not finite, or the
      claim is about a given, which follows from nothing.
    working: the line of working as written; None: none is given.
    remark: what else there is to say, a sentence or nothing.
  """

  of: str
  claimed: str
  digits: int
  computed: float
  status: str
  expected_from_claims: float | None
  working: str | None = None
  remark: str = ""


@dataclasses.dataclass(frozen=True)
class CheckedWorksheet:
  """A worksheet and what is to be said about each of its claims.

  Attributes:
    worksheet: as it was parsed.
    claims: in the order of the file.
    values: name of a node or given -> right value.
    partials: (u, v) -> derivative of u's own equation by v, other names in it held fast: what
      stands on the edges of the computation graph. Not finite where there is none.
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
    """The first claim that is a slip or inconsistent; None: there is none."""
    return next((claim for claim in self.claims if claim.status in WRONG), None)

  @property
  def counts(self) -> dict[str, int]:
    """How many claims have each status."""
    counter = Counter(claim.status for claim in self.claims)
    return {status: counter[status] for status in STATUSES}


# --- Reading ---


def check(path_or_text: str | os.PathLike) -> CheckedWorksheet:
  """Checks a worksheet.

  Args:
    path_or_text: the file, or, where there is a line break or a "=" in it, the TOML text itself.

  Raises:
    InputError: when it cannot be read, is no valid worksheet, or has a value that is not finite.
  """
  worksheet = parse(path_or_text)
  with _float64():
    return _Checker(worksheet).check()


# --- Computing ---


@contextlib.contextmanager
def _float64() -> Iterator[None]:
  """Computes in float64, here and not elsewhere, and on the CPU: this is no GPU's work."""
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX was told not to use it
    device = None
  with jax.enable_x64(True), jax.default_device(device), np.errstate(all="ignore"):
    yield


@dataclasses.dataclass
class _Taken:
  """The claims so far, and what follows from them.

  Attributes:
    values: name -> value: claimed, or following from claimed ones.
    nodes: claimed values of nodes (and of givens).
    derivatives: claimed derivatives.
    updated: claimed updated values.
  """

  values: dict[str, float]
  nodes: dict[str, float] = dataclasses.field(default_factory=dict)
  derivatives: dict[Derivative, float] = dataclasses.field(default_factory=dict)
  updated: dict[str, float] = dataclasses.field(default_factory=dict)


class _Checker:
  """Checks the claims of one worksheet in their order; use within `_float64`."""

  def __init__(self, sheet: Worksheet):
    self._sheet = sheet
    self._graph = _Graph(sheet.equations, [*sheet.given, *sheet.equations])
    self._exact = _Taken(self._compute_values())
    self._derivatives = self._compute_derivatives()

  def check(self) -> CheckedWorksheet:
    taken = _Taken(dict(self._exact.values))
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

  def _compute_values(self) -> dict[str, float]:
    values = dict(self._sheet.given)
    for name in self._sheet.equations:
      values[name] = self._graph.value(name, values)
      if not math.isfinite(values[name]):
        raise InputError(
          f"the value of {name} = {excerpt(self._sheet.formulas[name])} is not finite: "
          f"{_describe_inputs(self._sheet.equations[name], values)}"
        )
    return values

  def _compute_derivatives(self) -> dict[Derivative, float]:
    """Returns every derivative that a claim mentions, by `jax.grad` of the whole graph."""
    wanted: dict[str, dict[str, None]] = {}
    for claim in self._sheet.claims:
      mentioned = [claim.of, *(expressions.quantities(claim.working) if claim.working else ())]
      for quantity in mentioned:
        if isinstance(quantity, Updated):
          quantity = self._slope_of(quantity)
        if isinstance(quantity, Derivative):
          wanted.setdefault(quantity.of, {})[quantity.by] = None
    work = sum(self._graph.num_terms(of) for of in wanted)
    if work > MAX_WORK:
      raise InputError("the worksheet is too large: too many derivatives of too many equations")
    derivatives = {}
    for of, names in wanted.items():
      for by, value in self._graph.gradient(of, list(names), self._exact.values).items():
        if not math.isfinite(value):
          raise InputError(f"the derivative d{of}/d{by} is not finite at the given values")
        derivatives[Derivative(of, by)] = value
    return derivatives

  def _take(self, claim: Claim, taken: _Taken):
    """Puts a claim among those that are taken as they stand."""
    value = float(claim.value)
    if isinstance(claim.of, Derivative):
      taken.derivatives[claim.of] = value
    elif isinstance(claim.of, Updated):
      taken.updated[claim.of.name] = value
    else:
      taken.nodes[claim.of.name] = taken.values[claim.of.name] = value
      for name in self._graph.downstream(claim.of.name):
        if name not in taken.nodes:
          taken.values[name] = self._graph.value(name, taken.values)

  def _check_claim(self, claim: Claim, taken: _Taken) -> CheckedClaim:
    of, sheet = claim.of, self._sheet
    computed = self._computed(of)
    digits = _num_digits(claim)
    if isinstance(of, Name) and of.name in sheet.given:
      agrees = _is_exact(claim, Fraction(repr(computed)))
      status = EXACT if agrees else INCONSISTENT
      return CheckedClaim(spell(of), claim.text, digits, computed, status, None, claim.working_text)
    expected = self._expected(claim, taken)
    status = _status(claim, computed, expected)
    main = expected[0] if math.isfinite(expected[0]) else None
    return CheckedClaim(
      spell(of),
      claim.text,
      digits,
      computed,
      status,
      main,
      claim.working_text,
      self._remark(claim, computed, status),
    )

  def _computed(self, quantity: Quantity) -> float:
    """Returns the right value."""
    if isinstance(quantity, Derivative):
      return self._derivatives[quantity]
    if isinstance(quantity, Updated):
      slope = self._derivatives[self._slope_of(quantity)]
      return self._step(self._sheet.given[quantity.name], slope)
    return self._exact.values.get(quantity.name, self._sheet.learning_rate)

  def _slope_of(self, updated: Updated) -> Derivative:
    """Returns the derivative that a gradient step uses."""
    return Derivative(str(self._sheet.loss), updated.name)

  def _step(self, value: float, slope: float) -> float:
    return value - float(self._sheet.learning_rate or 0) * slope

  def _expected(self, claim: Claim, taken: _Taken) -> list[float]:
    """Returns what follows from the claims before: what is shown, then what is right as well."""
    if claim.working:

      def exact_unless_claimed(quantity):
        claimed = _claimed(quantity, taken)
        return self._computed(quantity) if claimed is None else claimed

      follow = functools.partial(self._follow, taken=taken)
      return [_evaluate(claim.working, lookup) for lookup in (follow, exact_unless_claimed)]
    if isinstance(claim.of, Name):
      return [self._graph.value(claim.of.name, taken.values)]
    follows = [self._follow(claim.of, taken)]
    if not (isinstance(claim.of, Updated) and self._slope_of(claim.of) in taken.derivatives):
      follows.append(self._follow(claim.of, dataclasses.replace(taken, derivatives={})))
    return follows

  def _follow(self, quantity: Quantity, taken: _Taken) -> float:
    """Returns what was claimed, else what follows from it."""
    claimed = _claimed(quantity, taken)
    if claimed is not None:
      return claimed
    if isinstance(quantity, Derivative):
      return self._graph.chain(quantity, taken)
    if isinstance(quantity, Updated):
      slope = self._follow(self._slope_of(quantity), taken)
      return self._step(taken.values[quantity.name], slope)
    return taken.values.get(quantity.name, self._sheet.learning_rate)

  def _remark(self, claim: Claim, computed: float, status: str) -> str:
    """Says when a line of working does not lead to the right value, however exactly one follows it.

    The status is about the value, which may well be what the working gives.
    """
    if not claim.working or status not in (CARRIED, SLIP):
      return ""
    exact = _evaluate(claim.working, self._computed)
    if math.isfinite(exact) and abs(Fraction(exact) - Fraction(computed)) <= claim.unit:
      return ""
    return (
      f"The line of working of {spell(claim.of)} does not lead to its right value, even from exact "
      "values."
    )


def _claimed(quantity: Quantity, taken: _Taken) -> float | None:
  if isinstance(quantity, Derivative):
    return taken.derivatives.get(quantity)
  where = taken.updated if isinstance(quantity, Updated) else taken.nodes
  return where.get(quantity.name)


def _evaluate(expression: Expression, lookup: Any) -> float:
  return float(expressions.evaluate(expression, lambda name: np.float64(lookup(name))))


def _describe_inputs(equation: Expression, values: Mapping[str, float]) -> str:
  names = inputs_of(equation)
  text = ", ".join(f"{name} = {values[name]:.6g}" for name in names[:6])
  return (text or "it has no inputs") + (", ..." if len(names) > 6 else "")


class _Graph:
  """The equations as a graph: values, derivatives, paths."""

  def __init__(self, equations: Mapping[str, Expression], names: list[str]):
    self._equations = equations
    self.inputs_of = {name: inputs_of(equation) for name, equation in equations.items()}
    # Sets of names as bits of an integer; every name comes after those that it depends on.
    self._names = names
    self._bit = {name: 1 << i for i, name in enumerate(names)}
    self._ancestors: dict[str, int] = {}  # with the name itself
    self._children: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
      self._ancestors[name] = self._bit[name]
      for inner in self.inputs_of.get(name, ()):
        self._ancestors[name] |= self._ancestors[inner]
        self._children[inner].append(name)
    self._cache: dict[tuple, Any] = {}

  def _depends(self, name: str, on: str) -> bool:
    return bool(self._ancestors[name] & self._bit[on])

  def num_terms(self, of: str) -> int:
    """Returns how many terms there are in a node and all that it depends on."""
    return sum(len(e) for name, e in self._equations.items() if self._depends(of, name))

  def downstream(self, name: str) -> list[str]:
    """Returns the nodes that depend on a name, in order, without itself."""
    return [node for node in self._equations if node != name and self._depends(node, name)]

  def value(self, node: str, values: Mapping[str, float]) -> float:
    """Returns a node by its own equation."""
    key = (node, *(values[name] for name in self.inputs_of[node]))
    if key not in self._cache:
      self._cache[key] = _evaluate(self._equations[node], lambda quantity: values[quantity.name])
    return self._cache[key]

  def gradient(self, of: str, by: list[str], values: Mapping[str, float]) -> dict[str, float]:
    """Returns the derivatives of a node or given by others, by `jax.grad` of the whole graph.

    To each of `by` a shift of 0 is added. The derivative by the shift treats the name as free and
    lets everything downstream of it follow.
    """
    moving = [n for n in self._equations if self._depends(of, n)]
    moving = [n for n in moving if any(self._depends(n, name) for name in by)]

    def shifted(shifts):
      now = {name: np.float64(value) for name, value in values.items()}
      now |= {name: now[name] + shift for name, shift in shifts.items() if name not in moving}
      for node in moving:
        now[node] = expressions.evaluate(self._equations[node], lambda q: now[q.name])
        if node in shifts:
          now[node] = now[node] + shifts[node]
      return now[of]

    slopes = jax.grad(shifted)({name: np.float64(0) for name in by})
    return {name: float(slope) for name, slope in slopes.items()}

  def partials(self, node: str, taken: _Taken) -> dict[str, float]:
    """Returns the derivatives of a node's own equation by each name in it, at taken values.

    If the node was claimed and the last step has a derivative by its result, that is used.
    """
    names, equation = self.inputs_of[node], self._equations[node]
    last = equation[-1]
    by_output = None
    if isinstance(last, expressions.Apply) and node in taken.nodes:
      by_output = expressions.DERIVATIVES_BY_OUTPUT.get(last.function)
    factor = 1.0
    if by_output is not None:
      equation, factor = equation[:-1], by_output(taken.nodes[node])
    key = (node, by_output is None, *(taken.values[name] for name in names))
    if key not in self._cache:
      slopes = jax.grad(lambda at: expressions.evaluate(equation, lambda q: at[q.name]))(
        {name: np.float64(taken.values[name]) for name in names}
      )
      self._cache[key] = {name: float(slope) for name, slope in slopes.items()}
    return {name: factor * slope for name, slope in self._cache[key].items()}

  def chain(self, derivative: Derivative, taken: _Taken) -> float:
    """Returns a derivative by the chain rule from taken values; see the module's docstring."""
    of, by = derivative.of, derivative.by
    between = [n for n in self._names if self._depends(of, n) and self._depends(n, by)]
    claimed_by = {}  # v -> [m of dm/dv that was claimed], farthest from v first
    for known in taken.derivatives:
      claimed_by.setdefault(known.by, []).append(known.of)
    slopes = {of: 1.0}
    for name in reversed(between):
      if name == of:
        continue
      known = taken.derivatives.get(Derivative(of, name))
      slopes[name] = (
        self._chain_step(name, of, slopes, claimed_by.get(name, []), taken)
        if known is None
        else known
      )
    return slopes.get(by, 0.0)

  def _chain_step(
    self, name: str, of: str, slopes: Mapping[str, float], claimed: list[str], taken: _Taken
  ) -> float:
    """Returns the derivative of `of` by a name, from those of `of` by what depends on the name."""
    inner = [m for m in slopes if m in claimed and m not in (of, name)]
    for m in inner:  # in the order of `slopes`: the nearest to `of` first
      if self._all_paths_meet(name, m, slopes):
        return taken.derivatives[Derivative(m, name)] * slopes[m]
    children = [child for child in self._children[name] if child in slopes]
    total = 0.0
    for child in children:
      only_path = not any(self._depends(child, c) for c in children if c != child)
      known = taken.derivatives.get(Derivative(child, name)) if only_path else None
      factor = self.partials(child, taken)[name] if known is None else known
      total += slopes[child] * factor
    return total

  def _all_paths_meet(self, name: str, meeting: str, slopes: Mapping[str, float]) -> bool:
    """Returns whether all paths from a name, within those of `slopes`, lead through another."""
    if not self._depends(meeting, name):
      return False
    end = next(iter(slopes))
    todo, seen = [name], {name, meeting}
    while todo:
      for child in self._children[todo.pop()]:
        if child == end:
          return False
        if child in slopes and child not in seen:
          seen.add(child)
          todo.append(child)
    return True


# --- Deciding ---


def _num_digits(claim: Claim) -> int:
  return max(1, len(str(abs(claim.value / claim.unit).numerator)))


def _slack(claim: Claim, value: Fraction) -> Fraction:
  """Returns what float64 may be off by: it must not decide whether a tie is one."""
  return claim.unit / 10**9 + 4 * abs(value) * Fraction(np.finfo(np.float64).eps.item())


def _is_exact(claim: Claim, value: Fraction) -> bool:
  return abs(claim.value - value) <= claim.unit / 2 + _slack(claim, value)


def _is_truncated(claim: Claim, value: Fraction) -> bool:
  """Returns whether the claim is the value without the digits after its last."""
  if claim.value * value < 0:
    return False
  missing = abs(value) - abs(claim.value)
  return 0 <= missing < claim.unit - _slack(claim, value)


def _status(claim: Claim, computed: float, expected: list[float]) -> str:
  """Returns the status of a claim that is not about a given; the digits decide, exactly.

  Only what differs from the right value can have been carried: a claim that is wrong although all
  before it is exact is a slip, however small.
  """
  right = Fraction(computed)
  if _is_exact(claim, right):
    return EXACT
  if _is_truncated(claim, right):
    return TRUNCATED
  for other in map(Fraction, filter(math.isfinite, expected)):
    differs = abs(other - right) > _slack(claim, right)
    if differs and abs(claim.value - other) <= claim.unit + _slack(claim, other):
      return CARRIED
  return SLIP
