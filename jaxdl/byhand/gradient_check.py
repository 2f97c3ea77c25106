"""Compares the gradients of `backprop/` with `jax.grad`, and `jax.grad` with finite differences.

Everything is float64. `cases()` computes what JAX says, once; `compare()` computes what `backprop`
says, as often as needed. Whatever the project registers and `backprop` does not know becomes a row
that fails: nothing is skipped.

Compiling takes most of the time, so the models are not compiled as a whole: they share few
operations, and one that was compiled for one model, loss and activation serves the others. A model
is differentiated once, and the gradients of all losses are pulled back through it.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.test_util import check_grads

from jaxdl.byhand import backprop, rule_references
from jaxdl.byhand.backprop import networks
from jaxdl.nn import models
from jaxdl.optim import losses, optimizers

# Rounding leaves 1e-16 to 1e-14; a wrong term leaves far more.
TOLERANCE = 1e-10

# After the convolutions, sides of 15, 7 and 9 are odd: poolings drop something.
_IMAGES = (4, 17, 11, 2)  # [B, H, W, D]
_NUM_CLASSES = 5  # and as many numbers per example, which compiles the least
_DROPOUT_RATE = 0.3
_NUM_STEPS = 5
_ZEROS = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.zeros}

# Setting of a network -> its layers by hand for its parameters.
_NETWORKS: dict[str, Callable[[Any], list]] = {
  "lenet5": functools.partial(networks.lenet5, image_size=8),
  "resnet(8, width=2, shortcut=B)": functools.partial(networks.resnet, depth=8),
}

Leaves = dict[str, np.ndarray]


class Case(NamedTuple):
  """One comparison: what JAX says, and how to get the same by hand."""

  table: str  # "models", "networks", "rules" or "optimizers"
  of: tuple[str, ...]
  expected: Leaves
  derive: Callable[[], Leaves]  # raises NoDerivationError


class Row(NamedTuple):
  """The outcome of a comparison."""

  table: str
  of: tuple[str, ...]
  error: float  # the largest of all leaves; infinite if there is nothing to compare
  leaf: str  # where, or what is missing

  @property
  def passed(self) -> bool:
    """Whether the error is within the tolerance."""
    return self.error <= TOLERANCE


class Loss(NamedTuple):
  """A loss, and what its targets are."""

  name: str
  of_numbers: bool

  def __str__(self) -> str:
    return f"{self.name} of numbers" if self.of_numbers else self.name


def known_losses() -> list[Loss]:
  """Returns every loss of the project, once for each kind of targets that it takes."""
  numbers = [Loss(name, True) for name in losses.OF_NUMBERS]
  of_numbers_only = {*losses.OF_NUMBERS} - {"mean_squared_error"}
  return [*(Loss(name, False) for name in losses.NAMES if name not in of_numbers_only), *numbers]


def cases() -> list[Case]:
  """Returns every comparison: model x loss x activation, networks, rules, optimizers."""
  with jax.enable_x64(True):
    combinations = itertools.product(models.NAMES, known_losses(), models.ACTIVATIONS)
    create = functools.cache(_create_model)
    return [
      *(_model_case(*of, create) for of in combinations),
      *itertools.starmap(_network_case, _NETWORKS.items()),
      *_rule_cases(),
      *map(_optimizer_case, optimizers.NAMES),
    ]


def compare(case: Case) -> Row:
  """Compares the derivation by hand with JAX, leaf by leaf."""
  try:
    derived = case.derive()
  except backprop.NoDerivationError as error:
    return Row(case.table, case.of, math.inf, str(error))
  # The leaves of both, so that a missing one is found.
  errors = {
    leaf: relative_error(derived.get(leaf), case.expected.get(leaf))
    for leaf in dict.fromkeys([*case.expected, *derived])
  }
  worst = max(errors, key=errors.__getitem__)
  return Row(case.table, case.of, errors[worst], worst)


def relative_error(derived: np.ndarray | None, expected: np.ndarray | None) -> float:
  """Returns max |derived - expected| / max |expected| over one leaf.

  Infinite if either is missing, is not float64, is not finite or has another shape, or if only the
  expected one is all zeros.
  """
  if derived is None or expected is None or derived.shape != expected.shape:
    return math.inf
  if any(a.dtype != np.float64 or not np.isfinite(a).all() for a in (derived, expected)):
    return math.inf
  difference, scale = np.abs(derived - expected).max(), np.abs(expected).max()
  if scale == 0:
    return 0.0 if difference == 0 else math.inf
  return float(difference / scale)


# Whole models.


class _Model(NamedTuple):
  """A model with dropout, its parameters and inputs, and what JAX says of its outputs."""

  params: Any
  images: np.ndarray  # [B, H, W, D]
  mask: np.ndarray  # [B, F], of the dropout
  outputs: jax.Array  # [B, K]
  pull_back: Callable  # gradient of the outputs [B, K] -> of params and images


def _model_case(
  model_name: str, loss: Loss, activation: str, create: Callable[[str, str, int], _Model]
) -> Case:
  """Returns the case of one model, loss and activation, with dropout."""
  of = (model_name, str(loss), activation)
  try:
    backprop.check_derived(model_name, activation, *loss)
  except backprop.NoDerivationError as error:
    return _missing("models", of, error)
  targets, num_outputs = _targets(np.random.default_rng(0), loss, _IMAGES[0])
  model = create(model_name, activation, num_outputs)

  def mean_loss(outputs):
    return losses.get(loss.name)(outputs, jnp.asarray(targets)).mean()

  value, doutputs = jax.value_and_grad(mean_loss)(model.outputs)
  dparams, dimages = model.pull_back(doutputs)

  def derive():
    found = backprop.loss_and_gradients(
      model_name, activation, loss.name, model.params, model.images, targets, model.mask,
      _DROPOUT_RATE,
    )  # fmt: skip
    return _leaves({"loss": np.float64(found.loss), "images": found.images, **found.params})

  return Case("models", of, _leaves({"loss": value, "images": dimages, **dparams}), derive)


def _create_model(name: str, activation: str, num_outputs: int) -> _Model:
  """Returns a model with random parameters and inputs."""
  rng = np.random.default_rng(0)
  model = models.create(
    name, activation, num_outputs=num_outputs, dropout_rate=_DROPOUT_RATE, **_ZEROS
  )
  images = rng.uniform(size=_IMAGES)
  keys = jax.random.split(jax.random.key(0), len(images))
  shapes = jax.eval_shape(model.init, keys[0], images)["params"]
  params = jax.tree.map(lambda leaf: _random_parameter(rng, leaf.shape), shapes)
  outputs, pull_back = jax.vjp(
    lambda params, images: model.apply({"params": params}, images, keys), params, images
  )
  output_layer = params[max(name for name in params if name.startswith("Dense_"))]
  mask = rule_references.dropout_mask(keys, len(output_layer["kernel"]), _DROPOUT_RATE)
  return _Model(params, images, mask, outputs, pull_back)


def _network_case(spec: str, layers_of: Callable[[Any], list]) -> Case:
  """Returns the case of a network by name with cross-entropy, in training.

  Args:
    spec: setting of the model.
    layers_of: parameters -> its layers by hand.
  """
  rng = np.random.default_rng(0)
  network = models.create(spec, num_outputs=_NUM_CLASSES)
  images, labels = rng.uniform(size=(3, 8, 8, 1)), rng.integers(0, _NUM_CLASSES, 3)
  shapes = jax.eval_shape(network.init, jax.random.key(0), images)
  variables = jax.tree.map(lambda leaf: _random_parameter(rng, leaf.shape), shapes)
  params = variables.pop("params")
  keywords = {"train": True} if variables else {}

  @jax.jit
  def mean_loss(params, images):
    outputs, _ = network.apply({"params": params, **variables}, images, mutable=True, **keywords)
    return losses.categorical_cross_entropy(outputs, labels).mean()

  value, (dparams, dimages) = jax.value_and_grad(mean_loss, (0, 1))(params, images)

  def derive():
    layers = [*layers_of(params), backprop.Layer("categorical_cross_entropy", (labels,))]
    loss, caches = backprop.run_forward(layers, images)
    found, gradients = backprop.run_backward(layers, caches, np.full(3, 1 / 3))
    return _leaves({"loss": np.float64(loss.mean()), "images": found, **gradients})

  expected = {"loss": value, "images": dimages, **dparams}
  return Case("networks", (spec,), _leaves(expected), derive)


def _targets(rng: np.random.Generator, loss: Loss, batch: int) -> tuple[np.ndarray, int]:
  """Returns random targets of a batch, and how many outputs a model needs for them."""
  if loss.of_numbers:
    return rng.normal(size=(batch, _NUM_CLASSES)), _NUM_CLASSES
  num_classes = 2 if loss.name == "binary_cross_entropy" else _NUM_CLASSES
  return rng.integers(0, num_classes, batch), losses.num_outputs(loss.name, num_classes)


def _random_parameter(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """Returns random float64 numbers, scaled to keep activations of order 1, for biases too."""
  return rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[:-1]))


def _missing(table: str, of: tuple[str, ...], error: backprop.NoDerivationError) -> Case:
  def derive():
    raise error

  return Case(table, of, {}, derive)


def _leaves(tree: Any) -> Leaves:
  """Returns the leaves of a tree by path, such as `Dense_0/kernel`."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in flat}


