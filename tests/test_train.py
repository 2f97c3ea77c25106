"""One member: its batches, its early stopping, its divergence."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import (
  create_member,
  epoch_scratch,
  epoch_slices,
  evaluate,
  form,
  member,
  predict,
  train_member,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import batches, data, forward, train
from jaxdl import recipe as recipe_lib
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from jaxdl.forward import Variables
from jaxdl.member import (
  DIVERGED,
  EARLY_STOPPED,
  FINISHED,
  RUNNING,
  EpochMetrics,
  MemberState,
  after_epoch,
  reported_variables,
)
from jaxdl.nn import models
from jaxdl.optim import losses, plateau
from jaxdl.population import tuning


def _recipe(slice_size=8, **settings):
  """Returns a recipe, those settings apart one that does not matter."""
  defaults = {"model": "mlp", "loss": "categorical_cross_entropy", "optimizer": "sgd"}
  defaults |= {"dropout_rate": 0.0, "batch_size": 8, "num_epochs": 1}
  arm = Arm(**{**defaults, **settings})
  (recipe,) = recipe_lib.group_by_recipe({"arm": arm}, form(3, 10**6), lambda _: slice_size)
  return recipe


def _train(arm, dataset, slice_size=4096):
  return train_member(*member(arm, dataset, slice_size))


def _initial_params(arm, dataset):
  recipe, key, hyper, *_ = member(arm, dataset)
  return create_member(recipe, key, hyper).params


@functools.partial(jax.jit, static_argnums=0)
def _gradient(recipe, params, images, labels, smoothing=0.0):
  """Of the mean cross-entropy of three classes, from its definition."""

  def mean_loss(params):
    logits = forward.predict(recipe, Variables(params, {}), images)  # [N, 3]
    targets = (1 - smoothing) * jax.nn.one_hot(labels, 3) + smoothing / 3
    return -(targets * jax.nn.log_softmax(logits)).sum(axis=-1).mean()

  return jax.grad(mean_loss)(params)


def _descend_by_hand(arm, dataset, rates, slice_size=4096):
  """Returns the parameters after an epoch, each step with the mean gradient of its batch."""
  recipe, key, _, train_set, _ = member(arm, dataset, slice_size)
  params = _initial_params(arm, dataset)
  slices = epoch_slices(recipe, key, 0, len(train_set.targets))
  for rate, indices, weights in zip(
    rates, np.asarray(slices.indices), np.asarray(slices.weights), strict=True
  ):
    batch = indices[weights == 1]
    grads = _gradient(recipe, params, *(np.asarray(x)[batch] for x in train_set[:2]))
    params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, grads)
  return params


@settings(max_examples=6)
@given(
  num_examples=st.integers(1, 70),
  batch_size=st.integers(1, 70),
  slice_size=st.integers(1, 70),
  epoch=st.integers(0, 3),
)
def test_every_example_is_in_exactly_one_batch(num_examples, batch_size, slice_size, epoch):
  recipe = _recipe(batch_size=batch_size, slice_size=slice_size)
  slices = epoch_slices(recipe, batches.seed_key(0, 0), epoch, num_examples)
  num_steps, _, slice_len = slices.indices.shape
  assert num_steps == -(-num_examples // batch_size)
  assert slice_len <= slice_size
  real = np.asarray(slices.weights) == 1
  assert sorted(np.asarray(slices.indices)[real]) == list(range(num_examples))
  sizes = real.sum(axis=(1, 2))
  assert (sizes[:-1] == batch_size).all()
  assert sizes[-1] == num_examples - batch_size * (num_steps - 1)


def test_coursework_has_twenty_steps_an_epoch():
  """9,916 images in batches of 512: nineteen full ones and one of 188."""
  recipe = _recipe(batch_size=512, slice_size=32)
  slices = epoch_slices(recipe, batches.seed_key(0, 0), 0, 9_916)
  assert slices.indices.shape == (20, 16, 32)
  assert np.asarray(slices.weights).sum(axis=(1, 2)).tolist() == [512] * 19 + [188]


def test_order_depends_on_seed_and_epoch_alone():
  def order(seed, epoch, batch_size=8, slice_size=8):
    recipe = _recipe(batch_size=batch_size, slice_size=slice_size)
    slices = epoch_slices(recipe, batches.seed_key(0, seed), epoch, 40)
    real = np.asarray(slices.weights) == 1
    return np.asarray(slices.indices)[real].tolist()

  assert order(0, 0) == order(0, 0, batch_size=7, slice_size=3)
  assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_dropout_keys_differ_everywhere(mlp_arm, blobs):
  recipe = member(mlp_arm, blobs).recipe
  keys = [
    jax.random.key_data(epoch_slices(recipe, batches.seed_key(0, s), e, 50).dropout_keys)
    for s in range(2)
    for e in range(2)
  ]
  rows = np.concatenate([np.asarray(k).reshape(-1, 2) for k in keys])
  assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("model", ["mlp", "cnn_binary"])
def test_gradient_in_slices_is_the_gradient_of_the_batch(blobs, digits, mlp_arm, model):
  """A run whose batches pass in slices is the run whose batches pass whole, dropout included."""
  if model == "mlp":
    dataset, arm = blobs, mlp_arm
  else:
    dataset, arm = data.take_train(digits, 30), Arm(batch_size=20, num_epochs=2, patience=None)
  whole, sliced = (_train(arm, dataset, slice_size=size)[1] for size in (4096, 7))
  np.testing.assert_allclose(whole.train_loss, sliced.train_loss, rtol=2e-4)
  np.testing.assert_allclose(whole.val_loss, sliced.val_loss, rtol=2e-4)


def test_one_step_by_hand(blobs):
  """Full-batch gradient descent, against the gradient of the mean over the whole set."""
  before, after, grads = _one_step(blobs)
  _assert_close(after, jax.tree.map(lambda p, g: p - 0.1 * g, before, grads))


def test_partial_batch_has_the_gradient_of_its_own_examples(blobs):
  """An epoch of two batches, 32 and 18 examples, against two steps with the mean over each."""
  arm = Arm(
    model="mlp",
    loss="categorical_cross_entropy",
    optimizer="sgd",
    learning_rate=0.5,
    batch_size=32,
    num_epochs=1,
    patience=None,
    dropout_rate=0.0,
  )
  state, _ = _train(arm, blobs, slice_size=10)
  _assert_close(state.params, _descend_by_hand(arm, blobs, (0.5, 0.5), slice_size=10), rtol=1e-3)


@pytest.mark.skipif(
  jax.__version_info__ < (0, 11), reason="XLA of that time copies whatever it is told"
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_updates_weights_where_they_are(blobs, optimizer):
  """An epoch needs no room for another kernel, though the backward pass reads them all."""
  arm = Arm(model="mlp(128,128,128)", loss="categorical_cross_entropy", optimizer=optimizer,
            batch_size=1, num_epochs=1, patience=None, dropout_rate=0.0)  # fmt: skip
  assert epoch_scratch(arm, blobs) < 4 * 128 * 128


def test_training_loss_is_the_mean_over_examples_not_over_batches(blobs):
  """With a learning rate of zero in effect, the last batch's loss weighs as its examples do."""
  arm = Arm(model="mlp", loss="categorical_cross_entropy", learning_rate=1e-30, batch_size=16,
            num_epochs=1, patience=None, dropout_rate=0.0)  # fmt: skip
  state, curves = _train(arm, blobs)
  recipe, _key, hyper, train_set, _validation = member(arm, blobs)
  loss, correct, _ = evaluate(recipe, state.variables, train_set, hyper)
  assert curves.train_loss[0] == pytest.approx(float(loss), rel=1e-5)
  assert curves.train_correct[0] == correct


