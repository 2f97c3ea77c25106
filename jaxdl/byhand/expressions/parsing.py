"""Parses formulas by this grammar, never as Python.

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/" | "@") signed }
    signed  = ("-" | "+") signed | power
    power   = part [ "**" signed ]
    part    = atom { ".T" | "[" index { "," index } "]" }
    atom    = number | name | function "(" sum { "," sum } { "," option } ")"
            | "(" sum ")" | "[" sum { "," sum } "]"
    index   = integer | [ integer ] ":" [ integer ] | "None"
    option  = [ name "=" ] integer

so that -x**2 is -(x**2) and 2**3**2 is 2**(3**2), as in mathematics. The names e and pi are
constants unless the worksheet defines them.
"""

import math
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from jaxdl.byhand.expressions import operations
from jaxdl.byhand.expressions.operation import MAX_SIZE
from jaxdl.byhand.expressions.syntax import (
  CONSTANTS,
  Apply,
  Derivative,
  Expression,
  Index,
  Name,
  Number,
)
from jaxdl.errors import InputError, unknown_name

MAX_LENGTH = 2000
MAX_DEPTH = 60

# What people type, or word processors substitute, for the characters of a formula.
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "′": "'", "’": "'", "∂": "d"})  # noqa: RUF001
_OPTIONS = ("axis", "columns", "keepdims", "size", "stride", "width")
_TOKEN = re.compile(
  r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
  rf"|(?P<option>(?:{'|'.join(_OPTIONS)})\s*=)"
  r"|(?P<name>[^\W\d]\w*(?:'+[0-9]*)?)"
  r"|(?P<symbol>\*\*|\.T(?!\w)|[-+*/@(),\[\]:])"
)
_HINTS = {
  "^T": "; the transpose of W is written W.T",
  "^": "; a power is written **",
  ".": "; functions are written without a point: exp(x), sum(X), but the transpose is W.T",
  "∑": "; a sum is written sum(x)",
  ";": "; the parts of a list are separated by commas: [[1, 2], [3, 4]]",
  "%": "; write 0.5 for 50%",
  "=": "; write the right-hand side only",
  "≈": "; write the right-hand side only",
  "√": "; a root is written sqrt(x)",
  "|": "; an absolute value is written abs(x)",
  ">": "; a condition is written step(x), which is 1 for x > 0, or max(x, 0)",
  "<": "; a condition is written step(-x), which is 1 for x < 0, or min(x, 0)",
  **dict.fromkeys("⁰¹²³⁴⁵⁶⁷⁸⁹", "; a power is written **"),
  "⊙": "; the elementwise product is written *",
  "ᵀ": "; the transpose of W is written W.T",
}


# What functions are called elsewhere.
_OTHER_NAMES = {
  "dot": "@, as in W @ x",
  "matmul": "@, as in W @ x",
  "transpose": "W.T",
  "maximum": "max",
  "minimum": "min",
  "average": "mean",
  "concatenate": "concat(a, b)",
  "convolve": "conv(X, K)",
  "square": "x**2",
  "pow": "x**2",
  "power": "x**2",
  "sign": "step(x) - step(-x)",
  "\u03c3": "sigmoid",
}


def is_name(text: str) -> bool:
  """Returns whether a node or a given may have this name."""
  return (
    re.fullmatch(r"[^\W\d]\w{0,59}", text) is not None and text not in operations.FUNCTION_NAMES
  )


def excerpt(text: object) -> str:
  """Returns text, quoted and no longer than an error message can bear."""
  text = str(text)
  return repr(text if len(text) <= 60 else f"{text[:57]}...")


def parse(text: str, names: Collection[str] = (), working: bool = False) -> Expression:
  """Parses a formula. Names are not looked up.

  Args:
    text: the formula.
    names: of the worksheet. They decide whether e is a constant and whether da/db is a derivative.
    working: whether this is a line of working rather than an equation. In a line of working, w' is
      a value after a gradient step, and dU/dV is a derivative if U and V are names, or if dU is not
      one.

  Raises:
    InputError: if it is not a formula, or is too long or too deep.
  """
  if len(text) > MAX_LENGTH:
    raise InputError(f"the formula is too long: {len(text)} characters, more than {MAX_LENGTH}")
  return _Parser(text, names, working).parse()


