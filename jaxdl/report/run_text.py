"""The report of a run as Markdown: what the arms and verdicts say, and how it was made."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxdl import answer as answer_lib
from jaxdl import stats
from jaxdl.experiment import Experiment
from jaxdl.population.results import Population
from jaxdl.report import arm_text, verdict_text
from jaxdl.report.markdown import escape, markdown_table, paragraphs, picture

# The folder of what `jaxdl.store.store` keeps of the run.
RUN = "run"
FIGURES, TABLES = "figures", "tables"
ARMS_FILE = "arms.csv"


def render(
  experiment: Experiment,
  population: Population,
  verdicts: Sequence[stats.Verdict],
  origin: dict[str, Any],
  pictures: Iterable[tuple[str, str]],
  sections: Sequence[str],
  answer: str | None = None,
) -> str:
  """Returns the report: question, answer, tables, pictures, then how it was made.

  `answer` stands in the place of the one that the verdicts give, and of their sentences.
  """
  primary = next(iter(experiment.margins))
  shown = answer_lib.shown_verdicts(verdicts, population)
  few = population.select(answer_lib.shown_arms(population.scores(primary)))
  parts = [
    f"# {escape(experiment.question)}",
    anyway_text(origin),
    partial_text(population),
    *([f"**{escape(answer)}**"] if answer else _answer(experiment, population, verdicts, shown)),
    f"{escape(origin['dataset']['description'])}. {_classes_text(population)}"
    f"{arm_text.seeds_text(population)} of each of {len(population.arms)} arms. "
    f"{arm_text.stopping_text(population)}",
    "## Verdicts",
    markdown_table(verdict_text.verdict_rows(shown)) if shown else "There is one arm only.",
    verdict_text.many_note(
      verdicts, population.scores(primary), experiment.reference, f"{TABLES}/{ARMS_FILE}"
    ),
    verdict_text.design_note(experiment),
    verdict_text.new_examples_text(shown),
    "## Arms",
    f"{markdown_table(arm_text.arms_rows(few))}\n\n{arm_text.ARMS_NOTE}",
    arm_text.censored_text(few),
    _per_class_text(few),
    "## Pictures",
    *(picture(f"{FIGURES}/{name}.png", caption) for name, caption in pictures),
    *sections,
    "## How it was made",
    _provenance_text(origin),
  ]
  return paragraphs(parts) + "\n"


def _answer(
  experiment: Experiment,
  population: Population,
  verdicts: Sequence[stats.Verdict],
  shown: Sequence[stats.Verdict],
) -> list[str]:
  """Returns what the verdicts answer, then a sentence for each of those that are shown."""
  primary = next(iter(experiment.margins))
  answer = answer_lib.answer(verdicts, primary, population, experiment.alpha)
  about = [v for v in shown if v.metric == primary]
  return [f"**{escape(answer)}**", "\n".join(f"- {escape(answer_lib.sentence(v))}." for v in about)]


def _classes_text(population: Population) -> str:
  if not population.has_classes:
    return ""
  return f"The classes are {escape(', '.join(population.class_names))}. "


def _per_class_text(population: Population) -> str:
  rows = arm_text.per_class_rows(population)
  return f"## Classes\n\n{markdown_table(rows)}\n\n{arm_text.PER_CLASS_NOTE}" if rows else ""


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
  text = (
    f"**Partial: {len(population.seeds)} of {planned} seeds have finished with all of their "
    f"arms.** Missing: {missing}{more}."
  )
  failed = (
    f"- Chunk {escape(name)} failed: {escape(reason[:200])} (`{RUN}/failures/{name}.txt`)"
    for name, reason in population.failures.items()
  )
  return paragraphs([text, "\n".join(failed)])


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
