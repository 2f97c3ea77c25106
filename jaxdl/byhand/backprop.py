"""Gradients derived by hand, in NumPy, without automatic differentiation.

A second implementation of every gradient that the project trains with, which `gradient_check.py`
compares with `jax.grad`, and the chain rule spelled out for learners.

Each rule is a pair of functions. `forward(x, *arguments)` returns the output and a cache: what the
backward pass needs. `backward(cache, dy)` takes dL/dy, of the output's shape, and returns dL/dx, of
the input's shape, and a dict with the gradient of each parameter (empty if there is none). L is a
number, and `dy`, `dx`, ... stand for its derivatives with respect to `y`, `x`, ... Sums over an
index are always written out.

Letters: `B` batch, `H W` image, `D` input features or channels, `F` output features or channels,
`C` classes. Where a function has a kink, the derivative is the one that JAX takes.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import InputError

Gradients = tuple[np.ndarray, dict[str, np.ndarray]]  # with respect to input and parameters


class NoDerivationError(InputError):
  """A model, loss, activation or optimizer whose gradient has not been derived here yet."""


class Rule(NamedTuple):
  """A function and its derivative."""

  forward: Callable[..., tuple[np.ndarray, Any]]
  backward: Callable[[Any, np.ndarray], Gradients]


# Layers.


def dense(x: np.ndarray, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Any]:
  """Returns `y = x K + b`, `[B, F]`, of `x [B, D]`, `kernel` K `[D, F]` and `bias` b `[F]`."""
  return x @ params["kernel"] + params["bias"][None], (x, params["kernel"])


def dense_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Dense layer, from `dy [B, F]`.

  y[b, f] = sum_d x[b, d] K[d, f] + b[f], therefore

    dx[b, d] = sum_f dy[b, f] K[d, f]    dx = dy K^T    [B, D]
    dK[d, f] = sum_b x[b, d] dy[b, f]    dK = x^T dy    [D, F]
    db[f]    = sum_b dy[b, f]                           [F]
  """
  x, kernel = cache
  return dy @ kernel.T, {"kernel": x.T @ dy, "bias": dy.sum(axis=0)}


def conv(x: np.ndarray, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Any]:
  """Convolution without padding, stride 1: a sum of shifted images over the kernel's positions.

  y[b, i, j, f] = sum_uvd x[b, i + u, j + v, d] K[u, v, d, f] + b[f]

  Args:
    x: `[B, H, W, D]`.
    params: `kernel` K `[S, S, D, F]`, S = 3 in the project's models, and `bias` b `[F]`.

  Returns:
    y `[B, H - S + 1, W - S + 1, F]`, and the cache.
  """
  kernel = params["kernel"]
  height, width = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
  y = np.zeros((len(x), height, width, kernel.shape[3])) + params["bias"].reshape(1, 1, 1, -1)
  for u, v in np.ndindex(kernel.shape[:2]):
    y += np.tensordot(x[:, u : u + height, v : v + width], kernel[u, v], 1)
  return y, (x, kernel)


def conv_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Convolution without padding, stride 1, from `dy [B, H', W', F]`, H' = H - S + 1, W' likewise.

  x[b, i + u, j + v, d] is multiplied by K[u, v, d, f] in y[b, i, j, f] only, therefore

    dx[b, m, n, d]  = sum_uvf dy[b, m - u, n - v, f] K[u, v, d, f]      [B, H, W, D]
    dK[u, v, d, f]  = sum_bij x[b, i + u, j + v, d] dy[b, i, j, f]      [S, S, D, F]
    db[f]           = sum_bij dy[b, i, j, f]                            [F]

  with dy = 0 outside its H' x W' positions: every output sends its gradient back through the kernel
  to the window that it came from.
  """
  x, kernel = cache
  height, width = dy.shape[1:3]
  dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
  for u, v in np.ndindex(kernel.shape[:2]):
    dx[:, u : u + height, v : v + width] += np.tensordot(dy, kernel[u, v].T, 1)
    window = x[:, u : u + height, v : v + width]  # [B, H', W', D]
    dkernel[u, v] = np.tensordot(window, dy, ((0, 1, 2), (0, 1, 2)))
  return dx, {"kernel": dkernel, "bias": dy.sum(axis=(0, 1, 2))}


def max_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Maximum over 2 x 2 windows, stride 2: first over pairs of rows, then over pairs of columns.

  An odd last row or column is dropped.

  Args:
    x: `[B, H, W, D]`.

  Returns:
    y `[B, H // 2, W // 2, D]`, and the cache.
  """
  height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
  top, bottom = x[:, 0:height:2, :width], x[:, 1:height:2, :width]
  rows = np.maximum(top, bottom)  # [B, H // 2, W, D]
  left, right = rows[:, :, 0::2], rows[:, :, 1::2]
  return np.maximum(left, right), (x.shape, top, bottom, left, right)