# Each rule on its own.


def _rule_cases() -> Iterable[Case]:
  known = rule_references.references()
  for name in dict.fromkeys([*known, *backprop.RULES]):
    if name not in known:
      error = backprop.NoDerivationError(f"rule {name!r} has no reference to compare it with")
      yield _missing("rules", (name, ""), error)
      continue
    yield rule_case(name, known[name])
    for at, reference in rule_references.variants(name, known[name]).items():
      yield rule_case(name, reference, at)


def rule_case(name: str, reference: rule_references.Reference, at: str = "random numbers") -> Case:
  """Returns the case of one rule: its output, and its gradients for a random output gradient."""
  y, pull_back = jax.vjp(jax.jit(reference.function), jnp.asarray(reference.x), reference.params)
  dy = np.random.default_rng(2).normal(size=y.shape)
  dx, dparams = pull_back(jnp.asarray(dy))

  def derive():
    rule = backprop.get_rule(name)
    params = (reference.params,) if reference.params else ()
    output, cache = rule.forward(reference.x, *params, *reference.arguments)
    dinput, dparameters = rule.backward(cache, dy)
    return _leaves({"output": output, "input": dinput, **dparameters})

  return Case("rules", (name, at), _leaves({"output": y, "input": dx, **dparams}), derive)


