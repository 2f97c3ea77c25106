"""Whole models: the chain rule."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxdl.byhand.backprop import activations, attention, losses, normalization
from jaxdl.byhand.backprop import layers as layer_rules
from jaxdl.byhand.backprop.rule import NoDerivationError, Rule

# Rule -> where it is; rule `name` consists of the functions `name` and `name_backward`.
RULES = {
  name: module
  for module in (layer_rules, activations, normalization, attention, losses)
  for name in module.RULES
}


def get_rule(name: str) -> Rule:
  """Returns one of `RULES`.

  The functions are looked up at every use, so that a test can replace a right one by a wrong one.
  """
  module = RULES[name]
  return Rule(getattr(module, name), getattr(module, f"{name}_backward"))


class Layer(NamedTuple):
  """One link of the chain."""

  rule: str  # one of RULES
  arguments: tuple = ()  # of its forward function, after the input
  name: str | None = None  # of its parameters in the model's tree; None: it has none


class Pass(NamedTuple):
  """The result of a forward and a backward pass."""

  loss: float  # mean over the batch
  images: np.ndarray  # [B, H, W, D], gradient of that mean with respect to the images
  params: dict[str, dict[str, np.ndarray]]  # and with respect to the parameters, in their own tree


def _cnn_layers(
  params: Mapping, activation: str, dropout_layer: list[Layer], num_pooled: int
) -> list[Layer]:
  """The layers of `jaxdl.nn.models.CNN`, whose first `num_pooled` convolutions are pooled.

  GELU, which is not monotone, comes before the pooling. The other activations come after it, which
  gives the same result.
  """
  layers, activate = [], Layer(activation)
  for block, name in enumerate(_numbered(params, "Conv")):
    layers.append(Layer("conv", (params[name],), name))
    pool = [Layer("max_pool")] if block < num_pooled else []
    layers += [activate, *pool] if activation == "gelu" else [*pool, activate]
  *hidden, output = _dense_layers(params)
  layers.append(Layer("flatten"))
  for layer in hidden:
    layers += [layer, activate]
  return [*layers, *dropout_layer, output]


def _mlp_layers(
  params: Mapping, activation: str, dropout_layer: list[Layer], last: str | None = None
) -> list[Layer]:
  """The layers of `jaxdl.nn.models.MLP`; `last`: the last hidden activation, if it differs."""
  *hidden, output = _dense_layers(params)
  names = [activation] * (len(hidden) - 1) + [last or activation]
  layers = [Layer("flatten")]
  for layer, name in zip(hidden, names, strict=True):
    layers += [layer, Layer(name)]
  return [*layers, *dropout_layer, output]


def _dense_layers(params: Mapping) -> list[Layer]:
  return [Layer("dense", (params[name],), name) for name in _numbered(params, "Dense")]


def _numbered(params: Mapping, kind: str) -> list[str]:
  """Returns those of the names `kind_0`, `kind_1`, ... that exist, in the order of the layers."""
  return [f"{kind}_{i}" for i in range(sum(name.startswith(f"{kind}_") for name in params))]


# Name -> (parameters, activation, the dropout layer if there is one) -> layers.
MODELS: dict[str, Callable[[Mapping, str, list[Layer]], list[Layer]]] = {
  "cifar_mlp": functools.partial(_mlp_layers, last="tanh"),
  "cnn_binary": functools.partial(_cnn_layers, num_pooled=2),
  "cnn_mnist": functools.partial(_cnn_layers, num_pooled=1),
  "mlp": _mlp_layers,
}
ACTIVATIONS = ("gelu", "leaky_relu", "relu", "sigmoid", "tanh")
# Loss of logits, for classes -> the rules that make it up.
LOSSES = {
  "binary_cross_entropy": ("binary_cross_entropy",),
  "categorical_cross_entropy": ("categorical_cross_entropy",),
  "hinge": ("hinge",),
  "mean_squared_error": ("softmax", "mean_squared_error"),
  "softmax_hinge": ("softmax", "hinge"),
}
# Losses of numbers; each is a rule.
LOSSES_OF_NUMBERS = ("huber", "mean_absolute_error", "mean_squared_error")
SMOOTHABLE = ("binary_cross_entropy", "categorical_cross_entropy")


def loss_and_gradients(
  model: str,
  activation: str,
  loss: str,
  params: Mapping[str, Mapping[str, np.ndarray]],
  images: np.ndarray,
  targets: np.ndarray,
  mask: np.ndarray | None = None,
  dropout_rate: float = 0.0,
  label_smoothing: float = 0.0,
  delta: float = 1.0,
) -> Pass:
  """Returns the mean loss of a batch and its gradients, by the chain rule, last layer first.

  Args:
    model: one of `MODELS`.
    activation: one of `ACTIVATIONS`.
    loss: one of `LOSSES`, or of `LOSSES_OF_NUMBERS` if the targets are floats.
    params: of the model, float64, as its `init` lays them out.
    images: `[B, H, W, D]` float64.
    targets: labels `[B]`, or numbers `[B, K]` float64.
    mask: `[B, D]` of the dropout before the last layer, true where a value is kept; None for no
      dropout.
    dropout_rate: of that dropout.
    label_smoothing: of the losses that are `SMOOTHABLE`; the others ignore it.
    delta: of `huber`.

  Raises:
    NoDerivationError: if the model, activation or loss is not known here.
  """
  of_numbers = targets.dtype.kind == "f"
  check_derived(model, activation, loss, of_numbers)
  dropout_layer = [] if mask is None else [Layer("dropout", (mask, dropout_rate))]
  layers = MODELS[model](params, activation, dropout_layer)
  if of_numbers:
    layers.append(Layer(loss, (targets, delta) if loss == "huber" else (targets,)))
  else:
    layers += _loss_of_classes(loss, targets, len(layers[-1].arguments[0]["bias"]), label_smoothing)

  x, caches = images, []
  for layer in layers:
    x, cache = get_rule(layer.rule).forward(x, *layer.arguments)
    caches.append(cache)
  per_example = x  # [B]

  # L = 1/B sum_b loss[b], and so dL/dloss[b] = 1/B.
  dx, gradients = np.full(len(per_example), 1 / len(per_example)), {}
  for layer, cache in zip(reversed(layers), reversed(caches), strict=True):
    dx, dparams = get_rule(layer.rule).backward(cache, dx)
    if layer.name is not None:
      gradients[layer.name] = dparams
  return Pass(float(per_example.mean()), dx, gradients)


def _loss_of_classes(
  loss: str, labels: np.ndarray, num_outputs: int, label_smoothing: float
) -> list[Layer]:
  """Returns the links from the logits `[B, num_outputs]` to the loss of labels `[B]`."""
  *before, last = LOSSES[loss]
  arguments: tuple = (labels,)
  if loss in SMOOTHABLE:
    arguments = (labels, label_smoothing)
  elif last == "mean_squared_error":
    arguments = (losses.one_hot(labels, num_outputs),)
  return [*map(Layer, before), Layer(last, arguments)]


def check_derived(model: str, activation: str, loss: str, of_numbers: bool = False):
  """Raises NoDerivationError if a model, activation or loss is not known here."""
  known = {
    "model": (model, MODELS),
    "activation": (activation, ACTIVATIONS),
    "loss": (loss, LOSSES_OF_NUMBERS if of_numbers else LOSSES),
  }
  for what, (name, names) in known.items():
    if name not in names:
      raise NoDerivationError(f"no derivation by hand of {what} {name!r}")
