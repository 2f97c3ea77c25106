"""Verdicts over seeds: which arm is better, by how much, and how sure that is.

The seed is the unit of every interval and every test. Arms of one seed share their draws, so two
arms are compared through the differences of their scores seed by seed. In shape comments `n` is the
number of seeds on which both arms have a score, `A` the number of arms, and `P` that of their
pairs.

A score is NaN where the member diverged. It counts as `Scores.diverged_as`, so that a verdict is
about all seeds (intention to treat: an arm that diverges on hard seeds is not compared on the easy
ones); the verdict without such seeds stands beside it. Without that number, diverged seeds leave
the pairs. Arms of which one diverged are never called equivalent.

SciPy is imported where it is used: training need not wait for it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import numpy as np

from jaxdl.errors import InputError, unknown_name
from jaxdl.stats.crossed import Crossed
from jaxdl.stats.samples import Sample, sample_of
from jaxdl.stats.scores import ArmSummary, Scores, count_diverged
from jaxdl.stats.tests import (
  NUM_RESAMPLES,
  check_alpha,
  check_margin,
  check_num_resamples,
  check_resolution,
  holm,
  min_pairs_equivalent,
  seeds_for_power,
)

_P = ParamSpec("_P")

BETTER = "better"
WORSE = "worse"
EQUIVALENT = "equivalent"
UNDECIDED = "undecided"
TOO_FEW_SEEDS = "too few seeds"

# How the number of seeds was decided, and with it the test.
FIXED = "fixed number of seeds"  # `compare`
UNPAIRED = "fixed number of runs, unpaired"  # `compare`, where arms share no seed
RESAMPLED = "fixed number of splits"  # `compare`, where each seed has its own split of the examples
GROUP_SEQUENTIAL = "group-sequential"  # `jaxdl.stats.sequential`
ANYTIME = "betting"  # `jaxdl.stats.anytime`


@dataclasses.dataclass(frozen=True)
class Verdict:
  """How arm a compares with arm b on one metric; see `compare`, and `wording.py` for it in words.

  The p-values are NaN where there are too few seeds, so that nothing is tested, and with the design
  GROUP_SEQUENTIAL, whose levels differ by look.

  Attributes:
    metric: what was measured.
    arm_a: the arm the verdict is about.
    arm_b: the arm it is compared with.
    num_pairs: n, the seeds on which both arms count; with the design UNPAIRED, the scores of the
      arm that has fewer.
    mean_difference: a minus b, in the metric's own unit; NaN where n = 0.
    ci_low: lower end of its interval (Student t on the differences; with another design, see
      `compare_looks`, `compare_anytime` and `jaxdl.stats.resampled`); NaN where n < 2 or all
      differences are equal.
    ci_high: upper end of it.
    p_value: of the sign-flip test, or that of the design, for this pair of arms alone.
    p_holm: the same, corrected for all pairs of arms of this metric.
    p_beyond_margin: of the same test that |difference| is beyond the margin, corrected
      likewise.
    p_equivalence: of the equivalence test, corrected for all pairs of arms of this metric.
    margin: the largest difference that counts as none, in the metric's own unit.
    verdict: BETTER, WORSE, EQUIVALENT, UNDECIDED or TOO_FEW_SEEDS.
    beyond_margin: whether it is BETTER or WORSE, and by more than the margin.
    seeds_needed: where it is open, about how many pairs would decide it, at most MAX_SEEDS_NEEDED
      (which then means that many or more, or with the design RESAMPLED none); None where it is
      decided, or where no number would do because an arm diverged.
    num_diverged_a: seeds on which arm a has no score.
    num_diverged_b: seeds on which arm b has no score.
    num_seeds: S, diverged ones included; of a design with looks, those of the look that decided.
    confidence: of the interval; of a design with looks, that of all pairs and looks together.
    design: FIXED, UNPAIRED, RESAMPLED, GROUP_SEQUENTIAL or ANYTIME.
    budget: of a GROUP_SEQUENTIAL design, the largest number of seeds; else None.
    diverged_as: the score that runs which diverged count as, or the last of them if it depends on
      the seed; None if they are left out, or none did.
    without_diverged: the verdict without the seeds on which either arm diverged, where they count;
      else None.
    new_examples: of an accuracy, the difference for new test examples as well as new seeds, if it
      is known which examples each member got right; else None. It is for this pair alone.
    floor: of the design RESAMPLED, the half-width that the interval would keep with infinitely many
      seeds, since all are splits of the same examples; else None.
    median_unbiased: of a GROUP_SEQUENTIAL design, where one arm is better and none diverged, the
      estimate of the difference by `jaxdl.stats.median_unbiased`; else None.
    may_be_best: of `compare_with_best`, whether arm a is in the set of `may_be_best`; else None.
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
  p_beyond_margin: float
  p_equivalence: float
  margin: float
  verdict: str
  beyond_margin: bool
  seeds_needed: int | None
  num_diverged_a: int
  num_diverged_b: int
  num_seeds: int
  confidence: float = 0.95
  design: str = FIXED
  budget: int | None = None
  diverged_as: float | None = None
  without_diverged: "Verdict | None" = None
  new_examples: Crossed | None = None
  floor: float | None = None
  median_unbiased: float | None = None
  may_be_best: bool | None = None


