"""Adam in one pass: the step in C++ against NumPy's, and its training against XLA's."""

import ctypes
import functools
import importlib.util
import itertools
import pathlib
import shutil
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import arm as arm_lib
from jaxdl import (
  backprop,
  chunks,
  cluster,
  devices,
  fused_adam,
  gradient_check,
  models,
  optimizers,
  plan,
  report,
  train,
)
from jaxdl.arm import Arm, Recipe
from jaxdl.devices import DeviceKind
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment

needs_it = pytest.mark.skipif(
  fused_adam.why_missing() is not None, reason=f"no fused Adam: {fused_adam.why_missing()}"
)
CPU, CPU_WITH_IT = DeviceKind("cpu", "cpu", None), DeviceKind("cpu", "cpu", None, fused_adam=True)


@pytest.fixture
def anew():
  """Has it looked for anew, in the test and after it."""
  fused_adam.why_missing.cache_clear()
  yield
  fused_adam.why_missing.cache_clear()


def test_it_is_there_where_there_is_a_compiler(monkeypatch, anew):
  """Or else most of this file would be skipped."""
  monkeypatch.delenv("JAXDL_FUSED_ADAM", raising=False)
  cpu = pathlib.Path("/proc/cpuinfo")
  if shutil.which("c++") and cpu.exists() and " avx2 " in cpu.read_text():
    assert fused_adam.why_missing() is None


# One step.


def _adam(kernel, mu, nu, inputs, cotangents, rate, epsilon, keep, b1=0.9, b2=0.999):
  """The step in float64, from algorithm 1 of the paper."""
  gradient = inputs.T @ cotangents
  mu = b1 * mu + (1 - b1) * gradient
  nu = b2 * nu + (1 - b2) * gradient**2
  return keep * kernel - rate * mu / (np.sqrt(nu) + epsilon), mu, nu


def _step(batch, rows, columns, seed=0):
  """Returns the arrays that a step takes, in float64."""
  rng = np.random.default_rng(seed)
  kernel, mu = rng.normal(size=(2, rows, columns))
  nu = rng.normal(size=(rows, columns)) ** 2 + 0.1
  return kernel, mu, nu, rng.normal(size=(batch, rows)), rng.normal(size=(batch, columns))


def _check_step(update, batch, rows, columns, **scalars):
  arrays = _step(batch, rows, columns)
  expected = _adam(*arrays, **scalars)
  found = update(*(jnp.array(x, jnp.float32) for x in arrays), **scalars)
  for a, b in zip(found, expected, strict=True):
    # A sum of as many products as there are examples, each rounded.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * batch)


@jax.jit
def _update(kernel, mu, nu, inputs, cotangents, rate, epsilon, keep):
  gradient = fused_adam.Factors(inputs, cotangents)
  scalars = {"rate": rate, "epsilon": epsilon, "keep": keep}
  return fused_adam.update(kernel, mu, nu, gradient, **scalars, b1=0.9, b2=0.999)


# Around the borders of tiles, panels and blocks, of which none is a multiple of all.
SHAPES = (
  *itertools.product((1, 2, 33), (1, 3, 4, 5, 37), (1, 15, 16, 17, 63, 64, 65, 130)),
  (300, 9, 70),  # cotangents that outgrow the first cache
  (2, 1030, 260),  # state that outgrows the second
)


@needs_it
def test_a_step_is_adams():
  for shape in SHAPES:
    _check_step(_update, *shape, rate=0.01, epsilon=1e-7, keep=0.999)


@needs_it
@settings(max_examples=20)
@given(
  shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 150)),
  rate=st.floats(1e-6, 1),
  epsilon=st.floats(1e-9, 1),
  keep=st.floats(0.5, 1),
)
def test_a_step_is_adams_whatever_the_numbers(shape, rate, epsilon, keep):
  _check_step(_update, *shape, rate=rate, epsilon=epsilon, keep=keep)


