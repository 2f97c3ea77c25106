"""Which values of its settings suit each arm? Every arm gets the same number of trials.

  jaxdl tune FILE[:VARIANT] --workdir=DIR

takes a config of `compare` with a key `tune`: arm -> setting -> values to try. Each combination of
an arm's values is a trial with `tune_seeds` seeds (4 by default), whose random numbers differ from
those of the comparison. Of the trials in which the fewest seeds diverged, the one with the best
mean of the metric `tune_on` (`val_accuracy` by default) is chosen. The command prints the flags
that pass the chosen values to `compare`. It leaves out arms that `tune` does not name.
"""

import itertools
import json
import shlex
from typing import Any

from ml_collections import ConfigDict

from jaxdl import report, stats
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, one_line, show, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.population.results import EPOCHS_TO_TARGET, Population
from jaxdl.stats import sweeps

from . import command_line, from_config, own_question

# Seeds of each trial; their random numbers differ from those of the comparison.
_SEEDS = 4
# Besides those of the validation set, which begin with val_.
_OF_TRAINING = ("train_loss", "epochs", EPOCHS_TO_TARGET)


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns an experiment with an arm for every trial of every arm.

  Raises:
    InputError: a key is missing or unknown, a value is out of range, or arms have different numbers
      of trials.
  """
  own_question.check_parts(config)
  arms = {
    trial: own_question.create_arm(config, name, **values)
    for name, of in trials(config).items()
    for trial, values in of.items()
  }
  metric, margins = chosen_on(config), config.get("margins")
  num_seeds, seed = config.get("tune_seeds", _SEEDS), config.get("seed", 0)
  check_integer("tune_seeds", num_seeds, 1)
  check_integer("seed", seed, 0, 2**32 - 2)
  margin = margins.get(metric, 0.01) if isinstance(margins, ConfigDict) else 0.01
  own = {"num_seeds": num_seeds, "seed": seed + 1, "reference": "", "margins": {metric: margin}}
  ours = ConfigDict({**config, **own})
  question = f"Which settings suit each arm? ({config.question})"
  return from_config.create_experiment(ours, question, arms, own_question.OWN_KEYS)


def chosen_on(config: ConfigDict) -> str:
  """Returns the metric that decides, one of the validation set or of training."""
  metric = config.get("tune_on", "val_accuracy")
  if not str(metric).startswith("val_") and metric not in _OF_TRAINING:
    raise InputError(
      f"tune_on must be val_NAME, a metric of the validation set, or one of "
      f"{', '.join(_OF_TRAINING)}, not {show(metric)}"
    )
  return metric


def trials(config: ConfigDict) -> dict[str, dict[str, dict[str, Any]]]:
  """Returns arm -> name of the trial -> setting -> value."""
  if not isinstance(config.get("tune"), ConfigDict) or not config.tune:
    raise InputError("the config has no key 'tune': arm -> setting -> values to try")
  for name in config.tune:
    if name not in config.arms:
      raise unknown_name("arm in tune", name, config.arms)
  found = {}
  for name in config.tune:
    own_question.check_keys(f"tune.{name}", config.tune[name])
    grid = {key: _values(f"tune.{name}.{key}", of) for key, of in config.tune[name].items()}
    found[name] = {
      " ".join([name, *(f"{key}={value}" for key, value in zip(grid, chosen, strict=True))]): dict(
        zip(grid, chosen, strict=True)
      )
      for chosen in itertools.product(*grid.values())
    }
  counts = {name: len(of) for name, of in found.items()}
  if len(set(counts.values())) > 1:
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    raise InputError(f"arms have different numbers of trials, which favours some: {listed}")
  return found


def _values(name: str, values: Any) -> tuple[Any, ...]:
  values = values if isinstance(values, tuple | list) else (values,)
  if len(set(map(str, values))) < len(values) or not values:  # which the names of trials have
    raise InputError(f"{name} must be different values, not {show(values)}")
  return tuple(values)


def choose(config: ConfigDict, population: Population) -> dict[str, sweeps.BestArm]:
  """Returns arm -> its best trial.

  Raises:
    InputError: an arm diverged at all of its trials.
  """
  scores = population.scores(chosen_on(config))
  best = {}
  for name, changes in trials(config).items():
    found = sweeps.best_arm(scores, list(changes), seed=config.get("seed", 0))
    if found is None:
      raise InputError(f"arm {name!r} diverged at all of its trials")
    best[name] = found
  return best


def tune(config: ConfigDict):
  """Trains all trials, reports them and prints the values that are chosen.

  Raises:
    InputError: several hosts are to train, or a setting is wrong.
  """
  if command_line.EXECUTOR.value == "multihost":
    raise InputError("tune is not for --executor=multihost; dask and array use several machines")

  def analyze(_: Experiment, __: Dataset, population: Population) -> report.Extra:
    return report.Extra([section(config, population)], answer=answer(config, population))

  script = command_line.Script(create_experiment, analyze)
  result = command_line.train(script, create_experiment(config))
  print(report.text_table(rows(config, result.population)))
  print(f"\n{flags(config, choose(config, result.population))}")
  print(f"\nReport: {one_line(result.workdir / 'report.html')}")
  command_line.end(result.population)


def answer(config: ConfigDict, population: Population) -> str:
  """Returns the chosen trials as a sentence."""
  chosen = "; ".join(best.arm for best in choose(config, population).values())
  return f"With the best mean {chosen_on(config)}: {chosen}."


def section(config: ConfigDict, population: Population) -> str:
  """Returns the chosen values as a section of the report."""
  return (
    f"## Chosen values\n\n{report.markdown_table(rows(config, population))}\n\n"
    f"Chosen is the best mean {chosen_on(config)} over {len(population.seeds)} seeds, among the "
    "trials at which the fewest seeds diverged. The share is from a bootstrap of this choice over "
    "seeds. If the best value is at an end of those that were tried, a better one may lie beyond."
  )


def rows(config: ConfigDict, population: Population) -> list[list[str]]:
  """Returns a table of the chosen values, a row per arm."""
  metric = chosen_on(config)
  means = {s.arm: s.mean for s in stats.summarize(population.scores(metric))}
  table = [["arm", "best of its trials", f"mean {metric}", "chosen in"]]
  for name, found in choose(config, population).items():
    is_line = len(config.tune[name]) == 1 and len(found.shares) > 2
    end = " (at an end)" if is_line and found.at_end else ""
    share = f"{100 * found.shares[found.arm]:.0f}% of resamples"
    table.append([name, found.arm.removeprefix(name + " ") + end, f"{means[found.arm]:.4g}", share])
  return table


def flags(config: ConfigDict, best: dict[str, sweeps.BestArm]) -> str:
  """Returns the flags that give `compare` the chosen values, as a shell takes them."""
  return shlex.join(
    f"--config.arms{f'.{name}' if name.isidentifier() else f'[{json.dumps(name)}]'}.{key}={value}"
    for name, changes in trials(config).items()
    for key, value in changes[best[name].arm].items()
  )


_SCRIPT = command_line.Script(create_experiment, arm_keys_below=("base", "arms"))

if __name__ == "__main__":
  command_line.main(tune, script=_SCRIPT)
