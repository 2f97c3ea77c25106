"""Claims, judged: what somebody asserts, put as comparisons whose outcome can go either way.

A comparison is judged by confidence bounds of the difference and by its margin alone. The bounds
close in on the estimate as seeds are added, so more evidence with the same estimate never turns
`holds` into `does not hold`, nor back.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.errors import InputError
from jaxdl.stats.scores import ROUNDING, Scores, mean, paired_differences, std
from jaxdl.stats.sequential import looks, nominal_levels
from jaxdl.stats.tests import MIN_PAIRS_EQUIVALENT, check_alpha, check_margin, confidence_bounds

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
# Of an improvement: if there is one, it is less than the margin.
TOO_SMALL = "too small to count"

# What a part of a claim asserts of its first arm against its second.
BETTER, NOT_WORSE, EQUIVALENT, DIFFERENT = "better", "not worse", "equivalent", "different"


class Part(NamedTuple):
  """One comparison that a claim rests on."""

  scores: Scores  # of two arms, the first being the one that the claim is about
  asserts: str  # BETTER, NOT_WORSE, EQUIVALENT or DIFFERENT
  margin: float  # the largest difference that counts as none, in the unit of the scores
  unit: str = ""
  scale: float = 1.0  # from the unit of the scores to the one that is written


@dataclasses.dataclass(frozen=True)
class Claim:
  """What somebody asserts.

  Attributes:
    name: short, for pictures and references.
    sentence: the claim, neutral, such that it is true or false.
    evidence: what the one who made it has to show.
    parts: what it rests on.
    needs_all: whether it holds if all its parts do; else, if any does.
  """

  name: str
  sentence: str
  evidence: str
  parts: Sequence[Part]
  needs_all: bool = True


class Finding(NamedTuple):
  """The outcome of one part. The bounds are those that decide it, or that would have to.

  Attributes:
    part: the part.
    num_pairs: n, seeds on which both arms have a score.
    difference: mean of the first arm minus the second, in the unit of the scores; NaN where n = 0.
    low: lower bound of the difference; infinite where so few pairs give none.
    high: upper bound.
    low_alpha: the probability with which the lower bound is above the true difference.
    high_alpha: that with which the upper bound is below it.
    meaning: HOLDS, FAILS, TOO_SMALL or UNDECIDED.
    note: what is to be added, e.g. whether an improvement exceeds the margin; may be empty.
    repeats: the probability that the same number of fresh seeds means the same, see `_repeats`; NaN
      where nothing is decided, or all differences are equal.
  """

  part: Part
  num_pairs: int
  difference: float
  low: float
  high: float
  low_alpha: float
  high_alpha: float
  meaning: str
  note: str
  repeats: float


class Outcome(NamedTuple):
  """The outcome of a claim."""

  claim: Claim
  verdict: str  # HOLDS, FAILS, TOO_SMALL or UNDECIDED
  findings: tuple[Finding, ...]

  @property
  def repeats(self) -> float:
    """The probability that as many fresh seeds give the same verdict; NaN where it has none.

    Where every part counts, that of all of them, as if they were independent; where one is enough,
    that of the surest.
    """
    decisive = [f.repeats for f in self.findings if f.meaning == self.verdict]
    if self.verdict == UNDECIDED or any(map(math.isnan, decisive)):
      return math.nan
    every = self.claim.needs_all == (self.verdict == HOLDS)
    return math.prod(decisive) if every else max(decisive)


def judge(claim: Claim, alpha: float = 0.05, budget: int | None = None) -> Outcome:
  """Judges a claim by all of its parts.

  With L and U the bounds of the difference, the better direction being up, and m the margin:

  * BETTER holds if L > 0, by more than the margin if L > m; it fails if U < 0, and is too small to
    count if U < m.
  * NOT_WORSE holds if L > -m and fails if U < -m.
  * EQUIVALENT holds if -m < L and U < m, with at least MIN_PAIRS_EQUIVALENT pairs; it fails if
    L > m or U < -m.
  * DIFFERENT is the opposite of EQUIVALENT.

  The probability that the claim is judged wrongly is at most alpha. Where all parts have to hold,
  `holds` needs no correction for their number (an intersection-union test: Berger, 1982,
  Technometrics 24:295), and `fails` is judged at alpha divided by it; where any part suffices, it
  is the other way round. A difference to either side is judged at half of the level for each.

  Args:
    claim: what to judge.
    alpha: level of the verdict on the claim, in (0, 0.5).
    budget: of runs that were looked at as `jaxdl.stats.looks(budget)` says, and ended at one of
      these looks. Bounds then have the level of that look (`jaxdl.stats.nominal_levels`), so that
      all looks together keep alpha. None: the number of seeds was fixed.

  Raises:
    InputError: the claim has no parts, a part not two arms or no positive margin, alpha is out of
      its range, a part's number of seeds is not one of the looks, or its seeds are splits that
      overlap.
  """
  check_alpha(alpha)
  if not claim.parts:
    raise InputError(f"claim {claim.name!r} rests on nothing")
  for part in claim.parts:
    if len(part.scores.arms) != 2:
      raise InputError(f"claim {claim.name!r} compares {len(part.scores.arms)} arms, not two")
    if part.scores.overlap is not None:
      raise InputError(
        f"claim {claim.name!r} rests on splits that overlap, for which its bounds are too narrow"
      )
    check_margin(part.margin)
  shared = alpha / len(claim.parts)
  levels = (alpha, shared) if claim.needs_all else (shared, alpha)
  findings = tuple(_judge_part(part, *levels, budget) for part in claim.parts)
  decide = min if claim.needs_all else max
  return Outcome(claim, decide((f.meaning for f in findings), key=_ORDER.index), findings)


# From what decides a claim that needs all its parts, down to what all of them have to mean.
_ORDER = (FAILS, TOO_SMALL, UNDECIDED, HOLDS)


def _at_look(alpha: float, part: Part, budget: int | None) -> float:
  """Returns the one-sided level at the look at which a part's run ended."""
  if budget is None:
    return alpha
  every, n = looks(budget), len(part.scores.seeds)
  if n not in every:
    raise InputError(f"a run with a budget of {budget} seeds is not looked at after {n}")
  return float(nominal_levels(alpha, tuple(of / budget for of in every))[every.index(n)])


