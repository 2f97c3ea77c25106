"""Which claims of the coursework and of textbooks hold, by how much, with how many seeds?

  jaxdl run claims --workdir=DIR [--collect=DIR,DIR,...]

runs the experiments that the claims need in `DIR/runs` and judges every claim. A finished run with
the same config, there or in a workdir that `--collect` names, is reused. A run with another config
in its place is replaced only if `--overwrite` is given. `CLAIMS.md`, `CLAIMS.html`, `claims.json`
and a picture are written to DIR.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import math
import pathlib
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from jaxdl import report, stats
from jaxdl.errors import InputError, check_integer, one_line, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.report import figures, forest_plots
from jaxdl.stats import ledger
from jaxdl.store import files, interrupts, locks
from jaxdl.store.store import Store

from . import CONFIGS, command_line, from_config, own_question, textbook_claims
from .coursework_claims import CLAIMS, Run

_ROOT = CONFIGS.parent
_CONFIG_FILE = str(CONFIGS / "claims.py")
_COLLECT = flags.DEFINE_list("collect", [], "Workdirs of finished runs to take results from.")
_FILES = ("CLAIMS.md", "CLAIMS.html", "claims.json", "figures")
_KEYS = ("runs", "textbook", "num_seeds", "alpha", "note")
# Where the claims and their margins are written down.
_LISTS = ("ml_collections_configs/textbook.py", "experiments/coursework_claims.py")


class Wanted(NamedTuple):
  """A run that claims depend on."""

  name: str  # of the experiment, or of a setting of the textbook
  script: str  # name of the experiment's script
  experiment: Experiment
  arguments: tuple[str, ...]  # command-line arguments, except for the workdir


class Found(NamedTuple):
  """The results of a run, and their provenance."""

  wanted: Wanted
  run: Run
  path: pathlib.Path
  provenance: Mapping[str, Any]


def judge_all(config: ConfigDict):
  """Runs or collects the experiments, judges the claims, and writes the ledger."""
  runs, settings = read_runs(config), read_settings(config)
  wanted = [plan(name, variant, config) for name, variant in runs.items()]
  wanted += [plan_setting(name, setting, config) for name, setting in settings.items()]
  workdir = pathlib.Path(command_line.WORKDIR.value)
  files.check_replaceable(workdir, _FILES)
  places = [workdir / "runs" / run.name for run in wanted]
  found = [obtain(run, place) for run, place in zip(wanted, places, strict=True)]
  outcomes = _judge(found, settings, config.alpha)
  publish(workdir, found, outcomes, config.alpha, config.note)
  for _, outcome in outcomes:
    print(f"{outcome.verdict:15} {outcome.claim.sentence}")
  print(f"\nLedger: {one_line(workdir / 'CLAIMS.html')}")


def read_runs(config: ConfigDict) -> dict[str, str]:
  """Returns experiment -> variant of its config.

  Raises:
    InputError: a key or experiment is unknown, or a value is out of range.
  """
  for key in config:
    if key not in _KEYS:
      raise unknown_name("config key", key, _KEYS)
  check_integer("num_seeds", config.num_seeds, 0)
  stats.check_settings(1, 1, config.alpha, stats.NUM_RESAMPLES)
  runs = {name: variant for name, variant in config.runs.items() if variant}
  for name in runs:
    if name not in CLAIMS:
      raise unknown_name("experiment", name, CLAIMS)
  if not runs and not config.textbook:
    raise InputError("the config names no run")
  return runs


@functools.cache
def _textbook() -> dict[str, Any]:
  """Returns what the textbook's list of settings defines."""
  return runpy.run_path(str(CONFIGS / "textbook.py"))


def read_settings(config: ConfigDict) -> dict[str, Any]:
  """Returns the settings of the textbook's list that the config names, by name.

  Raises:
    InputError: there is no such setting, or a claim needs another one.
  """
  listed = _textbook()["SETTINGS"]
  names = from_config.read_names(config, "textbook", "setting")
  if names == ["all"]:
    names = [*listed]
  for name in names:
    if name not in listed:
      raise unknown_name("setting of the textbook", name, listed)
    for claimed in listed[name].claims:
      others = [str(part[3]).rpartition(":")[0] for part in claimed.parts]
      missing = [other for other in others if other and other not in names]
      if missing:
        raise InputError(f"claim {claimed.name!r} needs the setting {missing[0]!r} as well")
  return {name: listed[name] for name in names}


def plan(name: str, variant: str, config: ConfigDict) -> Wanted:
  """Returns the run of an experiment that the config describes."""
  module = importlib.import_module(f".{name}", __package__)
  settings = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)
  arguments = [f"--config=ml_collections_configs/{name}.py:{variant}"]
  if config.num_seeds:
    settings.num_seeds = config.num_seeds
    arguments.append(f"--config.num_seeds={config.num_seeds}")
  return Wanted(name, name, module.SCRIPT.create_experiment(settings), tuple(arguments))


