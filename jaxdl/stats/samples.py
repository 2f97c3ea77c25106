"""What the comparison of two arms rests on: pairs of runs, runs that share no seed, or splits.

Each kind has its own test, interval and test of equivalence; `jaxdl.stats.compare` treats them
alike.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from jaxdl.stats import resampled, unpaired
from jaxdl.stats.scores import ROUNDING, Scores, mean, paired_differences, std, student_interval
from jaxdl.stats.tests import MAX_EXACT, min_pairs, sign_flip_test, tost


@dataclasses.dataclass(frozen=True, eq=False)
class Paired:
  """Differences of two arms `[n]`, seed by seed."""

  differences: np.ndarray
  overlap: float = 0.0  # num_test / num_train, where seeds are splits of the same examples
  num_samples: ClassVar[int] = 1

  @property
  def num_pairs(self) -> int:
    return len(self.differences)

  @property
  def mean_difference(self) -> float:
    return mean(self.differences)

  @property
  def spread(self) -> float:
    return std(self.differences)

  @property
  def floor(self) -> float | None:
    return None

  def is_resampled(self, num_resamples: int) -> bool:
    return self.num_pairs > MAX_EXACT

  def min_pairs(self, num_comparisons: int, alpha: float) -> int:
    # A t test could do with two, and would then rest on the normal distribution alone.
    return min_pairs(num_comparisons, alpha)

  def test(self, num_resamples: int, seed: int) -> float:
    return sign_flip_test(self.differences, num_resamples, seed)

  def less(self, amount: float) -> "Paired":
    excess = self.differences - amount
    # On paper equal to the amount, and not after rounding.
    excess[np.abs(excess) <= ROUNDING * (np.abs(self.differences) + abs(amount))] = 0
    return Paired(excess)

  def tost(self, margin: float) -> float:
    return tost(self.differences, margin)

  def interval(self, confidence: float) -> tuple[float, float]:
    return student_interval(self.differences, confidence, self.overlap)


class Resampled(Paired):
  """Differences of two arms `[n]`, split by split, where splits are of the same examples."""

  @property
  def floor(self) -> float:
    return resampled.floor(self.differences, self.overlap)

  def is_resampled(self, num_resamples: int) -> bool:
    return False

  def test(self, num_resamples: int, seed: int) -> float:
    return resampled.corrected_test(self.differences, self.overlap)

  def less(self, amount: float) -> "Resampled":
    return Resampled(self.differences - amount, self.overlap)

  def tost(self, margin: float) -> float:
    return resampled.corrected_tost(self.differences, margin, self.overlap)


@dataclasses.dataclass(frozen=True, eq=False)
class Unpaired:
  """Scores of two arms that share no seed."""

  a: np.ndarray  # [n_a]
  b: np.ndarray  # [n_b]
  overlap: ClassVar[float] = 0.0
  floor: ClassVar[None] = None
  num_samples: ClassVar[int] = 2

  @property
  def num_pairs(self) -> int:
    return min(len(self.a), len(self.b))

  @property
  def mean_difference(self) -> float:
    return mean(self.a) - mean(self.b)

  @property
  def spread(self) -> float:
    return math.hypot(std(self.a), std(self.b))

  def is_resampled(self, num_resamples: int) -> bool:
    return math.comb(len(self.a) + len(self.b), len(self.a)) > num_resamples

  def min_pairs(self, num_comparisons: int, alpha: float) -> int:
    return unpaired.min_runs(num_comparisons, alpha)

  def test(self, num_resamples: int, seed: int) -> float:
    return unpaired.permutation_test(self.a, self.b, num_resamples, seed)

  def less(self, amount: float) -> "Unpaired":
    return Unpaired(self.a - amount, self.b)

  def tost(self, margin: float) -> float:
    return unpaired.welch_tost(self.a, self.b, margin)

  def interval(self, confidence: float) -> tuple[float, float]:
    return unpaired.welch_interval(self.a, self.b, confidence)


Sample = Paired | Unpaired


def sample_of(scores: Scores, arm_a: str, arm_b: str) -> Sample:
  """Returns what two arms are compared by."""
  if not scores.paired:
    a, b = (scores.counted[:, scores.place(arm)] for arm in (arm_a, arm_b))
    return Unpaired(a[~np.isnan(a)], b[~np.isnan(b)])
  differences = paired_differences(scores, arm_a, arm_b)
  if scores.overlap is not None:
    return Resampled(differences, scores.overlap)
  return Paired(differences)
