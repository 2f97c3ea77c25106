"""Measures how often verdicts of looks, bets and overlapping splits are wrong.

It also measures how many seeds looks and bets take.

  python -m experiments.measure_sequential [--repetitions=2000] [--table=errors]

prints tables in Markdown. Scores are made up, so the truth is known; effects and margins are in
standard deviations of the paired difference. The table `adastop` needs the package of that name,
which decides about the same scores. On one core, the errors of 2,000 repetitions take half an hour,
nearly all of it for ten arms.
"""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

from jaxdl import data, report, stats
from jaxdl.errors import InputError

BUDGET = 64
# Offsets of the arms from each other, and the margin.
FAMILIES = {
  "2 arms, equal": ((0, 0), 0.5),
  "2 arms, a margin apart": ((0, 0.5), 0.5),
  "3 arms, equal": ((0, 0, 0), 1.0),
  "3 arms, one apart": ((0, 0, 0.5), 0.5),
  "5 arms, half a margin apart": ((0, 0.5, 1, 1.5, 2), 1.0),
  "10 arms, equal": ((0,) * 10, 1.0),
  "10 arms, two clusters": ((0,) * 5 + (1,) * 5, 1.0),
}
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# Scores [S, A] of which two differ with standard deviation 1, or for counts 0.87.
DISTRIBUTIONS: dict[str, Draw] = {
  "normal": lambda rng, size: rng.normal(size=size) / math.sqrt(2),
  "t3": lambda rng, size: rng.standard_t(3, size=size) / math.sqrt(6),
  "counts": lambda rng, size: rng.binomial(356, 0.96, size=size) / 6,
}


def make_scores(values: np.ndarray) -> stats.Scores:
  """Returns scores [S, A] of arms that are named by their index."""
  arms = tuple(map(str, range(values.shape[1])))
  return stats.Scores(
    metric="score",
    values=values,
    seeds=tuple(range(len(values))),
    arms=arms,
    axes=stats.AXES,
    higher_is_better=True,
  )


def is_wrong(verdict: stats.Verdict, effect: float) -> bool:
  """Whether a verdict contradicts the true difference of its arms."""
  if verdict.verdict == stats.EQUIVALENT:
    return abs(effect) >= verdict.margin
  return {stats.BETTER: effect <= 0, stats.WORSE: effect >= 0}.get(verdict.verdict, False)


def seeds_by_arm(verdicts: Sequence[stats.Verdict]) -> dict[str, int]:
  """Returns how many seeds each arm trains until all of its pairs are decided, or none is left."""
  seeds: dict[str, int] = {}
  for v in verdicts:
    for arm in (v.arm_a, v.arm_b):
      seeds[arm] = max(seeds.get(arm, 0), v.num_seeds)
  return seeds


def error_rows(repetitions: int) -> Iterator[list[str]]:
  """Yields how many percent of runs have any wrong verdict, by family and distribution.

  Then, for looks, the mean number of seeds until all pairs are decided, and the share of members
  that need not be trained up to then, because their arm was decided before.
  """
  yield [
    *("arms", "scores", "any wrong verdict, looks", "bets"),
    *("seeds, looks", "members saved", "runs"),
  ]
  for family, (offsets, margin) in FAMILIES.items():
    for name, draw in DISTRIBUTIONS.items():
      rng = np.random.default_rng(0)
      wrong, seeds, members = np.zeros(2), 0, 0
      for _ in range(repetitions):
        scores = make_scores(draw(rng, (BUDGET, len(offsets))) + offsets)
        designs = (
          stats.compare_looks(scores, margin, BUDGET),
          stats.compare_anytime(scores, margin),
        )
        for place, verdicts in enumerate(designs):
          effects = (offsets[int(v.arm_a)] - offsets[int(v.arm_b)] for v in verdicts)
          wrong[place] += any(map(is_wrong, verdicts, effects))
        trained = seeds_by_arm(designs[0]).values()
        seeds, members = seeds + max(trained), members + sum(trained)
      shares = [f"{100 * share:.1f}%" for share in wrong / repetitions]
      saved = 1 - members / (seeds * len(offsets))
      row = [family, name, *shares, f"{seeds / repetitions:.1f}", f"{100 * saved:.0f}%"]
      yield [*row, f"{repetitions:,}"]


