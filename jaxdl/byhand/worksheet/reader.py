"""Reads a worksheet (TOML): given values, equations and claims."""

import contextlib
import dataclasses
import graphlib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import (
  Derivative,
  Expression,
  Name,
  Quantity,
  Updated,
  excerpt,
  spell,
)
from jaxdl.byhand.worksheet.graph import inputs_of
from jaxdl.errors import InputError, unknown_name

MAX_CHARACTERS = 200_000
MAX_LINE = 4000
MAX_NAMES = 500
MAX_CLAIMS = 500
# Terms of all equations; and of those that are differentiated, counted once for every node that is.
# Together the limits keep the worst worksheet below a minute. A 2-3-1 network has 90 terms.
MAX_TERMS = 5000
MAX_WORK = 100_000

_LEARNING_RATE = "learning_rate"

_QUANTITY = re.compile(r"d\s*(?P<of>\w+)\s*/\s*d\s*(?P<by>\w+)|(?P<updated>\w+)\s*'|(?P<name>\w+)")
_NUMBER = re.compile(
  r"(?P<sign>[+-]?)\s*(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)"
  r"(?:[eE](?P<e>[+-]?[0-9]{1,4})"
  r"|\s*[x*]\s*10\s*(?:\^|\*\*)\s*(?P<open>[({]?)\s*(?P<power>[+-]?[0-9]{1,4})\s*[)}]?)?"
)
# What is often written for a value where TOML has none.
_LINE_HINTS = {
  r"[+-]?[0-9.]+\s*%": "; write 0.5 for 50%",
  r"[+-]?[0-9]+,[0-9]": "; write a point, not a comma",
  r"[+-]?\.[0-9]": "; write 0.5 for .5",
  r"[+-]?[0-9]+\.\s*(#|$)": "; write 2.0 for 2.",
  r"≈": "; write = and the value, without ≈",
  r"[−–]": "; write the minus sign as -",  # noqa: RUF001
  r"[\w(+-]": "; a formula is put in quotation marks, a number is not",
}
_NUMBER_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "x", "·": "x", "X": "x"})  # noqa: RUF001
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


# --- What a worksheet is ---


@dataclasses.dataclass(frozen=True)
class Claim:
  """A value that somebody wrote down.

  Attributes:
    of: what it is the value of.
    text: the value as written.
    value: the number that the text means.
    unit: one unit of the last digit written.
    points: what it is worth.
    working: the line of working; empty without one.
    working_text: the line of working as written.
  """

  of: Quantity
  text: str
  value: Fraction
  unit: Fraction
  points: float = 1
  working: Expression = ()
  working_text: str = ""


@dataclasses.dataclass(frozen=True)
class Worksheet:
  """A valid worksheet.

  Attributes:
    title: its title.
    given: name -> value.
    equations: name of a node -> its equation, each after those that it depends on.
    formulas: name of a node -> its equation as written.
    claims: in the order of the file.
    loss: the node that is differentiated for updates; None without updates.
    learning_rate: of the updates; None without updates.
  """

  title: str
  given: Mapping[str, float]
  equations: Mapping[str, Expression]
  formulas: Mapping[str, str]
  claims: tuple[Claim, ...]
  loss: str | None = None
  learning_rate: float | None = None

  @property
  def names(self) -> list[str]:
    """Of givens and nodes, each after those that it depends on."""
    return [*self.given, *self.equations]

  def slope_of(self, quantity: Derivative | Updated) -> Derivative:
    """Returns the derivative that an updated value is computed from; a derivative is its own."""
    if isinstance(quantity, Derivative):
      return quantity
    return Derivative(str(self.loss), quantity.name)


