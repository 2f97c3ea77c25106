"""Experiments: the config there and back, subsets of the data, epochs to a target."""

import dataclasses
import json

import drawing
import numpy as np
import pytest

from jaxdl import answer as answer_lib
from jaxdl import data, launch
from jaxdl import experiment as experiment_lib
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import check_seeds
from jaxdl.report import arm_text, tables, verdict_text


def test_a_config_comes_back(three_arms):
  experiment = Experiment("?", three_arms, dataset="digits", classes=(3, 7), num_train=100,
                          reference="random_normal", target_loss=0.5)  # fmt: skip
  there = json.loads(json.dumps(experiment.to_json()))
  assert Experiment.from_json(there) == experiment


def test_what_a_config_lacks_has_its_default(three_arms):
  config = json.loads(json.dumps(Experiment("?", three_arms).to_json()))
  del config["reference"], config["arms"]["random_normal"]["schedule"]
  assert Experiment.from_json(config) == Experiment("?", three_arms)


@pytest.mark.parametrize("config", [{}, {"question": "?", "arms": {}}, {"question": "?"}, [], 1,
                                    {"question": "?", "arms": {"a": {"no": 1}}}])  # fmt: skip
def test_other_configs_are_refused(config):
  with pytest.raises(InputError):
    Experiment.from_json(config)


def test_part_of_the_training_set(blobs):
  whole = dataclasses.replace(blobs, validation=blobs.validation)
  part = data.take_train(whole, 7)
  np.testing.assert_array_equal(part.train.inputs, whole.train.inputs[:7])
  np.testing.assert_array_equal(part.train.targets, whole.train.targets[:7])
  assert part.test is whole.test
  for number in (0, 51, 2.5):
    with pytest.raises(InputError, match="num_train"):
      data.take_train(whole, number)


def test_the_part_is_taken_before_the_validation_set(three_arms):
  experiment = Experiment("?", three_arms, dataset="digits", num_train=100, validation_fraction=0.2)
  dataset = experiment_lib.load_dataset(experiment)
  assert (len(dataset.train), len(dataset.validation)) == (80, 20)


def test_epochs_to_a_target(trained):
  """By hand: reached at once, at the end of an epoch, within one, never, and diverged."""
  curve = np.array(
    [[0.5, 0.9, np.nan], [0.9, 0.5, 0.4], [0.9, 0.6, 0.2], [0.9, 0.8, 0.7], [0.5, np.nan, np.nan]]
  )
  curves = {"train_loss": np.stack([curve] * 3, axis=1)}  # [S, A, E]
  status = np.array([["finished"] * 3] * 4 + [["diverged"] * 3])
  made_up = dataclasses.replace(trained, curves=curves, status=status)
  never = trained.arms["random_normal"].num_epochs + 1
  expected = np.array([[1], [2], [2.25], [never], [np.nan]]) * np.ones(3)
  np.testing.assert_allclose(experiment_lib.epochs_to(made_up, 0.5), expected)
  text = arm_text.censored_text(with_target(made_up, expected))
  assert text.startswith("`epochs_to_target` has bounds: ")
  assert "random_normal: 1 never, counted as 7 and 1 within the first epoch" in text


def test_the_order_of_two_arms_does_not_change_with_the_target(trained):
  """One falls twice as fast as the other; in whole epochs they would tie at most targets."""
  epochs = np.arange(1, 7)
  losses = np.stack([np.exp(-0.1 * epochs), np.exp(-0.2 * epochs)])  # [2, E]
  made_up = dataclasses.replace(
    trained.select(list(trained.arms)[:2]),
    curves={"train_loss": losses[None]},
    status=np.array([["finished"] * 2]),
  )
  for target in np.linspace(0.56, 0.81, 7):
    slow, fast = experiment_lib.epochs_to(made_up, target)[0]
    assert 1.8 < slow / fast < 2.2


def with_target(population, epochs):
  return dataclasses.replace(population, metrics={"epochs_to_target": epochs})


