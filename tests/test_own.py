"""Models, losses, optimizers, metrics and data of the user's own, through whole runs."""

import functools
import json
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_parts
import pytest
from conftest import create_member, member, train_member
from sklearn.metrics import r2_score

import jaxdl
from jaxdl import forward, launch
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.optim import losses, metrics, optimizers, schedules
from jaxdl.population import devices, plan
from jaxdl.recipe import form_of, group_by_recipe

BASE = Arm(
  model="own_parts:Mlp",
  loss="categorical_cross_entropy",
  learning_rate=0.01,
  batch_size=16,
  num_epochs=3,
  patience=None,
  dropout_rate=0.0,
)
CPU = devices.DeviceKind("cpu", "a CPU", None)


def _train(dataset, arms, **options):
  return jaxdl.train_population(dataset, arms, seeds=2, **options)


def _groups(dataset, **arms):
  return plan.plan_groups(dataset, arms, (0,), 0, CPU)


def _numbers(num=60, shape=()):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(num, 4)).astype(np.float32)
  y = (x @ rng.normal(size=(4, *shape))).astype(np.float32)
  return jaxdl.from_arrays(x, y, validation=0.2, name="line")


def test_objects_and_text_are_the_same_arm():
  """So they share a program, a config and a run."""
  by_text = BASE.replace(
    model="own_parts:Mlp(width=4)",
    loss="own_parts:focal(gamma=3.0)",
    optimizer="optax:lion(b1=0.95)",
    schedule="own_parts:halved",
    kernel_initializer="flax.linen:zeros_init()",
    metrics=[("top", "max", "own_parts:top_2_accuracy")],
  )
  by_object = BASE.replace(
    model=own_parts.Mlp(width=4),
    loss=functools.partial(own_parts.focal, gamma=3.0),
    optimizer=functools.partial(optax.lion, b1=0.95),
    schedule=own_parts.halved,
    kernel_initializer="flax.linen:zeros_init()",
    metrics={"top": ("max", own_parts.top_2_accuracy)},
  )
  assert by_text == by_object
  assert by_text.is_text
  assert Arm(**json.loads(json.dumps(by_text.to_json()))) == by_text


def test_a_named_model_and_the_same_module_train_alike(blobs):
  """`mlp(8)` by name and `Mlp` of linen layers: the same draws, steps and numbers."""
  ours, own = (
    _train(blobs, {"a": BASE.replace(model=model, num_epochs=2)})
    for model in ("mlp(8)", own_parts.Mlp(width=8))
  )
  np.testing.assert_allclose(own.curves["val_loss"], ours.curves["val_loss"], rtol=1e-4)
  np.testing.assert_allclose(own.metrics["test_loss"], ours.metrics["test_loss"], rtol=1e-4)


def test_numbers_of_losses_and_optimizers_share_a_program_and_change_nothing(blobs):
  """Arms that train together give what each gives alone."""
  arms = {
    "gamma 1": BASE.replace(loss="own_parts:focal(gamma=1.0)", optimizer="optax:adam(b1=0.9)"),
    "gamma 4": BASE.replace(loss="own_parts:focal(gamma=4.0)", optimizer="optax:adam(b1=0.5)"),
    "built in": BASE.replace(optimizer="optax:adam(b1=0.7)"),
  }
  (group,) = _groups(blobs, **arms)
  assert group.layout.arms == tuple(arms)
  together = _train(blobs, arms, chunk_size=2)
  for index, (name, arm) in enumerate(arms.items()):
    alone = _train(blobs, {name: arm}, chunk_size=1)
    np.testing.assert_allclose(
      together.curves["val_loss"][:, index], alone.curves["val_loss"][:, 0], rtol=2e-4
    )
  assert len(np.unique(together.metrics["train_loss"])) == 6


def test_a_model_keeps_its_default_unless_the_arm_sets_something(blobs):
  def rate(**settings):
    (recipe,) = group_by_recipe({"a": replace(BASE, **settings)}, form_of(blobs), lambda _: 8)
    return forward.create_model(recipe).dropout_rate

  assert rate(dropout_rate=None) == 0.0
  assert rate(dropout_rate=None, model=own_parts.Mlp(dropout_rate=0.2)) == 0.2
  assert rate(dropout_rate=0.5) == 0.5
  assert rate(dropout_rate=None, model="mlp") == 0.5


