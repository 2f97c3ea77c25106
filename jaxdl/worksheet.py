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
import graphlib
import math
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from jaxdl import expressions
from jaxdl.errors import InputError, unknown_name
from jaxdl.expressions import Derivative, Expression, Name, Quantity, Updated, excerpt

EXACT, TRUNCATED, CARRIED = "exact", "truncated", "carried"
SLIP, INCONSISTENT = "slip", "inconsistent"
STATUSES = (EXACT, TRUNCATED, CARRIED, SLIP, INCONSISTENT)
# A worksheet with one of these is not right.
WRONG = (SLIP, INCONSISTENT)

MAX_CHARACTERS = 200_000
MAX_LINE = 4000
MAX_NAMES = 500
MAX_CLAIMS = 500
# Terms of all equations, and of those that are differentiated, counted for each node that is. All
# limits together keep the worst worksheet below a minute; a 2-3-1 network has 90 terms.
MAX_TERMS = 5000
MAX_WORK = 100_000

_LEARNING_RATE = "learning_rate"


# --- What a worksheet is ---


@dataclasses.dataclass(frozen=True)
class Claim:
  """A value that somebody wrote down.

  Attributes:
    of: what it is the value of.
    text: the value as written.
    value: the number that the text means.
    unit: one unit of the last digit written.
    working: the line of working; None: none is given.
    working_text: the line of working as written.
  """

  of: Quantity
  text: str
  value: Fraction
  unit: Fraction
  working: Expression | None = None
  working_text: str | None = None


@dataclasses.dataclass(frozen=True)
class Worksheet:
  """A valid worksheet.

  Attributes:
    title: its title.
    given: name -> value.
    equations: name of a node -> its equation, each after those that it depends on.
    formulas: name of a node -> its equation as written.
    claims: in the order of the file.
    loss: the node that is differentiated for updates; None: there are no updates.
    learning_rate: of the updates; None: there are no updates.
  """

  title: str
  given: Mapping[str, float]
  equations: Mapping[str, Expression]
  formulas: Mapping[str, str]
  claims: tuple[Claim, ...]
  loss: str | None = None
  learning_rate: float | None = None


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


def write(quantity: Quantity) -> str:
  """Returns a quantity as it is written in a worksheet: a1, dL/da, w7'."""
  if isinstance(quantity, Derivative):
    return f"d{quantity.of}/d{quantity.by}"
  return f"{quantity.name}'" if isinstance(quantity, Updated) else quantity.name


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


def parse(path_or_text: str | os.PathLike) -> Worksheet:
  """Returns a worksheet, checked for being one; see `check`."""
  table = _load(_read(path_or_text))
  _refuse_unknown(
    "key", table, ("title", _LEARNING_RATE, "loss", "given", "equations", "claims"), "worksheet"
  )
  title = table.get("title", "worksheet")
  if not isinstance(title, str):
    raise InputError("title must be a string")
  given = _parse_given(_section(table, "given", dict))
  formulas = _section(table, "equations", dict)
  equations = _parse_equations(formulas, given)
  rate = table.get(_LEARNING_RATE)
  if rate is not None:
    rate = _finite_number(_LEARNING_RATE, rate)
    if rate <= 0:
      raise InputError(f"learning_rate must be above 0, not {rate:g}")
  loss = table.get("loss")
  if loss is not None and not isinstance(loss, str):
    raise InputError("loss must be a string, the name of a node")
  if loss is not None and loss not in equations:
    raise InputError(f"loss: {unknown_name('node', loss[:60], equations)}")
  sheet = Worksheet(title, given, equations, formulas, (), loss, rate)
  claims = _parse_claims(_section(table, "claims", list), sheet)
  return dataclasses.replace(sheet, claims=claims)


