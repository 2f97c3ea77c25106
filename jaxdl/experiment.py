"""An experiment: a question put to data by a population, answered by verdicts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdl import data, population, stats
from jaxdl.arm import Arm
from jaxdl.errors import InputError, unknown_name
from jaxdl.population import Population
from jaxdl.progress import Progress
from jaxdl.types import Dataset


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that a result depends on, besides the versions of what computes it.

  Attributes:
    question: what is asked, in one sentence.
    arms: name -> arm, A of them.
    dataset: a name that `jaxdl.data.load` knows.
    classes: the classes to tell apart, in the order of their new labels; empty: all.
    validation_fraction: the last part of the training set that is kept for validation, in [0, 1).
    num_seeds: S, replications of every arm.
    seed: root of all randomness.
    chunk_size: seeds trained at a time; None: chosen by model and memory.
    slice_size: examples that pass through a model at once; None: chosen by model and backend.
    margins: metric -> largest difference that counts as none. These are the metrics that are
      compared; the first is what the answer is about.
    alpha: level of the tests, after correction.
    num_resamples: sign flips drawn where there are too many seeds to try them all.
  """

  question: str
  arms: Mapping[str, Arm]
  dataset: str = "mnist"
  classes: tuple[int | str, ...] = ()
  validation_fraction: float = 0.2
  num_seeds: int = 16
  seed: int = 0
  chunk_size: int | None = None
  slice_size: int | None = None
  margins: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"test_accuracy": 0.002})
  alpha: float = 0.05
  num_resamples: int = stats.NUM_RESAMPLES

  def __post_init__(self):
    if not self.arms:
      raise InputError("there is no arm to train")
    if not self.margins:
      raise InputError("margins name no metric to compare")
    # What stats would refuse is refused before hours of training, not after.
    for metric, margin in self.margins.items():
      if not isinstance(margin, int | float) or not 0 < margin < float("inf"):
        raise InputError(f"the margin of {metric} must be a finite number > 0, not {margin!r}")
    if not isinstance(self.alpha, float) or not 0 < self.alpha < 0.5:
      raise InputError(f"alpha must be in (0, 0.5), not {self.alpha!r}")

  def to_json(self) -> dict[str, Any]:
    """Returns the effective config: every setting of every arm, as `json` takes it."""
    config = dataclasses.asdict(self)
    return {**config, "classes": list(self.classes), "margins": dict(self.margins)}


def load_dataset(experiment: Experiment, data_dir: str | None = None) -> Dataset:
  """Loads the dataset, chooses the classes and splits off the validation set.

  Raises:
    InputError: where the dataset, a class or the fraction is not to be had.
  """
  dataset = data.load(experiment.dataset, data_dir=data_dir)
  if experiment.classes:
    dataset = data.select_classes(dataset, experiment.classes)
  return data.split_validation(dataset, experiment.validation_fraction)


def train(experiment: Experiment, dataset: Dataset, progress: Progress | None = None) -> Population:
  """Trains the population of an experiment. Raises InputError for settings that do not fit."""
  known = population.metric_names(experiment.arms, dataset.num_classes)
  for metric in experiment.margins:
    if metric not in known:
      raise unknown_name("metric in margins", metric, known)
  return population.train_population(
    dataset,
    experiment.arms,
    seeds=experiment.num_seeds,
    root_seed=experiment.seed,
    chunk_size=experiment.chunk_size,
    slice_size=experiment.slice_size,
    progress=progress,
  )


def compare(experiment: Experiment, trained: Population) -> list[stats.Verdict]:
  """Returns the verdicts on every metric that has a margin, pairs of arms within each."""
  return [
    verdict
    for metric, margin in experiment.margins.items()
    for verdict in stats.compare(
      trained.scores(metric),
      margin=margin,
      alpha=experiment.alpha,
      num_resamples=experiment.num_resamples,
      seed=experiment.seed,
    )
  ]


def sentence(verdict: stats.Verdict) -> str:
  """Says a verdict in a sentence, rates in percentage points."""
  if verdict.metric in population.RATES:
    return stats.sentence(verdict, unit="points", scale=100)
  return stats.sentence(verdict)


def answer(verdicts: list[stats.Verdict], metric: str) -> str:
  """Says in one sentence what the verdicts on one metric amount to."""
  about = [verdict for verdict in verdicts if verdict.metric == metric]
  if not about:
    return "There is one arm only, so there is nothing to compare."
  scale, unit = (100, " points") if metric in population.RATES else (1, "")
  margin = scale * about[0].margin
  within = f"{margin:g}{unit if margin != 1 else unit.rstrip('s')} of {metric}"
  seeds = f"({about[0].num_seeds} seeds)"
  outcomes = {verdict.verdict for verdict in about}
  if outcomes == {stats.EQUIVALENT}:
    return f"No: all arms are equivalent within {within} {seeds}."
  if outcomes & {stats.BETTER, stats.WORSE}:
    decided = [v for v in about if v.verdict in (stats.BETTER, stats.WORSE)]
    found = "; ".join(f"{v.arm_a} is {v.verdict} than {v.arm_b}" for v in decided)
    return f"Yes: in {metric}, {found} {seeds}."
  if outcomes == {stats.TOO_FEW_SEEDS}:
    needed = max(verdict.seeds_needed for verdict in about)
    return f"No claim can be made from so few seeds {seeds}; at least {needed} are needed."
  needed = max(verdict.seeds_needed or 0 for verdict in about)
  return (
    f"Undecided: the arms are neither shown to differ in {metric} nor to be equivalent within "
    f"{within} {seeds}; about {needed} seeds would be needed."
  )
