"""What is said of verdicts: tables of them, what their columns mean, and what they control."""

import math
from collections.abc import Sequence

from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl import stats
from jaxdl.experiment import Experiment
from jaxdl.population.results import RATES, Population
from jaxdl.report.arm_text import summary_rows
from jaxdl.report.markdown import escape, markdown_table, number


def verdict_rows(verdicts: Sequence[stats.Verdict]) -> list[list[str]]:
  """Returns a table of verdicts, header first, rates in percentage points."""
  header = ["metric", "a", "b", "pairs", "diverged a, b", "a - b", "95% interval"]
  header += ["p (Holm)", "margin", "verdict", "beyond margin", "seeds needed"]
  rows = [_verdict_row(verdict) for verdict in verdicts]
  if any(v.without_diverged is not None for v in verdicts):
    header.append("without diverged")
    for row, v in zip(rows, verdicts, strict=True):
      row.append("" if v.without_diverged is None else v.without_diverged.verdict)
  if any(v.may_be_best is not None for v in verdicts):
    header.append("may be best")
    for row, v in zip(rows, verdicts, strict=True):
      row.append(_may_be(v))
  return [header, *rows]


def _verdict_row(v: stats.Verdict) -> list[str]:
  is_rate = v.metric in RATES
  scale, unit, form = (100, " pt", "+.3f") if is_rate else (1, "", "+.3g")
  limit = 1 if is_rate else math.inf  # rates cannot differ by more
  low, high = max(v.ci_low, -limit), min(v.ci_high, limit)
  needed = "" if v.seeds_needed is None else f"{v.seeds_needed:,}"
  if v.seeds_needed == stats.MAX_SEEDS_NEEDED:
    needed = "none would do" if v.design == stats.RESAMPLED else f">= {needed}"
  decided = v.verdict in (stats.BETTER, stats.WORSE)
  return [
    v.metric,
    v.arm_a,
    v.arm_b,
    str(v.num_pairs),
    f"{v.num_diverged_a}, {v.num_diverged_b}",
    f"{scale * v.mean_difference:{form}}{unit}",
    f"[{scale * low:{form}}, {scale * high:{form}}]" if math.isfinite(v.ci_low) else "-",
    number(v.p_holm, ".3g"),
    f"{scale * v.margin:g}{unit}",
    v.verdict,
    ("yes" if v.beyond_margin else "open") if decided else "",
    needed,
  ]


def _may_be(verdict: stats.Verdict | None) -> str:
  if verdict is None or verdict.may_be_best is None:
    return ""
  return "yes" if verdict.may_be_best else "no"


def ranking_rows(
  verdicts: Sequence[stats.Verdict], population: Population, metric: str
) -> list[list[str]]:
  """Returns the best and the worst of many arms, header first, best first.

  Args:
    verdicts: `jaxdl.answer.shown_verdicts`.
    population: the population.
    metric: the metric.
  """
  about = {v.arm_a: v for v in verdicts if v.metric == metric}
  centre = next(iter(about.values())).arm_b
  scores = population.scores(metric)
  shown = answer_lib.shown_arms(scores)
  ranks = {arm: rank for rank, arm in enumerate(scores.best_first, 1)}
  rows = summary_rows(scores.select(shown))
  table = [["rank", "arm", metric, "95% interval", f"verdict with {centre}", "may be best"]]
  before = 0
  for name, _, _, mean, interval, *_ in rows:
    if ranks[name] > before + 1:
      table.append([f"{ranks[name] - before - 1:,} more", "", "", "", "", ""])
    before = ranks[name]
    v = about.get(name)
    table.append([str(before), name, mean, interval, v.verdict if v else "", _may_be(v)])
  return table


