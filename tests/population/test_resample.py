"""Populations of which each seed is trained and tested on its own split of the examples."""

from dataclasses import replace

import numpy as np
import pytest

import jaxdl
from jaxdl import data, launch, population, stats
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.report import picture_data
from jaxdl.stats.scores import student_interval


@pytest.fixture(scope="module")
def arms(mlp_arm):
  """Two arms that learn the blobs, or hardly."""
  arm = replace(mlp_arm, model="mlp(4)", num_epochs=3, dropout_rate=None)
  return {"a": arm, "slow": replace(arm, learning_rate=1e-5)}


@pytest.mark.parametrize("scheme", ["folds(5)", "bootstrap"])
def test_a_seed_is_what_it_would_be_if_its_split_were_the_dataset(blobs, arms, scheme):
  """So in chunks of several seeds, and one by one on a core."""
  resampled = data.resample(blobs, scheme)
  found = [
    population.train_population(resampled, arms, seeds=4, chunk_size=size) for size in (3, None)
  ]
  for seed in (0, 3):
    train, test = resampled.resampling.split(0, seed)
    own = replace(blobs, train=blobs.train.take(train), test=blobs.train.take(test))
    alone = population.train_population(own, arms, seeds=(seed,))
    for trained in found:
      np.testing.assert_array_equal(trained.test_targets[seed], own.test.targets)
      np.testing.assert_array_equal(trained.epochs[seed], alone.epochs[0])
      for name, values in alone.metrics.items():
        np.testing.assert_allclose(
          trained.metrics[name][seed], values[0], rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_arms_of_a_seed_are_tested_on_the_same_examples_and_scores_know_the_overlap(blobs, arms):
  trained = population.train_population(data.resample(blobs, "folds(5)"), arms, seeds=6)
  assert trained.test_targets.shape == (6, 10)
  assert trained.confusion.sum(axis=(2, 3)).tolist() == [[10, 10]] * 6
  rows = trained.confusion.sum(axis=3)  # [S, A, C], how often each class is tested
  np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
  assert trained.scores("test_accuracy").overlap == 10 / 40
  assert trained.is_correct("test_accuracy") is None
  assert trained.mean_probabilities.shape == (2, 0, 3)
  losses = trained.curves["train_loss"][:, 1]  # [S, E]
  mean, *ends = picture_data.curve_interval(trained, 1, losses, "loss")
  np.testing.assert_allclose(mean[0], losses[:, 0].mean(), rtol=1e-6)
  expected = student_interval(losses[:, 0].astype(float), 0.95, 10 / 40)
  np.testing.assert_allclose([of[0] for of in ends], expected, rtol=1e-5)


def test_a_run_with_splits_says_so(arms, blobs, tmp_path, no_pictures):
  options = {"seeds": 8, "margins": {"test_accuracy": 0.05}, "workdir": tmp_path / "run"}
  result = jaxdl.compare(blobs, arms, resample="holdout(0.2)", **options)
  (verdict,) = result.verdicts
  assert (verdict.design, verdict.new_examples) == (stats.RESAMPLED, None)
  assert verdict.floor > 0
  text = (tmp_path / "run" / "report.md").read_text()
  assert "Every seed has its own split of the training examples" in text
  assert "the test set of the data was not used" in text
  assert "The splits of the seeds overlap" in text
  again = jaxdl.compare(blobs, arms, resample="holdout(0.2)", **options)
  assert stats.to_json(again.verdicts[0]) == stats.to_json(verdict)
  with pytest.raises(InputError, match="resample"):
    jaxdl.compare(blobs, arms, resample="folds(4)", **options)
  correct = np.load(tmp_path / "run" / "correct.npz")
  assert (correct["labels"].shape, correct["num_examples"]) == ((8, 10), 10)
  assert jaxdl.open_run(tmp_path / "run").members.shape[0] == 16


def test_what_makes_no_sense_with_splits_is_refused_in_one_line(arms, tmp_path):
  experiment = Experiment(question="?", arms=arms, dataset="digits", resample="folds(5)")

  def refused(message, **options):
    with pytest.raises(InputError, match=message):
      launch.run(experiment, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()

  refused("until_decided needs seeds that are independent", until_decided=True)
  refused("not for multihost", executor="multihost")
  refused("same test examples", keep_logits=True)
  with pytest.raises(InputError, match="unknown resample"):
    replace(experiment, resample="thirds")


def test_regression_and_observers_have_the_split_of_the_seed(arms):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(60, 3)).astype(np.float32)
  dataset = data.from_arrays(x, x @ [1.0, 2.0, 3.0], validation=0.2, name="plane")
  arm = replace(arms["a"], loss="mean_squared_error", patience=None)
  resampled = data.resample(dataset, "folds(4)")

  def observe(recipe, variables, hyper, train, validation, test):
    return {"train": train.targets.sum(), "test": test.targets.sum()}

  trained = population.train_population(resampled, {"a": arm}, seeds=2, observe=observe)
  assert trained.test_targets.shape == (2, resampled.num_test)
  for seed in range(2):
    split = resampled.resampling.split(0, seed)
    for name, part in split._asdict().items():
      expected = dataset.train.targets[part].sum()
      assert trained.observations[name]["a"][seed, 0] == pytest.approx(expected, rel=1e-4)