@needs_it
def test_the_code_for_older_processors():
  """They have AVX2, not AVX-512; a processor that has both takes the latter, with the same bits."""
  library = ctypes.CDLL(str(fused_adam.library_file()))
  handler = jax.ffi.pycapsule(library.fused_adam_avx2)
  jax.ffi.register_ffi_target("fused_adam_test_avx2", handler, platform="cpu")

  def update(kernel, mu, nu, inputs, cotangents, rate, epsilon, keep):
    shape = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    scalars = jnp.array([rate, epsilon, keep], jnp.float32)
    b1, b2 = np.float64(0.9), np.float64(0.999)
    call = jax.ffi.ffi_call("fused_adam_test_avx2", (shape,) * 3)
    return call(kernel, mu, nu, inputs, cotangents, scalars, b1=b1, b2=b2)

  for shape in ((1, 4, 64), (1, 5, 70), (33, 8, 32), (33, 37, 65), (300, 9, 70)):
    _check_step(update, *shape, rate=0.01, epsilon=1e-7, keep=0.999)
    arrays = [jnp.array(x, jnp.float32) for x in _step(*shape)]
    for a, b in zip(update(*arrays, 0.1, 1e-7, 1.0), _update(*arrays, 0.1, 1e-7, 1.0), strict=True):
      np.testing.assert_array_equal(a, b)


@needs_it
def test_shapes_that_do_not_belong_together():
  kernel, mu, nu, inputs, cotangents = (jnp.array(x, jnp.float32) for x in _step(2, 4, 8))
  for bad in ((inputs[:, :3], cotangents), (inputs, cotangents[:, :7]), (inputs[:1], cotangents)):
    with pytest.raises(Exception, match="fused_adam: "):
      jax.block_until_ready(_update(kernel, mu, nu, *bad, 0.1, 1e-7, 1.0))


@needs_it
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_steps_with_factors_are_steps_with_their_product(weight_decay):
  """Three steps of `optimizers.step` with a kernel and a bias."""
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.array(rng.normal(size=shape), jnp.float32)

  params = {"kernel": draw(9, 33), "bias": draw(33)}
  run, reference = [(params, optimizers.get("adam").init(params))] * 2
  step = jax.jit(functools.partial(optimizers.step, "adam"))
  for _ in range(3):
    factors, bias = fused_adam.Factors(draw(5, 9), draw(5, 33)), draw(33)
    grads = {"kernel": factors.inputs.T @ factors.cotangents, "bias": bias}
    run = step(*run, {"kernel": factors, "bias": bias}, 0.01, weight_decay)
    reference = step(*reference, grads, 0.01, weight_decay)
  assert int(run[1].count) == 3
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), run, reference)


# Gradients as factors.


