"""Other ways to write a formula: with other names, functions, axes, products, one at a time."""

import contextlib
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Apply, Expression, Name, Number, Quantity
from jaxdl.byhand.worksheet.working import AtPoints, are_equal
from jaxdl.errors import InputError

# At most so many other names, or pairs of them, are tried.
_MAX_TRIES = 500
_MAX_PAIRS = 60
_OPERATORS = ("+", "-", "*", "/", "@")
# Functions that are taken for each other.
_ALIKE = (
  ("sigmoid", "tanh", "relu", "softplus", "gelu", "leaky_relu", "step"),
  ("exp", "log", "ln"),
  ("sin", "cos"),
  ("max_pool", "mean_pool"),
  ("softmax", "log_softmax"),
  ("max", "min", "sum", "mean"),
)
_WITH_AXIS = ("sum", "mean", "softmax", "log_softmax")

# A sentence, and the formula that it leads to.
_Tries = Iterable[tuple[str, Expression]]


def _that_fit(tries: Callable[["Rewrites"], _Tries]) -> Callable[["Rewrites"], Iterator[str]]:
  """Turns a method that yields tries into one that yields the sentences of those that are right."""

  @functools.wraps(tries)
  def sentences(rewrites):
    return (said for said, formula in tries(rewrites) if rewrites._fits(formula))

  return sentences


