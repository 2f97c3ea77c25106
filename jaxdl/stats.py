"""Verdicts over seeds: which arm is better, by how much, and how sure that is.

The seed is the unit of every interval and every test. Arms of one seed share their draws, so two
arms are compared through the differences of their scores seed by seed. In shape comments `n` is the
number of seeds on which both arms have a score, and `P` the number of pairs of arms.

A score is NaN where the member diverged. Such seeds leave the pairs and are counted, so a verdict
speaks of the seeds on which both arms trained; the counts stand beside it.

SciPy and statsmodels are imported where they are used: what trains need not wait for them.
"""

import dataclasses
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdl.errors import InputError, check_integer, show, unknown_name

AXES = ("seed", "arm")

BETTER = "better"
WORSE = "worse"
EQUIVALENT = "equivalent"
UNDECIDED = "undecided"
TOO_FEW_SEEDS = "too few seeds"

# Up to this many pairs the sign-flip test is exact.
MAX_EXACT = 32
NUM_RESAMPLES = 99_999

# `seeds_needed` aims at this power and is not searched beyond this number.
POWER = 0.8
MAX_SEEDS_NEEDED = 1_000_000

# Sums that differ by less than this fraction are one number rounded differently. Scores such as
# 0.9712 leave differences such as 0.0012 with a relative error near 1e-13; true differences of
# accuracies are never this close without being equal.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
  """One number per member of a population, e.g. the final test accuracy.

  Equal scores should be equal numbers: divide counts in float64, not in float32.

  Attributes:
    metric: what was measured, e.g. "test_accuracy".
    values: [S, A] in the metric's own unit, kept as a read-only float64 copy. NaN where the member
      diverged.
    seeds: [S] the seed of each row.
    arms: [A] the arm of each column.
    axes: what the axes of `values` are; must be given, and be ("seed", "arm").
    higher_is_better: True for an accuracy, False for a loss.

  Raises:
    ValueError: the axes are named or ordered differently (so a transposed array is refused also
      where S == A), a length disagrees with the names, a name occurs twice, or a value is
      infinite or not a real number.
    TypeError: `higher_is_better` is not a bool.
  """

  metric: str
  values: np.ndarray  # [S, A] float64
  seeds: tuple[int, ...]  # [S]
  arms: tuple[str, ...]  # [A]
  axes: tuple[str, str]
  higher_is_better: bool

  def __post_init__(self):
    if not isinstance(self.higher_is_better, bool):
      raise TypeError(f"higher_is_better must be True or False, got {self.higher_is_better!r}")
    values = np.asarray(self.values)
    if values.dtype.kind not in "fiu":
      raise ValueError(f"values of {self.metric!r} must be real numbers, not {values.dtype}")
    values = values.astype(np.float64)  # [S, A], a copy
    values.flags.writeable = False
    fields = {
      "values": values,
      "seeds": _as_seeds(self.seeds),
      "arms": _as_arms(self.arms),
      "axes": tuple(self.axes),
    }
    for name, value in fields.items():
      object.__setattr__(self, name, value)
    self._check_axes()
    if np.isinf(values).any():
      raise ValueError(
        f"values of {self.metric!r} must be finite, or NaN for a member that diverged; "
        f"{np.isinf(values).sum()} are infinite"
      )

  def _check_axes(self) -> None:
    shape = self.values.shape
    if self.axes != AXES:
      lengths = ", ".join(
        f"axis {axis!r} has length {length}" for axis, length in zip(self.axes, shape, strict=False)
      )
      hint = "; the array is transposed: give values.T" if self.axes == AXES[::-1] else ""
      raise ValueError(f"axes of {self.metric!r} must be {AXES}, got {self.axes} ({lengths}){hint}")
    if len(shape) != 2:
      raise ValueError(f"values of {self.metric!r} must have two axes {AXES}, got shape {shape}")
    expected = (len(self.seeds), len(self.arms))
    if shape != expected:
      lengths = " and ".join(
        f"axis {axis!r} has length {length} for {count} {axis}s"
        for axis, length, count in zip(AXES, shape, expected, strict=True)
      )
      hint = "; the array looks transposed" if shape == expected[::-1] else ""
      raise ValueError(f"values of {self.metric!r} have shape {shape}: {lengths}{hint}")


