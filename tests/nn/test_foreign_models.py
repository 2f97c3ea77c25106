"""Models that are no linen modules: of flax NNX by an adapter, and pairs of functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_parts
import pytest
from conftest import create_member, member, train_member
from flax import nnx

import jaxdl
from jaxdl.arm import Arm
from jaxdl.errors import InputError

_ARM = Arm(
  model="mlp",
  loss="categorical_cross_entropy",
  optimizer="sgd",
  learning_rate=0.1,
  batch_size=50,
  num_epochs=3,
  patience=None,
  dropout_rate=0.0,
)


class NnxNet(nnx.Module):
  """Batch normalisation and dropout, in NNX."""

  def __init__(self, num_inputs, num_outputs, rate, *, rngs):
    self.first = nnx.Linear(num_inputs, 8, rngs=rngs)
    self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
    self.drop = nnx.Dropout(rate, rngs=rngs)
    self.last = nnx.Linear(8, num_outputs, rngs=rngs)

  def __call__(self, x):
    x = self.first(x.reshape(len(x), -1))
    return self.last(self.drop(nnx.relu(self.norm(x))))


class FromNnx(nn.Module):
  """The adapter in the docstring of `jaxdl.nn.own`."""

  num_outputs: int = 10
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    def call(net, x):
      net.set_attributes(deterministic=not train, use_running_average=not train)
      return net(x)

    arguments = (x[0].size, self.num_outputs, self.dropout_rate)
    return nnx.bridge.ToLinen(NnxNet, arguments)(x, nnx_method=call)


def test_an_nnx_module_trains_as_in_a_loop_of_nnx(blobs):
  of = member(_ARM.replace(model=FromNnx), blobs)
  start = create_member(of.recipe, of.key, of.hyper).variables
  net = NnxNet(64, 3, 0.0, rngs=nnx.Rngs(0))
  for collection in (start.params, start.state["batch_stats"]):
    nnx.update(net, collection["ToLinen_0"])
  inputs, labels = of.train.inputs / 255, of.train.targets

  def loss(net):
    return optax.softmax_cross_entropy_with_integer_labels(net(inputs), labels).mean()

  @nnx.jit
  def step(net):
    gradients = nnx.grad(loss)(net)
    params = nnx.state(net, nnx.Param)
    nnx.update(net, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients))

  for _ in range(3):  # the batch is the whole set, so its order does not matter
    step(net)
  state, _ = train_member(*of)
  for collection, kind in (("params", nnx.Param), ("batch_stats", nnx.BatchStat)):
    found = state.variables.collections()[collection]["ToLinen_0"]
    expected = nnx.to_pure_dict(nnx.state(net, kind))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


def test_dropout_of_an_nnx_module_differs_between_seeds_and_is_off_in_evaluation(blobs):
  arms = {"a": _ARM.replace(model=FromNnx, dropout_rate=None, batch_size=16)}
  first, again = (
    jaxdl.train_population(blobs, arms, seeds=2, keep_logits=True, chunk_size=size)
    for size in (2, 1)
  )
  np.testing.assert_allclose(first.logits["a"], again.logits["a"], atol=1e-3)
  assert np.abs(first.logits["a"][0] - first.logits["a"][1]).max() > 0.01


def test_a_pair_of_functions_trains_as_the_module_that_it_wraps(blobs):
  module = own_parts.Mlp(num_outputs=3)

  def init(key, inputs):
    return module.init(key, inputs)["params"]

  def apply(params, inputs):
    return module.apply({"params": params}, inputs)

  arms = {
    "pair": _ARM.replace(model=(init, apply), dropout_rate=None),  # the default, which it ignores
    "module": _ARM.replace(model=lambda: module, dropout_rate=None),
  }
  trained = jaxdl.train_population(blobs, arms, seeds=2, keep_logits=True)
  np.testing.assert_allclose(trained.logits["pair"], trained.logits["module"], atol=1e-5)
  assert not arms["pair"].is_text  # its functions have no importable name


def scale_init(key, inputs):
  return {"scale": jax.random.normal(key, (3,))}


def scale_apply(params, inputs, train, rngs=None):
  assert train == (rngs is not None)
  x = inputs.reshape(len(inputs), -1).mean(axis=1, keepdims=True)  # [B, 1]
  return (x + train) * params["scale"].reshape(1, 3)


def test_functions_get_the_keywords_that_they_take(blobs):
  """In training 1 is added, which both epochs' losses show."""
  arm = _ARM.replace(model=(scale_init, scale_apply), dropout_rate=None, learning_rate=1e-30)
  assert arm.is_text
  assert Arm(**arm.to_json()) == arm
  of = member(arm, blobs)
  state, curves = train_member(*of)
  scale = jax.random.normal(jax.random.fold_in(of.key, 0), (3,))
  np.testing.assert_array_equal(state.params["scale"], scale)
  for added, split, losses in (
    (1, of.train, curves.train_loss),
    (0, of.validation, curves.val_loss),
  ):
    x = (split.inputs / 255).reshape(len(split.targets), -1).mean(axis=1) + added
    logits = x[:, None] * scale[None]
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, split.targets).mean()
    np.testing.assert_allclose(losses, np.full(3, expected), rtol=1e-5)


def test_functions_that_fail_are_refused_in_one_line(blobs):
  def apply(params, inputs):
    return jnp.zeros((len(inputs), 3)) @ params["none"]

  with pytest.raises(InputError, match="fails: KeyError: 'none'") as error:
    jaxdl.train_population(blobs, {"a": _ARM.replace(model=(scale_init, apply))}, seeds=1)
  assert "\n" not in str(error.value)
