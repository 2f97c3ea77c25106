"""A verdict in words."""

import math

from jaxdl.stats.tests import MAX_SEEDS_NEEDED
from jaxdl.stats.verdicts import (
  ANYTIME,
  EQUIVALENT,
  GROUP_SEQUENTIAL,
  RESAMPLED,
  TOO_FEW_SEEDS,
  UNDECIDED,
  UNPAIRED,
  Verdict,
)


def sentence(verdict: Verdict, unit: str = "", scale: float = 1.0) -> str:
  """Says a verdict in one plain sentence, without a full stop.

  Args:
    verdict: from `compare`, `compare_looks` or `compare_anytime`.
    unit: follows the numbers, e.g. "points".
    scale: the numbers are multiplied by it, e.g. 100 to show an accuracy in [0, 1] in points.
  """
  a, b, metric = verdict.arm_a, verdict.arm_b, verdict.metric
  suffix = f" {unit}" if unit else ""
  if verdict.verdict == TOO_FEW_SEEDS:
    text = f"too few seeds ({verdict.num_pairs}) to compare {a} with {b} in {metric}: no claim"
    return f"{text}; {format_seeds_needed(verdict)}{_format_divergence(verdict, scale, suffix)}"
  within = f"{scale * verdict.margin:.6g}{suffix}"
  if verdict.verdict == EQUIVALENT:
    text = f"{a} and {b} are equivalent in {metric} within {within}"
  elif verdict.verdict == UNDECIDED:
    text = f"undecided between {a} and {b} in {metric}: {format_seeds_needed(verdict)}"
  else:
    text = f"{a} is {verdict.verdict} than {b} in {metric}, {_format_size(verdict, within)}"
  details = [_format_difference(verdict, scale, suffix), _format_test(verdict, scale, suffix)]
  if verdict.verdict == UNDECIDED:
    details.append(f"margin {within}")
  new = verdict.new_examples
  if new is not None and math.isfinite(new.low):
    details.append(
      f"on new examples too {_format_interval(scale * new.low, scale * new.high)}{suffix}"
    )
  return f"{text} (difference {'; '.join(details)}){_format_divergence(verdict, scale, suffix)}"


def _format_test(verdict: Verdict, scale: float, suffix: str) -> str:
  """Says which test the verdict is from and, where there is one, its p-value."""
  if verdict.design == GROUP_SEQUENTIAL:
    at = f"group-sequential test, {verdict.num_seeds} of at most {verdict.budget} seeds"
    if verdict.verdict == UNDECIDED or verdict.num_seeds == verdict.budget:
      return at
    at += "; decided early, so the mean is biased"
    if verdict.median_unbiased is None:
      return at
    return f"{at} (median-unbiased estimate {scale * verdict.median_unbiased:.3g}{suffix})"
  p = verdict.p_equivalence if verdict.verdict == EQUIVALENT else verdict.p_holm
  which = "equivalence" if verdict.verdict == EQUIVALENT else "Holm-corrected"
  if verdict.design == ANYTIME:
    which = "betting test, corrected"
  if verdict.design == RESAMPLED and verdict.verdict != EQUIVALENT:
    which = "t test corrected for overlap, Holm-corrected"
  return f"{which} {_format_p(p)}"


def _format_size(verdict: Verdict, margin: str) -> str:
  """Says whether a difference is shown to be beyond the margin, e.g. `2 points`."""
  if verdict.beyond_margin:
    return f"by more than the margin of {margin}"
  return f"whether by more than the margin of {margin} is open"


def format_seeds_needed(verdict: Verdict) -> str:
  """Says how many seeds an undecided verdict, or one from too few seeds, would need.

  Not that many in all: seeds that were looked at cannot be part of the test that they call for,
  unless its design has looks.
  """
  needed, num_pairs = verdict.seeds_needed, verdict.num_pairs
  if verdict.verdict == TOO_FEW_SEEDS:
    return f"at least {needed} are needed"
  if verdict.design == GROUP_SEQUENTIAL:
    seeds, budget = verdict.num_seeds, verdict.budget
    return f"after {'all ' if seeds == budget else ''}{seeds} of {budget} seeds"
  if verdict.design == ANYTIME:
    return f"after {verdict.num_seeds} seeds, to which more may be added"
  if needed is None:
    return "alike, but arms of which one diverged are not called equivalent"
  if needed >= MAX_SEEDS_NEEDED and verdict.design == RESAMPLED:
    return "splits of these examples would not decide it, however many"
  if needed >= MAX_SEEDS_NEEDED:
    return f"a new run of {MAX_SEEDS_NEEDED:,} seeds or more would be needed"
  if needed <= num_pairs:
    # The estimate is for 80% power, so one time in five that many do not decide it.
    return f"about {needed} seeds had an 80% chance to decide it, and these {num_pairs} did not"
  return f"a new run of about {needed} other seeds would be needed"


def _format_divergence(verdict: Verdict, scale: float, suffix: str) -> str:
  counts = ((verdict.arm_a, verdict.num_diverged_a), (verdict.arm_b, verdict.num_diverged_b))
  parts = [
    f"{arm} diverged in {count} of {verdict.num_seeds} seeds" for arm, count in counts if count
  ]
  if not parts:
    return ""
  who = " and ".join(parts)
  other = verdict.without_diverged
  if other is None or verdict.diverged_as is None:
    return f"; {who}, which are left out of the pairs"
  counted = f"; {who}, which count as {scale * verdict.diverged_as:.4g}{suffix}"
  if not other.num_pairs:
    return f"{counted}; no pair of runs is without them"
  difference = _format_difference(other, scale, suffix)
  return f"{counted}; without them: {other.verdict} (difference {difference})"


def _format_difference(verdict: Verdict, scale: float, suffix: str) -> str:
  """Says the difference with its interval or, where all are equal, what that allows."""
  n, design = verdict.num_pairs, verdict.design
  low, high = scale * verdict.ci_low, scale * verdict.ci_high
  over = f"over {n} pairs"
  if design == RESAMPLED:
    over = f"over {n} splits that overlap"
  if design == UNPAIRED:
    over = f"Welch, over {n} or more runs of each arm, which share no seed"
  if math.isfinite(low):
    looks = " for all pairs of arms and looks" if design in (GROUP_SEQUENTIAL, ANYTIME) else ""
    interval = f"{100 * verdict.confidence:g}% interval{looks}"
    text = f"{_format_interval(low, high)}{suffix}, {interval} {over}"
    if verdict.floor is None:
      return text
    return f"{text}, and ± {scale * verdict.floor:.3g}{suffix} with any number of them"
  centre = f"{scale * verdict.mean_difference:.6g}{suffix}"
  if design in (ANYTIME, UNPAIRED, RESAMPLED):
    return f"{centre} {over}, which give no interval"
  equal = f"{centre} in all {n} pairs"
  # Were it so in a smaller share of all seeds, n of n would agree in less than 5% of runs.
  least_share = 0.05 ** (1 / n)
  return f"{equal}, so in {100 * least_share:.0f}% of seeds or more with 95% confidence"


def _format_interval(low: float, high: float) -> str:
  """Formats an interval with two significant digits of its width."""
  decimals = max(0, 1 - math.floor(math.log10(high - low)))
  form = f"z.{decimals}f" if decimals <= 8 else ".2e"
  return f"{low:{form}} to {high:{form}}"


def _format_p(p: float) -> str:
  return "p < 0.001" if p < 0.001 else f"p = {p:.3g}"
