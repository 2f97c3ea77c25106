"""Pictures of one metric of every member: its distribution over seeds."""

import dataclasses

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaxdl import stats
from jaxdl.population.results import RATES, Population
from jaxdl.report import figures
from jaxdl.report.picture_data import score_limits, spread


@figures.styled
def metric_distribution(
  population: Population, metric: str = "test_accuracy", everyone: Population | None = None
) -> Figure:
  """Draws one metric of every member, and each arm's mean with its 95% interval.

  A small dot is one member; its vertical offset depends only on the seed, and a thin line joins the
  members of a seed. The large marker is the mean over seeds and the bar its 95% interval (Student's
  t, as in `jaxdl.stats.summarize`; the interval of a rate is cut to 0 and 100%). Both are written
  out on the right. Members that diverged have no value; they are counted below the arm's name. The
  axis holds all members, and intervals widen it by half at most: the interval of two seeds would
  otherwise dwarf everything else.

  Args:
    population: the trained members; accuracy, precision, recall and F1 are shown in %.
    metric: a key of `population.metrics`, or "epochs".
    everyone: members of further arms, whose means are the dots of a last row.

  Returns:
    A figure with one row per arm.

  Raises:
    InputError: there is no such metric.
  """
  further = None if everyone is None else everyone.scores(metric)
  return score_distribution(population.scores(metric), is_rate=metric in RATES, everyone=further)


@figures.styled
def score_distribution(
  scores: stats.Scores, *, is_rate: bool = False, everyone: stats.Scores | None = None
) -> Figure:
  """Draws scores as `metric_distribution` does; lines join the arms of a seed if they are paired.

  Args:
    scores: values [S, A].
    is_rate: whether they are in [0, 1], and shown in %.
    everyone: the scores of further arms, whose means are the dots of a last row.
  """
  scale = 100 if is_rate else 1
  scores = dataclasses.replace(scores, values=scores.values * scale)
  num_seeds, num_arms = scores.values.shape
  num_rows = num_arms + (everyone is not None)
  figure = Figure(figsize=(8.5, 0.95 + 0.62 * num_rows), layout="constrained")
  ax = figure.subplots()
  heights = np.arange(num_arms) + 0.44 * spread(num_seeds)[:, None] - 0.1  # [S, A]
  alpha = float(np.clip(4 / num_seeds, 0.15, 0.5))
  lines = np.stack([scores.values, heights], axis=-1)  # [S, A, 2]
  pairs = LineCollection(lines, colors=figures.GREY, alpha=alpha, linewidths=0.5)
  if scores.paired:
    ax.add_collection(pairs, autolim=False)
  limits = (0, 100) if is_rate else (-np.inf, np.inf)
  summaries = stats.summarize(scores, limits=limits)
  for index, summary in enumerate(summaries):
    style = figures.arm_style(index)
    dots = {"color": style.color, "alpha": 0.55, "markersize": 3.5, "markeredgewidth": 0}
    ax.plot(scores.values[:, index], heights[:, index], "o", **dots)
    _draw_summary(ax, summary, index, style, is_rate)
  if everyone is not None:
    means = scale * np.array([summary.mean for summary in stats.summarize(everyone)])
    _draw_means(ax, means, num_arms)
  ends = [end for summary in summaries for end in (summary.ci_low, summary.ci_high)]
  ax.set_xlim(*score_limits(scores.values, ends))
  unit = " in %" if is_rate else " in nats" if scores.metric.endswith("loss") else ""
  direction = "higher" if scores.higher_is_better else "lower"
  ax.set_xlabel(f"{figures.plain(scores.metric.replace('_', ' '))}{unit} ({direction} is better)")
  labels = [
    figures.arm_label(arm, diverged, width=2.3)
    for arm, diverged in zip(scores.arms, scores.diverged.T, strict=True)
  ]
  if everyone is not None:
    labels.append(f"means of\nall {len(everyone.arms):,} arms")
  figures.name_rows(ax, range(num_rows), labels)
  ax.set_ylim(num_rows - 0.45, -0.55)
  heading = "mean\n[95% interval]" if num_seeds > 1 else "one seed"
  figures.write_right(ax, -0.55, heading, va="bottom")
  figures.add_grid_lines(ax, axis="x")
  return figures.finish(figure)


def _draw_means(ax: Axes, means: np.ndarray, row: int) -> None:
  """Draws means `[A]` as grey dots in a row; in an SVG they are one picture."""
  alpha = float(np.clip(100 / len(means), 0.15, 0.6))
  dots = {"color": figures.GREY, "alpha": alpha, "markersize": 3.5, "markeredgewidth": 0}
  ax.plot(means, row + 0.6 * spread(len(means)), "o", rasterized=True, **dots)


def _draw_summary(
  ax: Axes, summary: stats.ArmSummary, index: int, style: figures.ArmStyle, is_rate: bool
) -> None:
  """Draws an arm's mean and interval below its dots, and writes both at the right edge."""

  def write(value):
    return f"{value:.2f}" if is_rate else f"{value:.4g}"

  height = index + 0.28
  ax.hlines(height, summary.ci_low, summary.ci_high, color=style.color, linewidth=2.2, zorder=4)
  ax.plot(
    summary.mean,
    height,
    style.marker,
    color=style.color,
    markersize=7,
    markeredgecolor="white",
    markeredgewidth=0.8,
    zorder=5,
  )
  text = write(summary.mean) if summary.n else "no value"
  if summary.n > 1:
    interval = f"[{write(summary.ci_low)}, {write(summary.ci_high)}]"
    text += f"\n{interval if np.isfinite(summary.ci_low) else 'all equal'}"
  figures.write_right(ax, index, text, va="center")
