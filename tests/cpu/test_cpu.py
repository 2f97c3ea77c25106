"""Dense layers in C++: steps and products against NumPy's, and training with them against XLA's."""

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import pathlib
import re
import shutil
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import create_member, epoch_scratch, epoch_slices, form, member
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import batches, report, train
from jaxdl import recipe as recipe_lib
from jaxdl.arm import Arm
from jaxdl.byhand import backprop, rule_references
from jaxdl.cpu import matmul, step
from jaxdl.data.dataset import Split
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.forward import Variables
from jaxdl.member import DIVERGED
from jaxdl.nn import models
from jaxdl.optim import optimizers
from jaxdl.population import dask as dask_lib
from jaxdl.population import devices, own_check, plan
from jaxdl.population.devices import DeviceKind

needs_it = pytest.mark.skipif(
  matmul.why_unavailable() is not None, reason=f"no layers in C++: {matmul.why_unavailable()}"
)
CPU, CPU_WITH_IT = DeviceKind("cpu", "cpu", None), DeviceKind("cpu", "cpu", None, kernels="cpp")


@pytest.fixture
def anew():
  """Has it looked for anew, in the test and after it."""
  matmul.why_unavailable.cache_clear()
  yield
  matmul.why_unavailable.cache_clear()


def test_it_is_there_where_there_is_a_compiler(monkeypatch, anew):
  """Or else most of this file would be skipped."""
  monkeypatch.delenv("JAXDL_CPU_LAYERS", raising=False)
  cpu = pathlib.Path("/proc/cpuinfo")
  if shutil.which("c++") and cpu.exists() and " avx2 " in cpu.read_text():
    assert matmul.why_unavailable() is None


# Steps and products.


def _adam(params, mu, nu, gradient, rate, epsilon, keep, b1=0.9, b2=0.999):
  """A step in float64, from algorithm 1 of the paper."""
  mu = b1 * mu + (1 - b1) * gradient
  nu = b2 * nu + (1 - b2) * gradient**2
  return keep * params - rate * mu / (np.sqrt(nu) + epsilon), mu, nu


def _factors(batch, rows, columns, density=1.0, seed=0):
  """Returns inputs, of which a share is not zero, and cotangents, in float64."""
  rng = np.random.default_rng(seed)
  inputs = rng.normal(size=(batch, rows)) * (rng.random((batch, rows)) < density)
  return inputs, rng.normal(size=(batch, columns))


def _layer(rows, columns, seed=1):
  """Returns parameters and moments of a dense layer, in float64."""
  rng = np.random.default_rng(seed)
  params, mu, root = (
    {"kernel": rng.normal(size=(rows, columns)), "bias": rng.normal(size=columns)} for _ in range(3)
  )
  return params, mu, jax.tree.map(lambda x: x**2 + 0.1, root)


def _float32(tree):
  """Puts arrays on the device; to convert them, JAX would compile a program for each shape."""
  return jax.device_put(jax.tree.map(np.float32, tree))


def _check_steps(shapes, density=1.0, **scalars):
  """Checks steps of all shapes [B, rows, columns], which are one program."""
  layers = [_layer(*shape[1:]) for shape in shapes]
  factors = [_factors(*shape, density) for shape in shapes]
  found = _steps(_float32(layers), _float32(factors), **scalars)
  for (batch, *_), layer, (inputs, cotangents), after in zip(
    shapes, layers, factors, found, strict=True
  ):
    gradient = {"kernel": inputs.T @ cotangents, "bias": cotangents.sum(axis=0)}
    for name in gradient:
      expected = _adam(*(of[name] for of in layer), gradient[name], **scalars)
      for a, b in zip(after, expected, strict=True):
        # A sum of as many products as there are examples, each rounded.
        np.testing.assert_allclose(a[name], b, rtol=1e-5, atol=1e-6 * batch)


@jax.jit
def _step(params, mu, nu, factors, rate, epsilon, keep):
  factors = step.Factors(*factors)
  scalars = {"rate": rate, "epsilon": epsilon, "keep": keep}
  return step.adam_step(params, mu, nu, factors, **scalars, b1=0.9, b2=0.999)


