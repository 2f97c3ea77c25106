"""The worked solution of a worksheet: every step with its formula, its numbers and its value."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import (
  Apply,
  Derivative,
  Expression,
  Name,
  Number,
  Quantity,
  quantities,
  spell,
  spell_index,
  write,
)
from jaxdl.byhand.worksheet.checker import check
from jaxdl.byhand.worksheet.graph import Graph, by_numerator
from jaxdl.byhand.worksheet.right_values import show_value
from jaxdl.byhand.worksheet.sheet import Worksheet, derivatives, shift

# A longer formula is no longer a step.
_MAX_ITEMS = 60
_MAX_FORMULA = 500
_MAX_NUMBERS = 300
_OPERATORS = ("+", "-", "*", "/", "negative")


def answers(path_or_text: str | os.PathLike) -> list[str]:
  """Returns the worked solution of a worksheet, line by line.

  First all nodes; then every derivative that is claimed, or that a claimed one needs, from the end
  back; then the updated values that are claimed. The same for every gradient step.

  Args:
    path_or_text: as for `check`.

  Raises:
    InputError: as for `check`.
  """
  checked = check(path_or_text)  # so that all values and derivatives are finite
  with np.errstate(all="ignore"):
    return list(_Solution(checked.worksheet, checked.known).lines())


class _Solution:
  """Writes the solution of one worksheet."""

  def __init__(self, sheet: Worksheet, known: Mapping[Quantity, np.ndarray]):
    self._sheet, self._known = sheet, known
    self._graph = Graph(sheet.equations, sheet.names, sheet.shapes)
    self._step = 0

  def lines(self) -> Iterator[str]:
    sheet = self._sheet
    claimed = [
      claim.of.step
      for claim in sheet.claims
      if isinstance(claim.of, Derivative) or claim.of.name in sheet.equations
    ]
    last = max([sheet.num_steps - 1, 0, *claimed])
    for step in range(last + 1):
      self._step = step
      if step:
        yield ""
        yield f"After {step} gradient step{'s' if step > 1 else ''}"
        yield ""
      yield from self._pass()

  def _pass(self) -> Iterator[str]:
    """Yields a forward pass, a backward pass and the gradient step after them."""
    sheet, step = self._sheet, self._step
    yield "Forward pass"
    for name, equation in sheet.equations.items():
      formula, numbers = self._formula(equation)
      yield self._line(spell(Name(name, step)), formula, numbers, self._known[Name(name, step)])
    claimed = {claim.of for claim in sheet.claims}
    updated = [
      name
      for name in sheet.steps.rules
      if step < sheet.num_steps and self._is_needed(name, claimed)
    ]
    slopes = [q for q in self._claimed_slopes(updated) if q.step == step]
    for (of, entry), names in by_numerator(slopes).items():
      yield ""
      yield f"Derivatives of {spell(Name(of, step))}{spell_index(entry)}"
      yield from self._derivatives(of, names, entry)
    if updated:
      yield ""
      yield "Gradient step"
    for name in updated:
      formula, numbers = self._formula(sheet.steps.rules[name])
      quantity = Name(name, step + 1)
      yield self._line(spell(quantity), formula, numbers, self._known[quantity])

  def _is_needed(self, name: str, claimed: set[Quantity]) -> bool:
    """Returns whether an updated value is claimed, or a later one may need it."""
    return self._sheet.steps.explicit or Name(name, 1) in claimed

  def _claimed_slopes(self, updated: list[str]) -> list[Derivative]:
    """Returns the derivatives that are claimed, or that updated values need, in order."""
    slopes: list[Quantity] = []
    for claim in self._sheet.claims:
      of = claim.of
      if isinstance(of, Name):
        rule = self._sheet.steps.rules.get(of.name, ()) if of.step else ()
        slopes += [shift(slope, of.step - 1) for slope in derivatives(rule)]
      else:
        slopes.append(of)
    for name in updated:
      rule = self._sheet.steps.rules[name]
      slopes += [shift(slope, self._step) for slope in derivatives(rule)]
    return [slope for slope in slopes if isinstance(slope, Derivative)]

  # --- Derivatives ---

  def _values(self) -> dict[str, np.ndarray]:
    return {name: self._known[Name(name, self._step)] for name in self._sheet.names}

  def _derivatives(self, of: str, names: list[str], entry: tuple[int, ...]) -> Iterator[str]:
    """Yields the chain rule from a node back to the names, a line for each name on the way."""
    way = {n for name in names for n in self._graph.between(of, name)} - {of}
    steps = [n for n in reversed(self._sheet.names) if n in way]
    slopes = self._graph.gradient(of, steps, self._values(), entry)
    largest = max((np.abs(slope).max() for slope in slopes.values()), default=0.0)
    slopes = {n: np.where(np.abs(s) < 1e-15 * largest, 0.0, s) for n, s in slopes.items()}
    slopes[of] = self._graph.seed(of, entry)
    for name in steps:
      derivative = Derivative(of, name, entry, self._step)
      formula, numbers = self._chain(derivative, slopes)
      yield self._line(spell(derivative), formula, numbers, slopes[name])
    for name in names:
      if name not in way:
        value = slopes[of] if name == of else np.zeros(self._sheet.shapes[name])
        yield f"  {spell(Derivative(of, name, entry, self._step))} = {show_value(value)}"

  def _chain(self, derivative: Derivative, slopes: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Returns a derivative as a sum over the equations with the name: formula, numbers."""
    of, name = derivative.of, derivative.by
    between = self._graph.between(of, name)
    formulas: list[str] = []
    numbers: list[str] = []
    for child, equation in self._sheet.equations.items():
      if child not in between or Name(name) not in quantities(equation):
        continue
      outer = dataclasses.replace(derivative, by=child)
      shapes = {self._sheet.shapes[n] for n in (child, *self._graph.inputs_of[child])}
      is_scalar = shapes == {()} and not derivative.entry
      parts = self._scalar_term(outer, name, slopes, bool(numbers)) if is_scalar else None
      parts = parts or self._array_term(outer, name, slopes)
      if parts is None:
        return "", ""
      formulas.append(parts[0])
      numbers.append(parts[1])
    return _sum(formulas), _sum(numbers)

  def _array_term(
    self, outer: Derivative, name: str, slopes: Mapping[str, np.ndarray]
  ) -> tuple[str, str] | None:
    """Returns what one equation of arrays adds to a derivative; None if no formula says it."""
    equation, values = self._sheet.equations[outer.by], self._values()
    cotangent: Expression = (outer,)
    if outer.by == outer.of:
      seed = self._graph.seed(outer.of, outer.entry)
      cotangent = expressions.as_list(seed) if outer.entry else (Number(1.0),)
    known: dict[Quantity, np.ndarray] = {Name(n): v for n, v in values.items()}
    known[outer] = slopes[outer.by]
    formula = expressions.pull_back_formula(
      equation, name, cotangent, self._sheet.shape, known.__getitem__
    )
    if formula is None:
      return None
    formula = self._graph.in_terms_of_nodes(formula, outer.by)
    pulled = self._graph.pull_back(outer.by, values, slopes[outer.by], [name])
    text = write(formula, lambda q: self._sheet.spell(q if q == outer else shift(q, self._step)))
    if len(text) > _MAX_FORMULA or not self._is_value(formula, known, pulled[name]):
      return None
    return text, _in_numbers(formula, known)

  def _is_value(
    self, formula: Expression, known: Mapping[Quantity, np.ndarray], value: np.ndarray
  ) -> bool:
    """Returns whether a formula has a value: at a tie, that of a maximum has another."""
    found = expressions.evaluate(formula, known.__getitem__)
    return bool(np.allclose(found, value, rtol=1e-9, atol=1e-12))

  def _scalar_term(
    self, outer: Derivative, name: str, slopes: Mapping[str, np.ndarray], follows: bool
  ) -> tuple[str, str] | None:
    """Returns what one equation of scalars adds to a derivative; `follows` another such term."""
    slope = self._partial(outer.by, name)
    if slope is None:
      return None
    formula, values = self._formula(slope)
    if outer.by == outer.of:
      return formula, values
    is_sum = isinstance(slope[-1], Apply) and slope[-1].function in _OPERATORS
    factor = show_value(slopes[outer.by])
    factor = f"({factor})" if follows and factor.startswith("-") else factor
    formula = f"({formula})" if is_sum else formula
    values = f"({values})" if is_sum or values.startswith("-") else values
    return _times(spell(outer), formula), _times(factor, values)

  def _partial(self, node: str, name: str) -> Expression | None:
    """Returns the derivative of a node's equation with respect to a name, in terms of nodes."""
    slope = expressions.differentiate(self._sheet.equations[node], name)
    if slope is None or len(slope) > _MAX_ITEMS:
      return None
    values = self._values()
    pulled = self._graph.pull_back(node, values, np.ones(()), [name])
    known: dict[Quantity, np.ndarray] = {Name(n): value for n, value in values.items()}
    return (
      self._graph.in_terms_of_nodes(slope, node)
      if self._is_value(slope, known, pulled[name])
      else None
    )

  # --- Lines ---

  def _formula(self, expression: Expression) -> tuple[str, str]:
    """Returns an expression with names, and with numbers for them."""
    formula = write(expression, lambda q: self._sheet.spell(shift(q, self._step)))
    known = {q: self._known[shift(q, self._step)] for q in quantities(expression)}
    return formula, _in_numbers(expression, known)

  def _line(self, name: str, formula: str, numbers: str, value: np.ndarray) -> str:
    if len(numbers) > _MAX_NUMBERS:
      numbers = ""  # an array of them: the formula is easier to read without
    parts = dict.fromkeys([name, formula, numbers, show_value(value)])  # no part twice
    return f"  {' = '.join(filter(None, parts))}"


def _in_numbers(formula: Expression, known: Mapping[Quantity, np.ndarray]) -> str:
  """Returns a formula with numbers for quantities, and for parts of them."""
  result: list = []
  for item in formula:
    if (
      isinstance(item, Apply)
      and item.function == "[]"
      and isinstance(result[-1], Name | Derivative)
    ):
      part = np.asarray(known[result.pop()])[expressions.as_slices(item.index)]
      rounded = np.array([float(show_value(value)) for value in part.flat])
      result += expressions.as_list(rounded.reshape(part.shape))
    else:
      result.append(item)
  return write(tuple(result), lambda q: show_value(known[q]))


def _sum(terms: Sequence[str]) -> str:
  return " + ".join(terms).replace(" + -", " - ")


def _times(left: str, right: str) -> str:
  return left if right == "1" else f"{left} * {right}"
