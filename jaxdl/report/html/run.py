"""The report of a run as one HTML file."""

import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl import answer as answer_lib
from jaxdl import stats
from jaxdl.data.dataset import Dataset
from jaxdl.errors import one_line
from jaxdl.experiment import Experiment
from jaxdl.optim import losses
from jaxdl.population.results import RATES, Population
from jaxdl.report import arm_text, run_text, setup_tables, verdict_text
from jaxdl.report.html import charts, examples, page
from jaxdl.report.markdown import escape, paragraphs

# More would make the file too large; a table beside it has all of them.
_MAX_ARMS = 1000
# Larger matrices are not readable as tables.
_MAX_CLASSES = 20
# Bytes of all tables that are embedded, and of all pictures.
_MAX_DOWNLOADS, _MAX_PICTURES = 1_500_000, 1_200_000
_MIME = {".csv": "text/csv", ".json": "application/json", ".md": "text/markdown"}


class Picture(NamedTuple):
  """A picture that is a file."""

  path: pathlib.Path
  caption: str


def render(
  experiment: Experiment,
  dataset: Dataset,
  population: Population,
  verdicts: Sequence[stats.Verdict],
  origin: Mapping[str, Any],
  pictures: Sequence[Picture] = (),
  sections: Sequence[str] = (),
  files: Sequence[pathlib.Path] = (),
  answer: str | None = None,
) -> str:
  """Returns the report of a run.

  Args:
    experiment: what was run.
    dataset: as it was trained on.
    population: the part of the population that is shown.
    verdicts: of `jaxdl.experiment.compare`.
    origin: where the population comes from, as in `provenance.json`.
    pictures: PNG files of what the page does not draw itself.
    sections: Markdown that this kind of experiment adds.
    files: what can be downloaded; as many as are small enough are embedded.
    answer: in the place of the one that the verdicts give.
  """
  metric = next(iter(experiment.margins))
  shown = answer_lib.shown_arms(population.scores(metric))
  few = population.select(shown)
  shown_verdicts = answer_lib.shown_verdicts(verdicts, population)
  is_many = len(shown) < len(population.arms)
  drawn = [0, len(shown) - 1] if is_many else list(range(len(shown)))
  curves = charts.learning_curves(few, population if is_many else None)
  distribution = charts.distribution(few, metric)
  return page.render(
    "run.jinja",
    title=experiment.question,
    answer=answer or answer_lib.answer(verdicts, metric, population, experiment.alpha),
    how_sure=_how_sure(experiment, population, () if answer else verdicts, metric),
    partial=paragraphs([run_text.anyway_text(origin), run_text.partial_text(population)]),
    about=f"{escape(dataset.description)}. {arm_text.stopping_text(population)}",
    names=[one_line(name) for name in few.arms],
    num_arms=len(population.arms),
    is_many=is_many,
    drawn=drawn,
    distribution=distribution,
    verdicts=verdict_table(shown_verdicts),
    many_note=verdict_text.many_note(
      verdicts,
      population.scores(metric),
      experiment.reference,
      f"{run_text.TABLES}/{run_text.ARMS_FILE}",
    ),
    verdict_note=verdict_text.design_note(experiment),
    arms=_arms_table(experiment, population, is_many),
    all_metrics=arm_text.arms_rows(few),
    arms_note=arm_text.ARMS_NOTE,
    curves=curves,
    has_marks=_has_marks(few),
    confusion=_confusion(few, drawn) if few.has_classes else None,
    examples=_examples(few, dataset, drawn),
    per_class=arm_text.per_class_rows(few),
    per_class_note=arm_text.PER_CLASS_NOTE,
    predictions=[]
    if few.has_classes or few.resampling is not None
    else charts.predictions(few, drawn),
    models=setup_tables.models(few.arms, dataset),
    settings=setup_tables.settings(population.arms, shown),
    times=_times(few),
    seconds=_seconds(origin),
    command=shlex.join(map(one_line, origin["command"])),
    details=run_text.provenance_lines(origin),
    pictures=_embed(pictures),
    sections=[
      verdict_text.new_examples_text(shown_verdicts),
      arm_text.censored_text(few),
      *sections,
    ],
    downloads=_downloads(files),
  )


