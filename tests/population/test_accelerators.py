"""What an accelerator would train, on a machine without one: the plan, and the programs for it."""

import functools
from dataclasses import replace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import data
from jaxdl.arm import Arm
from jaxdl.batches import Examples
from jaxdl.cpu import matmul
from jaxdl.nn import models
from jaxdl.optim import losses, optimizers
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import plan, programs, tuning
from jaxdl.population.devices import DeviceKind

H200 = DeviceKind("gpu", "NVIDIA H200", 139 * 2**30)
_CLASSES = {"loss": "categorical_cross_entropy", "batch_size": 8, "num_epochs": 2}


@functools.cache
def _images(size=32, num_classes=10):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (24, size, size, 3), dtype=np.uint8)
  labels = np.arange(24) % num_classes
  classes = [str(name) for name in range(num_classes)]
  return data.from_arrays(
    images[:18], labels[:18], images[18:], labels[18:], validation=0.3, class_names=classes
  )


@functools.cache
def _numbers():
  x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
  return data.from_arrays(x, x[:, 0], x[:6], x[:6, 0], validation=0.3)


@functools.cache
def _tokens():
  x = np.random.default_rng(0).integers(0, 9, (20, 6))
  return data.from_arrays(x, x % 3, x[:6], x[:6] % 3, validation=0.3)


def _plan(dataset, arms, seeds=2, device=H200):
  return plan.plan_groups(dataset, arms, range(seeds), 0, device)


def _export(group, dataset):
  """Lowers the programs of a group for CUDA; an export refuses calls of code that is not XLA's."""
  keys, hyper = group.arguments(group.chunks()[0])
  sizes = group.layout.chunk_size, group.layout.chunk_arms
  functions = programs.map_functions(group.recipe, group.layout.kernels, None, *sizes)
  splits = tuple(Examples(split.inputs, split.targets) for split in dataset.splits)
  _, jitted = programs.jit_functions(functions, keys, hyper, splits, jnp.int32(0))
  exported = [jax.export.export(of, platforms=["cuda"])(*shapes) for of, shapes in jitted]
  assert {program.platforms for program in exported} == {("cuda",)}


# Every named model. Between them they have every kind of augmentation, some schedules and norms.
_MODELS = {
  "cnn_binary": {"rotation_range": 9.0, "shift_range": 0.1, "horizontal_flip": True},
  "cnn_mnist": {"schedule": "cosine", "l2": 1e-4, "activation": "gelu"},
  "mlp": {"label_smoothing": 0.1, "restore_best": True, "metrics": ("softmax_hinge",)},
  "cifar_mlp": {"plateau_patience": 1, "class_weight": "balanced"},
  "mlp(8, norm=layer)": {"optimizer": "optax:lion"},
  "lenet5": {},
  "resnet(8, norm=batch)": {"horizontal_flip": True},
  "vit(patch_size=16, depth=1)": {},
}


@pytest.mark.parametrize("model", _MODELS)
def test_programs_of_models_are_lowered_for_cuda(model, monkeypatch):
  """One member alone, where layers in C++ would be on a CPU, and members that are mapped over."""
  unavailable = "JAX computes on gpu here"
  monkeypatch.setattr(matmul, "why_unavailable", lambda: unavailable)
  dataset = _images()
  arms = {"a": Arm(model=model, **_CLASSES, **_MODELS[model])}
  for seeds in (1, 3) if model in models.NAMES else (3,):
    (group,) = _plan(dataset, arms, seeds)
    assert group.layout.chunk_size == seeds
    _export(group, dataset)


def test_all_models_by_name_are_lowered():
  names = {name.partition("(")[0] for name in _MODELS}
  assert names | {"transformer"} == {*models.NAMES, *models.NETWORKS}


@pytest.mark.parametrize("optimizer", optimizers.NAMES)
def test_optimizers_are_lowered_for_cuda(optimizer):
  dataset = _images(4)
  (group,) = _plan(dataset, {"a": Arm(model="mlp(4)", optimizer=optimizer, **_CLASSES)})
  _export(group, dataset)


def test_losses_are_lowered_for_cuda():
  """As arms of one program each, for classes, two classes, numbers and a class per position."""
  of_numbers, binary = set(losses.OF_NUMBERS), {"binary_cross_entropy", "hinge"}
  of_classes = {*losses.NAMES} - of_numbers - binary
  for dataset, names, model in (
    (_images(4), of_classes | {"mean_squared_error", "hinge"}, "mlp(4)"),
    (_images(4, 2), binary, "mlp(4)"),
    (_numbers(), of_numbers, "mlp(4)"),
    (_tokens(), {"categorical_cross_entropy"}, "transformer(9, width=8, per_position=True)"),
  ):
    for group in _plan(dataset, {n: Arm(**{**_CLASSES, "model": model, "loss": n}) for n in names}):
      _export(group, dataset)


