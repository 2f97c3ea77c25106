"""Formulas of a worksheet: parsed by this grammar, never as Python, and evaluated in JAX.

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/") signed }
    signed  = ("-" | "+") signed | power
    power   = atom [ "**" signed ]
    atom    = number | name | function "(" sum { "," sum } ")" | "(" sum ")"

so that -x**2 is -(x**2) and 2**3**2 is 2**(3**2), as in mathematics. An expression is kept in
postfix order, so evaluating it needs no recursion, however long it is. Every number is a float64:
9**9**9 is infinity, not a computation without end.

The names e and pi are constants unless the worksheet defines them.

At kinks relu'(0) = abs'(0) = 0 and leaky_relu'(0) = 1, and equal arguments of max or min get equal
shares. step(0) = 0, and the derivative of step is 0 everywhere.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError, unknown_name

MAX_LENGTH = 2000
MAX_DEPTH = 60

# What people type, or word processors substitute, for the characters of a formula.
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "′": "'", "’": "'"})  # noqa: RUF001
CONSTANTS = {"e": math.e, "pi": math.pi, "π": math.pi}
_TOKEN = re.compile(
  r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
  r"|(?P<name>[^\W\d]\w*'?)"
  r"|(?P<symbol>\*\*|[-+*/(),])"
)


@dataclasses.dataclass(frozen=True)
class Number:
  """A finite number."""

  value: float


@dataclasses.dataclass(frozen=True)
class Name:
  """The value of a node or a given."""

  name: str


@dataclasses.dataclass(frozen=True)
class Derivative:
  """The derivative of one node or given with respect to another, written dL/da."""

  of: str
  by: str


@dataclasses.dataclass(frozen=True)
class Updated:
  """A given after one gradient step, written w7'."""

  name: str


@dataclasses.dataclass(frozen=True)
class Apply:
  """Replaces the last `num_args` values with a function of them."""

  function: str
  num_args: int


Quantity = Name | Derivative | Updated
# In postfix order: x*y + 1 is (Name x, Name y, Apply *, Number 1, Apply +).
Expression = tuple[Number | Quantity | Apply, ...]


# --- Functions ---


# For large x, 1 - sigmoid(x) and 1 - tanh(x)² lose all digits; these derivatives do not.
_sigmoid = jax.custom_jvp(jax.nn.sigmoid)
_sigmoid.defjvps(lambda dx, _, x: dx * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x))
_tanh = jax.custom_jvp(jnp.tanh)
_tanh.defjvps(lambda dx, _, x: dx / jnp.cosh(x) / jnp.cosh(x))


def _abs(x):
  return jnp.sign(x) * x  # its derivative at 0 is 0


def _step(x):
  return jnp.where(x > 0, 1.0, 0.0)


def _leaky_relu(x, slope=0.01):
  return jnp.where(x >= 0, x, slope * x)


def _power(x, y):
  if isinstance(y, np.float64) and y.is_integer() and abs(y) <= 64:
    return jax.lax.integer_pow(jnp.asarray(x), int(y))  # differentiable at x = 0, even if y = 0
  return jnp.power(x, y)