@jax.jit
def _steps(layers, factors, rate, epsilon, keep):
  return [
    _step(*layer, of_layer, rate, epsilon, keep)
    for layer, of_layer in zip(layers, factors, strict=True)
  ]


# Around the borders of tiles, panels, groups and blocks, of which none is a multiple of all.
SHAPES = (
  *itertools.product((1, 2, 33), (1, 3, 4, 5, 37), (1, 15, 16, 17, 63, 64, 65, 130)),
  (300, 9, 70),  # cotangents that outgrow the first cache
  (300, 9, 140),
  (70, 9, 256),  # lines a kilobyte apart
  (2, 1030, 260),  # state that outgrows the second
)
# Of the kernel also several rows, and narrow ones, of which no line reads beyond the end.
PRODUCT_SHAPES = (
  *itertools.product((1, 3, 70), (63, 64, 65, 66, 150), (1, 5, 20, 70, 128, 300)),
  (70, 200, 512),
)
# Below 0.42 a factor is sparse.
DENSITIES = (0.0, 0.1, 0.5, 1.0)


@needs_it
@pytest.mark.parametrize("density", DENSITIES)
def test_a_step_is_adams(density):
  _check_steps(SHAPES, density, rate=0.01, epsilon=1e-7, keep=0.999)


@needs_it
@settings(max_examples=20)
@given(
  shape=st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 150)),
  density=st.floats(0, 1),
  rate=st.floats(1e-6, 1),
  epsilon=st.floats(1e-9, 1),
  keep=st.floats(0.5, 1),
)
def test_a_step_is_adams_whatever_the_numbers(shape, density, rate, epsilon, keep):
  _check_steps([shape], density, rate=rate, epsilon=epsilon, keep=keep)


def _products(target):
  """Returns the products of C++, of which two are compiled, for inputs [B, D] and for both."""

  def sparse(inputs, kernel):
    shape = jax.ShapeDtypeStruct((len(inputs), kernel.shape[1]), jnp.float32)
    return jax.ffi.ffi_call(target.format("sparse_product"), shape)(inputs, kernel)

  def outer(inputs, cotangents):
    shape = jax.ShapeDtypeStruct((inputs.shape[1], cotangents.shape[1]), jnp.float32)
    return jax.ffi.ffi_call(target.format("outer_product"), shape)(inputs, cotangents)

  return sparse, outer


@functools.partial(jax.jit, static_argnums=0)
def _both_products(target, operands):
  """Returns the sparse and the outer product of each (inputs, kernel, cotangents)."""
  sparse, outer = _products(target)
  return [(sparse(x, kernel), outer(x, cotangents)) for x, kernel, cotangents in operands]


def _check_products(shapes, density, tolerance):
  operands = []
  for shape in shapes:
    inputs, cotangents = _factors(*shape, density)
    operands.append((inputs, _layer(*shape[1:])[0]["kernel"], cotangents))
  found = _both_products("jaxdl_{}", _float32(operands))
  for products, (inputs, kernel, cotangents) in zip(found, operands, strict=True):
    for product, expected in zip(products, (inputs @ kernel, inputs.T @ cotangents), strict=True):
      np.testing.assert_allclose(product, expected, rtol=tolerance, atol=tolerance)


@needs_it
@settings(max_examples=40)
@given(
  shape=st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 150)),
  density=st.floats(0, 1),
)
def test_products_are_numpys(shape, density):
  _check_products([shape], density, tolerance=1e-5)


@needs_it
@pytest.mark.parametrize("density", DENSITIES)
def test_products_around_borders(density):
  _check_products(PRODUCT_SHAPES, density, tolerance=1e-4)  # sums of up to 200 products


