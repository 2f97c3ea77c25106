"""Trains a network, or an ensemble of them, with PyTorch; the caller times it.

  python -m experiments.peers.torch_peer SPEC.json

`protocol` describes the spec and the messages on standard input and output. The data are in the
memory of the device, as float32. A batch is a view of a reshuffled chunk of them; there is no
DataLoader. The variants are

  eager                  autograd and a fused optimizer
  compile                torch.compile of the model with its loss and gradient; fused optimizer
  compile_step           torch.compile of the whole step, with torch.func's gradient and an update
                         by hand: one call per batch
  *_channels_last        the same with images and kernels as [H, W, D] in memory; with convolutions
                         only

Several members train at once through torch.func.vmap, each with its own order of the data:

  func                   vmap of the gradient; a fused optimizer on the stacked parameters
  func_compile           torch.compile of the vmapped gradient; the same optimizer
  func_compile_step      torch.compile of the whole step
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from . import protocol
from .protocol import Data, PeerError, Spec

# Examples that are gathered and augmented at once. This needs few calls when batches are small, and
# little memory.
_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class Variant:
  """The settings of a variant.

  Attributes:
    name: name of the variant.
    mode: "module" (autograd and torch.optim) or "func" (torch.func).
    compile: what is compiled: "none", "loss" (the loss and its gradient) or, in mode "func", "step"
      (also the update).
    channels_last: whether images are [H, W, D] in memory; for a single member only.
  """

  name: str
  mode: str = "module"
  compile: str = "none"
  channels_last: bool = False


def variants(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns the variants that fit a spec, a parsed SPEC.json; needs no PyTorch."""
  if spec.get("num_members", 1) > 1:
    names = {"func": "none", "func_compile": "loss", "func_compile_step": "step"}
    return [
      {"name": name, "mode": "func", "compile": what, "channels_last": False}
      for name, what in names.items()
    ]
  has_conv = any(layer["kind"] == "conv" for layer in spec["layers"])
  modes = {
    "eager": ("module", "none"),
    "compile": ("module", "loss"),
    "compile_step": ("func", "step"),
  }
  return [
    {
      "name": name + ("_channels_last" if channels_last else ""),
      "mode": mode,
      "compile": what,
      "channels_last": channels_last,
    }
    for name, (mode, what) in modes.items()
    for channels_last in ([False, True] if has_conv else [False])
  ]


