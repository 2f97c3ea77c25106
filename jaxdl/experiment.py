"""An experiment: a question, the population that is trained to answer it, and the answer."""

import dataclasses
import json
import math
import numbers
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import data, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, show, unknown_name
from jaxdl.population import (
  EPOCHS_TO_TARGET,
  RATES,
  Population,
  check_seeds,
  metric_names,
  plan,
  train_population,
)
from jaxdl.population.devices import DeviceKind
from jaxdl.population.plan import Group

# Every member has a row in several tables.
_MAX_SEEDS = 10**6
_FLOAT64_MAX = sys.float_info.max


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that the results depend on, except the versions of software and hardware.

  Attributes:
    question: the question in one sentence; "no" must mean that the arms are equivalent.
    arms: name -> arm, A of them.
    dataset: the name of a dataset, for `jaxdl.data.load`.
    classes: the classes to tell apart, in the order of their new labels; empty: all classes.
    num_train: number of training examples to use, from the first, including those that become the
      validation set; None: all.
    validation_fraction: share of the training set, in [0, 1), that becomes the validation set,
      unless the dataset has one.
    validation_split: which examples these are, as `jaxdl.data.split_validation` takes them: "end",
      "shuffled" or "stratified".
    num_seeds: S, the number of replications of each arm.
    seed: root seed of all randomness.
    chunk_size: seeds that a worker trains at a time; None chooses by model, backend and memory.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    margins: metric -> the largest difference that counts as none. These metrics are compared; the
      answer is about the first.
    alpha: level of the tests, after correction for multiple tests.
    num_resamples: random sign flips of a permutation test, if there are too many seeds to try all
      of them.
    reference: the arm that all others are compared with; None compares every pair.
    target_loss: a training loss. If set, "epochs_to_target" is a metric; see `epochs_to`.
  """

  question: str
  arms: Mapping[str, Arm]
  dataset: str = "mnist"
  classes: tuple[int | str, ...] = ()
  num_train: int | None = None
  validation_fraction: float = 0.2
  validation_split: str = "end"
  num_seeds: int = 16
  seed: int = 0
  chunk_size: int | None = None
  slice_size: int | None = None
  margins: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"test_accuracy": 0.002})
  alpha: float = 0.05
  num_resamples: int = stats.NUM_RESAMPLES
  reference: str | None = None
  target_loss: float | None = None

  def __post_init__(self):
    # Reject bad settings before anything is loaded or trained.
    self._check_names()
    if not self.margins:
      raise InputError("margins name no metric to compare")
    for metric, margin in self.margins.items():
      _check_positive(f"the margin of {metric}", margin)
    if self.target_loss is not None:
      _check_positive("target_loss", self.target_loss)
    if self.reference is not None and self.reference not in self.arms:
      raise unknown_name("reference arm", self.reference, self.arms)
    check_integer("num_seeds", self.num_seeds, 1, _MAX_SEEDS)
    check_integer("seed", self.seed, 0, 2**32 - 1)
    for name in ("chunk_size", "slice_size", "num_train"):
      if getattr(self, name) is not None:
        check_integer(name, getattr(self, name), 1)
    others = len(self.arms) - 1
    num_comparisons = math.comb(len(self.arms), 2) if self.reference is None else others
    stats.check_settings(self.num_seeds, num_comparisons, self.alpha, self.num_resamples)

  def _check_names(self):
    if not self.arms:
      raise InputError("there is no arm to train")
    for name in self.arms:
      # Names of arms become names of files, and must not break a line of the report.
      if not isinstance(name, str) or not name.isprintable():
        raise InputError(f"the name of an arm must be printable text, not {show(name)}")
    for key in ("question", "dataset"):
      if not isinstance(getattr(self, key), str):
        raise InputError(f"{key} must be text, not {show(getattr(self, key))}")
    for label in self.classes:
      number = isinstance(label, numbers.Integral) and not isinstance(label, bool)
      if not isinstance(label, str) and not (number and abs(label) < 2**31):
        raise InputError(f"a class is an index or a name, not {show(label)}")
    data.check_fraction(self.validation_fraction)

  def to_json(self) -> dict[str, Any]:
    """Returns the effective config, with every setting of every arm, for `json.dumps`."""
    config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    config["arms"] = {name: arm.to_json() for name, arm in self.arms.items()}
    return {**config, "classes": list(self.classes), "margins": dict(self.margins)}

  def dumps(self) -> str:
    """Returns the effective config as JSON text; `from_json(json.loads(text))` restores it."""
    return json.dumps(self.to_json())

  @classmethod
  def from_json(cls, config: Mapping[str, Any]) -> "Experiment":
    """Returns the experiment with this effective config; missing settings have their defaults.

    Raises:
      InputError: a setting is unknown, or a value is out of range.
    """
    try:
      arms = {name: Arm(**settings) for name, settings in config["arms"].items()}
      classes = tuple(config.get("classes", ()))
      return cls(**{**config, "arms": arms, "classes": classes})
    except (TypeError, KeyError, AttributeError) as error:
      raise InputError(f"this is not the config of an experiment: {error}") from error


def _check_positive(name: str, value: Any):
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 < value <= _FLOAT64_MAX:  # any int is less than infinity
    raise InputError(f"{name} must be a finite number > 0, not {show(value)}")


def load_dataset(
  experiment: Experiment, data_dir: str | None = None, dataset: Dataset | None = None
) -> Dataset:
  """Loads the dataset, chooses the classes and splits off the validation set.

  Args:
    experiment: the experiment.
    data_dir: folder of TFDS datasets; None: $TFDS_DATA_DIR, then TFDS's default.
    dataset: in the place of the one that the experiment names.

  Raises:
    InputError: the dataset or a class is unknown, or a number is out of range.
  """
  if dataset is None:
    dataset = data.load(experiment.dataset, data_dir=data_dir)
  if experiment.classes:
    dataset = data.select_classes(dataset, experiment.classes)
  if experiment.num_train is not None:
    dataset = data.take_train(dataset, experiment.num_train)
  if len(dataset.validation):  # its own
    return dataset
  return data.split_validation(
    dataset, experiment.validation_fraction, how=experiment.validation_split
  )


@dataclasses.dataclass(frozen=True)
class Source:
  """Loads the data and plans the chunks of an experiment in another process; pickle sends it there.

  Attributes:
    config: the experiment, as JSON.
    data_dir: folder of TFDS datasets on the other machine.
    dataset_checksum: checksum of the data in this process.
    dataset_file: the data, as `jaxdl.data.save` writes them, if they cannot be loaded by name.
  """

  config: str
  data_dir: str | None
  dataset_checksum: str
  dataset_file: str | None = None

  def __call__(self, device: DeviceKind) -> tuple[Dataset, list[Group]]:
    """Returns the data, and the groups of the population as planned for a kind of device.

    Raises:
      InputError: the data differ from those of the process that sent this.
    """
    experiment = Experiment.from_json(json.loads(self.config))
    given = None if self.dataset_file is None else data.read(self.dataset_file)
    dataset = load_dataset(experiment, self.data_dir, given)
    if dataset.checksum != self.dataset_checksum:
      raise InputError(f"a worker has a different copy of the dataset {dataset.name}")
    return dataset, plan_groups(experiment, dataset, device)


def plan_groups(experiment: Experiment, dataset: Dataset, device: DeviceKind) -> list[Group]:
  """Returns the groups of an experiment's population, cut into chunks for a kind of device.

  Raises:
    InputError: a setting is out of range or does not fit the dataset.
  """
  _check_margins(experiment, dataset)
  return plan.plan_groups(
    dataset,
    experiment.arms,
    check_seeds(experiment.num_seeds, experiment.seed),
    experiment.seed,
    device,
    experiment.chunk_size,
    experiment.slice_size,
  )


def train_arms(experiment: Experiment, dataset: Dataset, **options: Any) -> Population:
  """Trains the population of an experiment.

  Args:
    experiment: the experiment.
    dataset: its dataset, from `load_dataset`.
    **options: other arguments of `jaxdl.population.train_population`, which do not change results:
      groups, progress, observe, keep_logits, store, execute, ...

  Raises:
    InputError: a setting is out of range or does not fit the dataset.
  """
  _check_margins(experiment, dataset)
  population = train_population(
    dataset,
    experiment.arms,
    seeds=experiment.num_seeds,
    root_seed=experiment.seed,
    chunk_size=experiment.chunk_size,
    slice_size=experiment.slice_size,
    **options,
  )
  if experiment.target_loss is None:
    return population
  epochs = epochs_to(population, experiment.target_loss)
  return dataclasses.replace(population, metrics={**population.metrics, EPOCHS_TO_TARGET: epochs})


def _check_margins(experiment: Experiment, dataset: Dataset):
  known = metric_names(experiment.arms, dataset)
  if experiment.target_loss is not None:
    known = (*known, EPOCHS_TO_TARGET)
  for metric in experiment.margins:
    if metric not in known:
      raise unknown_name("metric in margins", metric, known)


def epochs_to(population: Population, target_loss: float) -> np.ndarray:
  """Returns how many epochs each member took until its training loss was at most a target.

  Args:
    population: the trained members.
    target_loss: the target, in the unit of the loss.

  Returns:
    `[S, A]` float, counted from 1. A member that never reached the target has the arm's
    `num_epochs` + 1, a lower bound; a member that diverged has NaN.
  """
  reached = population.curves["train_loss"] <= target_loss  # [S, A, E]
  first = reached.argmax(axis=-1) + 1.0
  never = np.array([arm.num_epochs + 1.0 for arm in population.arms.values()])
  epochs = np.where(reached.any(axis=-1), first, never)
  return np.where(population.status == "diverged", np.nan, epochs)


def compare(experiment: Experiment, population: Population) -> list[stats.Verdict]:
  """Returns the verdicts on all metrics that have a margin, metric by metric."""
  return [
    verdict
    for metric, margin in experiment.margins.items()
    for verdict in stats.compare(
      population.scores(metric),
      margin=margin,
      alpha=experiment.alpha,
      num_resamples=experiment.num_resamples,
      seed=experiment.seed,
      reference=experiment.reference,
    )
  ]


def sentence(verdict: stats.Verdict) -> str:
  """Returns a verdict as a sentence, with rates in percentage points."""
  if verdict.metric in RATES:
    return stats.sentence(verdict, unit="points", scale=100)
  return stats.sentence(verdict)


def answer(verdicts: Sequence[stats.Verdict], metric: str, population: Population) -> str:
  """Returns the answer to a question in a few sentences, from the verdicts on one metric.

  It begins with arms that learned nothing, and ends with arms that diverged.

  Args:
    verdicts: the result of `compare`.
    metric: the metric of the answer.
    population: the population that was compared.
  """
  about = [verdict for verdict in verdicts if verdict.metric == metric]
  sentences = [_chance_text(population)]
  if about:
    sentences.append(f"{_outcome(about)} ({_pairs_text(about)}).")
  else:
    sentences.append("There is one arm only, so there is nothing to compare.")
  diverged = _divergence(about) if about else ""
  if diverged:
    sentences.append(f"Only runs that did not diverge were compared: {diverged}.")
  return " ".join(text for text in sentences if text)


def _chance_text(population: Population) -> str:
  """Returns a caution that names the arms at chance level, or an empty string.

  An arm is at chance level if its mean accuracy exceeds the share of the most frequent class by at
  most two standard errors of an accuracy on that many test images.
  """
  if not population.has_classes:
    return _constant_text(population)
  num_images = population.test_targets.size
  share = np.bincount(population.test_targets.ravel()).max() / num_images
  limit = share + 2 * math.sqrt(share * (1 - share) / num_images)
  means = [summary.mean for summary in stats.summarize(population.scores("test_accuracy"))]
  arms = [arm for arm, mean in zip(population.arms, means, strict=True) if mean <= limit]
  baseline = f"always answering the most frequent class ({100 * share:.1f}%)"
  return _caution("test accuracy", arms, population, baseline)


def _constant_text(population: Population) -> str:
  """Returns a caution that names the arms whose mean R2 is not positive, or an empty string."""
  means = [summary.mean for summary in stats.summarize(population.scores("r2"))]
  arms = [arm for arm, mean in zip(population.arms, means, strict=True) if mean <= 0]
  return _caution("R2", arms, population, "always predicting the mean of the test targets (0)")


def _caution(metric: str, arms: Sequence[str], population: Population, baseline: str) -> str:
  if not arms:
    return ""
  verb = "is not" if len(arms) == 1 else "are not"
  who = "no arm is" if len(arms) == len(population.arms) else f"{' and '.join(arms)} {verb}"
  return f"Caution: in {metric}, {who} better than {baseline}."


def _outcome(about: list[stats.Verdict]) -> str:
  metric, margin = about[0].metric, _margin_text(about[0])
  decided = [v for v in about if v.verdict in (stats.BETTER, stats.WORSE)]
  open_pairs = [v for v in about if v.verdict in (stats.UNDECIDED, stats.TOO_FEW_SEEDS)]
  if all(v.verdict == stats.EQUIVALENT for v in about):
    return f"No: all arms are equivalent within {margin} of {metric}"
  if decided:
    rest = f"; {len(open_pairs)} of {len(about)} pairs of arms undecided" if open_pairs else ""
    return f"Yes: in {metric}, {_decided_text(decided, margin)}{rest}"
  slowest = max(open_pairs, key=lambda v: math.inf if v.seeds_needed is None else v.seeds_needed)
  needed = stats.format_seeds_needed(slowest)
  if all(v.verdict == stats.TOO_FEW_SEEDS for v in about):
    return f"No claim can be made from so few seeds: {needed}"
  return f"Undecided in {metric} for {len(open_pairs)} of {len(about)} pairs of arms: {needed}"


def _decided_text(decided: list[stats.Verdict], margin: str) -> str:
  """Names the arms that differ, and the differences that are shown to exceed the margin."""
  large = [v for v in decided if v.beyond_margin]
  parts = [
    f"{v.arm_a} is {v.verdict} than {v.arm_b}{' by more than the margin' if v in large else ''}"
    for v in decided
  ]
  if len(large) < len(decided):
    which = "no other difference" if large else "no difference"
    parts.append(f"{which} is shown to exceed the margin of {margin}")
  return "; ".join(parts)


def _margin_text(verdict: stats.Verdict) -> str:
  scale, unit = (100, " points") if verdict.metric in RATES else (1, "")
  margin = scale * verdict.margin
  return f"{margin:g}{unit.removesuffix('s') if margin == 1 else unit}"


def _pairs_text(about: list[stats.Verdict]) -> str:
  fewest, most = (f(v.num_pairs for v in about) for f in (min, max))
  return f"{most} pairs of runs" if fewest == most else f"{fewest} to {most} pairs of runs"


def _divergence(about: list[stats.Verdict]) -> str:
  """Says how often each arm diverged; empty if none did."""
  counts: dict[str, int] = {}
  for v in about:
    counts |= {v.arm_a: v.num_diverged_a, v.arm_b: v.num_diverged_b}
  seeds = about[0].num_seeds
  return ", ".join(f"{arm} diverged in {n} of {seeds} seeds" for arm, n in counts.items() if n)