@needs_it
def test_the_code_for_older_processors():
  """They have AVX2, not AVX-512; a processor that has both takes the latter, with the same bits."""
  library = ctypes.CDLL(str(matmul.library_file()))
  for target in ("adam_step", "sparse_product", "outer_product"):
    handler = jax.ffi.pycapsule(library[f"{target}_avx2"])
    jax.ffi.register_ffi_target(f"test_{target}_avx2", handler, platform="cpu")

  @jax.jit
  def step(params, mu, nu, factors):
    before = [of[name] for name in ("kernel", "bias") for of in (params, mu, nu)]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in before]
    scalars = jnp.array([0.1, 1e-7, 1, 0.9, 0.999], jnp.float32)
    call = jax.ffi.ffi_call("test_adam_step_avx2", shapes)  # with results in memory of their own
    return call(*before, *factors, scalars)

  shapes = ((1, 4, 64), (1, 5, 70), (33, 8, 32), (33, 37, 65), (300, 9, 70), (3, 150, 5))
  shapes += ((3, 150, 70), (70, 150, 70), (2, 200, 256), (70, 200, 300))
  for shape, density in itertools.product(shapes, DENSITIES):
    layer, factors = _float32((_layer(*shape[1:]), _factors(*shape, density)))
    expected = _step(*layer, factors, 0.1, 1e-7, 1.0)
    expected = [of[name] for name in ("kernel", "bias") for of in expected]
    for a, b in zip(step(*layer, factors), expected, strict=True):
      np.testing.assert_array_equal(a, b)
    operands = [(factors[0], layer[0]["kernel"], factors[1])]
    products = (_both_products(target, operands) for target in ("jaxdl_{}", "test_{}_avx2"))
    jax.tree.map(np.testing.assert_array_equal, *products)


@needs_it
def test_shapes_that_do_not_belong_together():
  layer, (inputs, cotangents) = _float32((_layer(4, 8), _factors(2, 4, 8)))
  for bad in ((inputs[:, :3], cotangents), (inputs, cotangents[:, :7]), (inputs[:1], cotangents)):
    with pytest.raises(Exception, match="adam_step: shapes"):
      jax.block_until_ready(_step(*layer, bad, 0.1, 1e-7, 1.0))
  layer[0]["bias"] = layer[0]["bias"][:7]
  with pytest.raises(Exception, match="adam_step: shapes"):
    jax.block_until_ready(_step(*layer, (inputs, cotangents), 0.1, 1e-7, 1.0))
  sparse, outer = _products("jaxdl_{}")
  with pytest.raises(Exception, match="sparse_product: shapes"):
    jax.block_until_ready(sparse(inputs, layer[0]["kernel"][:3]))
  with pytest.raises(Exception, match="outer_product: shapes"):
    jax.block_until_ready(outer(inputs, cotangents[:1]))


# As JAX has them.


def _call(function, *arguments):
  """Returns what a function returns, compiled, and the names of the C++ that the program calls."""
  lowered = jax.jit(function).lower(*arguments)
  called = set(re.findall(r"custom_call @jaxdl_(\w+)", lowered.as_text()))
  return lowered.compile()(*arguments), called


@jax.jit
def _product_and_gradient(inputs, kernel, cotangents):
  outputs, back = jax.vjp(matmul.matmul, inputs, kernel)
  return outputs, *back(cotangents)


@needs_it
@pytest.mark.parametrize(("rows", "columns"), [(784, 128), (900, 40), (520, 100), (20, 30)])
@pytest.mark.parametrize(("density", "of_cotangents"), [(0.1, 0.3), (0.9, 0.1), (0.5, 0.9), (0, 0)])
@pytest.mark.parametrize("batch", [1, 2, 40, 300])
def test_a_product_and_its_gradient(batch, density, of_cotangents, rows, columns):
  """Large and small, wide and narrow, with either factor sparse, and none."""
  inputs, cotangents = _factors(batch, rows, columns, density)
  cotangents *= np.random.default_rng(2).random(cotangents.shape) < of_cotangents
  kernel = _layer(rows, columns)[0]["kernel"]
  found = _product_and_gradient(*_float32((inputs, kernel, cotangents)))
  expected = inputs @ kernel, cotangents @ kernel.T, inputs.T @ cotangents
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@needs_it
def test_a_product_is_xlas_where_inputs_are_dense():
  """Bit for bit; of sparse ones the sum is another."""
  kernel = _float32(_layer(784, 128)[0]["kernel"])
  is_same = {}
  for density in (0.2, 0.9):
    inputs = _float32(_factors(40, 784, 1, density)[0])
    found, expected = (
      jax.jit(matmul.matmul)(inputs, kernel),
      jax.jit(jnp.matmul)(inputs, kernel),
    )
    is_same[density] = np.array_equal(found, expected)
  assert is_same == {0.2: False, 0.9: True}


