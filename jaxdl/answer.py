"""The answer to the question of an experiment, in words, and the arms that are shown beside it."""

import collections
import math
from collections.abc import Sequence

import numpy as np

from jaxdl import stats
from jaxdl.experiment import MANY_ARMS, is_many
from jaxdl.population import RATES, Population

# Of `MANY_ARMS` that are shown, the last so many are the worst.
_NUM_WORST = 4


def sentence(verdict: stats.Verdict) -> str:
  """Returns a verdict as a sentence, with rates in percentage points."""
  if verdict.metric in RATES:
    return stats.sentence(verdict, unit="points", scale=100)
  return stats.sentence(verdict)


def answer(
  verdicts: Sequence[stats.Verdict], metric: str, population: Population, alpha: float = 0.05
) -> str:
  """Returns the answer to a question in a few sentences, from the verdicts on one metric.

  It begins with arms that learned nothing, and ends with arms that diverged.

  Args:
    verdicts: of `jaxdl.experiment.compare`.
    metric: the metric of the answer.
    population: the population that was compared.
    alpha: the level of the verdicts.
  """
  about = [verdict for verdict in verdicts if verdict.metric == metric]
  sentences = [_chance_text(population)]
  if about:
    best = _best_text(about, population.scores(metric), alpha)
    sentences += [outcome(about), best, _divergence_text(about)]
  else:
    sentences.append("There is one arm only, so there is nothing to compare.")
  return " ".join(text for text in sentences if text)


def _chance_text(population: Population) -> str:
  """Returns a caution that names the arms no better than a constant answer, or an empty string.

  Such an arm has a mean accuracy that exceeds the share of the most frequent class by at most two
  standard errors of an accuracy on that many test images; of numbers, a mean R2 that is not
  positive.
  """
  if population.has_classes:
    share, error = _chance(population)
    metric, name, limit = "test_accuracy", "test accuracy", share + 2 * error
    baseline = f"always answering the most frequent class ({100 * share:.1f}%)"
  else:
    metric, name, limit = "r2", "R2", 0.0
    baseline = "always predicting the mean of the test targets (0)"
  arms = [of.arm for of in stats.summarize(population.scores(metric)) if of.mean <= limit]
  if not arms:
    return ""
  who = "no arm is"
  if len(arms) < len(population.arms):
    names = f"{len(arms):,} arms" if is_many(arms) else " and ".join(arms)
    who = f"{names} {'is' if len(arms) == 1 else 'are'} not"
  return f"Caution: in {name}, {who} better than {baseline}."


def _chance(population: Population) -> tuple[float, float]:
  """Returns the share of the most frequent class in the test set, and its standard error."""
  num_images = population.test_targets.size
  share = np.bincount(population.test_targets.ravel()).max() / num_images
  if population.resampling is not None:  # each image is there once per seed
    num_images //= len(population.seeds)
  return share, math.sqrt(share * (1 - share) / num_images)


def outcome(about: Sequence[stats.Verdict]) -> str:
  """Returns in one sentence what verdicts on one metric say together; there is at least one."""
  return f"{_outcome(about)} ({_pairs_text(about)})."


def _outcome(about: Sequence[stats.Verdict]) -> str:
  metric, margin = about[0].metric, _margin_text(about[0])
  decided = [v for v in about if v.verdict in (stats.BETTER, stats.WORSE)]
  open_pairs = [v for v in about if v.verdict in (stats.UNDECIDED, stats.TOO_FEW_SEEDS)]
  if all(v.verdict == stats.EQUIVALENT for v in about):
    return f"No: all arms are equivalent within {margin} of {metric}"
  if decided and is_many([v.arm_a for v in about]):
    return f"Yes: in {metric}, {_counts_text(about)}"
  if decided:
    rest = f"; {len(open_pairs)} of {len(about)} pairs of arms undecided" if open_pairs else ""
    return f"Yes: in {metric}, {_decided_text(decided, margin)}{rest}"
  slowest = max(open_pairs, key=lambda v: math.inf if v.seeds_needed is None else v.seeds_needed)
  needed = stats.format_seeds_needed(slowest)
  if all(v.verdict == stats.TOO_FEW_SEEDS for v in about):
    return f"No claim can be made from so few seeds: {needed}"
  return f"Undecided in {metric} for {len(open_pairs)} of {len(about)} pairs of arms: {needed}"


def _counts_text(about: Sequence[stats.Verdict]) -> str:
  """Counts the verdicts of many arms, all of which were compared with one."""
  counts = collections.Counter(
    "undecided" if v.verdict == stats.TOO_FEW_SEEDS else v.verdict for v in about
  )
  parts = [
    f"{counts[kind]:,} {kind}"
    for kind in (stats.BETTER, stats.WORSE, stats.EQUIVALENT, stats.UNDECIDED)
    if counts[kind]
  ]
  large = sum(v.beyond_margin for v in about)
  return (
    f"of {len(about):,} other arms compared with {about[0].arm_b}, {', '.join(parts)}; "
    f"{large:,} differ by more than the margin"
  )