def seed_rows(repetitions: int) -> Iterator[list[str]]:
  """Yields how many seeds one of P pairs takes, for normal scores, and how often it is decided."""
  yield ["pairs", "margin", "effect", "decided", "mean seeds", "standard error"]
  for num_pairs in (1, 3, 45):
    for margin in (0.5, 1.0):
      for effect in (0.0, 0.5, 1.0, 2.0):
        rng = np.random.default_rng(0)
        found = []
        for _ in range(repetitions):
          scores = make_scores(DISTRIBUTIONS["normal"](rng, (BUDGET, 2)) + np.array([effect, 0]))
          found += stats.compare_looks(scores, margin, BUDGET, alpha=0.05 / num_pairs)
        seeds = np.array([v.num_seeds for v in found])
        decided = np.mean([v.verdict != stats.UNDECIDED for v in found])
        error = seeds.std() / math.sqrt(repetitions)
        row = [f"{num_pairs}", f"{margin:g}", f"{effect:g}", f"{100 * decided:.0f}%"]
        yield [*row, f"{seeds.mean():.1f}", f"{error:.1f}"]


def split_rows(repetitions: int) -> Iterator[list[str]]:
  """Yields how often two learners are called different that are equally good on new datasets.

  Every repetition draws a dataset of 100 examples with ten features, of which each learner, a
  least-squares classifier, sees five: by symmetry neither is better. Each seed is a split of it.
  """
  yield ["splits", "seeds", "corrected", "as if independent: t test", "sign-flip test", "runs"]
  for scheme in ("folds(5)", "holdout(0.2)", "holdout(0.5)", "bootstrap"):
    resampling = data.Resampling(scheme, 100)
    for num_seeds in (10, 30):
      rng, wrong = np.random.default_rng(0), np.zeros(3)
      for repetition in range(repetitions):
        x = rng.normal(size=(100, 2, 5))
        y = np.sign(x.sum(axis=(1, 2)) + rng.normal(size=100))
        split = resampling.splits(repetition, range(num_seeds))
        a, b = (_accuracy(x[:, place], y, split) for place in (0, 1))  # [S] each
        wrong += [
          stats.corrected_test(a - b, resampling.overlap) < 0.05,
          stats.corrected_test(a - b, 0.0) < 0.05,
          stats.sign_flip_test(a - b) < 0.05,
        ]
      shares = [f"{100 * share:.1f}%" for share in wrong / repetitions]
      yield [scheme, f"{num_seeds}", *shares, f"{repetitions:,}"]


def _accuracy(x: np.ndarray, y: np.ndarray, split: data.Indices) -> np.ndarray:
  """Returns the test accuracy `[S]` of a least-squares classifier by split."""
  inner, targets = x[split.train], y[split.train][..., None]  # [S, n, D], [S, n, 1]
  across = inner.swapaxes(1, 2)
  weights = np.linalg.solve(across @ inner, across @ targets)  # [S, D, 1]
  right = np.sign(x[split.test] @ weights)[..., 0] == y[split.test]  # [S, m]
  return right.mean(axis=1)


class _Run(NamedTuple):
  """What one design says of one run: for each pair of arms, in the order of `combinations`."""

  outcomes: list[str]  # DIFFERENT, EQUAL or neither
  num_seeds: int
  num_members: int


_DIFFERENT, _EQUAL = "different", "equal"