def _judge_part(part: Part, hold_alpha: float, fail_alpha: float, budget: int | None) -> Finding:
  """Judges one comparison: `holds` at one level of all looks, the opposite at the other."""
  sign = 1 if part.scores.higher_is_better else -1
  gains = sign * paired_differences(part.scores, *part.scores.arms)  # [n]
  if part.asserts in (BETTER, NOT_WORSE):
    alphas = _at_look(hold_alpha, part, budget), _at_look(fail_alpha, part, budget)
    bounds = confidence_bounds(gains, alphas[0])[0], confidence_bounds(gains, alphas[1])[1]
    meaning, note = _judge_one_side(part, *bounds)
  else:
    inside, outside = hold_alpha, fail_alpha
    if part.asserts == DIFFERENT:
      inside, outside = outside, inside
    # Halved before the looks share it: half of a look's level is more than its level for a half.
    levels = _at_look(inside, part, budget), _at_look(outside / 2, part, budget)
    bounds, alpha, meaning, note = _judge_both_sides(part, gains, *levels)
    alphas = alpha, alpha
  repeats = math.nan if meaning == UNDECIDED else _repeats(part, gains, bounds, meaning)
  if sign < 0:
    bounds, alphas = (-bounds[1], -bounds[0]), alphas[::-1]
  return Finding(part, len(gains), sign * mean(gains), *bounds, *alphas, meaning, note, repeats)


