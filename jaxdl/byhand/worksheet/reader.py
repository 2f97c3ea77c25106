"""Reads a worksheet (TOML): given values, equations, gradient steps and claims."""

import dataclasses
import graphlib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Expression, excerpt
from jaxdl.byhand.worksheet import claims, training
from jaxdl.byhand.worksheet.fields import (
  array,
  check_name,
  named,
  refuse_unknown,
  section,
  type_name,
)
from jaxdl.byhand.worksheet.graph import inputs_of
from jaxdl.byhand.worksheet.sheet import Worksheet
from jaxdl.errors import InputError, unknown_name

MAX_CHARACTERS = 200_000
MAX_LINE = 4000
# Terms of all equations, where 20 numbers in arrays count as another term; and the same for every
# gradient step. Together with the limit on derivatives, they keep the worst worksheet below a
# minute. A 2-3-1 network has 90 terms.
MAX_TERMS = 5000
MAX_TERMS_OF_STEPS = 20_000
_NUMBERS_PER_TERM = 20

# What is often written for a value where TOML has none.
_LINE_HINTS = {
  r"[+-]?[0-9.]+\s*%": "; write 0.5 for 50%",
  r"[+-]?[0-9]+,[0-9]": "; write a point, not a comma",
  r"[+-]?\.[0-9]": "; write 0.5 for .5",
  r"[+-]?[0-9.]+\s*/\s*[0-9]": "; write a fraction as a decimal number, as in 0.3333333333",
  r"[+-]?[0-9]+\.\s*(#|$)": "; write 2.0 for 2.",
  r"≈": "; write = and the value, without ≈",
  r"[−–]": "; write the minus sign as -",  # noqa: RUF001
  r"\[": "; separate the numbers of an array by commas and close every bracket: [[1, 2], [3, 4]]",
  r"[\w(+-]": "; a formula is put in quotation marks, a number is not",
}


def parse(path_or_text: str | os.PathLike) -> Worksheet:
  """Reads and validates a worksheet; see `check`."""
  table = _load(_read(path_or_text))
  known = ("title", *training.KEYS, "given", "equations", "claims")
  for key, value in table.items():
    if key not in known and "given" not in table and not isinstance(value, dict):
      raise InputError(f"the section [given] is missing: write [given] above {excerpt(key)}")
  refuse_unknown("key", table, known, "worksheet")
  title = table.get("title", "worksheet")
  if not isinstance(title, str):
    raise InputError('title must be a string, as in title = "A neuron"')
  given = {
    name: array(f"given.{name}", v) for name, v in _given(section(table, "given", dict)).items()
  }
  examples = training.parse_examples(table, given)
  given |= examples[0] if examples else {}
  formulas = section(table, "equations", dict)
  equations = _parse_equations(formulas, given)
  shapes = {name: np.shape(value) for name, value in given.items()}
  num_terms = 0
  for name, equation in equations.items():
    with named(f"equations.{name} = {excerpt(formulas[name])}"):
      found = expressions.shapes(equation, lambda q: shapes[expressions.spell(q)])
    shapes[name] = found[-1]
    num_terms += len(equation) + sum(map(math.prod, found)) // _NUMBERS_PER_TERM
  if num_terms > MAX_TERMS:
    raise InputError(f"the equations are too long: more than {MAX_TERMS:,} terms in all")
  sheet = Worksheet(title, given, equations, formulas, shapes)
  sheet = training.add_steps(table, sheet, examples)
  sheet = dataclasses.replace(
    sheet, claims=claims.parse_claims(section(table, "claims", list), sheet)
  )
  sheet = training.count_steps(sheet)
  if num_terms * (sheet.num_steps + 1) > MAX_TERMS_OF_STEPS:
    raise InputError(
      f"the equations are too long for {sheet.num_steps} gradient steps: more than "
      f"{MAX_TERMS_OF_STEPS:,} terms in all"
    )
  return sheet


# --- The file ---


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
  if "≈" in line:
    return _LINE_HINTS["≈"]
  if name and not name.isascii() and name[0] not in "\"'":
    return f'; put a name with such letters in quotation marks: "{name[:20]}" = ...'
  for pattern, hint in _LINE_HINTS.items():
    if re.match(pattern, value):
      return hint
  return ""


# --- Given values and equations ---


def _given(table: Mapping[str, Any]) -> Mapping[str, Any]:
  for name in table:
    check_name("given", name)
  return table


def _parse_equations(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Expression]:
  """Returns the equations, each after those that it depends on."""
  names = {*given, *table}
  equations: dict[str, Expression] = {}
  for name, text in table.items():
    check_name("equations", name)
    if name in given:
      raise InputError(f"{name} is defined twice, as given and in [equations]")
    if not isinstance(text, str):
      raise InputError(
        f"equations.{name} must be a string, not {type_name(text)}: put it in quotation marks"
      )
    with named(f"equations.{name} = {excerpt(text)}"):
      equations[name] = expressions.parse(text, names)
  if sum(map(len, equations.values())) > MAX_TERMS:
    raise InputError(f"the equations are too long: more than {MAX_TERMS:,} terms in all")
  known = [*given, *equations]
  for name, equation in equations.items():
    for inner in inputs_of(equation):
      if inner not in known:
        with named(f"equations.{name} = {excerpt(table[name])}"):
          raise unknown_name("name", inner[:60], known)
  graph = {name: [n for n in inputs_of(e) if n in equations] for name, e in equations.items()}
  try:
    return {name: equations[name] for name in graphlib.TopologicalSorter(graph).static_order()}
  except graphlib.CycleError as error:
    cycle = error.args[1][::-1]
    path = [*cycle[:5], "...", *cycle[-3:]] if len(cycle) > 12 else cycle
    raise InputError(f"the equations are circular: {' -> '.join(path)}") from error