def plan_setting(name: str, setting: Any, config: ConfigDict) -> Wanted:
  """Returns the run of a setting of the textbook."""
  settings = _textbook()["get_config"](name)
  arguments = [f"--config=ml_collections_configs/textbook.py:{name}"]
  if config.num_seeds:
    settings.num_seeds = config.num_seeds
    arguments.append(f"--config.num_seeds={config.num_seeds}")
  experiment = own_question.create_experiment(settings)
  if setting.until_decided:
    experiment = dataclasses.replace(experiment, until_decided=True)
    arguments.append("--until_decided")
  return Wanted(name, "textbook", experiment, tuple(arguments))


def obtain(wanted: Wanted, place: pathlib.Path) -> Found:
  """Returns a finished run with the same config if there is one, and runs it otherwise.

  Raises:
    InputError: the run fails, or its results cannot be read.
  """
  for path in (place, *map(files.expand_home, _COLLECT.value)):
    if is_run_of(wanted.experiment, path):
      print(f"{wanted.name}: collected from {path}", file=sys.stderr)
      return _read(wanted, path)
  print(f"{wanted.name}: running", file=sys.stderr)
  arguments = [*wanted.arguments, f"--workdir={place.resolve()}"]
  if command_line.OVERWRITE.value and not is_begun(wanted.experiment, place):
    arguments.append("--overwrite")
  if command_line.DATA_DIR.value is not None:
    arguments.append(f"--data_dir={pathlib.Path(command_line.DATA_DIR.value).resolve()}")
  command = [sys.executable, "-m", f"experiments.{wanted.script}", *arguments]
  status = interrupts.run_child(command, cwd=_ROOT, stdout=subprocess.DEVNULL)
  if status in (2, interrupts.EXIT_STATUS):
    sys.exit(status)  # the run has already printed why
  if status:
    raise InputError(f"the run of {wanted.name} failed with exit status {status}; see above")
  return _read(wanted, place)


def is_begun(experiment: Experiment, path: pathlib.Path) -> bool:
  """Whether a workdir holds an unfinished run of this experiment, which can be continued."""
  try:
    identity = Store(path / report.RUN).read_identity()
    return identity is not None and Experiment.from_json(identity["config"]) == experiment
  except InputError:
    return False


def is_run_of(experiment: Experiment, path: pathlib.Path) -> bool:
  """Whether a workdir holds a finished run of this experiment, with the same effective config."""
  try:
    config = json.loads((path / report.CONFIG_FILE).read_text(encoding="utf-8"))
    return type(experiment).from_json(config) == experiment
  except (OSError, ValueError, RecursionError):  # an InputError is a ValueError
    return False


def _read(wanted: Wanted, path: pathlib.Path) -> Found:
  found = report.read_run(path, type(wanted.experiment))
  if found.experiment != wanted.experiment:
    raise InputError(f"the run in {str(path)!r} is of another config")
  run = Run(wanted.name, wanted.experiment, found.members, found.tables)
  return Found(wanted, run, path, found.provenance)


def _judge(
  found: Sequence[Found], settings: Mapping[str, Any], alpha: float
) -> list[tuple[Found, ledger.Outcome]]:
  """Judges the claims that depend on the runs, in the order of the runs.

  Raises:
    InputError: the tables of a run are incomplete or damaged.
  """
  runs = {of.wanted.name: of.run for of in found}
  outcomes = []
  for of in found:
    name, experiment = of.wanted.name, of.wanted.experiment
    with _damage_in(of.path):
      if name in settings:
        claims = textbook_claims.claims(settings[name], name, runs)
      else:
        claims = CLAIMS[name](of.run)
      budget = experiment.num_seeds if experiment.until_decided else None
      outcomes += [(of, ledger.judge(claim, alpha, budget)) for claim in claims]
  return outcomes


@contextlib.contextmanager
def _damage_in(path: pathlib.Path) -> Iterator[None]:
  """Turns the various exceptions that damaged results raise into an InputError."""
  try:
    yield
  except InputError:
    raise
  except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
    reason = f"{type(error).__name__}: {error}"
    raise InputError(f"the run in {str(path)!r} is damaged: {reason}") from error


def publish(
  workdir: pathlib.Path,
  found: Sequence[Found],
  outcomes: Sequence[tuple[Found, ledger.Outcome]],
  alpha: float,
  note: str = "",
):
  """Writes the ledger and its picture; all files are complete, or none is written."""
  with locks.Lock(workdir), files.staging(workdir, last=("CLAIMS.md",)) as stage:
    rows = [row for _, outcome in outcomes for row in forest_rows(outcome)]
    (stage / "figures").mkdir()
    figures.save(forest_plots.forest(rows), stage / "figures" / "claims")
    text = markdown(found, outcomes, alpha, note)
    (stage / "CLAIMS.md").write_text(text, encoding="utf-8")
    (stage / "CLAIMS.html").write_text(report.html.document(text, stage), encoding="utf-8")
    records = [to_json(*pair) for pair in outcomes]
    (stage / "claims.json").write_text(
      json.dumps(records, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )


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
    path = _ROOT / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    command = ["git", "log", "-1", "--format=%h of %cs", "--", name]
    try:
      run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
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
  with _damage_in(found.path):
    origin = report.escape(_origin_text(found))
  return f"**{found.wanted.name}**: {origin}\n\n```sh\n{command} --workdir=DIR\n```"


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


if __name__ == "__main__":
  command_line.main(judge_all, default_config=_CONFIG_FILE)
