"""Settings that take arguments: names known here, and whatever a user brings by importable name.

`parse` reads `name`, `name(0.5, 10)`, `name(factor=0.5)`, where the name is one of a few. `Call`
reads `package.module:name(width=64)`.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class Call:
  """Something importable, by name, with arguments: `package.module:name(width=64)`.

  It is read and compared without importing anything; only `build` and its relatives import. Equal
  calls build equal things.

  Attributes:
    target: `"package.module:name"`; the name may have dots.
    args: the arguments that are given without a name.
    kwargs: the arguments that are given by name, as pairs, sorted. Values are literals, tuples of
      them, or calls.
    has_brackets: whether it is written as a call; without brackets it means the object itself.
  """

  target: str
  args: tuple[Any, ...] = ()
  kwargs: tuple[tuple[str, Any], ...] = ()
  has_brackets: bool = False

  @classmethod
  def read(cls, text: str) -> "Call":
    """Reads `package.module:name` or `package.module:name(1, a=2.5, b=package.module:other)`.

    Raises:
      InputError: the text is not of that form.
    """
    try:
      # Importable names become subscripts `_["package.module:name"]`, which Python can parse.
      marked = _IMPORTABLE.sub(lambda m: f'_["{m[1]}"]' if m[1] else m[0], text)
      call = _evaluate(ast.parse(marked.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
      call = None
    if not isinstance(call, cls):
      raise InputError(
        f"{show(text)} is not of the form package.module:name or package.module:name(argument=1)"
      )
    return call

  def __str__(self) -> str:
    """Returns the text that `read` reads as this call."""
    inside = [_written(value) for value in self.args]
    inside += [f"{name}={_written(value)}" for name, value in self.kwargs]
    return f"{self.target}({', '.join(inside)})" if self.has_brackets else self.target

  def load(self) -> Any:
    """Imports and returns what the name stands for, without the arguments.

    Raises:
      InputError: it cannot be imported.
    """
    module, _, name = self.target.partition(":")
    try:
      found = importlib.import_module(module)
      for part in name.split("."):
        found = getattr(found, part)
    except Exception as error:  # whatever the code of somebody else raises
      raise InputError(f"{self.target} cannot be imported: {_one_line(error)}") from error
    return found

  def arguments(self) -> dict[str, Any]:
    """Returns the arguments by name, what they name imported.

    Raises:
      InputError: something cannot be imported, or does not take these arguments.
    """
    function = self.load()
    if not callable(function):
      raise InputError(f"{self.target} is not a function or a class")
    kwargs = {name: _build(value) for name, value in self.kwargs}
    try:
      bound = inspect.signature(function).bind_partial(*map(_build, self.args), **kwargs)
    except TypeError as error:
      raise InputError(f"{self} does not fit its signature: {error}") from error
    values: dict[str, Any] = {}
    for name, value in bound.arguments.items():
      kind = bound.signature.parameters[name].kind
      if kind is inspect.Parameter.VAR_POSITIONAL:
        raise InputError(f"{self}: give its arguments by name")
      values |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return values

  def build(self, **more: Any) -> Any:
    """Returns the result of calling it, with some more arguments.

    Raises:
      InputError: something cannot be imported, or the call fails.
    """
    arguments = self.arguments()
    try:
      return self.load()(**arguments, **more)
    except InputError:
      raise
    except Exception as error:  # whatever the code of somebody else raises
      raise InputError(f"{self} fails: {_one_line(error)}") from error

  def partial(self) -> Callable:
    """Returns the callable with the arguments filled in."""
    arguments = self.arguments()
    return functools.partial(self.load(), **arguments) if arguments else self.load()


def is_importable(spec: object) -> bool:
  """Returns whether a setting names something to import, and not one of the names known here."""
  return isinstance(spec, Call) or (isinstance(spec, str) and ":" in spec.partition("(")[0])


# A quoted string, or an importable name; only the latter is a group.
_IMPORTABLE = re.compile(
  r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|([A-Za-z_][\w.]*:[A-Za-z_][\w.]*)"""
)


def _evaluate(node: ast.expr) -> Any:
  """Returns the value of an expression of literals and importable names; ValueError otherwise."""
  match node:
    case ast.Subscript(value=ast.Name(id="_"), slice=ast.Constant(value=str(target))):
      return Call(target)
    case ast.Call(func=ast.Subscript() as function):
      kwargs = {keyword.arg or "**": _evaluate(keyword.value) for keyword in node.keywords}
      if "**" in kwargs or len(kwargs) < len(node.keywords):
        raise ValueError("an argument is given twice, or by **")
      args = tuple(map(_evaluate, node.args))
      return Call(_evaluate(function).target, args, tuple(sorted(kwargs.items())), True)
    case ast.Tuple() | ast.List():
      return tuple(map(_evaluate, node.elts))
    case _:
      value = ast.literal_eval(node)
      hash(value)  # TypeError for a dict or a set
      return value


