"""Laws of populations, each of which some project has broken unnoticed."""

import functools
import io
import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import form, member, predict, train_member
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import batches, data, population
from jaxdl import recipe as recipe_lib
from jaxdl.arm import Arm
from jaxdl.data.dataset import Split
from jaxdl.errors import InputError
from jaxdl.member import STATUS_NAMES
from jaxdl.optim import losses, metrics
from jaxdl.population import own_check, programs, progress, tuning
from jaxdl.population.devices import DeviceKind
from jaxdl.population.population import train_population
from jaxdl.population.progress import Progress


def _same(a, b, seeds=slice(None), other_seeds=slice(None), arms=slice(None), exact=True):
  """Compares all that two populations say of some of their members."""
  check = (
    np.testing.assert_array_equal
    if exact
    else functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
  )
  np.testing.assert_array_equal(a.status[seeds][:, arms], b.status[other_seeds])
  np.testing.assert_array_equal(a.epochs[seeds][:, arms], b.epochs[other_seeds])
  for name in population.CURVES:
    num_epochs = min(x.curves[name].shape[-1] for x in (a, b))
    check(
      a.curves[name][seeds][:, arms, :num_epochs], b.curves[name][other_seeds][..., :num_epochs]
    )
  for name in a.metrics:
    check(a.metrics[name][seeds][:, arms], b.metrics[name][other_seeds])


def test_shapes_and_order(trained, three_arms):
  assert trained.seeds == (0, 1, 2, 3, 4)
  assert list(trained.arms) == list(three_arms)
  num_epochs = trained.curves["train_loss"].shape[-1]
  assert all(curve.shape == (5, 3, num_epochs) for curve in trained.curves.values())
  assert trained.confusion.shape == (5, 3, 3, 3)
  assert (trained.confusion.sum(axis=(2, 3)) == 30).all()
  assert trained.mean_probabilities.shape == (3, 30, 3)
  np.testing.assert_allclose(trained.mean_probabilities.sum(axis=-1), 1)
  assert trained.chunks[0].chunk_size == 2
  assert trained.chunks[0].num_chunks == 3
  assert trained.chunks[0].chunk_arms == 3


def test_it_learns(trained):
  assert trained.metrics["test_accuracy"].mean() > 0.8
  assert (trained.curves["train_loss"][..., 0] > trained.metrics["train_loss"]).all()


def test_every_seed_is_another_draw(blobs, mlp_arm, trained):
  """No two learning curves touch; that order and dropout differ too, `test_train` says."""
  for name in ("train_loss", "val_loss"):
    first = trained.curves[name][..., 0]  # [S, A]
    assert len(np.unique(first)) == first.size


def test_another_root_seed_is_another_experiment(blobs, three_arms, trained):
  other = train_population(blobs, three_arms, seeds=2, root_seed=0, chunk_size=2)
  first, second = (of.curves["val_loss"][:2, :, 0] for of in (trained, other))
  assert (first != second).all()


def test_same_arguments_give_the_same_bits(blobs, three_arms, trained):
  again = train_population(blobs, three_arms, seeds=5, root_seed=3, chunk_size=2)
  _same(again, trained)
  np.testing.assert_array_equal(again.mean_probabilities, trained.mean_probabilities)


def test_member_alone_equals_its_slice(blobs, three_arms, trained):
  """The whole run of one member as one function, without vmap, against every member."""
  (recipe,) = recipe_lib.group_by_recipe(three_arms, recipe_lib.form_of(blobs), lambda *_: 4096)
  *_, train_set, validation = member(next(iter(three_arms.values())), blobs)
  for s, seed in enumerate(trained.seeds):
    for a, arm in enumerate(three_arms.values()):
      hyper = recipe_lib.hyperparams(arm, recipe)
      state, curves = train_member(recipe, batches.seed_key(3, seed), hyper, train_set, validation)
      assert state.num_epochs == trained.epochs[s, a]
      assert state.best_epoch == trained.best_epoch[s, a]
      assert STATUS_NAMES[int(state.status)] == trained.status[s, a]
      num_epochs = trained.curves["val_loss"].shape[-1]
      np.testing.assert_allclose(
        curves.val_loss[:num_epochs], trained.curves["val_loss"][s, a], rtol=2e-3
      )
      logits = predict(recipe, state.variables, blobs.test.inputs)
      loss = losses.categorical_cross_entropy(logits, blobs.test.targets).mean()
      assert float(loss) == pytest.approx(trained.metrics["test_loss"][s, a], rel=2e-3)
      confusion = metrics.confusion_matrix(
        blobs.test.targets, np.asarray(metrics.predict_class(logits, 0.5)), 3
      )
      np.testing.assert_array_equal(confusion, trained.confusion[s, a])