def many_note(
  verdicts: Sequence[stats.Verdict], scores: stats.Scores, reference: str | None, file: str
) -> str:
  """Says how many arms were compared, and which are shown; empty if they are few.

  Args:
    verdicts: on all arms.
    scores: of the first metric.
    reference: the arm that was to be compared with the others; None: the results chose it.
    file: the table that has all arms.
  """
  if not verdicts or not experiment_lib.is_many(scores.arms):
    return ""
  centre = "the reference"
  why = ""
  if reference is None:
    centre = "the one that has the best mean"
    why = (
      " Since the results chose it, each pair of arms could have become one of these, and "
      "corrections are for the number of all pairs."
    )
  text = (
    f"Each of {len(scores.arms):,} arms was compared with {centre}.{why} Tables and pictures "
    f"have {experiment_lib.MANY_ARMS} of them, the best and the worst; `{file}` has all, and "
    "`verdicts.json` the verdict on each."
  )
  if verdicts[0].may_be_best is not None:
    text += (
      " *may be best*: the set of these arms, and of the one with the best mean, has the arm that "
      "is the best, except with probability alpha (Bonferroni over the other arms). It does not "
      "say which of them differ."
    )
  return text


def design_note(experiment: Experiment) -> str:
  """Says how seeds were added, and what the columns of verdicts mean and control."""
  primary = escape(next(iter(experiment.margins)))
  if experiment.continued_from is not None:
    how = f"The run was planned with {experiment.continued_from} seeds, looked at, and continued."
    return verdict_note(stats.ANYTIME, how)
  if experiment.until_decided:
    how = (
      f"Seeds of an arm were trained until {primary} was decided for all of its pairs, with looks "
      f"after every {stats.LOOK_EVERY} seeds and at most {experiment.num_seeds}."
    )
    return verdict_note(stats.GROUP_SEQUENTIAL, how)
  if experiment.resample is not None:
    how = (
      f"Every seed has its own split of the training examples, the same for all arms: "
      f"{escape(experiment.resample)}. *test* metrics are about the held-out part; the validation "
      "set is the same for all seeds, and the test set of the data was not used. Test examples "
      "differ between seeds, so there is no interval for new examples beside a verdict. Intervals "
      "in pictures of layers, or of a metric against a setting, are not corrected."
    )
    return verdict_note(stats.RESAMPLED, how)
  how = (
    "Adding seeds to this run because it is undecided, and testing again in the same way, makes "
    "wrong verdicts up to twice as likely. `--until_decided` with a larger `num_seeds` continues "
    "it with a test that allows for that."
  )
  return verdict_note(stats.FIXED, how)


def verdict_note(design: str, how: str) -> str:
  """Says what the columns of verdicts mean and what they control.

  Args:
    design: of the verdicts; see `jaxdl.stats.Verdict`.
    how: how it was decided how many seeds there are, in Markdown.
  """
  return f"{_NOTES[design]} {how}"


_SYMMETRIC = "if differences are symmetric around their mean"


_EQUIVALENT = "with 16 seeds or more and none diverged"


