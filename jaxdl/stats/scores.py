"""Scores `[S, A]` of one metric, and their summary by arm."""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from jaxdl.errors import InputError, unknown_name
from jaxdl.stats import frames

AXES = ("seed", "arm")

# Values that differ by less than this fraction of the largest are one number rounded differently.
# Scores such as 0.9712 leave differences such as 0.0012 with a relative error near 1e-13; true
# differences of accuracies are never this close without being equal.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
  """One number per member of a population, e.g. the final test accuracy.

  Equal scores have to be equal numbers, or ties come apart and p-values are too small. So divide
  counts in float64; float32 is refused, since its rounding cannot be told from a difference.

  Attributes:
    metric: what was measured, e.g. "test_accuracy".
    values: [S, A] in the metric's own unit, kept as a read-only float64 copy. NaN where the member
      diverged.
    seeds: [S] the seed of each row.
    arms: [A] the arm of each column.
    axes: what the axes of `values` are; must be given, and be ("seed", "arm").
    higher_is_better: True for an accuracy, False for a loss.
    diverged_as: the score that a run which diverged counts as in comparisons, e.g. that of always
      answering the most frequent class: then arms are compared by intention to treat, on all seeds.
      [S], if it depends on the seed, see `worst_so_far`. None leaves such runs out.
    paired: whether the runs of a row share their seed. If not, a row has the s-th run of each arm,
      and arms are compared as independent samples.
    num_trained: [A] with how many seeds, the first ones, each arm was trained, if an arm stops once
      it is decided (see `compare_looks`): its later values are NaN, but did not diverge. None: all.
    overlap: where each seed is trained and tested on its own split of the same examples, the number
      of tested over that of training examples; see `jaxdl.stats.resampled`. None: seeds are
      independent.

  Raises:
    ValueError: the axes are named or ordered differently (so a transposed array is refused also
      where S == A), a length disagrees with the names, a name occurs twice, a value is infinite or
      not a real number, `diverged_as` is not finite, the values are floats of less than 64 bits,
      or the overlap is out of its range or given for arms that are not paired.
    TypeError: `higher_is_better` is not a bool.
  """

  metric: str
  values: np.ndarray  # [S, A] float64
  seeds: tuple[int, ...]  # [S]
  arms: tuple[str, ...]  # [A]
  axes: tuple[str, str]
  higher_is_better: bool
  diverged_as: float | np.ndarray | None = None
  paired: bool = True
  num_trained: tuple[int, ...] | None = None  # [A]
  overlap: float | None = None

  def __post_init__(self):
    if not isinstance(self.higher_is_better, bool):
      raise TypeError(f"higher_is_better must be True or False, got {self.higher_is_better!r}")
    values = np.asarray(self.values)
    if values.dtype.kind not in "fiu":
      raise ValueError(f"values of {self.metric!r} must be real numbers, not {values.dtype}")
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
      raise ValueError(
        f"values of {self.metric!r} are {values.dtype}, whose rounding takes ties apart: divide "
        "counts in float64; where nothing can tie, as with a loss, give values.astype(float)"
      )
    values = values.astype(np.float64)  # [S, A], a copy
    values.flags.writeable = False
    fields = {
      "values": values,
      "seeds": _as_seeds(self.seeds),
      "arms": _as_arms(self.arms),
      "axes": tuple(self.axes),
    }
    for name, value in fields.items():
      object.__setattr__(self, name, value)
    self._check_axes()
    if self.num_trained is not None and len(self.num_trained) != len(self.arms):
      raise ValueError(f"num_trained has {len(self.num_trained)} numbers for {len(self.arms)} arms")
    if self.overlap is not None and not 0 < self.overlap < math.inf:
      raise ValueError(f"overlap must be positive and finite, got {self.overlap}")
    if self.overlap is not None and not self.paired:
      raise ValueError("overlap is for arms that have the same splits, so they must be paired")
    if self.diverged_as is not None and not np.isfinite(self.diverged_as).all():
      raise ValueError(f"diverged_as must be finite, got {self.diverged_as}")
    if np.isinf(values).any():
      raise ValueError(
        f"values of {self.metric!r} must be finite, or NaN for a member that diverged; "
        f"{np.isinf(values).sum()} are infinite"
      )

  @functools.cached_property
  def counted(self) -> np.ndarray:
    """The values `[S, A]` that arms are compared by: with `diverged_as` where a run diverged."""
    if self.diverged_as is None:
      return self.values
    return np.where(self.diverged, np.reshape(self.diverged_as, (-1, 1)), self.values)

  @property
  def diverged(self) -> np.ndarray:
    """Which runs diverged, `[S, A]` bool."""
    missing = np.isnan(self.values)
    if self.num_trained is None:
      return missing
    return missing & (np.arange(len(self.seeds))[:, None] < np.array(self.num_trained))

  @functools.cached_property
  def best_first(self) -> tuple[str, ...]:
    """The arms by the mean of what counts, the best first, and those without any score last."""
    means = [mean(column[~np.isnan(column)]) for column in self.counted.T]
    sign = -1 if self.higher_is_better else 1
    order = sorted(range(len(means)), key=lambda i: (math.isnan(means[i]), sign * means[i]))
    return tuple(self.arms[i] for i in order)

  @property
  def best(self) -> str:
    """The arm with the best mean, of those that were trained with the most seeds."""
    if self.num_trained is None:
      return self.best_first[0]
    most = max(self.num_trained)
    return next(arm for arm in self.best_first if self.num_trained[self.place(arm)] == most)

  def select(self, arms: Sequence[str]) -> "Scores":
    """Returns the scores of some arms, in the order in which they are named.

    Raises:
      InputError: there is no such arm.
    """
    places = [self.place(arm) for arm in arms]
    trained = self.num_trained and tuple(self.num_trained[place] for place in places)
    values = self.values[:, places]
    return dataclasses.replace(self, values=values, arms=tuple(arms), num_trained=trained)

  @functools.cached_property
  def _places(self) -> dict[str, int]:
    return {arm: place for place, arm in enumerate(self.arms)}

  def place(self, arm: str) -> int:
    """Returns the index of an arm.

    Raises:
      InputError: there is no such arm.
    """
    if arm not in self._places:
      raise unknown_name("arm", arm, self.arms)
    return self._places[arm]

  @overload
  @classmethod
  def from_frame(
    cls,
    frame: Any,
    *,
    metric: str,
    arm: str,
    seed: str,
    resolution: float | None = None,
    higher_is_better: bool = True,
  ) -> "Scores": ...

  @overload
  @classmethod
  def from_frame(
    cls,
    frame: Any,
    *,
    metric: str,
    arm: str,
    seed: str,
    task: str,
    resolution: float | None = None,
    higher_is_better: bool = True,
  ) -> dict[str, "Scores"]: ...

  @classmethod
  def from_frame(
    cls, frame, *, metric, arm, seed, task=None, resolution=None, higher_is_better=True
  ):
    """Returns the scores in a long table, which has a row per run, as trackers export them.

    A run that diverged counts as the worst score of its task, see `diverged_as`. Arms are paired if
    all have the same seeds. If no two share a seed they are not, see `paired`.

    Args:
      frame: a pandas data frame.
      metric: column of the scores; empty or NaN where a run diverged.
      arm: column of the arms' names.
      seed: column of the seeds, integers.
      task: column of the tasks' names, e.g. data sets; None: one task.
      resolution: scores are rounded to multiples of it, e.g. one over the number of test examples.
        Needed if they are numbers of 32 bits, whose rounding takes ties apart.
      higher_is_better: True for an accuracy, False for a loss.

    Returns:
      The scores; with a column of tasks, task -> scores.

    Raises:
      InputError: a column is missing or has something else than it should, a run occurs twice, or
        a seed is missing from an arm; it names the row, counted from 1 below the header.
    """
    tables = frames.read(frame, metric=metric, arm=arm, seed=seed, task=task, resolution=resolution)
    found = {
      name: cls(
        metric=metric,
        values=table.values,
        seeds=table.seeds,
        arms=table.arms,
        axes=AXES,
        higher_is_better=higher_is_better,
        diverged_as=worst(table.values, higher_is_better),
        paired=table.paired,
      )
      for name, table in tables.items()
    }
    return found[""] if task is None else found

  def _check_axes(self) -> None:
    shape = self.values.shape
    if self.axes != AXES:
      lengths = ", ".join(
        f"axis {axis!r} has length {length}" for axis, length in zip(self.axes, shape, strict=False)
      )
      hint = "; the array is transposed: give values.T" if self.axes == AXES[::-1] else ""
      raise ValueError(f"axes of {self.metric!r} must be {AXES}, got {self.axes} ({lengths}){hint}")
    if len(shape) != 2:
      raise ValueError(f"values of {self.metric!r} must have two axes {AXES}, got shape {shape}")
    expected = (len(self.seeds), len(self.arms))
    if shape != expected:
      lengths = " and ".join(
        f"axis {axis!r} has length {length} for {count} {axis}s"
        for axis, length, count in zip(AXES, shape, expected, strict=True)
      )
      hint = "; the array looks transposed" if shape == expected[::-1] else ""
      raise ValueError(f"values of {self.metric!r} have shape {shape}: {lengths}{hint}")


