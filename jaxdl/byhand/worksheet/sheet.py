"""What a worksheet is, once it has been read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from jaxdl.byhand.expressions import (
  Derivative,
  Expression,
  Index,
  Name,
  Quantity,
  Shape,
  spell,
  spell_index,
)
from jaxdl.byhand.worksheet.numerals import Numeral


@dataclasses.dataclass(frozen=True)
class Claim:
  """A value that somebody wrote down: a number, or an array of them.

  Attributes:
    of: what it is the value of.
    index: which part of it; empty for the whole.
    entries: the numbers as written, with their places in the whole.
    points: what it is worth.
    before: the gradient steps before the step that it is written for.
    misfit: why the shapes in the line of working do not fit; empty if they do.
    working: the line of working; empty without one.
    working_text: the line of working as written.
  """

  of: Quantity
  index: Index
  entries: tuple[Numeral, ...]
  points: float = 1
  before: int = 0
  misfit: str = ""
  working: Expression = ()
  working_text: str = ""

  def __str__(self) -> str:
    """Returns what it is the value of."""
    return f"{spell(self.of)}{spell_index(self.index)}"


@dataclasses.dataclass(frozen=True)
class Steps:
  """What happens from one gradient step to the next.

  Attributes:
    rules: name -> formula of its value after the step, each after those that it needs.
    initial: the optimizer's state before the first step, by name.
    settings: name -> its value in each step, such as the learning rate.
    examples: the data of each step, by name; they are taken in turn.
    explicit: whether the worksheet says what a step changes, so that there may be several.
  """

  rules: Mapping[str, Expression]
  initial: Mapping[str, np.ndarray]
  settings: Mapping[str, Sequence[float]]
  examples: Sequence[Mapping[str, np.ndarray]] = ()
  explicit: bool = False


@dataclasses.dataclass(frozen=True)
class Worksheet:
  """A valid worksheet.

  Attributes:
    title: its title.
    given: name -> value, a float64 array of its shape.
    equations: name of a node -> its equation, each after those that it depends on.
    formulas: name of a node -> its equation as written.
    shapes: of givens, nodes and the optimizer's state, by name.
    claims: in the order of the file.
    loss: the node that is differentiated for updates; None without updates.
    steps: of gradient descent.
    num_steps: how many of them the claims need.
  """

  title: str
  given: Mapping[str, np.ndarray]
  equations: Mapping[str, Expression]
  formulas: Mapping[str, str]
  shapes: Mapping[str, Shape]
  claims: tuple[Claim, ...] = ()
  loss: str | None = None
  steps: Steps = dataclasses.field(default_factory=lambda: Steps({}, {}, {}))
  num_steps: int = 0

  @property
  def names(self) -> list[str]:
    """Of givens and nodes, each after those that it depends on."""
    return [*self.given, *self.equations]

  def shape(self, quantity: Quantity) -> Shape:
    """Returns the shape of a quantity's value."""
    name = quantity.name if isinstance(quantity, Name) else quantity.by
    return self.shapes.get(name, ())

  def spell(self, quantity: Quantity) -> str:
    """Returns a quantity as it is written, without primes if it is the same in every step."""
    steps = self.steps
    if isinstance(quantity, Name) and quantity.name not in self.equations:
      values = steps.settings.get(quantity.name, ())
      is_data = bool(steps.examples) and quantity.name in steps.examples[0]
      if len(set(values)) == 1 or not (values or is_data or quantity.name in steps.rules):
        return quantity.name
    return spell(quantity)

  def slope_of(self, of: Quantity) -> Derivative | None:
    """Returns the derivative that a value is, or that an updated value is computed from."""
    if isinstance(of, Derivative):
      return of
    slopes = derivatives(self.steps.rules.get(of.name, ()) if of.step else ())
    return shift(slopes[0], of.step - 1) if slopes else None

  def state(self, name: str, step: int) -> np.ndarray | None:
    """Returns a given, a setting or initial state in a step; None if a rule changes it."""
    steps = self.steps
    if name in steps.settings:
      values = steps.settings[name]
      return np.float64(values[min(step, len(values) - 1)])
    if steps.examples and name in steps.examples[0]:
      return steps.examples[step % len(steps.examples)][name]
    if name in steps.rules and step > 0:
      return None
    return self.given[name] if name in self.given else steps.initial.get(name)


_Q = TypeVar("_Q", bound=Name | Derivative)


def shift(quantity: _Q, steps: int) -> _Q:
  """Returns the same quantity some gradient steps later."""
  return dataclasses.replace(quantity, step=quantity.step + steps) if steps else quantity


def shift_all(expression: Expression, steps: int) -> Expression:
  """Returns a formula some gradient steps later."""
  return tuple(shift(x, steps) if isinstance(x, Name | Derivative) else x for x in expression)


def derivatives(expression: Expression) -> list[Derivative]:
  """Returns the distinct derivatives in an expression."""
  return list(dict.fromkeys(item for item in expression if isinstance(item, Derivative)))
