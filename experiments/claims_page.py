"""The page of the ledger of claims: a table, the evidence for each verdict, and the runs."""

import hashlib
import math
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl import report
from jaxdl.report import forest_plots
from jaxdl.stats import ledger

from .claims_runs import ROOT, Found, damage_in

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
  note: str = "",
) -> str:
  """Returns the ledger as Markdown.

  Args:
    found: the runs.
    outcomes: the runs' claims.
    alpha: the level of each claim.
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
        _registered(),
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
  if not repeats:
    return ""
  return (
    f"At {100 * alpha:g}% each, up to {alpha * len(repeats):.1f} of the {len(repeats)} decided "
    f"verdicts are wrong on average. With as many fresh seeds, about {sum(repeats):.0f} of them "
    "would be the same (column *again*)."
  )


def _registered() -> str:
  """Returns where the claims are listed, and since when."""
  listed = []
  for name in _LISTS:
    path = ROOT / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    command = ["git", "log", "-1", "--format=%h of %cs", "--", name]
    try:
      run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
      since = run.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
      since = ""  # an installed library has no history
    listed.append(f"`{name}` (SHA-256 {digest}{f', revision {since}' if since else ''})")
  return f"Claims, metrics and margins are written down in {' and '.join(listed)}."


_INTRODUCTION = (
  "Claims of a deep-learning coursework and of textbooks, tested with populations of runs. A "
  "claim *holds* or *does not hold* if its comparisons are decided, and is *undecided* if these "
  "seeds do not decide them. An improvement is *too small to count* if it is shown to be less "
  "than the margin, if there is any. A verdict applies only to the setting of its run, which is "
  "named below. Each is wrong with a probability of up to {level}, and nothing corrects for the "
  "number of claims. All runs on a dataset use the same test images, so a verdict is about "
  "repeating the training, not about other images."
)
_HOW_TO_READ = (
  "A difference is arm a minus arm b, paired by seed (times are medians of a process's rounds, "
  "paired by process; ensembles are paired by group of networks). The brackets have the two bounds "
  "that decide, from Student's t, each with its confidence. *Better* holds if the bound is beyond "
  "0, and by more than the margin if the bound is beyond the margin. *Not worse* holds if the "
  "bound is above minus the margin. *The same* holds if both bounds are within the margin, with 16 "
  "pairs or more, and fails if one bound shows that the difference is beyond it. If a claim needs "
  "all of its parts, each must hold at {level}, and fails at {level} divided by their number; if "
  "any part is enough, it is the other way round. Equal differences have no spread to compute "
  "bounds from: n of n equal ones show, with {sure} confidence, that at least {alpha:g}^(1/n) of "
  "all seeds give the same, which is {share:.0f}% for 12. The margin was set before the run. In "
  "claims of textbooks, and in those that learning rates or initial weights are too large, a "
  "member that diverged never reaches the target, and its accuracy is the share of the most "
  "frequent class; elsewhere it is left out. Never reaching the target counts as one epoch more "
  "than were trained, so the true difference is at least the one given. Runs of textbook claims "
  "ended when their first metric was decided, at one of the looks after 8, 16, ... seeds; their "
  "bounds have the level of that look, so that all looks together keep {level} (Lan-DeMets "
  "spending). *Again* is the probability that as many fresh seeds give the same verdict, if before "
  "the run all differences were as likely."
)
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
        f"{finding.meaning}, {finding.note}" if finding.note else finding.meaning,
      ]
    )
  needed = "all parts hold" if outcome.claim.needs_all else "any part holds"
  rule = f" It holds if {needed}." if len(outcome.findings) > 1 else ""
  return (
    f"### {report.escape(outcome.claim.sentence)}\n\n**{outcome.verdict}**. "
    f"{report.escape(outcome.claim.evidence)}{rule} Run: `{found.wanted.name}`.\n\n"
    f"{report.markdown_table(rows)}"
  )


def _run_text(found: Found) -> str:
  command = f"python -m experiments.{found.wanted.script} {' '.join(found.wanted.arguments)}"
  with damage_in(found.path):
    origin = report.escape(_origin_text(found))
  parts = [f"**{found.wanted.name}**: {origin}", f"```sh\n{command} --workdir=DIR\n```"]
  if found.wanted.setting is not None:
    parts[1:1] = _setting_parts(found.wanted.setting)
  return "\n\n".join(parts)


def _setting_parts(setting: Any) -> list[str]:
  """Returns the arms of a setting of the textbook, and how their settings were chosen."""
  rows = [["arm", "settings", "values tried"]]
  for arm, changes in setting.arms.items():
    tried = (setting.tune or {}).get(arm, {})
    each = [f"{key}: {_listed(values)}" for key, values in tried.items()]
    rows.append([arm, settings_text(changes), "; ".join(each)])
  parts = [f"All arms: {report.escape(settings_text(setting.base))}.", report.markdown_table(rows)]
  if setting.tune is not None:
    parts.append(
      f"Of the values tried, those with the best mean {report.escape(setting.tune_on)} over "
      f"{setting.tune_seeds} other seeds were taken."
    )
  return parts


def settings_text(settings: Mapping[str, Any]) -> str:
  """Returns settings of arms as a list of names and values."""
  return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as above"


def _listed(values: Sequence[Any]) -> str:
  return ", ".join(f"{value:g}" for value in values)


def _origin_text(found: Found) -> str:
  origin, experiment = found.provenance, found.wanted.experiment
  data = origin["dataset"]
  return (
    f"{experiment.question} {data['name']}, {data['num_train']:,} training, "
    f"{data['num_validation']:,} validation and {data['num_test']:,} test images; "
    f"{_seeds_text(found)} of {len(experiment.arms)} arms; "
    f"{origin['total_seconds'] / 60:.1f} minutes on {origin['device_count']} x "
    f"{origin['device_kind']} ({origin['machine']}), JAX {origin['versions']['jax']}, source "
    f"{(origin['source']['revision'] or 'unknown')[:12]}, finished {origin['finished'][:10]}; "
    f"data SHA-256 {data['checksum'][:16]}."
  )


def _seeds_text(found: Found) -> str:
  experiment, trained = found.wanted.experiment, found.run.members.seed.nunique()
  if experiment.until_decided:
    return f"{trained} seeds, of a budget of {experiment.num_seeds},"
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