def _one_line(error: Exception) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _written(value: Any) -> str:
  if isinstance(value, tuple):
    return f"({', '.join(map(_written, value))}{',' if len(value) == 1 else ''})"
  return str(value) if isinstance(value, Call) else repr(value)


def _build(value: Any) -> Any:
  """Returns the value of an argument: what it names is imported, and called if it has brackets."""
  if isinstance(value, tuple):
    return tuple(map(_build, value))
  if isinstance(value, Call):
    return value.build() if value.has_brackets else value.load()
  return value


def to_call(value: Any) -> Call | None:
  """Returns the call that builds a function, class, partial or flax module; None if there is none.

  There is none for what has no importable name: a lambda, a function within a function or in
  `__main__`, a module with a field that is neither a literal nor importable.
  """
  if isinstance(value, functools.partial):
    inner = to_call(value.func)
    args, kwargs = [_argument(v) for v in value.args], _arguments(value.keywords)
    if inner is None or inner.has_brackets or kwargs is None or _INEXPRESSIBLE in args:
      return None
    return Call(inner.target, tuple(args), kwargs, True)
  if _is_module(value):
    inner = to_call(type(value))
    kwargs = _arguments(_changed_fields(value))
    return None if inner is None or kwargs is None else Call(inner.target, (), kwargs, True)
  module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
  if not module or not name or module == "__main__" or not callable(value):
    return None
  # The shortest name: `optax:adam`, although it is defined in `optax._src.alias`.
  parts = module.split(".")
  for package in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
    found: Any = sys.modules.get(package)
    for part in name.split("."):
      found = getattr(found, part, None)
    if found is value:
      return Call(f"{package}:{name}")
  return None


def describe(value: Any) -> str:
  """Returns text that identifies what a user brings: equal in every process for equal things.

  What `to_call` can express is written as that call. A function without an importable name is
  described with a hash of its source, so that a run is not continued with another function of the
  same name; what is described so is in angle brackets.
  """
  call = value if isinstance(value, Call) else to_call(value)
  if call is not None:
    return str(call)
  if isinstance(value, functools.partial):
    named = " ".join(f"{name}={describe(of)}" for name, of in sorted(value.keywords.items()))
    return f"<{' '.join(map(describe, (value.func, *value.args)))} {named}>"
  if isinstance(value, tuple):
    return f"<{' '.join(map(describe, value))}>"
  if _is_module(value):
    fields = sorted(_changed_fields(value).items())
    return f"<{' '.join([describe(type(value)), *(f'{k}={describe(v)}' for k, v in fields)])}>"
  return f"<{_name(value)} {_source_hash(value)}>" if callable(value) else repr(value)


def _name(function: Callable) -> str:
  name = getattr(function, "__qualname__", type(function).__qualname__)
  return f"{getattr(function, '__module__', '?')}:{name}"


def _source_hash(function: Callable) -> str:
  try:
    source = inspect.getsource(function)
  except (OSError, TypeError):  # typed into an interpreter, or compiled
    code = getattr(function, "__code__", None)
    source = "" if code is None else f"{code.co_code!r}{code.co_consts!r}{code.co_names!r}"
  return hashlib.sha256(source.encode()).hexdigest()[:12]


def _is_module(value: Any) -> bool:
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _changed_fields(module: Any) -> dict[str, Any]:
  """Returns the fields of a dataclass (flax modules are) that do not have their defaults."""
  changed = {}
  for field in dataclasses.fields(module):
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    value = getattr(module, field.name)
    # Flax's own fields are not arguments of the user's.
    if field.init and field.name not in ("parent", "name") and not _equal(value, default):
      changed[field.name] = value
  return changed


def _equal(a: Any, b: Any) -> bool:
  return a is b or (type(a) is type(b) and bool(a == b))


_INEXPRESSIBLE = object()


def _argument(value: Any) -> Any:
  """Returns an argument as a `Call` has it; `_INEXPRESSIBLE` if it cannot be written."""
  if isinstance(value, tuple | list):
    items = tuple(map(_argument, value))
    return _INEXPRESSIBLE if _INEXPRESSIBLE in items else items
  if value is None or isinstance(value, bool | int | float | str):
    return value
  call = to_call(value)
  return _INEXPRESSIBLE if call is None else call


def _arguments(named: Mapping[str, Any]) -> tuple[tuple[str, Any], ...] | None:
  """Returns named arguments as a `Call` has them; None if one cannot be written."""
  values = {name: _argument(value) for name, value in named.items()}
  return None if _INEXPRESSIBLE in values.values() else tuple(sorted(values.items()))
