"""Claims, judged: what somebody asserts, put as comparisons whose outcome can go either way."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.errors import InputError
from jaxdl.stats import verdicts
from jaxdl.stats.scores import Scores
from jaxdl.stats.tests import NUM_RESAMPLES
from jaxdl.stats.verdicts import Verdict, compare

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"

# What a part of a claim asserts of its first arm against its second: verdict -> what it means for
# the claim. What is not named leaves it undecided.
BETTER: Mapping[str, str] = {
  verdicts.BETTER: HOLDS,
  verdicts.EQUIVALENT: FAILS,
  verdicts.WORSE: FAILS,
}
NOT_WORSE: Mapping[str, str] = {
  verdicts.BETTER: HOLDS,
  verdicts.EQUIVALENT: HOLDS,
  verdicts.WORSE: FAILS,
}
EQUIVALENT: Mapping[str, str] = {
  verdicts.BETTER: FAILS,
  verdicts.EQUIVALENT: HOLDS,
  verdicts.WORSE: FAILS,
}
DIFFERENT: Mapping[str, str] = {
  verdicts.BETTER: HOLDS,
  verdicts.EQUIVALENT: FAILS,
  verdicts.WORSE: HOLDS,
}


class Part(NamedTuple):
  """One comparison that a claim rests on."""

  scores: Scores  # of two arms, the first being the one that the claim is about
  asserts: Mapping[str, str]  # BETTER, NOT_WORSE, EQUIVALENT or DIFFERENT
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
    needs_all: whether it holds where all its parts do; else, where any does.
  """

  name: str
  sentence: str
  evidence: str
  parts: Sequence[Part]
  needs_all: bool = True


class Finding(NamedTuple):
  """The outcome of one part."""

  part: Part
  verdict: Verdict
  meaning: str  # HOLDS, FAILS or UNDECIDED


class Outcome(NamedTuple):
  """The outcome of a claim."""

  claim: Claim
  verdict: str  # HOLDS, FAILS or UNDECIDED
  findings: tuple[Finding, ...]


def judge(
  claim: Claim, alpha: float = 0.05, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Outcome:
  """Judges a claim by all of its parts.

  Each part is tested at alpha divided by the number of parts (Bonferroni), differences and
  equivalences alike, so that the chance of a wrong `holds` or `does not hold` stays below alpha.

  Args:
    claim: what to judge.
    alpha: level of the verdict on the claim.
    num_resamples: as `compare` takes it.
    seed: likewise.

  Raises:
    InputError: the claim has no parts, or a part not two arms.
  """
  if not claim.parts:
    raise InputError(f"claim {claim.name!r} rests on nothing")
  findings = []
  for part in claim.parts:
    if len(part.scores.arms) != 2:
      raise InputError(f"claim {claim.name!r} compares {len(part.scores.arms)} arms, not two")
    (verdict,) = compare(part.scores, part.margin, alpha / len(claim.parts), num_resamples, seed)
    findings.append(Finding(part, verdict, part.asserts.get(verdict.verdict, UNDECIDED)))
  decisive, settled = (FAILS, HOLDS) if claim.needs_all else (HOLDS, FAILS)
  meanings = [finding.meaning for finding in findings]
  if decisive in meanings:
    verdict = decisive
  else:
    verdict = settled if set(meanings) == {settled} else UNDECIDED
  return Outcome(claim, verdict, tuple(findings))


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