def _read(path_or_text: str | os.PathLike) -> str:
  looks_like_text = isinstance(path_or_text, str) and re.search("[\n=]", path_or_text)
  if looks_like_text and not _is_file(path_or_text):
    return path_or_text
  try:
    with open(path_or_text, "rb") as file:
      content = file.read(4 * MAX_CHARACTERS + 1)
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise InputError(f"worksheet {_path(path_or_text)} is not UTF-8 text") from error
  except OSError as error:
    raise InputError(f"cannot read worksheet {_path(path_or_text)}: {error.strerror}") from error
  except ValueError as error:  # a null character
    raise InputError(f"cannot read worksheet {_path(path_or_text)}: {error}") from error


def _is_file(path: str) -> bool:
  try:
    return os.path.isfile(path)
  except ValueError:
    return False


def _path(path: str | os.PathLike) -> str:
  return ascii(os.fspath(path)) if len(os.fspath(path)) < 1000 else excerpt(os.fspath(path))


def _load(text: str) -> dict[str, Any]:
  if len(text) > MAX_CHARACTERS:
    raise InputError(f"the worksheet is too long: more than {MAX_CHARACTERS:,} characters")
  for number, line in enumerate(text.split("\n"), 1):
    if len(line) > MAX_LINE:
      raise InputError(f"line {number} is too long: more than {MAX_LINE:,} characters")
  try:
    return tomllib.loads(text)
  except RecursionError as error:
    raise InputError("the worksheet is nested too deep") from error
  except tomllib.TOMLDecodeError as error:
    hint = ""
    if "overwrite" in str(error) or "twice" in str(error):
      hint = "; the same name is there twice"
    raise InputError(f"no valid TOML: {error}{hint}") from error
  except ValueError as error:  # an integer of thousands of digits, a date that is none
    raise InputError(f"no valid TOML: {error}") from error


def _refuse_unknown(what: str, table: Mapping[str, Any], known: tuple[str, ...], where: str):
  for key in table:
    if key not in known:
      raise InputError(f"{where}: {unknown_name(what, key[:60], known)}")


def _section(table: Mapping[str, Any], name: str, kind: type) -> Any:
  written = f"[[{name}]]" if kind is list else f"[{name}]"
  if name not in table:
    raise InputError(f"the section {written} is missing")
  if not isinstance(table[name], kind):
    raise InputError(f"{name} must be a section {written}")
  if not table[name] and name != "given":
    raise InputError(f"the section {written} is empty")
  limit = MAX_CLAIMS if kind is list else MAX_NAMES
  if len(table[name]) > limit:
    raise InputError(f"the section {written} is too long: more than {limit:,} entries")
  return table[name]


def _finite_number(key: str, value: object) -> float:
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise InputError(f"{key} must be a number, not {_type_name(value)}")
  try:
    number = float(value)
  except OverflowError:
    number = math.inf
  if not math.isfinite(number):
    raise InputError(f"{key} must be a finite number")
  return number


def _type_name(value: object) -> str:
  names = {str: "a string", bool: "a boolean", int: "a number", float: "a number"}
  return names.get(type(value), {dict: "a table", list: "a list"}.get(type(value), "a date"))


def _check_name(section: str, name: str):
  if name in expressions.FUNCTION_NAMES:
    raise InputError(f"{section}: {name!r} is the name of a function")
  if not expressions.is_name(name):
    raise InputError(
      f"{section}: {excerpt(name)} is no name; a name has letters, digits and underscores, begins "
      "with a letter, and is at most 60 characters long"
    )


def _parse_given(section: Mapping[str, Any]) -> dict[str, float]:
  for name in section:
    _check_name("given", name)
  return {name: _finite_number(f"given.{name}", value) for name, value in section.items()}


