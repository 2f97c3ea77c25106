"""The one grammar of settings that take arguments: `name`, `name(0.5, 10)`, `name(factor=0.5)`."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxdl.errors import InputError, show, unknown_name

_SPEC = re.compile(r"(\w+)\s*(?:\(([^()]*)\))?")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Argument:
  """A number that a setting takes.

  Attributes:
    name: by which it may be given.
    valid: whether a finite number is in range.
    meaning: the range in words, after "must be".
    default: where it is not given; None: it must be given.
    is_integer: whether it is read as an int.
  """

  name: str
  valid: Callable[[float], bool]
  meaning: str
  default: float | None = None
  is_integer: bool = False


def split(kind: str, spec: object, known: Sequence[str]) -> tuple[str, list[str] | None]:
  """Returns the name of a setting and its arguments as they are written; None: no brackets.

  Args:
    kind: of the setting, for messages, e.g. "schedule".
    spec: the setting.
    known: the names that there are.

  Raises:
    InputError: the name is unknown.
  """
  match = _SPEC.fullmatch(spec.strip()) if isinstance(spec, str) else None
  if match is None or match[1] not in known:
    raise unknown_name(kind, match[1] if match else spec, known)
  if match[2] is None:
    return match[1], None
  return match[1], [text.strip() for text in match[2].split(",")] if match[2].strip() else []


def parse(
  kind: str, spec: object, known: Mapping[str, Sequence[Argument]]
) -> tuple[str, dict[str, float]]:
  """Reads a setting whose arguments are numbers.

  Args:
    kind: of the setting, for messages.
    spec: the setting.
    known: name -> the arguments it takes, in the order in which they may be given without a name.

  Returns:
    `(name, {argument: value})`, with defaults filled in.

  Raises:
    InputError: for an unknown name, too few or too many arguments, or one that is out of range.
  """
  name, given = split(kind, spec, list(known))
  arguments = known[name]
  written = _by_name(kind, spec, name, arguments, given or [])
  values = {}
  for argument in arguments:
    if argument.name in written:
      values[argument.name] = _number(kind, spec, argument, written[argument.name])
    elif argument.default is not None:
      values[argument.name] = argument.default
    else:
      raise _wrong_arguments(kind, spec, name, arguments)
  return name, values


def _by_name(
  kind: str, spec: object, name: str, arguments: Sequence[Argument], given: Sequence[str]
) -> dict[str, str]:
  """Returns argument -> text."""
  names = [argument.name for argument in arguments]
  written: dict[str, str] = {}
  by_name = False
  for place, text in enumerate(given):
    key, equals, value = (part.strip() for part in text.partition("="))
    by_name = by_name or bool(equals)
    if equals and key not in names:
      raise unknown_name(f"argument of {kind} {name!r}", key, names)
    if not equals:
      key, value = names[place] if place < len(names) and not by_name else "", text
    if not key or key in written:
      raise _wrong_arguments(kind, spec, name, arguments)
    written[key] = value
  return written


def _wrong_arguments(
  kind: str, spec: object, name: str, arguments: Sequence[Argument]
) -> InputError:
  if not arguments:
    return InputError(f"{kind} {name!r} takes no arguments, but {show(spec)} gives some")
  usage = f"{name}({', '.join(argument.name for argument in arguments)})"
  optional = [argument.name for argument in arguments if argument.default is not None]
  may = f", where {' and '.join(optional)} may be left out" if optional else ""
  return InputError(f"{kind} {show(spec)} has the wrong arguments; write {usage!r}{may}")


def _number(kind: str, spec: object, argument: Argument, written: str) -> float:
  try:
    value = float(written)
  except ValueError:
    value = math.nan
  finite = abs(value) < _FLOAT32_MAX
  # As the float32 that it becomes: 1e-60 is zero.
  rounded = float(np.float32(value)) if finite and not argument.is_integer else value
  if not finite or not argument.valid(rounded):
    meaning = argument.meaning if finite or not math.isfinite(value) else "a number of float32"
    raise InputError(f"{argument.name} of {kind} {show(spec)} must be {meaning}, not {written!r}")
  return int(value) if argument.is_integer else value
