"""Tests over paired differences, their correction, and their power."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxdl.errors import InputError, check_integer, show
from jaxdl.stats.scores import ROUNDING, is_constant, mean, std, t_quantile

# Up to this many pairs the sign-flip test is exact.
MAX_EXACT = 32
NUM_RESAMPLES = 99_999

# `seeds_needed` aims at this power and is not searched beyond this number.
POWER = 0.8
MAX_SEEDS_NEEDED = 1_000_000

# With n pairs that look alike, a share of up to 1 - 0.05^(1/n) of all seeds may still be far off
# (95% confidence): 39% with 6 pairs, 17% with 16. So fewer pairs than this show no equivalence.
MIN_PAIRS_EQUIVALENT = 16


def sign_flip_test(
  differences: np.ndarray,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
  max_exact: int = MAX_EXACT,
) -> float:
  """Tests, two-sided, whether paired differences are symmetric around zero.

  If both arms had one distribution within a seed, every difference could as well have had the other
  sign. The p-value is the share of sign patterns whose |sum| is at least the observed one (Fisher,
  1935, The Design of Experiments, section 21). If only the means are equal and the differences are
  skewed, p-values are too small.

  Up to `max_exact` differences all 2^n patterns are counted, the observed one among them. Above, p
  is (1 + count) / (1 + num_resamples) over random patterns (Phipson & Smyth, 2010, Statistical
  Applications in Genetics and Molecular Biology 9:39). p does not depend on the order of the
  differences, nor on which arm is subtracted.

  Two sums that are equal on paper may round differently, and a pattern that ties with the observed
  one has to count. So a pattern also counts if its |sum| falls short by up to 1e-9 of the sum of
  magnitudes, far above the rounding error and far below a difference that matters.

  Args:
    differences: [n], see `paired_differences`.
    num_resamples: random sign patterns if n > max_exact, at least 1.
    seed: of their random number generator.
    max_exact: the largest n that is tested exactly; memory and time grow like 2^(n / 2).

  Returns:
    The p-value, in (0, 1]. It is 1 if `differences` is empty or all of them are zero.

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: `num_resamples` is less than 1.
  """
  differences = _check_differences(differences)
  check_num_resamples(num_resamples)
  magnitudes = np.sort(
    np.abs(differences)
  )  # [n]; sorted, so that the order of seeds does not matter
  at_least = abs(differences.sum()) - ROUNDING * magnitudes.sum()
  n = len(magnitudes)
  if at_least <= 0:
    return 1.0
  if n <= max_exact:
    # By symmetry as many sums lie below -at_least as above at_least.
    return 2 * _count_signed_sums(magnitudes, at_least) / 2**n
  count = _count_resampled(magnitudes, at_least, num_resamples, seed)
  return (1 + count) / (1 + num_resamples)


def _count_signed_sums(magnitudes: np.ndarray, at_least: float) -> int:
  """Counts the sign patterns, of all 2^n, whose sum reaches `at_least`.

  Every sum is one of the 2^(n/2) sums of the first half plus one of the second half. With the
  second sorted, a binary search counts the partners of each of the first (meet in the middle:
  Horowitz & Sahni, 1974, Journal of the ACM 21:277).
  """
  half = len(magnitudes) // 2
  first = _signed_sums(magnitudes[:half])
  second = np.sort(_signed_sums(magnitudes[half:]))
  return int(np.sum(len(second) - np.searchsorted(second, at_least - first, side="left")))


def _signed_sums(magnitudes: np.ndarray) -> np.ndarray:
  sums = np.zeros(1)
  for magnitude in magnitudes:
    sums = np.concatenate([sums - magnitude, sums + magnitude])
  return sums  # [2^n]


def _count_resampled(magnitudes: np.ndarray, at_least: float, num_resamples: int, seed: int) -> int:
  """Counts the random sign patterns, of `num_resamples`, whose |sum| reaches `at_least`."""
  rng = np.random.default_rng(seed)
  n = len(magnitudes)
  block = max(1, 2**20 // n)  # patterns at a time, to hold 8 MiB instead of all of them
  count = 0
  for start in range(0, num_resamples, block):
    rows = min(block, num_resamples - start)
    random_bytes = rng.integers(0, 256, size=(rows, -(-n // 8)), dtype=np.uint8)
    is_positive = np.unpackbits(random_bytes, axis=1, count=n)  # [rows, n]
    sums = (2.0 * is_positive - 1.0) @ magnitudes  # [rows]
    count += int(np.sum(np.abs(sums) >= at_least))
  return count


def tost(differences: np.ndarray, margin: float) -> float:
  """Tests whether the mean difference lies within ± margin (two one-sided paired t-tests).

  A small p says that |mean| >= margin is hardly compatible with the data (Schuirmann, 1987, Journal
  of Pharmacokinetics and Biopharmaceutics 15:657). The larger of the two p-values is

    P(T > (margin - |mean|) / (std / sqrt(n))),   T of Student's t with n - 1 degrees of freedom.

  It is never below 2^-n: if half of all differences were beyond the margin, all of n would still
  lie within it that often. If all differences are one number, p is 2^-n, or 1 if that number is not
  within the margin.

  Args:
    differences: [n], see `paired_differences`.
    margin: positive, in the unit of the differences.

  Returns:
    The p-value, in (0, 1]; NaN where n < 2.

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: `margin` is not positive and finite.
  """
  differences = _check_differences(differences)
  check_margin(margin)
  return max(tost_sides(differences, margin))


def tost_sides(differences: np.ndarray, margin: float) -> tuple[float, float]:
  """Returns the p-values of the two tests of `tost`: of mean <= -margin, and of mean >= margin."""
  n, centre = len(differences), mean(differences)
  if n < 2:
    return math.nan, math.nan
  distances = np.array([margin + centre, margin - centre])  # from either end, inwards
  if is_constant(differences):
    low, high = np.where(distances > margin * ROUNDING, 0.5**n, 1.0)
  else:
    from scipy.special import stdtr  # as `scipy.stats.t.cdf`, in a fiftieth of the time

    p = stdtr(n - 1, -distances / (std(differences) / math.sqrt(n)))
    low, high = np.maximum(p, 0.5**n)
  return float(low), float(high)


def confidence_bounds(differences: np.ndarray, alpha: float) -> tuple[float, float]:
  """Returns a lower and an upper bound of the mean difference, each wrong with probability alpha.

  mean ± t std / sqrt(n), t the 1 - alpha quantile of Student's t with n - 1 degrees of freedom. If
  2^-n is alpha or more, there are too few pairs for a bound, and both are infinite. Equal
  differences give their value as both bounds, although they only show that most seeds give it: a
  share of alpha^(1/n) or more, with confidence 1 - alpha.

  Args:
    differences: [n], see `paired_differences`.
    alpha: in (0, 0.5).

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: `alpha` is out of its range.
  """
  differences = _check_differences(differences)
  check_alpha(alpha)
  n = len(differences)
  if n < 2 or 0.5**n >= alpha:
    return -math.inf, math.inf
  centre = mean(differences)
  half = t_quantile(1 - alpha, n - 1) * std(differences) / math.sqrt(n)
  return centre - half, centre + half


def holm(p_values: Sequence[float], num_comparisons: int | None = None) -> np.ndarray:
  """Corrects p-values for their number, so that any false positive has probability below alpha.

  With the P values in ascending order, the i-th (from 0) becomes the largest of (P - j) p_j over
  j <= i, at most 1 (Holm, 1979, Scandinavian Journal of Statistics 6:65).

  Args:
    p_values: [p], each in [0, 1].
    num_comparisons: P, if these are a part of all comparisons, even one chosen by the results: the
      others count as p-values of 1, which are never too small. None: P is p.

  Returns:
    [p], in the order given; none is below the value it came from.

  Raises:
    ValueError: `p_values` is not a vector of numbers in [0, 1], or longer than `num_comparisons`.
  """
  p = np.asarray(p_values, dtype=np.float64)
  if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
    raise ValueError(f"p_values must be a vector of numbers in [0, 1], got {p}")
  most = len(p) if num_comparisons is None else num_comparisons
  if most < len(p):
    raise ValueError(f"there are {len(p)} p-values of {most} comparisons")
  order = np.argsort(p, kind="stable")
  factors = most - np.arange(len(p))
  corrected = np.empty_like(p)
  corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
  return corrected


def min_pairs(num_comparisons: int, alpha: float = 0.05) -> int:
  """Returns the smallest number of pairs that can be significant after correction.

  All n differences of one sign give the sign-flip test its smallest p-value, 2 / 2^n. The smallest
  n for which `num_comparisons` times that is below alpha: 6 for one comparison, 7 for three.

  Args:
    num_comparisons: pairs of arms compared on one metric, at least 1.
    alpha: level of the tests, in (0, 0.5).

  Raises:
    InputError: an argument is out of its range.
  """
  check_alpha(alpha)
  if num_comparisons < 1:
    raise InputError(f"num_comparisons must be at least 1, got {num_comparisons}")
  return next(n for n in itertools.count(2) if num_comparisons * 2.0 ** (1 - n) < alpha)


def min_pairs_equivalent(num_at_margin: int, alpha: float = 0.05) -> int:
  """Returns the smallest number of pairs that can be equivalent after correction.

  At least MIN_PAIRS_EQUIVALENT, and enough for the smallest p-value of `tost`, 2^-n, to be below
  alpha / num_at_margin.

  Args:
    num_at_margin: see `seeds_needed`.
    alpha: level of the tests, in (0, 0.5).
  """
  check_integer("num_at_margin", num_at_margin, 1)
  check_alpha(alpha)
  enough = next(n for n in itertools.count(2) if num_at_margin * 0.5**n < alpha)
  return max(MIN_PAIRS_EQUIVALENT, enough)


def seeds_needed(
  differences: np.ndarray,
  margin: float,
  num_comparisons: int = 1,
  alpha: float = 0.05,
  num_at_margin: int = 1,
) -> int:
  """Estimates how many pairs give 80% power for a verdict, from the mean and std observed so far.

  The smallest n >= `min_pairs` at which, were the true mean and std those observed,

    P(difference shown) + P(equivalence shown) >= 0.8.

  * A difference is shown by the paired two-sided t-test at alpha / num_comparisons, in the
  direction
    of the mean: P(T(|mean|) > t).
  * Equivalence is shown, where n >= `min_pairs_equivalent`, by the two one-sided t-tests at
    alpha / num_at_margin: P(T(margin - |mean|) > t) + P(T(margin + |mean|) > t) - 1 (Phillips,
    1990, Journal of Pharmacokinetics and Biopharmaceutics 18:137).

  T(d) is noncentral t with n - 1 degrees of freedom and noncentrality d sqrt(n) / std, and t the
  critical value. The permutation test, whose p-values are multiples of 2 / 2^n, has less power than
  the t-test where n is near `min_pairs`.

  Args:
    differences: [n], see `paired_differences`.
    margin: positive, in the unit of the differences.
    num_comparisons: pairs of arms compared on this metric, at least 1.
    alpha: level of the tests, in (0, 0.5).
    num_at_margin: how many pairs of arms can differ by exactly the margin, at least 1; see
      `compare`.

  Returns:
    The number of pairs, at most MAX_SEEDS_NEEDED; `min_pairs` where n < 2 leaves std unknown.

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: another argument is out of its range.
  """
  differences = _check_differences(differences)
  check_margin(margin)
  least = min_pairs(num_comparisons, alpha)
  least_equivalent = min_pairs_equivalent(num_at_margin, alpha)
  if len(differences) < 2:
    return least
  levels = alpha / num_comparisons / 2, alpha / num_at_margin
  effect = abs(mean(differences)), std(differences)
  return seeds_for_power(effect, margin, levels, (least, least_equivalent))


def seeds_for_power(
  effect: tuple[float, float],
  margin: float,
  levels: tuple[float, float],
  least: tuple[int, int],
  num_samples: int = 1,
  overlap: float = 0.0,
) -> int:
  """Searches the number of seeds of `seeds_needed`.

  Args:
    effect: distance of the mean difference from zero, and std of a difference.
    margin: positive.
    levels: one-sided level of the test for a difference, and of either test for equivalence.
    least: the smallest number of seeds that shows a difference, and that shows equivalence.
    num_samples: 1 for paired differences, 2 for two samples: degrees of freedom per seed.
    overlap: of the seeds' splits, see `jaxdl.stats.resampled`; 0 if seeds are independent.
  """
  distance, spread = effect
  least_different, least_equivalent = least

  def is_enough(n: np.ndarray) -> np.ndarray:  # [K] -> [K] bool
    different = _power(distance, spread, n, levels[0], num_samples, overlap)
    tests = (
      _power(x, spread, n, levels[1], num_samples, overlap)
      for x in (margin - distance, margin + distance)
    )
    equivalent = np.where(n >= least_equivalent, np.maximum(sum(tests) - 1, 0), 0)
    return different + equivalent >= POWER

  return _smallest(is_enough, least_different, MAX_SEEDS_NEEDED)


def _power(
  distance: float, spread: float, n: np.ndarray, alpha: float, num_samples: int, overlap: float
) -> np.ndarray:
  """Returns the power `[K]` of a one-sided t-test with n `[K]` seeds."""
  from scipy.stats import nct, t

  # Beyond effects of 10, and noncentralities of 37, power is 0 or 1 and nct loses its accuracy.
  effect = np.clip(distance / spread, -10, 10) if spread > 0 else 10 * np.sign(distance)
  noncentrality = np.clip(effect / np.sqrt(1 / n + overlap), -37, 37)
  degrees = num_samples * (n - 1)
  return nct.sf(t.isf(alpha, degrees), degrees, noncentrality)


def _smallest(is_enough: Callable[[np.ndarray], np.ndarray], low: int, high: int) -> int:
  """Returns the smallest integer from `low` on that is enough, or `high`; finer grid by grid."""
  while low < high:
    grid = np.unique(np.geomspace(low, high, 64).round().astype(int))
    enough = is_enough(grid)
    if not enough.any():
      return high
    first = int(enough.argmax())
    if first == 0:
      return low
    low, high = int(grid[first - 1]) + 1, int(grid[first])
  return high


def _check_differences(differences: np.ndarray) -> np.ndarray:
  differences = np.asarray(differences, dtype=np.float64)
  if differences.ndim != 1:
    raise ValueError(f"differences must be a vector [n], got shape {differences.shape}")
  if not np.isfinite(differences).all():
    raise ValueError("differences must be finite; paired_differences leaves diverged seeds out")
  return differences


def check_margin(margin: float) -> None:
  if not 0 < margin < math.inf:
    raise InputError(f"margin must be positive and finite, got {margin}")


def check_alpha(alpha: float) -> None:
  if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
    raise InputError(f"alpha must be between 0 and 0.5, not {show(alpha)}")


def check_num_resamples(num_resamples: int) -> None:
  check_integer("num_resamples", num_resamples, 1)


def check_settings(num_seeds: int, num_comparisons: int, alpha: float, num_resamples: int) -> None:
  """Raises InputError where `compare` would, so that a mistake shows before training.

  Args:
    num_seeds: S.
    num_comparisons: pairs of arms compared on one metric.
    alpha: level of the tests.
    num_resamples: random sign patterns, drawn if there are too many seeds to try them all.
  """
  check_alpha(alpha)
  check_num_resamples(num_resamples)
  if num_seeds > MAX_EXACT:
    check_resolution(num_resamples, num_comparisons, alpha)


def check_resolution(num_resamples: int, num_comparisons: int, alpha: float) -> None:
  # The smallest p-value there is, 1 / (1 + num_resamples), must be able to pass the correction;
  # no number of seeds would make up for it.
  if num_comparisons / (1 + num_resamples) >= alpha:
    raise InputError(
      f"num_resamples {num_resamples} is too small for {num_comparisons} pairs of arms at alpha "
      f"{alpha}: give at least {num_comparisons / alpha:.0f}"
    )
