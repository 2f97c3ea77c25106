"""The report of scores that were trained elsewhere: a folder like that of a run."""

import datetime
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl import stats
from jaxdl.population import environment
from jaxdl.report import verdict_text
from jaxdl.report.arm_text import summary_table
from jaxdl.report.markdown import escape, markdown_table, paragraphs, picture
from jaxdl.report.run_text import FIGURES
from jaxdl.report.tables import write_csv
from jaxdl.store import files, locks

if TYPE_CHECKING:
  from jaxdl.report.figures import Figure

_PROVENANCE = "provenance.json"
NAMES = (FIGURES, "scores.csv", "verdicts.json", "report.md")


class Comparison(NamedTuple):
  """Scores that were compared.

  Attributes:
    question: a line for the head of the report.
    tasks: name -> scores; one without a name if there are no tasks.
    scores: what the verdicts are on: those of the only task, or the means over tasks.
    verdicts: on `scores`.
    how: how it was decided how many seeds there are, in Markdown.
    settings: what the verdicts depend on beside the scores, for `json.dumps`.
  """

  question: str
  tasks: Mapping[str, stats.Scores]
  scores: stats.Scores
  verdicts: Sequence[stats.Verdict]
  how: str
  settings: Mapping[str, Any]


def answer(comparison: Comparison) -> str:
  """Returns what the verdicts say together, in one sentence."""
  if not comparison.verdicts:
    return "There is one arm only, so there is nothing to compare."
  return answer_lib.outcome(comparison.verdicts)


def shown_verdicts(comparison: Comparison) -> list[stats.Verdict]:
  """Returns the verdicts that tables and pictures show; of many arms, the best and the worst."""
  shown = answer_lib.shown_arms(comparison.scores)
  if len(shown) == len(comparison.scores.arms):
    return list(comparison.verdicts)
  about = {v.arm_a: v for v in comparison.verdicts}
  return [about[arm] for arm in shown if arm in about]


def write(workdir: pathlib.Path, comparison: Comparison) -> None:
  """Writes verdicts, report, pictures and the scores into a folder, all or nothing.

  Raises:
    InputError: the folder cannot be written, is in use, or has something in the place of what comes
      that was not written by this function.
  """
  from jaxdl.report import figures

  with locks.Lock(workdir), files.staging(workdir, _PROVENANCE) as stage:
    (stage / FIGURES).mkdir()
    pictures = _pictures(comparison)
    for name, _, figure in pictures:
      figures.save(figure, stage / FIGURES / name)
    captions = [(name, caption) for name, caption, _ in pictures]
    (stage / "report.md").write_text(_render(comparison, captions), encoding="utf-8")
    files.write_json(stage / "verdicts.json", [stats.to_json(v) for v in comparison.verdicts])
    _write_scores(stage / "scores.csv", comparison)
    files.write_json(stage / _PROVENANCE, _provenance(comparison))


def check(workdir: pathlib.Path) -> None:
  """Raises InputError where `write` would refuse the folder."""
  with locks.Lock(workdir):
    files.check_replaceable(workdir, NAMES, _PROVENANCE)


def _pictures(comparison: Comparison) -> list[tuple[str, str, "Figure"]]:
  from jaxdl.report import forest_plots, score_plots

  scores, everyone = comparison.scores, None
  if experiment_lib.is_many(scores.arms):
    everyone, scores = scores, scores.select(answer_lib.shown_arms(scores))
  of = "the mean over tasks of every seed" if len(comparison.tasks) > 1 else "every run"
  joined = ", lines joining the arms of one seed" if scores.paired else ""
  caption = f"{scores.metric}, {of}{joined}; mean with its 95% interval."
  pictures = [
    ("metric_distribution", caption, score_plots.score_distribution(scores, everyone=everyone))
  ]
  if comparison.verdicts:
    rows = [_forest_row(verdict) for verdict in shown_verdicts(comparison)]
    caption = "Differences with their intervals, in units of the margin."
    pictures.append(("differences", caption, forest_plots.forest(rows)))
  return pictures


def _forest_row(verdict: stats.Verdict) -> Any:
  from jaxdl.report import forest_plots

  mean, low, high = verdict.mean_difference, verdict.ci_low, verdict.ci_high
  interval = f" [{low:+z.3g}, {high:+z.3g}]" if math.isfinite(low) else ""
  return forest_plots.ForestRow(
    label=f"{verdict.arm_a} - {verdict.arm_b}",
    effect=mean,
    low=low,
    high=high,
    margin=verdict.margin,
    verdict=verdict.verdict,
    text=f"{mean:+z.3g}{interval}" if math.isfinite(mean) else "no value",
  )


