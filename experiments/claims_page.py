"""The page of the ledger of claims: a table, the evidence for each verdict, and the runs."""

import contextlib
import hashlib
import math
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl import report
from jaxdl.arm import Arm
from jaxdl.experiment import MANY_ARMS, Experiment
from jaxdl.population.results import EPOCHS_TO_TARGET
from jaxdl.report import forest_plots
from jaxdl.stats import ledger

from .claims_runs import ROOT, Found, damage_in
from .coursework_claims import Run

# Where the claims and their margins are written down.
_LISTS = ("ml_collections_configs/textbook.py", "experiments/coursework_claims.py")


def forest_rows(outcome: ledger.Outcome) -> list[forest_plots.ForestRow]:
  """Returns one row of the picture for each part of a claim."""
  rows = []
  for index, finding in enumerate(outcome.findings):
    part = finding.part
    more = "and" if outcome.claim.needs_all else "or"
    label = outcome.claim.name if index == 0 else more
    rows.append(
      forest_plots.ForestRow(
        label=label,
        effect=part.scale * finding.difference,
        low=part.scale * finding.low,
        high=part.scale * finding.high,
        margin=part.scale * part.margin,
        verdict=finding.meaning,
        text=f"{' - '.join(part.scores.arms)}: {_difference(finding)} {part.unit}".strip(),
      )
    )
  return rows


def _difference(finding: ledger.Finding) -> str:
  values = (finding.difference, finding.low, finding.high)
  mean, low, high = (f"{finding.part.scale * value:+z.3g}" for value in values)
  return f"{mean} (all equal)" if low == high else f"{mean} [{low}, {high}]"


def markdown(
  found: Sequence[Found],
  outcomes: Sequence[tuple[Found, ledger.Outcome]],
  alpha: float,
  registered: str = "",
  note: str = "",
) -> str:
  """Returns the ledger as Markdown.

  Args:
    found: the runs.
    outcomes: the runs' claims.
    alpha: the level of each claim.
    registered: the revision in which the claims were written down.
    note: e.g. on the data or the machine, for the top.
  """
  levels = {"alpha": alpha, "level": f"{100 * alpha:g}%", "sure": f"{100 * (1 - alpha):g}%"}
  counts = {
    verdict: sum(outcome.verdict == verdict for _, outcome in outcomes)
    for verdict in (ledger.HOLDS, ledger.FAILS, ledger.TOO_SMALL, ledger.UNDECIDED)
  }
  summary = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
  table = [["claim", "its evidence", "verdict here", "n", "again"]]
  for _, outcome in outcomes:
    n = sorted({finding.num_pairs for finding in outcome.findings})
    pairs = str(n[0]) if len(n) == 1 else f"{n[0]} to {n[-1]}"
    again = "" if math.isnan(outcome.repeats) else f"{100 * outcome.repeats:.0f}%"
    table.append([outcome.claim.sentence, outcome.claim.evidence, outcome.verdict, pairs, again])
  return (
    "\n\n".join(
      [
        "# Claims, and what is left of them",
        _INTRODUCTION.format(**levels),
        *([report.escape(note)] if note else []),
        f"{len(outcomes)} claims. {summary.capitalize()}. {_expected(outcomes, alpha)}".strip(),
        _registered(registered),
        report.markdown_table(table),
        "![Every comparison that a claim rests on, in units of its margin](figures/claims.png)",
        "## The evidence for each verdict",
        _HOW_TO_READ.format(**levels, share=100 * alpha ** (1 / 12)),
        *(_claim_text(run, outcome) for run, outcome in outcomes),
        "## The runs",
        *map(_run_text, found),
      ]
    )
    + "\n"
  )


def _expected(outcomes: Sequence[tuple[Found, ledger.Outcome]], alpha: float) -> str:
  """Returns how many verdicts may be wrong, and how many would be the same again, as sentences."""
  repeats = [outcome.repeats for _, outcome in outcomes if not math.isnan(outcome.repeats)]
  wrong = f"At {100 * alpha:g}% each, at most {alpha * len(outcomes):.1f} are wrong on average."
  if not repeats:
    return wrong
  return (
    f"{wrong} With as many fresh seeds, about {sum(repeats):.0f} of {len(repeats)} verdicts would "
    "be the same (column *again*)."
  )


