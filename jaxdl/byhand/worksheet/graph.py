"""The equations of a worksheet as a computation graph: values, derivatives, the chain rule."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Derivative, Expression, Lookup, Name, Quantity, spell

Values = Mapping[str, Any]  # name -> float64 scalar, or one value per point


@contextlib.contextmanager
def float64() -> Iterator[None]:
  """Computes in float64, here and nowhere else, and on the CPU, even if there is a GPU."""
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX was told not to use it
    device = None
  with jax.enable_x64(True), jax.default_device(device), np.errstate(all="ignore"):
    yield


@dataclasses.dataclass
class Taken:
  """The claims so far, and the values that follow from them.

  Attributes:
    values: name -> value: claimed, or following from claimed ones.
    claimed: what was claimed, in the order of the claims.
  """

  values: dict[str, float]
  claimed: dict[Quantity, float] = dataclasses.field(default_factory=dict)


def inputs_of(equation: Expression) -> list[str]:
  """Returns the names in an equation, each once."""
  return [spell(quantity) for quantity in expressions.quantities(equation)]


def by_numerator(slopes: Iterable[Derivative]) -> dict[str, list[str]]:
  """Returns what is differentiated -> with respect to what, each once."""
  grouped: dict[str, list[str]] = {}
  for slope in dict.fromkeys(slopes):
    grouped.setdefault(slope.of, []).append(slope.by)
  return grouped


def evaluate(expression: Expression, lookup: Any) -> float:
  """Returns the value of an expression at one point."""
  return float(expressions.evaluate(expression, lambda name: np.float64(lookup(name))))


def _by_name(values: Values) -> Lookup:
  """Returns the lookup for an equation, in which there are only names."""
  return lambda quantity: values[spell(quantity)]


def slopes_of(equation: Expression, at: Values) -> dict[str, Any]:
  """Returns the derivatives of one equation with respect to each name in `at`, point by point."""

  def total(at):
    return expressions.evaluate(equation, _by_name(at)).sum()

  return jax.grad(total)({name: np.asarray(value, np.float64) for name, value in at.items()})


class Graph:
  """The equations of a worksheet; use within `float64`."""

  def __init__(self, equations: Mapping[str, Expression], names: list[str]):
    self._equations = equations
    self.inputs_of = {name: inputs_of(equation) for name, equation in equations.items()}
    # Sets of names as the bits of an integer; every name comes after those that it depends on.
    self._names = names
    self._bit = {name: 1 << i for i, name in enumerate(names)}
    self._ancestors: dict[str, int] = {}  # including the name itself
    self._children: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
      self._ancestors[name] = self._bit[name]
      for inner in self.inputs_of.get(name, ()):
        self._ancestors[name] |= self._ancestors[inner]
        self._children[inner].append(name)
    self._cache: dict[tuple, Any] = {}

  def depends(self, name: str, on: str) -> bool:
    """Returns whether a name depends on another, or is the same."""
    return bool(self._ancestors[name] & self._bit[on])

  def between(self, of: str, by: str) -> list[str]:
    """Returns the names on the paths from `by` to `of`, in order, both included."""
    return [n for n in self._names if self.depends(of, n) and self.depends(n, by)]

  def num_terms(self, of: str) -> int:
    """Returns how many terms a node and everything that it depends on have."""
    return sum(len(e) for name, e in self._equations.items() if self.depends(of, name))

  def downstream(self, name: str) -> list[str]:
    """Returns the nodes that depend on a name, in order, without the name itself."""
    return [node for node in self._equations if node != name and self.depends(node, name)]

  def values(
    self, given: Mapping[str, np.ndarray], number_scale: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Returns the values of all names at P points.

    Args:
      given: name -> values, `[P]`.
      number_scale: `[P]`, what numbers in the equations, other than exponents, are multiplied by.
    """
    values = dict(given)

    def value(equation):
      numbers = expressions.numbers(equation)

      def scaled(index, value):
        return value * number_scale if index in numbers else value

      return expressions.steps(equation, _by_name(values), scaled)[-1]

    for name, equation in self._equations.items():
      values[name] = np.broadcast_to(np.asarray(value(equation)), number_scale.shape)
    return values

  def value(self, node: str, values: Mapping[str, float]) -> float:
    """Returns a node by its own equation."""
    key = (node, *(values[name] for name in self.inputs_of[node]))
    if key not in self._cache:
      self._cache[key] = evaluate(self._equations[node], _by_name(values))
    return self._cache[key]

  def gradient(self, of: str, by: list[str], values: Values) -> dict[str, Any]:
    """Returns derivatives of a node or given, point by point, by `jax.grad` of the whole graph.

    A shift of 0 is added to each of `by`. The derivative with respect to the shift treats the name
    as free and lets everything downstream of it follow.
    """
    moving = [n for n in self._equations if self.depends(of, n)]
    moving = [n for n in moving if any(self.depends(n, name) for name in by)]

    def shifted(shifts):
      now = {name: np.asarray(value, np.float64) for name, value in values.items()}
      now |= {name: now[name] + shift for name, shift in shifts.items() if name not in moving}
      for node in moving:
        now[node] = expressions.evaluate(self._equations[node], _by_name(now))
        if node in shifts:
          now[node] = now[node] + shifts[node]
      return now[of].sum()

    shifts = {name: np.zeros(np.shape(values[name])) for name in by}
    return {name: np.asarray(slope) for name, slope in jax.grad(shifted)(shifts).items()}

  def partials(self, node: str, taken: Taken) -> dict[str, float]:
    """Returns the derivatives of a node's own equation at taken values, other names held fixed.

    If the node was claimed and the derivative of the last step is a function of its result, that
    function is used.
    """
    names, equation = self.inputs_of[node], self._equations[node]
    last = equation[-1]
    by_output = None
    if isinstance(last, expressions.Apply) and Name(node) in taken.claimed:
      by_output = expressions.DERIVATIVES_BY_OUTPUT.get(last.function)
    factor = 1.0
    if by_output is not None:
      equation, factor = equation[:-1], by_output(taken.claimed[Name(node)])
    key = (node, by_output is None, *(taken.values[name] for name in names))
    if key not in self._cache:
      slopes = slopes_of(equation, {name: taken.values[name] for name in names})
      self._cache[key] = {name: float(slope) for name, slope in slopes.items()}
    return {name: factor * slope for name, slope in self._cache[key].items()}

  def chain(self, derivative: Derivative, taken: Taken) -> float:
    """Returns a derivative by the chain rule from taken values; see the docstring of `checker`."""
    of, by = derivative.of, derivative.by
    claimed_by: dict[str, list[str]] = {}  # v -> [m of dm/dv that was claimed]
    for quantity in taken.claimed:
      if isinstance(quantity, Derivative):
        claimed_by.setdefault(quantity.by, []).append(quantity.of)
    slopes = {of: 1.0}
    for name in reversed(self.between(of, by)):
      if name == of:
        continue
      known = taken.claimed.get(Derivative(of, name))
      slopes[name] = (
        self._chain_step(name, of, slopes, claimed_by.get(name, []), taken)
        if known is None
        else known
      )
    return slopes.get(by, 0.0)

  def _chain_step(
    self, name: str, of: str, slopes: Mapping[str, float], claimed: list[str], taken: Taken
  ) -> float:
    """Returns d of/d name from the derivatives of `of` with respect to what depends on the name."""
    inner = [m for m in slopes if m in claimed and m not in (of, name)]
    for m in inner:  # in the order of `slopes`: the nearest to `of` first
      if self._all_paths_meet(name, m, slopes):
        return taken.claimed[Derivative(m, name)] * slopes[m]
    children = [child for child in self._children[name] if child in slopes]
    total = 0.0
    for child in children:
      only_path = not any(self.depends(child, c) for c in children if c != child)
      known = taken.claimed.get(Derivative(child, name)) if only_path else None
      factor = self.partials(child, taken)[name] if known is None else known
      total += slopes[child] * factor
    return total

  def _all_paths_meet(self, name: str, meeting: str, slopes: Mapping[str, float]) -> bool:
    """Returns whether all paths from a name, within those of `slopes`, go through another."""
    if not self.depends(meeting, name):
      return False
    end = next(iter(slopes))
    todo, seen = [name], {name, meeting}
    while todo:
      for child in self._children[todo.pop()]:
        if child == end:
          return False
        if child in slopes and child not in seen:
          seen.add(child)
          todo.append(child)
    return True