@pytest.mark.parametrize("model", ["mlp", "cifar_mlp", "cnn_binary", "cnn_mnist"])
def test_factors_are_those_of_the_gradient(model):
  network = models.create(
    model, num_outputs=3, kernel_init=nn.initializers.normal(0.1),
    bias_init=nn.initializers.normal(0.1), dropout_rate=0.5,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  images = jnp.array(rng.random((4, 10, 10, 1)), jnp.float32)
  keys = jax.random.split(jax.random.key(1), 4)
  params = network.init(jax.random.key(0), images)["params"]

  def loss(params):
    logits = network.apply({"params": params}, images, keys)
    return jnp.square(logits).sum(), {"logits": logits}

  expected, aux = jax.grad(loss, has_aux=True)(params)
  names = [name for name, of in params.items() if of["kernel"].ndim == 2]
  assert names
  grads, factors, found_aux = fused_adam.gradient_in_factors(loss, params, names, 4)
  assert list(factors) == names
  np.testing.assert_array_equal(found_aux["logits"], aux["logits"])
  for name, (inputs, cotangents) in factors.items():
    assert grads[name]["kernel"] is None
    kernel = inputs.T @ cotangents
    np.testing.assert_allclose(kernel, expected[name]["kernel"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grads[name]["bias"], expected[name]["bias"], rtol=1e-5, atol=1e-6)
  for name in set(params) - set(names):
    jax.tree.map(np.testing.assert_array_equal, grads[name], expected[name])


def test_which_kernels_are_left_in_factors():
  kernels = {
    "conv": (3, 3, 32, 64),
    "wide": (784, 128),
    "small": (64, 10),
    "narrow": (9_216, 1),
  }
  params = {name: {"kernel": np.zeros(shape)} for name, shape in kernels.items()}
  # In one slice they are there anyway.
  assert fused_adam.layers_with_factors(params, 1, 512) == ("wide", "small")
  # 784 * 128 = 100,352 is no less than 110 * (784 + 128) = 100,320, but than 111 times as much.
  assert fused_adam.layers_with_factors(params, 11, 10) == ("wide",)
  assert fused_adam.layers_with_factors(params, 3, 37) == ()


# Training.


def _run(arm, dataset, fused, slice_size=512):
  """Trains one member; returns its state and curves."""
  groups = arm_lib.group_by_recipe(
    {"arm": arm}, dataset.num_classes, len(dataset.train), lambda _: slice_size
  )
  (recipe,) = groups
  recipe = replace(recipe, fused_adam=fused)
  hyper = arm_lib.hyperparams(arm, recipe, -(-len(dataset.train) // recipe.batch_size))
  splits = (train.Examples(jnp.array(s.images), jnp.array(s.labels)) for s in dataset.splits[:2])
  run = jax.jit(functools.partial(train.train_member, recipe))
  return run(train.seed_key(0, 0), hyper, *splits)


@needs_it
@pytest.mark.parametrize(
  ("settings", "slice_size"),
  [
    ({"model": "mlp", "batch_size": 1}, 512),
    ({"model": "mlp", "batch_size": 32, "activation": "gelu"}, 512),  # the last batch is partial
    ({"model": "mlp(100,40)", "batch_size": 50, "optimizer": "adamw", "dropout_rate": 0.5}, 512),
    ({"model": "mlp", "batch_size": 32}, 10),  # slices, one of them padded
    ({"model": "cnn_mnist", "batch_size": 16, "dropout_rate": 0.5}, 8),
    ({"model": "cifar_mlp", "batch_size": 20, "rotation_range": 10.0}, 512),
  ],
)
def test_training_is_that_of_xla(digits, settings, slice_size, monkeypatch):
  """The whole run of a member; differences grow from rounding, as those of any two programs do."""
  arm = Arm(**{"loss": "categorical_cross_entropy", "num_epochs": 2, "patience": None, **settings})
  calls = []
  update = fused_adam.update
  monkeypatch.setattr(fused_adam, "update", lambda *a, **k: calls.append(a) or update(*a, **k))
  expected, expected_curves = _run(arm, digits, False, slice_size)
  assert not calls
  state, curves = _run(arm, digits, True, slice_size)
  assert calls
  np.testing.assert_allclose(curves.train_loss, expected_curves.train_loss, rtol=1e-3)
  np.testing.assert_allclose(curves.val_loss, expected_curves.val_loss, rtol=1e-3)
  for found, wanted in zip(*map(jax.tree.leaves, (state.params, expected.params)), strict=True):
    # Adam's first steps are as long for a gradient that is all rounding as for any other.
    assert np.quantile(np.abs(found - wanted), 0.99) < 1e-4


@needs_it
def test_one_step_of_training_is_the_step_by_hand():
  """`train_step` with factors: gradients derived by hand, and Adam's first step, rate * sign."""
  recipe = Recipe(
    model="mlp", num_outputs=3, losses=("hinge",), optimizer="adam", dropout_rate=0.3,
    batch_size=5, num_epochs=1, restore_best=False, kernel_initializers=("random_normal",),
    bias_initializers=("zeros",), slice_size=5, activation="tanh", fused_adam=True,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  examples = train.Examples(
    jnp.array(rng.integers(0, 256, (5, 4, 3, 1)), jnp.uint8), jnp.array([0, 2, 1, 1, 0])
  )
  params = {
    f"Dense_{i}": {"kernel": 0.2 * rng.normal(size=size), "bias": rng.normal(size=size[1])}
    for i, size in enumerate(itertools.pairwise([12, 128, 64, 3]))
  }
  start = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), params)
  slices = jax.tree.map(
    lambda leaf: leaf[0], train.epoch_slices(recipe, train.seed_key(0, 0), jnp.int32(0), 5)
  )
  arm = Arm(loss="hinge", kernel_initializer="random_normal", bias_initializer="zeros")
  hyper = arm_lib.hyperparams(replace(arm, num_epochs=1), recipe, 1)
  state = optimizers.get("adam").init(start)
  (after, state), _ = train.train_step(recipe, (start, state), examples, hyper, slices, 0.01)

  order = np.asarray(slices.indices).ravel()
  mask = gradient_check.dropout_mask(slices.dropout_keys.ravel(), 64, 0.3)
  images, labels = np.asarray(examples.images)[order] / 255, np.asarray(examples.labels)[order]
  by_hand = backprop.loss_and_gradients(
    "mlp", "tanh", "hinge", params, images, labels, mask, dropout_rate=0.3
  ).params
  for name, layer in by_hand.items():
    gradient = layer["kernel"]
    found = (after[name]["kernel"], state.mu[name]["kernel"], state.nu[name]["kernel"])
    np.testing.assert_allclose(found[1], 0.1 * gradient, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found[2], 0.001 * gradient**2, rtol=1e-4, atol=1e-12)
    # m / (1 - b1) over sqrt(v / (1 - b2)) + epsilon is g / (|g| + epsilon), where g is no rounding.
    clear = np.abs(gradient) > 1e-5
    assert clear.mean() > 0.5
    step = 0.01 * gradient / (np.abs(gradient) + 1e-7)
    expected = params[name]["kernel"] - step
    np.testing.assert_allclose(found[0][clear], expected[clear], rtol=1e-4, atol=1e-5)


@needs_it
@pytest.mark.skipif(
  jax.__version_info__ < (0, 11), reason="XLA of that time copies whatever it is told"
)
def test_neither_gradients_nor_copies_of_kernels_are_stored(blobs):
  """The compiled step computes no kernel's gradient, and updates kernels where they are."""
  arm = Arm(model="mlp(70,80)", loss="categorical_cross_entropy", batch_size=10, num_epochs=1,
            patience=None, dropout_rate=0.0)  # fmt: skip
  groups = arm_lib.group_by_recipe({"arm": arm}, 3, len(blobs.train), lambda _: 512)
  recipe = replace(next(iter(groups)), fused_adam=True)
  hyper = arm_lib.hyperparams(arm, recipe, 5)
  key = train.seed_key(0, 0)
  splits = [train.Examples(jnp.array(s.images), jnp.array(s.labels)) for s in blobs.splits[:2]]
  state = jax.eval_shape(lambda: train.create_member(recipe, key, hyper, (8, 8, 1)))
  epoch = jax.jit(functools.partial(train.train_epoch, recipe), donate_argnums=0)
  program = epoch.lower(state, key, hyper, *splits, jnp.int32(0)).compile().as_text()
  step = max(program.split("\n\n"), key=lambda part: part.count("custom-call("))
  assert step.count('custom_call_target="jaxdl_fused_adam"') == 2
  for shape in ("[64,70]", "[70,80]"):
    made = [line.split(" = ")[1] for line in step.splitlines() if f" = f32{shape}" in line]
    assert {line.split(" ")[1].split("(")[0] for line in made} == {"get-tuple-element"}


# Who uses it.


def test_who_trains_with_it():
  recipe = Recipe(
    model="mlp", num_outputs=3, optimizer="adam", dropout_rate=0.0, batch_size=8, num_epochs=1,
    restore_best=False, slice_size=8,
  )  # fmt: skip
  params = {"Dense_0": {"kernel": np.zeros((784, 128))}}
  for chosen in (recipe, replace(recipe, optimizer="adamw", weight_decay=True)):
    assert chunks.complete(chosen, 1, CPU_WITH_IT, params).fused_adam
  for other, num_members, device in (
    (recipe, 2, CPU_WITH_IT),  # mapped over
    (recipe, 1, CPU),
    (recipe, 1, DeviceKind("gpu", "a GPU", None)),
    (replace(recipe, optimizer="sgd"), 1, CPU_WITH_IT),
    (replace(recipe, l2=True), 1, CPU_WITH_IT),
    (replace(recipe, batch_size=200), 1, CPU_WITH_IT),  # 200 * (784 + 128) > 784 * 128
  ):
    assert not chunks.complete(other, num_members, device, params).fused_adam


def test_a_plan_says_so(digits):
  arms = {"adam": Arm(model="mlp(200)", loss="categorical_cross_entropy", patience=None)}
  for device in (CPU, CPU_WITH_IT):
    (group,) = plan.plan_groups(digits, arms, range(2), 0, device, chunk_size=1)
    assert group.plan.fused_adam == group.recipe.fused_adam == device.fused_adam


def test_a_run_goes_on_as_it_began(digits, tmp_path):
  """Results depend on it; a run from before there was a choice was one without it."""
  arms = {"adam": Arm(model="mlp(200)", loss="categorical_cross_entropy", patience=None)}
  plans = {
    device: plan.plan_groups(digits, arms, range(2), 0, device, chunk_size=1)
    for device in (CPU, CPU_WITH_IT)
  }
  experiment = Experiment(question="?", arms=arms, dataset="digits", num_seeds=2)
  for first, second in itertools.permutations(plans):
    path = tmp_path / f"began with {first.fused_adam}"
    with report.Workdir(path, experiment) as workdir:
      workdir.claim(digits, plans[first], first)
      assert ("fused_adam" in workdir.store.read_identity()["programs"]["0"]) == first.fused_adam
    with report.Workdir(path, experiment) as workdir:
      workdir.claim(digits, plans[first], first)
      with pytest.raises(InputError, match=r"fused_adam: .* there, .* now"):
        workdir.claim(digits, plans[second], second)


def test_devices_say_so():
  here = devices.kind_of(jax.local_devices()[0])
  assert here.fused_adam == (here.platform == "cpu" and fused_adam.why_missing() is None)


def test_it_can_be_switched_off(monkeypatch, anew):
  monkeypatch.setenv("JAXDL_FUSED_ADAM", "0")
  assert fused_adam.why_missing() == "JAXDL_FUSED_ADAM=0 is set"
  assert not devices.kind_of(jax.local_devices()[0]).fused_adam


def test_what_is_not_there_is_not_used(monkeypatch, anew, tmp_path):
  """Not compiled; compiled for something else."""
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  assert fused_adam.why_missing().startswith("it was not compiled when jaxdl was installed")
  fused_adam.why_missing.cache_clear()
  file = tmp_path / "other.so"
  file.write_bytes(b"no library")
  monkeypatch.setattr(fused_adam, "library_file", lambda: file)
  assert fused_adam.why_missing().startswith("it does not load: ")
  assert "\n" not in fused_adam.why_missing()
  assert not devices.kind_of(jax.local_devices()[0]).fused_adam


def test_a_worker_without_it(monkeypatch, anew):
  """Of a cluster, where the run is planned with it."""
  monkeypatch.setenv("JAXDL_FUSED_ADAM", "0")
  here = devices.kind_of(jax.local_devices()[0])
  run = cluster.Run("{}", None, "", here._replace(fused_adam=True), "")
  with pytest.raises(InputError, match="on a worker JAXDL_FUSED_ADAM=0 is set; install"):
    cluster._trainer(run)