def parse(path_or_text: str | os.PathLike) -> Worksheet:
  """Reads and validates a worksheet; see `check`."""
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
  if (
    isinstance(path_or_text, str)
    and re.search("[\n=]", path_or_text)
    and not os.path.isfile(path_or_text)
  ):
    return path_or_text
  try:
    if os.path.exists(path_or_text) and not os.path.isfile(path_or_text):
      raise ValueError("it is no regular file")  # reading a pipe might never end
    with open(path_or_text, "rb") as file:
      content = file.read(4 * MAX_CHARACTERS + 1)
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise InputError(f"worksheet {_path(path_or_text)} is not UTF-8 text") from error
  except OSError as error:
    raise InputError(f"cannot read worksheet {_path(path_or_text)}: {error.strerror}") from error
  except ValueError as error:  # also of a null character
    raise InputError(f"cannot read worksheet {_path(path_or_text)}: {error}") from error


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
    raise InputError("the worksheet is nested too deeply") from error
  except tomllib.TOMLDecodeError as error:
    raise InputError(f"not valid TOML: {error}{_toml_hint(text, str(error))}") from error
  except ValueError as error:  # an integer of thousands of digits, an impossible date
    raise InputError(f"not valid TOML: {error}") from error


def _toml_hint(text: str, message: str) -> str:
  """Returns what is probably meant in a line that is not TOML, or nothing."""
  if "overwrite" in message or "twice" in message:
    return "; a name is defined twice"
  where = re.search(r"at line ([0-9]+)", message)
  line = text.split("\n")[int(where[1]) - 1] if where else ""
  name, _, value = (part.strip() for part in line.partition("="))
  if name and not name.isascii() and name[0] not in "\"'":
    return f'; put a name with such letters in quotation marks: "{name[:20]}" = ...'
  for pattern, hint in _LINE_HINTS.items():
    if re.match(pattern, value):
      return hint
  return ""


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
  names: dict[type, str] = {str: "a string", bool: "a boolean", dict: "a table", list: "a list"}
  return "a number" if type(value) in (int, float) else names.get(type(value), "a date")


def _check_name(section: str, name: str):
  if name in expressions.FUNCTION_NAMES:
    raise InputError(f"{section}: {name!r} is the name of a function")
  if not expressions.is_name(name):
    raise InputError(
      f"{section}: {excerpt(name)} is not a name; a name has letters, digits and underscores, "
      "begins with a letter, and is at most 60 characters long"
    )


def _parse_given(section: Mapping[str, Any]) -> dict[str, float]:
  for name in section:
    _check_name("given", name)
  return {name: _finite_number(f"given.{name}", value) for name, value in section.items()}


def _parse_equations(section: Mapping[str, Any], given: Mapping[str, float]) -> dict[str, Any]:
  """Returns the equations, each after those that it depends on."""
  names, equations = {*given, *section}, {}
  for name, text in section.items():
    _check_name("equations", name)
    if name in given:
      raise InputError(f"{name} is defined twice, in [given] and in [equations]")
    if not isinstance(text, str):
      raise InputError(f"equations.{name} must be a string, not {_type_name(text)}")
    with _named(f"equations.{name} = {excerpt(text)}"):
      equations[name] = expressions.parse(text, names)
  if sum(map(len, equations.values())) > MAX_TERMS:
    raise InputError(f"the equations are too long: more than {MAX_TERMS:,} terms in all")
  known = [*given, *equations]
  for name, equation in equations.items():
    for inner in inputs_of(equation):
      if inner not in known:
        with _named(f"equations.{name} = {excerpt(section[name])}"):
          raise unknown_name("name", inner[:60], known)
  graph = {name: [n for n in inputs_of(e) if n in equations] for name, e in equations.items()}
  try:
    return {name: equations[name] for name in graphlib.TopologicalSorter(graph).static_order()}
  except graphlib.CycleError as error:
    cycle = error.args[1][::-1]
    path = [*cycle[:5], "...", *cycle[-3:]] if len(cycle) > 12 else cycle
    raise InputError(f"the equations are circular: {' -> '.join(path)}") from error


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
  """Prefixes an error's message with the place."""
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
    _refuse_unknown("key", table, ("of", "value", "from", "points"), where)
    for key in ("of", "value"):
      if key not in table:
        raise InputError(f"{where}: the key {key!r} is missing")
    if isinstance(table["of"], str):
      where += f", of {excerpt(table['of'])}"
    with _named(where):
      claim = _parse_claim(table, sheet)
      if claim.of in claims:
        raise InputError(f"it repeats claim {claims[claim.of]}")
      claims[claim.of] = number
      result.append(claim)
  return tuple(result)


