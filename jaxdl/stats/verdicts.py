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
from typing import Any

import numpy as np

from jaxdl.errors import unknown_name
from jaxdl.stats.scores import ArmSummary, Scores, mean, paired_differences, student_interval
from jaxdl.stats.tests import (
  MAX_EXACT,
  MAX_SEEDS_NEEDED,
  NUM_RESAMPLES,
  check_alpha,
  check_margin,
  check_num_resamples,
  check_resolution,
  holm,
  min_pairs,
  seeds_needed,
  sign_flip_test,
  tost,
)

BETTER = "better"
WORSE = "worse"
EQUIVALENT = "equivalent"
UNDECIDED = "undecided"
TOO_FEW_SEEDS = "too few seeds"


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
  check_margin(margin)
  check_alpha(alpha)
  check_num_resamples(num_resamples)
  if reference is None:
    pairs = list(itertools.combinations(scores.arms, 2))
  elif reference in scores.arms:
    pairs = [(arm, reference) for arm in scores.arms if arm != reference]
  else:
    raise unknown_name("reference arm", reference, scores.arms)
  differences = [paired_differences(scores, *pair) for pair in pairs]
  if any(len(d) > MAX_EXACT for d in differences):
    check_resolution(num_resamples, len(pairs), alpha)
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
  mean_difference = mean(differences)
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
  ci_low, ci_high = student_interval(differences, 0.95)
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
