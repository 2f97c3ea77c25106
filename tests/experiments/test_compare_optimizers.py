"""compare_optimizers: its smoke run, what it chooses, and mistakes in its config."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver
from conftest import DEFAULT_FLAGS, save_no_picture

from experiments import command_line, compare_optimizers
from jaxdl import experiment as experiment_lib
from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.report import figures
from ml_collections_configs import compare_optimizers as configs


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
  """The workdir of the smoke run."""
  workdir = tmp_path_factory.mktemp("optimizers") / "run"
  _run(workdir)
  return workdir


def _run(workdir):
  experiment = compare_optimizers.create_experiment(configs.get_config("smoke"))
  with flagsaver.as_parsed(workdir=str(workdir), **DEFAULT_FLAGS):
    command_line.run_experiment(compare_optimizers.SCRIPT, experiment)


def test_smoke_run(smoke, monkeypatch):
  members = pd.read_csv(smoke / "members.csv")
  assert len(members) == 2 * 8
  needed = members[["status", "test_accuracy", "val_accuracy", "epochs_to_target"]]
  assert needed[members.status != "diverged"].notna().all(axis=None)
  rates = pd.read_csv(smoke / "tables" / "rates.csv")
  assert list(rates.arm) == [f"{o} {r}" for o in ("sgd", "adam") for r in ("0.0001", 0.01, 0.1, 10)]
  for row in rates.itertuples():
    of_arm = members[members.arm == row.arm]
    assert row.n + row.diverged == 2
    assert row.mean_test_accuracy == pytest.approx(of_arm.test_accuracy.mean(), nan_ok=True)
  best = pd.read_csv(smoke / "tables" / "best_rates.csv").set_index("optimizer")
  for optimizer, of_optimizer in rates.groupby("optimizer"):
    eligible = of_optimizer[of_optimizer.n == 2].set_index("learning_rate").mean_val_accuracy
    assert best.learning_rate[optimizer] == eligible.idxmax()
  verdicts = json.loads((smoke / "verdicts.json").read_text())
  assert [v["metric"] for v in verdicts] == ["test_accuracy", "epochs_to_target"]
  chosen = {f"{optimizer} {rate:g}" for optimizer, rate in best.learning_rate.items()}
  assert {verdicts[0]["arm_a"], verdicts[0]["arm_b"]} == chosen
  text = (smoke / "report.md").read_text()
  assert "## Best learning rates" in text
  for name in ("rates_test_accuracy", "rates_epochs_to_target", "learning_curves_adam"):
    assert (smoke / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert f"figures/{name}.png" in text

  before = (smoke / "verdicts.json").read_bytes()
  monkeypatch.setattr(figures, "save", save_no_picture)
  _run(smoke)
  assert (smoke / "verdicts.json").read_bytes() == before


@pytest.fixture(scope="module")
def small(blobs):
  """Three rates of two optimizers on `blobs`: the experiment and its population."""
  config = configs.get_config("smoke")
  config.learning_rates = (1.0, 1e-6, 0.01)
  config.num_seeds = 3
  config.target_loss = 0.8
  experiment = compare_optimizers.create_experiment(config)
  return experiment, experiment_lib.train_arms(experiment, blobs)


def test_all_rates_of_an_optimizer_train_in_one_program(small):
  _, trained = small
  assert [plan.arms for plan in trained.chunks] == [
    ("sgd 1e-06", "sgd 0.01", "sgd 1"),
    ("adam 1e-06", "adam 0.01", "adam 1"),
  ]


def test_the_best_rate_is_chosen_on_validation_and_never_on_test(small):
  experiment, trained = small
  validation = np.tile([0.5, 0.9, 0.7, 0.3, 0.2, 0.8], (3, 1))
  test = np.tile([0.9, 0.1, 0.2, 0.9, 0.9, 0.1], (3, 1))
  metrics = {**trained.metrics, "val_accuracy": validation, "test_accuracy": test}
  known = replace(trained, metrics=metrics, status=np.full((3, 6), "finished"))
  assert list(compare_optimizers.choose(experiment, known).arms) == ["sgd 0.01", "adam 1"]
  # A diverged seed makes an arm ineligible.
  status = known.status.astype("<U13")
  status[1, 1] = "diverged"
  assert list(compare_optimizers.choose(experiment, replace(known, status=status)).arms) == [
    "sgd 1",
    "adam 1",
  ]


def test_an_optimizer_that_always_diverges_is_reported_as_such(small, blobs):
  experiment, trained = small
  status = np.full((3, 6), "finished", dtype="<U13")
  status[:, :3] = "diverged"
  diverged = status == "diverged"
  metrics = {name: np.where(diverged, np.nan, v) for name, v in trained.metrics.items()}
  broken = replace(trained, status=status, metrics=metrics)
  shown = compare_optimizers.choose(experiment, broken)
  assert next(iter(shown.arms)) == "sgd 1e-06"
  verdict = experiment_lib.compare(experiment, shown)[0]
  assert (verdict.verdict, verdict.num_diverged_a, verdict.num_pairs) == ("too few seeds", 3, 3)
  extra = compare_optimizers.analyze(experiment, blobs, broken)
  assert "| sgd | none | - | 9 of 9 |" in extra.sections[0]
  assert extra.tables["best_rates"].n.tolist() == [0, 3]


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_variants(variant):
  experiment = compare_optimizers.create_experiment(configs.get_config(variant))
  assert next(iter(experiment.margins)) == "test_accuracy"
  if variant == "smoke":
    return
  assert len(experiment.arms) == 7 * 13
  assert experiment.num_seeds >= stats.min_pairs(21)  # of pairs of optimizers
  assert {arm.dropout_rate for arm in experiment.arms.values()} == {0.0}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"optimizers": ("sgd,adm",)}, "did you mean 'adam'"),
    ({"optimizers": ("sgd", "sgd")}, "optimizer 'sgd' is named twice"),
    ({"optimizers": ()}, "there is no arm"),
    ({"learning_rates": (0.1, 0.1)}, "learning rate '0.1' is named twice"),
    ({"learning_rates": (0.1, "1e-1")}, "learning rate 0.1 is named twice"),
    ({"learning_rates": ("fast",)}, "must be a number, not 'fast'"),
    ({"learning_rates": (-1.0,)}, "learning_rate must be a finite number > 0"),
    ({"reference": "adam 0.01"}, "leave reference empty"),
    ({"validation_fraction": 0.0}, "validation set"),
    ({"rates": (1.0,)}, "unknown config key 'rates'"),
  ],
)
def test_mistakes(change, message):
  config = configs.get_config("smoke")
  for key, value in change.items():
    config[key] = value
  with pytest.raises(InputError, match=message):
    compare_optimizers.create_experiment(config)


def test_a_string_with_commas_counts_as_several():
  config = configs.get_config("smoke")
  config.optimizers = ("adam, sgd",)
  config.learning_rates = ("1,0.1",)
  assert list(compare_optimizers.create_experiment(config).arms) == [
    *("adam 0.1", "adam 1"),
    *("sgd 0.1", "sgd 1"),
  ]