def _parse_equations(section: Mapping[str, Any], given: Mapping[str, float]) -> dict[str, Any]:
  """Returns the equations, each after those that it depends on."""
  equations = {}
  for name, text in section.items():
    _check_name("equations", name)
    if name in given:
      raise InputError(f"{name} is there twice, in [given] and in [equations]")
    if not isinstance(text, str):
      raise InputError(f"equations.{name} must be a string, not {_type_name(text)}")
    with _named(f"equations.{name} = {excerpt(text)}"):
      equations[name] = expressions.parse(text)
  if sum(map(len, equations.values())) > MAX_TERMS:
    raise InputError(f"the equations are too long: more than {MAX_TERMS:,} terms in all")
  known = [*given, *equations]
  for name, equation in equations.items():
    for inner in _inputs(equation):
      if inner not in known:
        with _named(f"equations.{name} = {excerpt(section[name])}"):
          raise unknown_name("name", inner[:60], known)
  graph = {name: [n for n in _inputs(e) if n in equations] for name, e in equations.items()}
  try:
    return {name: equations[name] for name in graphlib.TopologicalSorter(graph).static_order()}
  except graphlib.CycleError as error:
    cycle = error.args[1][::-1]
    path = [*cycle[:5], "...", *cycle[-3:]] if len(cycle) > 12 else cycle
    raise InputError(f"the equations go round in a circle: {' -> '.join(path)}") from error


def _inputs(equation: Expression) -> list[str]:
  return [quantity.name for quantity in expressions.quantities(equation)]


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
  """Puts the place in front of an error's message."""
  try:
    yield
  except InputError as error:
    raise InputError(f"{where}: {error}") from error


# --- Reading claims ---


def _parse_claims(section: list, sheet: Worksheet) -> tuple[Claim, ...]:
  claims: dict[Quantity, int] = {}
  result = []
  for number, table in enumerate(section, 1):
    where = f"claim {number}"
    if not isinstance(table, dict):
      raise InputError(f"{where} must be a table, not {_type_name(table)}")
    _refuse_unknown("key", table, ("of", "value", "from"), where)
    for key in ("of", "value"):
      if key not in table:
        raise InputError(f"{where}: the key {key!r} is missing")
    if isinstance(table["of"], str):
      where += f", of {excerpt(table['of'])}"
    with _named(where):
      claim = _parse_claim(table, sheet)
      if claim.of in claims:
        raise InputError(f"a duplicate of claim {claims[claim.of]}")
      claims[claim.of] = number
      result.append(claim)
  return tuple(result)


def _parse_claim(table: Mapping[str, Any], sheet: Worksheet) -> Claim:
  for key, value in table.items():
    if isinstance(value, str):
      continue
    hint = ""
    if key == "value" and _type_name(value) == "a number":
      hint = ', because its digits matter: put it in quotation marks, as in value = "0.8807"'
    raise InputError(f"{key} must be a string, not {_type_name(value)}{hint}")
  quantity = _parse_quantity(table["of"], sheet)
  value, unit = parse_number(table["value"])
  if "from" not in table:
    return Claim(quantity, table["value"].strip(), value, unit)
  names = {*sheet.given, *sheet.equations}
  with _named(f"from = {excerpt(table['from'])}"):
    working = expressions.parse(table["from"], names)
    for inner in expressions.quantities(working):
      _check_quantity(inner, sheet, in_working=True)
  return Claim(quantity, table["value"].strip(), value, unit, working, table["from"])


_QUANTITY = re.compile(r"d\s*(?P<of>\w+)\s*/\s*d\s*(?P<by>\w+)|(?P<updated>\w+)\s*'|(?P<name>\w+)")


def _parse_quantity(text: str, sheet: Worksheet) -> Quantity:
  plain = text.translate({ord("′"): "'", ord("’"): "'"}).strip()  # noqa: RUF001
  match = _QUANTITY.fullmatch(plain) if len(text) <= 200 else None
  if match is None:
    raise InputError("a claim is of a node (a1), a derivative (dL/da) or an updated value (w7')")
  if match["of"]:
    quantity = Derivative(match["of"], match["by"])
  else:
    quantity = Updated(match["updated"]) if match["updated"] else Name(match["name"])
  _check_quantity(quantity, sheet)
  return quantity