def _as_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
  if any(isinstance(seed, (bool, np.bool_)) for seed in seeds):
    raise ValueError(f"seeds must be integers, got {seeds}")
  try:
    seeds = tuple(operator.index(seed) for seed in seeds)
  except TypeError:
    raise ValueError(f"seeds must be integers, got {seeds}") from None
  if len(set(seeds)) != len(seeds):
    raise ValueError(f"every seed must occur once, got {seeds}")
  return seeds


def _as_arms(arms: Sequence[str]) -> tuple[str, ...]:
  # A single string would otherwise pass as a sequence of one-letter arms.
  if isinstance(arms, str) or not all(isinstance(arm, str) for arm in arms):
    raise ValueError(f"arms must be a sequence of strings, got {arms!r}")
  if len(set(arms)) != len(arms):
    raise ValueError(f"every arm must occur once, got {tuple(arms)}")
  return tuple(arms)


@dataclasses.dataclass(frozen=True)
class ArmSummary:
  """The scores of one arm over its seeds, in the metric's own unit; see `summarize`."""

  arm: str
  n: int  # seeds with a score
  num_diverged: int  # seeds without one
  mean: float
  std: float
  min: float
  max: float
  ci_low: float
  ci_high: float


def summarize(
  scores: Scores,
  confidence: float = 0.95,
  limits: tuple[float, float] = (-math.inf, math.inf),
) -> list[ArmSummary]:
  """Summarizes each arm over its seeds.

  The interval is for the mean over seeds: mean ± t std / sqrt(n), t the (1 + confidence) / 2
  quantile of Student's t with n - 1 degrees of freedom, cut to the limits of the metric; for splits
  that overlap, with sqrt(1 / n + overlap) in the place of 1 / sqrt(n). One seed
  supports no claim about others, so std (with n - 1 in the denominator) and interval are NaN where
  n = 1; all is NaN where n = 0. Equal values have std 0 and no interval (NaN): they do not say how
  far the next one may be.

  Args:
    scores: values [S, A].
    confidence: coverage of the interval, in (0, 1).
    limits: the smallest and the largest possible value of the metric, e.g. (0, 1) for an accuracy.
      Cutting the interval to them loses no coverage.

  Returns:
    One summary per arm, in the order of `scores.arms`.

  Raises:
    InputError: `confidence` is not in (0, 1).
  """
  if not 0 < confidence < 1:
    raise InputError(f"confidence must be between 0 and 1, got {confidence}")
  num_trained = scores.num_trained or [len(scores.seeds)] * len(scores.arms)
  return [
    _summarize_arm(arm, column[:end], confidence, limits, scores.overlap or 0.0)
    for arm, column, end in zip(scores.arms, scores.values.T, num_trained, strict=True)
  ]