def split_primes(text: str) -> tuple[str, int]:
  """Returns a name without its primes, and how many gradient steps they stand for."""
  name, quote, number = text.partition("'")
  rest = number.lstrip("'")
  step = len(quote) + len(number) - len(rest)
  if not rest:
    return name, step
  if step != 1 or len(rest) > 4:
    raise InputError(
      f"write {name}'8 for the value after eight gradient steps, not {excerpt(text)}"
    )
  return name, int(rest)


class _Token(NamedTuple):
  kind: str  # "number", "option", "name", "symbol", "end"
  text: str
  place: int  # from 1


def _tokens(text: str) -> Iterable[_Token]:
  text = text.translate(_SPELLINGS)
  place = 0
  while True:
    while place < len(text) and text[place].isspace():
      place += 1
    if place == len(text):
      yield _Token("end", "", place + 1)
      return
    match = _TOKEN.match(text, place)
    raised = None if match is None else re.search("[ᵀ⁰¹²³⁴⁵⁶⁷⁸⁹]", match[0])
    if match is None or raised is not None:
      place += raised.start() if raised is not None else 0
      hint = _HINTS.get(text[place : place + 2], _HINTS.get(text[place], ""))
      raise InputError(f"unexpected character {text[place]!r} at position {place + 1}{hint}")
    yield _Token(str(match.lastgroup), match[0], place + 1)
    place = match.end()


