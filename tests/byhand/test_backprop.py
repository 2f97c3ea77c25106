"""Gradients by hand against JAX, against numbers by hand, and wrong rules against the check."""

import ast
import copy
import functools
import itertools
import json
import math
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, epoch_slices, form

from experiments import check_gradients
from jaxdl import batches, train
from jaxdl import recipe as recipe_lib
from jaxdl.arm import Arm
from jaxdl.byhand import backprop, gradient_check, rule_references
from jaxdl.byhand.backprop import activations, layers
from jaxdl.byhand.backprop import losses as loss_rules
from jaxdl.byhand.backprop import optimizers as optimizer_rules
from jaxdl.forward import Variables
from jaxdl.nn import models
from jaxdl.optim import losses, optimizers

_SOURCES = sorted((ROOT / "jaxdl" / "byhand" / "backprop").glob("*.py"))
_LOSSES = [str(loss) for loss in gradient_check.known_losses()]
_CELLS = list(itertools.product(models.NAMES, _LOSSES, models.ACTIVATIONS))


@pytest.fixture(scope="module")
def cases():
  """What JAX says, computed once; what is derived by hand is asked anew in every test."""
  return gradient_check.cases()


@pytest.fixture(scope="module")
def oracle():
  return gradient_check.check_oracle()


def _failed(cases, table=None):
  """Returns what does not agree with JAX, of one table or of all."""
  rows = [gradient_check.compare(case) for case in cases if table in (None, case.table)]
  return [row.of for row in rows if not row.passed]


# The source.


def test_nothing_differentiates_automatically():
  """NumPy is all there is, and NumPy cannot differentiate."""
  imported, names = set(), set()
  for node in itertools.chain.from_iterable(
    ast.walk(ast.parse(source.read_text(encoding="utf-8"))) for source in _SOURCES
  ):
    if isinstance(node, ast.Import):
      imported |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      imported.add(node.module)
    elif isinstance(node, ast.Name):
      names.add(node.id)
    elif isinstance(node, ast.Attribute):
      names.add(node.attr)
  own = {name for name in imported if name.startswith("jaxdl.byhand.backprop")}
  expected = {"collections.abc", "functools", "itertools", "math", "typing", "numpy"}
  assert imported - own == {*expected, "jaxdl.errors"}
  assert not names & {"grad", "value_and_grad", "vjp", "jvp", "linearize", "custom_vjp", "apply"}
  assert not names & {"__import__", "import_module", "eval", "exec"}


def test_every_derivation_states_its_formula_and_every_function_is_a_rule():
  for module in {*backprop.RULES.values()}:
    functions = {n: f for n, f in vars(module).items() if isinstance(f, types.FunctionType)}
    backward = {
      n.removesuffix("_backward")
      for n in functions
      if n.endswith("_backward") and not n.startswith("_")
    }
    assert backward == {name for name, of in backprop.RULES.items() if of is module}
    for name in backward:
      text = functions[f"{name}_backward"].__doc__
      assert "d" in text, name
      assert "=" in text or "is dy" in text, name
  steps = {n.removesuffix("_step") for n in vars(optimizer_rules) if n.endswith("_step")}
  assert steps == set(backprop.OPTIMIZERS)


# Against JAX.


@pytest.mark.parametrize("cell", _CELLS, ids="-".join)
def test_models_agree_with_jax(cases, cell):
  (case,) = (case for case in cases if case.of == cell)
  assert {"loss", "images", "Dense_0/kernel", "Dense_0/bias"} <= set(case.expected)
  assert all(leaf.dtype == np.float64 for leaf in case.expected.values())
  # A gradient of zeros would agree with anything that is zero.
  assert all(np.abs(leaf).max() > 0 for leaf in case.expected.values())
  row = gradient_check.compare(case)
  assert row.error < 1e-12, row


def test_networks_agree_with_jax(cases):
  """Every parameter of a LeNet-5 and a ResNet, and whatever rules they consist of."""
  found = {case.of[0]: case for case in cases if case.table == "networks"}
  resnet = found["resnet(8, width=2, shortcut=B)"]
  # 9 convolutions, each with a normalisation, an output layer, the loss and the images.
  assert len(found["lenet5"].expected) == 12
  assert len(resnet.expected) == 9 + 2 * 9 + 2 + 2
  for case in found.values():
    assert gradient_check.compare(case).error < 1e-12
    assert all(np.abs(leaf).max() > 0 for leaf in case.expected.values())


