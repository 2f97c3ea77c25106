"""The claims of the coursework and its textbook, each as comparisons that a run can decide.

Every function takes the finished run of one experiment and returns claims. A margin is the largest
difference that counts as none; it is set here, before any run.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxdl import population, stats
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.nn import initializers as initializers_lib
from jaxdl.population.results import NOT_TRAINED
from jaxdl.stats import ledger
from jaxdl.stats.ledger import Claim, Part

_STATED = "Stated without a figure."
# A margin of one percentage point, as a share; and how shares are shown.
_POINT = 0.01
_POINTS = {"unit": "points", "scale": 100.0}


class Run(NamedTuple):
  """The results of one finished run, from its workdir."""

  name: str  # name of the experiment's script
  experiment: Experiment
  members: pd.DataFrame
  tables: Mapping[str, pd.DataFrame]

  def scores(self, metric: str, *arms: str, diverged: float = np.nan) -> stats.Scores:
    """Returns a metric of some arms.

    Args:
      metric: a column of members.csv.
      *arms: names of the arms, in the order in which they are compared. Seeds with which one of
        them was not trained are left out.
      diverged: the score of a member that diverged; NaN leaves its seed out of comparisons.

    Raises:
      InputError: the run has no such arm or metric.
    """
    for arm in arms:
      if arm not in self.experiment.arms:
        raise InputError(f"the run of {self.name} has no arm {arm!r}, which a claim needs")
    if metric not in self.members:
      raise InputError(f"the run of {self.name} has no metric {metric!r}, which a claim needs")
    members = self.members[self.members.arm.isin(arms)]
    skipped = members.seed[members.status == NOT_TRAINED]
    members = members[~members.seed.isin(skipped)]
    values = members[metric].where(members.status != "diverged", diverged)
    table = members.assign(value=values.astype(float)).pivot(
      index="seed", columns="arm", values="value"
    )
    return _scores(metric, table, arms, population.higher_is_better(metric, self.experiment.arms))

  def table_scores(
    self, table: str, index: str, columns: str, values: str, *arms: str, higher_is_better: bool
  ) -> stats.Scores:
    """Returns scores from one of the run's tables, with the column `index` in place of the seed."""
    if table not in self.tables:
      raise InputError(f"the run of {self.name} has no table {table!r}, which a claim needs")
    pivoted = self.tables[table].pivot(index=index, columns=columns, values=values)
    for arm in arms:
      if arm not in pivoted:
        raise InputError(f"table {table!r} of {self.name} has no {arm!r}, which a claim needs")
    return _scores(values, pivoted, arms, higher_is_better)


def _scores(metric: str, table: pd.DataFrame, arms, higher_is_better: bool) -> stats.Scores:
  return stats.Scores(
    metric=metric,
    values=table[list(arms)].to_numpy(float),
    seeds=tuple(int(seed) for seed in table.index),
    arms=tuple(arms),
    axes=stats.AXES,
    higher_is_better=higher_is_better,
  )


def initializers(run: Run) -> list[Claim]:
  """Claims about the weight initializer of the CNN that tells 3 from 7, at both thresholds."""
  names = ("random_normal", "glorot_uniform", "random_uniform")
  margin, evidence = 0.002, "Test accuracy 98.53, 98.18 and 98.53 %, one seed each."
  threshold = next(iter(run.experiment.arms.values())).threshold
  claims = []
  for metric, at in (("test_accuracy", threshold), ("test_accuracy_at_half", 0.5)):

    def pair(a, b, asserts, metric=metric):
      return Part(run.scores(metric, a, b), asserts, margin, **_POINTS)

    claims += [
      Claim(
        f"random normal is best, at {at:g}",
        "Random normal initialization is the best of the three initializers, by accuracy at a "
        f"threshold of {at:g}.",
        evidence,
        [pair(names[0], other, ledger.BETTER) for other in names[1:]],
      ),
      Claim(
        f"initializers are equal, at {at:g}",
        f"The three initializers perform nearly the same, by accuracy at a threshold of {at:g}.",
        evidence,
        [pair(a, b, ledger.EQUIVALENT) for a, b in itertools.combinations(names, 2)],
      ),
    ]
  limit = min(arm.num_epochs for arm in run.experiment.arms.values())
  half = [
    Part(
      ledger.against_number(run.scores("epochs", name), name, "half of the epochs", limit / 2),
      ledger.NOT_WORSE,
      margin=1.0,
      unit="epochs",
    )
    for name in names
  ]
  return [
    *claims,
    Claim(
      "early stopping halves the epochs (CNN)",
      "Early stopping halves the epochs that the CNN telling 3 from 7 trains.",
      _STATED,
      half,
    ),
  ]