def test_a_target_makes_a_metric(blobs, three_arms):
  experiment = Experiment("?", three_arms, num_seeds=2, target_loss=0.8,
                          margins={"epochs_to_target": 0.5})  # fmt: skip
  trained = experiment_lib.train_arms(experiment, blobs)
  expected = experiment_lib.epochs_to(trained, 0.8)
  np.testing.assert_array_equal(trained.metrics["epochs_to_target"], expected)
  assert not trained.scores("epochs_to_target").higher_is_better
  untargeted = dataclasses.replace(experiment, target_loss=None)
  with pytest.raises(InputError, match="unknown metric in margins 'epochs_to_target'"):
    experiment_lib.train_arms(untargeted, blobs)


def test_all_are_compared_with_the_reference(blobs, three_arms):
  experiment = Experiment("?", three_arms, num_seeds=2, reference="random_uniform")
  verdicts = experiment_lib.compare(experiment, experiment_lib.train_arms(experiment, blobs))
  pairs = [(verdict.arm_a, verdict.arm_b) for verdict in verdicts]
  assert pairs == [("glorot_uniform", "random_uniform"), ("random_normal", "random_uniform")]
  with pytest.raises(InputError, match="reference arm"):
    dataclasses.replace(experiment, reference="random")


def _ladder(num_seeds=16, num_arms=20):
  """Arms, each better than those before it by what no seed doubts, and their experiment."""
  population = drawing.make_population(num_seeds=num_seeds, num_arms=num_arms)
  noise = 0.001 * np.random.default_rng(0).random((num_seeds, num_arms))
  ladder = 0.5 + 0.02 * np.arange(num_arms) + noise
  object.__setattr__(population, "metrics", population.metrics | {"test_accuracy": ladder})
  arms = population.arms
  return population, Experiment(
    "Which?", arms, margins={"test_accuracy": 0.01}, num_seeds=num_seeds
  )


def test_many_arms_are_compared_with_the_best():
  population, experiment = _ladder()
  verdicts = experiment_lib.compare(experiment, population)
  assert [v.arm_a for v in verdicts] == [f"arm {i}" for i in range(19)]
  assert {v.arm_b for v in verdicts} == {"arm 19"}
  text = answer_lib.answer(verdicts, "test_accuracy", population)
  assert "of 19 other arms compared with arm 19, 19 worse; 19 differ by more than the" in text
  assert "arm 19 has the best mean. It is the best, with 95% confidence." in text
  shown = answer_lib.shown_verdicts(verdicts, population)
  assert [v.arm_a for v in shown] == [f"arm {i}" for i in (*range(18, 11, -1), 3, 2, 1, 0)]
  rows = verdict_text.ranking_rows(shown, population, "test_accuracy")
  assert [row[0] for row in rows[1:]] == [*map(str, range(1, 9)), "8 more", "17", "18", "19", "20"]
  assert [row[1] for row in rows[1:4]] == ["arm 19", "arm 18", "arm 17"]
  assert [row[4] for row in rows[1:4]] == ["", "worse", "worse"]
  table = tables.arms_table(population, verdicts)
  assert table["arm"].tolist() == [f"arm {i}" for i in range(19, -1, -1)]
  assert table["verdict"].isna().tolist() == [True] + 19 * [False]


def test_an_arm_does_not_go_on_for_pairs_with_arms_that_have_stopped():
  """Arm 12 was the best of 16 seeds and all others were worse; arm 13 is the best of 48."""
  population = drawing.make_population(num_seeds=48, num_arms=14)
  values = 0.5 + 0.001 * np.random.default_rng(0).random((48, 14))
  values[:, 12] += 0.1
  values[:16:2, 13], values[1:16:2, 13], values[16:, 13] = 0.4, 0.64, 0.9
  status = population.status.copy()
  status[16:, :12] = "not_trained"
  population = dataclasses.replace(population, metrics={"test_accuracy": values}, status=status)
  margins = {"test_accuracy": 0.01}
  experiment = Experiment(
    "Which?", population.arms, margins=margins, num_seeds=64, until_decided=True
  )
  verdicts = {v.arm_a: v for v in experiment_lib.compare_metric(experiment, population, *margins)}
  assert verdicts["arm 12"].verdict == "worse"
  assert (verdicts["arm 0"].verdict, verdicts["arm 0"].num_seeds) == ("undecided", 16)
  assert experiment_lib._looks(experiment).undecided(population) == ()