def test_rules_and_optimizers_agree_with_jax(cases):
  assert _failed(cases) == []
  names = {case.of[0] for case in cases if case.table == "rules"}
  assert names == set(backprop.RULES)
  smoothed = {case.of[0] for case in cases if case.of[-1] == "label smoothing 0.1"}
  assert smoothed == set(losses.SMOOTHABLE) == set(backprop.SMOOTHABLE)
  assert {case.of[0] for case in cases if case.table == "optimizers"} == set(optimizers.NAMES)


def test_kinks_and_ties_are_among_the_cases():
  """The check of the conventions at kinks is none where no number lies on a kink."""
  with jax.enable_x64(True):
    known = rule_references.references()
  x = {name: np.round(known[name].x) for name in ("relu", "leaky_relu", "max_pool", "hinge")}
  assert (x["relu"] == 0).any()
  assert (x["leaky_relu"] == 0).any()
  (labels,) = known["hinge"].arguments
  assert (x["hinge"] * (2 * np.eye(5)[labels] - 1) == 1).any()
  _, (_, top, bottom, left, right) = layers.max_pool(x["max_pool"])
  assert (top == bottom).any()
  assert (left == right).any()


def test_rules_agree_with_jax_at_the_smallest_shapes():
  sizes = rule_references.Sizes(batch=1, image=(3, 4, 1), num_features=2)
  with jax.enable_x64(True):
    for name, reference in rule_references.references(5, sizes).items():
      row = gradient_check.compare(gradient_check.rule_case(name, reference))
      assert row.passed, row


@pytest.mark.parametrize("loss", backprop.LOSSES)
def test_label_smoothing_in_a_whole_model(loss):
  rng, num_outputs = np.random.default_rng(1), losses.num_outputs(loss, 2)
  params = {
    "Dense_0": {"kernel": rng.normal(size=(6, 4)), "bias": rng.normal(size=4)},
    "Dense_1": {"kernel": rng.normal(size=(4, num_outputs)), "bias": rng.normal(size=num_outputs)},
  }
  images, labels = rng.normal(size=(3, 2, 3, 1)), np.array([0, 1, 1])

  def mean_loss(params, smoothing):
    hidden = jnp.tanh(
      images.reshape(3, 6) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
    )
    logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None]
    chosen = losses.select([losses.Kind(loss)], 0, jnp.zeros(0), smoothing)
    return chosen(logits, labels).mean()

  with jax.enable_x64(True):
    value, expected = jax.jit(jax.value_and_grad(mean_loss))(params, jnp.asarray(0.3))
  found = backprop.loss_and_gradients(
    "mlp", "tanh", loss, params, images, labels, label_smoothing=0.3
  )
  assert found.loss == pytest.approx(float(value), rel=1e-13)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), found.params, expected)
  plain = backprop.loss_and_gradients("mlp", "tanh", loss, params, images, labels)
  assert (plain.loss != found.loss) == (loss in losses.SMOOTHABLE)


def test_the_oracle_agrees_with_finite_differences(oracle, monkeypatch):
  assert {row.of[0] for row in oracle} >= {f"loss {name}" for name in _LOSSES}
  assert all(row.passed for row in oracle), oracle

  @jax.custom_vjp
  def wrong(logits, labels):
    return losses.hinge(logits, labels)

  wrong.defvjp(lambda z, y: (losses.hinge(z, y), z), lambda z, dy: (z * dy[:, None], None))
  monkeypatch.setitem(losses._LOSSES, "hinge", (wrong, ()))
  monkeypatch.setattr(rule_references, "references", dict)
  one_loss = [gradient_check.Loss("hinge", of_numbers=False)]
  monkeypatch.setattr(gradient_check, "known_losses", lambda: one_loss)
  failed = [row for row in gradient_check.check_oracle() if not row.passed]
  assert [row.of for row in failed] == [("loss hinge",)]


