"""The textbook's list: settings can be trained and tuned, claims can come out either way."""

import dataclasses
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from experiments import claims_page, claims_runs, command_line, own_question, textbook_claims, tune
from experiments.coursework_claims import Run
from jaxdl import report
from jaxdl.errors import InputError
from jaxdl.population.results import EPOCHS_TO_TARGET, RATES, higher_is_better
from jaxdl.stats import ledger, sweeps
from ml_collections_configs import claims as claims_configs
from ml_collections_configs import textbook

_SEEDS = 16
_CLAIMS = [(name, c) for name, setting in textbook.SETTINGS.items() for c in setting.claims]
_PARTS = [
  (name, c.name, i)
  for name, c in _CLAIMS
  for i, part in enumerate(c.parts)
  if not part[0].startswith("spread of ")
]


def _run(name, means, num_seeds=_SEEDS):
  """Makes up a finished run; `means` is (arm, metric) -> mean over seeds."""
  experiment = own_question.create_experiment(textbook.get_config(name))
  noise = np.linspace(-1, 1, num_seeds)
  rows = []
  for place, arm in enumerate(experiment.arms):
    columns = {
      metric: means.get((arm, metric), 0.5) + 1e-4 * np.roll(noise, place)
      for metric in textbook.SETTINGS[name].margins
    }
    rows.append(
      pd.DataFrame({"seed": range(num_seeds), "arm": arm, "status": "finished", **columns})
    )
  return Run(name, experiment, pd.concat(rows), {})


def _runs(changed=None, means=None):
  return {name: _run(name, means if name == changed else {}) for name in textbook.SETTINGS}


def _judge(name, runs, claim):
  """Returns the outcome of a claim; the runs have ended at a look."""
  made = textbook_claims.claims(textbook.SETTINGS[name], name, runs)
  (found,) = [c for c in made if c.name == claim]
  return ledger.judge(found, budget=64)


def test_the_published_ledger_is_of_this_list():
  """With the same claims, margins, arms and chosen values; else the runs have to be repeated."""
  text = (ROOT / "docs" / "CLAIMS.md").read_text()
  for name, setting in textbook.SETTINGS.items():
    _, run = text.split(f"\n**{name}**: ")
    experiment = own_question.create_experiment(textbook.get_config(name))
    assert (
      claims_page.arms_text(experiment, setting)
      == run.partition("\n\n```sh")[0].split("\n\n", 1)[1]
    )
  for _, claimed in _CLAIMS:
    _, evidence = text.split(f"\n### {report.escape(claimed.sentence)}\n")
    for metric, arm, _, other, margin in claimed.parts:
      row = next(line for line in evidence.splitlines() if line.startswith(f"| {metric} | {arm} |"))
      assert f"| {other} |" in row
      shown = 100 * margin if metric.removeprefix("spread of ") in RATES else margin
      assert re.search(rf" {shown:g}( \w+)? \|", row)


@pytest.mark.parametrize("name", textbook.SETTINGS)
def test_settings_can_be_trained_and_tuned(name):
  config = textbook.get_config(name)
  experiment = own_question.create_experiment(config)
  if textbook.SETTINGS[name].until_decided:
    assert dataclasses.replace(experiment, until_decided=True).looks[-1] == 64
  if "tune" in config:
    trials = tune.create_experiment(config)
    assert trials.seed != experiment.seed
    chosen = {arm: set(of.values()) for arm, of in _values(config).items()}
    for arm, values in chosen.items():  # what was chosen is one of the trials
      assert experiment.arms[arm] in values


def _values(config):
  return {
    arm: {trial: own_question.create_arm(config, arm, **values) for trial, values in of.items()}
    for arm, of in tune.trials(config).items()
  }


@pytest.mark.parametrize(("name", "claim", "place"), _PARTS)
def test_every_part_decides(name, claim, place):
  """All parts but one hold clearly; that one decides."""
  (claimed,) = [c for c in textbook.SETTINGS[name].claims if c.name == claim]
  verdicts = {}
  for right in (True, False):
    means = {}
    for i, (metric, arm, asserts, other, _) in enumerate(claimed.parts):
      sign = 1 if higher_is_better(metric, _run(name, {}).experiment.arms) else -1
      holds = right or i != place
      if asserts == ledger.EQUIVALENT:
        means[arm, metric] = other if holds else other + 0.1
      else:
        step = 5 if metric == EPOCHS_TO_TARGET else 0.1
        means[arm, metric] = means.get((other, metric), 0.5) + (sign if holds else -sign) * step
    outcome = _judge(name, _runs(name, means), claim)
    verdicts[right] = outcome.verdict, outcome.findings[place].meaning
  assert verdicts == {True: ("holds", "holds"), False: ("does not hold", "does not hold")}