def _render(comparison: Comparison, captions: Sequence[tuple[str, str]]) -> str:
  scores, verdicts = comparison.scores, shown_verdicts(comparison)
  design = verdicts[0].design if verdicts else stats.FIXED
  diverged = int(sum(np.isnan(of.values).sum() for of in comparison.tasks.values()))
  parts = [
    f"# {escape(comparison.question)}",
    f"**{escape(answer(comparison))}**",
    "\n".join(f"- {escape(answer_lib.sentence(verdict))}." for verdict in verdicts),
    f"{len(scores.seeds)} {'seeds' if scores.paired else 'runs'} of each of {len(scores.arms)} arms"
    f"{_tasks_text(comparison)}; {diverged or 'no'} runs diverged.",
    "## Verdicts",
    markdown_table(verdict_text.verdict_rows(verdicts)) if verdicts else "",
    verdict_text.many_note(
      comparison.verdicts, scores, comparison.settings["reference"], "scores.csv"
    ),
    verdict_text.verdict_note(design, comparison.how),
    "## Arms",
    summary_table(scores.select(answer_lib.shown_arms(scores))),
    *(_task_sections(comparison) if len(comparison.tasks) > 1 else []),
    "## Pictures",
    *(picture(f"{FIGURES}/{name}.png", caption) for name, caption in captions),
    "## How it was made",
    "\n".join(f"- {escape(f'{name}: {value}')}" for name, value in comparison.settings.items()),
    "Every number is in `scores.csv` and `verdicts.json`.",
  ]
  return paragraphs(parts) + "\n"


def _tasks_text(comparison: Comparison) -> str:
  if len(comparison.tasks) == 1:
    return ""
  return (
    f" on each of {len(comparison.tasks)} tasks. Verdicts, table and picture are about the mean "
    "over these tasks, one number per seed; they do not extend to other tasks"
  )


def _task_sections(comparison: Comparison) -> list[str]:
  """Returns the means by task, the interquartile means and probabilities of improvement."""
  shown = answer_lib.shown_arms(comparison.scores)
  tasks = {name: scores.select(shown) for name, scores in comparison.tasks.items()}
  overlaps = comparison.scores.overlap is not None
  by_task = [["task", *shown]]
  for name, of in tasks.items():
    by_task.append([name, *(f"{summary.mean:.4g}" for summary in stats.summarize(of))])
  middle = [["arm", "interquartile mean", "95% interval"]]
  for arm, found in stats.interquartile_mean(tasks).items():
    interval = "-" if overlaps else f"{found.low:.4g} to {found.high:.4g}"
    middle.append([arm, f"{found.estimate:.4g}", interval])
  improvement = [["a", "b", "probability that a is better", "95% interval"]]
  for verdict in shown_verdicts(comparison):
    found = stats.probability_of_improvement(tasks, verdict.arm_a, verdict.arm_b)
    interval = "-" if overlaps else f"{found.low:.3f} to {found.high:.3f}"
    improvement.append([verdict.arm_a, verdict.arm_b, f"{found.estimate:.3f}", interval])
  how = "Intervals are percentiles of a bootstrap that draws seeds within each task."
  if overlaps:
    how = "There are no intervals: a bootstrap needs seeds whose splits do not overlap."
  return [
    "## Tasks",
    markdown_table(by_task),
    markdown_table(middle),
    markdown_table(improvement),
    "Means by task; the mean of the middle half of all scores; how likely a run of one arm is "
    f"better than one of the other, on average over tasks. {how} A run that diverged counts as "
    "worse than all others.",
  ]


def _write_scores(file: pathlib.Path, comparison: Comparison) -> None:
  import pandas as pd

  columns = []
  for name, scores in comparison.tasks.items():
    num_seeds, num_arms = scores.values.shape
    columns.append(
      pd.DataFrame(
        {
          "task": [name] * scores.values.size,
          "seed": np.repeat(scores.seeds, num_arms),
          "arm": list(scores.arms) * num_seeds,
          scores.metric: scores.values.ravel(),
        }
      )
    )
  table = pd.concat(columns)
  if len(comparison.tasks) == 1:
    table = table.drop(columns="task")
  write_csv(file, table)


def _provenance(comparison: Comparison) -> dict[str, Any]:
  return {
    "command": environment.command(),
    "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "settings": dict(comparison.settings),
  }