def test_population_of_one_equals_its_slice(blobs, three_arms, trained):
  for s in (0, 4):
    alone = train_population(blobs, three_arms, seeds=(s,), root_seed=3)
    _same(trained, alone, seeds=[s], exact=False)


def test_fewer_seeds_at_the_same_width_are_the_same_bits(blobs, three_arms, trained):
  fewer = train_population(blobs, three_arms, seeds=2, root_seed=3, chunk_size=2)
  _same(trained, fewer, seeds=slice(0, 2))


def test_permuting_seeds_permutes_results(blobs, three_arms, trained):
  order = (3, 1, 4, 0, 2)
  permuted = train_population(blobs, three_arms, seeds=order, root_seed=3, chunk_size=2)
  _same(trained, permuted, seeds=list(order))


def test_width_does_not_matter_but_for_rounding(blobs, three_arms, trained):
  wide = train_population(blobs, three_arms, seeds=5, root_seed=3, chunk_size=5)
  assert wide.chunks[0].chunk_size == 5
  assert wide.chunks[0].num_chunks == 1
  _same(trained, wide, exact=False)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_matter_at_all(blobs, three_arms, trained, num_workers):
  """Not even for the bits: a chunk is the same whoever trains it, and whenever."""
  workers = jax.local_devices()[:1] * num_workers
  again = train_population(blobs, three_arms, seeds=5, root_seed=3, chunk_size=2, workers=workers)
  assert again.num_workers == num_workers
  _same(again, trained)
  np.testing.assert_array_equal(again.mean_probabilities, trained.mean_probabilities)


def test_chunks_of_one_member_come_back_in_their_places(digits):
  """Seeds and arms that train one by one, as convolutional ones do on CPU, against each alone."""
  few = data.take_train(digits, 64)
  arm = Arm(num_epochs=2, batch_size=32, patience=None)
  arms = {"a": arm, "b": replace(arm, learning_rate=0.01)}
  together = train_population(few, arms, seeds=2)
  plan = together.chunks[0]
  assert (plan.chunk_size, plan.chunk_arms, plan.num_chunks) == (1, 1, 4)
  for a, name in enumerate(arms):
    for s in range(2):
      alone = train_population(few, {name: arms[name]}, seeds=(s,))
      _same(together, alone, seeds=[s], arms=[a])


def test_what_fails_in_a_worker_is_raised_and_stops_the_others(blobs, mlp_arm):
  class Failing(Progress):
    updates = 0

    def update(self, *counts):
      self.updates += 1
      if self.updates == 3:
        raise KeyboardInterrupt

  failing = Failing(io.StringIO())
  arm = replace(mlp_arm, num_epochs=500, patience=None)
  with pytest.raises(KeyboardInterrupt):
    train_population(blobs, {"a": arm}, seeds=8, chunk_size=1, progress=failing)
  assert failing.updates < 50


def _with_a_fourth(blobs, three_arms, **settings):
  """Trains three arms and the first of them again, with changed settings."""
  fourth = replace(three_arms["glorot_uniform"], **settings)
  return train_population(blobs, {**three_arms, "x": fourth}, seeds=3, chunk_size=2)


def test_arms_of_a_seed_are_paired(blobs, three_arms):
  """Two arms with the same settings are the same run; so nothing but the setting differs."""
  pair = _with_a_fourth(blobs, three_arms).select(["glorot_uniform", "x"])
  for values in (*pair.curves.values(), *pair.metrics.values()):
    np.testing.assert_array_equal(values[:, 0], values[:, 1])