_NOTES = {
  stats.FIXED: (
    "Differences are a minus b, paired by seed, with their 95% interval (Student's t, for this "
    "pair alone; none where all are equal). *better* and *worse*: the sign-flip permutation test, "
    "Holm-corrected over the pairs of a metric, shows a difference; *beyond margin* says whether "
    "the same test shows that it is larger than the margin. *equivalent*: two one-sided t tests, "
    "corrected for the number of pairs that can differ by exactly the margin, put the difference "
    f"within it, {_EQUIVALENT}. *undecided*: neither is shown. For each metric and each of these "
    "three statements, the chance that it is wrong of any pair is at most alpha "
    f"{_SYMMETRIC}; a rare collapse that no seed here had is not covered."
  ),
  stats.UNPAIRED: (
    "Differences are a mean minus b mean, with their 95% interval. **No two arms share a seed, so "
    "they are compared as independent samples**, which takes more runs than pairs would. Intervals "
    "and the two one-sided tests of *equivalent* are Welch's; *better* and *worse* are from the "
    "permutation test of Welch's t, Holm-corrected over the pairs; *beyond margin* says whether "
    "the same test shows that the difference is larger than the margin. *equivalent* is corrected "
    "for the number of pairs that can differ by exactly the margin, and needs 16 runs, none of "
    "which diverged. For each of these three statements, the chance that it is wrong of any pair "
    "is at most alpha: exactly if arms have the same distribution, else if there are enough runs "
    "for the means to be normal."
  ),
  stats.RESAMPLED: (
    "Differences are a minus b, paired by split. **The splits of the seeds overlap**, so seeds are "
    "not independent: the variance of a mean over n splits is taken to be (1/n + n_test / n_train) "
    "times that of one (Nadeau & Bengio, 2003), in all tests and intervals, which are Student's t. "
    "The second term stays however many seeds there are. *better* and *worse*: the t test, "
    "Holm-corrected over the pairs of a metric, shows a difference; *beyond margin* says whether "
    "it also shows that it is larger than the margin. *equivalent*: two one-sided t tests, "
    "corrected for the number of pairs that can differ by exactly the margin, put the difference "
    f"within it, {_EQUIVALENT}. The chance that any pair is wrongly called one of these is at most "
    "alpha as far as that variance is right: it is an approximation, and too large if the training "
    "sets hardly matter. Sign-flip tests are not valid here."
  ),
  stats.GROUP_SEQUENTIAL: (
    "Differences are a minus b, paired by seed. A pair has the verdict, and the numbers, of the "
    "look that decided it. *better* and *worse*: the sign-flip permutation test, made "
    "group-sequential. *equivalent*: two one-sided t tests at the level of the look, "
    f"{_EQUIVALENT}. Looks share the level by Lan and DeMets's spending (Pocock type), pairs by "
    "Bonferroni: for each metric, the chance of any wrong verdict is at most alpha, "
    f"{_SYMMETRIC}. Intervals are repeated confidence intervals, right for all pairs and looks "
    "together with probability 1 - alpha; *beyond margin* says whether they exclude the margin. "
    "They are Student's and the permutation test is not, so for skewed differences a difference "
    "can be shown whose interval still has zero at its edge. **The mean of a pair that was "
    "decided early is biased**, away from zero where one arm is better: read its interval and the "
    "median-unbiased estimate, which is as often too large as too small. The "
    "budget belongs to the test: another budget is another run."
  ),
  stats.ANYTIME: (
    "Differences are a minus b, paired by seed. Verdicts are from a test by betting, whose level "
    "holds whenever, and for whatever reason, seeds are added or not. *better* and *worse*: the "
    "evidence against equal arms. *equivalent*: that against a difference as large as the margin, "
    f"{_EQUIVALENT}. For each metric, the chance of any wrong verdict at any number of seeds is at "
    f"most alpha (Bonferroni over pairs), {_SYMMETRIC}. Intervals are right at all numbers of "
    "seeds and for all pairs together with probability 1 - alpha. **The mean difference of a run "
    "that is stopped by its results is biased**: read its interval. More seeds may be added."
  ),
}


def new_examples_text(verdicts: Sequence[stats.Verdict]) -> str:
  """Returns a section on new test examples, for accuracies; empty if there is nothing to say."""
  rows = [["metric", "a", "b", "a - b", "new seeds", "new seeds and images"]]
  rows[0] += ["variance from seeds", "from images", "from both", "smallest difference to resolve"]
  for v in verdicts:
    new = v.new_examples
    if new is None or not math.isfinite(new.low):
      continue
    low, high = (f"{100 * end:+.3f}" for end in (v.ci_low, v.ci_high))
    shares = (
      f"{100 * share:.0f}%" for share in (new.seed_share, new.example_share, new.both_share)
    )
    rows.append(
      [
        *(v.metric, v.arm_a, v.arm_b, f"{100 * v.mean_difference:+.3f} pt"),
        f"[{low}, {high}]" if math.isfinite(v.ci_low) else "-",
        f"[{100 * new.low:+.3f}, {100 * new.high:+.3f}]",
        *shares,
        f"{100 * new.resolution:.3f} pt",
      ]
    )
  if len(rows) == 1:
    return ""
  return f"## New test images\n\n{markdown_table(rows)}\n\n{_NEW_EXAMPLES_NOTE}"


_NEW_EXAMPLES_NOTE = (
  "Verdicts are about training again and testing on the same images. The second interval (95%, for "
  "this pair alone) is about new seeds and new test images of the same kind: seeds and images are "
  "crossed random effects, and the shares say where the variance of the difference comes from. "
  "More seeds reduce all but that from images, so no number of seeds makes a difference below the "
  "last column significant for new images (0: the part of the images is not told from zero). "
  "`correct.npz` has a bit per member and test image."
)
