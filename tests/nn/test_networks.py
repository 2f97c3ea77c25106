"""Networks by name: published sizes; convolutions as products; batch normalisation in training."""

import functools
import io
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import create_member, epoch_slices, member, predict, train_member
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdl
from jaxdl.errors import InputError
from jaxdl.member import EARLY_STOPPED, reported_variables
from jaxdl.nn import layers, models, networks
from jaxdl.population.population import train_population
from jaxdl.population.progress import Progress
from jaxdl.store import store

_KEY = jax.random.key(0)


def _count(spec, shape, num_outputs=10, dtype=jnp.float32):
  model = models.create(spec, num_outputs=num_outputs)
  variables = jax.eval_shape(model.init, _KEY, jax.ShapeDtypeStruct((1, *shape), dtype))
  return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
  ("spec", "shape", "num_outputs", "expected"),
  [
    # LeCun et al. 1998: 156 in C1, 48,120 in C5 and 10,164 in F6; with all of its 16 x 6 kernels C3
    # has 2,416. Zhang et al., "Dive into Deep Learning", write it like this.
    ("lenet5", (28, 28, 1), 10, 156 + 2_416 + 48_120 + 10_164 + 850),
    # DeiT-Ti and DeiT-S of Touvron et al. 2021, ViT-B/16 of Dosovitskiy et al. 2021, as the library
    # `timm` counts them.
    ("vit(16, 192, 12, 3)", (224, 224, 3), 1000, 5_717_416),
    ("vit(16, 384, 12, 6)", (224, 224, 3), 1000, 22_050_664),
    ("vit(16, 768, 12, 12)", (224, 224, 3), 1000, 86_567_656),
    ("vit", (32, 32, 3), 10, 1_205_898),
    # An MLP's 109,386 with a scale and a bias for each of 128 + 64 units.
    ("mlp(128, 64, norm=layer)", (28, 28, 1), 10, 109_386 + 2 * 192),
    ("mlp(128, 64, norm=none)", (28, 28, 1), 10, 109_386),
  ],
)
def test_published_parameter_counts(spec, shape, num_outputs, expected):
  assert _count(spec, shape, num_outputs) == expected


@pytest.mark.parametrize(
  ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_resnets_have_the_sizes_of_he_et_al(depth, millions):
  """Table 6 of He et al. 2016; and a sum of layers for each block."""
  count = _count(f"resnet({depth})", (32, 32, 3))
  assert float(f"{count / 1e6:.2g}") == millions
  per_stage = (depth - 2) // 6
  convolutions = 3 * 3 * (3 * 16 + 16 * 32 + 32 * 64)  # the first, and the two that widen
  convolutions += 3 * 3 * (2 * per_stage * 16**2 + (2 * per_stage - 1) * (32**2 + 64**2))
  norms = 2 * (16 + 2 * per_stage * (16 + 32 + 64))
  assert count == convolutions + norms + 65 * 10
  for norm in ("group", "layer"):
    assert _count(f"resnet({depth}, norm={norm})", (32, 32, 3)) == count
  # Shortcuts B have two kernels of 1 x 1, normalised.
  with_b = 16 * 32 + 32 * 64 + 2 * (32 + 64)
  assert _count(f"resnet({depth}, shortcut=B)", (32, 32, 3)) == count + with_b


def test_the_transformer_is_gpt_2():
  """GPT-2 small has 124,439,808 parameters (Radford et al. 2019), its output layer being tied."""
  spec = "transformer(50257, width=768, depth=12, num_heads=12, causal=True)"
  assert _count(spec, (1024,), 2, jnp.int32) - 2 * 769 == 124_439_808


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ("resnet", "resnet(depth=20, norm=batch)"),
    ("resnet(8,norm='group')", networks.ResNet(8, norm="group")),
    ("mlp(8, norm=none)", "mlp(norm=none, hidden=(8,))"),
    ("transformer(per_position=True)", networks.Transformer(per_position=True)),
  ],
)
def test_the_same_network_is_the_same_setting(one, other):
  assert jaxdl.Arm(model=one) == jaxdl.Arm(model=other)


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("resnt(20)", "unknown model 'resnt'; did you mean 'resnet'?"),
    ("resnet(21)", r"depth of a ResNet must be 8, 14, 20, ..., 6 n \+ 2, not 21"),
    ("resnet(116)", "depth of a ResNet must be an integer <= 110, not 116"),
    ("resnet(20", r"model 'resnet\(20' is not of the form resnet\(argument=1\)"),
    ("resnet(activation=this:s)", "is not of the form resnet"),
    ("resnet(norm=bach)", "unknown norm 'bach'; did you mean 'batch'?"),
    ("resnet(width=12, norm=group)", "norm 'group' makes 8 groups, which do not divide 12"),
    ("resnet(shortcut=C)", "unknown shortcut 'C'"),
    ("vit(num_heads=3)", "width 128 is no multiple of num_heads 3"),
    ("vit(deepth=3)", "does not fit its signature: .*'deepth'"),
    ("mlp(0, norm=batch)", "a size of hidden must be an integer >= 1, not 0"),
    ("mlp(norm=batch)", "hidden must be the sizes of hidden layers"),
    ("mlp(8, norm=batch, hidden=8)", "hidden must be the sizes of hidden layers, not 8"),
  ],
)
def test_wrong_arguments_are_refused_at_once(spec, message):
  with pytest.raises(InputError, match=message) as error:
    jaxdl.Arm(model=spec)
  assert "\n" not in str(error.value)
  assert "this" not in sys.modules  # nothing that a text names is imported


