"""Formulas of a worksheet: parsed by rules of our own, never as Python, and evaluated in JAX.

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/") signed }
    signed  = ("-" | "+") signed | power
    power   = atom [ "**" signed ]
    atom    = number | name | function "(" sum { "," sum } ")" | "(" sum ")"

so that -x**2 is -(x**2) and 2**3**2 is 2**(3**2), as in mathematics. An expression is kept in
postfix order, so that evaluating even the longest needs no recursion. Every number is a float64:
9**9**9 is infinity, not a computation without end.

Where a function has a kink, its derivative is relu'(0) = abs'(0) = 0, and where the arguments of
max or min are equal, each gets half. Away from kinks the derivatives are those of calculus.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError, unknown_name

MAX_LENGTH = 2000
MAX_DEPTH = 60

# How people type, or word processors replace, what a formula is made of.
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "′": "'", "’": "'"})  # noqa: RUF001
_TOKEN = re.compile(
  r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
  r"|(?P<name>[^\W\d]\w*'?)"
  r"|(?P<symbol>\*\*|[-+*/(),])"
)


@dataclasses.dataclass(frozen=True)
class Number:
  """A number, finite."""

  value: float


@dataclasses.dataclass(frozen=True)
class Name:
  """The value of a node or a given."""

  name: str


@dataclasses.dataclass(frozen=True)
class Derivative:
  """The derivative of one node or given by another, written dL/da."""

  of: str
  by: str


@dataclasses.dataclass(frozen=True)
class Updated:
  """A given after one gradient step, written w7'."""

  name: str


@dataclasses.dataclass(frozen=True)
class Apply:
  """Replaces the last `num_args` values by that of a function of them."""

  function: str
  num_args: int


Quantity = Name | Derivative | Updated
# In postfix order: x*y + 1 is (Name x, Name y, Apply *, Number 1, Apply +).
Expression = tuple[Number | Quantity | Apply, ...]


# --- Functions ---


@jax.custom_jvp
def _sigmoid(x):
  return jax.nn.sigmoid(x)


@_sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
  """s(x) s(-x), because 1 - s(x) loses all digits for large x."""
  (x,), (dx,) = primals, tangents
  return _sigmoid(x), dx * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


@jax.custom_jvp
def _tanh(x):
  return jnp.tanh(x)


@_tanh.defjvp
def _tanh_jvp(primals, tangents):
  """1 / cosh(x)², because 1 - tanh(x)² loses all digits for large x."""
  (x,), (dx,) = primals, tangents
  return _tanh(x), dx / jnp.cosh(x) / jnp.cosh(x)


def _abs(x):
  return jnp.sign(x) * x  # where x is 0, so is the derivative


def _power(x, y):
  if isinstance(y, np.float64) and y.is_integer() and abs(y) <= 64:
    return jax.lax.integer_pow(jnp.asarray(x), int(y))  # has a derivative for x = 0, also if y = 0
  return jnp.power(x, y)


# Name -> (fewest arguments, most arguments, function of float64 scalars).
_FUNCTIONS: dict[str, tuple[int, int, Callable]] = {
  "sigmoid": (1, 1, _sigmoid),
  "tanh": (1, 1, _tanh),
  "relu": (1, 1, jax.nn.relu),
  "exp": (1, 1, jnp.exp),
  "log": (1, 1, jnp.log),
  "sqrt": (1, 1, jnp.sqrt),
  "abs": (1, 1, _abs),
  "max": (2, MAX_LENGTH, lambda *args: functools.reduce(jnp.maximum, args)),
  "min": (2, MAX_LENGTH, lambda *args: functools.reduce(jnp.minimum, args)),
}
FUNCTION_NAMES = tuple(_FUNCTIONS)
_OPERATORS: dict[str, Callable] = {
  "+": jnp.add,
  "-": jnp.subtract,
  "*": jnp.multiply,
  "/": jnp.divide,
  "**": _power,
  "negative": jnp.negative,
}
# f'(x) as a function of y = f(x), which is what one uses by hand.
DERIVATIVES_BY_OUTPUT: dict[str, Callable[[float], float]] = {
  "sigmoid": lambda y: y * (1 - y),
  "tanh": lambda y: 1 - y * y,
  "exp": lambda y: y,
  "sqrt": lambda y: 0.5 / y if y else math.inf,
}


