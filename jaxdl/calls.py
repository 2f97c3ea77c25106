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


def as_float32(number: float) -> float:
  """Returns a number as the float32 that it becomes (1e-60 is zero); nan if it is beyond."""
  return float(np.float32(number)) if abs(number) < _FLOAT32_MAX else math.nan


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
  rounded = as_float32(value)
  finite = not math.isnan(rounded)
  if not finite or not argument.valid(value if argument.is_integer else rounded):
    meaning = argument.meaning if finite or not math.isfinite(value) else "a number of float32"
    raise InputError(f"{argument.name} of {kind} {show(spec)} must be {meaning}, not {written!r}")
  return int(value) if argument.is_integer else value


@dataclasses.dataclass(frozen=True)
class Call:
  """What a user brings: something importable with arguments, `package.module:name(width=64)`.

  It is read and compared without importing anything; only `load`, `build`, `partial` and `split`
  import. Equal calls build equal things.

  Attributes:
    target: `"package.module:name"`, where the name may have dots. A function without an importable
      name, such as a lambda, stands for itself.
    args: the arguments that are given without a name.
    kwargs: the arguments that are given by name, as pairs, sorted. Values are literals, tuples,
      calls, or objects that compare by value.
    has_brackets: whether it is written as a call; without brackets it means the object itself.
  """

  target: str | Callable
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
      # What `str` writes of a function without a name can be kept and compared, not loaded.
      call = cls(text) if _NAMELESS.search(text) else None
    if not isinstance(call, cls):
      raise InputError(
        f"{show(text)} is not of the form package.module:name or package.module:name(argument=1)"
      )
    return call

  @classmethod
  def of(cls, value: Any) -> "Call":
    """Returns the call that builds a function, a class, a partial or a flax module.

    Text is read. Of a flax module, the fields that differ from their defaults become arguments.

    Raises:
      InputError: it is none of these.
    """
    if isinstance(value, cls):
      return value
    if isinstance(value, str):
      return cls.read(value)
    if isinstance(value, functools.partial):
      args, kwargs = map(_argument, value.args), _arguments(value.keywords)
      return cls(cls.of(value.func).target, tuple(args), kwargs, True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
      return cls(cls.of(type(value)).target, (), _arguments(_changed_fields(value)), True)
    if callable(value):
      return cls(_importable_name(value) or value)
    raise InputError(f"{show(value)} is neither text nor a function, a class or a module")

  @property
  def is_text(self) -> bool:
    """Whether `read` can read it from its text, so that other processes can build it."""
    values = (*self.args, *(value for _, value in self.kwargs))
    is_named = isinstance(self.target, str) and not _NAMELESS.search(self.target)
    return is_named and all(map(_is_text, values))

  def __str__(self) -> str:
    """Returns text that identifies it: equal in every process for equal calls.

    `read` reads it back if `is_text`. A function without an importable name is written in angle
    brackets with a hash of its source, so that a run is not continued with another function of the
    same name.
    """
    target = self.target if isinstance(self.target, str) else _identify(self.target)
    inside = [_written(value) for value in self.args]
    inside += [f"{name}={_written(value)}" for name, value in self.kwargs]
    return f"{target}({', '.join(inside)})" if self.has_brackets else target

  def load(self) -> Any:
    """Imports and returns what the name stands for, without the arguments.

    Raises:
      InputError: it cannot be imported.
    """
    if not isinstance(self.target, str):
      return self.target
    if _NAMELESS.search(self.target):
      raise InputError(
        f"{self.target} has no importable name: only the program that defined it can use it"
      )
    module, _, name = self.target.partition(":")
    try:
      found = importlib.import_module(module)
      for part in name.split("."):
        found = getattr(found, part)
    except Exception as error:  # whatever the code of somebody else raises
      raise InputError(f"{self.target} cannot be imported: {one_line(error)}") from error
    return found

  def parameters(self) -> tuple[str, ...]:
    """Returns the names of all arguments that it takes by name."""
    of = inspect.signature(self._function()).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(parameter.name for parameter in of if parameter.kind in kinds)

  def given(self) -> tuple[str, ...]:
    """Returns the names of the arguments that the call gives."""
    return tuple(self._bound())

  def split(self) -> tuple["Call", dict[str, float]]:
    """Splits off the arguments that are floats, which may be traced.

    Returns:
      The call without them, and name -> float.

    Raises:
      InputError: it cannot be imported, or does not take its arguments.
    """
    bound = self._bound()
    numbers = {name: value for name, value in bound.items() if isinstance(value, float)}
    rest = {name: value for name, value in bound.items() if name not in numbers}
    return Call(self.target, (), tuple(sorted(rest.items())), bool(bound)), numbers

  def build(self, **more: Any) -> Any:
    """Returns the result of calling it, with some more arguments.

    Raises:
      InputError: something cannot be imported, or the call fails.
    """
    arguments = {name: _built(value) for name, value in self._bound().items()}
    try:
      return self._function()(**arguments, **more)
    except InputError:
      raise
    except Exception as error:  # whatever the code of somebody else raises
      raise InputError(f"{self} fails: {one_line(error)}") from error

  def partial(self) -> Callable:
    """Returns the callable with the arguments filled in.

    Raises:
      InputError: something cannot be imported, or does not take these arguments.
    """
    arguments = {name: _built(value) for name, value in self._bound().items()}
    return functools.partial(self._function(), **arguments) if arguments else self._function()

  def function(self) -> Callable:
    """Returns the function that is meant, whether it is named itself or made by a factory.

    A function with all of its arguments filled in is a factory: `optax:linear_schedule(1, 0, 10)`
    makes a schedule.

    Raises:
      InputError: as of `build`.
    """
    signature = inspect.signature(self._function())
    is_open = any(
      parameter.default is inspect.Parameter.empty and name not in self._bound()
      for name, parameter in signature.parameters.items()
      if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    )
    return self.partial() if is_open or not self.has_brackets else self.build()

  def _function(self) -> Callable:
    function = self.load()
    if not callable(function):
      raise InputError(f"{self.target} is not a function or a class")
    return function

  def _bound(self) -> dict[str, Any]:
    """Returns name -> argument, not built."""
    try:
      bound = inspect.signature(self._function()).bind_partial(*self.args, **dict(self.kwargs))
    except TypeError as error:
      raise InputError(f"{self} does not fit its signature: {error}") from error
    values: dict[str, Any] = {}
    for name, value in bound.arguments.items():
      kind = bound.signature.parameters[name].kind
      if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
        raise InputError(f"{self}: an argument of {self.target} cannot be given by name")
      values |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return values


def is_importable(spec: object) -> bool:
  """Returns whether a setting is brought by the user, and not one of the names known here."""
  if isinstance(spec, str):
    return ":" in spec.partition("(")[0] or _NAMELESS.search(spec) is not None
  return isinstance(spec, Call) or callable(spec)


def canonical(spec: Any) -> Any:
  """Returns a setting as text if it has one, else as a `Call`; other values as they are."""
  if isinstance(spec, str) or not (callable(spec) or isinstance(spec, Call)):
    return spec
  call = Call.of(spec)
  return str(call) if call.is_text else call


# What stands for a function without an importable name: where it is from, and a hash.
_NAMELESS = re.compile(r"<\S+ [0-9a-f]{12}>")
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


def one_line(error: Exception) -> str:
  """Returns an exception in one line, whatever its message has."""
  message = str(error).partition("\n----")[0]  # below, JAX explains its tracebacks
  return f"{type(error).__name__}: {' '.join(message.split())}"


def _is_text(value: Any) -> bool:
  if isinstance(value, tuple):
    return all(map(_is_text, value))
  if isinstance(value, Call):
    return value.is_text
  return value is None or type(value) in (bool, int, float, str)


def _written(value: Any) -> str:
  if isinstance(value, tuple):
    return f"({', '.join(map(_written, value))}{',' if len(value) == 1 else ''})"
  return str(value) if isinstance(value, Call) else repr(value)


def _built(value: Any) -> Any:
  """Returns the value of an argument: what it names is imported, and called if it has brackets."""
  if isinstance(value, tuple):
    return tuple(map(_built, value))
  if isinstance(value, Call):
    return value.build() if value.has_brackets else value.load()
  return value


def _argument(value: Any) -> Any:
  """Returns an argument as a `Call` has it."""
  if isinstance(value, tuple | list):
    return tuple(map(_argument, value))
  if callable(value) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
    return Call.of(value)
  try:
    hash(value)
  except TypeError as error:
    raise InputError(f"an argument must compare by value, unlike {show(value)}") from error
  return value


def _arguments(named: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
  return tuple(sorted((name, _argument(value)) for name, value in named.items()))


def _changed_fields(module: Any) -> dict[str, Any]:
  """Returns the fields of a dataclass, as flax modules are, that do not have their defaults."""
  changed = {}
  for field in dataclasses.fields(module):
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    value = getattr(module, field.name)
    is_default = value is default or (type(value) is type(default) and bool(value == default))
    # Flax's own fields are not arguments of the user's.
    if field.init and field.name not in ("parent", "name") and not is_default:
      changed[field.name] = value
  return changed


def _importable_name(value: Any) -> str | None:
  """Returns the shortest importable name: `optax:adam`, defined in `optax._src.alias`."""
  module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
  if not module or not name or module == "__main__":
    return None
  parts = module.split(".")
  for package in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
    found: Any = sys.modules.get(package)
    for part in name.split("."):
      found = getattr(found, part, None)
    if found is value:
      return f"{package}:{name}"
  return None


def _identify(function: Callable) -> str:
  """Returns the name of a function that cannot be imported, with a hash of what it does."""
  name = getattr(function, "__qualname__", type(function).__qualname__)
  digest = hashlib.sha256(_fingerprint(function).encode()).hexdigest()[:12]
  return f"<{getattr(function, '__module__', '?')}:{name.replace(' ', '_')} {digest}>"


def _fingerprint(function: Any) -> str:
  """Returns the source of a function or a class, and the values that it takes from around it."""
  try:
    parts = [inspect.getsource(function)]
  except (OSError, TypeError):  # typed into an interpreter, or compiled
    parts = []
  code = getattr(function, "__code__", None)
  if code is not None:  # two lambdas may share a line, and one may be made for several values
    cells = [_content(cell) for cell in function.__closure__ or ()]
    values = [*code.co_consts, *(function.__defaults__ or ()), *cells]
    parts += [code.co_code.hex(), *code.co_names]
    parts += [repr(v) if _is_text(v) else _inner(v) for v in values]
  elif isinstance(function, type):
    parts += [_fingerprint(of) for of in vars(function).values() if inspect.isfunction(of)]
  return "\n".join(parts)


def _inner(value: Any) -> str:
  return _fingerprint(value) if inspect.isfunction(value) else type(value).__name__


def _content(cell: Any) -> Any:
  try:
    return cell.cell_contents
  except ValueError:  # not set yet
    return None