def _summarize_arm(
  arm: str,
  column: np.ndarray,
  confidence: float,
  limits: tuple[float, float],
  overlap: float,
) -> ArmSummary:
  finite = column[np.isfinite(column)]  # [n]
  n = len(finite)
  ci_low, ci_high = np.clip(student_interval(finite, confidence, overlap), *limits).tolist()
  return ArmSummary(
    arm=arm,
    n=n,
    num_diverged=len(column) - n,
    mean=mean(finite),
    std=std(finite),
    min=float(finite.min()) if n else math.nan,
    max=float(finite.max()) if n else math.nan,
    ci_low=ci_low,
    ci_high=ci_high,
  )


def mean(x: np.ndarray) -> float:
  return float(np.mean(x)) if len(x) else math.nan


def is_constant(x: np.ndarray) -> bool:
  """Returns whether all values `[n]`, n >= 1, are one number up to rounding."""
  return bool(np.ptp(x) <= ROUNDING * np.abs(x).max())


def std(x: np.ndarray) -> float:
  """Returns the sample standard deviation of `[n]` (divided by n - 1), or NaN if n < 2."""
  if len(x) < 2:
    return math.nan
  return 0.0 if is_constant(x) else float(np.std(x, ddof=1))


def student_interval(x: np.ndarray, confidence: float, overlap: float = 0.0) -> tuple[float, float]:
  """Returns Student's interval for the mean of `[n]`; NaN where n < 2 or all values are equal.

  Args:
    x: the values.
    confidence: of the interval.
    overlap: of the splits that they are from, see `jaxdl.stats.resampled`.
  """
  n = len(x)
  if n < 2 or is_constant(x):
    return math.nan, math.nan
  half = t_quantile((1 + confidence) / 2, n - 1) * std(x) * math.sqrt(1 / n + overlap)
  return mean(x) - half, mean(x) + half


