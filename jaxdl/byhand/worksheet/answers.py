"""The worked solution of a worksheet: every step with its formula, its numbers and its value."""

import os
from collections.abc import Iterator, Mapping

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import (
  Apply,
  Derivative,
  Expression,
  Name,
  Number,
  Updated,
  quantities,
  spell,
  write,
)
from jaxdl.byhand.worksheet.checker import check
from jaxdl.byhand.worksheet.graph import Graph, by_numerator, float64, slopes_of
from jaxdl.byhand.worksheet.reader import Worksheet

# A longer formula is no longer a step.
_MAX_ITEMS = 60
_OPERATORS = ("+", "-", "*", "/", "negative")


def answers(path_or_text: str | os.PathLike) -> list[str]:
  """Returns the worked solution of a worksheet, line by line.

  First all nodes; then every derivative that is claimed, or that a claimed one needs, from the end
  back; then the updated values that are claimed.

  Args:
    path_or_text: as for `check`.

  Raises:
    InputError: as for `check`.
  """
  checked = check(path_or_text)  # so that all values and derivatives are finite
  with float64():
    return list(_Solution(checked.worksheet, checked.values).lines())


class _Solution:
  """Writes the steps of one worksheet; use within `float64`."""

  def __init__(self, sheet: Worksheet, values: Mapping[str, float]):
    self._sheet, self._values = sheet, values
    self._graph = Graph(sheet.equations, sheet.names)

  def lines(self) -> Iterator[str]:
    yield "Forward pass"
    for name, equation in self._sheet.equations.items():
      yield self._line(name, write(equation), self._with_numbers(equation), self._values[name])
    slopes = (
      self._sheet.slope_of(claim.of)
      for claim in self._sheet.claims
      if not isinstance(claim.of, Name)
    )
    for of, names in by_numerator(slopes).items():
      yield ""
      yield f"Derivatives of {of}"
      yield from self._derivatives(of, names)
    updated = [claim.of for claim in self._sheet.claims if isinstance(claim.of, Updated)]
    if updated:
      yield ""
      yield "Gradient step"
    for quantity in updated:
      yield self._update(quantity)

  def _derivatives(self, of: str, names: list[str]) -> Iterator[str]:
    """Yields the chain rule from a node back to the names, a line for each name on the way."""
    way = {n for name in names for n in self._graph.between(of, name)} - {of}
    steps = [n for n in reversed(self._sheet.names) if n in way]
    slopes = {of: 1.0, **self._graph.gradient(of, steps, self._values)}
    for name in steps:
      formula, numbers = self._chain(of, name, slopes)
      yield self._line(spell(Derivative(of, name)), formula, numbers, float(slopes[name]))
    for name in names:
      if name not in way:
        yield f"  {spell(Derivative(of, name))} = {1 if name == of else 0}"

  def _chain(self, of: str, name: str, slopes: Mapping[str, float]) -> tuple[str, str]:
    """Returns d of/d name as a sum over the equations that contain the name: formula, numbers."""
    formulas: list[str] = []
    numbers: list[str] = []
    between = self._graph.between(of, name)
    for child, equation in self._sheet.equations.items():
      if child not in between or Name(name) not in quantities(equation):
        continue
      slope = self._partial(child, name)
      formula, values = write(slope), self._with_numbers(slope)
      if child != of:
        is_sum = isinstance(slope[-1], Apply) and slope[-1].function in _OPERATORS
        outer = _number(float(slopes[child]))
        outer = f"({outer})" if numbers and outer.startswith("-") else outer
        formula = f"({formula})" if is_sum else formula
        values = f"({values})" if is_sum or values.startswith("-") else values
        formula = _times(spell(Derivative(of, child)), formula)
        values = _times(outer, values)
      formulas.append(formula)
      numbers.append(values)
    return " + ".join(formulas), " + ".join(numbers)

  def _partial(self, node: str, name: str) -> Expression:
    """Returns the derivative of a node's equation with respect to a name, in terms of the node."""
    equation = self._sheet.equations[node]
    slope = expressions.differentiate(equation, name)
    if slope is None or len(slope) > _MAX_ITEMS:
      at = {n: self._values[n] for n in self._graph.inputs_of[node]}
      return (Number(float(slopes_of(equation, at)[name])),)
    size, index, result = len(equation), 0, []
    while index < len(slope):
      is_node = size > 1 and slope[index : index + size] == equation
      result.append(Name(node) if is_node else slope[index])
      index += size if is_node else 1
    return tuple(result)

  def _update(self, quantity: Updated) -> str:
    name, rate = quantity.name, float(self._sheet.learning_rate or 0)
    by = self._sheet.slope_of(quantity)
    slope = float(self._graph.gradient(by.of, [name], self._values)[name])
    value = self._values[name]
    formula = f"{name} - learning_rate * {spell(by)}"
    step = f"({_number(slope)})" if slope < 0 else _number(slope)
    numbers = f"{_number(value)} - {_number(rate)} * {step}"
    return self._line(spell(quantity), formula, numbers, value - rate * slope)

  def _with_numbers(self, expression: Expression) -> str:
    return write(expression, lambda quantity: _number(self._values[spell(quantity)]))

  def _line(self, name: str, formula: str, numbers: str, value: float) -> str:
    parts = dict.fromkeys([name, formula, numbers, _number(value)])  # no part twice
    return f"  {' = '.join(parts)}"


def _times(left: str, right: str) -> str:
  return left if right == "1" else f"{left} * {right}"


def _number(value: float) -> str:
  return f"{value + 0.0:.6g}"  # never -0