def adastop_rows(repetitions: int) -> Iterator[list[str]]:
  """Yields what AdaStop and looks say of the same scores, with arms that share seeds or do not.

  AdaStop (Mathieu et al., 2023, arXiv:2306.10882) compares arms as independent samples, and calls
  them equal if it has not found a difference at its last look; looks, with a margin of 1, show that
  they are equivalent. A run is wrong if it calls any equal arms different.
  """
  columns = ("seeds", "members", "wrong", "different pairs shown", "pairs called equal")
  yield [
    "offsets",
    "correlation",
    *(f"AdaStop: {c}" for c in columns),
    *(f"looks: {c}" for c in columns),
  ]
  for correlation in (0.0, 0.9):
    for offsets in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (2.0, 0.0), (1.0, 0.0, 0.0)):
      rng = np.random.default_rng(0)
      theirs, ours = [], []
      for _ in range(repetitions):
        shared = rng.normal(size=(BUDGET, 1)) * math.sqrt(correlation)
        own = rng.normal(size=(BUDGET, len(offsets))) * math.sqrt(1 - correlation)
        values = (shared + own) / math.sqrt(2 * (1 - correlation)) + offsets
        theirs.append(_adastop(values))
        ours.append(_looks(values))
      row = [" ".join(f"{offset:g}" for offset in offsets), f"{correlation:g}"]
      yield row + _summary(theirs, offsets) + _summary(ours, offsets)


def _adastop(values: np.ndarray) -> _Run:
  from adastop import MultipleAgentsComparator

  every, arms = stats.LOOK_EVERY, list(map(str, range(values.shape[1])))
  comparator = MultipleAgentsComparator(n=every, K=BUDGET // every, B=1_000, alpha=0.05, seed=0)
  for end in range(every, BUDGET + 1, every):
    comparator.partial_compare(dict(zip(arms, values[:end].T, strict=True)), verbose=False)
    if comparator.is_finished:
      break
  names = {"equal": _EQUAL, "larger": _DIFFERENT, "smaller": _DIFFERENT}
  outcomes = [names.get(decision, decision) for decision in comparator.decisions.values()]
  return _Run(outcomes, end, sum(comparator.n_iters.values()))


def _looks(values: np.ndarray) -> _Run:
  verdicts = stats.compare_looks(make_scores(values), 1.0, BUDGET)
  names = {stats.BETTER: _DIFFERENT, stats.WORSE: _DIFFERENT, stats.EQUIVALENT: _EQUAL}
  seeds = seeds_by_arm(verdicts).values()
  return _Run([names.get(v.verdict, v.verdict) for v in verdicts], max(seeds), sum(seeds))


def _summary(runs: Sequence[_Run], offsets: Sequence[float]) -> list[str]:
  differ = [a != b for a, b in itertools.combinations(offsets, 2)]
  outcomes = np.array([run.outcomes for run in runs])  # [R, P]
  wrong = (outcomes[:, ~np.array(differ)] == _DIFFERENT).any(axis=1).mean()
  shown = f"{100 * (outcomes[:, differ] == _DIFFERENT).mean():.0f}%" if any(differ) else "-"
  row = [f"{np.mean([run.num_seeds for run in runs]):.1f}"]
  row += [f"{np.mean([run.num_members for run in runs]):.1f}", f"{100 * wrong:.1f}%"]
  return [*row, shown, f"{100 * (outcomes == _EQUAL).mean():.0f}%"]


TABLES = {
  "errors": error_rows,
  "seeds": seed_rows,
  "splits": split_rows,
  "adastop": adastop_rows,
}


def main(argv: Sequence[str]) -> int:
  """Measures and prints; returns the exit status."""
  values = flags.FlagValues()
  flags.DEFINE_integer("repetitions", 2000, "Runs per row.", lower_bound=1, flag_values=values)
  flags.DEFINE_multi_enum("table", list(TABLES), list(TABLES), "What to measure.", values)
  try:
    rest = values(argv)
    if len(rest) > 1:
      raise InputError(f"unknown argument {rest[1]!r}; settings are given as --name=value")
  except (flags.Error, InputError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  for table in values.table:
    if table == "adastop" and importlib.util.find_spec("adastop") is None:
      print("adastop is not installed, so it is not compared", file=sys.stderr)
      continue
    print(report.markdown_table(list(TABLES[table](values.repetitions))), end="\n\n", flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