def test_one_step_of_training_is_the_step_by_hand():
  """`train_step` itself, in float32: scaled images, dropout, two slices, a padded example."""
  arm = Arm(model="mlp", loss="hinge", optimizer="momentum", dropout_rate=0.3, batch_size=5,
            num_epochs=1, activation="tanh", kernel_initializer="random_normal")  # fmt: skip
  (recipe,) = recipe_lib.group_by_recipe({"arm": arm}, form(3, 5, (4, 3, 1)), lambda _: 3)
  rng = np.random.default_rng(0)
  examples = batches.Examples(
    rng.integers(0, 256, (5, 4, 3, 1)).astype(np.uint8), np.array([0, 2, 1, 1, 0])
  )
  sizes = [12, 128, 64, 3]
  params = {
    f"Dense_{i}": {"kernel": 0.2 * rng.normal(size=size), "bias": rng.normal(size=size[1])}
    for i, size in enumerate(itertools.pairwise(sizes))
  }
  start = jax.tree.map(np.float32, params)
  slices = jax.tree.map(lambda leaf: leaf[0], epoch_slices(recipe, batches.seed_key(0, 0), 0, 5))
  velocity = optimizers.create("momentum", 0.0).init(start)
  hyper = recipe_lib.hyperparams(arm, recipe)
  run = jax.jit(functools.partial(train.train_step, recipe))
  carry = Variables(start, {}), velocity
  (after, _), (loss_sum, _) = run(hyper, examples, carry, slices, 0.1)

  kept = np.asarray(slices.weights).ravel() > 0
  order = np.asarray(slices.indices).ravel()[kept]
  mask = rule_references.dropout_mask(slices.dropout_keys.ravel()[kept], 64, 0.3)
  images, labels = np.asarray(examples.inputs)[order] / 255, np.asarray(examples.targets)[order]
  found = backprop.loss_and_gradients(
    "mlp", "tanh", "hinge", params, images, labels, mask, dropout_rate=0.3
  )
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, found.params)
  assert float(loss_sum) / 5 == pytest.approx(found.loss, rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.params, expected
  )


# Numbers by hand.


def test_dense_network_by_hand():
  """2-2-1, ReLU, one hidden unit at its kink.

  Hidden: z = (1 + 2/2, -1 + 2/2) = (2, 0), h = (2, 0). Output: 2/2 + 0 - 1 = 0, p = 1/2, y = 1.
  Back: p - y = -1/2; by h (-1/4, -3/2); by z (-1/4, 0), for relu'(0) = 0.
  """
  params = {
    "Dense_0": {"kernel": np.array([[1.0, -1.0], [0.5, 0.5]]), "bias": np.zeros(2)},
    "Dense_1": {"kernel": np.array([[0.5], [3.0]]), "bias": np.array([-1.0])},
  }
  images = np.array([1.0, 2.0]).reshape(1, 1, 1, 2)
  found = backprop.loss_and_gradients(
    "mlp", "relu", "binary_cross_entropy", params, images, np.array([1])
  )
  assert found.loss == pytest.approx(math.log(2), rel=1e-15)
  assert found.params["Dense_1"]["kernel"].tolist() == [[-1.0], [0.0]]
  assert found.params["Dense_1"]["bias"].tolist() == [-0.5]
  assert found.params["Dense_0"]["kernel"].tolist() == [[-0.25, 0.0], [-0.5, 0.0]]
  assert found.params["Dense_0"]["bias"].tolist() == [-0.25, 0.0]
  assert found.images.ravel().tolist() == [-0.25, -0.125]


def test_convolutional_network_by_hand():
  """0 to 15 in a 4 x 4 image, a kernel of ones: window sums 45, 54, 81, 90, of which 90 is pooled.

  Output: 2 * 90 - 180 = 0, p = 1/2, y = 0. Back: 1/2; by the pooled value 1, all of it to the
  window that begins at (1, 1).
  """
  params = {
    "Conv_0": {"kernel": np.ones((3, 3, 1, 1)), "bias": np.zeros(1)},
    "Dense_0": {"kernel": np.array([[2.0]]), "bias": np.array([-180.0])},
  }
  images = np.arange(16.0).reshape(1, 4, 4, 1)
  found = backprop.loss_and_gradients(
    "cnn_binary", "relu", "binary_cross_entropy", params, images, np.array([0])
  )
  assert found.params["Dense_0"]["kernel"].tolist() == [[45.0]]
  assert found.params["Dense_0"]["bias"].tolist() == [0.5]
  kernel = found.params["Conv_0"]["kernel"][:, :, 0, 0]
  assert kernel.tolist() == [[5, 6, 7], [9, 10, 11], [13, 14, 15]]
  assert found.params["Conv_0"]["bias"].tolist() == [1.0]
  expected = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]
  assert found.images[0, :, :, 0].tolist() == expected


