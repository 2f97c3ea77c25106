"""Numbers as people write them: the value, and one unit of the last digit, both exactly."""

import dataclasses
import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np

from jaxdl.byhand.expressions import MAX_AXES, MAX_SIZE, Shape, excerpt
from jaxdl.errors import InputError

_NUMBER = re.compile(
  r"(?P<sign>[+-]?)\s*(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)"
  r"(?:[eE](?P<e>[+-]?[0-9]{1,4})"
  r"|\s*[x*]\s*10\s*(?:\^|\*\*)\s*(?P<open>[({]?)\s*(?P<power>[+-]?[0-9]{1,4})\s*[)}]?)?"
)
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "x", "·": "x", "X": "x"})  # noqa: RUF001
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_LONGEST = 500


@dataclasses.dataclass(frozen=True)
class Numeral:
  """A number as written.

  Attributes:
    text: as written.
    value: the number that the text means.
    unit: one unit of the last digit.
    place: of an entry in its array; empty for a scalar.
  """

  text: str
  value: Fraction
  unit: Fraction
  place: tuple[int, ...] = ()


def parse_number(text: str) -> tuple[Fraction, Fraction]:
  """Returns the value of a number as written, and one unit of its last digit, both exactly.

  Args:
    text: as in 0.8807, -5.57e-4, 5.57 x 10^-4, 5.57 × 10⁻⁴.

  Raises:
    InputError: if it is not a number, or is out of the range of float64.
  """  # noqa: RUF002
  if len(text) > _LONGEST:  # before it is matched, which takes time
    raise InputError(f"value: {excerpt(text)} is longer than any number")
  plain = text.strip().translate(_SPELLINGS)
  plain = re.sub("10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)$", lambda m: f"10^{m[1].translate(_SUPERSCRIPTS)}", plain)
  match = _NUMBER.fullmatch(plain)
  if match is None:
    raise InputError(f"value: {excerpt(text)} is not a decimal number; {_hint(plain)}")
  if len(match["digits"]) > 400:
    raise InputError(f"value: {excerpt(text)} has more than 400 digits")
  number = Decimal(f"{match['sign']}{match['digits']}e{match['e'] or match['power'] or 0}")
  last = int(number.as_tuple().exponent)
  if not math.isfinite(float(number)) or not -400 <= last <= 300:
    raise InputError(f"value: {excerpt(text)} is out of range")
  return Fraction(number), Fraction(10) ** last


def _hint(plain: str) -> str:
  """Returns what to write instead of a text that is no number."""
  if re.fullmatch(r"[+-]?[0-9.\s]+/[0-9.\s]+", plain):
    return "a fraction has no last digit: write it as it was rounded, as in 0.333"
  if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", plain):
    return "write a point, not a comma"
  if re.fullmatch(r"[+-]?[0-9]{1,3}( [0-9]{3})+(\.[0-9]*)?", plain):
    return f"write {plain.replace(' ', '')}, without spaces"
  if plain.endswith("%"):
    return "write 0.5 for 50%"
  if re.fullmatch(r"[+-]?[0-9.]+[\s;|]+[-+0-9.;|\s]+", plain):
    return "separate the numbers by commas and the rows by brackets: [[1, 2], [3, 4]]"
  if plain[:1] in ("≈", "=", "~"):
    return f"leave out {plain[0]}"
  return "write it as in 0.8807, -5.57e-4 or 5.57 x 10^-4"


def parse_numbers(text: str) -> tuple[Shape, list[Numeral]]:
  """Returns the shape and the entries of a number or an array as written.

  Args:
    text: as in 0.8807, [0.1, -0.2], [[1, 2], [3, 4]].

  Raises:
    InputError: if it is neither, or if its rows have different lengths.
  """
  if not text.strip().startswith("["):
    return (), [Numeral(text.strip(), *parse_number(text))]
  parts = re.findall(r"[\[\]]|,|[^\[\],]+", text)
  stack: list[list] = [[]]
  after_value = False  # whether a comma or a closing bracket has to follow
  for part in map(str.strip, parts):
    if part == "[" and not after_value and len(stack) <= MAX_AXES:
      stack.append([])
    elif part == "]" and len(stack) > 1 and (after_value or not stack[-1]):
      inner = stack.pop()
      stack[-1].append(inner)
      after_value = True
    elif part == "," and after_value and len(stack) > 1:
      after_value = False
    elif part and part not in "[]," and not after_value and len(stack) > 1:
      stack[-1].append(part)
      after_value = True
    elif part:
      raise _no_array(text)
  if len(stack) != 1 or len(stack[0]) != 1:
    raise _no_array(text)
  nested = stack[0][0]
  shape = shape_of(nested)
  if shape is None or 0 in shape:
    raise InputError(f"value: {excerpt(text)} has rows of different lengths, or none")
  if math.prod(shape) > MAX_SIZE:
    raise InputError(f"value: {excerpt(text)} has more than {MAX_SIZE} numbers")
  entries = []
  for place in np.ndindex(*shape):
    entry = nested
    for i in place:
      entry = entry[i]
    entries.append(Numeral(entry, *parse_number(entry), place))
  return shape, entries


def _no_array(text: str) -> InputError:
  return InputError(
    f"value: {excerpt(text)} is not an array; write it as in [0.1, -0.2] or [[1, 2], [3, 4]]"
  )


def shape_of(nested: object) -> Shape | None:
  """Returns the shape of nested lists; None if they are ragged."""
  if not isinstance(nested, list):
    return ()
  inner = {shape_of(item) for item in nested}
  if len(inner) != 1:
    return None if nested else (0,)
  (shape,) = inner
  return None if shape is None else (len(nested), *shape)
