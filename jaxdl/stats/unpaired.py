"""Tests of two independent samples, for arms that share no seed.

Pairing removes what runs of one seed have in common, so where seeds are shared the tests of
`tests.py` need fewer of them. In shape comments `n_a` and `n_b` are the sizes of the samples.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from jaxdl.stats.scores import ROUNDING, mean, std
from jaxdl.stats.tests import NUM_RESAMPLES

# Rows of assignments that are held at a time.
_BLOCK = 2**14


def permutation_test(
  a: np.ndarray, b: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> float:
  """Tests, two-sided, whether two samples have one distribution.

  The p-value is the share of assignments of the values to samples of these sizes whose |t| is at
  least the observed one, t being Welch's statistic. With it the test is also right for equal means
  of different distributions, if samples are large (Janssen, 1997, Statistics & Probability Letters
  36:9; Chung & Romano, 2013, Annals of Statistics 41:484). All assignments are counted if there are
  at most `num_resamples`; else p is (1 + count) / (1 + num_resamples) over random ones.

  Args:
    a: [n_a], finite.
    b: [n_b], finite.
    num_resamples: random assignments.
    seed: of their random number generator.

  Returns:
    The p-value, in (0, 1]; 1 if a sample has fewer than two values.
  """
  n_a, n = len(a), len(a) + len(b)
  if min(n_a, len(b)) < 2:
    return 1.0
  values = np.concatenate([a, b]) - mean(np.concatenate([a, b]))
  observed = np.zeros((1, n), dtype=bool)
  observed[0, :n_a] = True
  at_least = _abs_t(values, observed)[0] * (1 - ROUNDING)
  if at_least == 0:
    return 1.0
  total = math.comb(n, n_a)
  if total <= num_resamples:
    blocks, extra = _all_assignments(n, n_a), 0
  else:
    blocks, extra, total = _random_assignments(n, n_a, num_resamples, seed), 1, 1 + num_resamples
  count = sum(int((_abs_t(values, block) >= at_least).sum()) for block in blocks)
  return (extra + count) / total


def _abs_t(values: np.ndarray, in_a: np.ndarray) -> np.ndarray:
  """Returns Welch's |t| of each assignment `[R, n]`; infinite if only the means differ."""
  sizes = in_a.sum(axis=1)
  sums, squares = in_a @ values, in_a @ values**2
  parts = []
  for n, first, second in (
    (sizes, sums, squares),
    (in_a.shape[1] - sizes, values.sum() - sums, (values**2).sum() - squares),
  ):
    variance = np.maximum(second - first**2 / n, 0) / (n - 1)
    parts.append((first / n, variance / n))
  (mean_a, of_a), (mean_b, of_b) = parts
  distance, error = np.abs(mean_a - mean_b), np.sqrt(of_a + of_b)
  largest = np.abs(values).max()
  distance = np.where(distance <= ROUNDING * largest, 0, distance)
  error = np.where(error <= ROUNDING * largest, 0, error)
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(distance == 0, 0.0, distance / error)


def _all_assignments(n: int, n_a: int) -> Iterator[np.ndarray]:
  chosen = itertools.combinations(range(n), n_a)
  while rows := list(itertools.islice(chosen, _BLOCK)):
    block = np.zeros((len(rows), n), dtype=bool)
    np.put_along_axis(block, np.array(rows), True, axis=1)
    yield block


def _random_assignments(n: int, n_a: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
  rng = np.random.default_rng(seed)
  for start in range(0, num_resamples, _BLOCK):
    order = rng.random((min(_BLOCK, num_resamples - start), n)).argsort(axis=1)
    yield order < n_a


def min_runs(num_comparisons: int, alpha: float) -> int:
  """Returns the smallest size of two equal samples that can be significant after correction.

  Two samples that do not overlap give the smallest p-value, 2 / C(2n, n).
  """
  return next(n for n in itertools.count(2) if 2 * num_comparisons / math.comb(2 * n, n) < alpha)


def welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
  """Returns the standard error of the difference of means, and its degrees of freedom.

  The error is sqrt(s_a^2 / n_a + s_b^2 / n_b), the degrees are those of Welch (1947, Biometrika
  34:28). Both are NaN if a sample has fewer than two values; without any spread the error is 0.
  """
  parts = [std(x) ** 2 / len(x) if len(x) > 1 else math.nan for x in (a, b)]
  total = sum(parts)
  if not total > 0:
    return total, math.nan
  below = sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
  return math.sqrt(total), total**2 / below


def welch_interval(a: np.ndarray, b: np.ndarray, confidence: float) -> tuple[float, float]:
  """Returns Welch's interval of the difference of means; NaN if there is no spread."""
  error, degrees = welch(a, b)
  if not error > 0:
    return math.nan, math.nan
  from scipy.stats import t

  half = float(t.ppf((1 + confidence) / 2, degrees)) * error
  return mean(a) - mean(b) - half, mean(a) - mean(b) + half


def welch_tost(a: np.ndarray, b: np.ndarray, margin: float) -> float:
  """Tests whether the difference of means lies within ± margin: two one-sided tests of Welch.

  As `tost`, never below 2^-n for n the smaller sample.
  """
  n = min(len(a), len(b))
  error, degrees = welch(a, b)
  if math.isnan(error):
    return math.nan
  distance = abs(mean(a) - mean(b))
  if error == 0:
    return 0.5**n if distance < margin * (1 - ROUNDING) else 1.0
  from scipy.stats import t

  return max(float(t.sf((margin - distance) / error, degrees)), 0.5**n)