@pytest.mark.parametrize(
  ("rules", "x", "label", "loss", "gradient"),
  [
    # p = (3/4, 1/4): -log 1/4; p - onehot
    (("categorical_cross_entropy",), [math.log(3), 0], 1, math.log(4), [0.75, -0.75]),
    # ((1/2)^2 + (1/2)^2) / 2; by p (-1/2, 1/2), times p (1 - p) twice, as both p move
    (("softmax", "mean_squared_error"), [0, 0], 0, 0.25, [-0.25, 0.25]),
    # (max(0, 1 - 1/2) + max(0, 1 + 2)) / 2; -t / 2
    (("hinge",), [0.5, 2], 0, 1.75, [-0.5, 0.5]),
    # At the kink, and beyond it.
    (("hinge",), [1, -3], 0, 0, [0, 0]),
    # p = (3/4, 1/4): (1 - 1/4 + 1 + 3/4) / 2; by p (1/2, -1/2), times p (1 - p) twice
    (("softmax", "hinge"), [math.log(3), 0], 1, 1.25, [3 / 16, -3 / 16]),
  ],
)
def test_losses_by_hand(rules, x, label, loss, gradient):
  x, caches, targets = np.array([x], float), [], np.array([label])
  if rules[-1] == "mean_squared_error":
    targets = loss_rules.one_hot(targets, 2)
  for name in rules:
    x, cache = backprop.get_rule(name).forward(x, *([targets] if name == rules[-1] else []))
    caches.append(cache)
  np.testing.assert_allclose(x, [loss], rtol=1e-15)
  dx = np.ones(1)
  for name, cache in zip(reversed(rules), reversed(caches), strict=True):
    dx, _ = backprop.get_rule(name).backward(cache, dx)
  np.testing.assert_allclose(dx, [gradient], rtol=1e-15)


@pytest.mark.parametrize(
  ("name", "arguments", "loss", "gradient"),
  [
    # Errors 1/2, 0 and -3: (1/4 + 0 + 9) / 3; 2/3 of each
    ("mean_squared_error", (), 37 / 12, [1 / 3, 0, -2]),
    # (1/2 + 0 + 3) / 3; a third of each sign
    ("mean_absolute_error", (), 7 / 6, [1 / 3, 0, -1 / 3]),
    # (1/8 + 0 + 1 (3 - 1/2)) / 3; the slope ends at -1
    ("huber", (), 7 / 8, [1 / 6, 0, -1 / 3]),
    # (1/8 + 0 + 2 (3 - 1)) / 3; at -2
    ("huber", (2.0,), 11 / 8, [1 / 6, 0, -2 / 3]),
  ],
)
def test_losses_of_numbers_by_hand(name, arguments, loss, gradient):
  forward, backward = backprop.get_rule(name)
  found, cache = forward(np.array([[1.5, 2.0, -1.0]]), np.array([[1.0, 2.0, 2.0]]), *arguments)
  np.testing.assert_allclose(found, [loss], rtol=1e-15)
  np.testing.assert_allclose(backward(cache, np.ones(1))[0], [gradient], rtol=1e-15)


def test_label_smoothing_by_hand():
  """At p = 1/2 every target costs log 2; at p = (3/4, 1/4) y = (0.1, 0.9) leaves p - y."""
  z, label = np.array([[math.log(3), 0]]), np.array([1])
  loss, cache = loss_rules.categorical_cross_entropy(z, label, 0.2)
  np.testing.assert_allclose(loss, [0.1 * math.log(4 / 3) + 0.9 * math.log(4)], rtol=1e-14)
  gradient, _ = loss_rules.categorical_cross_entropy_backward(cache, np.ones(1))
  np.testing.assert_allclose(gradient, [[0.65, -0.65]], rtol=1e-14)
  loss, cache = loss_rules.binary_cross_entropy(np.zeros((2, 1)), np.array([1, 0]), 0.2)
  np.testing.assert_allclose(loss, [math.log(2)] * 2, rtol=1e-14)
  gradient, _ = loss_rules.binary_cross_entropy_backward(cache, np.ones(2))
  np.testing.assert_allclose(gradient, [[-0.4], [0.4]], rtol=1e-14)