def test_a_diverging_member_changes_no_other(blobs, three_arms):
  """Bit for bit, at the same width: the learning rate of one arm is 1e30, or it is not."""
  bad, good = (_with_a_fourth(blobs, three_arms, learning_rate=rate) for rate in (1e30, 1e-3))
  assert (bad.status[:, 3] == "diverged").all()
  assert (bad.status[:, :3] != "diverged").all()
  assert good.scores("test_accuracy").diverged_as is None
  # The 30 test images have three classes, ten each: precision 1/3 of one, recall 1 of one.
  chance = {"test_accuracy": 1 / 3, "precision": 1 / 9, "recall": 1 / 3, "f1": 0.5 / 3}
  for metric, expected in chance.items():
    assert bad.scores(metric).diverged_as == pytest.approx(expected)
  assert bad.scores("test_loss").diverged_as == bad.metrics["test_loss"][:, :3].max()
  for name in population.CURVES:
    num_epochs = min(p.curves[name].shape[-1] for p in (bad, good))
    a, b = (p.curves[name][:, :3, :num_epochs] for p in (bad, good))
    np.testing.assert_array_equal(a, b)
  for name in bad.metrics:
    np.testing.assert_array_equal(bad.metrics[name][:, :3], good.metrics[name][:, :3])
    assert np.isnan(bad.metrics[name][:, 3]).all()
  assert (bad.confusion[:, 3] == 0).all()
  assert np.isnan(bad.scores("test_accuracy").values[:, 3]).all()
  assert np.isnan(bad.scores("epochs").values[:, 3]).all()


@pytest.fixture
def eager(three_arms):
  """Two arms whose members stop at different epochs."""
  return {
    name: replace(arm, patience=0, num_epochs=25, learning_rate=0.01)
    for name, arm in list(three_arms.items())[:2]
  }


def test_early_stopping_is_each_member_s_own(blobs, eager):
  """Members that stop at different epochs have the curves and tests of runs of their own."""
  # Observed only to share the programs of the next test.
  together = train_population(blobs, eager, seeds=4, chunk_size=4, observe=_observe)
  assert len(np.unique(together.epochs)) > 2
  for a, (name, arm) in enumerate(eager.items()):
    for s in range(4):
      alone = train_population(blobs, {name: arm}, seeds=(s,))
      _same(together, alone, seeds=[s], arms=[a], exact=False)


def test_stopped_seeds_are_left_out_of_the_rest_of_their_chunk(blobs, eager, monkeypatch):
  """Compacting changes nothing but the rounding, wherever in the chunk the others stand."""
  arguments = {"seeds": 4, "chunk_size": 4, "observe": _observe}
  monkeypatch.setattr(tuning, "compacted_size", lambda num_running, size, *_: size)
  whole = train_population(blobs, eager, **arguments)
  widths = []

  def compact(num_running, size, *_):
    widths.append(2 ** int(np.ceil(np.log2(num_running))))
    return min(widths[-1], size)

  monkeypatch.setattr(tuning, "compacted_size", compact)
  compacted = train_population(blobs, eager, **arguments)
  assert min(widths) < 4
  _same(whole, compacted, exact=False)
  np.testing.assert_allclose(compacted.mean_probabilities, whole.mean_probabilities, atol=1e-3)
  for arm in eager:
    a, b = (p.observations["bias"][arm] for p in (whole, compacted))
    for s, epochs in enumerate(whole.epochs[:, list(eager).index(arm)]):
      np.testing.assert_allclose(a[s, : epochs + 1], b[s, : epochs + 1], rtol=2e-3, atol=1e-4)


def test_compacting_has_to_pay():
  assert tuning.compacted_size(3, 8, 1e12, "cpu") == 4
  assert tuning.compacted_size(5, 8, 1e12, "cpu") == 8  # it would save no half
  assert tuning.compacted_size(3, 8, 1e9, "cpu") == 8  # compiling would take longer
  assert tuning.compacted_size(1, 64, 1e13, "gpu") == 1
  assert tuning.compacted_size(1, 1, 1e13, "cpu") == 1