@needs_it
def test_the_gradient_by_inputs_is_xlas_where_cotangents_are_dense():
  """Zero times infinity tells who multiplied, of the many examples that a convolution has."""
  inputs, kernel = _float32((_factors(800, 288, 1)[0], _layer(288, 64)[0]["kernel"]))
  kernel = kernel.at[:, 0].set(jnp.inf)
  is_finite = {}
  for density in (0.2, 0.9):
    cotangents = _float32(_factors(800, 64, 1, density)[0]).at[:, 0].set(0)
    run = jax.jit(lambda of: jax.vjp(matmul.matmul, inputs, kernel)[1](of)[0])
    is_finite[density] = bool(jnp.isfinite(run(cotangents)).all())
  assert is_finite == {0.2: True, 0.9: False}


@needs_it
def test_a_product_under_vmap_is_xlas():
  """Over either factor or both, forwards and backwards; zero times infinity tells which it is."""
  inputs, kernel = _float32((_factors(40, 784, 1, 0.2)[0], _layer(784, 128)[0]["kernel"]))
  inputs, infinite = inputs.at[:, 0].set(0), kernel.at[0].set(jnp.inf)
  assert not jnp.isnan(jax.jit(matmul.matmul)(inputs, infinite)).any()

  def gradient(product, *pair):
    return jax.grad(lambda *pair: jnp.square(product(*pair)).sum(), argnums=(0, 1))(*pair)

  for axes in ((None, 0), (0, None), (0, 0)):

    def stacked(*pair, axes=axes):
      return [x if axis is None else jnp.stack([x, -x]) for x, axis in zip(pair, axes, strict=True)]

    mapped = jax.jit(jax.vmap(matmul.matmul, axes))
    assert jnp.isnan(mapped(*stacked(inputs, infinite))).any()
    found, expected = (
      jax.jit(jax.vmap(functools.partial(gradient, product), axes))(*stacked(inputs, kernel))
      for product in (matmul.matmul, jnp.matmul)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
  twice = jax.vmap(jax.vmap(matmul.matmul, (None, 0)), (0, None))
  found = jax.jit(twice)(jnp.stack([inputs, inputs]), jnp.stack([kernel, 2 * kernel]))
  np.testing.assert_allclose(found[1, 1], 2 * inputs @ kernel, rtol=1e-4, atol=1e-4)


# Gradients as factors.


@needs_it
@pytest.mark.parametrize(
  ("settings", "slice_size", "expected"),
  [
    ({"model": "mlp"}, 512, ["Dense_0", "Dense_1"]),  # the output has too few columns
    ({"model": "mlp", "optimizer": "adamw"}, 512, ["Dense_0", "Dense_1"]),
    ({"model": "mlp", "optimizer": "sgd"}, 512, []),
    ({"model": "mlp", "l2": 0.1}, 512, []),
    # In several slices only if all factors are smaller: 110 * (784 + 128) < 784 * 128 = 100,352.
    ({"model": "mlp", "batch_size": 110}, 10, ["Dense_0"]),
    ({"model": "mlp", "batch_size": 111}, 37, []),
    ({"model": "cnn_mnist", "batch_size": 8}, 8, ["Dense_0"]),
  ],
)
def test_which_kernels_are_left_in_factors(digits, settings, slice_size, expected):
  arm = Arm(**{"loss": "categorical_cross_entropy", "batch_size": 32, **settings})
  recipe, _, hyper, *_ = member(arm, digits, slice_size)
  params = own_check.member_shapes(recipe, hyper).params
  assert step.layers_in_factors(recipe, params) == tuple((name,) for name in expected)


class _Block(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.relu(nn.Dense(64)(x))


class _Nested(nn.Module):
  """A dense layer in a block, one that is applied twice, one on a tensor, and one without bias."""

  @nn.compact
  def __call__(self, x, _=None):
    x = _Block()(x.reshape(len(x), -1))
    twice = nn.Dense(64, name="twice")
    x = twice(twice(x))
    x = nn.Dense(16, name="tensor")(x.reshape(len(x), 4, 16)).reshape(len(x), -1)
    return nn.Dense(10, name="no_bias", use_bias=False)(nn.LayerNorm()(x))


@needs_it
def test_a_model_with_nested_modules_plans_and_trains(digits, monkeypatch):
  """Layers without a kernel, layers in layers: planned for every device, and trained as by XLA."""
  monkeypatch.setattr(models, "create", lambda *_, **__: _Nested())
  arm = Arm(model="mlp", loss="categorical_cross_entropy", batch_size=109, num_epochs=2)
  recipe, *_, train_set, _ = member(arm, digits)
  shape = train_set.inputs.shape[1:]
  start = jnp.zeros((1, *shape))
  params = jax.eval_shape(_Nested().init, jax.random.key(0), start)["params"]
  assert step.layers_in_factors(recipe, params) == (("_Block_0", "Dense_0"),)
  for device in (CPU, CPU_WITH_IT, DeviceKind("gpu", "a GPU", 2**33)):
    (group,) = plan.plan_groups(digits, {"a": arm}, range(2), 0, device)
    assert group.layout.kernels == device.kernels
  found, expected = (_run(arm, digits, in_cpp)[1] for in_cpp in (True, False))
  np.testing.assert_allclose(found.train_loss, expected.train_loss, rtol=1e-3)


# Training.


def _run(arm, dataset, in_cpp, slice_size=512):
  """Trains one member; returns its state, its curves and the names of the C++ that it calls."""
  recipe, key, hyper, *splits = member(arm, dataset, slice_size)
  chosen = step.train_step if in_cpp else train.train_step
  start = create_member(recipe, key, hyper)

  def run(state, key, hyper, train_set, validation):
    return jax.lax.scan(
      lambda state, epoch: train.train_epoch(
        recipe, state, key, hyper, train_set, validation, epoch, step=chosen
      ),
      state,
      jnp.arange(arm.num_epochs),
    )

  with contextlib.nullcontext() if in_cpp else matmul.xla_alone():
    (state, curves), called = _call(run, start, key, hyper, *splits)
  return state, curves, called


@needs_it
@pytest.mark.parametrize(
  ("settings", "slice_size", "called"),
  [
    ({"model": "mlp", "batch_size": 1}, 512, {"adam_step"}),
    ({"model": "mlp", "batch_size": 32, "activation": "gelu"}, 512, {"adam_step"}),  # partial last
    ({"model": "mlp(100,40)", "batch_size": 109, "optimizer": "adamw"}, 512, {"adam_step"}),
    ({"model": "mlp", "batch_size": 32}, 10, {"adam_step"}),  # slices, one of them padded
    (
      {"model": "cifar_mlp", "batch_size": 109, "rotation_range": 10.0},
      512,
      {"adam_step", "sparse_product"},
    ),
    (
      {"model": "mlp(600)", "batch_size": 20, "optimizer": "sgd", "l2": 0.01},
      8,
      {"sparse_product", "outer_product"},
    ),
    ({"model": "mlp(600)", "batch_size": 1, "optimizer": "momentum"}, 512, {"sparse_product"}),
  ],
)
def test_training_is_that_of_xla(digits, settings, slice_size, called):
  """The whole run of a member; differences grow from rounding, as those of any two programs do."""
  _check_training(digits, settings, slice_size, called)


@needs_it
@pytest.mark.parametrize(
  ("settings", "called"),
  [
    ({"model": "cnn_binary", "loss": "binary_cross_entropy"}, {"outer_product"}),
    ({"model": "cnn_mnist"}, {"outer_product", "adam_step"}),
  ],
)
def test_training_a_cnn_is_that_of_xla(digits, settings, called):
  """On images that are large enough for its convolutions to come from C++."""

  def enlarge(split, num):
    images = np.kron(split.inputs[:num], np.ones((1, 3, 3, 1), np.uint8))
    return Split(images, split.targets[:num])

  train_set, validation = enlarge(digits.train, 20), enlarge(digits.validation, 12)
  larger = replace(digits, train=train_set, validation=validation)
  settings = {"batch_size": 16, "num_epochs": 1, "dropout_rate": 0.5, **settings}
  _check_training(larger, settings, 8, {"sparse_product", *called})


def _check_training(dataset, settings, slice_size, called):
  arm = Arm(**{"loss": "categorical_cross_entropy", "num_epochs": 2, "patience": None, **settings})
  expected, expected_curves, of_xla = _run(arm, dataset, False, slice_size)
  state, curves, found = _run(arm, dataset, True, slice_size)
  assert found >= called
  assert ("adam_step" in found) == ("adam_step" in called)
  assert not of_xla
  np.testing.assert_allclose(curves.train_loss, expected_curves.train_loss, rtol=1e-3)
  np.testing.assert_allclose(curves.val_loss, expected_curves.val_loss, rtol=1e-3)
  for found, wanted in zip(*map(jax.tree.leaves, (state.params, expected.params)), strict=True):
    # Adam's first steps are as long for a gradient that is all rounding as for any other.
    assert np.quantile(np.abs(found - wanted), 0.99) < 1e-4


@needs_it
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_member_diverges(digits, optimizer):
  """Though zero times infinity is zero in C++. With XLA, `test_population` has such members."""
  arm = Arm(model="mlp(600)", loss="categorical_cross_entropy", optimizer=optimizer, num_epochs=3,
            learning_rate=1e38, patience=None)  # fmt: skip
  assert _run(arm, digits, in_cpp=True)[0].status == DIVERGED


@needs_it
def test_one_step_of_training_is_the_step_by_hand():
  """`train_step` with factors: gradients derived by hand, and Adam's first step, rate * sign."""
  arm = Arm(model="mlp", loss="hinge", optimizer="adam", dropout_rate=0.3, batch_size=5,
            num_epochs=1, activation="tanh", kernel_initializer="random_normal")  # fmt: skip
  (recipe,) = recipe_lib.group_by_recipe({"arm": arm}, form(3, 5, (4, 3, 1)), lambda _: 5)
  rng = np.random.default_rng(0)
  examples = batches.Examples(
    rng.integers(0, 256, (5, 4, 3, 1)).astype(np.uint8), np.array([0, 2, 1, 1, 0])
  )
  params = {
    f"Dense_{i}": {"kernel": 0.2 * rng.normal(size=size), "bias": rng.normal(size=size[1])}
    for i, size in enumerate(itertools.pairwise([12, 128, 64, 3]))
  }
  start = _float32(params)
  slices = jax.tree.map(lambda leaf: leaf[0], epoch_slices(recipe, batches.seed_key(0, 0), 0, 5))
  hyper = recipe_lib.hyperparams(arm, recipe)
  state = optimizers.create("adam", 0.0).init(start)
  run = jax.jit(functools.partial(step.train_step, recipe))
  carry = Variables(start, {}), state
  (after, (state,)), _ = run(hyper, examples, carry, slices, 0.01)
  after = after.params

  order = np.asarray(slices.indices).ravel()
  mask = rule_references.dropout_mask(slices.dropout_keys.ravel(), 64, 0.3)
  images, labels = np.asarray(examples.inputs)[order] / 255, np.asarray(examples.targets)[order]
  by_hand = backprop.loss_and_gradients(
    "mlp", "tanh", "hinge", params, images, labels, mask, dropout_rate=0.3
  ).params
  for name, part in itertools.product(by_hand, ("kernel", "bias")):
    gradient = by_hand[name][part]
    found = after[name][part], state.mu[name][part], state.nu[name][part]
    np.testing.assert_allclose(found[1], 0.1 * gradient, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found[2], 0.001 * gradient**2, rtol=1e-4, atol=1e-12)
    # m / (1 - b1) over sqrt(v / (1 - b2)) + epsilon is g / (|g| + epsilon), where g is no rounding.
    clear = np.abs(gradient) > 1e-5
    assert clear.mean() > 0.5
    expected = params[name][part] - 0.01 * gradient / (np.abs(gradient) + 1e-7)
    np.testing.assert_allclose(found[0][clear], expected[clear], rtol=1e-4, atol=1e-5)


@needs_it
@pytest.mark.skipif(
  jax.__version_info__ < (0, 11), reason="XLA of that time copies whatever it is told"
)
def test_neither_gradients_nor_copies_of_kernels_are_stored(blobs):
  """The program of an epoch has no room for a kernel's gradient, which XLA's has."""
  arm = Arm(model="mlp(256,256)", loss="categorical_cross_entropy", batch_size=10, num_epochs=1,
            patience=None, dropout_rate=0.0)  # fmt: skip
  in_cpp, by_xla = (epoch_scratch(arm, blobs, of.train_step) for of in (step, train))
  assert in_cpp < 4 * 256 * 256 < by_xla


# Who uses it.


@needs_it
@pytest.mark.parametrize(
  ("settings", "slice_size", "gains"),
  [
    ({"model": "mlp"}, 512, True),  # large layers
    ({"model": "mlp", "optimizer": "sgd", "l2": 0.1}, 512, True),
    ({"model": "mlp(16)"}, 512, True),  # small ones, but Adam
    ({"model": "mlp(16)", "optimizer": "sgd"}, 512, False),
    ({"model": "mlp(16)", "l2": 0.1}, 512, False),
    ({"model": "mlp(16)", "batch_size": 200}, 8, False),  # 200 * (784 + 16) > 784 * 16
    ({"model": "cnn_binary", "optimizer": "sgd"}, 8, True),  # a large convolution
  ],
)
def test_who_trains_with_it(digits, settings, slice_size, gains):
  arm = Arm(**{"loss": "categorical_cross_entropy", "batch_size": 8, **settings})
  arms = {"a": arm}

  def kernels(device, chunk_size=1):
    (group,) = plan.plan_groups(digits, arms, range(2), 0, device, chunk_size, slice_size)
    return group.layout.kernels

  assert kernels(CPU_WITH_IT) == ("cpp" if gains else "")
  for device in (CPU, DeviceKind("gpu", "a GPU", None)):
    assert kernels(device) == ""
  assert kernels(CPU_WITH_IT, chunk_size=2) == ""  # mapped over


def test_a_run_goes_on_as_it_began(digits, tmp_path):
  """Results depend on it; a run from before there was a choice was one without it."""
  arms = {"adam": Arm(model="mlp(200)", loss="categorical_cross_entropy", patience=None)}
  plans = {
    device: plan.plan_groups(digits, arms, range(2), 0, device, chunk_size=1)
    for device in (CPU, CPU_WITH_IT)
  }
  experiment = Experiment(question="?", arms=arms, dataset="digits", num_seeds=2)
  for first, second in itertools.permutations(plans):
    path = tmp_path / f"began with {first.kernels}"
    with report.Workdir(path, experiment) as workdir:
      workdir.claim(digits, plans[first], first)
      assert workdir.store.read_identity()["programs"]["0"].get("kernels", "") == first.kernels
    with report.Workdir(path, experiment) as workdir:
      workdir.claim(digits, plans[first], first)
      with pytest.raises(InputError, match=r"kernels: .* there, .* now"):
        workdir.claim(digits, plans[second], second)


def test_devices_say_so():
  here = devices.kind_of(jax.local_devices()[0])
  assert bool(here.kernels) == (here.platform == "cpu" and matmul.why_unavailable() is None)


def test_it_can_be_switched_off(monkeypatch, anew):
  monkeypatch.setenv("JAXDL_CPU_LAYERS", "0")
  assert matmul.why_unavailable() == "JAXDL_CPU_LAYERS=0 is set"
  assert not devices.kind_of(jax.local_devices()[0]).kernels


def test_what_is_not_there_is_not_used(monkeypatch, anew, tmp_path):
  """Not compiled; compiled for something else."""
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  assert matmul.why_unavailable().startswith("it was not compiled when jaxdl was installed")
  matmul.why_unavailable.cache_clear()
  file = tmp_path / "other.so"
  file.write_bytes(b"no library")
  monkeypatch.setattr(matmul, "library_file", lambda: file)
  assert matmul.why_unavailable().startswith("it does not load: ")
  assert "\n" not in matmul.why_unavailable()
  assert not devices.kind_of(jax.local_devices()[0]).kernels


def test_a_worker_without_it(monkeypatch, anew):
  """Of a cluster, where the run is planned with it."""
  monkeypatch.setenv("JAXDL_CPU_LAYERS", "0")
  here = devices.kind_of(jax.local_devices()[0])
  job = dask_lib.Job(None, here._replace(kernels="cpp"), "")
  with pytest.raises(InputError, match="a worker has none: JAXDL_CPU_LAYERS=0 is set; install"):
    dask_lib._trainer(job)