def batch_sizes(run: Run) -> list[Claim]:
  """Claims about batch, stochastic and mini-batch gradient descent."""
  batch, stochastic, mini = "batch", "stochastic", "mini_batch"
  accuracy = "Test accuracy 71.95 (batch), 97.60 (stochastic), 97.72 % (mini-batch), one seed each."

  def better(a, b, margin):
    return Part(run.scores("test_accuracy", a, b), ledger.BETTER, margin, **_POINTS)

  def times(kind, a, b, asserts, relative_margin):
    rounds = run.tables["timings"]
    rounds = rounds[rounds.kind == kind]
    medians = rounds.groupby(["process", "arm"], as_index=False).seconds.median()
    scores = run._replace(tables={"medians": medians}).table_scores(
      "medians", "process", "arm", "seconds", a, b, higher_is_better=False
    )
    what = {"train_epoch": "time of an epoch", "inference": "time to classify the test set"}[kind]
    margin = relative_margin * float(np.median(scores.values))
    return Part(dataclasses.replace(scores, metric=what), asserts, margin, unit="s")

  return [
    Claim(
      "batch is less accurate",
      "Batch gradient descent is less accurate than stochastic and mini-batch descent after "
      "equally many epochs.",
      accuracy,
      [better(mini, batch, 0.005), better(stochastic, batch, 0.005)],
    ),
    Claim(
      "batch is less accurate at equal time",
      "Batch gradient descent is less accurate than mini-batch descent after equally long "
      "training.",
      "71.95 % after 6.09 s against 97.72 % after 47.7 s, one seed each.",
      [Part(_at_equal_time(run, mini, "batch_equal_time"), ledger.BETTER, 0.005, **_POINTS)],
    ),
    Claim(
      "mini-batch beats stochastic",
      "Mini-batch descent is more accurate than stochastic descent.",
      accuracy,
      [better(mini, stochastic, 0.002)],
    ),
    Claim(
      "stochastic takes longest",
      "Stochastic descent takes the longest time to train.",
      "6.09 s (batch), 1042.9 s (stochastic), 47.7 s (mini-batch), one run each.",
      # The time of one epoch; all three train the same number of epochs. Longer is worse.
      [times("train_epoch", other, stochastic, ledger.BETTER, 0.1) for other in (batch, mini)],
    ),
    Claim(
      "inference time depends on training",
      "The time that a network takes to classify depends on the batch size it was trained with.",
      "0.633 s (batch), 0.625 s (stochastic), 0.609 s (mini-batch) for the test set, one run each.",
      [
        times("inference", a, b, ledger.DIFFERENT, 0.05)
        for a, b in ((batch, stochastic), (batch, mini), (stochastic, mini))
      ],
      needs_all=False,
    ),
  ]


def _at_equal_time(run: Run, *arms: str) -> stats.Scores:
  """Returns the test accuracy of arms at the time when the first of them finishes its training.

  Each arm is tested after the last epoch that it completes by then. Times are of one run alone.
  """
  curves = run.tables["test_curves"]
  curves = curves[curves.arm.isin(arms)]
  end = curves.groupby("arm").seconds.max().min()
  done = curves[curves.seconds <= end].sort_values("epoch")
  last = done.groupby(["seed", "arm"], as_index=False).last()
  return run._replace(tables={"test_curves": last}).table_scores(
    "test_curves", "seed", "arm", "test_accuracy", *arms, higher_is_better=True
  )