def _registered(revision: str) -> str:
  """Returns where the claims are listed, and whether they have changed since a revision."""
  listed = []
  for name in _LISTS:
    content = (ROOT / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    with contextlib.suppress(OSError):  # git is not installed
      command = ["git", "show", f"{revision}:./{name}"]
      registered = subprocess.run(command, cwd=ROOT, capture_output=True)
      # An installed library has no history, and a shallow clone lacks the revision.
      if registered.returncode == 0:
        since = "unchanged" if registered.stdout == content else "changed"
        digest += f", {since} since revision {revision}"
    listed.append(f"`{name}` (SHA-256 {digest})")
  return f"Claims, metrics, margins and arms are written down in {' and '.join(listed)}."


_INTRODUCTION = (
  "Claims of a deep-learning coursework and of textbooks, tested with populations of runs. A "
  "claim *holds* or *does not hold* if its comparisons are decided, and is *undecided* if these "
  "seeds do not decide them. A claim of an improvement is *too small to count* if the difference "
  "is shown to be less than the margin, but not to be above or below 0; more seeds may turn this "
  "into *holds*, by less than the margin, or *does not hold*. A verdict applies only to the "
  "setting of its run, which is given below. Each is wrong with a probability of up to {level}, "
  "and nothing corrects for the number of claims. All runs of a setting use the same training, "
  "validation and test examples, so a verdict is about repeating the training, not about other "
  "data."
)
_HOW_TO_READ = (
  "A difference is arm a minus arm b, paired by seed (times are medians of a process's rounds, "
  "paired by process; ensembles are paired by group of networks). The brackets have two one-sided "
  "bounds from Student's t, each with its confidence. *Better* holds if the lower bound of the "
  "improvement is above 0, by more than the margin if it is above the margin; it does not hold if "
  "the upper bound is below 0, and is too small if the upper bound is below the margin. *Not "
  "worse* holds if the lower bound is above minus the margin, and does not hold if the upper "
  "bound is below it. *The same* holds if both bounds are within the margin, with 16 pairs or "
  "more, and does not hold if one bound shows that the difference is beyond it. *Different* is "
  "the opposite of *the same*. If a claim needs all of its parts, each must hold at {level}, and "
  "does not hold at {level} divided by their number; if any part is enough, it is the other way "
  "round. Reports of runs have two-sided tests that are corrected for all pairs of arms, so they "
  "may leave open what is decided here.\n\n"
  "Equal differences have no spread to compute bounds from: n of n equal ones show, with {sure} "
  "confidence, that at least {alpha:g}^(1/n) of all seeds give the same, which is {share:.0f}% "
  "for 12. Margins were set before the runs; those of times are a tenth (training) or a twentieth "
  "(classifying) of the median time. `epochs_to_target` is the number of epochs, interpolated, "
  "until the training loss reaches the target of the run. A member that never reaches it counts "
  "as one epoch more than it was trained, so where only the slower arm has such members, the true "
  "difference is larger than the one given. The *spread* of a metric is the distance of a member "
  "from the median of its arm. In claims of textbooks, and in those that learning rates or "
  "initial weights are too large, a member that diverged counts as one that never reaches the "
  "target, and its accuracy as the share of the most frequent class; in all other claims its seed "
  "is left out.\n\n"
  "Where a run has a budget of seeds, an arm ended when all of its comparisons in the run's first "
  "metric were decided, at a look after 8, 16, ... seeds. Its bounds have the level of that look, "
  "so that all looks together keep {level} (Lan-DeMets, spending of Pocock type). They are right, "
  "but the mean differences beside them are too far from 0 on average; the reports of the runs "
  "have unbiased estimates. All other numbers of seeds were fixed. *Again* is the probability "
  "that as many fresh seeds give the same verdict at the same level, if all true differences were "
  "equally likely before the run (Goodman, 1992). It counts parts as independent, is too large "
  "for runs that ended at a look, and is empty where all differences are equal."
)
# Settings of arms that the page has even if they have their defaults.
_ALWAYS_TOLD = ("model", "loss", "optimizer", "learning_rate", "batch_size", "num_epochs")
_ASSERTED = {
  ledger.BETTER: "better",
  ledger.NOT_WORSE: "not worse",
  ledger.EQUIVALENT: "the same",
  ledger.DIFFERENT: "different",
}


def _claim_text(found: Found, outcome: ledger.Outcome) -> str:
  rows = [["metric", "a", "b", "a is", "a - b", "confidence", "margin", "n", "part"]]
  for finding in outcome.findings:
    part = finding.part
    levels = [f"{100 * (1 - alpha):.3g}%" for alpha in (finding.low_alpha, finding.high_alpha)]
    rows.append(
      [
        part.scores.metric,
        *part.scores.arms,
        _ASSERTED[part.asserts],
        f"{_difference(finding)} {part.unit}".strip(),
        ", ".join(levels),
        f"{part.scale * part.margin:.3g} {part.unit}".strip(),
        f"{finding.num_pairs} of {len(part.scores.seeds)}",
        "; ".join(filter(None, [finding.meaning, finding.note, *_lost(found.run, part)])),
      ]
    )
  needed = "all parts hold" if outcome.claim.needs_all else "any part holds"
  rule = f" It holds if {needed}." if len(outcome.findings) > 1 else ""
  return (
    f"### {report.escape(outcome.claim.sentence)}\n\n**{outcome.verdict}**. "
    f"{report.escape(outcome.claim.evidence)}{rule} Run: `{found.wanted.name}`.\n\n"
    f"{report.markdown_table(rows)}"
  )


def _lost(run: Run, part: ledger.Part) -> list[str]:
  """Says of how many members of a part's arms the score is not a measured one."""
  texts, metric = [], part.scores.metric
  for arm in part.scores.arms:
    members = run.members[run.members.arm == arm]
    diverged = (members.status == "diverged").sum()
    texts += [f"{arm}: {diverged} diverged"] if diverged else []
    if metric == EPOCHS_TO_TARGET and len(members):
      never = (members[metric] > run.experiment.arms[arm].num_epochs).sum()
      texts += [f"{arm}: {never} never reached the target"] if never else []
  return texts


def _run_text(found: Found) -> str:
  command = f"python -m experiments.{found.wanted.script} {' '.join(found.wanted.arguments)}"
  with damage_in(found.path):
    origin = report.escape(_origin_text(found))
  return "\n\n".join(
    [
      f"**{found.wanted.name}**: {origin}",
      arms_text(found.wanted.experiment, found.wanted.setting),
      f"```sh\n{command} --workdir=DIR\n```",
    ]
  )


def arms_text(experiment: Experiment, setting: Any = None) -> str:
  """Returns what arms have in common, what each has of its own, and what was tried, in Markdown.

  Args:
    experiment: the arms.
    setting: of the textbook's list, if it is one.
  """
  arms = {name: arm.to_json() for name, arm in experiment.arms.items()}
  first = next(iter(arms.values()))
  shared = {key for key in first if all(arm[key] == first[key] for arm in arms.values())}
  defaults = Arm(model=first["model"], loss=first["loss"]).to_json()
  told = shared & {*_ALWAYS_TOLD, *(key for key in first if first[key] != defaults[key])}
  common = {key: first[key] for key in first if key in told}
  parts = [f"Settings of all arms: {report.escape(_settings_text(common))}."]
  if experiment.target_loss is not None:
    parts[0] += f" The target is a training loss of {experiment.target_loss:g}."
  tune = (setting and setting.tune) or {}
  rows = [["arm", "settings", "values tried"]]
  for name, arm in arms.items():
    own = {key: value for key, value in arm.items() if key not in shared}
    tried = [f"{key}: {_listed(values)}" for key, values in tune.get(name, {}).items()]
    rows.append([name, _settings_text(own), "; ".join(tried)])
  if len(arms) <= MANY_ARMS + 1:
    parts.append(report.markdown_table(rows if tune else [row[:2] for row in rows]))
  if tune:
    parts.append(
      f"Of the values tried, those with the best mean {report.escape(setting.tune_on)} over "
      f"{setting.tune_seeds} other seeds were taken. Claims about other "
      f"metrics are judged with these, which need not be the best for them. {setting.note}".strip()
    )
  return "\n\n".join(parts)


def _settings_text(settings: Mapping[str, Any]) -> str:
  return ", ".join(f"{key} {value}" for key, value in settings.items())


def _listed(values: Sequence[Any]) -> str:
  return ", ".join(map(str, values))


def _origin_text(found: Found) -> str:
  origin, experiment = found.provenance, found.wanted.experiment
  data = origin["dataset"]
  return (
    f"{experiment.question} {data['name']}, {data['num_train']:,} training, "
    f"{data['num_validation']:,} validation and {data['num_test']:,} test examples; "
    f"{_seeds_text(found)} of {len(experiment.arms)} arms; "
    f"{origin['total_seconds'] / 60:.1f} minutes on {origin['device_count']} x "
    f"{origin['device_kind']} ({origin['machine']}), JAX {origin['versions']['jax']}, source "
    f"{(origin['source']['revision'] or 'unknown')[:12]}, finished {origin['finished'][:10]}; "
    f"data SHA-256 {data['checksum'][:16]}."
  )


def _seeds_text(found: Found) -> str:
  experiment, trained = found.wanted.experiment, found.run.members.seed.nunique()
  if experiment.until_decided:
    first = next(iter(experiment.margins))
    return f"{trained} seeds of a budget of {experiment.num_seeds}, until {first} was decided,"
  return f"{trained} seeds"


def to_json(found: Found, outcome: ledger.Outcome) -> dict[str, Any]:
  """Returns a claim's outcome for `json.dumps`."""
  return {
    "name": outcome.claim.name,
    "claim": outcome.claim.sentence,
    "evidence": outcome.claim.evidence,
    "verdict": outcome.verdict,
    "repeats": None if math.isnan(outcome.repeats) else outcome.repeats,
    "run": found.wanted.name,
    "parts": [_part_to_json(finding) for finding in outcome.findings],
  }


def _part_to_json(finding: ledger.Finding) -> dict[str, Any]:
  part, values = finding.part, finding._asdict()
  numbers = ("difference", "low", "high", "low_alpha", "high_alpha")
  arm_a, arm_b = part.scores.arms
  return {
    "metric": part.scores.metric,
    "arm_a": arm_a,
    "arm_b": arm_b,
    "asserts": part.asserts,
    "margin": part.margin,
    "num_pairs": finding.num_pairs,
    "num_seeds": len(part.scores.seeds),
    **{name: values[name] if math.isfinite(values[name]) else None for name in numbers},
    "meaning": finding.meaning,
    "note": finding.note,
  }
