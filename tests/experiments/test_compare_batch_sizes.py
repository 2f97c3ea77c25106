"""Batch, stochastic and mini-batch descent: sizes, the coursework's setting, a smoke run."""

import dataclasses
import json
import math

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, form

from experiments import compare_batch_sizes as script
from jaxdl import batches, population, train
from jaxdl import experiment as experiment_lib
from jaxdl import recipe as recipe_lib
from jaxdl.errors import InputError
from jaxdl.population.timing import MemberTimings, Timings
from ml_collections_configs import compare_batch_sizes as configs


def test_sizes_of_the_coursework_s_setting():
  """Steps of an epoch of 60,000 images, and parameters, arm by arm."""
  experiment = script.create_experiment(configs.get_config())
  groups = recipe_lib.group_by_recipe(experiment.arms, form(10, 60_000), lambda *_: 4096)
  steps, epochs = {}, {}
  for recipe, (name,) in groups.items():
    slices = jax.eval_shape(
      lambda recipe=recipe: batches.epoch_slices(recipe, jax.random.key(0), 0, 60_000)
    )
    steps[name], epochs[name] = len(slices.indices), recipe.arm.num_epochs
    hyper = recipe_lib.hyperparams(experiment.arms[name], recipe)
    member = jax.eval_shape(
      lambda recipe=recipe, hyper=hyper: train.create_member(recipe, batches.seed_key(0, 0), hyper)
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(member.params)) == 109_386
  assert steps == {"batch": 1, "stochastic": 60_000, "mini_batch": 1_875, "batch_equal_time": 1}
  equal_time = configs.get_config().equal_time_epochs
  assert epochs == {"batch": 10, "stochastic": 10, "mini_batch": 10, "batch_equal_time": equal_time}
  assert experiment.num_seeds == 8


def test_all_of_mnist_is_trained_on(tfds_dir):
  dataset = experiment_lib.load_dataset(script.create_experiment(configs.get_config()), tfds_dir)
  assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [60_000, 0, 10_000]


def test_names_of_batch_sizes():
  whole = script.WHOLE_SET
  assert script.name_batch_sizes((0, 1, 32)) == {"batch": whole, "stochastic": 1, "mini_batch": 32}
  assert script.name_batch_sizes((16, 0, 64)) == {
    "mini_batch_16": 16,
    "batch": whole,
    "mini_batch_64": 64,
  }


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("batch_sizes", (32, 32), "batch size 32 is named twice"),
    ("batch_sizes", (-1,), "a batch size must be an integer >= 0, not -1"),
    ("batch_sizes", (), "there is no arm"),
    ("equal_time_epochs", -1, "equal_time_epochs must be an integer >= 0"),
    ("timing_processes", 0, "timing_processes must be an integer >= 1"),
    ("timing_rounds", 0, "timing_rounds must be an integer >= 1"),
    ("inference_rounds", 0, "inference_rounds must be an integer >= 1"),
    ("timing_margin", 0.0, r"timing_margin must be in \(0, 1\)"),
  ],
)
def test_mistakes_in_own_keys(key, value, message):
  config = configs.get_config("smoke")
  config[key] = value
  with pytest.raises(InputError, match=message):
    script.create_experiment(config)


def test_a_missing_own_key_is_named():
  config = configs.get_config("smoke")
  del config.timing_rounds
  with pytest.raises(InputError, match="no key 'timing_rounds'"):
    script.create_experiment(config)


def test_coursework_numbers_stand_beside_its_own_setting_only():
  def same(config):
    experiment = script.create_experiment(config)
    return [name for name in experiment.arms if script.is_coursework(experiment, name)]

  assert same(configs.get_config()) == ["batch", "stochastic", "mini_batch"]
  assert same(configs.get_config("sgd")) == same(configs.get_config("digits")) == []
  for key, value in (
    ("learning_rate", 0.002),
    ("num_epochs", 9),
    ("validation_fraction", 0.1),
    ("num_train", 50_000),
    ("classes", (3, 7)),
  ):
    config = configs.get_config()
    with config.unlocked():
      config[key] = value
    assert same(config) == []
  config = configs.get_config()
  config.batch_sizes = (0, 64)
  assert same(config) == ["batch"]


@pytest.fixture(scope="module")
def run(blobs, mlp_arm):
  """Three seeds of two arms on `blobs`, observed; with hand-made times."""
  arm = dataclasses.replace(mlp_arm, patience=None)
  arms = {
    "batch": dataclasses.replace(arm, batch_size=script.WHOLE_SET, num_epochs=2),
    "mini_batch": dataclasses.replace(arm, batch_size=10, num_epochs=3),
  }
  trained = population.train_population(blobs, arms, seeds=3, observe=script.observe)
  names = tuple(arms)
  train_epoch = Timings(names, np.array([[[1.0, 2.0], [3.0, 8.0], [2.0, 3.0]]]))
  inference = Timings(names, np.array([[[0.5, 0.6]], [[0.7, 0.8]]]))
  return arms, trained, MemberTimings(train_epoch, inference, {"batch": 1.0, "mini_batch": 2.0})