@pytest.fixture(scope="module")
def tagged():
  """Integers [N, L], and of each whether it is larger than the one before, [N, L]."""
  rng = np.random.default_rng(0)
  x = rng.integers(0, 6, (60, 5)).astype(np.int32)
  y = (x > np.roll(x, 1, 1)).astype(np.int32)
  return jaxdl.from_arrays(x, y, validation=0.2, name="tagged")


@pytest.mark.parametrize(
  ("data", "spec"),
  [
    ("blobs", "lenet5"),
    ("blobs", "resnet(8, width=2)"),
    ("blobs", "vit(width=8, depth=1, num_heads=2)"),
    ("blobs", "mlp(8, norm=group)"),
    ("tagged", "transformer(6, width=8, depth=1, num_heads=2, per_position=True, causal=True)"),
  ],
)
def test_networks_train(data, spec, request):
  """Two epochs as a population, on the path of a user's own model."""
  dataset = request.getfixturevalue(data)
  takes_dropout = not spec.startswith(("lenet", "resnet"))
  arm = _arm(spec, num_epochs=2, **({"dropout_rate": 0.0} if takes_dropout else {}))
  assert member(arm, dataset).recipe.is_own
  result = train_population(dataset, {"arm": arm}, seeds=2)
  loss = result.curves["train_loss"]  # [S, A, E]
  assert np.isfinite(loss).all()
  assert loss[..., 1].mean() < loss[..., 0].mean()
  assert loss[0, 0, 1] != loss[1, 0, 1]


def test_a_transformer_looks_back_only_if_it_is_causal():
  x = jnp.array([[1, 2, 3, 4], [1, 2, 5, 0]])
  for causal in (False, True):
    model = networks.Transformer(6, 8, 1, 2, per_position=True, causal=causal, num_outputs=3)
    outputs, _ = jax.jit(model.init_with_output)(_KEY, x)
    assert outputs.shape == (2, 4, 3)
    assert np.allclose(outputs[0, :2], outputs[1, :2], atol=1e-6) == causal
    assert not np.allclose(outputs[0, 2], outputs[1, 2], atol=1e-6)
  outputs, _ = jax.eval_shape(networks.Transformer(6).init_with_output, _KEY, x)
  assert outputs.shape == (2, 10)