def test_the_spread_of_an_arm_is_about_its_median():
  runs = _runs()
  members = runs["sources_of_chance"].members.reset_index(drop=True)
  wide = members.arm == "order_varies"
  members.loc[wide, "test_accuracy"] = 0.7 + 100 * (members.test_accuracy - 0.5)
  runs["sources_of_chance"] = runs["sources_of_chance"]._replace(members=members)
  (claim,) = textbook_claims.claims(
    textbook.SETTINGS["sources_of_chance"], "sources_of_chance", runs
  )
  outcome = ledger.judge(claim)
  assert outcome.verdict == "holds"
  noise = np.linspace(-1, 1, _SEEDS)
  expected = (0.01 - 0.0001) * np.abs(noise).mean()
  assert outcome.findings[0].difference == pytest.approx(expected)


def test_claims_have_names_of_their_own():
  names = [claim.name for _, claim in _CLAIMS]
  assert len(set(names)) == len(names)


def test_seeds_without_one_of_the_arms_do_not_count():
  """An arm that was decided at 8 seeds was not trained with the others."""
  runs = _runs("schedules", {("step", "test_accuracy"): 0.6})
  members = runs["schedules"].members
  ended = (members.arm == "step") & (members.seed >= 8)
  members.loc[ended, "status"] = "not_trained"
  members.loc[ended, "test_accuracy"] = np.nan
  outcome = _judge("schedules", runs, "a falling rate")
  assert outcome.verdict == "holds"
  assert outcome.findings[0].num_pairs == 8
  other = _judge("schedules", runs, "one cycle")
  assert other.findings[0].num_pairs == _SEEDS


def test_an_arm_of_another_setting_is_paired_by_seed():
  runs = _runs("augmentation", {("augmented", "test_accuracy"): 0.6})
  runs["augmentation"] = _run("augmentation", {("augmented", "test_accuracy"): 0.6}, num_seeds=24)
  outcome = _judge("twice_the_data", runs, "more data against augmentation")
  (finding,) = outcome.findings
  assert finding.num_pairs == _SEEDS
  assert outcome.verdict == "does not hold"
  assert finding.difference == pytest.approx(-0.1, abs=1e-3)
  config = claims_configs.get_config()
  config.textbook = "twice_the_data"
  with pytest.raises(InputError, match="needs the setting 'augmentation' as well"):
    claims_runs.read_settings(config)


def test_a_run_that_diverged_counts_as_chance_or_never():
  runs = _runs("momentum", {("plain", EPOCHS_TO_TARGET): 3})
  members = runs["momentum"].members
  diverged = (members.arm == "momentum") & (members.seed < 2)
  members.loc[diverged, ["status", EPOCHS_TO_TARGET]] = ["diverged", np.nan]
  scores = textbook_claims._scores(
    textbook.SETTINGS["momentum"], runs["momentum"], EPOCHS_TO_TARGET, "momentum", "plain"
  )
  assert list(scores.values[:3, 0].round()) == [21, 21, 0]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"tune": {"sgdd": {"learning_rate": (0.1,)}}}, "unknown arm in tune 'sgdd'"),
    ({"tune": {"adam": {"learning_rate": (0.1, 0.1)}}}, "must be different values"),
    ({"tune": {"adam": {"learning_rte": (0.1,)}}}, "unknown setting in tune.adam 'learning_rte'"),
    (
      {"tune": {"adam": {"learning_rate": (0.1, 0.2)}, "sgd": {"learning_rate": (0.1,)}}},
      "arms have different numbers of trials, which favours some: adam 2, sgd 1",
    ),
    ({"tune": {"adam": {"learning_rate": ([0.1], [0.2])}}}, "learning_rate must be"),
    ({"tune": {"adam": {"learning_rate": (0.1, "0.1")}}}, "must be different values"),
    ({"tune_on": "test_accuracy"}, "tune_on must be val_NAME, a metric of the validation set"),
    ({"tune_on": "f1"}, "tune_on must be val_NAME"),
    ({"tune_on": 3}, "tune_on must be val_NAME"),
    ({"tune_seeds": "4"}, "tune_seeds must be an integer >= 1, not '4'"),
    ({"seed": "x"}, "seed must be an integer"),
    ({"arms": "adam"}, "'arms' must be a dict"),
  ],
)
def test_mistakes_in_what_is_tuned(changes, message):
  config = ConfigDict({**_TUNED, **changes})
  with pytest.raises(InputError, match=message):
    tune.create_experiment(config)


