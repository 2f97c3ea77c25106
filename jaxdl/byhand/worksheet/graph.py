"""The equations of a worksheet as a computation graph: values, and derivatives in reverse."""

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Derivative, Expression, Name, Shape, spell

Values = Mapping[str, Any]  # name -> float64 array, `[*shape, *points]`


def inputs_of(equation: Expression) -> list[str]:
  """Returns the names in an equation, each once."""
  return [spell(quantity) for quantity in expressions.quantities(equation)]


def by_numerator(slopes: Iterable[Derivative]) -> dict[tuple[str, tuple[int, ...]], list[str]]:
  """Returns what is differentiated, a name and an entry -> with respect to what, each once."""
  grouped: dict[tuple[str, tuple[int, ...]], list[str]] = {}
  for slope in dict.fromkeys(slopes):
    names = grouped.setdefault((slope.of, slope.entry), [])
    if slope.by not in names:
      names.append(slope.by)
  return grouped


def _scaled_value(equation: Expression, values: Values, number_scale: np.ndarray) -> Any:
  """Returns the value of an equation whose numbers are multiplied by a factor at each point."""
  scaled = expressions.numbers(equation)
  return expressions.steps(
    equation,
    lambda quantity: values[spell(quantity)],
    lambda index, value: value * number_scale if index in scaled else value,
    num_points=1,
  )[-1]


class Graph:
  """The equations of a worksheet.

  Args:
    equations: name of a node -> its equation, each after those that it depends on.
    names: of givens and nodes, in such an order.
    shapes: of all names.
  """

  def __init__(
    self, equations: Mapping[str, Expression], names: list[str], shapes: Mapping[str, Shape]
  ):
    self._equations, self.shapes = equations, shapes
    self.inputs_of = {name: inputs_of(equation) for name, equation in equations.items()}
    # Sets of names as the bits of an integer; every name comes after those that it depends on.
    self._names = names
    self._bit = {name: 1 << i for i, name in enumerate(names)}
    self._ancestors: dict[str, int] = {}  # including the name itself
    self.children: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
      self._ancestors[name] = self._bit[name]
      for inner in self.inputs_of.get(name, ()):
        self._ancestors[name] |= self._ancestors[inner]
        self.children[inner].append(name)

  def in_terms_of_nodes(self, formula: Expression, first: str) -> Expression:
    """Returns a formula with the names of nodes where it contains their equations.

    Args:
      formula: any.
      first: the node that is looked for first.
    """
    for node in dict.fromkeys([first, *self._equations]):
      equation = self._equations[node]
      size, index, result = len(equation), 0, []
      while index < len(formula):
        is_node = size > 1 and formula[index : index + size] == equation
        is_node = is_node and bool(expressions.quantities(equation))
        result.append(Name(node) if is_node else formula[index])
        index += size if is_node else 1
      formula = tuple(result)
    return formula

  def depends(self, name: str, on: str) -> bool:
    """Returns whether a name depends on another, or is the same."""
    return bool(self._ancestors[name] & self._bit[on])

  def between(self, of: str, by: str) -> list[str]:
    """Returns the names on the paths from `by` to `of`, in order, both included."""
    return [n for n in self._names if self.depends(of, n) and self.depends(n, by)]

  def num_terms(self, of: str) -> int:
    """Returns how many terms a node and everything that it depends on have."""
    return sum(len(e) for name, e in self._equations.items() if self.depends(of, name))

  def ancestors(self, name: str) -> list[str]:
    """Returns the names that a name depends on, in order, and itself; none of a name elsewhere."""
    own = self._ancestors.get(name, 0)
    return [other for other in self._names if own & self._bit[other]]

  def downstream(self, name: str) -> list[str]:
    """Returns the nodes that depend on a name, in order, without the name itself."""
    bit = self._bit.get(name, 0)
    return [node for node in self._equations if node != name and self._ancestors[node] & bit]

  def is_elementwise(self, of: str, by: str) -> bool:
    """Returns whether each entry of `of` depends on the entry of `by` at the same place only."""
    moved = set(self.between(of, by))
    return self.shapes[of] == self.shapes[by] and all(
      expressions.moves_elementwise(
        self._equations[node],
        expressions.shapes(self._equations[node], lambda q: self.shapes[spell(q)]),
        moved,
      )
      for node in moved - {by}
    )

  def values(
    self, given: Mapping[str, np.ndarray], number_scale: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Returns the values of all names at P points.

    Args:
      given: name -> values, `[*shape, P]`.
      number_scale: `[P]`, what numbers in the equations, other than exponents, are multiplied by.
    """
    values = dict(given)
    for name, equation in self._equations.items():
      value = _scaled_value(equation, values, number_scale)
      values[name] = np.broadcast_to(value, (*self.shapes[name], len(number_scale)))
    return values

  def seed(self, of: str, entry: tuple[int, ...] = (), num_points: int = 0) -> np.ndarray:
    """Returns the cotangent that a backward pass starts with: 1 for what is differentiated."""
    shape = self.shapes[of]
    start = np.zeros(shape) if entry else np.ones(shape)
    start[entry] = 1.0
    return start.reshape((*shape, *(1,) * num_points))

  def gradient(
    self, of: str, by: list[str], values: Values, entry: tuple[int, ...] = (), num_points: int = 0
  ) -> dict[str, np.ndarray]:
    """Returns derivatives of a node or given by one backward pass through the whole graph.

    The derivative with respect to a name treats it as free and lets everything downstream follow.

    Args:
      of: what is differentiated.
      by: with respect to what.
      values: of all names, `[*shape, *points]`.
      entry: which entry of an array `of` is differentiated; else the sum of all entries is, whose
        derivative is that of each entry if `of` is computed from `by` elementwise.
      num_points: how many axes of points the values have.
    """
    cotangents: dict[str, Any] = {of: self.seed(of, entry, num_points)}
    targets = functools.reduce(operator.or_, (self._bit[name] for name in by), 0)
    for node in reversed(self.ancestors(of)):
      wanted = [n for n in self.inputs_of.get(node, ()) if self._ancestors[n] & targets]
      if node not in cotangents or not wanted:
        continue
      for name, slope in self.pull_back(node, values, cotangents[node], wanted, num_points).items():
        cotangents[name] = cotangents[name] + slope if name in cotangents else slope
    return {name: np.broadcast_to(cotangents.get(name, 0.0), np.shape(values[name])) for name in by}

  def pull_back(
    self,
    node: str,
    values: Values,
    cotangent: Any,
    wanted: list[str],
    num_points: int = 0,
    by_output: bool = False,
  ) -> dict[str, Any]:
    """Returns the cotangents of names in a node's equation, other names in it held fixed.

    Args:
      node: a node.
      values: of all names, `[*shape, *points]`.
      cotangent: of the node.
      wanted: the names, in the equation.
      num_points: how many axes of points the values have.
      by_output: whether the slope of the last step is found from the node's own value.
    """
    equation = self._equations[node]
    steps = expressions.steps(equation, lambda q: values[spell(q)], num_points=num_points)
    if by_output:
      steps[-1] = values[node]
    found = expressions.pull_back(
      equation, steps, cotangent, {Name(name) for name in wanted}, num_points, by_output
    )
    return {spell(quantity): slope for quantity, slope in found.items()}