# Optimizers.


def _optimizer_case(name: str) -> Case:
  """Returns the case of several steps. Some of their gradients are as small as epsilon."""
  rng, learning_rate = np.random.default_rng(3), 0.01
  start = rng.normal(size=(4, 3))
  gradients = rng.normal(size=(_NUM_STEPS, 4, 3)) * 10.0 ** np.array([-8, -7, 0])[None, None]
  decay = optimizers.default_weight_decay(name) or None

  params, expected = jnp.asarray(start), {}
  optimizer = optimizers.create(name, learning_rate, None, decay)
  state = optimizer.init(params)
  for t, gradient in enumerate(gradients, start=1):
    gradient = jnp.asarray(gradient)
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    expected[f"params after step {t}"] = np.asarray(params)

  def derive():
    path = backprop.descend(name, start, gradients, learning_rate)
    return {f"params after step {t}": point for t, point in enumerate(path, start=1)}

  return Case("optimizers", (name,), expected, derive)


# The oracle itself.


def check_oracle() -> list[Row]:
  """Checks JAX's gradients of the project's losses and layers against finite differences.

  Returns:
    A row for each, with error 0 if `jax.test_util.check_grads` agrees, else infinity.
  """
  rng = np.random.default_rng(4)
  with jax.enable_x64(True):
    rows = [
      _difference_row(f"layer {name}", reference.function, (reference.x, reference.params))
      for name, reference in rule_references.references().items()
      if name not in losses.NAMES
    ]
    for loss in known_losses():
      targets, num_outputs = _targets(rng, loss, 6)
      function = functools.partial(_loss_of, loss.name, jnp.asarray(targets))
      rows.append(_difference_row(f"loss {loss}", function, (rng.normal(size=(6, num_outputs)),)))
  return rows


def _loss_of(name: str, targets: jax.Array, outputs: jax.Array) -> jax.Array:
  return losses.get(name)(outputs, targets)


def _difference_row(name: str, function: Callable, arguments: tuple) -> Row:
  try:
    check_grads(
      jax.jit(function), arguments, order=1, modes=["rev"], rtol=1e-7, atol=1e-7, eps=1e-5
    )
  except AssertionError as error:
    lines = str(error).split("\n")
    return Row("oracle", (name,), math.inf, " ".join(lines[:4]))
  return Row("oracle", (name,), 0.0, "")
