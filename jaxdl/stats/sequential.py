"""Seeds until the question is decided: looks at fixed numbers of seeds, at a level that holds.

A group-sequential design. Its looks, at 8, 16, ... seeds up to a budget, are fixed before the run;
each look spends a part of the level (Lan & DeMets, 1983, Biometrika 70:659), so that all looks
together keep it. Over P pairs of arms both kinds of verdict, that arms differ and that they are
alike, are tested at alpha / P for each pair. The probability of any wrong verdict, over all pairs
and looks, is then at most alpha. For one pair the two kinds of error do not add up: a false
difference needs arms that are equal, a false equivalence arms that differ by the margin or more
(Goeman, Solari & Stijnen, 2010, Statistics in Medicine 29:2117).

In shape comments `K` is the number of looks, `N` the budget, and `B` the number of sign patterns.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.errors import InputError, check_integer
from jaxdl.stats.scores import (
  ROUNDING,
  Scores,
  count_diverged,
  differences_by_seed,
  mean,
  std,
  t_quantile,
)
from jaxdl.stats.tests import (
  MIN_PAIRS_EQUIVALENT,
  NUM_RESAMPLES,
  check_alpha,
  check_margin,
  check_num_resamples,
  check_resolution,
  tost_sides,
)
from jaxdl.stats.verdicts import (
  BETTER,
  EQUIVALENT,
  GROUP_SEQUENTIAL,
  TOO_FEW_SEEDS,
  UNDECIDED,
  WORSE,
  Verdict,
  arm_pairs,
  beside_diverged,
  check_no_overlap,
  count_pairs,
)

# Seeds from one look to the next. Looking after every four saves one or two seeds.
LOOK_EVERY = 8
# Patterns by which most pairs of many arms are seen not to differ.
_FEW_PATTERNS = 4096
# Patterns by which the estimate of a pair that was decided early is found.
_NUM_ESTIMATING = 1000
# A design needs a budget of two looks, and seeds enough to show that arms are alike.
MIN_BUDGET = max(2 * LOOK_EVERY, MIN_PAIRS_EQUIVALENT)


def looks(budget: int) -> tuple[int, ...]:
  """Returns the numbers of seeds at which a run is looked at: 8, 16, ..., and the budget.

  Args:
    budget: N, the largest number of seeds.

  Raises:
    InputError: the budget is below MIN_BUDGET.
  """
  check_integer("the budget of seeds", budget, MIN_BUDGET)
  return (*range(LOOK_EVERY, budget, LOOK_EVERY), budget)


def spent(alpha: float, fractions: np.ndarray) -> np.ndarray:
  """Returns how much of a level is spent up to each look: alpha ln(1 + (e - 1) t), of Pocock type.

  Args:
    alpha: the level of all looks together.
    fractions: [K], t, the share of the budget that is seen at each look, up to 1.
  """
  return alpha * np.log1p((math.e - 1) * np.asarray(fractions, dtype=np.float64))


@functools.lru_cache(maxsize=64)
def nominal_levels(alpha: float, fractions: tuple[float, ...]) -> np.ndarray:
  """Returns the one-sided level of each look, so that all looks together have level alpha.

  At look k the statistic Z_k is compared with the bound c_k such that, without an effect,
  P(Z_1 < c_1, ..., Z_{k-1} < c_{k-1}, Z_k >= c_k) is what the look spends. Z_k sqrt(t_k) is a
  Brownian motion at time t_k; its density among runs that go on is carried from look to look on a
  grid (Armitage, McPherson & Rowe, 1969, Journal of the Royal Statistical Society A 132:235;
  Jennison & Turnbull, 2000, Group Sequential Methods, chapter 19). With t statistics, the levels
  and not the bounds are kept (Pocock, 1977, Biometrika 64:191).

  Args:
    alpha: one-sided level of all looks together.
    fractions: [K], increasing up to 1.

  Returns:
    [K], P(Z >= c_k) of a standard normal Z. The array is shared: do not write to it.
  """
  from scipy.optimize import brentq
  from scipy.stats import norm

  spending = np.diff(spent(alpha, np.array(fractions)), prepend=0.0)
  levels = [spending[0]]
  time, bound = fractions[0], norm.isf(spending[0]) * math.sqrt(fractions[0])
  grid = _grid(time, bound)
  weights = norm.pdf(grid / math.sqrt(time)) / math.sqrt(time) * _step(grid)  # [G]
  for until, spends in zip(fractions[1:], spending[1:], strict=True):
    spread = math.sqrt(until - time)

    def excess(bound, grid=grid, weights=weights, spread=spread, spends=spends):
      return weights @ norm.sf((bound - grid) / spread) - spends

    bound = brentq(excess, 0.0, 12 * math.sqrt(until), xtol=1e-12)
    levels.append(norm.sf(bound / math.sqrt(until)))
    ahead = _grid(until, bound)
    density = norm.pdf((ahead[:, None] - grid) / spread) @ weights / spread  # [G]
    time, grid, weights = until, ahead, density * _step(ahead)
  return np.array(levels)


def _grid(time: float, bound: float) -> np.ndarray:
  return np.linspace(-8 * math.sqrt(time), bound, 801)


def _step(grid: np.ndarray) -> np.ndarray:
  """Returns the weights of the trapezoidal rule, [G]."""
  weights = np.full(len(grid), grid[1] - grid[0])
  weights[[0, -1]] /= 2
  return weights


def sign_flip_looks(
  differences: np.ndarray, looks: Sequence[int], levels: Sequence[float], signs: np.ndarray
) -> int | None:
  """Tests at every look whether paired differences are symmetric around zero, two-sided.

  Given the magnitudes, each sign pattern is equally likely, so the observed one is one of B + 1
  whose |sums| are exchangeable. At each look the patterns with the largest |sums| are used up, as
  many as the spending allows, those that tie with a pattern that is kept not among them. The test
  rejects where the observed pattern would be. It is exact, whatever the magnitudes (Plamadeala &
  Rosenberger, 2012, Annals of Statistics 40:30; of populations of agents: Mathieu et al., 2023,
  AdaStop, arXiv:2306.10882).

  Args:
    differences: [n]; zero where a pair is left out.
    looks: numbers of pairs, increasing; those beyond n are not taken.
    levels: [K], the level that is spent up to each look.
    signs: [B, N] of +1 and -1, N >= n.

  Returns:
    The index of the first look that rejects, or None.
  """
  looks = [end for end in looks if end <= len(differences)]
  # Just enough not to lose a pattern to the rounding of the level.
  quotas = np.floor(np.array(levels[: len(looks)]) * (1 + len(signs)) * (1 + ROUNDING)).astype(int)
  magnitudes = np.abs(differences)
  sums = np.zeros(1 + len(signs))  # the observed one first
  alive = np.ones(len(sums), dtype=bool)
  start, used = 0, 0
  for look in range(_num_possible(differences, looks, quotas, signs[:_FEW_PATTERNS])):
    end = looks[look]
    sums[0] += differences[start:end].sum()
    sums[1:] += signs[:, start:end] @ magnitudes[start:end]
    quota, rounding = quotas[look] - used, ROUNDING * magnitudes[:end].sum()
    taken = alive & _largest(np.abs(sums), alive, quota, rounding)
    if taken[0]:
      return look
    alive &= ~taken
    used, start = used + int(taken.sum()), end
  return None


def _num_possible(
  differences: np.ndarray, looks: Sequence[int], quotas: np.ndarray, signs: np.ndarray
) -> int:
  """Returns how many looks there are up to the last that may reject, judged by few patterns.

  A look rejects only if no more patterns have sums as large as the observed one than may be used
  up until then. Most pairs of many arms have more of them among a few thousand patterns.

  Args:
    differences: [n].
    looks: [K], numbers of pairs up to n.
    quotas: [K], how many patterns may be used up until each look.
    signs: [b, N], some of the patterns.
  """
  seen = np.arange(len(differences))[:, None] < np.array(looks, dtype=int)  # [n, K]
  observed = np.abs(differences @ seen)  # [K]
  sums = signs[:, : len(differences)] @ (np.abs(differences)[:, None] * seen)  # [b, K]
  possible = 1 + (np.abs(sums) >= observed).sum(axis=0) <= quotas  # [K]
  return int(np.flatnonzero(possible).max(initial=-1)) + 1


def _largest(values: np.ndarray, alive: np.ndarray, quota: int, rounding: float) -> np.ndarray:
  """Marks the largest of the values that are alive: at most `quota`, and no tie is split."""
  candidates = values[alive]
  if quota >= len(candidates):
    return alive
  first_kept = np.partition(candidates, -quota - 1)[-quota - 1] if quota > 0 else np.inf
  return values > first_kept + rounding


@functools.lru_cache(maxsize=2)
def sign_patterns(num_patterns: int, budget: int, seed: int) -> np.ndarray:
  """Returns random signs `[B, N]`, each +1 or -1. The array is shared: do not write to it."""
  rng = np.random.default_rng(seed)
  bits = rng.integers(0, 256, size=(num_patterns, -(-budget // 8)), dtype=np.uint8)
  return 2 * np.unpackbits(bits, axis=1, count=budget).astype(np.int8) - 1


def median_unbiased(
  differences: np.ndarray, looks: Sequence[int], levels: np.ndarray, signs: np.ndarray
) -> float:
  """Returns an estimate of the mean difference of a pair that was found to differ at its last look.

  The estimate is as often too large as too small, where the plain mean is too far from zero: runs
  stop when it is. In the stagewise order an outcome is the more extreme the earlier the look that
  stopped, and at one look the larger its mean (Emerson & Fleming, 1990, Biometrika 77:875). Were
  the true difference x, and differences symmetric around it, the signs of d - x would be fair
  coins: the share of the sign patterns with an outcome at least as extreme as the observed one is
  p(x), and p(estimate) = 1/2. A pattern is taken to stop where Student's t reaches the level of the
  look, which is close to the sign-flip test of the run.

  Args:
    differences: [n], zero where a pair is left out.
    looks: [K], numbers of pairs up to n, which is the last.
    levels: [K], nominal one-sided levels of the looks.
    signs: [B, N] of +1 and -1, N >= n.
  """
  direction = 1.0 if differences.mean() >= 0 else -1.0
  d = direction * differences
  ends = np.array(looks)  # [K]
  bounds = np.array([t_quantile(1 - p, n - 1) for p, n in zip(levels, looks, strict=True)])
  seen = np.arange(len(d))[:, None] < ends  # [n, K]
  patterns = signs[:_NUM_ESTIMATING, : len(d)].astype(float)

  def excess(x: float) -> float:
    far = np.abs(d - x)[:, None] * seen  # [n, K]
    sums = patterns @ far  # [b, K], of s |d - x|; a path has the values x + s |d - x|
    means = x + sums / ends
    squares = x**2 + ((far**2).sum(axis=0) + 2 * x * sums) / ends
    errors = np.sqrt(np.maximum(squares - means**2, 0) / (ends - 1))
    stops = np.abs(means) >= bounds * errors  # [b, K]
    stops[:, -1] = means[:, -1] >= d.mean()
    at = stops.argmax(axis=1)[:, None]
    upwards = np.take_along_axis(means, at, axis=1)[:, 0] > 0
    return (stops.any(axis=1) & upwards).mean() - 0.5

  reach = 4 * std(d) / math.sqrt(looks[0])
  low, high = d.mean() - reach, d.mean() + reach
  for _ in range(20):
    middle = (low + high) / 2
    low, high = (middle, high) if excess(middle) < 0 else (low, middle)
  return direction * float(high)


@beside_diverged
def compare_looks(
  scores: Scores,
  margin: float,
  budget: int,
  alpha: float = 0.05,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
  reference: str | None = None,
  only_with: str | None = None,
) -> list[Verdict]:
  """Compares arms with the seeds so far, in a run that goes on until all pairs are decided.

  All looks up to the seeds so far are taken again, so the verdicts are a function of the scores. A
  pair has the verdict of the first look at which it is

  * EQUIVALENT: two one-sided t tests, each at the nominal level of a look, have put the difference
    on its side of both margins, at this look or different ones, from 16 pairs on; no seed of
    either arm diverged up to then;
  * BETTER or WORSE: `sign_flip_looks` rejects;

  and UNDECIDED if there is no such look, or TOO_FEW_SEEDS before the first one. Each kind is tested
  at alpha / P per pair, P the number of pairs, so that the probability of any wrong verdict in the
  run is at most alpha.

  The interval of a verdict is a repeated confidence interval, mean ± t std / sqrt(n) with the
  nominal level of the look: those of all pairs and looks together are right with probability
  1 - alpha, whatever the reason to stop (Jennison & Turnbull, 1989, Journal of the Royal
  Statistical Society B 51:305). A difference is beyond the margin if its interval is. The mean
  difference of a pair that was decided early is biased: away from zero if one arm is better.
  Beside it stands the estimate of `median_unbiased`.

  Args:
    scores: values [n, A]: the seeds so far, in the order in which they were planned. Rows after
      the last full look wait for the next one. An arm all of whose pairs are decided needs no
      further seeds; see `Scores.num_trained`.
    margin: the largest difference that counts as none, in the metric's own unit; positive.
    budget: N, the number of seeds at the last look; fixed before the run.
    alpha: probability of any wrong verdict, in (0, 0.5).
    num_resamples: B, random sign patterns.
    seed: of their random number generator.
    reference: the one arm that each of the others is compared with; None: every pair is compared.
    only_with: see `compare`.

  Returns:
    One verdict per pair of arms, as in `compare`. The p-values are NaN: levels differ by look.

  Raises:
    InputError: there are more seeds than the budget, an argument is out of its range, or seeds are
      overlapping splits.
  """
  check_no_overlap(scores)
  check_margin(margin)
  check_alpha(alpha)
  check_num_resamples(num_resamples)
  pairs = arm_pairs(scores, reference or only_with)
  if not pairs:
    return []
  num_pairs = count_pairs(len(scores.arms), reference)
  check_resolution(num_resamples, num_pairs, alpha)
  every = looks(budget)
  if len(scores.seeds) > budget:
    raise InputError(f"the budget is {budget} seeds, and there are {len(scores.seeds)}")
  design = _Design.plan(every, float(margin), alpha, num_pairs)
  signs = sign_patterns(num_resamples, budget, seed)
  return [_verdict(scores, *pair, design, signs) for pair in pairs]


def undecided_arms(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
  """Returns the arms of which a pair is undecided: the others need not train on."""
  arms = itertools.chain.from_iterable((v.arm_a, v.arm_b) for v in verdicts)
  still = (v for v in verdicts if v.verdict in (UNDECIDED, TOO_FEW_SEEDS))
  is_open = {arm for v in still for arm in (v.arm_a, v.arm_b)}
  return tuple(arm for arm in dict.fromkeys(arms) if arm in is_open)


class _Design(NamedTuple):
  """What all pairs of a run share."""

  looks: tuple[int, ...]
  margin: float
  alpha: float
  spent: np.ndarray  # [K], of the two-sided test of one pair, up to each look
  difference_levels: np.ndarray  # [K], nominal one-sided levels of its repeated interval
  equivalence_levels: np.ndarray  # [K], nominal levels of each side

  @classmethod
  def plan(cls, every: tuple[int, ...], margin: float, alpha: float, num_pairs: int) -> "_Design":
    fractions = tuple(look / every[-1] for look in every)
    of_pair = alpha / num_pairs
    return cls(
      looks=every,
      margin=margin,
      alpha=alpha,
      spent=spent(of_pair, np.array(fractions)),
      difference_levels=nominal_levels(of_pair / 2, fractions),
      equivalence_levels=nominal_levels(of_pair, fractions),
    )


def _verdict(scores: Scores, arm_a: str, arm_b: str, design: _Design, signs: np.ndarray) -> Verdict:
  """Returns the verdict of the first look that decides, or of the last one so far."""
  every = differences_by_seed(scores, arm_a, arm_b)  # [n], NaN where either diverged
  pair = scores.diverged[:, [scores.place(arm) for arm in (arm_a, arm_b)]]  # [S, 2]
  alike = _first_alike(every[: _first_diverged(pair)], design)
  # Where both are shown at one look, arms are alike.
  before = design.looks if alike is None else design.looks[:alike]
  different = sign_flip_looks(np.nan_to_num(every), before, design.spent[: len(before)], signs)
  last = sum(end <= len(every) for end in design.looks) - 1
  look = min(k for k in (different, alike, last) if k is not None)
  seen = every if look < 0 else every[: design.looks[look]]
  kept = seen[~np.isnan(seen)]
  centre = mean(kept)
  verdict = UNDECIDED if look >= 0 else TOO_FEW_SEEDS
  if look == alike:
    verdict = EQUIVALENT
  elif look == different:
    verdict = BETTER if (centre > 0) == scores.higher_is_better else WORSE
  low = high = math.nan
  if look >= 0:
    low, high = _repeated_interval(kept, design.difference_levels[look])
  num_diverged = [count_diverged(scores, arm, len(seen)) for arm in (arm_a, arm_b)]
  estimate = None
  if verdict in (BETTER, WORSE) and len(kept) == len(seen):
    until = slice(look + 1)
    levels = design.difference_levels[until]
    estimate = median_unbiased(kept, design.looks[until], levels, signs)
  rounding = ROUNDING * design.margin
  is_beyond = low > design.margin + rounding or high < -design.margin - rounding
  return Verdict(
    metric=scores.metric,
    arm_a=arm_a,
    arm_b=arm_b,
    num_pairs=len(kept),
    mean_difference=centre,
    ci_low=low,
    ci_high=high,
    p_value=math.nan,
    p_holm=math.nan,
    p_beyond_margin=math.nan,
    p_equivalence=math.nan,
    margin=design.margin,
    verdict=verdict,
    beyond_margin=verdict in (BETTER, WORSE) and is_beyond,
    seeds_needed=None if look >= 0 else design.looks[0],
    num_diverged_a=num_diverged[0],
    num_diverged_b=num_diverged[1],
    num_seeds=len(seen),
    confidence=1 - design.alpha,
    design=GROUP_SEQUENTIAL,
    budget=design.looks[-1],
    median_unbiased=estimate,
  )


def _first_diverged(diverged: np.ndarray) -> int:
  """Returns the first row of `[S, 2]` in which either arm diverged, or S."""
  either = diverged.any(axis=1)
  return int(either.argmax()) if either.any() else len(either)


def _first_alike(differences: np.ndarray, design: _Design) -> int | None:
  """Returns the first look that shows equivalence, given the differences before any divergence."""
  is_shown = np.zeros(2, dtype=bool)  # above -margin, below margin
  for look, (end, level) in enumerate(zip(design.looks, design.equivalence_levels, strict=True)):
    if end > len(differences):
      return None
    if end < MIN_PAIRS_EQUIVALENT:
      continue
    is_shown |= np.array(tost_sides(differences[:end], design.margin)) <= level
    if is_shown.all():
      return look
  return None


def _repeated_interval(differences: np.ndarray, level: float) -> tuple[float, float]:
  """Returns Student's interval with a one-sided level; NaN where n < 2 or all are equal."""
  n = len(differences)
  spread = std(differences)
  if not spread > 0:
    return math.nan, math.nan
  half = t_quantile(1 - level, n - 1) * spread / math.sqrt(n)
  return mean(differences) - half, mean(differences) + half