def _check_quantity(quantity: Quantity, sheet: Worksheet, in_working: bool = False):
  """Refuses what does not exist."""
  names = [*sheet.given, *sheet.equations]
  parts = [quantity.of, quantity.by] if isinstance(quantity, Derivative) else [quantity.name]
  if in_working and quantity == Name(_LEARNING_RATE) and _LEARNING_RATE not in names:
    if sheet.learning_rate is None:
      raise InputError("the worksheet has no learning_rate")
    return
  for name in parts:
    if name not in names:
      what = f"name in {write(quantity)[:60]}:" if len(parts) > 1 else "name"
      raise unknown_name(what, name[:60], names)
  if isinstance(quantity, Updated):
    if quantity.name not in sheet.given:
      raise InputError(f"{quantity.name} is computed, so no gradient step changes it: no given")
    for key, setting in {"loss": sheet.loss, _LEARNING_RATE: sheet.learning_rate}.items():
      if setting is None:
        raise InputError(f"the worksheet has no {key}, which {write(quantity)} needs")


_NUMBER = re.compile(
  r"(?P<sign>[+-]?)\s*(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)"
  r"(?:[eE](?P<e>[+-]?[0-9]{1,4})"
  r"|\s*[x*]\s*10\s*(?:\^|\*\*)\s*(?P<open>[({]?)\s*(?P<power>[+-]?[0-9]{1,4})\s*[)}]?)?"
)
_NUMBER_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "x", "·": "x", "X": "x"})  # noqa: RUF001
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