def test_code_that_is_not_xla_s_cannot_be_exported(digits):
  """So the tests above would fail if layers in C++ were in a program for a GPU."""
  if matmul.why_unavailable() is not None:
    pytest.skip(f"no layers in C++: {matmul.why_unavailable()}")
  (group,) = _plan(digits, {"a": Arm(model="mlp(64, 64)", batch_size=32)}, seeds=1)
  with pytest.raises(ValueError, match="jaxdl_"):
    _export(group, digits)


@pytest.mark.parametrize(
  ("settings", "seeds", "arms", "gibibytes", "expected"),
  [
    ({}, 64, 1, 139, (64, 1)),  # all of them at a time
    ({}, 64, 3, 139, (32, 3)),  # at most 128 members
    ({}, 64, 1, 10, (22, 1)),  # what half of the memory holds, in equal chunks
    ({"model": "mlp"}, 1000, 1, 10, (125, 1)),
    ({"model": "cifar_mlp", "loss": "categorical_cross_entropy"}, 200, 1, 139, (100, 1)),
  ],
)
def test_plan_for_a_described_device(settings, seeds, arms, gibibytes, expected):
  """The coursework's networks at their sizes; no layers in C++, no native convolution."""
  images = np.zeros((1100, 28, 28, 1), np.uint8)
  dataset = data.from_arrays(
    images, np.arange(1100) % 2, images[:9], np.arange(9) % 2, validation=0.1
  )
  base = Arm(**settings)
  (group,) = _plan(
    dataset,
    {str(rate): replace(base, learning_rate=rate) for rate in np.linspace(0.1, 0.2, arms)},
    seeds,
    DeviceKind("gpu", "a GPU", gibibytes * 2**30),
  )
  assert (group.layout.chunk_size, group.layout.chunk_arms) == expected
  assert group.layout.kernels == ""
  assert not group.recipe.native_conv


def test_peak_bytes_by_hand():
  """A result is there from its operation to its last use; what is inside of another, meanwhile."""

  def function(x):  # [10] float32: 40 bytes
    a = jnp.sin(x)
    b = jnp.cos(a)  # a, b
    c = a * b  # a, b, c
    d = jnp.concatenate([c, c])  # c, d: 120 bytes
    return d.sum()

  peak = functools.partial(_peak, jnp.zeros(10, jnp.float32))
  assert peak(jnp.sin) == 40
  assert peak(lambda x: jnp.sin(jnp.cos(x))) == 80
  assert peak(function) == 120
  # The result of the loop, 40 bytes, and in each of its steps a cosine, its sine and a copy of x.
  assert peak(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(jnp.cos(y)), x)) >= 120


def _peak(x, function):
  return tuning.peak_bytes(jax.make_jaxpr(function)(x).jaxpr)


def test_inputs_count_once_for_all_members():
  """The estimate for one member does not contain what all members of a device share."""
  images = np.zeros((10, 64, 64, 1), np.uint8)
  dataset = data.from_arrays(images, np.arange(10) % 2, images, np.arange(10) % 2)
  arm = Arm(model="mlp(2)", batch_size=4, patience=None)
  (group,) = _plan(dataset, {"a": arm})
  hyper = jax.tree.map(lambda leaf: leaf[0], group.hyper)
  member = jax.eval_shape(
    functools.partial(programs.train.create_member, group.recipe), group.keys[0], hyper
  )
  # Predictions see 8,192 images at a time: 134 MB as float32, and two units of each.
  assert tuning.activation_bytes(group.recipe, member, hyper) < 2**20


def test_nothing_is_copied_inside_an_epoch_as_planned_for_a_gpu():
  """Batch normalisation on augmented images, mapped over seeds and arms."""
  dataset = _images(8)
  arm = Arm(model="own_parts:Normalised()", **_CLASSES, horizontal_flip=True, rotation_range=5.0)
  arms = {"a": arm, "b": replace(arm, learning_rate=0.01)}
  (group,) = _plan(dataset, arms)
  assert (group.layout.chunk_size, group.layout.chunk_arms) == (2, 2)
  device = jax.local_devices()[0]
  splits = programs.put_splits(dataset, device)
  compiled = chunk_lib.compile_chunk(group, splits, device)
  bound = chunk_lib.bind(compiled, group, group.chunks()[0], splits, device)
  members, index = bound.create(), bound.put(np.int32(0))
  with jax.transfer_guard("disallow"):
    _, metrics = bound.programs.train_epoch(
      members, bound.keys, bound.hyper, splits[0], splits[1], index
    )
    jax.block_until_ready(metrics)
  assert np.isfinite(metrics.train_loss).all()
