"""What is known of a wrong line of working: what it should be, and usual mistakes."""

import dataclasses
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
  Shape,
  quantities,
  spell,
)
from jaxdl.byhand.worksheet import points, repairs
from jaxdl.byhand.worksheet.graph import Graph
from jaxdl.byhand.worksheet.right_values import RightValues
from jaxdl.byhand.worksheet.sheet import Claim, Worksheet, shift, shift_all
from jaxdl.byhand.worksheet.working import Meaning
from jaxdl.errors import InputError


class Causes:
  """Finds why lines of working of one worksheet are wrong."""

  def __init__(self, sheet: Worksheet, graph: Graph, known: RightValues):
    self._sheet, self._graph, self._known = sheet, graph, known

  def find(self, claim: Claim, numbers: Mapping[int, Sequence[Meaning]]) -> str:
    """Returns why a claim's line of working is wrong, or nothing.

    Args:
      claim: with a wrong line of working.
      numbers: index of a number in it -> what it may stand for.
    """
    terms, known = self._right_terms(claim)
    return repairs.explain(
      claim.working,
      self._likeliest(claim, numbers, terms),
      self._known.points(claim),
      known,
      repairs.Hints(
        self._candidates(claim),
        self._factors(claim.of),
        terms,
        self._mistakes(claim),
        lambda quantity: self._spell(quantity, claim.before),
        bool(self._known.fixed),
      ),
    )

  def _likeliest(
    self, claim: Claim, numbers: Mapping[int, Sequence[Meaning]], terms: Sequence[Expression]
  ) -> dict[int, Meaning]:
    """Returns what numbers most likely stand for: what is in a right formula, what they are.

    Both are told in the names of the step that a claim is for, or not at all.
    """
    own = {quantity for term in terms for quantity in quantities(term)}
    written = {item.value for term in terms for item in term if isinstance(item, Number)}
    found = {}
    for index, options in numbers.items():
      value = getattr(claim.working[index], "value", 0.0)
      if value in written:  # it is itself
        continue
      named = [m for m in options if self._has_name(m.quantity, claim.before)]
      exact = [m for m in named if abs(m.at(self._known.values)[points.GIVEN]) == value]
      likely = exact or named
      best = [m for m in likely if m.quantity in own] or likely
      if best:
        found[index] = best[-1]
    return found

  def _right_terms(self, claim: Claim) -> tuple[list[Expression], Mapping[Quantity, np.ndarray]]:
    """Returns a right formula as a sum of terms, and the values of its quantities at points."""
    of, known = claim.of, self._known.values
    if isinstance(of, Name):
      equation = self._sheet.equations.get(of.name)
      before = of.step if equation is not None else of.step - 1
      formula = equation or self._sheet.steps.rules[of.name]
      terms = list(_summands(shift_all(formula, before)))
    else:
      terms, slopes = self._chain_rule(of)
      known = {**slopes, **known}
    if claim.index:
      index = Apply("[]", 1, index=claim.index)
      terms = [(*term, index) for term in terms]
    shapes = {quantity: value.shape[:-1] for quantity, value in known.items()}
    wanted = known[of].shape[len(claim.index) : -1]
    return [term for term in terms if _broadcasts(term, shapes, wanted)], known

  def _chain_rule(self, of: Derivative) -> tuple[list[Expression], dict[Quantity, np.ndarray]]:
    """Returns the terms of the chain rule, one for each equation that a name is in."""
    between = self._graph.between(of.of, of.by)
    children = [child for child in self._graph.children[of.by] if child in between]
    values = self._known.at(of.step)
    slopes: dict[Quantity, np.ndarray] = {
      dataclasses.replace(of, by=child): slope
      for child, slope in self._graph.gradient(of.of, children, values, of.entry, 1).items()
    }
    terms: list[Expression] = []
    for child in children:
      outer = dataclasses.replace(of, by=child)
      cotangent: Expression = (outer,)
      if child == of.of:
        seed = self._graph.seed(child, of.entry)
        cotangent = expressions.as_list(seed) if of.entry else (Number(1.0),)
      term = expressions.pull_back_formula(
        self._sheet.equations[child],
        of.by,
        cotangent,
        self._sheet.shape,
        lambda q: values[spell(q)][..., points.GIVEN],
      )
      if term is not None:
        term = self._graph.in_terms_of_nodes(term, child)
        term = tuple(x if x == outer else shift_all((x,), of.step)[0] for x in term)
        terms += _summands(term)
    return terms, slopes

  def _mistakes(self, claim: Claim) -> dict[str, np.ndarray]:
    """Returns what one gets by a usual mistake, `[*shape, P]`, by what is to be said of it."""
    of = claim.of
    if not isinstance(of, Derivative):
      return {}
    found, values = {}, self._known.at(of.step)
    for child in self._graph.children[of.by]:
      equation = self._sheet.equations[child]
      last = equation[-1]
      is_softmax = isinstance(last, Apply) and last.function == "softmax"
      if is_softmax and equation[:-1] == (Name(of.by),) and self._graph.depends(of.of, child):
        out = values[child]
        above = self._graph.gradient(of.of, [child], values, of.entry, 1)[child]
        said = "every entry of a softmax depends on all entries of its argument, not on one alone"
        found[said] = (above * out * (1 - out))[claim.index]
    return found

  def _spell(self, quantity: Quantity, before: int) -> str:
    """Returns a quantity as it is written in a claim for a step with some steps before."""
    text = self._sheet.spell(quantity)
    return spell(shift(quantity, -before)) if before and "'" in text else text

  def _has_name(self, quantity: Quantity, before: int) -> bool:
    """Returns whether a quantity has a name in a claim for a step with some steps before."""
    return quantity.step >= before or "'" not in self._sheet.spell(shift(quantity, before))

  def _candidates(self, claim: Claim) -> list[Quantity]:
    """Returns the quantities that a formula may lack: those in the right one first."""
    of = claim.of
    own: list[Quantity] = []
    if isinstance(of, Name):
      equation = self._sheet.equations.get(of.name)
      before = of.step if equation is not None else of.step - 1
      formula = equation or self._sheet.steps.rules.get(of.name, ())
      own = [shift(quantity, before) for quantity in quantities(formula)]
    settings = set(self._sheet.steps.settings)
    if isinstance(of, Name) and of.name in self._sheet.steps.rules:
      settings.discard("learning_rate")
    all_of_them = dict.fromkeys([*own, *self._known.values])
    others = [q for q in all_of_them if q.step >= claim.before and not self.follows(q, of)]
    return [q for q in others if isinstance(q, Derivative) or q.name not in settings]

  def follows(self, quantity: Quantity, of: Quantity) -> bool:
    """Returns whether a quantity is what a claim is of, or is computed from it."""
    if quantity == of or not isinstance(of, Name) or not isinstance(quantity, Name):
      return quantity == of
    if quantity.step != of.step:
      return quantity.step > of.step
    rules = list(self._sheet.steps.rules)
    if of.name in rules and quantity.name in rules and of.step:
      return rules.index(quantity.name) > rules.index(of.name)
    return quantity.name in self._graph.downstream(of.name)

  def _factors(self, of: Quantity) -> dict[str, np.ndarray]:
    """Returns the factors of the chain rule on the way to a derivative, or to an update."""
    slope = self._sheet.slope_of(of)
    if slope is None:
      return {}
    between = self._graph.between(slope.of, slope.by)
    values = self._known.at(slope.step)
    factors = {}
    for node in between[-20:]:
      inputs = [name for name in self._graph.inputs_of.get(node, ()) if name in between]
      inputs = [
        name
        for name in inputs
        if self._sheet.shapes[node] == () or self._graph.is_elementwise(node, name)
      ]
      for name, value in self._graph.gradient(node, inputs, values, num_points=1).items():
        factors[spell(Derivative(node, name, (), slope.step))] = value
    return factors


def _summands(formula: Expression) -> Iterator[Expression]:
  """Yields the terms of a sum."""
  last = formula[-1]
  if last in (Apply("+", 2), Apply("-", 2)):
    right = expressions.part(formula, len(formula) - 2)
    yield from _summands(formula[: -1 - len(right)])
    negative = (*right, Apply("negative", 1))
    yield right if last == Apply("+", 2) else negative
  else:
    yield formula


def _broadcasts(formula: Expression, shapes: Mapping[Quantity, Shape], wanted: Shape) -> bool:
  """Returns whether a formula has a shape, or one that broadcasts to it."""
  try:
    return (
      np.broadcast_shapes(expressions.shapes(formula, shapes.__getitem__)[-1], wanted) == wanted
    )
  except (InputError, ValueError):
    return False
