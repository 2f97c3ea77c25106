"""compare_strategies: its smoke run, its arms and ensembles, and mistakes in its config."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver
from conftest import DEFAULT_FLAGS, form, save_no_picture

from experiments import command_line, compare_strategies
from jaxdl import recipe as recipe_lib
from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.population.population import train_population
from jaxdl.report import figures
from ml_collections_configs import compare_strategies as configs


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
  """The workdir of the smoke run."""
  workdir = tmp_path_factory.mktemp("strategies") / "run"
  _run(workdir)
  return workdir


def _run(workdir):
  experiment = compare_strategies.create_experiment(configs.get_config("smoke"))
  with flagsaver.as_parsed(workdir=str(workdir), **DEFAULT_FLAGS):
    command_line.run_experiment(compare_strategies.SCRIPT, experiment)


def test_smoke_run(smoke, monkeypatch):
  members = pd.read_csv(smoke / "members.csv")
  arms = ["base", "early_stopping", "cosine", "label_smoothing", "cnn"]
  assert list(members.arm) == arms * 2
  verdicts = json.loads((smoke / "verdicts.json").read_text())
  assert [(v["metric"], v["arm_a"], v["arm_b"]) for v in verdicts] == [
    (metric, arm, "base") for metric in ("test_accuracy", "epochs") for arm in arms[1:]
  ]
  table = pd.read_csv(smoke / "tables" / "ensembles.csv")
  assert list(table.columns) == ["arm", "k", "group", "accuracy", "mean_member_accuracy"]
  of_one = table[table.k == 1].sort_values(["group", "arm"], kind="stable")
  own = members.sort_values(["seed", "arm"], kind="stable")
  np.testing.assert_allclose(of_one.accuracy, own.test_accuracy, rtol=1e-12)
  of_two = table[table.k == 2].set_index("arm").mean_member_accuracy
  np.testing.assert_allclose(of_two[arms], members.groupby("arm").test_accuracy.mean()[arms])
  assert (smoke / "figures" / "ensemble_accuracy.png").read_bytes().startswith(b"\x89PNG")
  text = (smoke / "report.md").read_text()
  assert "## Strategies" in text
  assert "| too few groups |" in text

  before = (smoke / "verdicts.json").read_bytes()
  monkeypatch.setattr(figures, "save", save_no_picture)
  _run(smoke)
  assert (smoke / "verdicts.json").read_bytes() == before


@pytest.mark.parametrize("variant", ["cifar10", "notebook"])
def test_every_arm_is_the_base_with_one_change(variant):
  config = configs.get_config(variant)
  experiment = compare_strategies.create_experiment(config)
  base = experiment.arms["base"]
  model = {"cifar10": "mlp(128,64)", "notebook": "cifar_mlp"}[variant]
  assert (base.model, base.optimizer, base.learning_rate) == (model, "adam", 0.001)
  assert (base.batch_size, base.dropout_rate, base.patience) == (64, 0.0, None)
  assert base.augmentation.is_identity
  assert list(experiment.arms) == ["base", *sorted(config.changes, key=list(experiment.arms).index)]
  for name, changed in experiment.arms.items():
    differing = {
      field.name
      for field in dataclasses.fields(base)
      if getattr(base, field.name) != getattr(changed, field.name)
    }
    assert differing == set(config.changes.get(name, {}))
  assert experiment.reference == "base"
  assert experiment.num_seeds >= stats.min_pairs(len(experiment.arms) - 1)
  # Six ensembles of two are the fewest that can be better.
  assert experiment.num_seeds // 2 >= stats.min_pairs(1)
  assert next(iter(experiment.margins)) == "test_accuracy"


def test_what_is_traced_shares_one_program():
  arms = compare_strategies.create_experiment(configs.get_config()).arms
  groups = list(recipe_lib.group_by_recipe(arms, form(10, 4_500), lambda model: 64).values())
  shared = ["base", "step_decay", "cosine", "reduce_on_plateau", "warmup", "one_cycle", "l2"]
  alone = [["early_stopping"], ["dropout"], ["augmentation"], ["cnn"], ["wide"]]
  assert groups[0] == [*shared, "label_smoothing"]
  assert sorted(groups[1:]) == sorted(alone)


def test_diverged_members_are_in_no_ensemble(blobs, mlp_arm):
  trained = train_population(
    blobs, {"base": replace(mlp_arm, num_epochs=1)}, seeds=5, keep_logits=True
  )
  status = trained.status.astype("<U13")
  status[1] = "diverged"
  logits = trained.logits["base"].copy()
  logits[1] = np.nan
  broken = replace(trained, status=status, logits={"base": logits})
  experiment = compare_strategies.create_experiment(configs.get_config("smoke"))
  table = compare_strategies.analyze(experiment, blobs, broken).tables["ensembles"]
  assert table.groupby("k").size().to_dict() == {1: 4, 2: 2, 4: 1}
  kept = trained.metrics["test_accuracy"][[0, 2, 3, 4], 0]
  np.testing.assert_allclose(table[table.k == 1].accuracy, kept)
  np.testing.assert_allclose(table[table.k == 4].mean_member_accuracy, [kept.mean()])


@pytest.mark.parametrize("diverged", [["b"], ["base"], ["base", "b"], ["base", "b", "c"]])
def test_arms_may_diverge_in_every_seed(blobs, mlp_arm, diverged):
  """One arm, all but one, all: the rest is still there."""
  arms = {
    name: replace(mlp_arm, num_epochs=2, learning_rate=1e38 if name in diverged else 0.01)
    for name in ("base", "b", "c")
  }
  trained = train_population(blobs, arms, seeds=2, keep_logits=True)
  of_arm = dict(zip(arms, (trained.status == "diverged").T, strict=True))
  assert all(of_arm[name].all() == of_arm[name].any() == (name in diverged) for name in arms)
  experiment = compare_strategies.create_experiment(configs.get_config("smoke"))
  extra = compare_strategies.analyze(experiment, blobs, trained)
  assert set(extra.tables["ensembles"].arm) == set(arms) - set(diverged)
  assert len(extra.pictures) == 1


@pytest.mark.parametrize(
  ("strategies", "changes", "message"),
  [
    (("cosin",), {}, "unknown strategy 'cosin'; did you mean 'cosine'"),
    (("l2", "l2"), {}, "strategy 'l2' is named twice"),
    (("l2",), {"l2": {"l_2": 0.1}}, "did you mean 'l2'"),
    (("l2",), {"l2": {"l2": -1.0}}, "l2 must be a finite number >= 0"),
    (("warmup",), {"warmup": {"schedule": "warmup(2)"}}, "must be shorter than num_epochs"),
  ],
)
def test_mistakes(strategies, changes, message):
  config = configs.get_config("smoke")
  config.strategies = strategies
  for name, settings in changes.items():
    config.changes[name] = settings
  with pytest.raises(InputError, match=message):
    compare_strategies.create_experiment(config)


def test_the_base_is_always_there():
  config = configs.get_config("smoke")
  config.strategies = ("dropout,cosine",)
  assert list(compare_strategies.create_experiment(config).arms) == ["base", "dropout", "cosine"]
