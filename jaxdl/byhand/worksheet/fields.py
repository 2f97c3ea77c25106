"""The fields of a worksheet's TOML: their types and limits."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import MAX_AXES, MAX_SIZE, excerpt
from jaxdl.byhand.worksheet.numerals import shape_of
from jaxdl.errors import InputError, unknown_name

MAX_NAMES = 500
MAX_CLAIMS = 500


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
  """Prefixes an error's message with the place."""
  try:
    yield
  except InputError as error:
    raise InputError(f"{where}: {error}") from error


def refuse_unknown(what: str, table: Mapping[str, Any], known: tuple[str, ...], where: str):
  """Raises InputError if a table has a key that is not known."""
  for key in table:
    if key not in known:
      raise InputError(f"{where}: {unknown_name(what, key[:60], known)}")


def section(table: Mapping[str, Any], name: str, kind: type) -> Any:
  """Returns a section of the worksheet, a dict [name] or a list of tables [[name]]."""
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


def finite_number(key: str, value: object) -> float:
  """Returns a number of TOML as a float."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise InputError(f"{key} must be a number, not {type_name(value)}")
  try:
    number = float(value)
  except OverflowError:
    number = math.inf
  if not math.isfinite(number):
    raise InputError(f"{key} must be a finite number")
  return number


def array(key: str, value: object) -> np.ndarray:
  """Returns a number, or an array of TOML, as float64."""
  if not isinstance(value, list):
    return np.array(finite_number(key, value))
  shape = shape_of(value)
  if shape is None or 0 in shape:
    raise InputError(f"{key} has rows of different lengths, or none; write [[1, 2], [3, 4]]")
  if len(shape) > MAX_AXES or math.prod(shape) > MAX_SIZE:
    raise InputError(f"{key} is too large: at most {MAX_AXES} axes and {MAX_SIZE} numbers")
  numbers = np.empty(shape)
  for place in np.ndindex(*shape):
    inner: Any = value
    for i in place:
      inner = inner[i]
    numbers[place] = finite_number(f"{key}{expressions.spell_index(place)}", inner)
  return numbers


def type_name(value: object) -> str:
  """Returns what a value of TOML is called."""
  names: dict[type, str] = {str: "a string", bool: "a boolean", dict: "a table", list: "a list"}
  return "a number" if type(value) in (int, float) else names.get(type(value), "a date")


def check_name(where: str, name: str):
  """Raises InputError unless a given or a node may have this name."""
  if name in expressions.FUNCTION_NAMES:
    raise InputError(f"{where}: {name!r} is the name of a function")
  if not expressions.is_name(name):
    raise InputError(
      f"{where}: {excerpt(name)} is not a name; a name has letters, digits and underscores, "
      "begins with a letter, and is at most 60 characters long"
    )