def _repeats(part: Part, gains: np.ndarray, bounds: tuple[float, float], meaning: str) -> float:
  """Returns the probability that n fresh seeds mean the same.

  If before the run all true differences were as likely, the mean of fresh seeds is normal around
  the one that was seen, with twice the variance of a mean (Goodman, 1992, Statistics in Medicine
  11:875). Their bounds are taken to be as far from it as these are. NaN if all differences are
  equal: then nothing says how much fresh ones would vary.
  """
  gain, error, margin = mean(gains), std(gains) / math.sqrt(len(gains)), part.margin
  if error == 0:
    return math.nan
  below, above = gain - bounds[0], bounds[1] - gain
  least = 0.0 if part.asserts == BETTER else -margin
  if part.asserts in (BETTER, NOT_WORSE):
    means_the_same = {  # intervals of the mean
      HOLDS: [(least + below, math.inf)],
      FAILS: [(-math.inf, least - above)],
      TOO_SMALL: [(-above, min(below, margin - above))],
    }[meaning]
  elif (part.asserts == EQUIVALENT) == (meaning == HOLDS):
    means_the_same = [(below - margin, margin - above)]
  else:
    means_the_same = [(-math.inf, -margin - above), (margin + below, math.inf)]

  def reached(limit: float) -> float:
    return 0.5 * math.erfc(-(limit - gain) / error / 2)

  return sum(max(0.0, reached(high) - reached(low)) for low, high in means_the_same)


def _judge_one_side(part: Part, low: float, high: float) -> tuple[str, str]:
  """Returns what bounds of a gain mean for BETTER and NOT_WORSE, with a note."""
  margin, rounding = part.margin, ROUNDING * part.margin
  least = 0.0 if part.asserts == BETTER else -margin
  if low > least + rounding:
    if part.asserts == NOT_WORSE:
      return HOLDS, "but worse" if high < -rounding else ""
    if low > margin + rounding:
      return HOLDS, "by more than the margin"
    if high < margin - rounding:
      return HOLDS, "by less than the margin"
    return HOLDS, "whether by more than the margin is open"
  if high < least - rounding:
    return FAILS, ""
  if part.asserts == BETTER and high < margin - rounding:
    return TOO_SMALL, "no better by as much as the margin"
  return UNDECIDED, ""


def _judge_both_sides(
  part: Part, gains: np.ndarray, inside_alpha: float, outside_alpha: float
) -> tuple[tuple[float, float], float, str, str]:
  """Returns the bounds that decide on EQUIVALENT and DIFFERENT, their level, meaning, and note.

  `inside_alpha` is the level of either bound for a difference within the margin, and
  `outside_alpha` that for one beyond it.
  """
  inside, outside = (HOLDS, FAILS) if part.asserts == EQUIVALENT else (FAILS, HOLDS)
  margin, rounding = part.margin, ROUNDING * part.margin
  low, high = confidence_bounds(gains, inside_alpha)
  is_inside = -margin + rounding < low and high < margin - rounding
  if is_inside and len(gains) >= MIN_PAIRS_EQUIVALENT:
    return (low, high), inside_alpha, inside, ""
  if is_inside:
    note = f"too few pairs to show that arms are alike: {MIN_PAIRS_EQUIVALENT} are needed"
    return (low, high), inside_alpha, UNDECIDED, note
  low, high = confidence_bounds(gains, outside_alpha)
  is_outside = low > margin + rounding or high < -margin - rounding
  return (low, high), outside_alpha, outside if is_outside else UNDECIDED, ""


def against_number(scores: Scores, arm: str, name: str, number: float) -> Scores:
  """Returns scores of one arm beside a constant, e.g. epochs beside half of all epochs.

  Args:
    scores: that have the arm.
    arm: the arm.
    name: what the constant is called.
    number: the constant, in the unit of the scores.
  """
  values = scores.values[:, scores.arms.index(arm)]
  return dataclasses.replace(
    scores,
    values=np.column_stack([values, np.full_like(values, number)]),
    arms=(arm, name),
  )