def test_arms_of_several_recipes_come_back_in_order(blobs, mlp_arm):
  """Groups are trained one after the other; results stand where their arms stood."""
  arms = {
    "adam": mlp_arm,
    "sgd": replace(mlp_arm, optimizer="sgd", num_epochs=2, learning_rate=0.01),
    "adam, faster": replace(mlp_arm, learning_rate=0.01),
  }
  mixed = train_population(blobs, arms, seeds=2, chunk_size=2)
  assert [chunk.arms for chunk in mixed.chunks] == [("adam", "adam, faster"), ("sgd",)]
  alone = train_population(blobs, {"sgd": arms["sgd"]}, seeds=2, chunk_size=2)
  _same(mixed, alone, arms=[1])
  assert (mixed.epochs[:, 1] == 2).all()
  assert np.isnan(mixed.curves["train_loss"][:, 1, 2:]).all()
  np.testing.assert_allclose(mixed.curves["learning_rate"][:, 2, 0], 0.01)


def test_changing_values_compiles_nothing(blobs, mlp_arm):
  compiled = []
  name = "/jax/core/compile/backend_compile_duration"
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if event == name else None
  )
  base = {"a": mlp_arm, "b": replace(mlp_arm, kernel_initializer="random_normal")}
  train_population(blobs, base, seeds=2)
  assert compiled
  compiled.clear()
  other = {
    "c": replace(mlp_arm, learning_rate=0.1, patience=None, min_delta=0.1, threshold=0.7),
    "d": replace(mlp_arm, kernel_initializer="random_normal(0.2)", patience=0),
  }
  train_population(blobs, other, seeds=2, root_seed=9)
  assert compiled == []


def test_programs_have_the_precision_of_the_caller(blobs, mlp_arm):
  """Whichever thread compiles them, and whatever was compiled before."""
  seen = []

  def loss(outputs, targets):
    seen.append(jax.config.jax_default_matmul_precision)
    return losses.categorical_cross_entropy(outputs, targets)

  arm = replace(mlp_arm, loss=loss, num_epochs=1, model="mlp(2)")
  for precision in ("float32", "tensorfloat32"):
    seen.clear()
    with jax.default_matmul_precision(precision):
      train_population(blobs, {"a": arm}, seeds=1)
    assert set(seen) == {precision}


def test_nothing_is_copied_between_host_and_device_inside_an_epoch(blobs, three_arms, monkeypatch):
  guarded = []
  compile_programs = programs.compile_programs

  def compile_guarded(*shapes):
    compiled = compile_programs(*shapes)

    def train_epoch(*arguments):
      guarded.append(arguments)
      with jax.transfer_guard("disallow"):
        return jax.block_until_ready(compiled.train_epoch(*arguments))

    return compiled._replace(train_epoch=train_epoch)

  monkeypatch.setattr(programs, "compile_programs", compile_guarded)
  result = train_population(blobs, three_arms, seeds=2, chunk_size=1)
  assert len(guarded) == result.epochs.max(axis=1).sum()
  with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="transfer"):
    jax.jit(jnp.sin)(np.ones(3))  # the guard does guard


def test_binary_thresholds(digits):
  """The coursework's threshold, and 0.5 beside it, from one sigmoid output."""
  arm = Arm(
    num_epochs=3, batch_size=32, patience=None, threshold=0.9, kernel_initializer="he_normal"
  )
  result = train_population(digits, {"cnn": arm}, seeds=2)
  assert result.num_params[0, 0] == 20_417
  predicted = (result.mean_probabilities.shape, result.confusion_at_half.shape)
  assert predicted == ((1, 89, 2), (2, 1, 2, 2))
  assert [*result.metrics, "epochs"] == list(population.metric_names(result.arms, digits))
  alone = train_population(digits, {"cnn": arm}, seeds=1)
  probability = alone.mean_probabilities[0, :, 1]  # [N], that of a 7
  for threshold, counts, suffix in (
    (0.9, alone.confusion, ""),
    (0.5, alone.confusion_at_half, "_at_half"),
  ):
    predicted = (probability > threshold).astype(int)
    expected = metrics.confusion_matrix(digits.test.targets, predicted, 2)
    np.testing.assert_array_equal(counts[0, 0], expected)
    accuracy = (predicted == digits.test.targets).mean()
    assert alone.metrics[f"test_accuracy{suffix}"][0, 0] == pytest.approx(accuracy)
  assert (alone.confusion != alone.confusion_at_half).any()