def test_a_config_without_trials_is_refused():
  config = ConfigDict(_TUNED)
  del config["tune"]
  with pytest.raises(InputError, match="no key 'tune'"):
    tune.create_experiment(config)


_TUNED = {
  "question": "Which one?",
  "dataset": "jaxdl.data.sklearn_tables:wine()",
  "base": {
    "model": "mlp(8)",
    "loss": "categorical_cross_entropy",
    "batch_size": 32,
    "num_epochs": 4,
    "patience": -1,
  },
  "arms": {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam"}},
  "margins": {"test_accuracy": 0.02},
  "tune": {"sgd": {"learning_rate": (1e-5, 0.3)}, "adam": {"learning_rate": (0.01, 1e-6)}},
  "tune_seeds": 2,
}


def test_trials_have_the_exact_values_and_a_config_needs_no_margins():
  rates = (0.12345671, 0.12345672)
  config = ConfigDict({**_TUNED, "tune": {"adam": {"learning_rate": rates, "patience": (-1, 3)}}})
  del config.margins
  arms = tune.create_experiment(config).arms.values()
  found = [(arm.learning_rate, arm.patience) for arm in arms]
  assert found == [(rate, patience) for rate in rates for patience in (None, 3)]


def test_flags_survive_a_shell_and_name_any_arm():
  """As `_ConfigParser` reads them: text after `--config.`, split at dots and brackets."""
  config = ConfigDict(
    {**_TUNED, "arms": {"a/b c": {}}, "tune": {"a/b c": {"model": ("mlp(8, 8)",)}}}
  )
  ((name, changes),) = tune.trials(config).items()
  best = {name: sweeps.BestArm(next(iter(changes)), None, None, {}, False)}
  (flag,) = shlex.split(tune.flags(config, best))
  path, _, value = flag.removeprefix("--config.").partition("=")
  assert (*config_path.split(path), value) == ("arms", "a/b c", "model", "mlp(8, 8)")


def test_several_hosts_are_refused(monkeypatch):
  """Each would train alone."""
  monkeypatch.setattr(command_line, "EXECUTOR", SimpleNamespace(value="multihost"))
  monkeypatch.setattr(command_line, "train", lambda *_: pytest.fail("it trains"))
  with pytest.raises(InputError, match="not for --executor=multihost"):
    tune.tune(ConfigDict(_TUNED))


def test_the_best_values_are_printed_as_flags(tmp_path, run_module):
  config = tmp_path / "mine.py"
  config.write_text(
    f"from ml_collections import ConfigDict\n\n\ndef get_config():\n  return ConfigDict({_TUNED})\n"
  )
  arguments = (f"--config={config}", f"--workdir={tmp_path / 'tuned'}")
  result = run_module("experiments.tune", *arguments)
  assert result.returncode == 0, result.stderr
  flags = "--config.arms.sgd.learning_rate=0.3 --config.arms.adam.learning_rate=0.01"
  assert set(result.stdout.splitlines()[-3].split()) == set(flags.split())
  members = pd.read_csv(tmp_path / "tuned" / "members.csv")
  assert len(members) == 2 * 4
  text = (tmp_path / "tuned" / "report.md").read_text()
  assert "## Chosen values" in text
  # What is chosen is the answer, not the verdicts on pairs of trials.
  answer = "With the best mean val_accuracy: adam learning_rate=0.01; sgd learning_rate=0.3."
  assert f"**{report.escape(answer)}**\n\n" in text
  page = (tmp_path / "tuned" / "report.html").read_text()
  assert answer in page
  assert "No claim" not in text + page
  assert "no claim" not in text
