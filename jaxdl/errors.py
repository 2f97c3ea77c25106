"""Errors for bad input, as opposed to bugs: one clear line each."""

import difflib
from collections.abc import Iterable

_MAX_MESSAGE = 2000


class InputError(ValueError):
  """Bad input: a setting, a name, a file. The message is one line for the person who gave it.

  The command line prints the message on standard error and exits with status 2. Any other exception
  is a bug in this project and keeps its traceback.

  Messages quote names, values and messages of other libraries, so the message is shortened and
  escaped here to one line that a terminal can show.
  """

  def __init__(self, message: object = ""):
    text = str(message)
    if len(text) > _MAX_MESSAGE:
      text = f"{text[: _MAX_MESSAGE // 2]} ... {text[-_MAX_MESSAGE // 2 :]}"
    super().__init__(one_line(text))


def one_line(text: object) -> str:
  """Returns text without line breaks, and with control and unprintable characters escaped."""
  line = " ".join(str(text).split())
  if line.isprintable():
    return line
  return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def brief(error: BaseException) -> str:
  """Returns the type and the first line of an error."""
  lines = str(error).strip().splitlines()
  return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def show(value: object) -> str:
  """Returns the `repr` of a value, shortened to about 200 characters."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # an integer with thousands of digits, a deeply nested list
    return f"a huge {type(value).__name__}"
  return text if len(text) <= 200 else f"{text[:100]} ... {text[-97:]}"


def unknown_name(what: str, name: object, known: Iterable[str]) -> InputError:
  """Returns (does not raise) the error for an unknown name; it suggests the nearest known one.

  Args:
    what: what the name stands for, e.g. "initializer".
    name: the name that was given.
    known: all valid names.
  """
  known = sorted(known)
  given = name if isinstance(name, str) else show(name)
  # Comparing long text is slow and finds nothing.
  nearest = difflib.get_close_matches(given[:200], known, n=1, cutoff=0.4)
  hint = f"did you mean {nearest[0]!r}? " if nearest else ""
  return InputError(f"unknown {what} {show(name)}; {hint}known: {', '.join(known)}")


def check_integer(name: str, value: object, least: int, most: int = 2**31 - 1):
  """Raises InputError unless the setting `name` is an integer from `least` to `most`."""
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise InputError(f"{name} must be an integer >= {least}, not {show(value)}")
  if value > most:
    raise InputError(f"{name} must be an integer <= {most}, not {show(value)}")