def beside_diverged(
  compare: Callable[Concatenate[Scores, _P], list[Verdict]],
) -> Callable[Concatenate[Scores, _P], list[Verdict]]:
  """Makes a comparison put, beside each verdict on arms that diverged, the one without these seeds.

  Args:
    compare: returns the verdicts on scores, given these and further arguments.
  """

  @functools.wraps(compare)
  def compare_twice(scores: Scores, *args: _P.args, **kwargs: _P.kwargs) -> list[Verdict]:
    verdicts = compare(scores, *args, **kwargs)
    if scores.diverged_as is None or not scores.diverged.any():
      return verdicts
    trained = compare(dataclasses.replace(scores, diverged_as=None), *args, **kwargs)
    counted = np.broadcast_to(scores.diverged_as, len(scores.seeds))  # [S]
    return [
      dataclasses.replace(v, diverged_as=float(counted[v.num_seeds - 1]), without_diverged=other)
      if v.num_diverged_a or v.num_diverged_b
      else v
      for v, other in zip(verdicts, trained, strict=True)
    ]

  return compare_twice


@beside_diverged
def compare(
  scores: Scores,
  margin: float,
  alpha: float = 0.05,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
  reference: str | None = None,
  only_with: str | None = None,
) -> list[Verdict]:
  """Compares arms with each other, and corrects for the number of comparisons.

  The verdict on arm a against arm b is the first that holds of

  * TOO_FEW_SEEDS: n is below `min_pairs`, so that no outcome could be significant;
  * EQUIVALENT: the p-value of `tost`, corrected, is below alpha (also where a tiny difference is
    significant), n is at least `min_pairs_equivalent`, and no seed of either arm diverged;
  * BETTER or WORSE: the p-value of `sign_flip_test`, corrected by `holm`, is below alpha. It is so
    by more than the margin where the same test of the differences less the margin is significant
    too;
  * UNDECIDED.

  For each of three statements, that two arms differ, that they differ by more than the margin, and
  that they are equivalent, the probability that it is wrong of any pair is at most alpha. The
  equivalence test is corrected by floor(A^2 / 4), the largest number of pairs that can differ by
  exactly the margin: those between two clusters of arms (Caffo, Lauzon & Roehmel, 2013, The
  American Statistician 67:115); with a reference by A - 1.

  With `only_with`, time and verdicts grow like A and not like A^2. That arm may be chosen by these
  scores, e.g. as the best: all pairs count in the corrections, since each could have been chosen.

  Scores that are not paired are compared as independent samples: `permutation_test` takes the place
  of `sign_flip_test`, Welch's t that of the paired t, and n is the size of the smaller sample.
  Scores of overlapping splits (`Scores.overlap`) have the corrected t test of
  `jaxdl.stats.resampled` in the place of both.

  Decide on the number of seeds before looking: adding seeds until a verdict appears makes false
  ones likelier than alpha.

  Args:
    scores: values [S, A].
    margin: the largest difference that counts as none, in the metric's own unit; positive.
    alpha: level of the tests, in (0, 0.5).
    num_resamples: see `sign_flip_test`.
    seed: see `sign_flip_test`.
    reference: the one arm that each of the others is compared with; None: every pair is compared.
    only_with: without a reference, compare each arm with this one only.

  Returns:
    One verdict per pair of arms, in the order of `scores.arms`: [A (A - 1) / 2], the earlier arm
    first, or with a reference or `only_with` [A - 1], that arm second.

  Raises:
    InputError: the reference is no arm, an argument is out of its range, or `num_resamples` is
      needed and is so small that no p-value could be below alpha after correction.

  Examples:
    >>> import numpy as np
    >>> from jaxdl import stats
    >>> scores = stats.Scores(
    ...   metric="accuracy",
    ...   values=np.array([[0.7, 0.9], [0.8, 0.9], [0.6, 0.8], [0.7, 0.8], [0.8, 1], [0.5, 0.8]]),
    ...   seeds=(0, 1, 2, 3, 4, 5),
    ...   arms=("a", "b"),
    ...   axes=stats.AXES,
    ...   higher_is_better=True,
    ... )
    >>> (verdict,) = stats.compare(scores, margin=0.005)
    >>> verdict.verdict, verdict.num_pairs, verdict.p_value
    ('worse', 6, 0.03125)
  """
  check_margin(margin)
  check_alpha(alpha)
  check_num_resamples(num_resamples)
  pairs = arm_pairs(scores, reference or only_with)
  if not pairs:
    return []
  num_arms = len(scores.arms)
  num_comparisons = count_pairs(num_arms, reference)
  num_at_margin = num_arms**2 // 4 if reference is None else num_comparisons
  samples = [sample_of(scores, *pair) for pair in pairs]
  if any(sample.is_resampled(num_resamples) for sample in samples):
    check_resolution(num_resamples, num_comparisons, alpha)
  family = _Family(float(margin), alpha, num_comparisons, num_at_margin, num_resamples, seed)
  p_values = [family.test(sample) for sample in samples]
  p_holm = holm(p_values, num_comparisons)
  p_beyond = holm([family.test_beyond_margin(sample) for sample in samples], num_comparisons)
  return [
    _verdict(scores, *pair, sample, family, (p, float(after_holm), float(beyond)))
    for pair, sample, p, after_holm, beyond in zip(
      pairs, samples, p_values, p_holm, p_beyond, strict=True
    )
  ]