def max_pool_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """2 x 2 max pooling, from `dy [B, H // 2, W // 2, D]`.

  For m = max(p, q): dp = dm if p > q, dm / 2 if p = q, else 0; and dq = dm - dp. (At a tie every
  split is a subgradient; JAX takes halves.) The gradient goes back through the maximum over columns
  first, then through that over rows. What was dropped has gradient 0. dx: `[B, H, W, D]`.
  """
  shape, top, bottom, left, right = cache
  height, width = shape[1] // 2 * 2, shape[2] // 2 * 2
  drows = np.zeros(top.shape)
  drows[:, :, 0::2] = dy * _share_of_first(left, right)
  drows[:, :, 1::2] = dy * _share_of_first(right, left)
  dx = np.zeros(shape)
  dx[:, 0:height:2, :width] = drows * _share_of_first(top, bottom)
  dx[:, 1:height:2, :width] = drows * _share_of_first(bottom, top)
  return dx, {}


def _share_of_first(p: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Returns d max(p, q) / dp: 1 if p > q, 1/2 if they are equal, else 0."""
  return np.where(p > q, 1.0, np.where(p == q, 0.5, 0.0))


def flatten(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `x [B, H, W, D]` as `[B, H * W * D]`, rows first, then columns, then channels."""
  return x.reshape(len(x), -1), x.shape


def flatten_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Flattening moves nothing: dx `[B, H, W, D]` is dy `[B, H * W * D]` in its old shape."""
  return dy.reshape(cache), {}


def dropout(x: np.ndarray, mask: np.ndarray, rate: float) -> tuple[np.ndarray, Any]:
  """Inverted dropout: returns `y = mask x / (1 - rate)`, `[B, D]`.

  Args:
    x: `[B, D]`.
    mask: `[B, D]`, true where a value is kept.
    rate: the share of values that are dropped, in [0, 1).
  """
  return np.where(mask, x / (1 - rate), 0.0), (mask, rate)


def dropout_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Dropout with a given mask: dx[b, d] = mask[b, d] dy[b, d] / (1 - rate), `[B, D]`."""
  mask, rate = cache
  return np.where(mask, dy / (1 - rate), 0.0), {}


# Activations: elementwise, for any shape, except softmax.


def sigmoid(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = 1 / (1 + exp(-x))`, computed from exp(-|x|), which cannot overflow."""
  small = np.exp(-np.abs(x))
  y = np.where(x >= 0, 1.0, small) / (1 + small)
  return y, y


def sigmoid_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Sigmoid: dy/dx = exp(-x) / (1 + exp(-x))^2 = y (1 - y), therefore dx = dy y (1 - y)."""
  y = cache
  return dy * y * (1 - y), {}


def tanh(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns the hyperbolic tangent of x."""
  y = np.tanh(x)
  return y, y


def tanh_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Hyperbolic tangent: dy/dx = 1 / cosh(x)^2 = 1 - y^2, therefore dx = dy (1 - y^2)."""
  y = cache
  return dy * (1 - y**2), {}


def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = max(x, 0)`."""
  return np.maximum(x, 0.0), x


def relu_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """ReLU: dx = dy if x > 0, else 0; at the kink x = 0 the derivative is 0."""
  x = cache
  return np.where(x > 0, dy, 0.0), {}


def leaky_relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = x` if x >= 0, else `0.2 x`."""
  return np.where(x >= 0, x, 0.2 * x), x


def leaky_relu_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """Leaky ReLU: dx = dy if x >= 0, else 0.2 dy; at the kink x = 0 the derivative is 1."""
  x = cache
  return np.where(x >= 0, dy, 0.2 * dy), {}


def gelu(x: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `y = x Phi(x)`, Phi(x) = (1 + erf(x / sqrt(2))) / 2 (Hendrycks & Gimpel 2016)."""
  share = (1 + _erf(x / math.sqrt(2))) / 2  # Phi: the distribution function of N(0, 1)
  return x * share, (x, share)


def gelu_backward(cache: Any, dy: np.ndarray) -> Gradients:
  """GELU: dx = dy (Phi(x) + x phi(x)), phi the density of N(0, 1), the derivative of Phi.

  phi(x) = exp(-x^2 / 2) / sqrt(2 pi). Below x = -0.75 dy/dx is negative: GELU is not monotone.
  """
  x, share = cache
  density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
  return dy * (share + x * density), {}


_erf = np.vectorize(math.erf, otypes=[float])


def softmax(z: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `p[b, c] = exp(z[b, c]) / sum_k exp(z[b, k])`, `[B, C]`, shifted against overflow."""
  shifted = np.exp(z - z.max(axis=1, keepdims=True))
  p = shifted / shifted.sum(axis=1, keepdims=True)
  return p, p


def softmax_backward(cache: Any, dp: np.ndarray) -> Gradients:
  """Softmax, from `dp [B, C]`. Its Jacobian is symmetric but not diagonal.

  d p[k] / d z[c] = p[k] (1[k = c] - p[c]), therefore

    dz[b, c] = sum_k dp[b, k] p[b, k] (1[k = c] - p[b, c])
             = p[b, c] (dp[b, c] - sum_k dp[b, k] p[b, k])      [B, C]
  """
  p = cache
  return p * (dp - (dp * p).sum(axis=1, keepdims=True)), {}


# Losses: one number per example, `loss [B]`; their backward passes take dL/dloss, `[B]`.


def binary_cross_entropy(
  z: np.ndarray, labels: np.ndarray, label_smoothing: float = 0.0
) -> tuple[np.ndarray, Any]:
  """Returns `-y log p - (1 - y) log(1 - p)`, `[B]`, p = sigmoid(z), for the logits `z [B, 1]`.

  Computed as max(z, 0) - z y + log(1 + exp(-|z|)), which is the same and stays finite.

  Args:
    z: `[B, 1]`.
    labels: `[B]`, 0 or 1.
    label_smoothing: s; y = (1 - s) label + s / 2.
  """
  score, y = z[:, 0], (1 - label_smoothing) * labels + label_smoothing / 2  # [B]
  loss = np.maximum(score, 0) - score * y + np.log1p(np.exp(-np.abs(score)))
  return loss, (score, y)


def binary_cross_entropy_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Binary cross-entropy of a logit, from `dloss [B]`; y may lie between 0 and 1.

  dloss/dp = (p - y) / (p (1 - p)) and dp/dz = p (1 - p) cancel to p - y, therefore

    dz[b, 0] = dloss[b] (sigmoid(z[b, 0]) - y[b])      [B, 1]
  """
  score, y = cache
  return (dloss * (sigmoid(score)[0] - y))[:, None], {}


def categorical_cross_entropy(
  z: np.ndarray, labels: np.ndarray, label_smoothing: float = 0.0
) -> tuple[np.ndarray, Any]:
  """Returns `-sum_c y[b, c] log p[b, c]`, `[B]`, p = softmax(z).

  As sum_c y[b, c] = 1, this is log sum_c exp(z[b, c]) - sum_c y[b, c] z[b, c].

  Args:
    z: logits `[B, C]`.
    labels: `[B]`, 0 to C - 1.
    label_smoothing: s; y[b, c] = (1 - s) 1[c = label[b]] + s / C.
  """
  num_classes = z.shape[1]
  y = (1 - label_smoothing) * one_hot(labels, num_classes) + label_smoothing / num_classes
  top = z.max(axis=1)  # [B]
  log_sum = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
  return log_sum - (y * z).sum(axis=1), (z, y)


def categorical_cross_entropy_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Categorical cross-entropy of logits, from `dloss [B]`.

  With respect to z[c], log sum_k exp(z[k]) has the derivative p[c] and sum_k y[k] z[k] has y[c],
  therefore

    dz[b, c] = dloss[b] (p[b, c] - y[b, c])      [B, C]
  """
  z, y = cache
  return dloss[:, None] * (softmax(z)[0] - y), {}


def mean_squared_error(y: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `1/K sum_k (y[b, k] - t[b, k])^2`, `[B]`.

  Args:
    y: outputs `[B, K]`; of classes the probabilities `[B, C]`.
    targets: t `[B, K]`; of classes 1 for the label and 0 elsewhere, see `one_hot`.
  """
  error = y - targets  # [B, K]
  return (error**2).mean(axis=1), error


def mean_squared_error_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Mean squared error, from `dloss [B]`: dy[b, k] = dloss[b] 2/K (y[b, k] - t[b, k])."""
  error = cache
  return dloss[:, None] * 2 * error / error.shape[1], {}


def mean_absolute_error(y: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `1/K sum_k |y[b, k] - t[b, k]|`, `[B]`, of outputs y and targets t, both `[B, K]`."""
  error = y - targets  # [B, K]
  return np.abs(error).mean(axis=1), error


def mean_absolute_error_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Mean absolute error, from `dloss [B]`; at the kink y = t the derivative is 0.

  dy[b, k] = dloss[b] / K if y[b, k] > t[b, k], -dloss[b] / K if y[b, k] < t[b, k]      [B, K]
  """
  error = cache
  return dloss[:, None] * np.sign(error) / error.shape[1], {}


def huber(y: np.ndarray, targets: np.ndarray, delta: float = 1.0) -> tuple[np.ndarray, Any]:
  """Returns Huber's loss (1964), `[B]`: the mean over k of h(e), e = y[b, k] - t[b, k].

  h(e) = e^2 / 2 if |e| <= delta, else delta (|e| - delta / 2)

  Args:
    y: outputs `[B, K]`.
    targets: t `[B, K]`.
    delta: where the parabola ends, > 0.
  """
  error = y - targets  # [B, K]
  size = np.abs(error)
  near, far = error**2 / 2, delta * (size - delta / 2)
  return np.where(size <= delta, near, far).mean(axis=1), (error, delta)


def huber_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Huber's loss, from `dloss [B]`. The slopes e and +-delta meet, so there is no kink.

  dy[b, k] = dloss[b] / K max(-delta, min(e, delta)), e = y[b, k] - t[b, k]      [B, K]
  """
  error, delta = cache
  slope = np.maximum(-delta, np.minimum(error, delta))  # [B, K]
  return dloss[:, None] * slope / error.shape[1], {}


def hinge(z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns `1/C sum_c max(0, 1 - t[b, c] z[b, c])`, `[B]`, t = 1 for the label, else -1.

  Args:
    z: `[B, C]`, logits or probabilities.
    labels: `[B]`, 0 to C - 1.
  """
  target = 2 * one_hot(labels, z.shape[1]) - 1  # [B, C]
  lack = 1 - target * z  # [B, C], of margin
  return np.maximum(lack, 0).mean(axis=1), (target, lack)


def hinge_backward(cache: Any, dloss: np.ndarray) -> Gradients:
  """Hinge loss, from `dloss [B]`; at the kink t z = 1 the derivative is 0.

  dz[b, c] = -dloss[b] t[b, c] / C if 1 - t[b, c] z[b, c] > 0, else 0      [B, C]
  """
  target, lack = cache
  return dloss[:, None] * np.where(lack > 0, -target, 0.0) / target.shape[1], {}


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns `1[c = label[b]]`, `[B, C]`."""
  return (labels[:, None] == np.arange(num_classes)[None]).astype(float)


# Rule `name` consists of the functions `name` and `name_backward`.
RULES = (
  "dense",
  "conv",
  "max_pool",
  "flatten",
  "dropout",
  "sigmoid",
  "tanh",
  "relu",
  "leaky_relu",
  "gelu",
  "softmax",
  "binary_cross_entropy",
  "categorical_cross_entropy",
  "mean_squared_error",
  "mean_absolute_error",
  "huber",
  "hinge",
)


def get_rule(name: str) -> Rule:
  """Returns one of `RULES`.

  The functions are looked up at every use, so that a test can replace a right one by a wrong one.
  """
  return Rule(globals()[name], globals()[f"{name}_backward"])


# Whole models: the chain rule.


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
  activations = [activation] * (len(hidden) - 1) + [last or activation]
  layers = [Layer("flatten")]
  for layer, name in zip(hidden, activations, strict=True):
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
    arguments = (one_hot(labels, num_outputs),)
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


# Optimizers: step t = 1, 2, ... on one array of parameters p, of any shape, with its gradient g.
# `moments` are arrays of that shape, zeros before the first step. Returns the new parameters and
# the new moments.


def sgd_step(params, gradient, moments, learning_rate, t):
  """Gradient descent: p <- p - learning_rate g."""
  del t
  return params - learning_rate * gradient, moments


def momentum_step(params, gradient, moments, learning_rate, t):
  """Momentum (Polyak 1964), as optax's `trace(0.9)`: v <- 0.9 v + g, p <- p - learning_rate v."""
  del t
  (velocity,) = moments
  velocity = 0.9 * velocity + gradient
  return params - learning_rate * velocity, (velocity,)


def nesterov_step(params, gradient, moments, learning_rate, t):
  """Nesterov momentum (Sutskever et al. 2013): the step looks ahead by another 0.9 v.

  v <- 0.9 v + g, p <- p - learning_rate (g + 0.9 v)
  """
  del t
  (velocity,) = moments
  velocity = 0.9 * velocity + gradient
  return params - learning_rate * (gradient + 0.9 * velocity), (velocity,)


def adagrad_step(params, gradient, moments, learning_rate, t):
  """Adagrad (Duchi et al. 2011): s <- s + g^2, p <- p - learning_rate g / sqrt(0.1 + s + 1e-7)."""
  del t
  (squares,) = moments
  squares = squares + gradient**2
  return params - learning_rate * gradient / np.sqrt(0.1 + squares + 1e-7), (squares,)


def rmsprop_step(params, gradient, moments, learning_rate, t):
  """RMSprop (Tieleman & Hinton 2012), step t = 1, 2, ...

  v <- 0.9 v + 0.1 g^2, p <- p - learning_rate g / sqrt(v + 1e-7)
  """
  del t
  (v,) = moments
  v = 0.9 * v + (1 - 0.9) * gradient**2
  return params - learning_rate * gradient / np.sqrt(v + 1e-7), (v,)


def adam_step(params, gradient, moments, learning_rate, t):
  """Adam (Kingma & Ba 2015, algorithm 1), step t = 1, 2, ...

    m <- 0.9 m + 0.1 g            v <- 0.999 v + 0.001 g^2
    m' = m / (1 - 0.9^t)          v' = v / (1 - 0.999^t)
    p <- p - learning_rate m' / (sqrt(v') + 1e-7)

  Epsilon is Keras's. As in optax, it is added to the root of the corrected moment.
  """
  m, v = moments
  m = 0.9 * m + (1 - 0.9) * gradient
  v = 0.999 * v + (1 - 0.999) * gradient**2
  m_corrected, v_corrected = m / (1 - 0.9**t), v / (1 - 0.999**t)
  return params - learning_rate * m_corrected / (np.sqrt(v_corrected) + 1e-7), (m, v)


def adamw_step(params, gradient, moments, learning_rate, t):
  """AdamW (Loshchilov & Hutter 2019): Adam's step, and also p <- p - learning_rate 0.004 p.

  The decay uses the parameters before the step and does not enter the moments.
  """
  after, moments = adam_step(params, gradient, moments, learning_rate, t)
  return after - learning_rate * 0.004 * params, moments


# Optimizer `name` is the function `name_step`. Name -> number of its moments.
OPTIMIZERS = {
  "adagrad": 1,
  "adam": 2,
  "adamw": 2,
  "momentum": 1,
  "nesterov": 1,
  "rmsprop": 1,
  "sgd": 0,
}


def descend(
  name: str, params: np.ndarray, gradients: np.ndarray, learning_rate: float
) -> np.ndarray:
  """Returns the parameters after each of T steps, `[T, ...]`, from `[...]`.

  Args:
    name: one of `OPTIMIZERS`.
    params: the starting point, `[...]`.
    gradients: of every step, `[T, ...]`.
    learning_rate: of every step.

  Raises:
    NoDerivationError: if the optimizer is not known here.
  """
  if name not in OPTIMIZERS:
    raise NoDerivationError(f"no derivation by hand of optimizer {name!r}")
  step = globals()[f"{name}_step"]
  moments = (np.zeros(params.shape),) * OPTIMIZERS[name]
  path = []
  for t, gradient in enumerate(gradients, start=1):
    params, moments = step(params, gradient, moments, learning_rate, t)
    path.append(params)
  return np.stack(path)
