"""What a formula consists of, and how it is written."""

import dataclasses
import math
from collections.abc import Callable

# An integer, a slice as (start, stop), where None is an open end, or None for a new axis.
Index = tuple[int | tuple[int | None, int | None] | None, ...]
Shape = tuple[int, ...]

CONSTANTS = {"e": math.e, "pi": math.pi, "π": math.pi}


@dataclasses.dataclass(frozen=True)
class Number:
  """A finite number."""

  value: float


@dataclasses.dataclass(frozen=True)
class Name:
  """The value of a node or a given after `step` gradient steps, written w, w', w''."""

  name: str
  step: int = 0


@dataclasses.dataclass(frozen=True)
class Derivative:
  """A derivative: dL/da, dz[0]/dW, or dL'/da' after one gradient step.

  Attributes:
    of: the node that is differentiated.
    by: what it is differentiated with respect to.
    entry: which entry of an array `of` is differentiated; empty for the whole.
    step: the number of gradient steps before.
  """

  of: str
  by: str
  entry: tuple[int, ...] = ()
  step: int = 0


@dataclasses.dataclass(frozen=True)
class Apply:
  """Replaces the last `num_args` values with a function of them.

  Attributes:
    function: its name, an operator, "[]" for an index, "list" for [a, b].
    num_args: how many values it takes.
    options: the integers that it takes, by name, such as ("axis", 0).
    index: of "[]".
  """

  function: str
  num_args: int
  options: tuple[tuple[str, int], ...] = ()
  index: Index = ()


Quantity = Name | Derivative
# In postfix order: x*y + 1 is (Name x, Name y, Apply *, Number 1, Apply +).
Expression = tuple[Number | Quantity | Apply, ...]


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


def arguments(expression: Expression) -> list[tuple[int, ...]]:
  """Returns, for each item of an expression, the places of the items that it is applied to."""
  stack: list[int] = []
  result = []
  for place, item in enumerate(expression):
    num_args = item.num_args if isinstance(item, Apply) else 0
    result.append(tuple(stack[len(stack) - num_args :]))
    del stack[len(stack) - num_args :]
    stack.append(place)
  return result


def part(expression: Expression, place: int) -> Expression:
  """Returns the part of an expression whose value is that after an item."""
  needed, start = 1, place
  while True:
    item = expression[start]
    needed += (item.num_args if isinstance(item, Apply) else 0) - 1
    if needed == 0:
      return expression[start : place + 1]
    start -= 1


# --- Writing ---

_PRIORITY = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "negative": 3, "**": 4}
_DERIVATIVE, _ATOM = 5, 6


def spell(quantity: Quantity) -> str:
  """Returns a quantity as it is written in a worksheet: a1, dL/da, w7'."""
  primes = "'" * quantity.step if quantity.step <= 3 else f"'{quantity.step}"
  if isinstance(quantity, Name):
    return f"{quantity.name}{primes}"
  return f"d{quantity.of}{primes}{spell_index(quantity.entry)}/d{quantity.by}{primes}"


def spell_index(index: Index) -> str:
  """Returns an index as it is written, [0,1:3]; nothing for an empty one."""
  parts = [
    ":".join("" if i is None else str(i) for i in item) if isinstance(item, tuple) else str(item)
    for item in index
  ]
  return f"[{','.join(parts)}]" if parts else ""


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
      stack.append((constant or repr(item.value).removesuffix(".0"), _ATOM))
    elif not isinstance(item, Apply):
      text = name(item)
      plain = _DERIVATIVE if "/" in text else _ATOM
      stack.append((text, 1 if text.startswith("-") else plain))
    else:
      args = stack[len(stack) - item.num_args :]
      del stack[len(stack) - item.num_args :]
      stack.append(_write_apply(item, args))
  return stack[-1][0]


def _write_apply(item: Apply, args: list[tuple[str, int]]) -> tuple[str, int]:
  function, priority = item.function, _PRIORITY.get(item.function)
  if function == "[]":
    return f"{_bracket(args[0], _DERIVATIVE)}{spell_index(item.index)}", _ATOM
  if function == "T":
    return f"{_bracket(args[0], _ATOM)}.T", _ATOM
  texts = [text for text, _ in args]
  if function == "list":
    return f"[{', '.join(texts)}]", _ATOM
  if priority is None:
    texts += [f"{k}={bool(v) if k == 'keepdims' else v}" for k, v in item.options]
    return f"{function}({', '.join(texts)})", _ATOM
  if function == "negative":
    return f"-{_bracket(args[0], 3)}", 3
  left, right = args
  # ** associates to the right, the others to the left; a sign may follow any of them.
  left_text = _bracket(left, _ATOM if function == "**" else priority)
  right_text = _bracket(right, 3 if function == "**" else priority + 1)
  operator = function if function == "**" else f" {function} "
  return f"{left_text}{operator}{right_text}", priority


def _bracket(part: tuple[str, int], least: int) -> str:
  text, priority = part
  return text if priority >= least else f"({text})"
