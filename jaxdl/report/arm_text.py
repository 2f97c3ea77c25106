"""What is said of the arms: tables of their metrics and classes, how many seeds, how they ended."""

import math
from collections.abc import Sequence

import numpy as np

from jaxdl import experiment as experiment_lib
from jaxdl import stats
from jaxdl.optim import metrics
from jaxdl.population.results import EPOCHS_TO_TARGET, PROBABILISTIC, RATES, Population
from jaxdl.report.markdown import escape, markdown_table


def arms_rows(population: Population) -> list[list[str]]:
  """Returns a row per metric and arm, header first: n, mean with interval, spread."""
  rows = [["metric", *_SUMMARY_HEADER]]
  for metric in [*population.metrics, "epochs"]:
    label = metric_label(metric, population)
    rows += [[label, *row] for row in summary_rows(population.scores(metric))]
  return rows


_SUMMARY_HEADER = ("arm", "n", "diverged", "mean", "95% interval", "std", "min", "max")


def summary_table(scores: stats.Scores) -> str:
  """Returns a Markdown table with a row per arm: n, mean with its interval, spread."""
  return markdown_table([_SUMMARY_HEADER, *summary_rows(scores)]) + "\n\n" + ARMS_NOTE


def summarize(scores: stats.Scores) -> list[stats.ArmSummary]:
  """Returns a summary per arm, see `jaxdl.stats.summarize`; the interval of a rate is in [0, 1]."""
  limits = (0, 1) if scores.metric in RATES else (-math.inf, math.inf)
  return stats.summarize(scores, limits=limits)


def summary_rows(scores: stats.Scores) -> list[list[str]]:
  """Returns a row per arm: name, n, number that diverged, mean with interval, spread."""
  scale, unit = (100, "%") if scores.metric in RATES else (1, "")
  rows = []
  for arm in summarize(scores):
    values = [scale * x for x in (arm.mean, arm.ci_low, arm.ci_high, arm.std, arm.min, arm.max)]
    mean, low, high, *spread = (f"{x:.4g}{unit}" if math.isfinite(x) else "-" for x in values)
    interval = f"{low} to {high}" if math.isfinite(arm.ci_low) else "-"
    rows.append([arm.arm, str(arm.n), str(arm.num_diverged), mean, interval, *spread])
  return rows


ARMS_NOTE = (
  "The interval is for the mean over seeds (Student's t), that of a rate cut to 0 and 100%: where "
  "it fills most of that range, these seeds say little. One value, or equal ones, have no interval."
)


def beside_table(population: Population, evidence: Sequence[tuple[str, str, float]]) -> str:
  """Returns a Markdown table of single runs reported elsewhere beside the spread over seeds here.

  Args:
    population: the population.
    evidence: (arm, metric, value), rates in [0, 1].
  """
  rows = [["arm", "metric", "one seed there", "here: mean", "std", "range", "inside"]]
  for arm, metric, value in evidence:
    scale, unit = (100, "%") if metric in RATES else (1, "")
    summary = summarize(population.scores(metric))[list(population.arms).index(arm)]
    there, mean, low, high = (
      f"{scale * x:.4g}{unit}" for x in (value, summary.mean, summary.min, summary.max)
    )
    spread = f"{scale * summary.std:.3g}{unit}" if summary.n > 1 else "-"
    inside = "below" if value < summary.min else "above" if value > summary.max else "yes"
    cells = [mean, spread, f"{low} to {high}", inside] if summary.n else ["-"] * 4
    rows.append([arm, metric, there, *cells])
  return markdown_table(rows)


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
