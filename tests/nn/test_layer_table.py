"""The table of a model's layers: by hand, and against flax's own."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxdl
from jaxdl.errors import InputError
from jaxdl.nn import models
from jaxdl.nn.layer_table import layer_table


def _arm(model, **settings):
  return jaxdl.Arm(model=model, loss="categorical_cross_entropy", **settings)


def test_an_mlp_by_hand(blobs):
  """64 inputs and three classes."""
  table = jaxdl.summary(_arm("mlp(16, 8)"), blobs)
  assert table.rows() == [
    ["layer", "kind", "output", "parameters"],
    ["Dense_0", "Dense", "[B, 16]", "1,040"],
    ["Dense_1", "Dense", "[B, 8]", "136"],
    ["Dropout_0", "Dropout", "[B, 8]", "0"],
    ["Dense_2", "Dense", "[B, 3]", "27"],
    ["total", "", "", "1,203"],
  ]
  assert str(table).splitlines() == [
    "layer      kind     output   parameters",
    "---------  -------  -------  ----------",
    "Dense_0    Dense    [B, 16]       1,040",
    "Dense_1    Dense    [B, 8]          136",
    "Dropout_0  Dropout  [B, 8]            0",
    "Dense_2    Dense    [B, 3]           27",
    "---------  -------  -------  ----------",
    "total                             1,203",
  ]


@pytest.mark.parametrize("spec", ["resnet(8, width=2, shortcut=B)", "vit(depth=1, width=8)"])
def test_the_sums_are_those_of_flax(spec, blobs):
  table = jaxdl.summary(_arm(spec), blobs)
  model = models.create(spec, num_outputs=3)
  by_flax = nn.tabulate(model, jax.random.key(0), console_kwargs={"width": 200})(
    jnp.zeros((1, 8, 8, 1))
  )
  by_flax = re.sub(r"\x1b\[[0-9;]*m", "", by_flax)  # colours
  (total,) = re.findall(r"Total Parameters: ([\d,]+)", by_flax)
  assert table.num_params + table.num_state == int(total.replace(",", ""))
  assert sum(layer.num_params for layer in table.layers) == table.num_params
  for layer in table.layers:
    if layer.name == layer.kind:  # the model itself, which has no path
      continue
    # The columns are path, module, inputs, outputs, ...
    line = next(line for line in by_flax.splitlines() if re.match(rf"[^\w]+{layer.name} ", line))
    shape = ",".join(map(str, (1, *layer.output_shape)))
    assert f"float32[{shape}]" in line.split("│")[4]
  assert ("numbers that training changes without a gradient" in str(table)) == ("resnet" in spec)


class _Shared(nn.Module):
  """Calls one layer twice, and has a parameter of its own."""

  @nn.compact
  def __call__(self, x):
    layer = nn.Dense(4, name="same")
    return layer(layer(x)) * self.param("scale", nn.initializers.ones, (4,)).reshape(1, 4)


def test_what_is_called_twice_counts_once():
  x = jnp.zeros((1, 4))
  variables = jax.eval_shape(_Shared().init, jax.random.key(0), x)
  table = layer_table(_Shared().apply, variables, x)
  assert [(layer.name, layer.num_params) for layer in table.layers] == [
    ("same", 20),
    ("same", 0),
    ("_Shared", 4),
  ]
  assert table.num_params == 24


def test_functions_have_one_row(blobs):
  def init(key, inputs):
    return {"kernel": jax.random.normal(key, (64, 3))}

  def apply(params, inputs):
    return inputs.reshape(-1, 64) @ params["kernel"]

  rows = jaxdl.summary(_arm((init, apply)), blobs).rows()
  assert rows[1:] == [["functions", "", "[B, 3]", "192"], ["total", "", "", "192"]]


def test_a_model_that_does_not_fit_is_refused(blobs):
  with pytest.raises(InputError, match="does not fit inputs") as error:
    jaxdl.summary(_arm("vit(patch_size=5)"), blobs)
  assert "\n" not in str(error.value)
