"""Which training strategy improves on a plain base: early stopping, schedules, regularization?

  jaxdl run compare_strategies --workdir=DIR

trains a base network, and the same network with one change at a time; every change is compared with
the base. The members of each arm are also averaged into ensembles, which are compared with their
own members. The config's docstring lists the variants.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from jaxdl import report, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.population.results import Population
from jaxdl.stats import ensembles

from . import command_line, from_config

if TYPE_CHECKING:
  import pandas as pd

BASE = "base"
# Margin for ensembles if the experiment has none for test accuracy.
_ENSEMBLE_MARGIN = 0.005
_SETTINGS = tuple(field.name for field in dataclasses.fields(Arm))


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: the base, and an arm for each strategy in `config.strategies`.

  `config.changes` maps each strategy to the settings of `jaxdl.arm.Arm` that it changes in the
  base.

  Raises:
    InputError: a key, strategy or setting is unknown, or a value is out of range.
  """
  names = from_config.read_names(config, "strategies", "strategy")
  if "changes" not in config:
    raise InputError("the config has no key 'changes'")
  changes = {BASE: {}, **config.changes.to_dict()}
  arms = {BASE: from_config.create_arm(config)}  # what the others are compared with
  for name in names:
    if name not in changes:
      raise unknown_name("strategy", name, changes)
    for setting in changes[name]:
      if setting not in _SETTINGS:
        raise unknown_name(f"setting of strategy {name!r},", setting, _SETTINGS)
    arms[name] = from_config.create_arm(config, **changes[name])
  question = f"Does any training strategy change the result for {config.get('dataset', 'mnist')}?"
  return from_config.create_experiment(config, question, arms, ("strategies", "changes"))


def analyze(experiment: Experiment, _: Dataset, population: Population) -> report.Extra:
  """Returns a section on the strategies, and sections and tables on the ensembles of every arm."""
  from jaxdl.report import line_plots

  of_arms = {name: _ensembles(population, name) for name in population.arms}
  pictures = [
    (
      "ensemble_accuracy",
      "Test accuracy of disjoint ensembles against the number of networks that they average.",
      line_plots.ensemble_accuracy(
        {
          name: (
            [ensemble.size for ensemble in of_arm],
            [ensemble.accuracy for ensemble in of_arm],
          )
          for name, of_arm in of_arms.items()
        }
      ),
    )
  ]
  return report.Extra(
    [_strategies_section(population), _ensembles_section(experiment, of_arms)],
    pictures,
    {"ensembles": _ensembles_table(of_arms)},
  )


def _ensembles(population: Population, arm: str) -> list[ensembles.Ensembles]:
  """Returns the ensembles of 1, 2, 4, ... of an arm's members that did not diverge."""
  valid = population.select([arm]).has_result[:, 0]
  logits = population.logits[arm][valid]  # [S, N, C]
  threshold = population.arms[arm].threshold
  return [
    ensembles.disjoint_ensembles(logits, population.test_targets, size, threshold)
    for size in ensembles.power_of_two_sizes(len(logits))
  ]


def _strategies_section(population: Population) -> str:
  """Returns the section on what each strategy changes, and what it costs."""
  rows = [["arm", "changes", "parameters", "program shared with", "training, s per seed"]]
  base = population.arms[BASE]
  for place, (name, arm) in enumerate(population.arms.items()):
    changes = [
      f"{field}={getattr(arm, field)}"
      for field in _SETTINGS
      if getattr(arm, field) != getattr(base, field)
    ]
    (plan,) = (plan for plan in population.chunks if name in plan.arms)
    rows.append(
      [
        name,
        ", ".join(changes) or "-",
        f"{population.num_params[0, place]:,}",
        f"{len(plan.arms) - 1} others",
        f"{np.nanmean(population.train_seconds[:, place]):.1f}",
      ]
    )
  return (
    "## Strategies\n\n" + report.markdown_table(rows) + "\n\n"
    "Arms of one program train side by side until the last of them has stopped, and share its "
    "time. Test losses are computed with each arm's own loss, so those with label smoothing are "
    "not comparable."
  )


def _ensembles_section(
  experiment: Experiment, of_arms: dict[str, list[ensembles.Ensembles]]
) -> str:
  margin = experiment.margins.get("test_accuracy", _ENSEMBLE_MARGIN)
  settings = (margin, experiment.alpha, experiment.num_resamples, experiment.seed)
  rows = [["arm", "k", "groups", "ensembles", "members", "difference, points", "p", "verdict"]]
  for name, of_arm in of_arms.items():
    for ensemble in of_arm:
      verdict = ensembles.compare(ensemble, name, *settings)
      if verdict is not None:
        rows.append([name, *_ensemble_cells(ensemble, verdict)])
  return (
    "## Ensembles\n\n"
    + (report.markdown_table(rows) if len(rows) > 1 else "No arm has two members.")
    + "\n\nAn ensemble averages the probabilities of k members. The members of an arm are split "
    "into disjoint groups of k. Each group gives one pair: the accuracy of the ensemble and the "
    "mean accuracy of its members. The table has the 95% interval of the difference over groups. "
    f"Verdicts are on the ensemble, with a margin of {100 * margin:g} points; p is from the "
    "sign-flip permutation test and is not corrected for the number of arms and sizes. Members "
    "that diverged are left out. All ensembles are in `tables/ensembles.csv`."
  )


def _ensemble_cells(ensemble: ensembles.Ensembles, verdict: stats.Verdict) -> list[str]:
  interval = ""
  if math.isfinite(verdict.ci_low):
    interval = f" [{100 * verdict.ci_low:+.2f}, {100 * verdict.ci_high:+.2f}]"
  return [
    str(ensemble.size),
    str(verdict.num_pairs),
    f"{100 * ensemble.accuracy.mean():.2f}%",
    f"{100 * ensemble.mean_member_accuracy.mean():.2f}%",
    f"{100 * verdict.mean_difference:+.2f}{interval}",
    report.number(verdict.p_value, ".3g"),
    # Here the replications are groups.
    verdict.verdict.replace("seeds", "groups"),
  ]


def _ensembles_table(of_arms: dict[str, list[ensembles.Ensembles]]) -> "pd.DataFrame":
  """Returns a row per arm, size and group."""
  import pandas as pd

  rows = [
    (name, ensemble.size, group, accuracy, of_members)
    for name, of_arm in of_arms.items()
    for ensemble in of_arm
    for group, (accuracy, of_members) in enumerate(
      zip(ensemble.accuracy, ensemble.mean_member_accuracy, strict=True)
    )
  ]
  return pd.DataFrame(rows, columns=["arm", "k", "group", "accuracy", "mean_member_accuracy"])


SCRIPT = command_line.Script(create_experiment, analyze, keep_logits=True)


if __name__ == "__main__":
  command_line.run(SCRIPT)