def evaluate(expression: Expression, lookup: Callable[[Quantity], jax.Array | float]) -> jax.Array:
  """Returns the value of an expression, a scalar that JAX can differentiate.

  Args:
    expression: of `parse`.
    lookup: the value of each quantity in it, a float64 scalar.
  """
  stack = []
  for item in expression:
    if isinstance(item, Number):
      stack.append(np.float64(item.value))
    elif isinstance(item, Apply):
      function = _OPERATORS.get(item.function) or _FUNCTIONS[item.function][2]
      args = stack[-item.num_args :]
      del stack[-item.num_args :]
      stack.append(function(*args))
    else:
      stack.append(lookup(item))
  (value,) = stack
  return value


def quantities(expression: Expression) -> list[Quantity]:
  """Returns the different quantities in an expression, in the order in which they appear."""
  return list(dict.fromkeys(x for x in expression if not isinstance(x, Number | Apply)))


# --- Parsing ---


def is_name(text: str) -> bool:
  """Returns whether a node or a given may have this name."""
  return re.fullmatch(r"[^\W\d]\w{0,59}", text) is not None and text not in _FUNCTIONS


def excerpt(text: object) -> str:
  """Returns text, quoted and no longer than an error message can bear."""
  text = str(text)
  return repr(text if len(text) <= 60 else f"{text[:57]}...")


def parse(text: str, names: Collection[str] | None = None) -> Expression:
  """Parses a formula.

  Args:
    text: the formula.
    names: None: an equation, which has names only. Otherwise a line of working, in which dU/dV is a
      derivative wherever U and V are among these names (else, if dU is one, a quotient), and w' is
      an updated value.

  Raises:
    InputError: when it is no formula, too long or too deep; names are not looked up.
  """
  if len(text) > MAX_LENGTH:
    raise InputError(f"the formula is too long: {len(text)} characters, more than {MAX_LENGTH}")
  return _Parser(text, names).parse()


class _Token(NamedTuple):
  kind: str  # "number", "name", "symbol", "end"
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
    if match is None:
      hint = "; a power is written **" if text[place] == "^" else ""
      raise InputError(f"unexpected character {text[place]!r} at position {place + 1}{hint}")
    yield _Token(str(match.lastgroup), match[0], place + 1)
    place = match.end()


class _Parser:
  """A method per rule of the grammar; each appends to `_output` and leaves the next token."""

  def __init__(self, text: str, names: Collection[str] | None):
    self._names = names
    self._tokens = list(_tokens(text))
    self._index = 0
    self._depth = 0
    self._output: list = []

  def parse(self) -> Expression:
    self._sum()
    if self._peek().kind != "end":
      raise self._unexpected("an operator")
    return tuple(self._output)

  def _peek(self, ahead: int = 0) -> _Token:
    return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

  def _accept(self, *symbols: str) -> str | None:
    """Returns the next token, and goes on, if it is one of these symbols."""
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
    while symbol := self._accept("*", "/"):
      self._signed()
      self._output.append(Apply(symbol, 2))

  def _signed(self):
    self._depth += 1  # every rule that contains itself does so by way of this one
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
    self._atom()
    if self._accept("**"):
      self._signed()
      self._output.append(Apply("**", 2))

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

  def _call(self, token: _Token):
    if token.text not in _FUNCTIONS:
      raise unknown_name("function", token.text[:60], _FUNCTIONS)
    num_args = 1
    self._sum()
    while self._accept(","):
      self._sum()
      num_args += 1
    self._expect(")")
    fewest, most, _ = _FUNCTIONS[token.text]
    if not fewest <= num_args <= most:
      wanted = "one argument" if most == 1 else "two arguments or more"
      raise InputError(f"{token.text} takes {wanted}, not {num_args}")
    self._output.append(Apply(token.text, num_args))

  def _quantity(self, token: _Token) -> Quantity:
    name = token.text
    if self._names is None:
      if name.endswith("'"):
        raise InputError(f"an equation cannot contain the updated value {excerpt(name)}")
      return Name(name)
    if name.endswith("'"):
      return Updated(name[:-1])
    slash, below = self._peek(), self._peek(1)
    if slash.text == "/" and below.kind == "name" and name[0] == below.text[0] == "d":
      of, by = name[1:], below.text[1:]
      if of and by and ((of in self._names and by in self._names) or name not in self._names):
        self._index += 2
        return Derivative(of, by)
    return Name(name)