def test_without_validation(blobs, mlp_arm):
  empty = Split(blobs.train.inputs[:0], blobs.train.targets[:0])
  whole = replace(blobs, validation=empty)
  result = train_population(whole, {"a": replace(mlp_arm, patience=None)}, seeds=1)
  assert not {"val_loss", "val_accuracy"} & set(result.metrics)
  assert np.isnan(result.curves["val_loss"]).all()
  assert (result.epochs == 6).all()
  assert (result.best_epoch == 0).all()
  for arm in (mlp_arm, replace(mlp_arm, patience=None, restore_best=True)):
    with pytest.raises(InputError, match="needs a validation set"):
      train_population(whole, {"a": arm}, seeds=1)


def test_a_member_that_diverges_in_its_last_update_is_marked(blobs, mlp_arm):
  """Its training loss was finite when it was taken; only the test shows that nothing is left."""
  empty = Split(blobs.train.inputs[:0], blobs.train.targets[:0])
  arm = replace(
    mlp_arm, optimizer="sgd", learning_rate=1e30, batch_size=100, num_epochs=1, patience=None
  )
  result = train_population(replace(blobs, validation=empty), {"a": arm}, seeds=2)
  assert (result.status == "diverged").all()
  assert (result.confusion == 0).all()
  assert all(np.isnan(values).all() for values in result.metrics.values())


def test_restored_weights_are_what_is_tested(blobs, mlp_arm):
  """A run that keeps its best weights reports what a run of just so many epochs reports."""
  eager = replace(mlp_arm, patience=2, num_epochs=30, learning_rate=0.01)
  kept = train_population(blobs, {"a": replace(eager, restore_best=True)}, seeds=1)
  best = int(kept.best_epoch[0, 0])
  assert best < kept.epochs[0, 0]
  short = train_population(blobs, {"a": replace(eager, num_epochs=best, patience=None)}, seeds=1)
  for name in short.metrics:
    np.testing.assert_allclose(kept.metrics[name], short.metrics[name], rtol=1e-5)


@given(num_seeds=st.integers(1, 300), most=st.integers(1, 300))
def test_chunks_cover_the_seeds_and_are_as_equal_as_may_be(num_seeds, most):
  size = tuning.even_size(num_seeds, most)
  assert 1 <= size <= most
  num_chunks = -(-num_seeds // size)
  assert num_chunks == -(-num_seeds // most)
  # One seed fewer in each would not do.
  assert (size - 1) * num_chunks < num_seeds


def test_default_chunks_are_bounded_by_memory(digits, mlp_arm):
  arms = {"a": Arm()}
  (recipe,) = recipe_lib.group_by_recipe(arms, form(2, 218), lambda *_: 512)
  hyper = recipe_lib.hyperparams(arms["a"], recipe)
  state = own_check.member_shapes(recipe, hyper)

  def default(num_arms, gibibytes):
    device = DeviceKind("gpu", "a GPU", gibibytes * 2**30)
    return tuning.default_chunk(recipe, 10_000, num_arms, state, hyper, device)

  (small, _), (large, _) = (default(1, gibibytes) for gibibytes in (4, 24))
  assert 1 <= small < large < 128
  assert large == pytest.approx(6 * small, rel=0.2)
  assert default(3, 24) == (pytest.approx(large / 3, rel=0.1), 3)
  assert default(1, 8000) == (127, 1)  # 79 chunks of at most 128


@pytest.mark.parametrize(
  ("model", "expected"), [("mlp(16)", (4, 2)), ("mlp(64,64)", (1, 1)), ("cnn_binary", (1, 1))]
)
def test_on_cpu_only_small_members_train_together(model, expected):
  arm = Arm(model=model)
  (recipe,) = recipe_lib.group_by_recipe({"a": arm}, form(2, 218), lambda *_: 512)
  hyper = recipe_lib.hyperparams(arm, recipe)
  state = own_check.member_shapes(recipe, hyper)
  cpu = DeviceKind("cpu", "a CPU", None)
  assert tuning.default_chunk(recipe, 40, 2, state, hyper, cpu) == expected


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"seeds": 0}, "seeds must be an integer >= 1"),
    ({"seeds": 2.5}, "seeds must be an integer"),
    ({"seeds": ()}, "one or more distinct integers"),
    ({"seeds": (1, 1)}, "one or more distinct integers"),
    ({"seeds": (-1,)}, "a seed must be an integer >= 0"),
    ({"seeds": 1, "root_seed": 2**32}, "root_seed must be an integer <= 4294967295"),
    ({"seeds": 1, "chunk_size": 0}, "chunk_size must be an integer >= 1"),
    ({"seeds": 1, "slice_size": "all"}, "slice_size must be an integer"),
  ],
)
def test_bad_arguments_are_refused(blobs, mlp_arm, arguments, message):
  with pytest.raises(InputError, match=message):
    train_population(blobs, {"a": mlp_arm}, **arguments)