def loss_functions(run: Run) -> list[Claim]:
  """Claims about the loss that a classifier is trained with."""
  first, *others = "categorical_cross_entropy", "mean_squared_error", "hinge", "softmax_hinge"
  return [
    Claim(
      "cross-entropy is best",
      "Cross-entropy gives a more accurate classifier than squared error and hinge.",
      "None: the notebook compiles all three losses, and only the last one takes effect.",
      [
        Part(run.scores("test_accuracy", first, other), ledger.BETTER, _POINT, **_POINTS)
        for other in others
      ],
    )
  ]


def optimizers(run: Run) -> list[Claim]:
  """Claims about optimizers and learning rates."""
  table = run.tables["best_rates"]
  best = {row.optimizer: f"{row.optimizer} {row.learning_rate:g}" for row in table.itertuples()}
  metric = population.EPOCHS_TO_TARGET
  rates = sorted({arm.learning_rate for arm in run.experiment.arms.values()})
  smallest, largest = f"{rates[0]:g}", f"{rates[-1]:g}"
  never = max(arm.num_epochs for arm in run.experiment.arms.values()) + 1
  extremes = []
  for name in ("sgd", "adam"):
    too_large, too_small = f"{name} {largest}", f"{name} {smallest}"
    epochs = run.scores(metric, too_large, diverged=never)
    extremes += [
      Part(
        ledger.against_number(epochs, too_large, "never", never),
        ledger.EQUIVALENT,
        0.5,
        unit="epochs",
      ),
      Part(run.scores(metric, best[name], too_small), ledger.BETTER, 0.5, unit="epochs"),
    ]
  return [
    Claim(
      "Adam converges faster",
      "Adam converges faster than plain gradient descent, each at its best learning rate.",
      _STATED,
      [Part(run.scores(metric, best["adam"], best["sgd"]), ledger.BETTER, 0.5, unit="epochs")],
    ),
    Claim(
      "extreme learning rates",
      "Too large a learning rate does not converge, and too small a one is slow.",
      _STATED,
      extremes,
    ),
  ]


def strategies(run: Run) -> list[Claim]:
  """Claims about what improves the accuracy of an MLP on CIFAR-10."""
  base = "base"

  def improves(arm, name, what, evidence=_STATED):
    part = Part(run.scores("test_accuracy", arm, base), ledger.BETTER, _POINT, **_POINTS)
    return Claim(name, f"{what} improves the accuracy on CIFAR-10.", evidence, [part])

  early = "early_stopping"
  half = run.experiment.arms[base].num_epochs / 2
  halved = ledger.against_number(run.scores("epochs", early), early, "half of the epochs", half)
  return [
    Claim(
      "early stopping is free (MLP)",
      "Early stopping halves the epochs that the MLP for CIFAR-10 trains, without a loss of "
      "accuracy.",
      _STATED,
      [
        Part(halved, ledger.NOT_WORSE, 1.0, unit="epochs"),
        Part(run.scores("test_accuracy", early, base), ledger.NOT_WORSE, _POINT, **_POINTS),
      ],
    ),
    improves("step_decay", "halving the rate", "Halving the learning rate every few epochs"),
    improves("augmentation", "augmentation", "Augmentation"),
    improves("dropout", "dropout", "Dropout"),
    improves("l2", "L2", "L2 regularization"),
    improves("cnn", "a CNN", "A convolutional network in place of the MLP"),
    *_ensembles(run, base, "wide"),
  ]