class _Parser:
  """A method per rule of the grammar; each appends what it has read to `_output`."""

  def __init__(self, text: str, names: Collection[str], working: bool):
    self._names = names
    self._working = working
    self._tokens = list(_tokens(text))
    self._index = 0
    self._depth = 0
    self._output: list = []

  def parse(self) -> Expression:
    self._sum()
    if self._peek().kind != "end":
      before = self._tokens[self._index - 1].text
      is_function = before in operations.FUNCTIONS
      call = f" (or parentheses, as in {before}(x))" if is_function else ""
      raise self._unexpected(f"an operator{call}")
    return tuple(self._output)

  def _peek(self, ahead: int = 0) -> _Token:
    return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

  def _accept(self, *symbols: str) -> str | None:
    """Consumes and returns the next token if it is one of these symbols."""
    token = self._peek()
    if token.kind != "symbol" or token.text not in symbols:
      return None
    self._index += 1
    return token.text

  def _expect(self, symbol: str):
    if self._accept(symbol) is None:
      raise self._unexpected(repr(symbol))

  def _unexpected(self, wanted: str) -> InputError:
    token = self._peek()
    there = f"{excerpt(token.text)} at position {token.place}" if token.text else "the end"
    return InputError(f"expected {wanted}, not {there}")

  def _sum(self):
    self._product()
    while symbol := self._accept("+", "-"):
      self._product()
      self._output.append(Apply(symbol, 2))

  def _product(self):
    self._signed()
    while symbol := self._accept("*", "/", "@"):
      self._signed()
      self._output.append(Apply(symbol, 2))

  def _signed(self):
    self._depth += 1  # all recursion passes through this rule
    if self._depth > MAX_DEPTH:
      raise InputError(f"the formula is too deep: more than {MAX_DEPTH} levels")
    symbol = self._accept("-", "+")
    if symbol is None:
      self._power()
    else:
      self._signed()
      if symbol == "-":
        self._output.append(Apply("negative", 1))
    self._depth -= 1

  def _power(self):
    self._part()
    if self._accept("**"):
      self._signed()
      self._output.append(Apply("**", 2))

  def _part(self):
    self._atom()
    while symbol := self._accept(".T", "["):
      index = () if symbol == ".T" else self._index_rest()
      self._output.append(Apply("T" if symbol == ".T" else "[]", 1, index=index))

  def _atom(self):
    token = self._peek()
    if token.kind == "number":
      self._number(token)
    elif token.kind == "name":
      self._index += 1
      if self._accept("("):
        self._call(token)
      else:
        self._output.append(self._quantity(token))
    elif self._accept("("):
      self._sum()
      self._expect(")")
    elif self._accept("["):
      self._list()
    else:
      raise self._unexpected("a number, a name or '('")

  def _number(self, token: _Token):
    self._index += 1
    value = float(token.text)
    if not math.isfinite(value):
      raise InputError(f"the number {excerpt(token.text)} is too large")
    if self._peek().kind == "name":
      name = self._peek().text
      raise self._unexpected(f"an operator (such as {excerpt(f'{token.text}*{name}')})")
    self._output.append(Number(value))

  def _list(self):
    num_parts = 1
    self._sum()
    while self._accept(","):
      self._sum()
      num_parts += 1
    self._expect("]")
    if num_parts > MAX_SIZE:
      raise InputError(f"a list has {num_parts} parts, more than {MAX_SIZE}")
    self._output.append(Apply("list", num_parts))

  def _index_rest(self) -> Index:
    """Reads an index after its opening bracket."""
    index: list = []
    while True:
      is_new_axis = self._peek().text == "None"
      self._index += int(is_new_axis)
      start = None if is_new_axis else self._integer()
      if is_new_axis:
        index.append(None)
      elif self._accept(":"):
        index.append((start, self._integer()))
      elif start is None:
        raise self._unexpected("an index as in W[0, 1] or X[0:2]")
      else:
        index.append(start)
      if not self._accept(","):
        break
    self._expect("]")
    return tuple(index)

  def _integer(self) -> int | None:
    """Consumes an integer, if there is one."""
    ahead = int(self._peek().text == "-")
    token = self._peek(ahead)
    if token.kind != "number" or re.fullmatch("[0-9]{1,4}", token.text) is None:
      return None
    self._index += 1 + ahead
    return -int(token.text) if ahead else int(token.text)

  def _call(self, token: _Token):
    if token.text in _OTHER_NAMES:
      raise InputError(f"{token.text} is written {_OTHER_NAMES[token.text]}")
    if token.text not in operations.FUNCTIONS:
      raise unknown_name("function", token.text[:60], operations.FUNCTIONS)
    operation = operations.FUNCTIONS[token.text]
    num_args = 1
    options: dict[str, int] = {}
    self._sum()
    while self._accept(","):
      is_full = num_args == operation.most and len(options) < len(operation.options)
      if self._peek().kind == "option" or is_full:
        self._option(token.text, operation.options, options)
      else:
        self._sum()
        num_args += 1
    self._expect(")")
    fewest, most = operation.fewest, operation.most
    if not fewest <= num_args <= most:
      wanted = {(1, 1): "one argument", (1, 2): "one argument or two", (2, 2): "two arguments"}
      text = wanted.get((fewest, most), "two arguments or more")
      raise InputError(f"{token.text} takes {text}, not {num_args}")
    self._output.append(Apply(token.text, num_args, tuple(sorted(options.items()))))

  def _option(self, function: str, known: tuple[str, ...], options: dict[str, int]):
    """Reads axis=0, or 0 for the first option that is not there yet."""
    token = self._peek()
    if token.kind == "option":
      self._index += 1
      name = token.text.rstrip("= \t\n")
      if name not in known:
        takes = f"takes {' and '.join(known)}" if known else "takes no option"
        raise InputError(f"{function} {takes}, not {name}")
      if name in options:
        raise InputError(f"{function} has {name} twice")
    else:
      name = next(option for option in known if option not in options)
    words = {"True": 1, "False": 0}
    if self._peek().text in words:
      options[name] = words[self._peek().text]
      self._index += 1
      return
    value = self._integer()
    if value is None or (value < 0 and name != "axis"):
      raise InputError(f"{name} of {function} must be an integer from 0 to 9999, as in {name}=1")
    options[name] = value

  def _quantity(self, token: _Token) -> Number | Name | Derivative:
    text = token.text
    if text in CONSTANTS and text not in self._names:
      return Number(CONSTANTS[text])
    if not self._working:
      if "'" in text:
        raise InputError(f"an equation cannot contain the updated value {excerpt(text)}")
      return Name(text)
    return self._derivative(text) or Name(*split_primes(text))

  def _derivative(self, text: str) -> Derivative | None:
    """Reads the rest of dL/dW or dz[0]/dW, or nothing."""
    start = self._index
    entry = self._index_rest() if text[0] == "d" and self._accept("[") else ()
    slash, below = self._peek(), self._peek(1)
    (top, step), (bottom, below_step) = split_primes(text), split_primes(below.text)
    of, by = top[1:], bottom[1:]
    is_derivative = (
      slash.text == "/"
      and below.kind == "name"
      and text[0] == below.text[0] == "d"
      and all(isinstance(item, int) for item in entry)
      and bool(of and by)
      and ((of in self._names and by in self._names) or top not in self._names)
    )
    if not is_derivative:
      self._index = start
      return None
    if step != below_step:
      raise InputError(f"{text}/{below.text} needs as many primes above as below")
    self._index += 2
    return Derivative(of, by, entry, step)  # type: ignore[arg-type]