def test_settings_that_do_not_fit_the_data_are_refused(blobs, mlp_arm):
  with pytest.raises(InputError, match="no arm"):
    train_population(blobs, {}, seeds=1)
  with pytest.raises(InputError, match="tells 2 classes apart, the dataset has 3"):
    train_population(blobs, {"a": replace(mlp_arm, loss="binary_cross_entropy")}, seeds=1)


def test_scores_of_an_unknown_metric(trained):
  with pytest.raises(InputError, match="did you mean 'test_accuracy'"):
    trained.scores("test_acuracy")
  assert trained.scores("test_loss").higher_is_better is False
  assert trained.scores("test_accuracy").higher_is_better is True


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_progress_logs_lines_where_there_is_no_terminal(
  blobs, three_arms, caplog, monkeypatch, seconds
):
  """One an epoch, or so many seconds apart; the first and the last in any case."""
  monkeypatch.setattr(progress, "_seconds_between_lines", lambda _: seconds)
  with caplog.at_level(logging.INFO, logger="jaxdl"):
    result = train_population(
      blobs, three_arms, seeds=4, chunk_size=2, workers=jax.local_devices()[:1]
    )
  lines = [record.getMessage() for record in caplog.records]
  first, second = (result.epochs[i : i + 2].max() for i in (0, 2))
  assert len(lines) == (2 if seconds else first + second)
  assert lines[0].startswith("chunk 1/2, epoch 1/6: 0/12 members done")
  assert "chunk 2/2" in lines[-1]
  assert "12/12 members done" in lines[-1]
  assert "00:00 left" in lines[-1]


def test_progress_is_a_bar_on_a_terminal(blobs, three_arms):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  result = train_population(blobs, three_arms, seeds=2, progress=Progress(stream))
  last = stream.getvalue().split("\r")[-1]
  total = result.epochs.sum()
  assert f"{total}/{total}" in last
  assert "6/6 members done" in last


def test_losses_are_arms_of_one_program(blobs, mlp_arm):
  """And trains as it does alone; of two, since each is a program to compile."""
  names = ("categorical_cross_entropy", "mean_squared_error", "hinge", "softmax_hinge")
  arms = {name: replace(mlp_arm, loss=name, patience=None) for name in names}
  together = population.train_population(blobs, arms, seeds=2, chunk_size=2)
  assert len(together.chunks) == 1
  for name in names[1:3]:
    alone = population.train_population(blobs, {name: arms[name]}, seeds=2, chunk_size=2)
    np.testing.assert_allclose(
      together.select([name]).curves["train_loss"], alone.curves["train_loss"], rtol=1e-4
    )