def test_curves(run, blobs):
  _, trained, measured = run
  by_time, by_examples = script.accuracy_curves(blobs, trained, measured.train_epoch)
  np.testing.assert_array_equal(by_examples["batch"][0], [50, 100])
  np.testing.assert_array_equal(by_examples["mini_batch"][0], [50, 100, 150])
  np.testing.assert_array_equal(by_time["batch"][0], [2, 4])  # the median of 1, 3, 2 s an epoch
  np.testing.assert_array_equal(by_time["mini_batch"][0], [3, 6, 9])
  for index, name in enumerate(by_time):
    accuracy = by_time[name][1]
    np.testing.assert_array_equal(accuracy, by_examples[name][1])
    # The test afterwards says the same of the last epoch.
    np.testing.assert_array_equal(accuracy[:, -1], trained.metrics["test_accuracy"][:, index])
  table = script.curves_table(blobs, trained, measured.train_epoch)
  assert len(table) == 3 * (2 + 3)
  row = table[(table.arm == "mini_batch") & (table.seed == 1) & (table.epoch == 2)].iloc[0]
  assert (row.examples_seen, row.seconds) == (100, 6)
  assert row.test_accuracy == by_time["mini_batch"][1][1, 1]


def test_a_diverged_member_has_no_curve(run, blobs):
  _, trained, measured = run
  status = trained.status.copy()
  status[1, 0] = "diverged"
  diverged = dataclasses.replace(trained, status=status)
  by_time, _ = script.accuracy_curves(blobs, diverged, measured.train_epoch)
  assert np.isnan(by_time["batch"][1][1]).all()
  assert np.isfinite(by_time["batch"][1][[0, 2]]).all()
  assert np.isfinite(by_time["mini_batch"][1]).all()


def test_summary(run, blobs):
  """The training time is that of an epoch times the epochs; sizes are those of the arrays."""
  arms, trained, measured = run
  timed = script.TimedExperiment(question="?", arms=arms, dataset="digits")
  header, batch, mini_batch = script.summary_rows(timed, blobs, trained, measured)
  assert len(header) == len(batch) == 8  # nothing of the coursework: it is another dataset
  assert batch[:3] == ["batch", "50", "2"]
  assert mini_batch[:3] == ["mini_batch", "10", "3"]
  assert batch[6:] == ["4 [2, 6]", "0.6 [0.5, 0.7]"]
  assert mini_batch[6:] == ["9 [6, 24]", "0.7 [0.6, 0.8]"]
  num_params = 64 * 128 + 128 + 128 * 64 + 64 + 64 * 3 + 3
  assert batch[4:6] == [f"{num_params:,}", f"{4 * num_params:,}"]
  mean = 100 * trained.metrics["test_accuracy"][:, 0].mean()
  assert batch[3].startswith(f"{mean:.2f} [")


def test_summary_beside_the_coursework(run, blobs):
  _, trained, measured = run
  experiment = script.create_experiment(configs.get_config())
  arms = {name: experiment.arms[name] for name in trained.arms}
  _, batch, mini_batch = script.summary_rows(
    experiment, blobs, dataclasses.replace(trained, arms=arms), measured
  )
  assert batch[8:] == ["71.95 %", "6.09", "0.633"]
  assert mini_batch[8:] == ["97.72 %", "47.7", "0.609"]


def test_smoke_run(tmp_path, run_module):
  """From the command to the tables."""
  workdir = tmp_path / "run"
  config = f"--config={ROOT}/ml_collections_configs/compare_batch_sizes.py:smoke"
  result = run_module(
    "experiments.compare_batch_sizes", config, f"--workdir={workdir}", cwd=tmp_path
  )
  assert result.returncode == 0, result.stderr
  timings = pd.read_csv(workdir / "tables/timings.csv")
  arms = ["batch", "stochastic", "mini_batch", "batch_equal_time"]
  members = pd.read_csv(workdir / "members.csv")
  assert (members.num_params == 109_386).all()
  assert members.groupby("arm", sort=False).epochs.unique().str[0].to_dict() == dict(
    zip(arms, (2, 2, 2, 3), strict=True)
  )
  assert timings.groupby("kind").arm.agg(list).to_dict() == {
    "train_epoch": arms * 4,
    "inference": arms * 6,
  }
  assert (timings.seconds > 0).all()
  inference = pd.read_csv(workdir / "tables/inference_verdicts.csv")
  assert inference.verdict.tolist() == ["too few processes"] * 6
  assert inference.num_processes.tolist() == [2] * 6
  assert json.loads((workdir / "config.json").read_text())["timing_rounds"] == 2
  report = (workdir / "report.md").read_text()
  assert "## Accuracy, size and time" in report
  assert "times that of mini_batch" in report
  assert "coursework" not in report
  for name in ("accuracy_against_time", "accuracy_against_examples", "train_epoch_times"):
    assert f"figures/{name}.png" in report
    assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