def test_activations_by_hand():
  """GELU from a table of the normal distribution: Phi(1) = 0.841345, phi(1) = 0.241971."""
  x = np.array([-1.0, 0, 1])
  y, cache = activations.gelu(x)
  np.testing.assert_allclose(y, [-0.158655, 0, 0.841345], atol=1e-6)
  dx, _ = activations.gelu_backward(cache, np.array([1.0, 1, 2]))
  np.testing.assert_allclose(dx, [0.158655 - 0.241971, 0.5, 2 * 1.083316], atol=3e-6)
  y, cache = activations.leaky_relu(x)
  assert y.tolist() == [-0.2, 0, 1]
  assert activations.leaky_relu_backward(cache, np.ones(3))[0].tolist() == [0.2, 1, 1]


def test_gelu_comes_before_pooling():
  """Of -3 and -1 the maximum is -1, but GELU is the larger at -3: -0.0040 against -0.1587."""
  params = {
    "Conv_0": {"kernel": np.zeros((3, 3, 1, 1)), "bias": np.zeros(1)},
    "Dense_0": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)},
  }
  params["Conv_0"]["kernel"][0, 0] = 1  # the upper left corner of each window
  images = np.full((1, 4, 4, 1), -1.0)
  images[0, 1, 1] = -3
  for activation, used in (("gelu", True), ("leaky_relu", False)):
    found = backprop.loss_and_gradients(
      "cnn_binary", activation, "binary_cross_entropy", params, images, np.array([1])
    )
    assert (found.images[0, 1, 1, 0] != 0) == used


def test_large_logits_do_not_overflow():
  """exp(1000) is infinite; warnings are errors here."""
  z, label, one = np.array([[1000.0, -1000.0]]), np.array([1]), np.ones(1)
  for name, loss, gradient in (
    ("binary_cross_entropy", 0, [[0]]),
    ("categorical_cross_entropy", 2000, [[1, -1]]),
    ("hinge", 1001, [[0.5, -0.5]]),
  ):
    forward, backward = backprop.get_rule(name)
    y, cache = forward(z[:, : len(gradient[0])], label)
    assert y.tolist() == [loss]
    assert backward(cache, one)[0].tolist() == gradient
  for name, expected in (("softmax", [[1, 0]]), ("sigmoid", [[1, 0]]), ("tanh", [[1, -1]])):
    y, cache = backprop.get_rule(name).forward(z)
    assert y.tolist() == expected
    assert backprop.get_rule(name).backward(cache, np.ones((1, 2)))[0].tolist() == [[0, 0]]


def test_pooling_by_hand():
  """Ties are split, first between columns and then between rows; the odd row gets nothing."""
  x = np.array([[2.0, 2.0], [2.0, 1.0], [9.0, 9.0]]).reshape(1, 3, 2, 1)
  y, cache = layers.max_pool(x)
  dx, _ = layers.max_pool_backward(cache, np.ones(y.shape))
  assert y.ravel().tolist() == [2.0]
  assert dx[0, :, :, 0].tolist() == [[0.25, 0.5], [0.25, 0], [0, 0]]


def test_optimizer_steps_by_hand():
  gradients = np.array([[1.0], [2.0]])
  start = np.zeros(1)
  assert backprop.descend("sgd", start, gradients, 0.5).ravel().tolist() == [-0.5, -1.5]
  # v = 1, then 0.9 + 2
  assert backprop.descend("momentum", start, gradients, 0.5).ravel().tolist() == [-0.5, -1.95]
  # One more 0.9 v each time: 1 + 0.9, then 2 + 0.9 * 2.9
  path = backprop.descend("nesterov", start, gradients, 0.5).ravel()
  np.testing.assert_allclose(path, [-0.95, -0.95 - 0.5 * 4.61], rtol=1e-14)
  # Sums of squares 0.1 + 1, then + 4; averages 0.1, then 0.09 + 0.4
  path = backprop.descend("adagrad", start, gradients, 0.5).ravel()
  np.testing.assert_allclose(path, [-0.5 / 1.1**0.5, -0.5 / 1.1**0.5 - 1 / 5.1**0.5], rtol=1e-6)
  path = backprop.descend("rmsprop", start, gradients, 0.5).ravel()
  np.testing.assert_allclose(path, [-0.5 / 0.1**0.5, -0.5 / 0.1**0.5 - 1 / 0.49**0.5], rtol=1e-6)
  # Adam's step from 2 to 1.5, and 0.5 * 0.004 * 2 beside it
  (after,) = backprop.descend("adamw", np.array([2.0]), gradients[:1], 0.5)
  np.testing.assert_allclose(after, [1.5 - 0.004], rtol=1e-6)
  # The first step is learning_rate g / (|g| + epsilon): half a learning rate at |g| = epsilon.
  first = backprop.descend("adam", np.zeros(2), np.array([[1e-7, -1.0]]), 0.5)
  np.testing.assert_allclose(first, [[-0.25, 0.5]], rtol=1e-6)
  # m = 0.1, then 0.29; v = 0.001, then 0.004999
  second = 0.29 / 0.19 / (math.sqrt(0.004999 / 0.001999) + 1e-7)
  path = backprop.descend("adam", start, gradients, 0.5)
  assert path[1, 0] - path[0, 0] == pytest.approx(-0.5 * second, rel=1e-9)