def test_what_is_traced_shares_a_program(blobs, mlp_arm):
  """Schedules, plateaus, L2, decay, smoothing, the optimizer's numbers; and no arm changes."""
  arms = {
    "plain": mlp_arm,
    "cosine": replace(mlp_arm, schedule="cosine"),
    "plateau": replace(mlp_arm, plateau_patience=1),
    "l2": replace(mlp_arm, l2=0.01),
    "decay": replace(mlp_arm, weight_decay=0.01),
    "smooth": replace(mlp_arm, label_smoothing=0.1),
    "b1": replace(mlp_arm, optimizer="adam(b1=0.5)"),
  }
  together = population.train_population(blobs, arms, seeds=2, chunk_size=2)
  assert len(together.chunks) == 1
  alone = population.train_population(blobs, {"plain": mlp_arm}, seeds=2, chunk_size=2)
  np.testing.assert_allclose(
    together.curves["train_loss"][:, :1], alone.curves["train_loss"], rtol=1e-4
  )
  own = population.train_population(blobs, {"b1": arms["b1"]}, seeds=2, chunk_size=2)
  np.testing.assert_allclose(
    together.curves["train_loss"][:, -1:], own.curves["train_loss"], rtol=1e-4
  )
  losses = together.curves["train_loss"][0, :, 2]
  assert len(np.unique(losses)) == len(arms) - 1  # a plateau of one epoch has not come yet


def _observe(recipe, variables, hyper, train_set, validation, test):
  del recipe, hyper
  sizes = jnp.array([len(split.targets) for split in (train_set, validation, test)])
  return {"bias": variables.params["Dense_0"]["bias"], "sizes": sizes}


def test_observations_start_before_the_first_epoch(blobs, mlp_arm):
  arms = {
    "zeros": replace(mlp_arm, bias_initializer="zeros"),
    "sgd": replace(mlp_arm, optimizer="sgd", bias_initializer="constant(0.5)", num_epochs=4),
  }
  result = population.train_population(
    blobs, arms, seeds=3, chunk_size=2, observe=_observe, keep_logits=True
  )
  bias = result.observations["bias"]
  assert list(bias) == list(arms)
  assert bias["zeros"].shape[:1] + bias["zeros"].shape[2:] == (3, 128)
  assert (bias["zeros"][:, 0] == 0).all()
  assert (bias["sgd"][:, 0] == 0.5).all()
  assert bias["sgd"].shape[1] == 5
  assert (bias["sgd"][:, 1] != 0.5).any()
  assert (result.observations["sizes"]["sgd"] == [50, 20, 30]).all()
  plain = population.train_population(blobs, arms, seeds=3, chunk_size=2)
  assert plain.observations == {}
  assert plain.logits is None
  _assert_same_metrics(result, plain)
  # The logits that were kept are those that the results are about.
  predicted = result.logits["sgd"].argmax(axis=-1)  # [S, N]
  accuracy = (predicted == blobs.test.targets).mean(axis=-1)
  np.testing.assert_array_equal(accuracy, result.metrics["test_accuracy"][:, 1])


def _assert_same_metrics(a, b):
  for name in a.metrics:
    np.testing.assert_array_equal(a.metrics[name], b.metrics[name])


def test_a_selection_is_the_population_of_its_arms(blobs, three_arms, trained):
  names = ["random_normal", "glorot_uniform"]
  chosen = trained.select(names)
  assert list(chosen.arms) == names
  for metric in (*trained.metrics, "epochs"):
    whole = trained.scores(metric)
    np.testing.assert_array_equal(
      chosen.scores(metric).values, whole.values[:, [whole.arms.index(n) for n in names]]
    )
  assert chosen.confusion.shape[1] == len(chosen.mean_probabilities) == 2
  with pytest.raises(InputError, match="unknown arm 'random_norm'; did you mean 'random_normal'"):
    trained.select(["random_norm"])


@pytest.mark.parametrize(
  ("name", "context"),
  [
    ("JAX_ENABLE_X64", lambda: jax.enable_x64(True)),
    ("JAX_DISABLE_JIT", jax.disable_jit),
    ("JAX_DEBUG_INFS", lambda: jax.debug_infs(True)),
    ("JAX_DEBUG_NANS", lambda: jax.debug_nans(True)),
    ("JAX_NUMPY_DTYPE_PROMOTION", lambda: jax.numpy_dtype_promotion("strict")),
  ],
)
def test_settings_of_jax_under_which_nothing_trains_are_refused(name, context, blobs, mlp_arm):
  with context(), pytest.raises(InputError, match=f"see the environment variable {name}"):
    train_population(blobs, {"a": mlp_arm}, seeds=1)
