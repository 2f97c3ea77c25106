"""The layers of a model, as a table: what each returns, and how many parameters it has."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax


class Layer(NamedTuple):
  """A module that is called by a model, without the modules that it calls itself."""

  name: str  # its path in the model's tree of parameters, e.g. `Block_0/Dense_1`
  kind: str  # its class
  output_shape: tuple[int, ...]  # without the axis of examples
  num_params: int  # of its own; 0 if it was called before


class LayerTable(NamedTuple):
  """All layers of a model, in the order in which they return."""

  layers: tuple[Layer, ...]
  num_params: int  # of the whole model
  num_state: int  # numbers in other collections, e.g. running averages

  def rows(self) -> list[list[str]]:
    """Returns the table, header first, with a row for the sum at the end."""
    rows = [["layer", "kind", "output", "parameters"]]
    for layer in self.layers:
      shape = ", ".join(map(str, ("B", *layer.output_shape)))
      rows.append([layer.name, layer.kind, f"[{shape}]", f"{layer.num_params:,}"])
    return [*rows, ["total", "", "", f"{self.num_params:,}"]]

  def __str__(self) -> str:
    """Returns the table as text; `B` is the number of examples."""
    rows = self.rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = []
    for *cells, number in [rows[0], rule, *rows[1:-1], rule, rows[-1]]:
      left = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
      lines.append("  ".join([*left, number.rjust(widths[-1])]))
    if self.num_state:
      lines.append(f"Besides, {self.num_state:,} numbers that training changes without a gradient.")
    return "\n".join(lines)


def layer_table(
  apply: Callable[[Mapping[str, Any], jax.Array], Any], variables: Mapping[str, Any], inputs: Any
) -> LayerTable:
  """Returns the layers that a model calls. Nothing is computed but shapes.

  Args:
    apply: `(variables, inputs) -> outputs`, which applies linen modules.
    variables: of the model by collection; shapes will do.
    inputs: `[B, ...]`; a shape will do.
  """
  params = variables.get("params", {})
  layers: list[Layer] = []
  counted: dict[tuple[str, ...], int] = {}  # path of a module that has returned -> parameters

  def record(call, args, kwargs, context):
    outputs = call(*args, **kwargs)
    module, path = context.module, context.module.path
    if context.method_name != "__call__":
      return outputs
    inner = [other for other in counted if other != path and other[: len(path)] == path]
    num_params = _num_params(params, path) - sum(counted[other] for other in inner)
    num_params -= counted.get(path, 0)
    counted[path] = counted.get(path, 0) + num_params
    if num_params or not inner:  # what only calls other modules is no layer
      kind = type(module).__name__
      layers.append(Layer("/".join(path) or kind, kind, _shape(outputs), num_params))
    return outputs

  with nn.intercept_methods(record):
    outputs = jax.eval_shape(apply, variables, inputs)
  rest = _size(params) - sum(counted.values())
  if rest or not layers:  # of functions that are no module
    layers.append(Layer("functions", "", _shape(outputs), rest))
  return LayerTable(tuple(layers), _size(params), _size(variables) - _size(params))


def _num_params(params: Mapping[str, Any], path: tuple[str, ...]) -> int:
  """Returns how many parameters a module has, with those of the modules in it."""
  for name in path:
    params = params.get(name, {})
  return _size(params)


def _shape(outputs: Any) -> tuple[int, ...]:
  leaves = jax.tree.leaves(outputs)
  return leaves[0].shape[1:] if leaves else ()


def _size(tree: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