def summary(
  question: str, answer: str, verdicts: Sequence[stats.Verdict], picture: bytes, caption: str
) -> str:
  """Returns a question, its answer, the table of verdicts and a picture as a piece of HTML.

  Args:
    question: the question.
    answer: the answer to it.
    verdicts: the rows of the table.
    picture: a PNG file.
    caption: what the picture shows, for those who do not see it.
  """
  return page.render(
    "summary.jinja",
    question=question,
    answer=answer,
    table=verdict_table(verdicts),
    picture=examples.picture_url(picture),
    caption=caption,
  )


def document(text: str, folder: pathlib.Path | None = None) -> str:
  """Returns a Markdown document as a page of the same style; its first line is the title.

  Args:
    text: the document.
    folder: has its pictures, which are embedded.
  """
  title = text.partition("\n")[0].removeprefix("# ")
  return page.render("document.jinja", title=title, body=page.markdown(text, folder))


# --- The parts ---


def _how_sure(
  experiment: Experiment, population: Population, verdicts: Sequence[stats.Verdict], metric: str
) -> list[str]:
  """Says what the answer rests on, then the verdicts on its metric."""
  scale, unit = (100, " pt") if metric in RATES else (1, "")
  base = (
    f"{arm_text.seeds_text(population)} of each of {len(population.arms)} arms, compared in pairs "
    "that share a seed. On one metric, the probability that any pair is wrongly called different "
    f"is at most {experiment.alpha:g}, and so is that of wrongly calling any pair equivalent. The "
    f"margin, the largest difference in {metric} that counts as none, is "
    f"{scale * experiment.margins[metric]:g}{unit}."
  )
  about = [v for v in answer_lib.shown_verdicts(verdicts, population) if v.metric == metric]
  return [base, *(f"{answer_lib.sentence(v)}." for v in about[:10])]


class VerdictTable(NamedTuple):
  """The table of verdicts."""

  header: list[str]
  rows: list["VerdictRow"]


class VerdictRow(NamedTuple):
  """One verdict."""

  cells: list[str]
  kind: str  # a class in the style sheet
  sentence: str
  bar: charts.Bar | None


def verdict_table(verdicts: Sequence[stats.Verdict]) -> VerdictTable:
  """Returns what the template shows of verdicts."""
  header, *rows = verdict_text.verdict_rows(verdicts)
  return VerdictTable(
    header,
    [
      VerdictRow(cells, v.verdict.replace(" ", "-"), f"{answer_lib.sentence(v)}.", bar)
      for cells, v, bar in zip(rows, verdicts, charts.differences(verdicts), strict=True)
    ],
  )


def _arms_table(
  experiment: Experiment, population: Population, best_first: bool
) -> list[list[str]]:
  """Returns a row per arm: mean and interval of each metric that has a margin, size and time."""
  ranked = population.scores(next(iter(experiment.margins))).best_first
  if best_first:
    population = population.select(ranked[:_MAX_ARMS])
  columns = {}
  trained = population.is_trained.sum(axis=0)  # [A]
  for metric in experiment.margins:
    scale, unit = (100, "%") if metric in RATES else (1, "")
    cells = []
    for arm in arm_text.summarize(population.scores(metric)):
      text = f"{scale * arm.mean:.4g}{unit}" if arm.n else "-"
      if math.isfinite(arm.ci_low):
        text += f" [{scale * arm.ci_low:.4g}, {scale * arm.ci_high:.4g}]"
      cells.append(text)
    columns[arm_text.metric_label(metric, population)] = cells
  epochs = population.epochs.sum(axis=0) / trained
  columns.setdefault("epochs", [f"{mean:.1f}" for mean in epochs])
  rows = [["arm", *columns, "diverged", "parameters", "training, s per seed"]]
  for index, name in enumerate(population.arms):
    diverged = (population.status[:, index] == "diverged").sum()
    rows.append(
      [
        name,
        *(cells[index] for cells in columns.values()),
        f"{diverged} of {trained[index]}",
        f"{population.num_params[0, index]:,}",
        f"{np.nanmean(population.train_seconds[:, index]):.3g}",
      ]
    )
  return rows


def _has_marks(population: Population) -> list[tuple[str, str]]:
  marks = (("early_stopped", "stopped early"), ("diverged", "diverged"))
  return [(kind, text) for kind, text in marks if (population.status == kind).any()]


