"""Bad input from a person, as opposed to a bug: one clear line each."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
  """Bad input: a setting, a name, a file. The message is one line for the person who gave it.

  The command line prints the message on standard error and exits with status 2; anything else that
  is raised is a bug in this project and keeps its traceback.
  """


def unknown_name(what: str, name: object, known: Iterable[str]) -> InputError:
  """Returns (not raises) the error for an unknown name, with the nearest known one suggested.

  Args:
    what: what the name stands for, e.g. "initializer".
    name: the name that was given.
    known: the names there are.
  """
  known = sorted(known)
  nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
  hint = f"did you mean {nearest[0]!r}? " if nearest else ""
  return InputError(f"unknown {what} {name!r}; {hint}known: {', '.join(known)}")


def check_integer(name: str, value: object, least: int, most: int = 2**31 - 1):
  """Raises InputError unless the setting `name` is an integer from `least` to `most`."""
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise InputError(f"{name} must be an integer >= {least}, not {value!r}")
  if value > most:
    raise InputError(f"{name} must be an integer <= {most}, not {value!r}")