def _best_text(about: Sequence[stats.Verdict], scores: stats.Scores, alpha: float) -> str:
  """Says which of many arms may be the best."""
  if not is_many(scores.arms):
    return ""
  best, *others = scores.best_first
  text = f"{best} has the best mean."
  may_be = {v.arm_a for v in about if v.may_be_best}
  if about[0].may_be_best is None:
    return text
  names = [best, *(arm for arm in others if arm in may_be)]
  sure = f"with {100 * (1 - alpha):g}% confidence"
  if len(names) == 1:
    return f"{text} It is the best, {sure}."
  if len(names) == len(scores.arms):
    return f"{text} Any of the {len(names):,} arms may be the best, {sure}."
  return f"{text} The best arm is among these {len(names):,}, {sure}: {_listed(names)}."


def _listed(names: Sequence[str]) -> str:
  """Lists names; of many the first."""
  rest = len(names) - MANY_ARMS
  more = [f"{rest:,} more"] if rest > 0 else []
  return ", ".join([*names[:MANY_ARMS], *more])


def _decided_text(decided: Sequence[stats.Verdict], margin: str) -> str:
  """Names the arms that differ, and the differences that are shown to exceed the margin."""
  large = [v for v in decided if v.beyond_margin]
  parts = [
    f"{v.arm_a} is {v.verdict} than {v.arm_b}{' by more than the margin' if v in large else ''}"
    for v in decided
  ]
  if len(large) < len(decided):
    which = "no other difference" if large else "no difference"
    parts.append(f"{which} is shown to exceed the margin of {margin}")
  return "; ".join(parts)


def _margin_text(verdict: stats.Verdict) -> str:
  scale, unit = (100, " points") if verdict.metric in RATES else (1, "")
  margin = scale * verdict.margin
  return f"{margin:g}{unit.removesuffix('s') if margin == 1 else unit}"


def _pairs_text(about: Sequence[stats.Verdict]) -> str:
  fewest, most = (f(v.num_pairs for v in about) for f in (min, max))
  kind = "runs of each arm" if about[0].design == stats.UNPAIRED else "pairs of runs"
  return f"{most} {kind}" if fewest == most else f"{fewest} to {most} {kind}"


def _divergence_text(about: Sequence[stats.Verdict]) -> str:
  """Says how often each arm diverged, and what changes without these runs; empty if none did."""
  counts: dict[str, tuple[int, int]] = {}
  for v in about:  # of a design with looks, their numbers of seeds differ
    for arm, count in ((v.arm_a, v.num_diverged_a), (v.arm_b, v.num_diverged_b)):
      counts[arm] = max(counts.get(arm, (0, 0)), (v.num_seeds, count))
  who = _listed([f"{arm} diverged in {n} of {of} seeds" for arm, (of, n) in counts.items() if n])
  if not who:
    return ""
  counted = next((v.diverged_as for v in about if v.diverged_as is not None), None)
  if counted is None:
    return f"Only runs that did not diverge were compared: {who}."
  number = f"{100 * counted:.1f}%" if about[0].metric in RATES else f"{counted:.4g}"
  changed = [
    f"{v.arm_a} and {v.arm_b}: {other.verdict}"
    for v in about
    if (other := v.without_diverged) is not None and other.verdict != v.verdict
  ]
  if is_many(changed):
    changed = [f"{len(changed):,} verdicts are others"]
  without = f" Without these runs, {'; '.join(changed)}." if changed else ""
  return f"Runs that diverged count with a {about[0].metric} of {number}: {who}.{without}"


def shown_arms(scores: stats.Scores) -> list[str]:
  """Returns the arms that pictures and tables show; of many the best and the worst, best first."""
  if not is_many(scores.arms):
    return list(scores.arms)
  ranked = scores.best_first
  return [*ranked[: MANY_ARMS - _NUM_WORST], *ranked[-_NUM_WORST:]]


def shown_verdicts(
  verdicts: Sequence[stats.Verdict], population: Population
) -> list[stats.Verdict]:
  """Returns the verdicts that tables show: of many arms, those on `shown_arms` of each metric."""
  if not is_many(population.arms):
    return list(verdicts)
  found = []
  for metric in dict.fromkeys(v.metric for v in verdicts):
    about = {v.arm_a: v for v in verdicts if v.metric == metric}
    found += [about[arm] for arm in shown_arms(population.scores(metric)) if arm in about]
  return found