@settings(max_examples=8)
@given(num_images=st.integers(1, 30), predict_size=st.integers(1, 40))
def test_prediction_covers_every_image(blobs, mlp_arm, num_images, predict_size):
  recipe = member(mlp_arm, blobs).recipe
  params = _initial_params(mlp_arm, blobs)
  images = blobs.test.inputs[:num_images]
  whole = predict(recipe, Variables(params, {}), images)
  sliced = predict(replace(recipe, predict_size=predict_size), Variables(params, {}), images)
  np.testing.assert_allclose(sliced, whole, atol=1e-5)
  assert whole.shape == (num_images, 3)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("model", ["cnn_binary", "cnn_mnist"])
def test_prediction_by_native_convolution(digits, model, activation):
  """What a member alone on a CPU core predicts by, against the convolution it trains by."""
  arm = Arm(model=model, activation=activation)
  recipe = member(arm, digits).recipe
  state = jax.eval_shape(lambda: train.create_member(recipe, *member(arm, digits)[1:3]))
  native = tuning.specialize(replace(recipe, slice_size=2), state, 1, "cpu")
  assert native.native_conv
  images = digits.test.inputs
  params = _initial_params(arm, digits)
  expected = predict(recipe, Variables(params, {}), images)
  np.testing.assert_allclose(predict(native, Variables(params, {}), images), expected, atol=1e-5)


