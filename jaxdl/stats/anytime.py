"""A test by betting, whose level holds however a run is continued and whenever it is stopped.

It needs no plan, and pays for that with 10 to 35% more seeds than looks that were planned (see
`sequential.py`). It is for runs that were planned otherwise, ended undecided, and go on.
"""

import math

import numpy as np

from jaxdl.stats.scores import Scores, count_diverged, differences_by_seed, is_constant, mean
from jaxdl.stats.tests import MIN_PAIRS_EQUIVALENT, check_alpha, check_margin
from jaxdl.stats.verdicts import (
  ANYTIME,
  BETTER,
  EQUIVALENT,
  UNDECIDED,
  WORSE,
  Verdict,
  arm_pairs,
  beside_diverged,
  check_no_overlap,
  count_pairs,
)

# The strengths of the bets; each gets the same share of the stake.
_STRENGTHS = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])


def log_e_values(differences: np.ndarray) -> np.ndarray:
  """Returns the logarithm of the evidence that differences are above zero, after each of them.

  With r_i^2 the mean of d_1^2 ... d_i^2, over the strengths k,

    E_n = mean_k prod_{i <= n} exp(k d_i / r_i) / cosh(k d_i / r_i).

  Given the magnitudes, the signs of differences that are symmetric around zero are fair coins, and
  E[exp(z s) / cosh(z)] = 1 for a fair sign s: E_n is a martingale, and P(E_n >= 1 / alpha for any
  n) <= alpha (Ville's inequality). Zeros do not change it. (Vovk & Wang, 2024, Nonparametric
  e-tests of symmetry, New England Journal of Statistics in Data Science, arXiv:2208.08925; Ramdas,
  Ruf, Larsson & Koolen, 2020, arXiv:2009.03167.)

  Args:
    differences: [n], in the order in which they came.

  Returns:
    [n], log E_1 ... log E_n.
  """
  d = np.asarray(differences, dtype=np.float64)
  scale = np.sqrt(np.cumsum(d**2) / np.arange(1, len(d) + 1))  # [n]
  ratio = np.divide(d, scale, out=np.zeros_like(d), where=scale > 0)
  bets = _STRENGTHS[:, None] * ratio  # [k, n]
  # log(exp(x) / cosh(x)) = -log((1 + exp(-2x)) / 2)
  gains = np.cumsum(math.log(2) - np.logaddexp(0, -2 * bets), axis=1)  # [k, n]
  return np.logaddexp.reduce(gains, axis=0) - math.log(len(_STRENGTHS))


@beside_diverged
def compare_anytime(
  scores: Scores,
  margin: float,
  alpha: float = 0.05,
  reference: str | None = None,
  only_with: str | None = None,
) -> list[Verdict]:
  """Compares arms with the seeds so far, at a level that holds at every number of seeds.

  With P pairs of arms, E_n(x) the evidence of `log_e_values`, and its largest value so far taken,
  a pair is

  * EQUIVALENT if E(margin - d) and E(d + margin) both reach P / alpha from 16 pairs on, and no
    seed of either arm diverged;
  * BETTER or WORSE if E(d) or E(-d) reaches 2 P / alpha;
  * UNDECIDED else.

  The probability that any pair has a wrong verdict at any number of seeds is at most alpha, if
  differences are symmetric around their mean. The interval holds at all of them and for all pairs
  together with probability 1 - alpha: it has the means that such a test does not reject.

  Args:
    scores: values [n, A], seeds in the order in which they came. An arm all of whose pairs are
      decided needs no further ones; see `Scores.num_trained`.
    margin: the largest difference that counts as none, in the metric's own unit; positive.
    alpha: probability of any wrong verdict, in (0, 0.5).
    reference: the one arm that each of the others is compared with; None: every pair is compared.
    only_with: see `compare`.

  Returns:
    One verdict per pair of arms, as in `compare`. The p-values are the reciprocals of the evidence,
    `p_holm` corrected by Bonferroni; they too hold at every number of seeds.

  Raises:
    InputError: an argument is out of its range, or seeds are overlapping splits.
  """
  check_no_overlap(scores)
  check_margin(margin)
  check_alpha(alpha)
  num_pairs = count_pairs(len(scores.arms), reference)
  return [
    _verdict(scores, *pair, float(margin), alpha, num_pairs)
    for pair in arm_pairs(scores, reference or only_with)
  ]


def _verdict(
  scores: Scores, arm_a: str, arm_b: str, margin: float, alpha: float, num_pairs: int
) -> Verdict:
  every = differences_by_seed(scores, arm_a, arm_b)
  d = every[~np.isnan(every)]  # [n]
  num_diverged = [count_diverged(scores, arm, len(every)) for arm in (arm_a, arm_b)]
  sides = _largest_log(d), _largest_log(-d)
  p_value = min(1.0, 2 * math.exp(-max(sides)))
  p_equivalence = 1.0
  if len(d) >= MIN_PAIRS_EQUIVALENT:
    within = min(_largest_log(x, MIN_PAIRS_EQUIVALENT) for x in (margin - d, d + margin))
    p_equivalence = min(1.0, num_pairs * math.exp(-within))
  p_corrected = min(1.0, num_pairs * p_value)
  verdict = UNDECIDED
  if p_equivalence <= alpha and not any(num_diverged):
    verdict = EQUIVALENT
  elif p_corrected <= alpha:
    verdict = BETTER if (sides[0] > sides[1]) == scores.higher_is_better else WORSE
  low, high = _interval(d, math.log(2 * num_pairs / alpha))
  return Verdict(
    metric=scores.metric,
    arm_a=arm_a,
    arm_b=arm_b,
    num_pairs=len(d),
    mean_difference=mean(d),
    ci_low=low,
    ci_high=high,
    p_value=p_value,
    p_holm=p_corrected,
    p_beyond_margin=math.nan,
    p_equivalence=p_equivalence,
    margin=margin,
    verdict=verdict,
    beyond_margin=verdict in (BETTER, WORSE) and (low > margin or high < -margin),
    seeds_needed=None,
    num_diverged_a=num_diverged[0],
    num_diverged_b=num_diverged[1],
    num_seeds=len(every),
    confidence=1 - alpha,
    design=ANYTIME,
  )


def _largest_log(differences: np.ndarray, first: int = 1) -> float:
  """Returns the largest log evidence so far, from the first-th difference on, and at least 0."""
  return float(np.max(log_e_values(differences)[first - 1 :], initial=0.0))


def _interval(differences: np.ndarray, limit: float) -> tuple[float, float]:
  """Returns the hull of the means that evidence up to a limit leaves; NaN if there is no end."""
  if len(differences) < 2 or is_constant(differences):
    return math.nan, math.nan

  from scipy.optimize import brentq

  def distance(x: np.ndarray) -> float:
    """Returns how far below the mean of x the first rejected value is."""
    centre, far = mean(x), 100 * float(np.ptp(x))

    def excess(shift: float) -> float:
      return _largest_log(x - centre + shift) - limit

    if excess(far) < 0:
      return math.inf  # no number of so few pairs is rejected
    return brentq(excess, 0.0, far, xtol=1e-12 * far) if excess(0.0) < 0 else 0.0

  below, above = distance(differences), distance(-differences)
  if math.isinf(below) or math.isinf(above):
    return math.nan, math.nan
  return mean(differences) - below, mean(differences) + above
