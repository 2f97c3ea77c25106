"""The report as text: Markdown that is safe whatever the names in it are."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl import stats
from jaxdl.errors import one_line
from jaxdl.experiment import Experiment
from jaxdl.optim import metrics
from jaxdl.population.results import EPOCHS_TO_TARGET, PROBABILISTIC, RATES, Population

# The folder of what `jaxdl.store.store` keeps of the run.
RUN = "run"
FIGURES, TABLES = "figures", "tables"
ARMS_FILE = "arms.csv"


def beside_table(population: Population, evidence: Sequence[tuple[str, str, float]]) -> str:
  """Returns a Markdown table of single runs reported elsewhere beside the spread over seeds here.

  Args:
    population: the population.
    evidence: (arm, metric, value), rates in [0, 1].
  """
  rows = [["arm", "metric", "one seed there", "here: mean", "std", "range", "inside"]]
  for arm, metric, value in evidence:
    scale, unit = (100, "%") if metric in RATES else (1, "")
    values = population.scores(metric).values[:, list(population.arms).index(arm)]
    values = values[np.isfinite(values)]
    if len(values) == 0:
      rows.append([arm, metric, f"{scale * value:.4g}{unit}", "-", "-", "-", "-"])
      continue
    spread = f"{scale * stats.std(values):.3g}{unit}" if len(values) > 1 else "-"
    low, high = values.min(), values.max()
    rows.append(
      [
        arm,
        metric,
        f"{scale * value:.4g}{unit}",
        f"{scale * values.mean():.4g}{unit}",
        spread,
        f"{scale * low:.4g}{unit} to {scale * high:.4g}{unit}",
        "yes" if low <= value <= high else "below" if value < low else "above",
      ]
    )
  return markdown_table(rows)


def render(
  experiment: Experiment,
  population: Population,
  verdicts: Sequence[stats.Verdict],
  origin: dict[str, Any],
  pictures: Iterable[tuple[str, str]],
  sections: Sequence[str],
) -> str:
  """Returns the report: question, answer, tables, pictures, then how it was made."""
  primary = next(iter(experiment.margins))
  shown = answer_lib.shown_verdicts(verdicts, population)
  few = population.select(answer_lib.shown_arms(population.scores(primary)))
  parts = [
    f"# {escape(experiment.question)}",
    anyway_text(origin),
    partial_text(population),
    f"**{escape(answer_lib.answer(verdicts, primary, population, experiment.alpha))}**",
    "\n".join(f"- {escape(answer_lib.sentence(v))}." for v in shown if v.metric == primary),
    f"{escape(origin['dataset']['description'])}. {_classes_text(population)}"
    f"{seeds_text(population)} of each of {len(population.arms)} arms. "
    f"{stopping_text(population)}",
    "## Verdicts",
    _verdict_table(shown),
    many_note(verdicts, population.scores(primary), experiment.reference, f"{TABLES}/{ARMS_FILE}"),
    design_note(experiment),
    new_examples_text(shown),
    "## Arms",
    f"{markdown_table(arms_rows(few))}\n\n{ARMS_NOTE}",
    censored_text(few),
    _per_class_text(few),
    "## Pictures",
    *(
      f"![{escape(caption)}]({FIGURES}/{name}.png)\n\n{escape(caption)}"
      for name, caption in pictures
    ),
    *sections,
    "## How it was made",
    _provenance_text(origin),
  ]
  return "\n\n".join(part for part in parts if part) + "\n"


def _classes_text(population: Population) -> str:
  if not population.has_classes:
    return ""
  return f"The classes are {escape(', '.join(population.class_names))}. "


def anyway_text(origin: Mapping[str, Any]) -> str:
  """Says in what a run that was continued differs from how it began; empty if in nothing."""
  now, records = origin.get("resumed_anyway", []), origin.get("continued", [])
  if not now and not records:
    return ""
  lines = ["**This run was continued with `--resume_anyway` although something differed.**", ""]
  if now:
    lines.append(f"- This report: {escape('; '.join(now))}.")
  for number, record in enumerate(records):
    lines += [
      f"- Trained {'then' if number else 'first'}: {_names(record['done'], records[:number])}"
    ]
    if record["begun"]:
      lines[-1] += f" Begun, and continued by the next: {_names(record['begun'])}"
    lines.append(f"- From then on: {escape('; '.join(record['differences']) or 'as it began')}.")
  return "\n".join(lines)


def _names(names: Sequence[str], before: Sequence[dict[str, Any]] = ()) -> str:
  """Lists chunks, except those that were already done in earlier records."""
  known = {name for record in before for name in record["done"]}
  fresh = [name for name in names if name not in known]
  more = f" and {len(fresh) - 20} more" if len(fresh) > 20 else ""
  what = f"chunks {', '.join(fresh[:20])}{more}" if len(fresh) > 1 else "".join(fresh[:1])
  return f"{escape(what or 'no chunk')}."


def partial_text(population: Population) -> str:
  """Says which seeds are missing and why; empty if none are."""
  if not population.missing_seeds:
    return ""
  planned = len(population.seeds) + len(population.missing_seeds)
  missing = ", ".join(map(str, population.missing_seeds[:20]))
  more = ", ..." if len(population.missing_seeds) > 20 else ""
  lines = [
    f"**Partial: {len(population.seeds)} of {planned} seeds have finished with all of their "
    f"arms.** Missing: {missing}{more}."
  ]
  lines += [
    f"- Chunk {escape(name)} failed: {escape(reason[:200])} (`{RUN}/failures/{name}.txt`)"
    for name, reason in population.failures.items()
  ]
  return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()


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
  rows = _summary_rows(scores.select(shown))
  table = [["rank", "arm", metric, "95% interval", f"verdict with {centre}", "may be best"]]
  before = 0
  for name, _, _, mean, interval, *_ in rows:
    if ranks[name] > before + 1:
      table.append([f"{ranks[name] - before - 1:,} more", "", "", "", "", ""])
    before = ranks[name]
    v = about.get(name)
    table.append([str(before), name, mean, interval, v.verdict if v else "", _may_be(v)])
  return table


def _may_be(verdict: stats.Verdict | None) -> str:
  if verdict is None or verdict.may_be_best is None:
    return ""
  return "yes" if verdict.may_be_best else "no"


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


def number(value: float, form: str) -> str:
  """Returns a number in a format, or a dash where there is none (NaN)."""
  return f"{value:{form}}" if math.isfinite(value) else "-"


def text_table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows, header first, aligned for a terminal; control characters are escaped."""
  rows = [[one_line(cell) for cell in row] for row in rows]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
  return "\n".join(
    line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
  )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows, header first, as a Markdown table, every cell escaped."""
  lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
  return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


# Markup anywhere ($ begins a formula, ~ strikes out), at word boundaries, and at the start of a
# line. An underscore inside a word is plain text, and names are easier to read without an escape.
_MARKUP = r"[\\`*\[\]|$~]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#|^[-+](?= )|^-(?=[ -]*-[ -]*-[ -]*$)"


def escape(text: object) -> str:
  """Makes text from a config or a dataset safe to stand in a line of Markdown or a table cell.

  Invisible characters, such as those that reverse the direction of writing, are escaped.
  """
  text = html.escape(one_line(text), quote=False)
  text = re.sub(_MARKUP, r"\\\g<0>", text)
  return re.sub(r"^(\d{1,9})([.)])(?= |$)", r"\1\\\2", text)  # a numbered list


def _verdict_table(verdicts: Sequence[stats.Verdict]) -> str:
  return markdown_table(verdict_rows(verdicts)) if verdicts else "There is one arm only."


def arms_rows(population: Population) -> list[list[str]]:
  """Returns a row per metric and arm, header first: n, mean with interval, spread."""
  rows = [["metric", *_SUMMARY_HEADER]]
  for metric in [*population.metrics, "epochs"]:
    label = metric_label(metric, population)
    rows += [[label, *row] for row in _summary_rows(population.scores(metric))]
  return rows


_SUMMARY_HEADER = ("arm", "n", "diverged", "mean", "95% interval", "std", "min", "max")


def summary_table(scores: stats.Scores) -> str:
  """Returns a Markdown table with a row per arm: n, mean with its interval, spread."""
  return markdown_table([_SUMMARY_HEADER, *_summary_rows(scores)]) + "\n\n" + ARMS_NOTE


def _summary_rows(scores: stats.Scores) -> list[list[str]]:
  is_rate = scores.metric in RATES
  scale, unit = (100, "%") if is_rate else (1, "")
  rows = []
  for arm in stats.summarize(scores, limits=(0, 1) if is_rate else (-math.inf, math.inf)):
    values = [scale * x for x in (arm.mean, arm.ci_low, arm.ci_high, arm.std, arm.min, arm.max)]
    mean, low, high, *spread = (f"{x:.4g}{unit}" if math.isfinite(x) else "-" for x in values)
    interval = f"{low} to {high}" if math.isfinite(arm.ci_low) else "-"
    rows.append([arm.arm, str(arm.n), str(arm.num_diverged), mean, interval, *spread])
  return rows


ARMS_NOTE = (
  "The interval is for the mean over seeds (Student's t), that of a rate cut to 0 and 100%: where "
  "it fills most of that range, these seeds say little. One value, or equal ones, have no interval."
)


def censored_text(population: Population) -> str:
  """Says how many epochs to a target are bounds and not values; empty if none are."""
  epochs = population.metrics.get(EPOCHS_TO_TARGET)
  if epochs is None:
    return ""
  parts = []
  for place, (name, arm) in enumerate(population.arms.items()):
    never = int((epochs[:, place] > arm.num_epochs).sum())
    at_once = int((epochs[:, place] == 1).sum())
    counts = [f"{never} never, counted as {arm.num_epochs + 1}"] if never else []
    counts += [f"{at_once} within the first epoch, counted as 1"] if at_once else []
    parts += [f"{escape(name)}: {' and '.join(counts)}"] if counts else []
  if not parts:
    return ""
  return (
    f"`{EPOCHS_TO_TARGET}` has bounds: {'; '.join(parts)}. Where one arm has more of the first "
    "kind, it is slower by more than the difference says."
  )


def per_class_rows(population: Population) -> list[list[str]]:
  """Returns precision, recall and F1 by class and arm, header first; empty up to two classes."""
  if len(population.class_names) in (0, 2):
    return []
  rows = [["class", "arm", "precision", "recall", "F1"]]
  scores = 100 * np.stack(metrics.per_class(population.confusion))  # [3, S, A, C]
  for index, label in enumerate(population.class_names):
    for place, arm in enumerate(population.arms):
      kept = scores[:, population.has_result[:, place], place, index]  # [3, S]
      rows.append([label, arm, *(_mean_and_std(values) for values in kept)])
  return rows


def _per_class_text(population: Population) -> str:
  rows = per_class_rows(population)
  return f"## Classes\n\n{markdown_table(rows)}\n\n{PER_CLASS_NOTE}" if rows else ""


PER_CLASS_NOTE = (
  "Mean over seeds ± standard deviation, in percent. Precision, recall and F1 in the tables above "
  "are macro averages, the mean over classes; since every example has one class, the micro average "
  "of all three is the accuracy."
)


def _mean_and_std(values: np.ndarray) -> str:
  if len(values) == 0:
    return "-"
  return f"{values.mean():.2f}" + (f" ± {stats.std(values):.2f}" if len(values) > 1 else "")


def metric_label(metric: str, population: Population) -> str:
  """Says at which decision threshold an accuracy is taken, where there is one."""
  if population.confusion_at_half is None or metric not in RATES or metric in PROBABILISTIC:
    return metric
  if metric.endswith("_at_half"):
    return f"{metric.removesuffix('_at_half')} (threshold 0.5)"
  thresholds = sorted({f"{arm.threshold:g}" for arm in population.arms.values()})
  return f"{metric} (threshold {', '.join(thresholds)})"


def seeds_text(population: Population) -> str:
  """Says how many seeds each arm was trained with, e.g. `16 to 24 seeds`."""
  trained = population.is_trained.sum(axis=0)  # [A]
  fewest, most = trained.min(), trained.max()
  return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"


def stopping_text(population: Population) -> str:
  total = int(population.is_trained.sum())
  stopped, diverged = (int((population.status == s).sum()) for s in ("early_stopped", "diverged"))
  sizes = sorted(set(population.num_params.ravel().tolist()))
  params = ", ".join(f"{n:,}" for n in sizes)
  if len(sizes) > experiment_lib.MANY_ARMS:
    params = f"{sizes[0]:,} to {sizes[-1]:,}"
  text = f"{params} parameters. {stopped} of {total} members stopped early"
  text += f"; **{diverged} diverged**." if diverged else "; none diverged."
  spared = population.status.size - total
  if not spared:
    return text
  return f"{text} {spared} members were not trained, since all pairs of their arms were decided."


def provenance_lines(origin: Mapping[str, Any]) -> list[str]:
  """Returns how a run was made, in lines of plain text."""
  versions = ", ".join(f"{k} {v}" for k, v in origin["versions"].items() if v is not None)
  revision = origin["source"]["revision"] or "unknown"
  clean = {True: "clean", False: "with uncommitted changes", None: "state unknown"}[
    origin["source"]["clean"]
  ]
  return [
    f"command: {' '.join(origin['command'])}",
    f"source: {revision}, {clean}",
    f"device: {origin['device_count']} x {origin['device_kind']} ({origin['machine']})",
    f"time: {origin['total_seconds']:.0f} s in all, {origin['compile_seconds']:.0f} s compiling, "
    f"{origin['train_seconds']:.0f} s training and testing, the sum over workers",
    f"data: {origin['dataset']['name']}, SHA-256 {origin['dataset']['checksum']}",
    f"Python {origin['python']}, {versions}",
  ]


def _provenance_text(origin: dict[str, Any]) -> str:
  return "\n".join(f"- {escape(line)}" for line in provenance_lines(origin)) + (
    "\n\nEvery number is in `members.csv`, `curves.parquet`, `confusion.npz` (of numbers, "
    "`predictions.npz`) and `verdicts.json`; every setting in `config.json`."
  )
