"""Reads the claims of a worksheet."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import (
  Derivative,
  Expression,
  Index,
  Name,
  Quantity,
  Shape,
  excerpt,
  spell,
  spell_index,
  write_shape,
)
from jaxdl.byhand.worksheet.fields import finite_number, named, refuse_unknown, type_name
from jaxdl.byhand.worksheet.graph import Graph
from jaxdl.byhand.worksheet.numerals import Numeral, parse_numbers
from jaxdl.byhand.worksheet.sheet import Claim, Worksheet, shift, shift_all
from jaxdl.byhand.worksheet.training import HINTS, MAX_STEPS, RATE, check_derivative
from jaxdl.errors import InputError, unknown_name

MAX_ENTRIES = 2000
_KEYS = ("of", "value", "from", "points", "step")


def parse_claims(section: list, sheet: Worksheet) -> tuple[Claim, ...]:
  """Reads all claims."""
  graph = Graph(sheet.equations, sheet.names, sheet.shapes)
  claimed: dict[tuple[Quantity, tuple[int, ...]], int] = {}
  result = []
  for number, table in enumerate(section, 1):
    where = f"claim {number}"
    if not isinstance(table, dict):
      raise InputError(f"{where} must be a table, not {type_name(table)}")
    refuse_unknown("key", table, _KEYS, where)
    for key in ("of", "value"):
      if key not in table:
        raise InputError(f"{where}: the key {key!r} is missing")
    if isinstance(table["of"], str):
      where += f", of {excerpt(table['of'])}"
    with named(where):
      claim = _parse_claim(table, sheet, graph)
      for entry in claim.entries:
        if (claim.of, entry.place) in claimed:
          raise InputError(
            f"it repeats claim {claimed[claim.of, entry.place]}: leave one of them out"
          )
        claimed[claim.of, entry.place] = number
      result.append(claim)
  if len(claimed) > MAX_ENTRIES:
    raise InputError(f"the claims have more than {MAX_ENTRIES:,} numbers")
  return tuple(result)


def _parse_claim(table: Mapping[str, Any], sheet: Worksheet, graph: Graph) -> Claim:
  points = finite_number("points", table.get("points", 1))
  if not 0 <= points <= 1000:
    raise InputError(f"points must be from 0 to 1000, not {points:g}")
  before = table.get("step", 1)
  if isinstance(before, bool) or not isinstance(before, int) or not 1 <= before <= MAX_STEPS:
    raise InputError(f"step must be an integer from 1 to {MAX_STEPS}")
  for key in ("of", "value", "from"):
    value = table.get(key, "")
    if isinstance(value, str):
      continue
    hint = ""
    if key == "value" and type_name(value) in ("a number", "a list"):
      example = '"0.8807"' if type_name(value) == "a number" else '"[0.50, 0.25]"'
      hint = f", because its digits matter: put it in quotation marks, as in value = {example}"
    raise InputError(f"{key} must be a string, not {type_name(value)}{hint}")
  quantity, index = parse_quantity(table["of"], sheet)
  quantity = shift(quantity, before - 1)
  _check_quantity(quantity, sheet, graph)
  index, shape = _normal_index(index, sheet.shape(quantity))
  entries = _parse_value(table["value"], shape, index)
  if "from" not in table:
    return Claim(quantity, index, entries, points, before - 1)
  text = table["from"]
  with named(f"from = {excerpt(text)}"):
    working = expressions.parse(text, set(_names(sheet)), working=True)
    for inner in expressions.quantities(working):
      _check_quantity(shift(inner, before - 1), sheet, graph, in_working=True)
  misfit = _misfit(working, sheet, f"{spell(quantity)}{spell_index(index)}", shape)
  working = shift_all(working, before - 1)
  text = text if before == 1 else f"{text} (in step {before})"
  return Claim(quantity, index, entries, points, before - 1, misfit, working, text)


def _names(sheet: Worksheet) -> list[str]:
  """Returns all names that a claim or a line of working may contain."""
  steps = sheet.steps
  return list(dict.fromkeys([*sheet.names, *steps.initial, *steps.rules, *steps.settings]))


def _parse_value(text: str, shape: Shape, index: Index) -> tuple[Numeral, ...]:
  written, numerals = parse_numbers(text)
  if written != shape:
    if not shape:
      raise InputError(f"value: {excerpt(text)} is an array, but one number is claimed")
    example = np.array2string(np.zeros(shape, int), separator=", ").replace("\n", "")
    example = f", as in {' '.join(example.split())}" if np.prod(shape) <= 9 else ""
    raise InputError(f"value: {excerpt(text)} must have the shape {write_shape(shape)}{example}")
  return tuple(
    Numeral(n.text, n.value, n.unit, (*(i for i in index if isinstance(i, int)), *n.place))
    for n in numerals
  )


def _normal_index(index: Index, shape: Shape) -> tuple[Index, Shape]:
  """Returns an index counted from the start, and the shape of the part that it is of."""
  found = expressions.indexed_shape(shape, index)
  return tuple(i % n for i, n in zip(index, shape, strict=False) if isinstance(i, int)), found


def _misfit(working: Expression, sheet: Worksheet, of: str, shape: Shape) -> str:
  """Returns why the shapes in a line of working do not fit, or nothing."""
  try:
    found = expressions.shapes(working, sheet.shape)[-1]
  except InputError as error:
    return str(error)
  try:
    fits = np.broadcast_shapes(found, shape) == shape
  except ValueError:
    fits = False
  return (
    "" if fits else f"its shape is {write_shape(found)}, but that of {of} is {write_shape(shape)}"
  )


def parse_quantity(text: str, sheet: Worksheet) -> tuple[Quantity, Index]:
  """Reads what a claim is of: a quantity, and an index or nothing."""
  plain = text.strip().replace("∂", "d")
  if "d" not in _names(sheet):
    plain = re.sub(r"\bd\s+(?=\w)", "d", plain)  # d z / d x
  try:
    expression = expressions.parse(plain, set(_names(sheet)), working=True)
  except InputError as error:
    raise _not_a_claim() from error
  first, *rest = expression
  indices = [item.index for item in rest if isinstance(item, expressions.Apply)]
  is_entry = len(rest) == len(indices) and all(
    item.function == "[]" for item in rest if isinstance(item, expressions.Apply)
  )
  if not isinstance(first, Name | Derivative) or not is_entry:
    raise _not_a_claim()
  index: Index = sum(indices, ())  # W[0][1] is W[0,1]
  if not all(isinstance(i, int) for i in index):
    raise InputError("a claim is of a whole array, a row or an entry: z, W[0], W[0, 1]")
  return first, index


def _not_a_claim() -> InputError:
  return InputError(
    "a claim is of a node (a1), a derivative (dL/da), an updated value (w7') or an entry of one "
    "(W[0, 1], dL/dW[0, 1])"
  )


def _check_quantity(quantity: Quantity, sheet: Worksheet, graph: Graph, in_working: bool = False):
  """Raises InputError if a quantity does not exist."""
  steps = sheet.steps
  if isinstance(quantity, Derivative):
    check_derivative(quantity, sheet, graph)
    if quantity.step and not steps.explicit:
      raise _needs_parameters(quantity)
    return
  name = quantity.name
  if in_working and name == RATE and RATE not in _names(sheet):
    raise InputError(f"the worksheet has no {RATE}; {HINTS[RATE]}")
  if name in steps.settings:
    if in_working:
      return
    raise InputError(f"{name} is a setting, not a value to be claimed")
  known = _names(sheet) if quantity.step else [*sheet.names, *steps.initial]
  if name not in known:
    if name in steps.rules:
      raise InputError(f"{name} exists after a gradient step only: write {name}'")
    raise unknown_name("name", name[:60], known)
  if quantity.step == 0:
    return
  is_data = bool(steps.examples) and name in steps.examples[0]
  if name in sheet.equations and not steps.explicit:
    raise InputError(f"{name} is computed, not given: {_needs_parameters(quantity)}")
  if quantity.step > 1 and not steps.explicit:
    raise _needs_parameters(quantity)
  if name in sheet.equations or name in steps.rules or is_data or (in_working and steps.explicit):
    return
  if steps.explicit:
    raise InputError(f"{name} is the same in every step: {spell(quantity)} is {name}")
  for key, present in {"loss": sheet.loss is not None, RATE: RATE in steps.settings}.items():
    if not present:
      raise InputError(f"the worksheet has no {key}, which {spell(quantity)} needs; {HINTS[key]}")


def _needs_parameters(quantity: Quantity) -> InputError:
  return InputError(
    f"{spell(quantity)} comes after a gradient step, so the worksheet must say what the step "
    'changes, as in parameters = ["w", "b"]'
  )