@pytest.mark.parametrize(
  ("model", "x", "message"),
  [
    (
      networks.VisionTransformer(5),
      jnp.zeros((1, 8, 10, 1)),
      r"does not fit inputs \[1, 8, 10, 1\]",
    ),
    (networks.Transformer(), jnp.zeros((1, 8)), r"takes integers \[B, L\], not float32 \[1, 8\]"),
  ],
)
def test_inputs_that_do_not_fit_are_refused(model, x, message):
  with pytest.raises(InputError, match=message):
    jax.eval_shape(model.init, _KEY, x)


def _arm(spec, **settings):
  settings = {"batch_size": 16, "num_epochs": 3, "patience": None, **settings}
  return jaxdl.Arm(model=spec, loss="categorical_cross_entropy", learning_rate=0.01, **settings)


# Convolutions as products.

_SIDES = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=10)
@given(
  image=st.tuples(st.integers(5, 7), st.integers(5, 7), st.integers(1, 2)),
  size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
  strides=st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 2), st.integers(1, 3))),
  padding=st.one_of(st.sampled_from(["SAME", "VALID", 1, (2, 0)]), st.tuples(_SIDES, _SIDES)),
  dilation=st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 2), st.integers(1, 2))),
  use_bias=st.booleans(),
)
def test_convolutions_as_products_are_those_of_linen(
  image, size, strides, padding, dilation, use_bias
):
  conv = nn.Conv(3, size, strides, padding, kernel_dilation=dilation, use_bias=use_bias)
  _check_same_convolution(conv, (2, *image))


@pytest.mark.parametrize(
  ("conv", "shape"),
  [
    (nn.Conv(4, (3, 3), feature_group_count=2), (2, 5, 5, 2)),
    (nn.Conv(4, (3, 3), input_dilation=2, padding=1), (2, 5, 5, 2)),
    (nn.Conv(4, (3, 3), padding="CIRCULAR"), (2, 5, 5, 2)),
    (nn.Conv(4, (3,)), (2, 5, 2)),
    (nn.Conv(4, (3, 3)), (5, 5, 2)),  # without an axis of examples
  ],
)
def test_other_convolutions_take_the_other_way(conv, shape):
  _check_same_convolution(conv, shape)


def _random_numbers(shapes, scale=1.0):
  """Returns arrays of these shapes; to draw them, JAX would compile a program for each."""
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda of: (scale * rng.normal(size=of.shape)).astype(np.float32), shapes)


def _check_same_convolution(conv, shape):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  params = _random_numbers(jax.eval_shape(conv.init, _KEY, x))

  def weighted(params, x):
    y = conv.apply(params, x)
    return (jnp.sin(jnp.arange(y.size).reshape(y.shape)) * y).sum(), y

  gradients = jax.grad(weighted, (0, 1), has_aux=True)
  expected = jax.jit(gradients)(params, x)
  with layers.convolving_as_products():
    found = jax.jit(lambda *of: gradients(*of))(params, x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, expected)