@functools.lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: float) -> float:
  """Returns a quantile of Student's t; kept, since all pairs of many arms ask for the same one."""
  from scipy.stats import t

  return float(t.ppf(probability, degrees))


def paired_differences(scores: Scores, arm_a: str, arm_b: str) -> np.ndarray:
  """Returns the scores of `arm_a` minus those of `arm_b`, [n], on the seeds where both count.

  Raises:
    InputError: an arm is not among `scores.arms`.
  """
  differences = differences_by_seed(scores, arm_a, arm_b)
  return differences[~np.isnan(differences)]  # [n]


def differences_by_seed(scores: Scores, arm_a: str, arm_b: str) -> np.ndarray:
  """Returns the scores of `arm_a` minus those of `arm_b`, [n], NaN where either is left out.

  n is the number of seeds that both arms were trained with.

  Raises:
    InputError: an arm is not among `scores.arms`.
  """
  places = [scores.place(arm) for arm in (arm_a, arm_b)]
  num_trained = scores.num_trained
  end = None if num_trained is None else min(num_trained[place] for place in places)
  a, b = scores.counted[:end, places].T
  return a - b


def worst(values: np.ndarray, higher_is_better: bool) -> float | None:
  """Returns the worst of all values that are not NaN; None if all are."""
  finite = values[~np.isnan(values)]
  if not len(finite):
    return None
  return float(finite.min() if higher_is_better else finite.max())


def worst_so_far(values: np.ndarray, higher_is_better: bool) -> np.ndarray | None:
  """Returns, for each seed, the worst of the values up to it; None if all are NaN.

  Where arms are looked at while seeds are added, a run that diverged must not count as a score that
  only comes later: verdicts that were reached would change.

  Args:
    values: [S, A].
    higher_is_better: True for an accuracy, False for a loss.

  Returns:
    [S]; before the first value, that value.
  """
  finite = ~np.isnan(values).all(axis=1)  # [S]
  if not finite.any():
    return None
  of_rows = np.full(len(values), np.nan)
  worst_of = np.nanmin if higher_is_better else np.nanmax
  of_rows[finite] = worst_of(values[finite], axis=1)
  of_rows[: finite.argmax()] = of_rows[finite][0]
  return (np.fmin if higher_is_better else np.fmax).accumulate(of_rows)


def count_diverged(scores: Scores, arm: str, num_seeds: int | None = None) -> int:
  """Returns in how many of the first seeds, or of all, an arm diverged."""
  return int(scores.diverged[:num_seeds, scores.place(arm)].sum())
