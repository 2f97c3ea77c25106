"""Several tasks, e.g. data sets: scores over all of them, stratified by task.

The tasks are those that one cares about, and are not themselves drawn: seeds are resampled within
each task, and an interval is about other seeds of these tasks. A run that diverged counts as worse
than every score. In shape comments `T` is the number of tasks and `R` that of resamples.

The two statistics are those of Agarwal et al. (2021, Deep Reinforcement Learning at the Edge of the
Statistical Precipice, NeurIPS, arXiv:2108.13264).
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxdl.errors import InputError, check_integer
from jaxdl.stats.scores import Scores

NUM_RESAMPLES = 9_999


class Interval(NamedTuple):
  """An estimate with its bootstrap interval (percentiles)."""

  estimate: float
  low: float
  high: float


def mean_over_tasks(tasks: Mapping[str, Scores]) -> Scores:
  """Returns each replication's mean over tasks, for `compare`; NaN where one of its runs diverged.

  Such replications are left out: there is no one score that they could count as.

  Seeds of different tasks are matched by their number if all tasks have the same, else by their
  order: seeds are independent, so any matching will do. Scores of tasks have to be comparable, e.g.
  all accuracies.

  Raises:
    InputError: tasks have different numbers of seeds, different arms, or only some are paired.
  """
  first = next(iter(tasks.values()))
  aligned = []
  for name, scores in tasks.items():
    if (scores.arms, scores.paired) != (first.arms, first.paired):
      raise InputError(
        f"task {name!r} has other arms, or pairs them otherwise, than the first task"
      )
    if len(scores.seeds) != len(first.seeds):
      raise InputError(
        f"task {name!r} has {len(scores.seeds)} seeds, and the first task {len(first.seeds)}"
      )
    order = list(range(len(first.seeds)))
    if set(scores.seeds) == set(first.seeds):
      order = [scores.seeds.index(seed) for seed in first.seeds]
    aligned.append(scores.values[order])
  return dataclasses.replace(first, values=np.mean(aligned, axis=0), diverged_as=None)


def interquartile_mean(
  tasks: Mapping[str, Scores],
  confidence: float = 0.95,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> dict[str, Interval]:
  """Returns arm -> mean of the middle half of its scores over all tasks and seeds.

  A quarter of all runs is cut off at either end, rounded down. It is less affected by single runs
  than the mean, and needs fewer seeds than the median.

  Args:
    tasks: task -> scores [S, A] of the same arms.
    confidence: of the intervals.
    num_resamples: of the bootstrap, in which each task's seeds are drawn with replacement.
    seed: of its random number generator.
  """
  draws = _draws(tasks, num_resamples, seed)
  first = next(iter(tasks.values()))
  found = {}
  for index, arm in enumerate(first.arms):
    columns = [_ranked(scores)[:, index] for scores in tasks.values()]  # [S] each
    resampled = np.concatenate(
      [column[draw] for column, draw in zip(columns, draws, strict=True)], axis=1
    )  # [R, sum of S]
    estimate = _middle_mean(np.concatenate(columns)[None])[0]
    ends = _percentiles(_middle_mean(resampled), confidence)
    sign = 1 if first.higher_is_better else -1
    found[arm] = Interval(sign * float(estimate), *sorted(sign * end for end in ends))
  return found


def probability_of_improvement(
  tasks: Mapping[str, Scores],
  arm_a: str,
  arm_b: str,
  confidence: float = 0.95,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> Interval:
  """Returns how likely a run of arm a is better than one of arm b, on average over tasks.

  On each task it is the share of all pairs of their runs in which that of a is better; ties count
  half (Mann & Whitney, 1947, Annals of Mathematical Statistics 18:50).

  Args:
    tasks: task -> scores [S, A].
    arm_a: one arm.
    arm_b: another one.
    confidence: of the interval.
    num_resamples: of the bootstrap, in which each task's seeds are drawn with replacement, for both
      arms together if they share them.
    seed: of its random number generator.
  """
  draws = _draws(tasks, num_resamples, seed)
  others = _draws(tasks, num_resamples, seed + 1)
  estimates, resampled = [], []
  for scores, draw, other in zip(tasks.values(), draws, others, strict=True):
    ranked = _ranked(scores)
    a, b = (ranked[:, scores.arms.index(arm)] for arm in (arm_a, arm_b))
    wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)  # [S, S]
    num_seeds = len(a)
    of_a = _counts(draw, num_seeds)  # [R, S]
    of_b = of_a if scores.paired else _counts(other, num_seeds)
    estimates.append(wins.mean())
    resampled.append(((of_a @ wins) * of_b).sum(axis=1) / num_seeds**2)  # [R]
  return Interval(float(np.mean(estimates)), *_percentiles(np.mean(resampled, axis=0), confidence))


def _ranked(scores: Scores) -> np.ndarray:
  """Returns the values `[S, A]`, the larger the better, those of diverged runs below all others."""
  values = scores.values if scores.higher_is_better else -scores.values
  return np.where(np.isnan(values), -np.inf, values)


def _draws(tasks: Mapping[str, Scores], num_resamples: int, seed: int) -> list[np.ndarray]:
  """Returns the seeds of each resample, `[R, S]` per task."""
  check_integer("num_resamples", num_resamples, 1)
  rng = np.random.default_rng(seed)
  sizes = [len(scores.seeds) for scores in tasks.values()]
  return [rng.integers(size, size=(num_resamples, size)) for size in sizes]


def _counts(draw: np.ndarray, num_seeds: int) -> np.ndarray:
  counts = np.zeros((len(draw), num_seeds))
  np.add.at(counts, (np.arange(len(draw))[:, None], draw), 1)
  return counts


def _middle_mean(values: np.ndarray) -> np.ndarray:
  """Returns the interquartile mean of each row of `[R, n]`."""
  n = values.shape[1]
  cut = n // 4
  return np.sort(values, axis=1)[:, cut : n - cut].mean(axis=1)


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
  # A resample may be infinite, where most runs of it diverged: there is nothing to interpolate.
  tail = (1 - confidence) / 2
  low, high = np.quantile(values, (tail, 1 - tail), method="inverted_cdf")
  return float(low), float(high)