def compare_with_best(
  scores: Scores,
  margin: float,
  alpha: float = 0.05,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> list[Verdict]:
  """Compares each arm with the one that has the best mean, in a time linear in their number.

  Args and errors are those of `compare`.

  Returns:
    A verdict for each other arm, in the order of `scores.arms`: [A - 1], the best arm second.
  """
  best = scores.best
  verdicts = compare(scores, margin, alpha, num_resamples, seed, only_with=best)
  kept = set(may_be_best(scores, alpha, num_resamples, seed))
  return [dataclasses.replace(v, may_be_best=v.arm_a in kept) for v in verdicts]


def check_no_overlap(scores: Scores) -> None:
  """Raises InputError if seeds are overlapping splits, which no test with looks allows for."""
  if scores.overlap is not None:
    raise InputError(
      "seeds that are splits of the same examples are not independent, as looks and bets need "
      "them to be; compare a fixed number of them"
    )


def arm_pairs(scores: Scores, reference: str | None) -> list[tuple[str, str]]:
  """Returns all pairs of arms or those of a reference, in the order of `scores.arms`.

  Raises:
    InputError: the reference is no arm.
  """
  if reference is None:
    return list(itertools.combinations(scores.arms, 2))
  if reference not in scores.arms:
    raise unknown_name("reference arm", reference, scores.arms)
  return [(arm, reference) for arm in scores.arms if arm != reference]


def count_pairs(num_arms: int, reference: str | None) -> int:
  """Returns the number of pairs that any verdict could be about: what corrections are for."""
  return math.comb(num_arms, 2) if reference is None else num_arms - 1


def may_be_best(
  scores: Scores, alpha: float = 0.05, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[str, ...]:
  """Returns a set of arms that has the arm with the best true mean, with probability 1 - alpha.

  An arm is left out if the test of `compare` says that the arm with the best mean is better, at
  alpha / (A - 1). The best arm b is wrongly left out only if one of the A - 1 others is shown to be
  better than b, whichever that is: so it does not matter that the scores themselves chose it, and
  one correction serves all arms (the closed form of multiple comparisons with the best: Hsu, 1984,
  Annals of Statistics 12:1136). That two arms outside of the set differ is not said, nor that those
  in it are alike. If several arms are the best, each is in the set with this probability.

  Args:
    scores: values [S, A]; the number of seeds was decided before they were seen.
    alpha: in (0, 0.5).
    num_resamples: see `sign_flip_test`.
    seed: see `sign_flip_test`.

  Returns:
    The arms, best mean first.

  Raises:
    InputError: an argument is out of its range, or `num_resamples` is needed and too small.
  """
  check_alpha(alpha)
  check_num_resamples(num_resamples)
  best, *others = scores.best_first
  found = [best]
  for arm in others:
    sample = sample_of(scores, best, arm)
    if sample.is_resampled(num_resamples):
      check_resolution(num_resamples, len(others), alpha)
    # Where seeds are left out, the arm with the best mean may be worse on the common ones.
    gain = sample.mean_difference if scores.higher_is_better else -sample.mean_difference
    p = sample.test(num_resamples, seed) if gain > 0 else 1.0
    if not len(others) * p < alpha:
      found.append(arm)
  return tuple(found)


@dataclasses.dataclass(frozen=True)
class _Family:
  """What all comparisons on one metric share."""

  margin: float
  alpha: float
  num_comparisons: int  # P
  num_at_margin: int  # pairs that can differ by exactly the margin
  num_resamples: int
  seed: int

  @functools.cached_property
  def min_pairs_equivalent(self) -> int:
    return min_pairs_equivalent(self.num_at_margin, self.alpha)

  def is_too_few(self, sample: Sample) -> bool:
    return sample.num_pairs < sample.min_pairs(self.num_comparisons, self.alpha)

  def test(self, sample: Sample) -> float:
    """Returns the p-value of a difference; 1 where there are too few seeds for any test."""
    return 1.0 if self.is_too_few(sample) else sample.test(self.num_resamples, self.seed)

  def test_beyond_margin(self, sample: Sample) -> float:
    """Returns the p-value of |difference| <= margin; 1 where the mean lies within the margin."""
    centre = sample.mean_difference
    if self.is_too_few(sample) or abs(centre) <= self.margin:
      return 1.0
    return self.test(sample.less(math.copysign(self.margin, centre)))

  def seeds_needed(self, sample: Sample) -> int:
    """Returns how many seeds would decide what these do not."""
    least = sample.min_pairs(self.num_comparisons, self.alpha)
    if sample.num_pairs < least:
      return least
    return seeds_for_power(
      (abs(sample.mean_difference), sample.spread),
      self.margin,
      (self.alpha / self.num_comparisons / 2, self.alpha / self.num_at_margin),
      (least, self.min_pairs_equivalent),
      sample.num_samples,
      sample.overlap,
    )


def _verdict(
  scores: Scores,
  arm_a: str,
  arm_b: str,
  sample: Sample,
  family: _Family,
  p: tuple[float, float, float],
) -> Verdict:
  """Returns the verdict on one pair, given its p-values: alone, by Holm, beyond the margin."""
  n, mean_difference = sample.num_pairs, sample.mean_difference
  p_value, p_holm, p_beyond_margin = p
  p_equivalence = math.nan
  num_diverged = [count_diverged(scores, arm) for arm in (arm_a, arm_b)]
  needed = None
  if family.is_too_few(sample):
    verdict, needed = TOO_FEW_SEEDS, family.seeds_needed(sample)
    p_value = p_holm = p_beyond_margin = math.nan
  else:
    p_equivalence = min(1.0, family.num_at_margin * sample.tost(family.margin))
    is_alike = n >= family.min_pairs_equivalent and p_equivalence < family.alpha
    if is_alike and not any(num_diverged):
      verdict = EQUIVALENT
    elif p_holm < family.alpha:
      verdict = BETTER if (mean_difference > 0) == scores.higher_is_better else WORSE
    else:
      verdict, needed = UNDECIDED, None if is_alike else family.seeds_needed(sample)
  ci_low, ci_high = sample.interval(0.95)
  return Verdict(
    metric=scores.metric,
    arm_a=arm_a,
    arm_b=arm_b,
    num_pairs=n,
    mean_difference=mean_difference,
    ci_low=ci_low,
    ci_high=ci_high,
    p_value=p_value,
    p_holm=p_holm,
    p_beyond_margin=p_beyond_margin,
    p_equivalence=p_equivalence,
    margin=family.margin,
    verdict=verdict,
    beyond_margin=verdict in (BETTER, WORSE) and p_beyond_margin < family.alpha,
    seeds_needed=needed,
    num_diverged_a=num_diverged[0],
    num_diverged_b=num_diverged[1],
    num_seeds=len(scores.seeds),
    design=_design(scores),
    floor=sample.floor,
  )


def _design(scores: Scores) -> str:
  if not scores.paired:
    return UNPAIRED
  return FIXED if scores.overlap is None else RESAMPLED


def to_json(record: Verdict | ArmSummary) -> dict[str, Any]:
  """Returns the fields of a verdict or a summary for `json.dumps(..., allow_nan=False)`.

  JSON has no NaN: a number that is not finite becomes None.
  """
  return _finite(dataclasses.asdict(record))


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {name: _finite(inner) for name, inner in value.items()}
  return None if isinstance(value, float) and not math.isfinite(value) else value