def parse_number(text: str) -> tuple[Fraction, Fraction]:
  """Returns the value of a number as written, and one unit of its last digit, both exactly.

  Args:
    text: as in 0.8807, -5.57e-4, 5.57 x 10^-4, 5.57 × 10⁻⁴.

  Raises:
    InputError: when it is none, or out of the range of float64.
  """  # noqa: RUF002
  if len(text) > 500:  # before it is matched, which takes time
    raise InputError(f"value: {excerpt(text)} is longer than any number")
  plain = text.strip().translate(_NUMBER_SPELLINGS)
  plain = re.sub("10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)$", lambda m: f"10^{m[1].translate(_SUPERSCRIPTS)}", plain)
  match = _NUMBER.fullmatch(plain)
  if match is None:
    hint = ""
    if re.fullmatch(r"[+-]?[0-9.\s]+/[0-9.\s]+", plain):
      hint = "a fraction has no last digit: write it as it was rounded, as in 0.333"
    elif re.fullmatch(r"[+-]?[0-9]+,[0-9]+", plain):
      hint = "write a point, not a comma"
    hint = hint or "write it as in 0.8807, -5.57e-4 or 5.57 x 10^-4"
    raise InputError(f"value: {excerpt(text)} is no decimal number; {hint}")
  if len(match["digits"]) > 400:
    raise InputError(f"value: {excerpt(text)} has more than 400 digits")
  number = Decimal(f"{match['sign']}{match['digits']}e{match['e'] or match['power'] or 0}")
  last = int(number.as_tuple().exponent)
  if not math.isfinite(float(number)) or not -400 <= last <= 300:
    raise InputError(f"value: {excerpt(text)} is out of range")
  return Fraction(number), Fraction(10) ** last


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
      return CheckedClaim(write(of), claim.text, digits, computed, status, None, claim.working_text)
    expected = self._expected(claim, taken)
    status = _status(claim, computed, expected)
    main = expected[0] if math.isfinite(expected[0]) else None
    return CheckedClaim(
      write(of),
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
      f"The line of working of {write(claim.of)} does not lead to its right value, even from exact "
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
  names = _inputs(equation)
  text = ", ".join(f"{name} = {values[name]:.6g}" for name in names[:6])
  return (text or "it has no inputs") + (", ..." if len(names) > 6 else "")


class _Graph:
  """The equations as a graph: values, derivatives, paths."""

  def __init__(self, equations: Mapping[str, Expression], names: list[str]):
    self._equations = equations
    self._inputs = {name: _inputs(equation) for name, equation in equations.items()}
    # Sets of names as bits of an integer; every name comes after those that it depends on.
    self._names = names
    self._bit = {name: 1 << i for i, name in enumerate(names)}
    self._ancestors: dict[str, int] = {}  # with the name itself
    self._children: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
      self._ancestors[name] = self._bit[name]
      for inner in self._inputs.get(name, ()):
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
    key = (node, *(values[name] for name in self._inputs[node]))
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
    names, equation = self._inputs[node], self._equations[node]
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


# --- Saying ---


def to_json(checked: CheckedWorksheet) -> dict[str, Any]:
  """Returns title and claims, for a file."""
  keys = ("of", "claimed", "computed", "status", "expected_from_claims")
  claims = [{key: getattr(claim, key) for key in keys} for claim in checked.claims]
  return {"title": checked.title, "claims": claims}


def rows(checked: CheckedWorksheet) -> list[list[str]]:
  """Returns a table of the claims in their order, header first."""
  header = ["claim", "claimed", "computed", "digits", "status", "from the claims before"]
  return [
    header,
    *(
      [
        claim.of,
        claim.claimed,
        show(claim.computed, claim),
        str(claim.digits),
        claim.status,
        ""
        if claim.status in (EXACT, TRUNCATED) or claim.expected_from_claims is None
        else show(claim.expected_from_claims, claim),
      ]
      for claim in checked.claims
    ),
  ]


def show(value: float, claim: CheckedClaim, extra: int = 2) -> str:
  """Returns a value with as many digits as the claim has, and some more."""
  _, unit = parse_number(claim.claimed)
  places = len(str(unit.numerator)) - len(str(unit.denominator))  # the unit is 10**places
  decimals = extra - places
  if (value == 0 or 1e-4 <= abs(value) < 1e7) and 0 <= decimals <= 17:
    return f"{value:.{decimals}f}"
  exponent = math.floor(math.log10(abs(value))) if value else 0
  return f"{value:.{min(max(exponent - places + extra, extra), 16)}e}"


def first_slip(checked: CheckedWorksheet) -> str:
  """Returns what is wrong first, in sentences for whoever wrote the worksheet."""
  claim = checked.first_wrong
  if claim is None:
    num = len(checked.claims)
    text = f"No slip in {num} claim{'s' if num != 1 else ''}."
    carried = checked.counts[CARRIED]
    if carried:
      text += f" {carried} carried: right from the lines before, which were rounded."
    return text
  position = checked.claims.index(claim) + 1
  if claim.status == INCONSISTENT:
    return (
      f"The first mistake is in claim {position}: {claim.of} = {claim.claimed} is written there, "
      f"but {claim.of} is given as {claim.computed:g}."
    )
  text = (
    f"The first slip is in claim {position}: {claim.of} = {claim.claimed} should be "
    f"{show(claim.computed, claim, extra=0)}"
  )
  if (how := _how(checked, claim)) != "":
    text += f", because {how}"
  text += "."
  expected = claim.expected_from_claims
  if expected is not None:
    value = show(expected, claim, extra=0)
    same = value == show(claim.computed, claim, extra=0)
    value = "the same" if same else value
    text += f" From the claims before it, it would be {value}, so the mistake is in this one."
  return text + _guess(claim)


def _how(checked: CheckedWorksheet, claim: CheckedClaim) -> str:
  """Returns how the right value comes about."""
  sheet = checked.worksheet
  of = _parse_quantity(claim.of, sheet)
  if isinstance(of, Name):
    return f"{of.name} = {' '.join(sheet.formulas[of.name].split())}"
  if isinstance(of, Updated):
    slope = (sheet.given[of.name] - claim.computed) / float(sheet.learning_rate or 1)
    return (
      f"{claim.of} = {of.name} - learning_rate * d{sheet.loss}/d{of.name} = "
      f"{sheet.given[of.name]:g} - {sheet.learning_rate:g} * ({slope:.4g})"
    )
  return ""


def _guess(claim: CheckedClaim) -> str:
  """Says what kind of mistake it looks like, where it looks like one."""
  value, unit = parse_number(claim.claimed)
  for right in (claim.expected_from_claims, claim.computed):
    if right is None or not value:
      continue
    if abs(value + Fraction(right)) <= unit <= abs(value) / 2:
      return " Its sign is wrong."
    for shift in (1, 2, 3, -1, -2, -3):
      scaled = Fraction(right) * Fraction(10) ** shift
      if scaled and abs(value - scaled) <= unit and abs(value) >= 10 * unit:
        return " The digits are right, but the decimal point is in the wrong place."
  return ""