def test_only_a_cnn_alone_on_a_cpu_predicts_by_native_convolution():
  cnn, mlp = (_recipe(model=model, batch_size=8) for model in ("cnn_mnist", "mlp"))
  alone = tuning.specialize(cnn, None, 1, "cpu")
  assert alone == replace(cnn, predict_size=32 * 8, native_conv=True)
  # Mapped over, it would be a grouped convolution.
  for recipe, num_members, platform in ((cnn, 2, "cpu"), (cnn, 1, "gpu"), (mlp, 1, "cpu")):
    assert tuning.specialize(recipe, None, num_members, platform) == recipe
    assert recipe.predict_size == 16


def _keras_early_stopping(val_losses, patience, min_delta):
  """Keras's EarlyStopping(monitor="val_loss"), from its documentation, in plain Python."""
  best, best_epoch, wait = np.float32(np.inf), 0, 0
  for epoch, loss in enumerate(val_losses, start=1):
    wait += 1
    if np.float32(loss) + np.float32(min_delta) < best:
      best, best_epoch, wait = np.float32(loss), epoch, 0
    elif wait >= patience:
      return epoch, best_epoch, True
  return len(val_losses), best_epoch, False


def _follow(val_losses, patience, min_delta, num_epochs):
  """Feeds validation losses to the member's own bookkeeping."""
  arm = Arm(num_epochs=num_epochs, patience=patience, min_delta=min_delta, restore_best=True)
  (recipe,) = recipe_lib.group_by_recipe({"arm": arm}, form(2, 1000), lambda _: 8)
  hyper = recipe_lib.hyperparams(arm, recipe)
  variables = Variables({"epoch": jnp.float32(0)}, {})
  state = MemberState(variables, (), variables, jnp.float32(np.inf), jnp.int32(0),
                            jnp.int32(0), jnp.int32(0), jnp.int32(RUNNING),
                            plateau.initial_plateau())  # fmt: skip
  for epoch, loss in enumerate(val_losses, start=1):
    if state.status != RUNNING:
      break
    trained = state._replace(variables=Variables({"epoch": jnp.float32(epoch)}, {}))
    row = EpochMetrics(*map(jnp.float32, (0, 1, 1, loss, 1)), val_metrics={})
    state = after_epoch(recipe, state, trained, hyper, row, num_validation=1)
  return state


@pytest.mark.parametrize(
  ("val_losses", "patience", "min_delta", "epochs", "best"),
  [
    ([5, 4, 4, 4, 4, 4, 1], 4, 0.0, 6, 2),  # equal is not better
    ([5, 4, 3.9, 3.8, 3.7, 3.6, 3.5], 2, 0.5, 4, 2),  # better by less than min_delta is not better
    ([5, 6, 4, 6, 3, 6, 2], 2, 0.0, 7, 7),  # never two bad epochs in a row
    ([1, 2, 3], 0, 0.0, 2, 1),  # no patience at all
    ([3, 2, 1], None, 0.0, 3, 3),
    ([1, 2, 3], None, 0.0, 3, 1),
  ],
)
def test_early_stopping_by_hand(val_losses, patience, min_delta, epochs, best):
  state = _follow(val_losses, patience, min_delta, num_epochs=len(val_losses))
  assert (state.num_epochs, state.best_epoch) == (epochs, best)
  stopped = epochs < len(val_losses)
  assert state.status == (EARLY_STOPPED if stopped else FINISHED)
  assert state.best_variables.params["epoch"] == best
  assert state.params["epoch"] == epochs