# Wrong rules have to be found.

_PARAMETERS = {
  **dict.fromkeys(("dense", "conv"), ("kernel", "bias")),
  **dict.fromkeys(("batch_norm", "layer_norm", "group_norm"), ("scale", "bias")),
  "residual_sum": ("branch",),
  "attention": ("key", "value"),
}
_OUTPUTS = [
  (name, output) for name in backprop.RULES for output in ("input", *_PARAMETERS.get(name, ()))
]


@pytest.mark.parametrize("factor", [-1.0, 1 + 1e-8])
@pytest.mark.parametrize(("name", "output"), _OUTPUTS, ids=lambda value: str(value))
def test_a_wrong_rule_turns_the_table_red(cases, monkeypatch, name, output, factor):
  """A planted sign or factor in any gradient that any rule gives, in the models' table too.

  Of the models, one is asked that has every rule of the models.
  """
  module = backprop.RULES[name]
  right = getattr(module, f"{name}_backward")

  def wrong(cache, dy):
    dx, dparams = right(cache, dy)
    if output == "input":
      return factor * dx, dparams
    return dx, {**dparams, output: factor * dparams[output]}

  monkeypatch.setattr(module, f"{name}_backward", wrong)
  assert (name, "random numbers") in _failed(cases, "rules")
  red = _failed([case for case in cases if case.of[0] == "cnn_mnist"])
  parts = {str(loss): _rules_of(loss) for loss in gradient_check.known_losses()}
  if name in backprop.ACTIVATIONS or any(name in rules for rules in parts.values()):
    assert red
    # And only where it has a part.
    assert all(name == activation or name in parts[loss] for _, loss, activation in red)
  else:
    assert bool(red) == (name in ("dense", "conv", "max_pool", "flatten", "dropout"))
  if name in ("avg_pool", "global_avg_pool", "batch_norm", "residual_sum"):
    assert _failed(cases, "networks")


def _rules_of(loss):
  return (loss.name,) if loss.of_numbers else backprop.LOSSES[loss.name]


class _Mutation(ast.NodeTransformer):
  """Makes one change: the `target`-th of all that there are."""

  def __init__(self, target):
    self.target, self.count, self.what = target, 0, None

  def _choose(self, node, changes):
    for what, changed in changes:
      if self.count == self.target:
        self.what = f"{ast.unparse(node)} -> {what}"
        node = ast.copy_location(changed, node)
      self.count += 1
    return node

  def visit_BinOp(self, node):
    self.generic_visit(node)
    swaps = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
             ast.Pow: ast.Mult}  # fmt: skip
    changes = [("left only", node.left), ("right only", node.right)]
    if type(node.op) in swaps:
      other = ast.BinOp(node.left, swaps[type(node.op)](), node.right)
      changes.append(("another operator", other))
    return self._choose(node, changes)

  def visit_UnaryOp(self, node):
    self.generic_visit(node)
    return self._choose(node, [("no sign", node.operand)])

  def visit_Compare(self, node):
    self.generic_visit(node)
    swaps = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.LtE: ast.Lt, ast.Eq: ast.NotEq,
             ast.IsNot: ast.Is, ast.In: ast.NotIn}  # fmt: skip
    (old,) = node.ops
    other = ast.Compare(node.left, [swaps[type(old)]()], node.comparators)
    return self._choose(node, [("another comparison", other)])

  def visit_Call(self, node):
    self.generic_visit(node)
    keep = [k for k in node.keywords if k.arg == "axis"]
    changes = [("no call", node.args[0])] if node.args else []
    if keep:
      changes.append(("no axis", ast.Call(node.func, node.args, [])))
    return self._choose(node, changes)


