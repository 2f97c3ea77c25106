"""An experiment: a question, the population that is trained to answer it, and the verdicts."""

import dataclasses
import json
import numbers
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import data, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, show, unknown_name
from jaxdl.population import (
  EPOCHS_TO_TARGET,
  Looks,
  Population,
  check_seeds,
  metric_names,
  plan,
  train_population,
)
from jaxdl.population.devices import DeviceKind
from jaxdl.population.plan import Group
from jaxdl.settings import plain

# Every member has a row in several tables.
_MAX_SEEDS = 10**6
# With more arms, each is compared with the best only, and pictures and tables have so many: the
# best and the worst.
MANY_ARMS = 12
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
    resample: how every seed draws its own split of the training examples (without the validation
      set) into those it is trained on and those it is tested on: "folds(5)", "holdout(0.2)" or
      "bootstrap"; see `jaxdl.data.resampling`. The test set is then not used. None: all seeds have
      the same training and test set.
    num_seeds: S, the number of replications of each arm; with `until_decided`, the most there may
      be.
    seed: root seed of all randomness.
    chunk_size: seeds that a worker trains at a time; None chooses by model, backend and memory.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    margins: metric -> the largest difference that counts as none. These metrics are compared; the
      answer is about the first.
    alpha: level of the tests, after correction for multiple tests.
    num_resamples: random sign flips of a permutation test, if there are too many seeds to try all
      of them.
    reference: the arm that all others are compared with; None compares every pair or, with more
      than `MANY_ARMS` arms, each with the one that has the best mean.
    target_loss: a training loss. If set, "epochs_to_target" is a metric; see `epochs_to`.
    until_decided: train the seeds of an arm only until the first metric in `margins` is decided for
      all of its pairs. They are looked at every few seeds, at levels that take that into account;
      see `jaxdl.stats.compare_looks`.
    continued_from: number of seeds of an earlier run that was planned with so many, and that this
      one continues. Since no looks were planned, `jaxdl.stats.compare_anytime` compares.

  Examples:
    >>> import jaxdl
    >>> arm = jaxdl.Arm(model="mlp(8)", loss="categorical_cross_entropy")
    >>> arms = {"adam": arm, "sgd": arm.replace(optimizer="sgd")}
    >>> experiment = jaxdl.Experiment("Does the optimizer matter?", arms, dataset="digits")
    >>> experiment.num_seeds, dict(experiment.margins)
    (16, {'test_accuracy': 0.002})
  """

  question: str
  arms: Mapping[str, Arm]
  dataset: str = "mnist"
  classes: tuple[int | str, ...] = ()
  num_train: int | None = None
  validation_fraction: float = 0.2
  validation_split: str = "end"
  resample: str | None = None
  num_seeds: int = 16
  seed: int = 0
  chunk_size: int | None = None
  slice_size: int | None = None
  margins: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"test_accuracy": 0.002})
  alpha: float = 0.05
  num_resamples: int = stats.NUM_RESAMPLES
  reference: str | None = None
  target_loss: float | None = None
  until_decided: bool = False
  continued_from: int | None = None

  def __post_init__(self):
    for field in dataclasses.fields(self):
      object.__setattr__(self, field.name, plain(getattr(self, field.name)))
    object.__setattr__(self, "classes", tuple(map(plain, self.classes)))
    margins = {metric: plain(margin) for metric, margin in (self.margins or {}).items()}
    object.__setattr__(self, "margins", margins)
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
    num_comparisons = stats.count_pairs(len(self.arms), self.reference)
    stats.check_settings(self.num_seeds, num_comparisons, self.alpha, self.num_resamples)
    self._check_looks(num_comparisons)

  def _check_looks(self, num_comparisons: int):
    if not isinstance(self.until_decided, bool):
      raise InputError(f"until_decided must be True or False, not {show(self.until_decided)}")
    if self.continued_from is not None:
      check_integer("continued_from", self.continued_from, 1, self.num_seeds)
    if self.resample is not None and (self.until_decided or self.continued_from is not None):
      raise InputError(
        "until_decided needs seeds that are independent, and with resample they are splits of the "
        "same examples: leave one of the two out"
      )
    if self.until_decided:
      _ = self.looks  # raises InputError if there are too few seeds
      # Looks draw sign patterns at random for any number of seeds.
      most = max(stats.MAX_EXACT + 1, self.num_seeds)
      stats.check_settings(most, num_comparisons, self.alpha, self.num_resamples)

  @property
  def looks(self) -> tuple[int, ...] | None:
    """Numbers of seeds at which to ask whether to train on; None: all seeds are trained."""
    if not self.until_decided:
      return None
    if self.continued_from is None:
      return stats.looks(self.num_seeds)
    every = range(self.continued_from, self.num_seeds, stats.LOOK_EVERY)
    return (*every, self.num_seeds)

  @property
  def block(self) -> int | None:
    """Seeds that are trained before it is decided whether to train more; None: all of them."""
    return self.continued_from or (self.looks[0] if self.looks else None)

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
    if self.validation_split not in data.VALIDATION_SPLITS:
      raise unknown_name("validation_split", self.validation_split, data.VALIDATION_SPLITS)
    if self.resample is not None:
      data.check_scheme(self.resample)

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
  if not len(dataset.validation):
    dataset = data.split_validation(
      dataset, experiment.validation_fraction, how=experiment.validation_split
    )
  return dataset if experiment.resample is None else data.resample(dataset, experiment.resample)


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
    experiment.block,
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
    until_decided=_looks(experiment),
    **options,
  )
  return with_epochs_to_target(experiment, population)


def _looks(experiment: Experiment) -> Looks | None:
  """Returns when to look at the population, and what ends its training."""
  if experiment.looks is None:
    return None
  metric = next(iter(experiment.margins))

  def undecided(population):
    verdicts = compare_metric(experiment, with_epochs_to_target(experiment, population), metric)
    # An arm that was decided against the best so far may be open against a later one, and stays so.
    going_on = dict(zip(population.arms, population.is_trained.all(axis=0), strict=True))
    return stats.undecided_arms([v for v in verdicts if going_on[v.arm_a] and going_on[v.arm_b]])

  return Looks(experiment.looks, undecided)


def with_epochs_to_target(experiment: Experiment, population: Population) -> Population:
  """Adds "epochs_to_target" to a population's metrics if the experiment has a target."""
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

  In the epoch that reaches it, the loss is taken to fall evenly from that of the epoch before, so
  e - 1 + (L_{e-1} - target) / (L_{e-1} - L_e). Counted in whole epochs, which of two arms is faster
  would change with the target.

  Args:
    population: the trained members.
    target_loss: the target, in the unit of the loss.

  Returns:
    `[S, A]` float. Two values are bounds: 1 if the first epoch reached the target, which may have
    been sooner; the arm's `num_epochs` + 1 if none did. A member that diverged has NaN.
  """
  losses = population.curves["train_loss"]  # [S, A, E]
  reached = losses <= target_loss
  first = reached.argmax(axis=-1)  # [S, A]
  before, after = (
    np.take_along_axis(losses, np.maximum(place, 0)[..., None], axis=-1)[..., 0]
    for place in (first - 1, first)
  )
  drop = np.where(first > 0, before - after, 1.0)  # positive where the target is reached
  with np.errstate(invalid="ignore", divide="ignore"):
    epochs = np.where(first > 0, first + (before - target_loss) / drop, 1.0)
  never = np.array([arm.num_epochs + 1.0 for arm in population.arms.values()])
  epochs = np.where(reached.any(axis=-1), epochs, never)
  return np.where(population.has_result, epochs, np.nan)


def compare(experiment: Experiment, population: Population) -> list[stats.Verdict]:
  """Returns the verdicts on all metrics that have a margin, metric by metric."""
  verdicts = []
  for metric in experiment.margins:
    about = compare_metric(experiment, population, metric)
    correct = population.is_correct(metric)
    if correct is not None:
      about = _with_new_examples(about, correct, list(population.arms))
    verdicts += about
  return verdicts


def _with_new_examples(
  verdicts: Sequence[stats.Verdict], correct: np.ndarray, arms: Sequence[str]
) -> list[stats.Verdict]:
  """Adds the differences of an accuracy for new test examples; `correct` is `[S, A, N]`."""
  places = {arm: place for place, arm in enumerate(arms)}
  found = []
  for v in verdicts:
    a, b = (correct[: v.num_seeds, places[arm]].astype(np.int8) for arm in (v.arm_a, v.arm_b))
    found.append(dataclasses.replace(v, new_examples=stats.crossed_interval(a - b)))
  return found


def compare_metric(
  experiment: Experiment, population: Population, metric: str
) -> list[stats.Verdict]:
  """Returns the verdicts on one metric, by the test that the experiment's design needs."""
  scores = population.scores(metric, in_order=experiment.looks is not None)
  margin = experiment.margins[metric]
  alpha, reference = experiment.alpha, experiment.reference
  only_with = scores.best if is_many(scores.arms) else None
  if experiment.continued_from is not None:
    return stats.compare_anytime(scores, margin, alpha, reference, only_with)
  random = experiment.num_resamples, experiment.seed
  if experiment.until_decided:
    budget = experiment.num_seeds
    return stats.compare_looks(scores, margin, budget, alpha, *random, reference, only_with)
  if reference is None and only_with is not None:
    return stats.compare_with_best(scores, margin, alpha, *random)
  return stats.compare(scores, margin, alpha, *random, reference)


def is_many(arms: Collection[str]) -> bool:
  """Returns whether arms are so many that they are compared, and shown, in another way."""
  return len(arms) > MANY_ARMS
