"""Charts of the HTML report: shapes for inline SVG that stretches with the page.

The template draws shapes in a view box of `SIZE` x `SIZE` that is stretched to the width of the
page; ticks are placed in percent, so that text keeps its size. Colours and dashes come from the
style sheet, by the index of the arm. No name becomes a part of a shape.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl import stats
from jaxdl.errors import one_line
from jaxdl.population.results import RATES, Population
from jaxdl.report import arm_text, picture_data

SIZE = 1000
# With more points than these, the page gets slow to open.
_MAX_EPOCHS = 200
_MAX_MEMBER_POINTS = 60_000
_MAX_DOTS = 3000
_MAX_PREDICTIONS = 600
_MAX_BEHIND_POINTS = 30_000


class Shape(NamedTuple):
  """One path of an arm."""

  kind: str  # the class in the style sheet: band, mean, member or dots
  path: str  # `d` of an SVG path
  seed: int | None = None


class Mark(NamedTuple):
  """Where a member stopped early or diverged, in percent of the plot."""

  kind: str  # early_stopped or diverged
  x: float
  y: float
  seed: int


class ArmShapes(NamedTuple):
  """What a panel draws of one arm."""

  arm: int  # index
  shapes: list[Shape]
  marks: list[Mark]


class Panel(NamedTuple):
  """One plot."""

  name: str
  title: str
  label: str  # what it shows, for those who do not see it
  x_ticks: list[tuple[float, str]]  # percent from the left, text
  y_ticks: list[tuple[float, str]]  # percent from the top, text
  arms: list[ArmShapes]
  guide: str = ""  # path of a line that is no data
  behind: str = ""  # path of the means of further arms
  x_title: str = ""


class Axis:
  """Maps values to the view box and to percent, and has the ticks of an axis."""

  def __init__(self, low: float, high: float, *, log: bool = False, flip: bool = False):
    """Makes the axis from `low` to `high`; `flip`: low values are at the bottom."""
    self._log, self._flip = log, flip
    self._low, self._high = (math.log10(v) for v in (low, high)) if log else (low, high)

  def share(self, values: Any) -> np.ndarray:
    """Returns the places of values on the axis, in [0, 1] within its limits."""
    values = np.asarray(values, float)
    if self._log:
      values = np.log10(np.maximum(values, 1e-300))
    places = (values - self._low) / (self._high - self._low)
    return 1 - places if self._flip else places

  def percent(self, value: float) -> float:
    """Returns the place of a value in percent; beyond the limits, at the end of the axis."""
    return round(float(np.clip(100 * self.share(value), 0, 100)), 2)

  def ticks(self, integer: bool = False) -> list[tuple[float, str]]:
    """Returns (percent, text) of about five ticks."""
    from matplotlib import ticker

    if self._log:
      locator = ticker.LogLocator(subs=(1, 2, 5) if self._high - self._low < 2 else (1,))
      values = locator.tick_values(10**self._low, 10**self._high)
    else:
      locator = ticker.MaxNLocator(5, integer=integer, min_n_ticks=1)
      values = locator.tick_values(self._low, self._high)
    places = 100 * self.share(values)
    return [
      (round(float(at), 2), f"{value:g}")
      for at, value in zip(places, np.round(values, 12), strict=True)
      if -1e-9 <= at <= 100 + 1e-9
    ]


def _path(x: np.ndarray, y: np.ndarray) -> str:
  """Returns the path through points in [0, 1]; it has a gap where one is not finite."""
  parts, drawn = [], False
  for px, py in zip(x, y, strict=True):
    if math.isfinite(px) and math.isfinite(py):
      # Points far outside are clipped anyway.
      at = f"{SIZE * px:.0f},{SIZE * float(np.clip(py, -9, 9)):.0f}"
      parts.append(at if drawn else f"M{at}")
      drawn = True
    else:
      drawn = False
  return " ".join(parts)


def _dots(x: np.ndarray, y: np.ndarray) -> str:
  """Returns the path of a dot at each point in [0, 1]: lines without length, with round ends."""
  return "".join(f"M{SIZE * px:.0f},{SIZE * py:.0f}h0" for px, py in zip(x, y, strict=True))


# --- Learning curves ---


class Curves(NamedTuple):
  """The learning curves: what is drawn, and the numbers that are read off them."""

  panels: list[Panel]
  values: dict[str, Any]  # for JSON
  seeds: list[int]  # those that are drawn one by one


def learning_curves(population: Population, behind: Population | None = None) -> Curves:
  """Returns the learning curves of all arms: means with 95% intervals, and members.

  The numbers are those of `jaxdl.report.plots.learning_curves`. With many members or epochs, the
  first seeds are drawn one by one, and epochs at equal distances.

  Args:
    population: the trained members.
    behind: members of further arms, of which only the means are drawn, without numbers.
  """
  num_epochs = population.curves["train_loss"].shape[-1]
  chosen = np.unique(np.linspace(0, num_epochs - 1, min(num_epochs, _MAX_EPOCHS)).astype(int))
  names = _curve_names(population)
  points = max(1, len(names) * len(population.arms) * len(chosen))
  seeds = list(population.seeds[: max(1, _MAX_MEMBER_POINTS // points)])
  values: dict[str, Any] = {"epochs": (chosen + 1).tolist(), "seeds": seeds, "panels": {}}
  panels = []
  for name, (title, metric) in names.items():
    panel, numbers = _curve_panel(population, name, title, metric, chosen, len(seeds), behind)
    panels.append(panel)
    values["panels"][name] = numbers
  return Curves(panels, values, seeds)


def _curve_names(population: Population) -> dict[str, tuple[str, str]]:
  """Returns name of a curve -> (title, "loss", "accuracy" or another metric)."""
  unit = " (nats)" if population.has_classes else ""
  names = {"train_loss": ("training loss" + unit, "loss")}
  names["val_loss"] = ("validation loss" + unit, "loss")
  names["train_accuracy"] = ("training accuracy (%)", "accuracy")
  names["val_accuracy"] = ("validation accuracy (%)", "accuracy")
  for name in population.curves:
    if name not in names and name.startswith("val_"):
      names[name] = (f"validation {name.removeprefix('val_')}", "own")
  if not population.has_classes:
    del names["train_accuracy"], names["val_accuracy"]
  return {
    name: about for name, about in names.items() if np.isfinite(population.curves[name]).any()
  }


def _curve_panel(
  population: Population,
  name: str,
  title: str,
  metric: str,
  chosen: np.ndarray,
  num_seeds: int,
  behind: Population | None,
) -> tuple[Panel, dict[str, Any]]:
  """Returns the panel of one curve, and its numbers, at the chosen epochs `[E]`, from 0."""
  curves = picture_data.valid_curves(population, name)  # [S, A, E]
  other = {"train_loss": "val_loss", "val_loss": "train_loss"}.get(name)  # they share an axis
  both = [curves] if other is None else [curves, picture_data.valid_curves(population, other)]
  limits, log = picture_data.curve_limits(population, metric, both)
  x_axis = Axis(*picture_data.whole_number_limits(1, curves.shape[-1]))
  y_axis = Axis(*limits, log=log, flip=True)
  x = x_axis.share(chosen + 1)
  worst = limits[1] if metric == "loss" else limits[0]
  arms = []
  numbers: dict[str, list[Any]] = {"mean": [], "low": [], "high": [], "members": []}
  for index in range(len(population.arms)):
    interval = picture_data.curve_interval(population, index, curves[:, index], metric)
    bands = np.full((3, curves.shape[-1]), np.nan)
    bands[:, : len(interval[0])] = interval
    bands = bands[:, chosen]  # [3, E]
    members = curves[:num_seeds, index]  # [S, E]
    mean, low, high = y_axis.share(bands)
    shapes = [Shape("mean", _path(x, mean))]
    if len(population.seeds) > 1:
      lines = zip(population.seeds, y_axis.share(members[:, chosen]), strict=False)
      thin = [Shape("member", _path(x, line), seed) for seed, line in lines]
      shapes = [Shape("band", _band(x, low, high)), *thin, *shapes]
    marks = [
      Mark(status, x_axis.percent(epoch), y_axis.percent(value), seed)
      for seed, status, epoch, value in picture_data.last_points(population, index, members, worst)
    ]
    arms.append(ArmShapes(index, [shape for shape in shapes if shape.path], marks))
    for key, row in zip(("mean", "low", "high"), bands, strict=True):
      numbers[key].append(_rounded(row))
    numbers["members"].append([_rounded(row) for row in members[:, chosen]])
  label = f"{title} by epoch. {_last_values(population, numbers['mean'])}"
  ticks = x_axis.ticks(integer=True), y_axis.ticks()
  path = "" if behind is None else _behind(behind, name, x_axis, y_axis)
  return Panel(name, title, label, *ticks, arms, behind=path, x_title="epoch"), numbers


def _behind(population: Population, name: str, x_axis: Axis, y_axis: Axis) -> str:
  """Returns one path of the mean of every arm; of very many arms and epochs, of some."""
  means = picture_data.mean_curves(population, name)  # [A, E]
  most = int(math.sqrt(_MAX_BEHIND_POINTS))
  arms, epochs = (np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)) for n in means.shape)
  x = x_axis.share(epochs + 1)
  return " ".join(_path(x, y_axis.share(means[arm, epochs])) for arm in arms)


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
  there = np.isfinite(low) & np.isfinite(high)
  if not there.any():
    return ""
  around = np.concatenate([x[there], x[there][::-1]])
  return _path(around, np.concatenate([low[there], high[there][::-1]])) + "Z"


def _last_values(population: Population, means: list[list[float | None]]) -> str:
  """Says the last mean of each arm."""
  last = [[value for value in mean if value is not None] for mean in means]
  parts = [
    f"{one_line(arm)} {values[-1]:g}" if values else f"{one_line(arm)} none"
    for arm, values in zip(population.arms, last, strict=True)
  ][:12]
  more = f" and {len(last) - 12} more" if len(last) > 12 else ""
  return f"Mean at the last epoch: {', '.join(parts)}{more}."


def _rounded(values: Iterable[float]) -> list[float | None]:
  return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


# --- One metric of every seed ---


class Row(NamedTuple):
  """One arm in the picture of a metric; places in percent."""

  arm: int
  text: str  # mean and interval
  dots: list[tuple[float, float, int, str]]  # x, offset in [-0.5, 0.5], seed, value
  mean: float | None
  interval: tuple[float, float] | None


class Distribution(NamedTuple):
  """One metric of every member."""

  title: str
  ticks: list[tuple[float, str]]
  rows: list[Row]  # in the order of the arms


def distribution(population: Population, metric: str) -> Distribution:
  """Returns a dot per member, and each arm's mean with its 95% interval."""
  scale, unit = (100, "%") if metric in RATES else (1, "")
  scores = population.scores(metric)
  summaries = arm_text.summarize(scores)
  ends = [scale * end for arm in summaries for end in (arm.ci_low, arm.ci_high)]
  axis = Axis(*picture_data.score_limits(scale * scores.values, ends))
  num_seeds = max(1, _MAX_DOTS // len(population.arms))
  offsets = picture_data.spread(len(population.seeds))
  rows = []
  for index, summary in enumerate(summaries):
    values = scale * scores.values[:num_seeds, index]
    dots = [
      (axis.percent(value), round(float(offset), 3), seed, f"{value:.4g}{unit}")
      for value, offset, seed in zip(values, offsets, population.seeds, strict=False)
      if math.isfinite(value)
    ]
    ends = scale * np.array([summary.ci_low, summary.ci_high])
    has_interval = bool(np.isfinite(ends).all())
    text = f"{scale * summary.mean:.4g}{unit}" if summary.n else "no value"
    if has_interval:
      text += f" [{ends[0]:.4g}, {ends[1]:.4g}]"
    if summary.num_diverged:
      text += f", diverged: {summary.num_diverged} of {summary.n + summary.num_diverged}"
    mean = axis.percent(scale * summary.mean) if summary.n else None
    low, high = np.clip(100 * axis.share(ends), 0, 100).round(2).tolist()
    rows.append(Row(index, text, dots, mean, (low, high) if has_interval else None))
  direction = "higher" if scores.higher_is_better else "lower"
  title = f"{metric.replace('_', ' ')}{' in %' if unit else ''}, {direction} is better"
  return Distribution(title, axis.ticks(), rows)


class Bar(NamedTuple):
  """A difference beside its margin; all in percent of the cell."""

  margin: tuple[float, float]  # left end, width
  mean: float
  interval: tuple[float, float] | None


def differences(verdicts: Sequence[stats.Verdict]) -> list[Bar | None]:
  """Returns a bar per verdict, or None without a difference; each metric has one scale."""
  largest: dict[str, float] = {}
  for v in verdicts:
    ends = (v.margin, v.mean_difference, v.ci_low, v.ci_high)
    finite = [abs(end) for end in ends if math.isfinite(end)]
    largest[v.metric] = max([largest.get(v.metric, 0.0), *finite])
  bars: list[Bar | None] = []
  for v in verdicts:
    half = min(1.1 * largest[v.metric], 20 * v.margin)  # a wide interval must not hide the margin

    def place(value: float, half: float = half) -> float:
      return round(50 + 50 * max(-1.0, min(1.0, value / half)), 2)

    if not math.isfinite(v.mean_difference):
      bars.append(None)
      continue
    interval = (place(v.ci_low), place(v.ci_high)) if math.isfinite(v.ci_low) else None
    left = place(-v.margin)
    bars.append(Bar((left, round(2 * (50 - left), 2)), place(v.mean_difference), interval))
  return bars


# --- Numbers ---


def predictions(population: Population, arms: Sequence[int]) -> list[tuple[int, Panel, Panel]]:
  """Returns, per arm, predicted against true numbers of the test set, and the residuals.

  A prediction is the mean over the seeds that did not diverge. Numbers of several outputs are drawn
  together.
  """
  true, predicted, num_shown = picture_data.numbers(population, _MAX_PREDICTIONS)
  true = true.astype(float)
  of_arms = predicted[list(arms)]
  pad = 0.05 * float(np.ptp(true)) or 1.0
  x_axis = Axis(float(true.min()) - pad, float(true.max()) + pad)
  residuals = of_arms - true
  ends = np.array([true.min(), true.max()])
  low, high = min(of_arms.min(), true.min()), max(of_arms.max(), true.max())
  y_axis = Axis(float(low) - pad, float(high) + pad, flip=True)
  largest = 1.05 * float(np.abs(residuals).max()) or 1.0
  difference_axis = Axis(-largest, largest, flip=True)
  found = []
  for row, index in enumerate(arms):
    panels = []
    for title, axis, values, guide in (
      ("predicted", y_axis, of_arms[row], ends),
      ("predicted - true", difference_axis, residuals[row], np.zeros(2)),
    ):
      dots = Shape("dots", _dots(x_axis.share(true), axis.share(values)))
      label = f"{title} against true numbers of {num_shown:,} test examples"
      shapes = [ArmShapes(index, [dots], [])]
      line = _path(x_axis.share(ends), axis.share(guide))
      panels.append(
        Panel("", title, label, x_axis.ticks(), axis.ticks(), shapes, line, x_title="true")
      )
    found.append((index, panels[0], panels[1]))
  return found