_DERIVATIONS = {
  *backprop.RULES,
  *(f"{name}_backward" for name in backprop.RULES),
  *(f"{name}_step" for name in backprop.OPTIMIZERS),
  "_share_of_first",
  "_normalize",
  "_normalize_backward",
  "one_hot",
}
# Changes that change nothing: both forms of the sigmoid give 1/2 at 0, both of leaky ReLU 0, both
# of Huber's loss the same where they meet; and softmax is the same whatever is taken off all logits
# of a row. (What the shift is for has its own test.)
_EQUIVALENT = {
  "huber: size <= delta -> another comparison",
  "sigmoid: x >= 0 -> another comparison",
  "leaky_relu: x >= 0 -> another comparison",
  "softmax: z.max(axis=axis, keepdims=True) -> no axis",
  "softmax: z - z.max(axis=axis, keepdims=True) -> left only",
  "softmax: z - z.max(axis=axis, keepdims=True) -> another operator",
}


def _mutants():
  """Yields (what, module, name, function) for every small change in rules and steps."""
  for module in (*dict.fromkeys(backprop.RULES.values()), optimizer_rules):
    source = ast.parse(pathlib.Path(module.__file__).read_text(encoding="utf-8"))
    for node in source.body:
      if not isinstance(node, ast.FunctionDef) or node.name not in _DERIVATIONS:
        continue
      for target in itertools.count():
        mutation, mutant = _Mutation(target), copy.deepcopy(node)
        mutant.body = [mutation.visit(statement) for statement in mutant.body]
        if mutation.what is None:
          break
        code, found = ast.fix_missing_locations(ast.Module([mutant], [])), {}
        exec(compile(code, "mutant", "exec"), vars(module), found)
        yield f"{node.name}: {mutation.what}", module, node.name, found[node.name]


def test_every_small_change_of_the_source_is_found(cases, monkeypatch):
  """Mutation testing: a sign, a factor, a term, a comparison, an axis, one at a time."""
  survivors, total = set(), 0
  # cifar_mlp has no function that mlp does not have, and takes most of the time.
  cases = [case for case in cases if case.of[0] != "cifar_mlp"]
  for what, module, name, function in _mutants():
    total += 1
    # What uses the function first, whole models last.
    own = name.removesuffix("_backward").removesuffix("_step")
    ordered = sorted(cases, key=lambda case: (case.table == "models", own not in case.of))
    with monkeypatch.context() as patch:
      patch.setattr(module, name, function)
      try:
        with np.errstate(all="ignore"):
          caught = any(not gradient_check.compare(case).passed for case in ordered)
      except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError):
        caught = True
    if not caught:
      survivors.add(what)
  assert total > 300
  assert survivors == _EQUIVALENT


# What is not known is red.


@pytest.mark.parametrize(
  ("module", "names", "expected"),
  [
    (models, "NAMES", "no derivation by hand of model 'novel'"),
    (models, "ACTIVATIONS", "no derivation by hand of activation 'novel'"),
    (losses, "NAMES", "no derivation by hand of loss 'novel'"),
    (losses, "OF_NUMBERS", "no derivation by hand of loss 'novel'"),
    (optimizers, "NAMES", "no derivation by hand of optimizer 'novel'"),
    (backprop, "RULES", "rule 'novel' has no reference to compare it with"),
  ],
)
def test_what_has_no_derivation_fails(monkeypatch, module, names, expected):
  for one, few in ((models, ("mlp",)), (losses, ("hinge",)), (optimizers, ("sgd",))):
    monkeypatch.setattr(one, "NAMES", few)
  monkeypatch.setattr(models, "ACTIVATIONS", ("tanh",))
  monkeypatch.setattr(losses, "OF_NUMBERS", ())
  monkeypatch.setattr(gradient_check, "_NETWORKS", {})
  monkeypatch.setattr(rule_references, "references", dict)
  monkeypatch.setattr(backprop, "RULES", {})
  monkeypatch.setattr(module, names, (*getattr(module, names), "novel"))
  monkeypatch.setitem(optimizers._OPTIMIZERS, "novel", optimizers._OPTIMIZERS["sgd"])
  rows = [gradient_check.compare(case) for case in gradient_check.cases()]
  (failed,) = [row for row in rows if not row.passed]
  assert failed.leaf == expected
  assert any("novel" in name for name in failed.of)


