"""Sweeps: arms that differ in one setting, e.g. the learning rate, and which of them is best.

Choose the best arm by a metric of the validation set and measure it on the test set: chosen and
measured on the same examples, it would look better than it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.errors import InputError, check_integer, unknown_name
from jaxdl.stats.scores import ROUNDING, Scores

NUM_RESAMPLES = 9_999


class BestArm(NamedTuple):
  """The best arm of a sweep, and how sure that is; see `best_arm`.

  Attributes:
    arm: its name.
    low: the first arm of the 95% interval, in the order of the sweep.
    high: the last one.
    shares: arm -> share of the resamples in which it is the best.
    at_end: whether it is the first or the last of the sweep, so a better one may lie beyond.
  """

  arm: str
  low: str | None  # None where there is one seed, and nothing to resample
  high: str | None
  shares: dict[str, float]  # NaN there
  at_end: bool


def best_arm(
  scores: Scores,
  arms: Sequence[str],
  *,
  seed: int = 0,
  num_resamples: int = NUM_RESAMPLES,
) -> BestArm | None:
  """Chooses the best arm of a sweep, and bootstraps that choice over seeds.

  Only the arms with the fewest diverged seeds are candidates. Among them the best mean over seeds
  decides; if means are equal, the first arm does.

  Each resample draws S seeds with replacement, the same for all arms, and chooses its best arm by
  the same rule (Efron & Tibshirani, 1993, An Introduction to the Bootstrap, chapter 13:
  percentiles). The interval is from the 2.5% to the 97.5% quantile of these arms, in the order of
  the sweep. Resamples in which every member diverged are not counted.

  Args:
    scores: values [S, A]; NaN where a member diverged.
    arms: the arms of the sweep, in the order of the setting in which they differ.
    seed: of the bootstrap's random numbers; the same seed gives the same result.
    num_resamples: of the bootstrap.

  Returns:
    The best arm; None if every member diverged.

  Raises:
    InputError: `arms` is empty or names an unknown arm, or an argument is out of range.
  """
  if not arms:
    raise InputError("a sweep needs one arm or more")
  for arm in arms:
    if arm not in scores.arms:
      raise unknown_name("arm", arm, scores.arms)
  check_integer("num_resamples", num_resamples, 1)
  values = scores.values[:, [scores.arms.index(arm) for arm in arms]]  # [S, K]
  values = values if scores.higher_is_better else -values
  num_seeds = len(values)
  best = int(_best(values, np.ones((1, num_seeds)))[0])
  if best < 0:
    return None
  low = high = None
  shares = np.full(len(arms), np.nan)
  rng = np.random.default_rng(seed)
  # How often each seed is drawn, [R, S].
  counts = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples)
  chosen = _best(values, counts)  # [R]
  chosen = chosen[chosen >= 0]
  if num_seeds > 1 and len(chosen):
    shares = np.bincount(chosen, minlength=len(arms)) / len(chosen)
    places = np.quantile(chosen, (0.025, 0.975), method="inverted_cdf").astype(int)
    low, high = (arms[place] for place in places)
  return BestArm(
    arm=arms[best],
    low=low,
    high=high,
    shares=dict(zip(arms, shares.tolist(), strict=True)),
    at_end=best in (0, len(arms) - 1),
  )


def _best(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns the index of the best column of values `[S, K]` in each resample; -1 if all diverged.

  Args:
    values: `[S, K]`, the larger the better, NaN where a member diverged.
    counts: `[R, S]`, how often each resample drew each seed.

  Returns:
    `[R]` int.
  """
  trained = ~np.isnan(values)  # [S, K]
  num_trained = counts @ trained.astype(float)  # [R, K]
  means = counts @ np.where(trained, values, 0) / np.maximum(num_trained, 1)  # [R, K]
  eligible = num_trained == num_trained.max(axis=1, keepdims=True)
  means = np.where(eligible, means, -np.inf)
  highest = means.max(axis=1, keepdims=True)
  tied = means >= highest - ROUNDING * np.abs(highest)
  return np.where(num_trained.any(axis=1), tied.argmax(axis=1), -1)