def _as_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
  if any(isinstance(seed, (bool, np.bool_)) for seed in seeds):
    raise ValueError(f"seeds must be integers, got {seeds}")
  try:
    seeds = tuple(operator.index(seed) for seed in seeds)
  except TypeError:
    raise ValueError(f"seeds must be integers, got {seeds}") from None
  if len(set(seeds)) != len(seeds):
    raise ValueError(f"every seed must occur once, got {seeds}")
  return seeds


def _as_arms(arms: Sequence[str]) -> tuple[str, ...]:
  # A single string would otherwise pass as a sequence of one-letter arms.
  if isinstance(arms, str) or not all(isinstance(arm, str) for arm in arms):
    raise ValueError(f"arms must be a sequence of strings, got {arms!r}")
  if len(set(arms)) != len(arms):
    raise ValueError(f"every arm must occur once, got {tuple(arms)}")
  return tuple(arms)


@dataclasses.dataclass(frozen=True)
class ArmSummary:
  """The scores of one arm over its seeds, in the metric's own unit; see `summarize`."""

  arm: str
  n: int  # seeds with a score
  num_diverged: int  # seeds without one
  mean: float
  std: float
  min: float
  max: float
  ci_low: float
  ci_high: float


@dataclasses.dataclass(frozen=True)
class Verdict:
  """How arm a compares with arm b on one metric; see `compare`, and `sentence` for it in words.

  Attributes:
    metric: what was measured.
    arm_a: the arm the verdict is about.
    arm_b: the arm it is compared with.
    num_pairs: n, the seeds on which both arms have a score.
    mean_difference: a minus b, in the metric's own unit; NaN where n = 0.
    ci_low: lower end of its 95% interval (Student t on the differences); NaN where n < 2.
    ci_high: upper end of it.
    p_value: of the sign-flip test, for this pair of arms alone.
    p_holm: the same, corrected for all pairs of arms of this metric.
    margin: the largest difference that counts as none, in the metric's own unit.
    verdict: BETTER, WORSE, EQUIVALENT, UNDECIDED or TOO_FEW_SEEDS.
    seeds_needed: about how many pairs would decide it, at most MAX_SEEDS_NEEDED (which then means
      that many or more); None where it is decided.
    p_equivalence: of the equivalence test; NaN where n < 2.
    num_diverged_a: seeds on which arm a has no score.
    num_diverged_b: seeds on which arm b has no score.
    num_seeds: S, diverged ones included.
  """

  metric: str
  arm_a: str
  arm_b: str
  num_pairs: int
  mean_difference: float
  ci_low: float
  ci_high: float
  p_value: float
  p_holm: float
  margin: float
  verdict: str
  seeds_needed: int | None
  p_equivalence: float
  num_diverged_a: int
  num_diverged_b: int
  num_seeds: int


def summarize(scores: Scores, confidence: float = 0.95) -> list[ArmSummary]:
  """Summarizes each arm over its seeds.

  The interval is for the mean over seeds: mean ± t std / sqrt(n), t the (1 + confidence) / 2
  quantile of Student's t with n - 1 degrees of freedom. One seed supports no claim about others, so
  std (with n - 1 in the denominator) and interval are NaN where n = 1; all is NaN where n = 0.

  Args:
    scores: values [S, A].
    confidence: coverage of the interval, in (0, 1).

  Returns:
    One summary per arm, in the order of `scores.arms`.

  Raises:
    InputError: `confidence` is not in (0, 1).
  """
  if not 0 < confidence < 1:
    raise InputError(f"confidence must be between 0 and 1, got {confidence}")
  return [
    _summarize_arm(arm, column, confidence)
    for arm, column in zip(scores.arms, scores.values.T, strict=True)
  ]


def _summarize_arm(arm: str, column: np.ndarray, confidence: float) -> ArmSummary:
  finite = column[np.isfinite(column)]  # [n]
  n = len(finite)
  ci_low, ci_high = _student_interval(finite, confidence)
  return ArmSummary(
    arm=arm,
    n=n,
    num_diverged=len(column) - n,
    mean=_mean(finite),
    std=_std(finite),
    min=float(finite.min()) if n else math.nan,
    max=float(finite.max()) if n else math.nan,
    ci_low=ci_low,
    ci_high=ci_high,
  )


def _mean(x: np.ndarray) -> float:
  return float(np.mean(x)) if len(x) else math.nan


def _std(x: np.ndarray) -> float:
  return float(np.std(x, ddof=1)) if len(x) >= 2 else math.nan


