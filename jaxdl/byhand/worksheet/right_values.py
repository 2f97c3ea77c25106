"""The right values of a worksheet, at the given point and around it."""

from collections.abc import Mapping

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Derivative, Expression, Name, Quantity, excerpt, spell
from jaxdl.byhand.worksheet import points
from jaxdl.byhand.worksheet.graph import Graph, by_numerator, inputs_of
from jaxdl.byhand.worksheet.optimizers import EPS
from jaxdl.byhand.worksheet.sheet import Claim, Worksheet, derivatives, shift
from jaxdl.errors import InputError

# Terms of the equations that are differentiated, counted once for every node that is.
_MAX_WORK = 100_000


class RightValues:
  """The right values of names, derivatives and settings, at the given point and around it."""

  def __init__(self, sheet: Worksheet, graph: Graph):
    self._sheet, self._graph = sheet, graph
    slopes = self._mentioned_slopes()
    parameters = {slope.by for slope in slopes}
    examples = {
      f"{name}'{number}": value
      for number, example in enumerate(sheet.steps.examples[1:], 1)
      for name, value in example.items()
    }
    initial = sheet.steps.initial
    around = points.around({**sheet.given, **examples}, parameters, initial)
    self._around = around
    self.fixed = tuple(name for name in around.fixed if name in {*sheet.given, *initial})
    # `[*shape, P]` by quantity.
    self.values: dict[Quantity, np.ndarray] = {}
    for step in range(sheet.num_steps + 1):
      self._add_step(step, [slope for slope in slopes if slope.step == step])

  def here(self, quantity: Quantity) -> np.ndarray:
    """Returns a right value, with 0 for what differs from 0 by rounding errors only."""
    values = self.values[quantity]
    value = values[..., points.GIVEN]
    shifts = np.abs(values[..., points.ROUNDED] - value[..., None])
    rounding = np.where(np.isfinite(shifts), shifts, 0.0).max(axis=-1)
    return np.where(np.abs(value) < np.minimum(1e-9, 10 * rounding), 0.0, value)

  def points(self, claim: Claim) -> np.ndarray:
    """Returns the right values of what a claim is of, `[*shape, P]`."""
    return self.values[claim.of][claim.index]

  def at(self, step: int) -> dict[str, np.ndarray]:
    """Returns the values of all givens and nodes after some gradient steps."""
    return {name: self.values[Name(name, step)] for name in self._sheet.names}

  def _mentioned_slopes(self) -> list[Derivative]:
    """Returns every derivative that a claim, its line of working or a rule needs."""
    sheet, slopes = self._sheet, []
    for claim in sheet.claims:
      slopes += derivatives((claim.of, *claim.working))
    for step in range(sheet.num_steps):
      for rule in sheet.steps.rules.values():
        slopes += [shift(slope, step) for slope in derivatives(rule)]
    slopes = list(dict.fromkeys(slopes))
    wanted = {(slope.of, slope.entry, slope.step) for slope in slopes}
    if sum(self._graph.num_terms(of) for of, _, _ in wanted) > _MAX_WORK:
      raise InputError("the worksheet is too large: too many derivatives of too many equations")
    return slopes

  def _add_step(self, step: int, slopes: list[Derivative]) -> None:
    """Adds everything after some gradient steps: givens, nodes, derivatives."""
    sheet, known = self._sheet, self.values
    for name in (*sheet.steps.settings, *sheet.steps.initial, *sheet.given):
      if Name(name, step) not in known:
        known[Name(name, step)] = self._given(name, step)
    values = {name: known[Name(name, step)] for name in sheet.given}
    if step == 0 or sheet.steps.explicit:
      values = self._graph.values(values, self._around.number_scale)
      known |= {Name(name, step): value for name, value in values.items()}
    self._refuse_what_is_not_finite(step)
    for (of, entry), names in by_numerator(slopes).items():
      found = self._graph.gradient(of, names, values, entry, num_points=1)
      for by, value in found.items():
        quantity = Derivative(of, by, entry, step)
        known[quantity] = value
        if not np.isfinite(value[..., points.GIVEN]).all():
          raise InputError(f"the derivative {spell(quantity)} is not finite at the given values")
    if step < sheet.num_steps:
      for name, rule in sheet.steps.rules.items():
        value = expressions.evaluate(rule, lambda q: known[shift(q, step)], num_points=1)
        known[Name(name, step + 1)] = np.broadcast_to(
          value, (*sheet.shapes[name], points.NUM_POINTS)
        )

  def _given(self, name: str, step: int) -> np.ndarray:
    """Returns a given or a setting in a step, around its value if it is given."""
    examples = self._sheet.steps.examples
    key = name
    if examples and name in examples[0] and step % len(examples):
      key = f"{name}'{step % len(examples)}"
    if key in self._around.given:
      return self._around.given[key]
    value = self._sheet.state(name, 0 if name in self._sheet.steps.initial else step)
    values = np.broadcast_to(np.asarray(value)[..., None], (*np.shape(value), points.NUM_POINTS))
    if name == EPS and name in self._sheet.steps.settings:
      values = values.copy()
      values[..., points.SAME_START] = 0  # nobody calculates with it by hand
    return values

  def _refuse_what_is_not_finite(self, step: int) -> None:
    sheet = self._sheet
    here = {
      name: self.values[Name(name, step)][..., points.GIVEN]
      for name in (*sheet.names, *sheet.steps.rules)
      if Name(name, step) in self.values
    }
    for name, value in here.items():
      if not np.isfinite(value).all():
        text = f" = {excerpt(sheet.formulas[name])}" if name in sheet.formulas else ""
        inputs = _describe_inputs(sheet.equations[name], here) if name in sheet.formulas else ""
        raise InputError(
          f"the value of {spell(Name(name, step))}{text} is not finite{inputs and f': {inputs}'}"
        )


def show_value(value: np.ndarray, digits: int = 6) -> str:
  """Returns a number, or an array as nested lists, rounded to significant digits, never -0."""
  if np.ndim(value) == 0:
    return f"{float(value) + 0.0:.{digits}g}"
  return f"[{', '.join(show_value(inner, digits) for inner in value)}]"


def _describe_inputs(equation: Expression, values: Mapping[str, np.ndarray]) -> str:
  names = inputs_of(equation)
  text = ", ".join(
    f"{name} = {excerpt(show_value(values[name])).strip(chr(39))}" for name in names[:6]
  )
  return (text or "it has no inputs") + (", ..." if len(names) > 6 else "")