class Matrix(NamedTuple):
  """The confusion matrix of one arm, pooled over the seeds that did not diverge."""

  arm: int
  accuracy: str  # and the threshold, where there is one
  rows: list[tuple[int, list[tuple[int, float]]]]  # total, then (count, share) for each class


class Confusion(NamedTuple):
  """The confusion matrices."""

  classes: list[str]
  matrices: list[Matrix]  # empty with too many classes
  largest: list[list[str]]  # the most frequent mistakes of all arms, as a table


def _confusion(population: Population, drawn: Sequence[int]) -> Confusion:
  counts = population.confusion.sum(axis=0)  # [A, C, C]
  classes = [one_line(name) for name in population.class_names]
  matrices = []
  for arm in drawn if len(classes) <= _MAX_CLASSES else ():
    rows = [
      (int(row.sum()), [(int(n), float(n / max(row.sum(), 1))) for n in row]) for row in counts[arm]
    ]
    accuracy = f"accuracy {np.trace(counts[arm]) / max(counts[arm].sum(), 1):.2%}"
    settings = list(population.arms.values())[arm]
    if losses.has_threshold(settings.loss):
      accuracy += f" at threshold {settings.threshold:g}"
    matrices.append(Matrix(arm, accuracy, rows))
  pooled = counts.sum(axis=0)
  total = pooled.sum(axis=1)
  mistakes = pooled - np.diag(np.diag(pooled))
  order = np.argsort(-mistakes, axis=None, kind="stable")[:10]
  largest = [["true", "predicted", "count", "share of the true class"]]
  for true, answer in zip(*np.unravel_index(order, pooled.shape), strict=True):
    if mistakes[true, answer]:
      share = f"{mistakes[true, answer] / total[true]:.2%}"
      largest.append([classes[true], classes[answer], f"{mistakes[true, answer]:,}", share])
  return Confusion(classes, matrices, largest)


def _examples(
  population: Population, dataset: Dataset, drawn: Sequence[int]
) -> examples.Examples | None:
  if not population.has_classes or population.test_targets.ndim > 1:
    return None
  arms = drawn if len(population.class_names) <= _MAX_CLASSES else ()
  return examples.collect(population, dataset.test.inputs, arms)


class Time(NamedTuple):
  """The training time of an arm."""

  arm: int
  text: str
  share: float  # of the slowest arm, in percent


def _times(population: Population) -> list[Time]:
  seconds = np.nanmean(population.train_seconds, axis=0)  # [A]
  longest = max(float(seconds.max()), 1e-9)
  return [
    Time(index, f"{value:.3g} s per seed", round(100 * float(value) / longest, 1))
    for index, value in enumerate(seconds)
  ]


def _seconds(origin: Mapping[str, Any]) -> str:
  return (
    f"{origin['total_seconds']:.3g} s passed in all. Compiling took "
    f"{origin['compile_seconds']:.3g} s. Training and testing took {origin['train_seconds']:.3g} "
    f"s, the sum over the {origin['num_workers']} workers that ran side by side."
  )


def _embed(pictures: Sequence[Picture]) -> list[tuple[str | None, str, str]]:
  """Returns (data URL, caption, file name); no URL once the pictures are too large together."""
  found: list[tuple[str | None, str, str]] = []
  size = 0
  for picture in pictures:
    url = examples.picture_url(picture.path.read_bytes())
    size += len(url)
    found.append((url if size <= _MAX_PICTURES else None, picture.caption, picture.path.name))
  return found


class Download(NamedTuple):
  """A file that belongs to the report."""

  name: str
  size: str
  url: str | None  # None: too large to embed


def _downloads(files: Sequence[pathlib.Path]) -> list[Download]:
  sizes = {path: path.stat().st_size for path in files}
  embedded, total = set(), 0
  for path in sorted(files, key=lambda path: sizes[path]):  # as many as possible
    total += sizes[path]
    if total <= _MAX_DOWNLOADS:
      embedded.add(path)
  return [
    Download(
      path.name,
      f"{sizes[path] / 1000:,.1f} kB",
      examples.data_url(path.read_bytes(), _MIME.get(path.suffix, "application/octet-stream"))
      if path in embedded
      else None,
    )
    for path in files
  ]