def _student_interval(x: np.ndarray, confidence: float) -> tuple[float, float]:
  n = len(x)
  if n < 2:
    return math.nan, math.nan
  from scipy.stats import t

  half = float(t.ppf((1 + confidence) / 2, n - 1)) * _std(x) / math.sqrt(n)
  return _mean(x) - half, _mean(x) + half


def paired_differences(scores: Scores, arm_a: str, arm_b: str) -> np.ndarray:
  """Returns the scores of `arm_a` minus those of `arm_b`, [n], on the seeds where both have one.

  Raises:
    InputError: an arm is not among `scores.arms`.
  """
  for arm in (arm_a, arm_b):
    if arm not in scores.arms:
      raise unknown_name("arm", arm, scores.arms)
  a, b = (scores.values[:, scores.arms.index(arm)] for arm in (arm_a, arm_b))  # [S] each
  differences = a - b  # [S], NaN where either diverged
  return differences[~np.isnan(differences)]  # [n]


def sign_flip_test(
  differences: np.ndarray,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
  max_exact: int = MAX_EXACT,
) -> float:
  """Tests, two-sided, whether paired differences are symmetric around zero.

  Were the arms alike, every difference could as well have had the other sign. The p-value is the
  share of sign patterns whose |sum| is at least the observed one (Fisher, 1935, The Design of
  Experiments, section 21).

  Up to `max_exact` differences all 2^n patterns are counted, the observed one among them. Above, p
  is (1 + count) / (1 + num_resamples) over random patterns (Phipson & Smyth, 2010, Statistical
  Applications in Genetics and Molecular Biology 9:39). p does not depend on the order of the
  differences, nor on which arm is subtracted from which.

  Two sums that are equal on paper may round differently, and a pattern that ties with the observed
  one has to count. So a pattern counts also where its |sum| falls short by up to 1e-9 of the sum of
  magnitudes, far above the rounding error and far below a difference that matters.

  Args:
    differences: [n], see `paired_differences`.
    num_resamples: random sign patterns where n > max_exact, at least 1.
    seed: of their random number generator.
    max_exact: the largest n that is tested exactly; memory and time grow like 2^(n / 2).

  Returns:
    The p-value, in (0, 1]. It is 1 where all differences are zero or where there are none.

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: `num_resamples` is less than 1.
  """
  differences = _check_differences(differences)
  _check_num_resamples(num_resamples)
  magnitudes = np.sort(np.abs(differences))  # [n]; sorted, so that the order of seeds is no matter
  at_least = abs(differences.sum()) - _ROUNDING * magnitudes.sum()
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

  Where all differences are one number, it is 0 if that number is within the margin, else 1.

  Args:
    differences: [n], see `paired_differences`.
    margin: positive, in the unit of the differences.

  Returns:
    The p-value, in [0, 1]; NaN where n < 2.

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: `margin` is not positive and finite.
  """
  differences = _check_differences(differences)
  _check_margin(margin)
  n = len(differences)
  if n < 2:
    return math.nan
  distance = abs(_mean(differences))
  if np.ptp(differences) <= _ROUNDING * np.abs(differences).max():
    return 0.0 if distance < margin * (1 - _ROUNDING) else 1.0
  from scipy.stats import t

  return float(t.sf((margin - distance) / (_std(differences) / math.sqrt(n)), n - 1))


def holm(p_values: Sequence[float]) -> np.ndarray:
  """Corrects p-values for their number, so that any false positive has probability below alpha.

  With the P values in ascending order, the i-th (from 0) becomes the largest of (P - j) p_j over
  j <= i, at most 1 (Holm, 1979, Scandinavian Journal of Statistics 6:65).

  Args:
    p_values: [P], each in [0, 1].

  Returns:
    [P], in the order given; none is below the value it came from.

  Raises:
    ValueError: `p_values` is not a vector of numbers in [0, 1].
  """
  p_values = np.asarray(p_values, dtype=np.float64)
  if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
    raise ValueError(f"p_values must be a vector of numbers in [0, 1], got {p_values}")
  order = np.argsort(p_values, kind="stable")
  factors = np.arange(len(p_values), 0, -1)
  corrected = np.empty_like(p_values)
  corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
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
  _check_alpha(alpha)
  if num_comparisons < 1:
    raise InputError(f"num_comparisons must be at least 1, got {num_comparisons}")
  return next(n for n in itertools.count(2) if num_comparisons * 2.0 ** (1 - n) < alpha)


def seeds_needed(
  differences: np.ndarray, margin: float, num_comparisons: int = 1, alpha: float = 0.05
) -> int:
  """Estimates how many pairs give 80% power for a verdict, from the mean and std observed so far.

  The smaller of two numbers, and never less than `min_pairs`:

  * to detect a difference as large as the observed one: paired two-sided t-test at the Bonferroni
    level alpha / num_comparisons, power in the direction of the difference,
    P(T' > t) with effect = |mean| / std;
  * to show equivalence at level alpha were the true difference zero: power 2 P(T' > t) - 1 with
    effect = margin / std (Phillips, 1990, Journal of Pharmacokinetics and Biopharmaceutics 18:137,
    less the chance, negligible at this power, that both one-sided tests fail together).

  T' is noncentral t with n - 1 degrees of freedom and noncentrality effect * sqrt(n), and t the
  critical value. The permutation test, whose p-values are multiples of 2 / 2^n, has less power than
  the t-test where n is near `min_pairs`.

  Args:
    differences: [n], see `paired_differences`.
    margin: positive, in the unit of the differences.
    num_comparisons: pairs of arms compared on this metric, at least 1.
    alpha: level of the tests, in (0, 0.5).

  Returns:
    The number of pairs, at most MAX_SEEDS_NEEDED; `min_pairs` where n < 2 leaves std unknown.

  Raises:
    ValueError: `differences` is not a vector of finite numbers.
    InputError: another argument is out of its range.
  """
  differences = _check_differences(differences)
  _check_margin(margin)
  minimum = min_pairs(num_comparisons, alpha)
  if len(differences) < 2:
    return minimum
  mean, std = _mean(differences), _std(differences)
  detect = _num_pairs_for_power(abs(mean), std, alpha / num_comparisons / 2, POWER, minimum)
  # 2 P - 1 reaches POWER where P, the power of one of the two tests, reaches (1 + POWER) / 2.
  show_equivalence = _num_pairs_for_power(margin, std, alpha, (1 + POWER) / 2, minimum)
  return min(detect, show_equivalence)


def _num_pairs_for_power(
  difference: float, std: float, alpha: float, power: float, minimum: int
) -> int:
  """Returns the smallest n >= minimum at which a one-sided paired t-test has the power asked for.

  The normal approximation n = ((z_alpha + z_beta) std / difference)^2 falls short of it by a few
  pairs, about z_alpha^2 / 2 (Guenther, 1981, The American Statistician 35:243), so the search
  starts there and goes up.
  """
  if difference == 0:
    return MAX_SEEDS_NEEDED
  # Beyond an effect of 10 every n >= minimum will do, and the noncentral t loses its accuracy.
  effect = min(difference / std, 10.0) if std > 0 else 10.0
  from scipy.stats import norm
  from statsmodels.stats.power import TTestPower

  z = norm.isf(alpha) + norm.ppf(power)
  approximation = (z / effect) ** 2
  if approximation >= MAX_SEEDS_NEEDED:
    return MAX_SEEDS_NEEDED
  t_test = TTestPower()
  for n in range(max(minimum, math.floor(approximation)), MAX_SEEDS_NEEDED):
    if t_test.power(effect, n, alpha, alternative="larger") >= power:
      return n
  return MAX_SEEDS_NEEDED


def compare(
  scores: Scores,
  margin: float,
  alpha: float = 0.05,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
  reference: str | None = None,
) -> list[Verdict]:
  """Compares arms with each other, and corrects for the number of comparisons.

  The verdict on arm a against arm b is the first that holds of

  * TOO_FEW_SEEDS: n is below `min_pairs`, so that no outcome could be significant;
  * EQUIVALENT: the p-value of `tost` is below alpha (also where a tiny difference is significant);
    this one is not corrected for the number of comparisons;
  * BETTER or WORSE: the p-value of `sign_flip_test`, corrected by `holm`, is below alpha;
  * UNDECIDED.

  Decide on the number of seeds before looking: adding seeds until a verdict appears makes false
  ones likelier than alpha.

  Args:
    scores: values [S, A].
    margin: the largest difference that counts as none, in the metric's own unit; positive.
    alpha: level of the tests, in (0, 0.5).
    num_resamples: see `sign_flip_test`.
    seed: see `sign_flip_test`.
    reference: the one arm that each of the others is compared with; None: every pair is compared.

  Returns:
    One verdict per pair of arms, in the order of `scores.arms`: [A (A - 1) / 2], the earlier arm
    first, or with a reference [A - 1], the reference second.

  Raises:
    InputError: the reference is no arm, an argument is out of its range, or `num_resamples` is
      needed and is so small that no p-value could be below alpha after correction.
  """
  _check_margin(margin)
  _check_alpha(alpha)
  _check_num_resamples(num_resamples)
  if reference is None:
    pairs = list(itertools.combinations(scores.arms, 2))
  elif reference in scores.arms:
    pairs = [(arm, reference) for arm in scores.arms if arm != reference]
  else:
    raise unknown_name("reference arm", reference, scores.arms)
  differences = [paired_differences(scores, *pair) for pair in pairs]
  if any(len(d) > MAX_EXACT for d in differences):
    _check_resolution(num_resamples, len(pairs), alpha)
  p_values = [sign_flip_test(d, num_resamples, seed) for d in differences]
  return [
    _verdict(
      scores,
      *pair,
      d,
      p_value=p_value,
      p_holm=float(p_holm),
      margin=float(margin),
      alpha=alpha,
      num_comparisons=len(pairs),
    )
    for pair, d, p_value, p_holm in zip(pairs, differences, p_values, holm(p_values), strict=True)
  ]


def _verdict(
  scores: Scores,
  arm_a: str,
  arm_b: str,
  differences: np.ndarray,
  *,
  p_value: float,
  p_holm: float,
  margin: float,
  alpha: float,
  num_comparisons: int,
) -> Verdict:
  p_equivalence = tost(differences, margin)
  mean_difference = _mean(differences)
  if len(differences) < min_pairs(num_comparisons, alpha):
    verdict = TOO_FEW_SEEDS
  elif p_equivalence < alpha:
    verdict = EQUIVALENT
  elif p_holm < alpha:
    verdict = BETTER if (mean_difference > 0) == scores.higher_is_better else WORSE
  else:
    verdict = UNDECIDED
  needed = None
  if verdict in (TOO_FEW_SEEDS, UNDECIDED):
    needed = seeds_needed(differences, margin, num_comparisons, alpha)
  ci_low, ci_high = _student_interval(differences, 0.95)
  return Verdict(
    metric=scores.metric,
    arm_a=arm_a,
    arm_b=arm_b,
    num_pairs=len(differences),
    mean_difference=mean_difference,
    ci_low=ci_low,
    ci_high=ci_high,
    p_value=p_value,
    p_holm=p_holm,
    margin=margin,
    verdict=verdict,
    seeds_needed=needed,
    p_equivalence=p_equivalence,
    num_diverged_a=_num_diverged(scores, arm_a),
    num_diverged_b=_num_diverged(scores, arm_b),
    num_seeds=len(scores.seeds),
  )


def _num_diverged(scores: Scores, arm: str) -> int:
  return int(np.isnan(scores.values[:, scores.arms.index(arm)]).sum())


def sentence(verdict: Verdict, unit: str = "", scale: float = 1.0) -> str:
  """Says a verdict in one plain sentence, without a full stop.

  Args:
    verdict: from `compare`.
    unit: follows the numbers, e.g. "points".
    scale: the numbers are multiplied by it, e.g. 100 to show an accuracy in [0, 1] in points.
  """
  a, b, metric = verdict.arm_a, verdict.arm_b, verdict.metric
  suffix = f" {unit}" if unit else ""
  low, high = scale * verdict.ci_low, scale * verdict.ci_high
  over = f"95% interval over {verdict.num_pairs} pairs"
  difference = f"difference {_format_interval(low, high)}{suffix}, {over}"
  within = f"{scale * verdict.margin:.6g}{suffix}"
  if verdict.verdict == TOO_FEW_SEEDS:
    text = (
      f"too few seeds ({verdict.num_pairs}) to compare {a} with {b} in {metric}: no claim; "
      f"{format_seeds_needed(verdict)}"
    )
  elif verdict.verdict == EQUIVALENT:
    text = (
      f"{a} and {b} are equivalent in {metric} within {within} "
      f"({difference}; equivalence {_format_p(verdict.p_equivalence)})"
    )
  elif verdict.verdict == UNDECIDED:
    text = (
      f"undecided between {a} and {b} in {metric}: {format_seeds_needed(verdict)} "
      f"({difference}; Holm-corrected {_format_p(verdict.p_holm)}; margin {within})"
    )
  else:
    if verdict.mean_difference < 0:  # "better" and "worse" already say the sign
      low, high = -high, -low
    by = _format_interval(low, high)
    text = (
      f"{a} is {verdict.verdict} than {b} in {metric} by {by}{suffix} "
      f"({over}; Holm-corrected {_format_p(verdict.p_holm)})"
    )
  return text + _format_divergence(verdict)


def format_seeds_needed(verdict: Verdict) -> str:
  """Says how many seeds an undecided verdict, or one from too few seeds, would need."""
  needed, num_pairs = verdict.seeds_needed, verdict.num_pairs
  if needed >= MAX_SEEDS_NEEDED:
    return f"{MAX_SEEDS_NEEDED:,} seeds or more would be needed"
  if num_pairs < 2:
    return f"at least {needed} are needed"
  if needed <= num_pairs:
    # The estimate is for 80% power, so one time in five that many do not decide it.
    return f"about {needed} seeds had an 80% chance to decide it, and these {num_pairs} did not"
  return f"about {needed} seeds would be needed"


def _format_divergence(verdict: Verdict) -> str:
  counts = ((verdict.arm_a, verdict.num_diverged_a), (verdict.arm_b, verdict.num_diverged_b))
  parts = [
    f"{arm} diverged in {count} of {verdict.num_seeds} seeds" for arm, count in counts if count
  ]
  return f"; {' and '.join(parts)}, which are left out of the pairs" if parts else ""


def _format_interval(low: float, high: float) -> str:
  """Formats an interval with two significant digits of its width."""
  width = high - low if high > low else abs(low)
  if not 0 < width < math.inf:
    return f"{low:g} to {high:g}"
  decimals = max(0, 1 - math.floor(math.log10(width)))
  form = f"z.{decimals}f" if decimals <= 8 else ".2e"
  return f"{low:{form}} to {high:{form}}"


def _format_p(p: float) -> str:
  return "p < 0.001" if p < 0.001 else f"p = {p:.3g}"


def to_json(record: Verdict | ArmSummary) -> dict[str, Any]:
  """Returns the fields of a verdict or a summary for `json.dumps(..., allow_nan=False)`.

  JSON has no NaN: a number that is not finite becomes None.
  """
  return {
    name: None if isinstance(value, float) and not math.isfinite(value) else value
    for name, value in dataclasses.asdict(record).items()
  }


def _check_differences(differences: np.ndarray) -> np.ndarray:
  differences = np.asarray(differences, dtype=np.float64)
  if differences.ndim != 1:
    raise ValueError(f"differences must be a vector [n], got shape {differences.shape}")
  if not np.isfinite(differences).all():
    raise ValueError("differences must be finite; paired_differences leaves diverged seeds out")
  return differences


def _check_margin(margin: float) -> None:
  if not 0 < margin < math.inf:
    raise InputError(f"margin must be positive and finite, got {margin}")


def _check_alpha(alpha: float) -> None:
  if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
    raise InputError(f"alpha must be between 0 and 0.5, not {show(alpha)}")


def _check_num_resamples(num_resamples: int) -> None:
  check_integer("num_resamples", num_resamples, 1)


def check_settings(num_seeds: int, num_comparisons: int, alpha: float, num_resamples: int) -> None:
  """Raises InputError where `compare` would, so that it can be known before the training.

  Args:
    num_seeds: S.
    num_comparisons: pairs of arms compared on one metric.
    alpha: level of the tests.
    num_resamples: sign flips drawn where there are too many seeds to try them all.
  """
  _check_alpha(alpha)
  _check_num_resamples(num_resamples)
  if num_seeds > MAX_EXACT:
    _check_resolution(num_resamples, num_comparisons, alpha)


def _check_resolution(num_resamples: int, num_comparisons: int, alpha: float) -> None:
  # The smallest p-value there is, 1 / (1 + num_resamples), must be able to pass the correction;
  # no number of seeds would make up for it.
  if num_comparisons / (1 + num_resamples) >= alpha:
    raise InputError(
      f"num_resamples {num_resamples} is too small for {num_comparisons} pairs of arms at alpha "
      f"{alpha}: give at least {num_comparisons / alpha:.0f}"
    )