@given(
  val_losses=st.lists(st.integers(0, 6).map(lambda n: n / 4), min_size=1, max_size=12),
  patience=st.integers(0, 4),
  min_delta=st.sampled_from([0.0, 0.25, 0.3]),
)
def test_early_stopping_is_that_of_keras(val_losses, patience, min_delta):
  state = _follow(val_losses, patience, min_delta, num_epochs=len(val_losses) + 1)
  epochs, best, stopped = _keras_early_stopping(val_losses, patience, min_delta)
  assert (state.num_epochs, state.best_epoch) == (epochs, best)
  assert (state.status == EARLY_STOPPED) == stopped


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_freezes_the_member(bad):
  state = _follow([3, 2, bad, 1], 4, 0.0, num_epochs=4)
  assert state.status == DIVERGED
  assert (state.num_epochs, state.best_epoch) == (3, 2)
  assert state.params["epoch"] == 2


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_an_arm_s_activation_is_the_one_it_trains_with(blobs, mlp_arm, activation):
  """The trained weights give the curve's validation loss in a model with that activation."""
  arm = replace(mlp_arm, activation=activation, loss="hinge", num_epochs=2)
  state, curves = _train(arm, blobs)
  images = blobs.validation.inputs / np.float32(255)
  zeros = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.zeros}
  loss = {}
  for name in ("relu", activation):
    model = models.create("mlp", name, num_outputs=3, dropout_rate=0.0, **zeros)
    logits = jax.jit(model.apply)({"params": state.params}, images)
    loss[name] = float(losses.hinge(logits, blobs.validation.targets).mean())
  assert float(curves.val_loss[-1]) == pytest.approx(loss[activation], rel=1e-5)
  assert loss["relu"] != pytest.approx(loss[activation], rel=0.01)


def test_curves_end_where_a_member_stops(blobs, mlp_arm):
  arm = replace(mlp_arm, patience=0, num_epochs=30, learning_rate=0.03, restore_best=True)
  state, curves = _train(arm, blobs)
  assert state.status == EARLY_STOPPED
  trained = np.arange(1, 31) <= int(state.num_epochs)
  for curve in jax.tree.leaves(curves):
    np.testing.assert_array_equal(np.isfinite(curve), trained)


def test_restored_weights_are_those_of_the_best_epoch(blobs, mlp_arm):
  arm = replace(mlp_arm, patience=1, num_epochs=30, learning_rate=0.03, restore_best=True)
  state, curves = _train(arm, blobs)
  recipe, _key, hyper, _train_set, validation = member(arm, blobs)
  assert 0 < int(state.best_epoch) < int(state.num_epochs)
  variables = reported_variables(recipe, state)
  loss = evaluate(recipe, variables, validation, hyper).loss
  assert float(loss) == pytest.approx(float(np.nanmin(curves.val_loss)), rel=1e-6)


def test_learning_rate_follows_its_array(blobs, mlp_arm):
  """Steps with rate zero change nothing; the curve shows the rate of an epoch's first step."""
  recipe, key, hyper, train_set, validation = member(replace(mlp_arm, patience=None), blobs)
  rates = np.zeros_like(hyper.learning_rate)
  rates[1] = 0.01
  hyper = hyper._replace(learning_rate=rates)
  _, curves = train_member(recipe, key, hyper, train_set, validation)
  np.testing.assert_allclose(curves.learning_rate, [0, 0.01, 0, 0, 0, 0])
  assert curves.val_loss[0] != curves.val_loss[1]
  assert (curves.val_loss[2:] == curves.val_loss[1]).all()


@pytest.mark.parametrize(
  ("arm_settings", "message"),
  [
    ({"model": "cnn"}, "unknown model 'cnn'; did you mean 'cnn_mnist'"),
    ({"loss": "hinges"}, "unknown loss"),
    ({"optimizer": "Adam"}, "did you mean 'adam'"),
    ({"activation": "thanh"}, "unknown activation 'thanh'; did you mean 'tanh'"),
    ({"kernel_initializer": "he_norm"}, "did you mean 'he_normal'"),
    ({"bias_initializer": "orthogonal"}, "a bias has one"),
    ({"learning_rate": 0}, "learning_rate must be a finite number > 0, not 0"),
    ({"learning_rate": "fast"}, "learning_rate must be"),
    ({"learning_rate": float("nan")}, "learning_rate must be"),
    ({"learning_rate": 1e-60}, "learning_rate must be"),  # zero as a float32
    ({"learning_rate": 1e39}, "learning_rate must be"),
    ({"patience": 10**11}, "patience must be an integer <= 2147483647"),
    ({"dropout_rate": 1.0}, r"dropout_rate must be a finite number in \[0, 1\)"),
    ({"threshold": 1}, "threshold must be"),
    ({"min_delta": -1.0}, "min_delta must be"),
    ({"batch_size": 0}, "batch_size must be an integer >= 1, not 0"),
    ({"batch_size": 2.5}, "batch_size must be an integer"),
    ({"num_epochs": True}, "num_epochs must be an integer"),
    ({"patience": -1}, "patience must be an integer >= 0"),
  ],
)
def test_bad_settings_are_refused(arm_settings, message):
  with pytest.raises(InputError, match=message):
    Arm(**arm_settings)


