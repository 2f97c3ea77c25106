"""Does the optimizer matter, and how does each depend on its learning rate?

  jaxdl run compare_optimizers --workdir=DIR

trains the same network with several optimizers, each with learning rates from far too small to far
too large. Each optimizer's best rate is chosen on the validation set: it has the best mean accuracy
over seeds, among the rates at which the fewest seeds diverged. The optimizers are then compared at
their best rates, by test accuracy and by the number of epochs to a target training loss. The
config's docstring lists the variants.
"""

import math
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from jaxdl import report, stats
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population.results import EPOCHS_TO_TARGET, Population
from jaxdl.stats import sweeps

from . import command_line, from_config

if TYPE_CHECKING:
  import pandas as pd

_CHOSEN_ON = "val_accuracy"


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm `OPTIMIZER RATE` for every optimizer and learning rate.

  Raises:
    InputError: a key or optimizer is unknown, or a value is out of range.
  """
  optimizers = from_config.read_names(config, "optimizers", "optimizer")
  rates = _read_rates(config)
  if config.get("reference"):
    raise InputError("every pair of optimizers is compared: leave reference empty")
  if not config.get("validation_fraction", 0.2) > 0:
    raise InputError("the best learning rates are chosen on a validation set: keep some for it")
  arms = {
    f"{optimizer} {rate:g}": from_config.create_arm(config, optimizer=optimizer, learning_rate=rate)
    for optimizer in optimizers
    for rate in rates
  }
  question = (
    f"Does the optimizer matter for {config.get('dataset', 'mnist')}, each at its best of "
    f"{len(rates)} learning rates?"
  )
  return from_config.create_experiment(config, question, arms, ("optimizers", "learning_rates"))


def _read_rates(config: ConfigDict) -> list[float]:
  """Returns the learning rates in ascending order."""
  rates = []
  for written in from_config.read_names(config, "learning_rates", "learning rate"):
    try:
      rates.append(float(written))
    except ValueError:
      raise InputError(f"a learning rate must be a number, not {written!r}") from None
  names = [f"{rate:g}" for rate in rates]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"learning rate {name} is named twice")
  return sorted(rates)


def choose(experiment: Experiment, population: Population) -> Population:
  """Returns the part of the population that has each optimizer at its best learning rate."""
  return population.select([best.arm for best in _best_arms(experiment, population).values()])


def _families(experiment: Experiment) -> dict[str, list[str]]:
  """Returns optimizer -> its arms, in the order of their learning rates."""
  families = {}
  for name, arm in experiment.arms.items():
    families.setdefault(arm.optimizer, []).append(name)
  return families


def _best_arms(experiment: Experiment, population: Population) -> dict[str, sweeps.BestArm]:
  """Returns optimizer -> its best arm; the smallest rate if it diverged at every rate."""
  scores = population.scores(_CHOSEN_ON)
  best = {}
  for optimizer, arms in _families(experiment).items():
    nothing = sweeps.BestArm(arms[0], None, None, dict.fromkeys(arms, math.nan), True)
    best[optimizer] = sweeps.best_arm(scores, arms, seed=experiment.seed) or nothing
  return best


def analyze(experiment: Experiment, _: Dataset, population: Population) -> report.Extra:
  """Returns tables and pictures of all learning rates."""
  best = _best_arms(experiment, population)
  return report.Extra(
    [_best_rates_section(experiment, population, best)],
    _pictures(experiment, population, best),
    {
      "best_rates": _best_rates_table(experiment, population, best),
      "rates": _rates_table(experiment, population),
    },
  )


def _best_rates_section(
  experiment: Experiment, population: Population, best: dict[str, sweeps.BestArm]
) -> str:
  rows = [["optimizer", "best learning rate [95% interval]", "chosen in", "diverged, all rates"]]
  for optimizer, arms in _families(experiment).items():
    found = best[optimizer]
    status = population.select(arms).status
    rate, low, high = (_rate_text(experiment, arm) for arm in (found.arm, found.low, found.high))
    share = found.shares[found.arm]
    diverged = int((status == "diverged").sum())
    if diverged == status.size:
      rate, interval = "none", ""
    else:
      interval = f" [{low}, {high}]" if found.low else ""
    end = " (at the end of the grid)" if found.at_end and rate != "none" and len(arms) > 1 else ""
    chosen = f"{100 * share:.0f}% of resamples" if math.isfinite(share) else "-"
    rows.append([optimizer, f"{rate}{interval}{end}", chosen, f"{diverged} of {status.size}"])
  return (
    "## Best learning rates\n\n" + report.markdown_table(rows) + "\n\n"
    "Rates are chosen by validation accuracy: the best mean over seeds, among the rates at which "
    "the fewest seeds diverged. Interval and share are from a bootstrap of this choice over seeds. "
    "The verdicts and tables above compare the optimizers at these rates, on the test set; all "
    "rates are in `tables/rates.csv` and `members.csv`. If the best rate is at the end of the "
    "grid, a better one may lie beyond it."
  )


def _rate_text(experiment: Experiment, arm: str | None) -> str:
  return "" if arm is None else f"{experiment.arms[arm].learning_rate:g}"


def _pictures(experiment: Experiment, population: Population, best: dict[str, sweeps.BestArm]):
  from jaxdl.report import curve_plots, line_plots

  pictures = [
    (
      "rates_test_accuracy",
      "Test accuracy after the last epoch against the learning rate. The ring is the best mean on "
      "the test set; the rates that are compared are chosen on the validation set.",
      line_plots.metric_against(
        _lines(experiment, population, "test_accuracy"),
        x_label="learning rate",
        y_label="test accuracy (%)",
      ),
    )
  ]
  if EPOCHS_TO_TARGET in population.metrics:
    pictures.append(
      (
        "rates_epochs_to_target",
        f"Epochs until the training loss is at most {experiment.target_loss:g}, interpolated; one "
        "more than were trained if it never is.",
        line_plots.metric_against(
          _lines(experiment, population, EPOCHS_TO_TARGET),
          x_label="learning rate",
          y_label=f"epochs to a training loss of {experiment.target_loss:g}",
          percent=False,
          higher_is_better=False,
        ),
      )
    )
  for optimizer, arms in _families(experiment).items():
    shown = list(dict.fromkeys([arms[0], best[optimizer].arm, arms[-1]]))
    pictures.append(
      (
        f"learning_curves_{optimizer}",
        f"Learning curves of {optimizer}: smallest, best and largest learning rate.",
        curve_plots.learning_curves(population.select(shown)),
      )
    )
  return pictures


def _lines(experiment: Experiment, population: Population, metric: str):
  """Returns optimizer -> (learning rates `[n]`, the metric `[n, S]`)."""
  scores = population.scores(metric)
  return {
    optimizer: (
      [experiment.arms[arm].learning_rate for arm in arms],
      scores.values[:, [scores.arms.index(arm) for arm in arms]].T,
    )
    for optimizer, arms in _families(experiment).items()
  }


def _best_rates_table(
  experiment: Experiment, population: Population, best: dict[str, sweeps.BestArm]
) -> "pd.DataFrame":
  """Returns a row per optimizer: its best rate, how certain that is, and the results at it."""
  import pandas as pd

  rates = _rates_table(experiment, population).set_index("arm")
  rows = [
    {
      "optimizer": optimizer,
      "learning_rate": experiment.arms[found.arm].learning_rate,
      "ci_low_rate": experiment.arms[found.low].learning_rate if found.low else None,
      "ci_high_rate": experiment.arms[found.high].learning_rate if found.high else None,
      "share_of_resamples": found.shares[found.arm],
      "at_end_of_grid": found.at_end,
      **rates.loc[found.arm].drop(["optimizer", "learning_rate"]),
    }
    for optimizer, found in best.items()
  ]
  return pd.DataFrame(rows)


def _rates_table(experiment: Experiment, population: Population) -> "pd.DataFrame":
  """Returns a row per arm: n, diverged seeds, means over seeds and their 95% intervals."""
  import pandas as pd

  metrics = ["test_accuracy", _CHOSEN_ON]
  metrics += [EPOCHS_TO_TARGET] if EPOCHS_TO_TARGET in population.metrics else []
  limits = {EPOCHS_TO_TARGET: (0, math.inf)}
  summaries = {
    metric: stats.summarize(population.scores(metric), limits=limits.get(metric, (0, 1)))
    for metric in metrics
  }
  rows = []
  for place, (name, arm) in enumerate(experiment.arms.items()):
    first = summaries["test_accuracy"][place]
    row = {
      "arm": name,
      "optimizer": arm.optimizer,
      "learning_rate": arm.learning_rate,
      "n": first.n,
      "diverged": first.num_diverged,
    }
    for metric in metrics:
      summary = summaries[metric][place]
      row |= {
        f"mean_{metric}": summary.mean,
        f"{metric}_ci_low": summary.ci_low,
        f"{metric}_ci_high": summary.ci_high,
      }
    rows.append(row)
  return pd.DataFrame(rows)


SCRIPT = command_line.Script(create_experiment, analyze, choose)


if __name__ == "__main__":
  command_line.run(SCRIPT)
