"""Points at which the equations of a worksheet are evaluated, all of them at once.

The first is the point that is given. At the others the givens are a little different, so that two
formulas that agree at all of them are the same function; and close enough that nothing crosses a
kink that is not almost on it.
"""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

_EACH = 4
_DISTANCE = 0.02
_ROUNDING = 2.0**-50

NUM_POINTS = 1 + 5 * _EACH
GIVEN = 0
# Differing from the given point by rounding errors only.
ROUNDED = slice(1, 1 + _EACH)
# All givens are different.
NEAR = slice(1 + _EACH, 1 + 2 * _EACH)
# The same, but targets that add up to 1 still do: only then is dL/dz = p - y, after a softmax.
SAME_SUMS = slice(1 + 2 * _EACH, 1 + 3 * _EACH)
# Besides, the data that are 0, 1 or -1 are the same: a formula may have been simplified for them.
SAME_DATA = slice(1 + 3 * _EACH, 1 + 4 * _EACH)
# And so is what an optimizer starts with, which is 0, and its eps is 0.
SAME_START = slice(1 + 4 * _EACH, NUM_POINTS)


@dataclasses.dataclass(frozen=True)
class Points:
  """Where a worksheet is evaluated.

  Attributes:
    given: name -> values, `[*shape, NUM_POINTS]`.
    fixed: the data with entries that are 0, 1 or -1, which are the same at the points `SAME_DATA`,
      and what an optimizer starts with.
    number_scale: what the numbers in the equations are multiplied by, `[NUM_POINTS]`: 1, but for
      rounding errors.
  """

  given: Mapping[str, np.ndarray]
  fixed: tuple[str, ...]
  number_scale: np.ndarray


def around(
  given: Mapping[str, np.ndarray], parameters: Collection[str], start: Mapping[str, np.ndarray]
) -> Points:
  """Returns the points around the given one.

  Args:
    given: name -> value, a float64 array of its shape.
    parameters: the givens with respect to which something is differentiated; the others are data.
    start: name -> what an optimizer starts with, which does not fall below 0: it may be a mean of
      squares.
  """
  rng = np.random.default_rng(0)
  fixed = {n: np.isin(v, (0, 1, -1)) for n, v in given.items() if n not in parameters}
  fixed |= {name: value == 0 for name, value in start.items()}
  fixed = {name: entries for name, entries in fixed.items() if entries.any()}
  points = {}
  for name, value in {**given, **start}.items():
    shape = (*np.shape(value), NUM_POINTS)
    shift = rng.uniform(0.5, 1, shape) * rng.choice([-1, 1], shape)
    size = np.abs(value)[..., None]
    shift[..., GIVEN] = 0
    shift[..., ROUNDED] *= _ROUNDING * size
    for near in (NEAR, SAME_SUMS, SAME_DATA, SAME_START):
      shift[..., near] *= _DISTANCE * np.where(size == 0, 1.0, size)
    if name in start:
      shift = np.abs(shift)
    for near in (SAME_DATA, SAME_START) if name in fixed else ():
      if name not in start or near is SAME_START:
        shift[..., near] *= ~fixed[name][..., None]
    points[name] = value[..., None] + shift
  for near in (SAME_SUMS, SAME_DATA, SAME_START):
    _keep_sums(given, parameters, points, near)
  number_scale = np.ones(NUM_POINTS)
  number_scale[ROUNDED] += _ROUNDING * rng.choice([-1, 1], _EACH)
  return Points(points, tuple(fixed), number_scale)


def _keep_sums(
  given: Mapping[str, np.ndarray],
  parameters: Collection[str],
  points: dict[str, np.ndarray],
  near: slice,
) -> None:
  """Makes the targets that add up to 1 do so at points: y1 and y2, or the rows of an array."""
  for first, *others in _targets(given, parameters):
    points[first][near] = 1 - sum(points[name][near] for name in others)
  for name, value in given.items():
    if name not in parameters and value.ndim and value.shape[-1] > 1:
      rows = np.abs(value.sum(axis=-1) - 1) < 1e-9
      if rows.all():
        part = points[name][..., near]
        part[..., 0, :] = 1 - part[..., 1:, :].sum(axis=-2)


def _targets(given: Mapping[str, np.ndarray], parameters: Collection[str]) -> list[list[str]]:
  """Returns the scalar data that are called alike, such as y1 and y2, and add up to 1."""
  groups: dict[tuple[str, str], list[str]] = {}
  for name, value in given.items():
    if name not in parameters and value.ndim == 0:
      base, _, primes = name.partition("'")
      groups.setdefault((base.rstrip("0123456789_"), primes), []).append(name)
  return [
    group
    for group in groups.values()
    if len(group) > 1 and abs(sum(given[name] for name in group) - 1) < 1e-9
  ]