# Name -> (fewest arguments, most arguments, function of float64 values).
_FUNCTIONS: dict[str, tuple[int, int, Callable]] = {
  "sigmoid": (1, 1, _sigmoid),
  "tanh": (1, 1, _tanh),
  "relu": (1, 1, jax.nn.relu),
  "leaky_relu": (1, 2, _leaky_relu),
  "gelu": (1, 1, functools.partial(jax.nn.gelu, approximate=False)),
  "softplus": (1, 1, jax.nn.softplus),
  "step": (1, 1, _step),
  "exp": (1, 1, jnp.exp),
  "log": (1, 1, jnp.log),
  "ln": (1, 1, jnp.log),
  "sin": (1, 1, jnp.sin),
  "cos": (1, 1, jnp.cos),
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


Lookup = Callable[[Quantity], jax.Array | np.ndarray | float]


def evaluate(expression: Expression, lookup: Lookup) -> jax.Array:
  """Returns the value of an expression, which JAX can differentiate.

  Args:
    expression: from `parse`.
    lookup: the value of each quantity in it: float64 scalars, or arrays that broadcast.
  """
  return steps(expression, lookup)[-1]


def steps(
  expression: Expression, lookup: Lookup, change: Callable[[int, Any], Any] = lambda _, value: value
) -> list[jax.Array]:
  """Returns the value after each item of an expression; the last is that of the whole.

  Args:
    expression: from `parse`.
    lookup: the value of each quantity in it: float64 scalars, or arrays that broadcast.
    change: (index of an item, its value) -> the value to go on with.
  """
  stack: list[Any] = []
  values = []
  for index, item in enumerate(expression):
    if isinstance(item, Number):
      value = np.float64(item.value)
    elif isinstance(item, Apply):
      function = _OPERATORS.get(item.function) or _FUNCTIONS[item.function][2]
      args = stack[-item.num_args :]
      del stack[-item.num_args :]
      value = function(*args)
    else:
      value = lookup(item)
    stack.append(change(index, value))
    values.append(stack[-1])
  return values


def quantities(expression: Expression) -> list[Quantity]:
  """Returns the distinct quantities in an expression, in order of appearance."""
  return list(dict.fromkeys(x for x in expression if not isinstance(x, Number | Apply)))


def numbers(expression: Expression) -> dict[int, Number]:
  """Returns the numbers in an expression by their places, without exponents: not the 2 of x**2."""
  after = (*expression[1:], None)
  return {
    index: item
    for index, (item, follower) in enumerate(zip(expression, after, strict=True))
    if isinstance(item, Number) and follower != Apply("**", 2)
  }


# --- Parsing ---


def is_name(text: str) -> bool:
  """Returns whether a node or a given may have this name."""
  return re.fullmatch(r"[^\W\d]\w{0,59}", text) is not None and text not in _FUNCTIONS


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
      an updated value, and dU/dV is a derivative if U and V are names, or if dU is not one.

  Raises:
    InputError: if it is not a formula, or is too long or too deep.
  """
  if len(text) > MAX_LENGTH:
    raise InputError(f"the formula is too long: {len(text)} characters, more than {MAX_LENGTH}")
  return _Parser(text, names, working).parse()


_HINTS = {
  "^": "; a power is written **",
  "%": "; write 0.5 for 50%",
  "=": "; write the right-hand side only",
  "≈": "; write the right-hand side only",
  "√": "; a root is written sqrt(x)",
  "[": "; values are scalars",
  "@": "; values are scalars",
}


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
      hint = _HINTS.get(text[place], "")
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
      raise self._unexpected("an operator")
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
    while symbol := self._accept("*", "/"):
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
      wanted = {1: "one argument", 2: "one argument or two"}.get(most, "two arguments or more")
      raise InputError(f"{token.text} takes {wanted}, not {num_args}")
    self._output.append(Apply(token.text, num_args))

  def _quantity(self, token: _Token) -> Number | Quantity:
    name = token.text
    if name in CONSTANTS and name not in self._names:
      return Number(CONSTANTS[name])
    if name.endswith("'"):
      if not self._working:
        raise InputError(f"an equation cannot contain the updated value {excerpt(name)}")
      return Updated(name[:-1])
    if not self._working:
      return Name(name)
    slash, below = self._peek(), self._peek(1)
    if slash.text == "/" and below.kind == "name" and name[0] == below.text[0] == "d":
      of, by = name[1:], below.text[1:]
      if of and by and ((of in self._names and by in self._names) or name not in self._names):
        self._index += 2
        return Derivative(of, by)
    return Name(name)


# --- Differentiating ---

_ZERO, _ONE = (Number(0.0),), (Number(1.0),)
_NEGATIVE = Apply("negative", 1)
_SQUARED = (Number(2.0), Apply("**", 2))


def differentiate(expression: Expression, name: str) -> Expression | None:
  """Returns the derivative with respect to a name as a formula.

  None if a function in it has none that can be written with those there are (gelu), or is not
  differentiable everywhere in a way that a formula could say (abs, max, min, leaky_relu).
  """
  stack: list[tuple[Expression, Expression]] = []  # (part, its derivative)
  for item in expression:
    if not isinstance(item, Apply):
      stack.append(((item,), _ONE if item == Name(name) else _ZERO))
      continue
    args = stack[-item.num_args :]
    del stack[-item.num_args :]
    part = (*(i for arg, _ in args for i in arg), item)
    if all(slope == _ZERO for _, slope in args):
      stack.append((part, _ZERO))
    elif item.function in _OPERATORS:
      stack.append((part, _slope_of_operator(item.function, part, args)))
    elif item.function in _SLOPES:
      ((inner, slope),) = args
      stack.append((part, _times(_SLOPES[item.function](part, inner), slope)))
    else:
      return None
  return stack[-1][1]


def _slope_of_operator(function: str, part: Expression, args: list) -> Expression:
  if function == "negative":
    return _negate(args[0][1])
  (u, du), (v, dv) = args
  if function == "+":
    return _plus(du, dv)
  if function == "-":
    return _plus(du, _negate(dv))
  if function == "*":
    return _plus(_times(du, v), _times(u, dv))
  if function == "/":
    return _plus(_over(du, v), _negate(_over(_times(u, dv), (*v, *_SQUARED))))
  if dv == _ZERO:  # u**v
    less = (Number(v[0].value - 1),) if len(v) == 1 and isinstance(v[0], Number) else None
    less = less or (*v, *_ONE, Apply("-", 2))
    power = u if less == _ONE else (*u, *less, Apply("**", 2))
    return _times(_times(v, power), du)
  log_u = (*u, Apply("log", 1))
  return _times(part, _plus(_times(dv, log_u), _over(_times(v, du), u)))


# Name -> (f(u), u) -> f'(u).
_SLOPES: dict[str, Callable[[Expression, Expression], Expression]] = {
  "sigmoid": lambda y, u: _times(y, _plus(_ONE, _negate(y))),
  "tanh": lambda y, u: _plus(_ONE, _negate((*y, *_SQUARED))),
  "relu": lambda y, u: (*u, Apply("step", 1)),
  "softplus": lambda y, u: (*u, Apply("sigmoid", 1)),
  "step": lambda y, u: _ZERO,
  "exp": lambda y, u: y,
  "log": lambda y, u: _over(_ONE, u),
  "ln": lambda y, u: _over(_ONE, u),
  "sin": lambda y, u: (*u, Apply("cos", 1)),
  "cos": lambda y, u: _negate((*u, Apply("sin", 1))),
  "sqrt": lambda y, u: _over(_ONE, _times((Number(2.0),), y)),
}


def _plus(u: Expression, v: Expression) -> Expression:
  if u == _ZERO or v == _ZERO:
    return v if u == _ZERO else u
  if v[-1] == _NEGATIVE:
    return (*u, *v[:-1], Apply("-", 2))
  return (*u, *v, Apply("+", 2))


def _negate(u: Expression) -> Expression:
  if u == _ZERO:
    return u
  return u[:-1] if u[-1] == _NEGATIVE else (*u, _NEGATIVE)


def _times(u: Expression, v: Expression) -> Expression:
  if _ZERO in (u, v):
    return _ZERO
  if u == _ONE or v == _ONE:
    return v if u == _ONE else u
  if u[-1] == _NEGATIVE:
    return _negate(_times(u[:-1], v))
  if v[-1] == _NEGATIVE:
    return _negate(_times(u, v[:-1]))
  return (*u, *v, Apply("*", 2))


def _over(u: Expression, v: Expression) -> Expression:
  if u == _ZERO:
    return u
  if u[-1] == _NEGATIVE:
    return _negate(_over(u[:-1], v))
  return (*u, *v, Apply("/", 2))


# --- Writing ---

_PRIORITY = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3, "**": 4}


def spell(quantity: Quantity) -> str:
  """Returns a quantity as it is written in a worksheet: a1, dL/da, w7'."""
  if isinstance(quantity, Derivative):
    return f"d{quantity.of}/d{quantity.by}"
  return f"{quantity.name}'" if isinstance(quantity, Updated) else quantity.name


def write(expression: Expression, name: Callable[[Quantity], str] = spell) -> str:
  """Returns an expression as text, with brackets only where they are needed.

  Args:
    expression: from `parse`.
    name: what to write for each quantity; a number may be written for it.
  """
  stack: list[tuple[str, int]] = []
  for item in expression:
    if isinstance(item, Number):
      constant = next((name for name, value in CONSTANTS.items() if value == item.value), None)
      stack.append((constant or repr(item.value).removesuffix(".0"), 5))
    elif not isinstance(item, Apply):
      text = name(item)
      stack.append((text, 1 if text.startswith("-") else 5))
    else:
      args = stack[-item.num_args :]
      del stack[-item.num_args :]
      stack.append(_write_apply(item.function, args))
  return stack[-1][0]


def _write_apply(function: str, args: list[tuple[str, int]]) -> tuple[str, int]:
  priority = _PRIORITY.get(function)
  if priority is None:
    return f"{function}({', '.join(text for text, _ in args)})", 5
  if function == "negative":
    return f"-{_bracket(args[0], 3)}", 3
  left, right = args
  # ** associates to the right, the others to the left; a sign may follow any of them.
  left_text = _bracket(left, priority + (function == "**"))
  right_text = _bracket(right, 3 if function == "**" else priority + 1)
  operator = function if function == "**" else f" {function} "
  return f"{left_text}{operator}{right_text}", priority


def _bracket(part: tuple[str, int], least: int) -> str:
  text, priority = part
  return text if priority >= least else f"({text})"
