"""Splits of the training examples that each seed draws for itself.

Of N examples a seed trains on `num_train` and is tested on `num_test` others. Both numbers are the
same for all seeds, so that all members of an arm share a compiled program.

  folds(K)     seed s has fold s mod K of the (s // K)-th random partition into K folds of N // K
               examples; the N mod K that are left over are trained on
  holdout(f)   tested on a random share f
  bootstrap    trained on N draws with replacement, tested on examples that were not drawn: on N / e
               less three standard deviations of their number, drawn from them, so that every seed
               has as many

The arms of a seed have the same split.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdl import calls
from jaxdl.errors import InputError

_SCHEMES = {
  "folds": (
    calls.Argument("k", lambda k: k >= 2 and k.is_integer(), "an integer >= 2", is_integer=True),
  ),
  "holdout": (calls.Argument("fraction", lambda f: 0 < f < 1, "between 0 and 1"),),
  "bootstrap": (),
}


class Indices(NamedTuple):
  """A split, as indices into the examples; with a leading axis, those of several seeds."""

  train: np.ndarray  # [num_train] int32; of a bootstrap, with repetitions
  test: np.ndarray  # [num_test] int32


def check_scheme(scheme: str) -> None:
  """Raises InputError unless this is a scheme, e.g. "folds(5)"."""
  calls.parse("resample", scheme, _SCHEMES)


@dataclasses.dataclass(frozen=True)
class Resampling:
  """A scheme for N examples.

  Raises:
    InputError: the scheme is unknown, or a part of its splits would be empty.
  """

  scheme: str
  num_examples: int

  def __post_init__(self):
    check_scheme(self.scheme)
    if not 0 < self.num_test < self.num_examples:
      raise InputError(
        f"{self.scheme} of {self.num_examples} examples leaves none to train or none to test on"
      )

  @property
  def _parsed(self) -> tuple[str, dict[str, float]]:
    return calls.parse("resample", self.scheme, _SCHEMES)

  @property
  def num_test(self) -> int:
    """Examples that a seed is tested on."""
    kind, values = self._parsed
    if kind == "folds":
      return self.num_examples // int(values["k"])
    if kind == "holdout":
      return self.num_examples - math.floor(self.num_examples * (1 - values["fraction"]))
    # Of the number of examples that N draws leave out: for large N, N / e and its variance.
    spread = math.sqrt(self.num_examples * (1 / math.e - 2 / math.e**2))
    return math.floor(self.num_examples / math.e - 3 * spread)

  @property
  def num_train(self) -> int:
    """Examples that a seed is trained on; of a bootstrap, draws."""
    is_bootstrap = self._parsed[0] == "bootstrap"
    return self.num_examples - (0 if is_bootstrap else self.num_test)

  @property
  def overlap(self) -> float:
    """Tested over trained examples, for `jaxdl.stats.Scores`; of a bootstrap, different ones."""
    if self._parsed[0] == "bootstrap":
      return self.num_test / (self.num_examples * (1 - 1 / math.e))
    return self.num_test / self.num_train

  def split(self, root_seed: int, seed: int) -> Indices:
    """Returns the split of a seed."""
    kind, values = self._parsed
    if kind == "bootstrap":
      return self._draw(root_seed, seed)
    repetition, fold = divmod(seed, int(values["k"])) if kind == "folds" else (seed, 0)
    order = np.argsort(_bits(self.num_examples, root_seed, repetition), kind="stable")
    first = fold * self.num_test
    is_test = np.zeros(self.num_examples, bool)
    is_test[order[first : first + self.num_test]] = True
    return Indices(*(np.flatnonzero(part).astype(np.int32) for part in (~is_test, is_test)))

  def splits(self, root_seed: int, seeds: Sequence[int]) -> Indices:
    """Returns the splits of seeds, `[S, num_train]` and `[S, num_test]`."""
    return Indices(*map(np.stack, zip(*(self.split(root_seed, s) for s in seeds), strict=True)))

  def _draw(self, root_seed: int, seed: int) -> Indices:
    size, attempt = self.num_examples, 0
    while True:
      drawn = _bits(size, root_seed, seed, attempt) % np.uint64(size)
      left = np.setdiff1d(np.arange(size), drawn)
      if len(left) >= self.num_test:  # one time in a thousand there are fewer
        break
      attempt += 1
    order = np.argsort(_bits(len(left), root_seed, seed, attempt, 1), kind="stable")
    chosen = np.sort(left[order[: self.num_test]])
    return Indices(np.sort(drawn).astype(np.int32), chosen.astype(np.int32))


def _bits(size: int, *key: int) -> np.ndarray:
  """Returns random integers of 64 bits, `[size]`, the same in every version of NumPy."""
  return np.random.PCG64(key).random_raw(size)
