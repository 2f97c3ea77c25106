"""mnist_cnn, cifar_mlp and compare_losses: smoke runs, the coursework's settings, mistakes."""

import importlib

import jax
import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver
from conftest import DEFAULT_FLAGS, form, save_no_picture

from experiments import command_line
from jaxdl import experiment as experiment_lib
from jaxdl import recipe as recipe_lib
from jaxdl.batches import seed_key
from jaxdl.errors import InputError
from jaxdl.nn import models
from jaxdl.report import figures
from jaxdl.train import create_member

_NAMES = ("mnist_cnn", "cifar_mlp", "compare_losses")


def _experiment(name, variant, **settings):
  config = importlib.import_module(f"ml_collections_configs.{name}").get_config(variant)
  config.update(settings)
  return importlib.import_module(f"experiments.{name}").SCRIPT.create_experiment(config)


def _run(name, workdir):
  script = importlib.import_module(f"experiments.{name}").SCRIPT
  with flagsaver.as_parsed(workdir=str(workdir), **DEFAULT_FLAGS):
    command_line.run_experiment(script, _experiment(name, "smoke"))


@pytest.mark.parametrize("name", _NAMES)
def test_smoke_run(name, tmp_path, monkeypatch):
  """All files, numbers that agree with each other, and the same verdicts again."""
  _run(name, tmp_path)
  experiment = _experiment(name, "smoke")
  members = pd.read_csv(tmp_path / "members.csv")
  assert list(members.arm) == list(experiment.arms) * 2
  by_class = pd.read_csv(tmp_path / "per_class.csv")
  macro = by_class.groupby(["seed", "arm"], sort=False).f1.mean()
  np.testing.assert_allclose(macro, members.f1, rtol=1e-12)
  with np.load(tmp_path / "confusion.npz") as arrays:
    confusion = arrays["confusion"]
  np.testing.assert_array_equal(confusion.sum(axis=-1).ravel(), by_class.num_examples)
  accuracy = np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))
  np.testing.assert_allclose(accuracy.ravel(), members.test_accuracy, rtol=1e-12)
  text = (tmp_path / "report.md").read_text()
  assert "## Classes" in text
  pictures = {file.stem for file in (tmp_path / "figures").glob("*.png")}
  assert {"learning_curves", "confusion_matrices"} <= pictures
  augmented = name != "mnist_cnn"
  assert ("augmentation" in pictures) == ("learning_rates" in pictures) == augmented

  before = (tmp_path / "verdicts.json").read_bytes()
  monkeypatch.setattr(figures, "save", save_no_picture)
  _run(name, tmp_path)
  assert (tmp_path / "verdicts.json").read_bytes() == before


def _num_params(arm, image_shape):
  groups = recipe_lib.group_by_recipe({"arm": arm}, form(10, 1000, image_shape), lambda *_: 64)
  (recipe,) = groups
  hyper = recipe_lib.hyperparams(arm, recipe)
  member = jax.eval_shape(lambda: create_member(recipe, seed_key(0, 0), hyper))
  return sum(leaf.size for leaf in jax.tree.leaves(member.params))


def test_the_cnn_is_the_coursework_s(tfds_dir):
  """515,146 parameters, 54,000 and 6,000 images, 1,688 steps, the last of them partial."""
  experiment = _experiment("mnist_cnn", "notebook")
  dataset = experiment_lib.load_dataset(experiment, tfds_dir)
  sizes = tuple(map(len, (dataset.train, dataset.validation, dataset.test)))
  assert sizes == (54_000, 6_000, 10_000)
  assert list(experiment.arms) == ["glorot_uniform", "he_normal"]
  for name, arm in experiment.arms.items():
    assert (arm.kernel_initializer, arm.bias_initializer) == (name, "zeros")
    assert _num_params(arm, (28, 28, 1)) == 515_146
    assert -(-len(dataset.train) // arm.batch_size) == 1_688
    assert len(dataset.train) % arm.batch_size == 16
    assert (arm.optimizer, arm.learning_rate, arm.patience, arm.num_epochs) == (
      *("adam", 0.001),
      *(3, 20),
    )


def test_the_mlp_is_the_coursework_s(tfds_dir):
  """1,707,274 parameters; ReLU, then tanh; Adam halved every ten epochs; the augmentation."""
  experiment = _experiment("cifar_mlp", "notebook")
  arm = experiment.arms["coursework"]
  assert _num_params(arm, (32, 32, 3)) == 1_707_274
  assert models.hidden_activations(arm.model, arm.activation) == ("relu", "tanh")
  assert (arm.batch_size, arm.num_epochs, arm.optimizer) == (64, 50, "adam")
  dataset = experiment_lib.load_dataset(experiment, tfds_dir)
  assert dataset.train.inputs.shape == (45_000, 32, 32, 3)
  assert dataset.class_names[0] == "airplane"
  groups = recipe_lib.group_by_recipe(experiment.arms, form(10, 45_000), lambda *_: 64)
  recipe = next(recipe for recipe, names in groups.items() if "coursework" in names)
  assert "constant_rate" in groups[recipe]  # schedules share a program
  rates = recipe_lib.hyperparams(arm, recipe).learning_rate  # 704 steps of 64
  np.testing.assert_allclose(rates[::10, 0], 0.001 * 0.5 ** np.arange(5), rtol=1e-6)
  assert (rates == rates[:, :1]).all()
  assert (rates[9] == rates[0]).all()
  augmentation = recipe.arm.augmentation
  assert (augmentation.rotation_range, augmentation.shift_range) == (15, 0.1)
  assert augmentation.horizontal_flip
  plain = experiment.arms["no_augmentation"]
  assert plain.augmentation.is_identity
  assert plain.schedule == arm.schedule


def test_losses_are_arms_of_one_program():
  experiment = _experiment("compare_losses", "notebook")
  groups = recipe_lib.group_by_recipe(experiment.arms, form(10, 1000), lambda *_: 64)
  assert len(groups) == 1
  assert list(experiment.arms) == [
    *("categorical_cross_entropy", "mean_squared_error"),
    *("hinge", "softmax_hinge"),
  ]
  assert next(iter(experiment.margins)) == "test_accuracy"


@pytest.mark.parametrize(
  ("name", "settings", "message"),
  [
    ("mnist_cnn", {"initializers": ("he_norml",)}, "did you mean 'he_normal'"),
    ("mnist_cnn", {"num_train": -1}, "num_train must be an integer >= 1"),
    ("cifar_mlp", {"arms": ("courswork",)}, "unknown arm 'courswork'; did you mean 'coursework'"),
    ("cifar_mlp", {"arms": ("constant_rate",)}, "unknown reference arm 'coursework'"),
    ("cifar_mlp", {"schedule": "step(0.5)"}, "wrong arguments"),
    ("cifar_mlp", {"rotation_range": -1.0}, "rotation_range"),
    ("compare_losses", {"losses": ("hinge", "hinge")}, "loss 'hinge' is named twice"),
    ("compare_losses", {"losses": ("mse",)}, "unknown loss 'mse'"),
  ],
)
def test_mistakes(name, settings, message):
  with pytest.raises(InputError, match=message):
    _experiment(name, "smoke", **settings)