def test_a_dozen_arms_are_compared_in_pairs():
  population, experiment = _ladder(num_arms=12)
  verdicts = experiment_lib.compare(experiment, population)
  assert len(verdicts) == 66
  assert answer_lib.shown_verdicts(verdicts, population) == verdicts


def test_many_arms_are_compared_with_a_reference_if_there_is_one():
  population, experiment = _ladder(num_seeds=10)
  experiment = dataclasses.replace(experiment, reference="arm 3")
  verdicts = experiment_lib.compare(experiment, population)
  assert {v.arm_b for v in verdicts} == {"arm 3"}
  assert sum(v.verdict == "better" for v in verdicts) == 16
  text = answer_lib.answer(verdicts, "test_accuracy", population)
  assert "of 19 other arms compared with arm 3, 16 better, 3 worse" in text
  # Also if it happens to be the best.
  experiment = dataclasses.replace(experiment, reference="arm 19")
  verdicts = experiment_lib.compare(experiment, population)
  note = verdict_text.many_note(verdicts, population.scores("test_accuracy"), "arm 19", "arms.csv")
  assert "Each of 20 arms was compared with the reference. Tables" in note


def test_objects_show_what_they_are(trained):
  arm = Arm(model="mlp(8)", learning_rate=0.1, patience=None)
  assert repr(arm) == "Arm(model='mlp(8)', learning_rate=0.1, patience=None)"
  assert repr(Arm()) == "Arm()"
  arms = "glorot_uniform, random_uniform, random_normal"
  assert repr(trained).startswith(f"<population of 5 seeds x 3 arms ({arms}): ")


def test_numbers_of_numpy_are_numbers():
  """They compare, hash and print like Python's, and JSON takes them."""
  settings = {"batch_size": 32, "learning_rate": 0.5, "restore_best": True, "patience": None}
  ours = Arm(**settings, class_weight=(1.0, 2.0))
  theirs = Arm(
    batch_size=np.int64(32),
    learning_rate=np.float32(0.5),
    restore_best=np.bool_(True),
    patience=None,
    class_weight=np.array([1.0, 2.0]),
  )
  assert ours == theirs
  assert repr(ours) == repr(theirs)
  whole = Experiment("Which?", {"a": theirs}, classes=np.array([3, 7]), num_seeds=np.int32(4),
                     margins={"test_accuracy": np.float64(0.25)}, seed=np.uint32(1))  # fmt: skip
  assert Experiment.from_json(json.loads(whole.dumps())) == whole
  assert whole == Experiment("Which?", {"a": ours}, classes=(3, 7), num_seeds=4, seed=1,
                             margins={"test_accuracy": 0.25})  # fmt: skip


@pytest.mark.parametrize(
  "seeds", [3, np.int64(3), range(3), [0, 1, 2], np.arange(3), np.arange(3, dtype=np.uint8)]
)
def test_seeds_are_a_number_or_numbers(seeds):
  found = check_seeds(seeds, 0)
  assert found == (0, 1, 2)
  assert {type(seed) for seed in found} == {int}
  assert launch._num_seeds(seeds) == 3


def test_seeds_that_are_none():
  for seeds in ("12", np.arange(4).reshape(2, 2), [0.5], np.array([1.0]), [True], -1, None):
    with pytest.raises(InputError, match="seed"):
      check_seeds(seeds, 0)
  with pytest.raises(InputError, match=r"the seeds 0, 1, 2, \.\.\., not \[1, 2\]"):
    launch._num_seeds([1, 2])
