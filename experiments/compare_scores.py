"""Which arm is better, by scores from any other program?

  jaxdl scores --scores=runs.csv --metric=acc --arm=arm --seed=seed --margin=0.01 --workdir=DIR

reads a table in long format, with a row per run, as trackers and spreadsheets export it (CSV, TSV
or Parquet), and writes verdicts, pictures and a report. The values of --metric, --arm, --seed and
--task are names of columns. A run that failed is a row without a score.
"""

import dataclasses
import hashlib
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxdl import experiment, report, stats
from jaxdl.errors import InputError, brief, one_line
from jaxdl.report import score_report
from jaxdl.store import files

_FIXED = (
  "This holds if the number of seeds was decided before the results were seen. For seeds that were "
  "added until decided there are `--budget` and `--anytime`."
)
_NEEDED = ("scores", "metric", "arm", "seed", "margin", "workdir")


def _define() -> flags.FlagValues:
  values = flags.FlagValues()
  texts = {
    "scores": "Table with a row per run: .csv, .tsv or .parquet.",
    "metric": "Column of the scores.",
    "arm": "Column of the arms.",
    "seed": "Column of the seeds, integers.",
    "task": "Column of the tasks, e.g. datasets, if there are several.",
    "reference": "Arm to compare the others with (default: every pair; with many arms, the best).",
    "workdir": "Directory for the results.",
  }
  for name, text in texts.items():
    flags.DEFINE_string(name, None, text, flag_values=values)
  numbers = {
    "margin": (None, "Largest difference that counts as none."),
    "alpha": (0.05, "Level of the tests."),
    "resolution": (None, "Scores are rounded to multiples of it."),
    "overlap": (
      None,
      "Number of test examples divided by that of training examples, where each seed is a split of "
      "the same examples, as in cross-validation.",
    ),
  }
  for name, (default, text) in numbers.items():
    flags.DEFINE_float(name, default, text, flag_values=values)
  flags.DEFINE_integer(
    "budget",
    None,
    "Most seeds of a run that is tested after every 8, in the table's order, until decided.",
    flag_values=values,
  )
  switches = {
    "lower_is_better": "Lower scores are better, as of a loss.",
    "anytime": "Seeds were or will be added because of the results: use a betting test.",
  }
  for name, text in switches.items():
    flags.DEFINE_bool(name, False, text, flag_values=values)
  return values


def main(argv: Sequence[str]) -> int:
  """Compares the scores of a table; returns the exit status."""
  if {"--help", "-h", "--helpfull"} & set(argv):
    print(f"{__doc__}\n{_define().get_help()}")
    return 0
  try:
    values = _parse(argv)
    workdir = files.expand_home(values.workdir)
    score_report.check(workdir)  # before anything is computed
    comparison = compare(values)
    score_report.write(workdir, comparison)
  except (flags.Error, InputError) as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
  print(f"{one_line(comparison.question)}\n{one_line(score_report.answer(comparison))}\n")
  if comparison.verdicts:
    print(report.text_table(report.verdict_rows(score_report.shown_verdicts(comparison))))
  print(f"\nReport: {one_line(workdir / 'report.md')}")
  return 0


def compare(values: flags.FlagValues) -> score_report.Comparison:
  """Returns the scores in a table with their verdicts, by the flags."""
  file = files.expand_home(values.scores)
  frame, checksum = _read(file)
  columns = {"metric": values.metric, "arm": values.arm, "seed": values.seed}
  settings = {"resolution": values.resolution, "higher_is_better": not values.lower_is_better}
  if values.task is None:
    scores = stats.Scores.from_frame(frame, **columns, **settings)
    tasks = {"": scores}
  else:
    tasks = stats.Scores.from_frame(frame, **columns, task=values.task, **settings)
    scores = stats.mean_over_tasks(tasks)
  if values.overlap is not None:
    if not scores.paired:
      raise InputError("--overlap is for arms that have the same splits, and these share no seed")
    scores = dataclasses.replace(scores, overlap=values.overlap)
  verdicts, how = _verdicts(scores, values)
  return score_report.Comparison(
    question=f"How do the arms in {file.name} compare in {values.metric}?",
    tasks=tasks,
    scores=scores,
    verdicts=verdicts,
    how=how,
    settings={
      "scores": file.name,
      "SHA-256": checksum,
      **columns,
      "task": values.task,
      **settings,
      "margin": values.margin,
      "alpha": values.alpha,
      "reference": values.reference,
      "budget": values.budget,
      "anytime": values.anytime,
      "overlap": values.overlap,
    },
  )


def _verdicts(scores: stats.Scores, values: flags.FlagValues) -> tuple[list[stats.Verdict], str]:
  """Returns the verdicts, and in Markdown how the number of seeds was decided."""
  design = {"alpha": values.alpha, "reference": values.reference}
  if experiment.is_many(scores.arms):
    design["only_with"] = scores.best
  matched = "" if scores.paired else " No two arms share a seed, so the order also makes the pairs."
  if scores.diverged_as is not None and (values.budget is not None or values.anytime):
    so_far = stats.worst_so_far(scores.values, scores.higher_is_better)
    scores = dataclasses.replace(scores, diverged_as=so_far)
  if values.budget is not None:
    verdicts = stats.compare_looks(scores, values.margin, values.budget, **design)
    how = (
      f"Seeds were looked at after every {stats.LOOK_EVERY}, in the order of the table, and at "
      f"most {values.budget}; this `--budget` has to be that of the plan.{matched}"
    )
    return verdicts, how
  if values.anytime:
    verdicts = stats.compare_anytime(scores, values.margin, **design)
    return verdicts, f"Seeds are taken in the order of the table.{matched}"
  if "only_with" in design and values.reference is None:
    return stats.compare_with_best(scores, values.margin, values.alpha), _FIXED
  return stats.compare(scores, values.margin, **design), _FIXED


def _read(file: pathlib.Path) -> tuple[Any, str]:
  """Returns a table, and the checksum of its file."""
  import pandas as pd

  readers = {
    ".csv": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".parquet": pd.read_parquet,
  }
  if file.suffix not in readers:
    raise InputError(f"--scores must be a file {', '.join(readers)}, not {str(file)!r}")
  if not file.is_file():  # reading a pipe might never end
    raise InputError(f"there is no file {str(file)!r}")
  try:
    return readers[file.suffix](file), hashlib.sha256(file.read_bytes()).hexdigest()
  except Exception as error:  # pandas and pyarrow raise errors of many types
    raise InputError(f"cannot read {str(file)!r}: {brief(error)}") from error


def _parse(argv: Sequence[str]) -> flags.FlagValues:
  values = _define()
  rest = values(list(argv))
  if len(rest) > 1:
    raise InputError(f"unknown argument {rest[1]!r}; settings are given as --name=value")
  for name in _NEEDED:
    if values[name].value in (None, ""):
      raise InputError(f"--{name} is {'missing' if values[name].value is None else 'empty'}")
  if values.overlap is not None and not 0 < values.overlap < math.inf:
    raise InputError(f"--overlap must be positive and finite, not {values.overlap}")
  if values.budget is not None and values.anytime:
    raise InputError("--budget and --anytime are two designs; give one")
  return values


if __name__ == "__main__":
  sys.exit(main(sys.argv))
