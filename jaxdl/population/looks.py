"""Training in stages: more seeds, until the question is decided or all seeds are trained.

An arm all of whose pairs are decided stops: its members of later stages are not trained.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
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
    undecided: the arms that need more seeds, given a population of so many.
  """

  sizes: Sequence[int]
  undecided: Callable[[Population], Collection[str]]


def until_decided(
  metric: str,
  margin: float,
  budget: int,
  alpha: float = 0.05,
  reference: str | None = None,
) -> Looks:
  """Returns the looks of a run in which an arm ends once all of its pairs are decided.

  Args:
    metric: the metric to compare.
    margin: the largest difference that counts as none, in the metric's own unit.
    budget: the planned number of seeds, which are trained if nothing is decided before.
    alpha: the probability of any wrong verdict.
    reference: the one arm that the others are compared with; None: every pair is compared.

  Raises:
    InputError: the budget is too small.
  """

  def undecided(population: Population) -> Collection[str]:
    scores = population.scores(metric, in_order=True)
    return stats.undecided_arms(
      stats.compare_looks(scores, margin, budget, alpha, reference=reference)
    )

  return Looks(stats.looks(budget), undecided)


def train_looks(
  looks: Looks,
  execute: Execute,
  groups: Sequence[Group],
  chunks: Sequence[Chunk],
  progress: Progress,
  assemble: Callable[[int, Outcome, Mapping[str, int]], Population],
) -> Population:
  """Trains chunks stage by stage; returns the population of the look at which it ended.

  Args:
    looks: when to look.
    execute: trains the chunks of a stage.
    groups: the groups of the population.
    chunks: all of its chunks, those of the first seeds first.
    progress: told about every epoch.
    assemble: `(number of seeds, outcome, ends) -> population` of the first seeds; `ends` has, per
      arm, how many seeds it was to be trained with.
  """
  outcome, begun = Outcome({}), 0
  still = [arm for group in groups for arm in group.layout.arms]
  ends: dict[str, int] = {}
  for size in looks.sizes:
    ends |= dict.fromkeys(still, size)
    stage = [
      part
      for chunk in chunks
      if begun <= chunk.seed < size
      for part in groups[chunk.group].parts(chunk, ends)
    ]
    outcome = _joined(outcome, execute(groups, stage, progress))
    population = assemble(size, outcome, ends)
    undecided = looks.undecided(population)
    # What has stopped stays so: its pairs would lack the seeds in between.
    still, begun = [arm for arm in still if arm in undecided], size
    if not still:
      break
  progress.end_early()
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
