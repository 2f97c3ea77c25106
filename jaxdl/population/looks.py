"""Training in stages: more seeds, until the question is decided or all seeds are trained."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxdl import stats
from jaxdl.population.local import Execute, Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population


class Looks(NamedTuple):
  """When a population is looked at, and what ends its training.

  Attributes:
    sizes: numbers of seeds, increasing; the last is that of all planned seeds.
    is_decided: whether a population of that many seeds is enough.
  """

  sizes: Sequence[int]
  is_decided: Callable[[Population], bool]


def until_decided(
  metric: str,
  margin: float,
  budget: int,
  alpha: float = 0.05,
  reference: str | None = None,
) -> Looks:
  """Returns the looks of a run that ends once all pairs of arms are decided.

  Args:
    metric: the metric to compare.
    margin: the largest difference that counts as none, in the metric's own unit.
    budget: the planned number of seeds, which are trained if nothing is decided before.
    alpha: the probability of any wrong verdict.
    reference: the one arm that the others are compared with; None: every pair is compared.

  Raises:
    InputError: the budget is too small.
  """

  def is_decided(population: Population) -> bool:
    scores = population.scores(metric)
    return not stats.undecided_arms(
      stats.compare_looks(scores, margin, budget, alpha, reference=reference)
    )

  return Looks(stats.looks(budget), is_decided)


def train_looks(
  looks: Looks,
  execute: Execute,
  groups: Sequence[Group],
  chunks: Sequence[Chunk],
  progress: Progress,
  assemble: Callable[[int, Outcome], Population],
) -> Population:
  """Trains chunks stage by stage; returns the population of the look at which it ended.

  Args:
    looks: when to look.
    execute: trains the chunks of a stage.
    groups: the groups of the population.
    chunks: all of its chunks, those of the first seeds first.
    progress: told about every epoch.
    assemble: `(number of seeds, outcome) -> population` of the first seeds.
  """
  outcome = Outcome({})
  for size in looks.sizes:
    seen = {*outcome.results, *outcome.failures}
    stage = [chunk for chunk in chunks if chunk.seed < size and chunk not in seen]
    outcome = _joined(outcome, execute(groups, stage, progress))
    population = assemble(size, outcome)
    if looks.is_decided(population):
      progress.end_early()
      break
  return population


def _joined(before: Outcome, stage: Outcome) -> Outcome:
  return Outcome(
    results={**before.results, **stage.results},
    failures={**before.failures, **stage.failures},
    num_workers=max(before.num_workers, stage.num_workers),
    # That of all stages so far, whose programs are the same.
    compile_seconds=max(before.compile_seconds, stage.compile_seconds),
    split_chunks=sorted({*before.split_chunks, *stage.split_chunks}),
  )
