"""How a setting of an arm is declared: once, with its default, its check, and how it is compiled.

Each function returns a dataclass field. `jaxdl.arm` derives the static and the traced settings of a
compiled program from these declarations.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdl.calls import Call, as_float32, is_importable
from jaxdl.errors import InputError, check_integer, show, unknown_name

# `check(name, value)` raises InputError if the value is not one for the setting of that name.
Check = Callable[[str, Any], object]


def static(default: Any, check: Check) -> Any:
  """Declares a setting that is compiled in: arms that differ in it have different programs."""
  return dataclasses.field(default=default, metadata={"kind": "static", "check": check})


def traced(
  default: Any,
  check: Check,
  trace: Callable[[Any], Any] = np.float32,
  *,
  used: Callable[[Any], bool] | None = None,
) -> Any:
  """Declares a setting that is an array of the program.

  Args:
    default: the arm's default.
    check: the value's check.
    trace: turns the value into the array, `[]`.
    used: `arm -> whether it uses the setting`; then the setting is compiled in only if some arm of
      the program uses it. None: always.
  """
  metadata = {"kind": "traced", "check": check, "trace": trace, "used": used}
  return dataclasses.field(default=default, metadata=metadata)


def derived(
  default: Any,
  check: Check,
  trace: Callable[[Any, Any], Any],
  *,
  used: Callable[[Any], bool] | None = None,
) -> Any:
  """Declares a traced setting whose array depends on other settings of the arm as well.

  Args:
    default: the arm's default.
    check: the value's check.
    trace: `(arm, jaxdl.recipe.Form of the dataset) -> array`.
    used: as of `traced`.
  """
  metadata = {"kind": "derived", "check": check, "trace": trace, "used": used}
  return dataclasses.field(default=default, metadata=metadata)


def part(default: Any, check: Check) -> Any:
  """Declares a setting that is traced as part of a `derived` one."""
  return dataclasses.field(default=default, metadata={"kind": "part", "check": check})


# value -> `(name or call, {argument: number})`; raises InputError.
Parse = Callable[[Any], tuple[Any, dict[str, float]]]


def choice(default: str, parse: Parse) -> Any:
  """Declares a setting whose kind is chosen by a traced index among the kinds in the program.

  Args:
    default: the arm's default.
    parse: value -> `(kind, {argument: number})`, of which the numbers are traced.
  """
  return _brought("choice", default, parse)


def call(default: str, parse: Parse) -> Any:
  """Declares a setting whose name is compiled in and whose numbers are traced.

  Args:
    default: the arm's default.
    parse: value -> `(name, {argument: number})`.
  """
  return _brought("call", default, parse)


def _brought(kind: str, default: str, parse: Parse) -> Any:
  """Declares a setting that is a name known here, or a call of the user's."""

  def check(_, value):
    # Nothing of the user's is imported before it is used.
    _ = Call.of(value) if is_importable(value) else parse(value)

  metadata = {"kind": kind, "check": check, "parse": parse}
  return dataclasses.field(default=default, metadata=metadata)


def plain(value: Any) -> Any:
  """Returns NumPy's numbers as Python's, one as one and an array as a list, all else as it is."""
  return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def number(range_text: str, in_range: Callable[[float], bool], optional: bool = False) -> Check:
  """Returns the check that a value is a finite number in a range; `optional` allows None too."""

  def check(name, value):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    rounded = as_float32(value) if is_number else math.nan
    if not math.isnan(rounded) and in_range(rounded):
      return
    if not (optional and value is None):
      raise InputError(f"{name} must be a finite number {range_text}, not {show(value)}")

  return check


def integer(least: int, most: int = 2**31 - 1, optional: bool = False) -> Check:
  """Returns the check that a value is an integer in a range; `optional` allows None too."""

  def check(name, value):
    if not (optional and value is None):
      check_integer(name, value, least, most)

  return check


def one_of(known: Sequence[str]) -> Check:
  """Returns the check that a value is one of several names."""

  def check(name, value):
    if value not in known:
      raise unknown_name(name, value, known)

  return check


def flag(name: str, value: Any):
  """Checks that a value is True or False."""
  if not isinstance(value, bool):
    raise InputError(f"{name} must be True or False, not {show(value)}")


def checked_together(name: str, value: Any):
  """Checks nothing: the value is checked together with others."""