def test_a_chain_of_optax_is_an_optimizer(blobs):
  arm = BASE.replace(optimizer=own_parts.clipped, num_epochs=1, batch_size=50)
  recipe, *rest = member(arm, blobs)
  before = create_member(recipe, *rest[:2]).params
  after, _ = train_member(recipe, *rest)
  step = jax.tree.map(lambda a, b: a - b, after.params, before)
  assert optax.tree.norm(step) <= 0.01 * 1.0 + 1e-6


def test_floats_that_optax_must_know_stay_in_the_program():
  assert optimizers.parse("own_parts:sgd(scale=0.5)")[1] == {"scale": 0.5}
  name, numbers = optimizers.parse("own_parts:sgd(scale=0.5, twice=True)")
  assert numbers == {}
  updates, _ = optimizers.create(name, 0.1).update({"w": jnp.ones(1)}, (optax.EmptyState(),) * 2)
  np.testing.assert_allclose(updates["w"], [-0.1])


def test_a_schedule_may_be_plain_python():
  rates = schedules.learning_rates("own_parts:halved", 0.2, 2, 3)
  np.testing.assert_allclose(rates, [[0.2, 0.2, 0.2], [0.2, 0.1, 0.1]], rtol=1e-6)
  by_factory = schedules.learning_rates("optax:linear_schedule(1.0, 0.0, 4)", 0.2, 1, 3)
  np.testing.assert_allclose(by_factory, [[0.2, 0.15, 0.1]], rtol=1e-6)


def test_a_metric_is_the_mean_over_the_test_set(blobs):
  arms = {"a": BASE.replace(metrics=[own_parts.top_2_accuracy, "hinge"])}
  trained = _train(blobs, arms, keep_logits=True)
  logits, targets = jnp.array(trained.logits["a"]), jnp.array(blobs.test.targets)
  for seed in range(2):
    expected = own_parts.top_2_accuracy(logits[seed], targets).mean()
    assert trained.metrics["top_2_accuracy"][seed, 0] == pytest.approx(float(expected), rel=1e-6)
    expected = losses.hinge(logits[seed], targets).mean()
    assert trained.metrics["hinge"][seed, 0] == pytest.approx(float(expected), rel=1e-5)
  assert trained.higher_is_better("top_2_accuracy")
  assert trained.higher_is_better("val_top_2_accuracy")
  assert not trained.higher_is_better("hinge")
  assert trained.curves["val_top_2_accuracy"].shape == (2, 1, 3)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ([own_parts.focal], "does not say which values are better"),
    ({"top": own_parts.top_2_accuracy}, "does not say which values are better"),
    ([("most", own_parts.focal)], "does not say which values are better"),
    (["hinge", "hinge"], "two metrics have the name 'hinge'"),
    ("hinge", "must be a list or a dict"),
    (["hing"], "did you mean 'hinge'"),
    ({"a b": "hinge"}, "must be a word"),
    ([lambda outputs, targets: outputs], "must be a word"),
  ],
)
def test_unclear_metrics_are_refused(given, message):
  with pytest.raises(InputError, match=message):
    metrics.read(given)