def test_a_network_has_the_same_gradients_with_products():
  model = models.create("resnet(8, width=2, shortcut=B)", num_outputs=3)
  x = np.random.default_rng(0).normal(size=(6, 8, 8, 2)).astype(np.float32)
  labels = np.arange(6) % 3
  variables = _random_numbers(jax.eval_shape(model.init, _KEY, x), scale=0.3)
  state = {name: of for name, of in variables.items() if name != "params"}

  def loss(params, x):
    outputs, after = model.apply({"params": params, **state}, x, train=True, mutable=[*state])
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean(), after

  both = jax.value_and_grad(loss, (0, 1), has_aux=True)
  expected = jax.jit(both)(variables["params"], x)
  with layers.convolving_as_products():
    found = jax.jit(lambda *of: both(*of))(variables["params"], x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


# Batch normalisation in training.


class Small(nn.Module):
  """A convolution, batch normalisation, and an output layer."""

  num_outputs: int = 10

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(4, (3, 3), strides=2, use_bias=False)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
    return nn.Dense(self.num_outputs)(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def by_hand(blobs):
  """A member, and a loop of flax and optax over the same batches: variables after each epoch.

  50 examples in batches of 16: the last one has 2, which are normalised by themselves.
  """
  of = member(_arm(Small()), blobs)
  state = create_member(of.recipe, of.key, of.hyper)
  params, stats = state.variables.params, state.variables.state["batch_stats"]
  optimizer = optax.adam(0.01, eps=1e-7)
  opt_state, model = optimizer.init(params), Small(3)
  inputs = jax.device_put(np.asarray(of.train.inputs) / np.float32(255))

  @jax.jit
  def step(params, stats, opt_state, order):
    def loss(params):
      variables = {"params": params, "batch_stats": stats}
      outputs, after = model.apply(variables, inputs[order], train=True, mutable=["batch_stats"])
      labels = of.train.targets[order]
      losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
      return losses.mean(), after["batch_stats"]

    gradients, after = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(params, updates), after, opt_state

  epochs = [{"params": params, "batch_stats": stats}]
  for epoch in range(3):
    slices = epoch_slices(of.recipe, of.key, epoch, 50)
    order = np.asarray(slices.indices)[np.asarray(slices.weights) > 0]
    for start in range(0, 50, 16):
      params, stats, opt_state = step(params, stats, opt_state, order[start : start + 16])
    epochs.append({"params": params, "batch_stats": stats})
  return of, model, epochs


def _same(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, expected)


def test_a_member_with_batch_normalisation_is_the_loop_by_hand(by_hand):
  of, model, epochs = by_hand
  state, curves = train_member(*of)
  _same(state.variables.collections(), epochs[3])
  # Evaluation uses the running averages: an example's loss does not depend on the others.
  inputs, labels = np.asarray(of.validation.inputs) / np.float32(255), of.validation.targets
  evaluate = jax.jit(functools.partial(model.apply, train=False))
  for epoch in (1, 2, 3):
    outputs = np.concatenate([evaluate(epochs[epoch], x[None]) for x in inputs])
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
    assert float(curves.val_loss[epoch - 1]) == pytest.approx(float(loss), rel=1e-4)
  # And leaves them as they are.
  outputs = predict(of.recipe, state.variables, of.validation.inputs)
  np.testing.assert_allclose(outputs, evaluate(epochs[3], inputs), atol=1e-3)


def test_running_averages_stop_early_and_are_restored(by_hand, blobs):
  """Nothing improves by 1e9 after the first epoch, so a member stops after the second."""
  _, _, epochs = by_hand
  stopping = _arm(Small(), patience=1, min_delta=1e9, restore_best=True)
  of = member(stopping, blobs)
  state, _ = train_member(*of)
  assert (int(state.status), int(state.num_epochs)) == (EARLY_STOPPED, 2)
  _same(state.variables.collections(), epochs[2])
  _same(reported_variables(of.recipe, state).collections(), epochs[1])


class _Killed(BaseException):
  """Ends a process, as far as a test can tell."""


class _KilledAt(Progress):
  def __init__(self, when):
    super().__init__(io.StringIO())
    self.when = when

  def update(self, *counts):
    super().update(*counts)
    self.when -= 1
    if self.when == 0:
      raise _Killed


def test_resumption_and_chunks_keep_batch_statistics(blobs, tmp_path):
  arms = {"batch": _arm(Small(), restore_best=True)}
  run = functools.partial(
    train_population, blobs, arms, seeds=3, keep_logits=True, workers=jax.local_devices()[:1]
  )
  undisturbed = run(chunk_size=3)
  for when in (3, -1):
    kept = store.Store(tmp_path)
    kept.claim({"config": {}})
    try:
      resumed = run(chunk_size=3, store=kept, checkpoint_every=1, progress=_KilledAt(when))
    except _Killed:
      assert when == 3
    finally:
      kept.close()
  np.testing.assert_array_equal(resumed.logits["batch"], undisturbed.logits["batch"])
  # One member at a time predicts with XLA's convolutions, several with products.
  one_by_one = run(chunk_size=1)
  np.testing.assert_allclose(one_by_one.logits["batch"], undisturbed.logits["batch"], atol=1e-3)