def _ensembles(run: Run, base: str, wide: str, size: int = 2) -> list[Claim]:
  """Claims about an ensemble of an arm's networks; a network of `wide` costs as much as all."""
  table = run.tables["ensembles"]
  table = table[(table.arm == base) & (table.k == size)]
  long = table.melt("group", ["accuracy", "mean_member_accuracy"], "what", "test_accuracy")
  long["what"] = long["what"].map({"accuracy": "ensemble", "mean_member_accuracy": "its members"})
  one = run.scores("test_accuracy", wide)
  groups = np.arange(len(one.seeds)) // size  # as many of them in a group as the ensemble has
  wide_means = pd.Series(one.values[:, 0]).groupby(groups).mean().rename("test_accuracy")
  long = pd.concat([long, wide_means.rename_axis("group").reset_index().assign(what=wide)])
  of_all = run._replace(tables={"ensembles": long})

  def better(than):
    scores = of_all.table_scores(
      "ensembles", "group", "what", "test_accuracy", "ensemble", than, higher_is_better=True
    )
    return [Part(scores, ledger.BETTER, _POINT, **_POINTS)]

  return [
    Claim(
      "an ensemble",
      f"An ensemble of {size} networks improves the accuracy on CIFAR-10.",
      _STATED,
      better("its members"),
    ),
    Claim(
      "an ensemble against one network",
      f"An ensemble of {size} networks is more accurate than one network with as many parameters "
      "as all of them together.",
      _STATED,
      better(wide),
    ),
  ]


def gradient_flow(run: Run) -> list[Claim]:
  """Claims about gradients and initial weights in deep networks."""
  ratio = "log10_gradient_ratio"
  table = run.tables["vanishing"]
  depth = int(table.depth.max())
  scale, small, large = _initial_scales(run)
  never = max(arm.num_epochs for arm in run.experiment.arms.values()) + 1

  def cell(activation, initializer):
    return f"{activation}/{initializer}/depth {depth}"

  def ratios(*arms):
    return run.table_scores("vanishing", "seed", "arm", ratio, *arms, higher_is_better=True)

  relu, sigmoid = cell("relu", scale), cell("sigmoid", scale)
  # A tenth of the last layer's gradient still reaches the first; a hundredth has vanished.
  kept = ledger.against_number(ratios(relu), relu, "a tenth", -1.0)
  lost = ledger.against_number(ratios(sigmoid), sigmoid, "a hundredth", -2.0)
  lost = dataclasses.replace(lost, higher_is_better=False)
  decades = {"margin": 0.1, "unit": "powers of ten"}
  speed = [
    Part(
      run.scores(
        population.EPOCHS_TO_TARGET, cell("relu", scale), cell("relu", other), diverged=never
      ),
      ledger.BETTER,
      1.0,
      unit="epochs",
    )
    for other in (small, large)
  ]
  return [
    Claim(
      "ReLU against vanishing gradients",
      f"ReLU avoids vanishing gradients where sigmoid does not ({depth} hidden layers).",
      _STATED,
      [
        Part(ratios(relu, sigmoid), ledger.BETTER, **decades),
        Part(kept, ledger.NOT_WORSE, **decades),
        Part(lost, ledger.NOT_WORSE, **decades),
      ],
    ),
    Claim(
      "the right initial scale",
      f"Initial weights of the right scale ({scale}) speed up convergence against too small "
      f"({small}) and too large ({large}) ones.",
      _STATED,
      speed,
    ),
  ]


def _initial_scales(run: Run) -> tuple[str, str, str]:
  """Returns the initializers with the right, a too small and a too large scale: multiples of He."""
  table = run.tables["vanishing"]
  parsed = {name: initializers_lib.parse(name, min_ndim=2) for name in set(table.initializer)}
  multiples = {
    numbers["value"]: name for name, (kind, numbers) in parsed.items() if kind == "he_normal"
  }
  if 1.0 not in multiples or not min(multiples) < 1 < max(multiples):
    raise InputError(
      f"a claim needs he_normal in the run of {run.name}, also with a smaller and a larger factor"
    )
  return multiples[1.0], multiples[min(multiples)], multiples[max(multiples)]


# Experiment -> its claims.
CLAIMS = {
  "compare_initializers": initializers,
  "compare_batch_sizes": batch_sizes,
  "compare_losses": loss_functions,
  "compare_optimizers": optimizers,
  "compare_strategies": strategies,
  "gradient_flow": gradient_flow,
}