def test_numbers_are_predicted(tmp_path):
  """R2 as scikit-learn computes it, and the same run again from its folder."""
  dataset = _numbers()
  arms = {
    "squared": BASE.replace(loss="mean_squared_error", batch_size=8, num_epochs=8),
    "huber": BASE.replace(loss="huber(0.5)", batch_size=8, num_epochs=8),
  }
  options = {"seeds": 2, "margins": {"r2": 0.1}, "workdir": tmp_path, "keep_logits": True}
  result = jaxdl.compare(dataset, arms, **options)
  trained = result.population
  for index, arm in enumerate(arms):
    for seed in range(2):
      expected = r2_score(dataset.test.targets, trained.logits[arm][seed])
      assert trained.metrics["r2"][seed, index] == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(
    trained.metrics["mean_squared_error"][:, 0], trained.metrics["test_loss"][:, 0], rtol=1e-5
  )
  assert (trained.metrics["r2"] > 0).all()
  with np.load(tmp_path / "predictions.npz") as arrays:
    assert arrays["predictions"].shape == (2, len(dataset.test), 1)
  assert "No claim can be made from so few seeds" in str(result)
  assert "r2" in result.members
  chunks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/chunks/*")}
  again = jaxdl.compare(dataset, arms, **options)
  assert chunks == {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/chunks/*")}
  np.testing.assert_array_equal(again.population.metrics["r2"], trained.metrics["r2"])


def test_several_numbers_are_predicted():
  dataset = _numbers(shape=(2,))
  arm = BASE.replace(loss="mean_absolute_error")
  trained = _train(dataset, {"a": arm}, keep_logits=True)
  assert trained.logits["a"].shape == (2, len(dataset.test), 2)
  errors = np.abs(trained.logits["a"] - dataset.test.targets).mean(axis=(1, 2))
  np.testing.assert_allclose(trained.metrics["mean_absolute_error"][:, 0], errors, rtol=1e-5)


def test_a_class_for_every_position_of_a_sequence():
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, 5, (40, 6)).astype(np.int32)
  dataset = jaxdl.from_arrays(tokens, tokens % 3, validation=0.2)
  arm = BASE.replace(model=own_parts.Tagger, num_epochs=12, learning_rate=0.1)
  trained = _train(dataset, {"a": arm})
  assert (trained.metrics["test_accuracy"] == 1).all()  # a class is a function of its token
  assert trained.confusion.sum() == 2 * dataset.test.targets.size
  assert (trained.curves["val_accuracy"][..., -1] == 1).all()


def test_preprocessing_is_part_of_the_step(blobs):
  pixels = [split.inputs.astype(np.float32) / 255 for split in blobs.splits]
  targets = [split.targets for split in blobs.splits]
  train_set, validation, test = zip(pixels, targets, strict=True)
  doubled, plain = (
    jaxdl.from_arrays(
      factor * train_set[0], train_set[1], factor * test[0], test[1],
      validation=(factor * validation[0], validation[1]), preprocess=preprocess,
    )
    for factor, preprocess in ((1, own_parts.double), (2, None))
  )  # fmt: skip
  found, expected = (_train(dataset, {"a": BASE}) for dataset in (doubled, plain))
  np.testing.assert_array_equal(found.metrics["test_loss"], expected.metrics["test_loss"])


def test_class_weights_multiply_training_losses(blobs):
  """One full batch of plain descent: the gradient of the weighted sum over N, as in Keras."""
  weights = (1.0, 3.0, 0.5)
  arm = Arm(model="mlp(8)", loss="categorical_cross_entropy", optimizer="sgd", learning_rate=0.1,
            batch_size=50, num_epochs=1, patience=None, dropout_rate=0.0)  # fmt: skip
  recipe, key, hyper, train_set, validation = member(arm.replace(class_weight=weights), blobs)
  before = create_member(recipe, key, hyper).params
  after, _ = train_member(recipe, key, hyper, train_set, validation)
  plain = member(arm, blobs).recipe

  def loss(params):
    logits = forward.predict(plain, forward.Variables(params, {}), train_set.inputs)
    of_each = losses.categorical_cross_entropy(logits, train_set.targets)
    return (jnp.array(weights)[train_set.targets] * of_each).mean()

  expected = jax.tree.map(lambda p, g: p - 0.1 * g, before, jax.jit(jax.grad(loss))(before))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected
  )
  balanced = member(arm.replace(class_weight="balanced"), blobs).hyper.class_weight
  counts = np.bincount(blobs.train.targets)
  np.testing.assert_allclose(balanced * counts, 50 / 3, rtol=1e-6)


def test_what_is_monitored_decides(blobs):
  """The best epoch is the first with the highest accuracy, after those that do not count."""
  arm = BASE.replace(
    num_epochs=8, learning_rate=0.003, monitor="val_accuracy", restore_best=True, start_from_epoch=2
  )
  trained = _train(blobs, {"a": arm})
  accuracy = trained.curves["val_accuracy"][:, 0]  # [S, E]
  assert (trained.best_epoch[:, 0] == accuracy[:, 2:].argmax(axis=1) + 3).all()
  reported = trained.metrics["val_accuracy"][:, 0]
  np.testing.assert_array_equal(reported, accuracy[:, 2:].max(axis=1))


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"model": "no_such_module:Net"}, "no_such_module:Net cannot be imported"),
    ({"model": "own_parts:Mlp(depth=3)"}, "does not fit its signature"),
    ({"model": "own_parts:focal"}, "own_parts:focal fails: TypeError"),
    ({"model": own_parts.Plain, "dropout_rate": 0.2}, "takes no dropout_rate, so the arm cannot"),
    ({"model": own_parts.Mlp(dropout_rate=0.1), "dropout_rate": 0.2}, "gives dropout_rate itself"),
    ({"model": own_parts.Tagger}, "fails: .*[Ee]mbed|fails: "),
    ({"model": own_parts.Mlp(num_outputs=4)}, r"returns \[5, 4\] for 5 inputs .* need \[5, 3\]"),
    ({"loss": own_parts.mean_of_batch}, r"must return a number per example, \[5\], not \[\]"),
    ({"loss": "mean_absolute_error"}, "is for numbers, but the targets are classes"),
    ({"loss": "own_parts:focal(beta=1.0)"}, "does not fit its signature"),
    ({"optimizer": "own_parts:not_an_optimizer"}, "optimizer own_parts:not_an_optimizer fails"),
    ({"optimizer": "own_parts:halved"}, "must take a learning_rate"),
    ({"optimizer": "optax:sgd(learning_rate=0.1)"}, "must take a learning_rate, which the arm's"),
    ({"class_weight": (1.0, 2.0)}, "has 2 numbers, but there are 3 classes"),
    ({"schedule": "own_parts:focal"}, "schedule own_parts:focal fails"),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_trains(blobs, settings, message):
  with pytest.raises(InputError, match=message) as error:
    _groups(blobs, a=replace(BASE, **{"dropout_rate": None, **settings}))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"model": "a:b("}, "is not of the form package.module:name"),
    ({"model": 3}, "unknown model"),
    ({"optimizer": "optax:lion", "weight_decay": 0.1}, "give the weight decay to the optimizer"),
    ({"loss": own_parts.focal, "label_smoothing": 0.1}, "label_smoothing is for"),
    ({"monitor": "val_f1"}, "unknown monitor"),
    ({"class_weight": "even"}, "class_weight must be None, 'balanced' or a list"),
    ({"start_from_epoch": -1}, "start_from_epoch must be an integer >= 0"),
  ],
)
def test_bad_settings_are_refused(settings, message):
  with pytest.raises(InputError, match=message):
    replace(BASE, **settings)


def test_only_what_has_a_name_trains_elsewhere(blobs, tmp_path):
  arm = BASE.replace(loss=lambda outputs, targets: own_parts.focal(outputs, targets))
  experiment = Experiment(question="Why?", arms={"a": arm}, dataset="blobs", num_seeds=1)
  with pytest.raises(InputError, match="'a' has a part without an importable name"):
    launch.run(experiment, tmp_path / "run", dataset=blobs, executor="dask")
  assert not (tmp_path / "run").exists()
  assert json.loads(experiment.dumps())["arms"]["a"]["loss"].startswith("<test_own:")


def test_a_module_with_another_source_is_another_run(blobs, tmp_path):
  def run(scale):
    class Local(nn.Module):
      @nn.compact
      def __call__(self, x):
        return nn.Dense(3)(x.reshape(len(x), -1) * scale)

    return Local

  options = {"seeds": 1, "margins": {"test_accuracy": 0.1}, "workdir": tmp_path}
  jaxdl.compare(blobs, {"a": BASE.replace(model=run(1), num_epochs=1)}, **options)
  lines = {"a": BASE.replace(loss=lambda z, t: own_parts.focal(z, t), num_epochs=1)}
  with pytest.raises(InputError, match="holds a run of another config"):
    jaxdl.compare(blobs, lines, **options)