class TorchWorker:
  """Networks in training; see `protocol.Worker`."""

  def __init__(self, spec: Spec, data: Data):
    """Puts networks and data on the device."""
    fields = dataclasses.asdict(spec)
    self._variant = variant = protocol.choose_variant(Variant, spec, variants(fields))
    _check(variant, spec)
    protocol.limit_threads(spec.threads)
    torch = _torch(spec, variant)
    self._spec, self._torch = spec, torch
    self.device = _device(torch, spec)
    self.versions = {"torch": torch.__version__}
    image_shape = data.train_images.shape[1:]
    models = [_network(torch, spec, image_shape).to(self.device) for _ in range(spec.num_members)]
    if variant.channels_last:
      models = [model.to(memory_format=torch.channels_last) for model in models]
    self._model = models[0]
    self.num_params = sum(param.numel() for param in self._model.parameters())
    self._params = _stack(torch, models)
    self._images = self._put_images(data.train_images)
    self._test_images = self._put_images(data.test_images)
    labels = torch.from_numpy(data.train_labels).to(self.device)
    self._labels = labels.float() if spec.loss == "binary_cross_entropy" else labels.long()
    self._step = self._make_step()
    self._forward = self._make_forward()

  def train(self, num_epochs: int, num_examples: int) -> list[float]:
    """Trains; see `protocol.Worker`."""
    torch = self._torch
    self._model.train()
    for _ in range(num_epochs):
      losses, sizes = [], []
      for images, labels in self._batches(num_examples):
        losses.append(self._step(images, labels))
        sizes.append(labels.shape[-1])
    # After the loop: reading a loss in the loop would make the device wait for the host.
    losses = torch.stack(losses).double().reshape(len(sizes), -1).cpu()  # [steps, M]
    shares = torch.tensor(sizes, dtype=torch.float64) / num_examples
    self._wait()
    return (shares @ losses).tolist()

  def predictor(self, batch_size: int, num_images: int) -> Callable[[], np.ndarray]:
    """Predicts; see `protocol.Worker`."""
    torch = self._torch
    self._model.eval()
    batches = self._test_images[:num_images].split(batch_size)

    @torch.inference_mode()
    def predict() -> np.ndarray:
      logits = [self._forward(self._image_view(batch)) for batch in batches]
      return (logits[0] if len(logits) == 1 else torch.cat(logits, dim=-2)).cpu().numpy()

    return predict

  def _put_images(self, images: np.ndarray):
    """Returns images `[N, H, W, D]` on the device, as `[N, D, H, W]` unless channels_last."""
    tensor = self._torch.from_numpy(images).to(self.device)
    return tensor if self._variant.channels_last else tensor.movedim(-1, -3).contiguous()

  def _image_view(self, images):
    """Returns stored images as `[..., D, H, W]`, without moving bytes."""
    return images.movedim(-1, -3) if self._variant.channels_last else images

  def _batches(self, num_examples: int) -> Iterator[tuple[Any, Any]]:
    """Yields the batches of an epoch: images `[..., B, D, H, W]` and labels `[..., B]`.

    With several members there is a leading axis M, and each has its own order. The last batch may
    be smaller.
    """
    torch, spec = self._torch, self._spec
    orders = [torch.randperm(num_examples) for _ in range(spec.num_members)]
    order = orders[0] if spec.num_members == 1 else torch.stack(orders)
    order = order.to(self.device)
    num_steps, size = num_examples // spec.batch_size, spec.batch_size
    # The axis of steps is first, so that each batch is contiguous and the compiler sees one layout.
    steps = order[..., : num_steps * size].unflatten(-1, (num_steps, size)).movedim(-2, 0)
    rest = order[None, ..., num_steps * size :]
    for rows in (*steps.split(max(1, _CHUNK // size)), rest):  # [k, ..., B]
      if rows.numel() == 0:
        continue
      flat = rows.reshape(-1)
      images = self._image_view(self._images.index_select(0, flat))
      if spec.augmentation is not None:
        images = random_affine(torch, images, spec.augmentation)
        if self._variant.channels_last:
          images = images.contiguous(memory_format=torch.channels_last)
      labels = self._labels.index_select(0, flat).unflatten(0, rows.shape)
      yield from zip(images.unflatten(0, rows.shape).unbind(), labels.unbind(), strict=True)

  def _make_step(self) -> Callable[[Any, Any], Any]:
    """Returns a step: images, labels -> losses `[]` or `[M]`; it updates the parameters."""
    torch, spec, variant = self._torch, self._spec, self._variant
    loss = _loss(torch, spec)
    model = self._model
    if variant.mode == "module":
      optimizer = _optimizer(torch, spec, list(model.parameters()))
      compute = _compiled(torch, lambda images, labels: loss(model(images), labels), variant)

      def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        value = compute(images, labels)
        value.backward()
        optimizer.step()
        return value.detach()

      return step

    def member_loss(params, images, labels):
      return loss(torch.func.functional_call(model, params, (images,)), labels)

    gradient = torch.func.grad_and_value(member_loss)
    if spec.num_members > 1:
      gradient = torch.func.vmap(gradient, randomness="different")
    if variant.compile == "step":
      return self._make_whole_step(gradient)
    params = self._params
    optimizer = _optimizer(torch, spec, list(params.values()))
    gradient = _compiled(torch, gradient, variant)

    def func_step(images, labels):
      grads, values = gradient(params, images, labels)
      for name, param in params.items():
        param.grad = grads[name]
      optimizer.step()
      return values

    return func_step

  def _make_whole_step(self, gradient: Callable) -> Callable[[Any, Any], Any]:
    """Returns a step that is one compiled program, including the update."""
    torch, spec, params = self._torch, self._spec, self._params
    zeros = [{name: torch.zeros_like(p) for name, p in params.items()} for _ in range(2)]
    first, second = zeros
    count = torch.zeros((), device=self.device)

    def step(params, first, second, count, images, labels):
      grads, values = gradient(params, images, labels)
      count.add_(1)
      for name, param in params.items():
        _update(spec, param, grads[name], first[name], second[name], count)
      return values

    program = _compiled(torch, step, self._variant)
    return lambda images, labels: program(params, first, second, count, images, labels)

  def _make_forward(self) -> Callable[[Any], Any]:
    """Returns images `[B, D, H, W]` -> logits `[B, C]`, or `[M, B, C]`."""
    torch, model = self._torch, self._model
    if self._spec.num_members == 1:  # the parameters in training are the model's own
      return _compiled(torch, model, self._variant)

    def member(params, images):
      return torch.func.functional_call(model, params, (images,))

    members = torch.func.vmap(member, in_dims=(0, None))
    program = _compiled(torch, members, self._variant)
    return lambda images: program(self._params, images)

  def _wait(self):
    """Waits until the device has finished."""
    if self.device.startswith("cuda"):
      self._torch.cuda.synchronize()
    elif self.device == "mps":
      self._torch.mps.synchronize()


def random_affine(torch: Any, images: Any, augmentation: protocol.Augmentation) -> Any:
  """Returns images `[B, D, H, W]`, each rotated, shifted and flipped at random."""
  size, _, height, width = images.shape
  either_way = 2 * torch.rand(3, size, device=images.device) - 1
  angle = math.radians(augmentation.rotation_range) * either_way[0]
  shift_rows = augmentation.shift_range * height * either_way[1]
  shift_cols = augmentation.shift_range * width * either_way[2]
  flip = torch.rand(size, device=images.device) < (0.5 if augmentation.horizontal_flip else 0)
  return affine(torch, images, angle, shift_rows, shift_cols, flip)


def affine(torch: Any, images: Any, angle: Any, shift_rows: Any, shift_cols: Any, flip: Any) -> Any:
  """Rotates and shifts each image, and mirrors those left to right for which `flip` is True.

  In coordinates from the centre, the pixel (row, col) of the result comes from the position
  R (row + shift_rows, col + shift_cols) in the image, with R = [[cos, -sin], [sin, cos]]. It is
  interpolated between the four nearest pixels; outside the image, the nearest edge pixel counts.

  Args:
    torch: the module torch.
    images: `[B, D, H, W]` floats.
    angle: rotation of each image `[B]`, in radians.
    shift_rows: vertical shift of each image `[B]`, in pixels.
    shift_cols: horizontal shift of each image `[B]`, in pixels.
    flip: whether each image is mirrored, `[B]` bool.
  """
  height, width = images.shape[-2:]
  cos, sin = torch.cos(angle), torch.sin(angle)
  sign = 1 - 2 * flip.float()
  # grid_sample has coordinates from -1 to 1 between the outer edges: x = 2 col / width.
  x = torch.stack(
    [cos * sign, sin * height / width, 2 / width * (cos * shift_cols + sin * shift_rows)], -1
  )
  y = torch.stack(
    [-sin * sign * width / height, cos, 2 / height * (cos * shift_rows - sin * shift_cols)], -1
  )
  functional = torch.nn.functional
  grid = functional.affine_grid(torch.stack([x, y], 1), images.shape, align_corners=False)
  return functional.grid_sample(images, grid, "bilinear", "border", align_corners=False)


def _check(variant: Variant, spec: Spec):
  """Raises PeerError for settings that do not fit each other."""
  protocol.check_choice("mode", variant.mode, ("module", "func"))
  stages = ("none", "loss", *(["step"] if variant.mode == "func" else []))
  protocol.check_choice("compile", variant.compile, stages)
  if variant.mode == "module" and spec.num_members > 1:
    raise PeerError(f"{spec.num_members} members need mode func, not {variant.mode!r}")
  if variant.channels_last and spec.num_members > 1:
    raise PeerError("channels_last needs a single member")


def _torch(spec: Spec, variant: Variant) -> Any:
  """Imports PyTorch and sets it up."""
  try:
    import torch
  except ImportError as error:
    raise PeerError(f"PyTorch cannot be imported: {error}") from error
  torch.manual_seed(spec.seed)
  torch.set_num_threads(spec.threads)
  # Flush denormal numbers to zero, as XLA does. Moments of weights without a gradient decay to
  # denormal numbers, which are slow on CPU: steps of one example took up to 1.5 times as long. This
  # comes before the first parallel loop, so that all threads inherit the setting.
  torch.set_flush_denormal(True)
  if variant.compile != "none":  # loading the compiler takes seconds
    # With more programs than this, PyTorch would silently fall back to eager mode. Each batch size
    # in training and in prediction needs a program.
    torch._dynamo.config.recompile_limit = 64
  return torch


def _device(torch: Any, spec: Spec) -> str:
  """Returns the device of the spec. Raises PeerError if there is none."""
  if spec.device == "cpu":
    return "cpu"
  if torch.cuda.is_available():
    return "cuda"
  if torch.backends.mps.is_available():
    return "mps"
  raise PeerError("device is gpu, and PyTorch finds none")


def _network(torch: Any, spec: Spec, image_shape: tuple[int, ...]) -> Any:
  """Returns a new network: images `[B, D, H, W]` -> logits `[B, C]`."""
  nn = torch.nn
  activations = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(protocol.LEAKY_SLOPE),
  }
  modules = []
  for layer, shape in protocol.input_shapes(spec.layers, image_shape):
    if layer.kind == "conv":
      modules.append(nn.Conv2d(shape[-1], layer.features, layer.size))
    elif layer.kind == "dense":
      modules.append(nn.Linear(shape[0], layer.features))
    elif layer.kind == "flatten":
      modules.append(nn.Flatten())
    elif layer.rate:
      modules.append(nn.Dropout(layer.rate))
    if layer.activation is not None:
      modules.append(activations[layer.activation]())
    if layer.pool:
      modules.append(nn.MaxPool2d(2))
  for module in modules:
    if isinstance(module, nn.Conv2d | nn.Linear):
      nn.init.xavier_uniform_(module.weight)  # Glorot's
      nn.init.zeros_(module.bias)
  return nn.Sequential(*modules)


def _stack(torch: Any, models: list) -> dict[str, Any]:
  """Returns name -> parameters of all models, `[M, ...]`; for a single model, its own."""
  if len(models) == 1:
    return {name: param.detach() for name, param in models[0].named_parameters()}
  params, _ = torch.func.stack_module_state(models)
  return {name: param.detach() for name, param in params.items()}


def _loss(torch: Any, spec: Spec) -> Callable[[Any, Any], Any]:
  """Returns the loss function: logits `[B, C]`, labels `[B]` -> mean loss `[]`."""
  functional = torch.nn.functional
  if spec.loss == "categorical_cross_entropy":
    return functional.cross_entropy
  return lambda logits, labels: functional.binary_cross_entropy_with_logits(logits[:, 0], labels)


def _optimizer(torch: Any, spec: Spec, params: list) -> Any:
  """Returns the optimizer for the parameters, in its fused implementation."""
  if spec.optimizer == "adam":
    betas = (protocol.BETA_1, protocol.BETA_2)
    return torch.optim.Adam(
      params, lr=spec.learning_rate, betas=betas, eps=protocol.EPSILON, fused=True
    )
  momentum = protocol.MOMENTUM if spec.optimizer == "momentum" else 0
  return torch.optim.SGD(params, lr=spec.learning_rate, momentum=momentum, fused=True)


def _update(spec: Spec, param: Any, grad: Any, first: Any, second: Any, count: Any):
  """Updates a parameter and its two moments in place, as torch.optim does.

  Args:
    spec: the spec, which has the optimizer and the learning rate.
    param: the parameter, of any shape; the gradient and the moments have the same shape.
    grad: the gradient.
    first: the first moment; for SGD with momentum, the velocity.
    second: the second moment.
    count: `[]`, the number of steps, including this one.
  """
  if spec.optimizer == "sgd":
    param.sub_(spec.learning_rate * grad)
  elif spec.optimizer == "momentum":
    first.mul_(protocol.MOMENTUM).add_(grad)
    param.sub_(spec.learning_rate * first)
  else:
    first.mul_(protocol.BETA_1).add_(grad, alpha=1 - protocol.BETA_1)
    second.mul_(protocol.BETA_2).addcmul_(grad, grad, value=1 - protocol.BETA_2)
    rate = spec.learning_rate / (1 - protocol.BETA_1**count)
    scale = (1 - protocol.BETA_2**count).sqrt()
    param.sub_(rate * first / (second.sqrt() / scale + protocol.EPSILON))


def _compiled(torch: Any, function: Callable, variant: Variant) -> Callable:
  """Returns the function, compiled once per shape if the variant says so."""
  return function if variant.compile == "none" else torch.compile(function, dynamic=False)


if __name__ == "__main__":
  sys.exit(protocol.main(sys.argv, TorchWorker))