class Rewrites:
  """Says how a wrong formula could be written so that it is right.

  Args:
    formula: the wrong formula.
    target: `[*shape, P]`, the right values.
    known: the values of all quantities at the same points.
    candidates: the quantities that may be in it, the likeliest first.
    terms: a right formula, as the sum of these.
    spell: how a quantity is written.
  """

  def __init__(
    self,
    formula: Expression,
    target: np.ndarray,
    known: AtPoints,
    candidates: Collection[Quantity],
    terms: Sequence[Expression],
    spell: Callable[[Quantity], str],
  ):
    self._formula, self._target, self._known = formula, target, known
    self.candidates, self.terms, self._spell = candidates, terms, spell

  def write(self, formula: Expression) -> str:
    """Returns a formula as text."""
    return expressions.write(formula, self._spell)

  def _fits(self, formula: Expression) -> bool:
    """Returns whether a formula has the shape and the values of the target."""
    known, target = self._known, self._target
    try:
      found = expressions.shapes(formula, lambda q: known[q].shape[:-1])
    except InputError:
      return False
    if found[-1] != target.shape[:-1]:
      return False
    values = expressions.steps(formula, lambda q: known[q][..., None, :], num_points=2)
    shape = (*target.shape[:-1], 1, target.shape[-1])
    return bool(are_equal([*values, np.broadcast_to(values[-1], shape)], target).all())

  def _with(self, part: Expression, place: int, other: Expression) -> Expression:
    """Returns the formula with another part that ends at a place."""
    return (*self._formula[: place + 1 - len(part)], *other, *self._formula[place + 1 :])

  def _applied(self) -> Iterator[tuple[int, Apply, Expression]]:
    """Yields the functions in the formula: place, function, part."""
    for place, item in enumerate(self._formula):
      if isinstance(item, Apply):
        yield place, item, expressions.part(self._formula, place)

  @_that_fit
  def products(self) -> _Tries:
    """Yields which product of arrays should have its factors transposed or swapped."""
    for place, item, part in self._applied():
      if item.function not in ("@", "*"):
        continue
      right = expressions.part(self._formula, place - 1)
      for variant in _variants(part[: -1 - len(right)], right):
        sentence = f"{self.write(part)} should be {self.write(variant)}"
        yield sentence, self._with(part, place, variant)

  @_that_fit
  def operators(self) -> _Tries:
    """Yields which operator should be another."""
    for place, item, part in self._applied():
      for operator in _OPERATORS if item.function in _OPERATORS else ():
        other = (*part[:-1], Apply(operator, 2))
        yield f"{self.write(part)} should be {self.write(other)}", self._with(part, place, other)

  @_that_fit
  def signs(self) -> _Tries:
    """Yields which sign between two parts should be another, whatever it then binds."""
    text = expressions.write(self._formula)
    names = {quantity.name for quantity in self._known if isinstance(quantity, Name)}
    for sign in itertools.islice(re.finditer(r" ([-+*/@]) ", text), _MAX_PAIRS):
      for other in _OPERATORS:
        changed = f"{text[: sign.start()]} {other} {text[sign.end() :]}"
        with contextlib.suppress(InputError):
          formula = expressions.parse(changed, names, working=True)
          after = text[sign.end() :].split(" ")[0]
          if all(quantity in self._known for quantity in expressions.quantities(formula)):
            yield f"the {sign[1]} before {after} should be {other}", formula

  @_that_fit
  def functions(self) -> _Tries:
    """Yields which function should be another, have another axis, or should not be there."""
    for place, item, part in self._applied():
      if not item.function.isidentifier() or item.num_args > 1:
        continue
      alike = next((group for group in _ALIKE if item.function in group), ())
      others = [dataclasses.replace(item, function=name) for name in alike]
      for other in ((*part[:-1], other) for other in others if other != item):
        yield f"{self.write(part)} should be {self.write(other)}", self._with(part, place, other)
      inner = part[:-1]
      yield f"{self.write(part)} should be {self.write(inner)}", self._with(part, place, inner)

  @_that_fit
  def axes(self) -> _Tries:
    """Yields which sum should be a mean, or the other way round, or over another axis."""
    for place, item, part in self._applied():
      if item.function not in _WITH_AXIS:
        continue
      options = dict(item.options)
      found = expressions.shapes(part[:-1], lambda q: self._known[q].shape[:-1])
      axes = range(len(found[-1])) if "axis" in options else (None,)
      functions = ("sum", "mean") if item.function in ("sum", "mean") else (item.function,)
      for function, axis in itertools.product(functions, axes):
        changed = {**options, "axis": axis} if axis is not None else options
        other = Apply(function, 1, tuple(sorted(changed.items())))
        replaced = (*part[:-1], other)
        sentence = f"{self.write(part)} should be {self.write(replaced)}"
        if other != item:
          yield sentence, self._with(part, place, replaced)

  @_that_fit
  def other_names(self) -> _Tries:
    """Yields which quantity should be another, of another shape."""
    places = [i for i, item in enumerate(self._formula) if not isinstance(item, Apply | Number)]
    pairs = ((place, other) for place in places for other in self.candidates)
    for place, other in itertools.islice(pairs, _MAX_TRIES):
      item = self._formula[place]
      if isinstance(item, Apply | Number):
        continue
      if self._known[item].shape != self._known[other].shape:
        sentence = f"{self._spell(item)} should be {self._spell(other)}"
        yield sentence, self._with((item,), place, (other,))

  @_that_fit
  def swapped(self) -> _Tries:
    """Yields sentences that say which two quantities, or which two indices, are swapped."""
    pairs = itertools.combinations(expressions.quantities(self._formula), 2)
    for one, two in itertools.islice(pairs, _MAX_PAIRS):
      sentence = f"{self._spell(one)} and {self._spell(two)} are swapped"
      yield sentence, self._renamed({one: two, two: one})
    indices = [item.index for _, item, _ in self._applied()]
    found = sorted({i for index in indices for i in index if isinstance(i, int)})
    for a, b in itertools.islice(itertools.combinations(found, 2), _MAX_PAIRS):
      yield f"the indices {a} and {b} are swapped", self._reindexed({a: b, b: a})

  @_that_fit
  def renumbered(self) -> _Tries:
    """Yields which numbered names are one too late or too early, such as h1, h2 for h0, h1."""
    written = expressions.quantities(self._formula)
    for stem in dict.fromkeys(_stem(quantity)[0] for quantity in written):
      own = [q for q in written if isinstance(q, Name) and _stem(q)[0] == stem and _stem(q)[1]]
      for shift in (-1, 1) if own else ():
        names: dict[Quantity, Quantity] = {
          q: Name(f"{stem}{int(_stem(q)[1]) + shift}", q.step) for q in own
        }
        if all(other in self._known for other in names.values()):
          texts = [", ".join(map(self._spell, some)) for some in (names, names.values())]
          yield f"{texts[0]} should be {texts[1]}", self._renamed(names)

  @_that_fit
  def pairs(self) -> _Tries:
    """Yields sentences that say by which two quantities of a right formula to replace two."""
    right = list(dict.fromkeys(q for term in self.terms for q in expressions.quantities(term)))
    written = expressions.quantities(self._formula)
    wrong = [q for q in written if q not in right]
    absent = [q for q in right if q not in written]
    both = itertools.product(itertools.combinations(wrong, 2), itertools.permutations(absent, 2))
    for old, new in itertools.islice(both, _MAX_PAIRS):
      names = dict(zip(old, new, strict=True))
      texts = [f"{self._spell(a)} should be {self._spell(b)}" for a, b in names.items()]
      yield " and ".join(texts), self._renamed(names)

  def _renamed(self, names: Mapping[Quantity, Quantity]) -> Expression:
    return tuple(
      names.get(item, item) if not isinstance(item, Apply | Number) else item
      for item in self._formula
    )

  def _reindexed(self, indices: Mapping[int, int]) -> Expression:
    return tuple(
      dataclasses.replace(
        item, index=tuple(indices.get(i, i) if isinstance(i, int) else i for i in item.index)
      )
      if isinstance(item, Apply)
      else item
      for item in self._formula
    )


def _stem(quantity: Quantity) -> tuple[str, str]:
  """Returns a name without the number at its end, and that number or nothing."""
  if not isinstance(quantity, Name):
    return "", ""
  stem = re.sub("[0-9]{1,4}$", "", quantity.name)
  return stem, quantity.name[len(stem) :]


def _variants(left: Expression, right: Expression) -> Iterator[Expression]:
  """Yields other products of two factors."""
  for first, second in ((left, right), (right, left)):
    for one in (first, _transposed(first)):
      for two in (second, _transposed(second)):
        yield (*one, *two, Apply("@", 2))
    columns = [part[:-1] if part[-1] == Apply("T", 1) else part for part in (first, second)]
    yield (*columns[0], *columns[1], Apply("outer", 2))
  yield (*left, *right, Apply("*", 2))


def _transposed(part: Expression) -> Expression:
  return part[:-1] if part[-1] == Apply("T", 1) else (*part, Apply("T", 1))