def _parse_claim(table: Mapping[str, Any], sheet: Worksheet) -> Claim:
  points = _finite_number("points", table.get("points", 1))
  if not 0 <= points <= 1000:
    raise InputError(f"points must be from 0 to 1000, not {points:g}")
  for key, value in table.items():
    if isinstance(value, str) or key == "points":
      continue
    hint = ""
    if key == "value" and _type_name(value) == "a number":
      hint = ', because its digits matter: put it in quotation marks, as in value = "0.8807"'
    raise InputError(f"{key} must be a string, not {_type_name(value)}{hint}")
  quantity = parse_quantity(table["of"], sheet)
  value, unit = parse_number(table["value"])
  if "from" not in table:
    return Claim(quantity, table["value"].strip(), value, unit, points)
  with _named(f"from = {excerpt(table['from'])}"):
    working = expressions.parse(table["from"], set(sheet.names), working=True)
    for inner in expressions.quantities(working):
      _check_quantity(inner, sheet, in_working=True)
  return Claim(quantity, table["value"].strip(), value, unit, points, working, table["from"])


def parse_quantity(text: str, sheet: Worksheet) -> Quantity:
  plain = text.translate({ord("′"): "'", ord("’"): "'"}).strip()  # noqa: RUF001
  match = _QUANTITY.fullmatch(plain) if len(text) <= 200 else None
  if match is None:
    raise InputError("a claim is of a node (a1), a derivative (dL/da) or an updated value (w7')")
  quantity: Quantity
  if match["of"]:
    quantity = Derivative(match["of"], match["by"])
  else:
    quantity = Updated(match["updated"]) if match["updated"] else Name(match["name"])
  _check_quantity(quantity, sheet)
  return quantity


def _check_quantity(quantity: Quantity, sheet: Worksheet, in_working: bool = False):
  """Raises InputError if a quantity does not exist."""
  names = sheet.names
  parts = [quantity.of, quantity.by] if isinstance(quantity, Derivative) else [quantity.name]
  if in_working and quantity == Name(_LEARNING_RATE) and _LEARNING_RATE not in names:
    if sheet.learning_rate is None:
      raise InputError("the worksheet has no learning_rate")
    return
  for name in parts:
    if name not in names:
      what = f"name in {spell(quantity)[:60]}:" if len(parts) > 1 else "name"
      raise unknown_name(what, name[:60], names)
  if isinstance(quantity, Updated):
    if quantity.name not in sheet.given:
      raise InputError(f"{quantity.name} is computed, not given, so no gradient step changes it")
    for key, setting in {"loss": sheet.loss, _LEARNING_RATE: sheet.learning_rate}.items():
      if setting is None:
        raise InputError(f"the worksheet has no {key}, which {spell(quantity)} needs")


def parse_number(text: str) -> tuple[Fraction, Fraction]:
  """Returns the value of a number as written, and one unit of its last digit, both exactly.

  Args:
    text: as in 0.8807, -5.57e-4, 5.57 x 10^-4, 5.57 × 10⁻⁴.

  Raises:
    InputError: if it is not a number, or is out of the range of float64.
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
    elif plain.endswith("%"):
      hint = "write 0.5 for 50%"
    elif plain[:1] in ("≈", "=", "~"):
      hint = f"leave out {plain[0]}"
    hint = hint or "write it as in 0.8807, -5.57e-4 or 5.57 x 10^-4"
    raise InputError(f"value: {excerpt(text)} is not a decimal number; {hint}")
  if len(match["digits"]) > 400:
    raise InputError(f"value: {excerpt(text)} has more than 400 digits")
  number = Decimal(f"{match['sign']}{match['digits']}e{match['e'] or match['power'] or 0}")
  last = int(number.as_tuple().exponent)
  if not math.isfinite(float(number)) or not -400 <= last <= 300:
    raise InputError(f"value: {excerpt(text)} is out of range")
  return Fraction(number), Fraction(10) ** last