def _one_step(blobs, **settings):
  """Returns initial params, params after one full-batch step of sgd, and the plain gradient."""
  arm = Arm(model="mlp", loss="categorical_cross_entropy", optimizer="sgd", learning_rate=0.1,
            batch_size=1000, num_epochs=1, patience=None, dropout_rate=0.0)  # fmt: skip
  arm = replace(arm, **settings)
  recipe, *_, train_set, _ = member(arm, blobs)
  before = _initial_params(arm, blobs)
  state, _ = _train(arm, blobs)
  return before, state.params, _gradient(recipe, before, *train_set[:2], arm.label_smoothing)


def _assert_close(actual, expected, rtol=1e-4):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), actual, expected
  )


def test_l2_adds_the_gradient_of_the_penalty_on_kernels(blobs):
  before, after, grads = _one_step(blobs, l2=0.05)
  for name in before:
    kernel, bias = before[name]["kernel"], before[name]["bias"]
    # The derivative of 0.05 * sum(kernel^2) is 0.1 * kernel.
    _assert_close(after[name]["kernel"], kernel - 0.1 * (grads[name]["kernel"] + 0.1 * kernel))
    _assert_close(after[name]["bias"], bias - 0.1 * grads[name]["bias"])


def test_weight_decay_takes_a_share_of_every_parameter_away(blobs):
  before, after, grads = _one_step(blobs, weight_decay=0.2)
  expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.2 * p), before, grads)
  _assert_close(after, expected)


def test_label_smoothing_changes_the_targets(blobs):
  before, after, grads = _one_step(blobs, label_smoothing=0.3)
  _assert_close(after, jax.tree.map(lambda p, g: p - 0.1 * g, before, grads))


def test_adamw_decays_by_keras_s_default_unless_told_otherwise(blobs, mlp_arm):
  arm = replace(mlp_arm, optimizer="adamw")
  assert member(arm, blobs).hyper.weight_decay == np.float32(0.004)
  assert member(replace(arm, weight_decay=0.0), blobs).hyper.weight_decay == 0
  adam, plain = (
    _train(a, blobs)[1].train_loss
    for a in (replace(mlp_arm, optimizer="adam"), replace(arm, weight_decay=0.0))
  )
  np.testing.assert_array_equal(adam, plain)


def test_the_schedule_reaches_every_step(blobs, mlp_arm):
  """A rate that falls within the epoch: two steps by hand, at the schedule's two rates."""
  arm = replace(mlp_arm, optimizer="sgd", learning_rate=0.2, schedule="exponential(0.25)",
                batch_size=32, num_epochs=1, patience=None, dropout_rate=0.0)  # fmt: skip
  hyper = member(arm, blobs).hyper
  np.testing.assert_allclose(hyper.learning_rate, [[0.2, 0.1]], rtol=1e-6)  # 0.25^(1/2) = 1/2
  state, curves = _train(arm, blobs, slice_size=10)
  _assert_close(state.params, _descend_by_hand(arm, blobs, (0.2, 0.1), slice_size=10))
  assert curves.learning_rate[0] == np.float32(0.2)


def test_a_plateau_lowers_the_rate_of_the_epochs_that_follow(blobs, mlp_arm):
  """So large a min_delta that no epoch but the first is better: every second epoch halves it."""
  arm = replace(mlp_arm, patience=None, plateau_patience=2, plateau_factor=0.5,
                plateau_min_delta=100.0, learning_rate=0.004, min_learning_rate=0.0015)  # fmt: skip
  _, curves = _train(arm, blobs)
  # Epoch 1 is the first and so the best; 2 and 3 are not better, so that 4 has half the rate, ...
  expected = [0.004, 0.004, 0.004, 0.002, 0.002, 0.0015]
  np.testing.assert_allclose(curves.learning_rate, expected, rtol=1e-6)