def test_relative_error_of_a_leaf():
  error = gradient_check.relative_error
  a = np.array([1.0, -4.0])
  assert error(a, a) == 0
  assert error(a + np.array([0.0, 0.5]), a) == 0.125
  assert error(np.zeros(2), np.zeros(2)) == 0
  for left, right in [
    (a, np.zeros(2)),
    (None, a),
    (a, None),
    (a[:1], a),
    (a, a * np.nan),
    (a.astype(np.float32), a),
  ]:
    assert error(left, right) == math.inf


# The command.


def test_command_prints_the_table_and_writes_both_files(
  cases, oracle, monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(gradient_check, "check_oracle", lambda: oracle)
  monkeypatch.setattr(gradient_check, "cases", lambda: cases)
  assert check_gradients.main(["check_gradients", f"--workdir={tmp_path / 'run'}"]) == 0
  out = capsys.readouterr().out
  assert f"All {len(cases) + len(oracle)} checks agree within 1e-10." in out
  starts = tuple(f"{name} " for name in models.NAMES)
  assert sum(line.startswith(starts) for line in out.splitlines()) == len(_CELLS)
  assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["gradients.json", "report.md"]
  content = json.loads((tmp_path / "run" / "gradients.json").read_text())
  assert content["passed"] is True
  cells = [check for check in content["checks"] if check["table"] == "models"]
  assert [(c["model"], c["loss"], c["activation"]) for c in cells] == _CELLS
  assert all(0 <= cell["error"] <= 1e-10 and cell["leaf"] for cell in cells)
  report = (tmp_path / "run" / "report.md").read_text()
  assert "| mlp | hinge | tanh | " in report


def test_command_fails_with_a_wrong_rule(cases, oracle, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(gradient_check, "check_oracle", lambda: oracle)
  monkeypatch.setattr(gradient_check, "cases", lambda: cases)
  right = activations.tanh_backward
  monkeypatch.setattr(activations, "tanh_backward", lambda y, dy: (np.nan * right(y, dy)[0], {}))
  assert check_gradients.main(["check_gradients", f"--workdir={tmp_path}"]) == 1
  out = capsys.readouterr().out
  rules = sum(case.of[0] == "tanh" for case in cases)
  # Tanh throughout in each model, as the last activation of cifar_mlp, and the rule itself.
  failed = (len(models.NAMES) + len(models.ACTIVATIONS) - 1) * len(_LOSSES) + rules
  assert f"{failed} of {len(cases) + len(oracle)} checks do NOT agree within 1e-10:" in out
  assert "cifar_mlp binary_cross_entropy gelu;" in out
  content = json.loads((tmp_path / "gradients.json").read_text())
  assert content["passed"] is False
  assert sum(not check["passed"] for check in content["checks"]) == failed
  assert "FAILED" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (["--wrokdir=x"], "Unknown command line flag 'wrokdir'. Did you mean: workdir ?"),
    (["x"], "unknown argument 'x'"),
    (["--workdir="], "--workdir is empty"),
    (["--workdir=pyproject.toml"], "cannot write to workdir 'pyproject.toml'"),
    (["--workdir=OTHER"], "report.md' was made by no run"),
  ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, expected, monkeypatch, tmp_path, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(gradient_check, "cases", lambda: pytest.fail("computed before checking"))
  (tmp_path / "report.md").write_text("another")
  arguments = [argument.replace("OTHER", str(tmp_path)) for argument in arguments]
  assert check_gradients.main(["check_gradients", *arguments]) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: ")
  assert expected in err
  assert err.count("\n") == 1
  assert (tmp_path / "report.md").read_text() == "another"


def test_command_as_a_process():
  result = subprocess.run(
    [sys.executable, "-m", "experiments.check_gradients", "--nothing"],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr == "error: Unknown command line flag 'nothing'\n"
