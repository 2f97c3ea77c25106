"""What follows from the claims so far: a forward pass, a backward pass and steps through them."""

from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Derivative, Name, Quantity
from jaxdl.byhand.worksheet.graph import Graph
from jaxdl.byhand.worksheet.sheet import Claim, Worksheet, shift

# (what is differentiated, its entry, gradient steps before, whether by claimed derivatives)
_Pass = tuple[str, tuple[int, ...], int, bool]


class Following:
  """The claims so far, and what follows from them; see the docstring of `checker`.

  Values that follow are computed when they are asked for, and kept until a claim changes them.
  """

  def __init__(self, sheet: Worksheet, graph: Graph):
    self._sheet, self._graph = sheet, graph
    # What was claimed, in the order of the claims; an entry that was not is NaN.
    self.claimed: dict[Quantity, np.ndarray] = {}
    self._values: dict[int, dict[str, Any]] = {}  # gradient steps before -> name -> value
    self._slopes: dict[_Pass, dict[str, Any]] = {}

  def take(self, claim: Claim) -> None:
    """Takes a claim as it stands: whatever it affects follows from it."""
    of = claim.of
    if of not in self.claimed:
      self.claimed[of] = np.full(self._sheet.shape(of), np.nan)
    for entry in claim.entries:
      self.claimed[of][entry.place] = float(entry.value)
    is_name, is_state = isinstance(of, Name), False
    if isinstance(of, Name):
      is_state = of.name in self._sheet.steps.rules and of.step > 0
      values = self._values.get(of.step, {})
      for name in (of.name, *self._graph.downstream(of.name)):
        values.pop(name, None)
    for step in list(self._values):
      if step > of.step or (is_state and step == of.step):
        del self._values[step]
    for key in list(self._slopes):
      _, _, step, by_claims = key
      if step > of.step or (is_name and step == of.step):
        del self._slopes[key]
      elif isinstance(of, Derivative) and step == of.step and by_claims:
        for name in self._graph.ancestors(of.by):
          self._slopes[key].pop(name, None)

  def follow(self, quantity: Quantity, by_claims: bool = True) -> Any:
    """Returns what was claimed, or else what follows from it.

    Args:
      quantity: of which the value is returned.
      by_claims: whether claimed derivatives count; claimed values always do.
    """
    if isinstance(quantity, Name):
      return self._value(quantity)
    if by_claims and self._is_claimed(quantity):
      return self.claimed[quantity]
    slope = self._derivative(quantity, by_claims)
    return self.with_claims(quantity, slope) if by_claims else slope

  def from_before(self, quantity: Quantity, by_claims: bool = True) -> Any:
    """Returns what follows for a quantity from the others, whatever was claimed of it."""
    if isinstance(quantity, Derivative):
      return self._derivative(quantity, by_claims)
    return self._computed(quantity, by_claims)

  def _is_claimed(self, quantity: Quantity) -> bool:
    """Returns whether all entries of a quantity were claimed."""
    return quantity in self.claimed and not np.isnan(self.claimed[quantity]).any()

  def with_claims(self, quantity: Quantity, value: Any) -> Any:
    """Returns a value in which every claimed entry is replaced by what was claimed."""
    claimed = self.claimed.get(quantity)
    return value if claimed is None else np.where(np.isnan(claimed), value, claimed)

  # --- Values ---

  def _value(self, quantity: Name) -> Any:
    values = self._values.setdefault(quantity.step, {})
    if quantity.name not in values:
      # What comes before is computed in order, so that nothing recurses deeply.
      for step in range(1, quantity.step):
        for name in self._sheet.steps.rules:
          self._value(Name(name, step))
      for name in self._graph.ancestors(quantity.name):
        if name not in values:
          inner = Name(name, quantity.step)
          values[name] = self.with_claims(inner, self._computed(inner))
      if quantity.name not in values:
        values[quantity.name] = self.with_claims(quantity, self._computed(quantity))
    return values[quantity.name]

  def _computed(self, quantity: Name, by_claims: bool = True) -> Any:
    """Returns a value by its equation, or by the rule of a gradient step."""
    name, step = quantity.name, quantity.step
    if name in self._sheet.equations:
      return expressions.evaluate(
        self._sheet.equations[name], lambda inner: self.follow(shift(inner, step))
      )
    state = self._sheet.state(name, step)
    if state is not None:
      return state

    def lookup(inner):
      inner = shift(inner, step - 1)
      if isinstance(inner, Derivative):
        return self.follow(inner, by_claims)
      if by_claims or inner.step < step or self._is_claimed(inner):
        return self._value(inner)
      return self.with_claims(inner, self._computed(inner, by_claims))

    return expressions.evaluate(self._sheet.steps.rules[name], lookup)

  def _at(self, step: int, of: str) -> dict[str, Any]:
    """Returns the values that a node depends on, and its own."""
    return {name: self._value(Name(name, step)) for name in self._graph.ancestors(of)}

  # --- Derivatives ---

  def _derivative(self, derivative: Derivative, by_claims: bool) -> Any:
    """Returns a derivative by the chain rule, from what is differentiated back."""
    of, by, entry, step = derivative.of, derivative.by, derivative.entry, derivative.step
    between = self._graph.between(of, by)
    if by not in between:
      return np.zeros(self._sheet.shape(derivative))
    slopes = self._slopes.setdefault((of, entry, step, by_claims), {})
    slopes[of] = self._graph.seed(of, entry)
    for name in reversed(between[:-1]):
      if name not in slopes or name == by:
        quantity = Derivative(of, name, entry, step)
        if name != by and by_claims and self._is_claimed(quantity):
          slopes[name] = self.claimed[quantity]
          continue
        slope = self._chain_step(name, derivative, slopes, between, by_claims)
        if name == by:
          slopes.pop(name, None)  # what was claimed of it is not in it
          return slope
        slopes[name] = self.with_claims(quantity, slope) if by_claims else slope
    return slopes[by]

  def _chain_step(
    self, name: str, derivative: Derivative, slopes: dict, between: list[str], by_claims: bool
  ) -> Any:
    """Returns the derivative with respect to a name from those with respect to what follows it."""
    of, step = derivative.of, derivative.step
    inside = set(between)

    def claimed(numerator):
      quantity = Derivative(numerator, name, (), step)
      known = by_claims and numerator != of and self._is_claimed(quantity)
      return self.claimed[quantity] if known else None

    for middle in reversed(between):  # the nearest to `of` first
      factor = claimed(middle) if middle != name else None
      if factor is not None and self._all_paths_meet(name, middle, of, inside):
        return factor * slopes[middle]
    children = [child for child in self._graph.children[name] if child in inside]
    total = 0.0
    for child in children:
      only_path = not any(self._graph.depends(child, c) for c in children if c != child)
      quantity = Derivative(child, name, (), step)
      if by_claims and only_path and self._is_claimed(quantity):
        total = total + slopes[child] * self.claimed[quantity]
        continue
      is_claimed = Name(child, step) in self.claimed
      pulled = self._graph.pull_back(
        child, self._at(step, child), slopes[child], [name], by_output=is_claimed
      )
      total = total + pulled[name]
    return total

  def _all_paths_meet(self, name: str, meeting: str, end: str, inside: set[str]) -> bool:
    """Returns whether all paths from a name to the end go through another name."""
    if not self._graph.depends(meeting, name):
      return False
    todo, seen = [name], {name, meeting}
    while todo:
      for child in self._graph.children[todo.pop()]:
        if child == end:
          return False
        if child in inside and child not in seen:
          seen.add(child)
          todo.append(child)
    return True