@pytest.mark.parametrize(
  "schedule", ["constant", "step(0.5, 1)", "exponential(0.25)", "cosine", "warmup(3)", "one_cycle"]
)
def test_no_step_has_a_rate_below_the_lowest(blobs, mlp_arm, schedule):
  """Under every schedule, within an epoch and after a plateau; above it nothing changes."""
  arm = replace(mlp_arm, optimizer="sgd", learning_rate=0.2, schedule=schedule, num_epochs=4,
                patience=None, plateau_patience=1, plateau_min_delta=100.0)  # fmt: skip
  _, free = _train(arm, blobs)
  _, curves = _train(replace(arm, min_learning_rate=0.05), blobs)
  assert free.learning_rate.min() < 0.05
  np.testing.assert_array_equal(curves.learning_rate, np.maximum(free.learning_rate, 0.05))


def test_without_a_plateau_the_rate_is_the_schedule_s(blobs, mlp_arm):
  arm = replace(mlp_arm, patience=None, schedule="step(0.5, 2)", learning_rate=0.004)
  _, curves = _train(arm, blobs)
  expected = [0.004, 0.004, 0.002, 0.002, 0.001, 0.001]
  np.testing.assert_allclose(curves.learning_rate, expected, rtol=1e-6)


def test_augmentation_is_of_training_images_only(blobs, mlp_arm):
  """Draws differ between epochs, and evaluation sees the images as they are."""
  arm = replace(mlp_arm, rotation_range=90.0, shift_range=0.4, horizontal_flip=True,
                learning_rate=1e-30, dropout_rate=0.0, num_epochs=2, patience=None)  # fmt: skip
  recipe, _key, hyper, train_set, _validation = member(arm, blobs)
  state, curves = _train(arm, blobs)
  loss = evaluate(recipe, state.variables, train_set, hyper).loss
  assert curves.train_loss[0] != curves.train_loss[1]
  assert abs(curves.train_loss[0] - loss) > 1e-3
  assert curves.val_loss[0] == curves.val_loss[1]
  plain = member(replace(mlp_arm, dropout_rate=0.0), blobs).recipe
  slices = epoch_slices(plain, batches.seed_key(0, 0), 0, 50)
  assert slices.augmentation_keys is None
  assert slices.dropout_keys is None


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"schedule": "stepp(0.5, 2)"}, "did you mean 'step'"),
    ({"schedule": "warmup(20)", "num_epochs": 20}, "must be shorter than num_epochs"),
    ({"min_learning_rate": 0.01}, "min_learning_rate = 0.01 is above learning_rate = 0.001"),
    ({"plateau_factor": 1.0}, r"plateau_factor must be a finite number in \(0, 1\)"),
    ({"plateau_patience": -2}, "plateau_patience must be an integer >= 0"),
    ({"label_smoothing": 1.0}, "label_smoothing must be"),
    ({"label_smoothing": 0.1, "loss": "hinge"}, "not for loss 'hinge'"),
    ({"l2": -1.0}, "l2 must be a finite number >= 0"),
    ({"weight_decay": float("nan")}, "weight_decay must be"),
    ({"rotation_range": 360.0}, "rotation_range"),
    ({"shift_range": 1.0}, "shift_range"),
    ({"model": "mlp(64,0)"}, "sizes of hidden layers"),
  ],
)
def test_bad_schedules_and_regularization_are_refused(settings, message):
  with pytest.raises(InputError, match=message):
    Arm(**settings)


@pytest.mark.parametrize("same", ["", "same_weights", "same_order"])
def test_what_is_the_same_for_all_seeds(same, blobs, mlp_arm):
  arm = replace(mlp_arm, **({same: True} if same else {}))
  first, second = (member(arm, blobs, seed=seed) for seed in (0, 1))
  weights = [create_member(m.recipe, m.key, m.hyper).params for m in (first, second)]
  orders = [epoch_slices(m.recipe, m.key, 1, 50).indices for m in (first, second)]
  equal = jax.tree.map(np.array_equal, *weights)
  assert all(jax.tree.leaves(equal)) == (same == "same_weights")
  assert np.array_equal(*orders) == (same == "same_order")
