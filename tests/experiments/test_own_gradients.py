"""check_gradients of a model and a loss of the user's own."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from experiments import check_gradients, own_gradients


@jax.custom_vjp
def wrong(outputs, targets):
  """A loss whose gradient is 1% too large."""
  return -jax.nn.log_softmax(outputs)[jnp.arange(len(targets)), targets]


def _forward(outputs, targets):
  return wrong(outputs, targets), (outputs, targets)


def _backward(kept, dloss):
  outputs, targets = kept
  right = jax.nn.softmax(outputs) - jax.nn.one_hot(targets, outputs.shape[-1])
  return 1.01 * dloss[:, None] * right, None


wrong.defvjp(_forward, _backward)


class InFloat32(nn.Module):
  """Computes in float32 whatever it is given."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(10, dtype=jnp.float32)(x.reshape(len(x), -1))


@pytest.mark.parametrize(
  ("settings", "name", "parameters"),
  [
    # Batch normalisation and a loss with a number.
    (
      ["--model=own_parts:Normalised", "--loss=own_parts:focal(gamma=3.0)"],
      "own_parts:Normalised and loss own_parts:focal(gamma=3.0)",
      {"BatchNorm_0/bias", "BatchNorm_0/scale"},
    ),
    # Dropout, whose mask is the same in every evaluation.
    (["--loss=own_parts:focal"], "mlp(8) and loss own_parts:focal", set()),
    (["--model=own_parts:Mlp"], "own_parts:Mlp and loss categorical_cross_entropy", set()),
  ],
)
def test_right_gradients(settings, name, parameters, tmp_path, capsys):
  assert check_gradients.main(["x", *settings, f"--workdir={tmp_path / 'run'}"]) == 0
  out = capsys.readouterr().out
  assert f"of model {name}, on 6 examples of digits" in out
  assert "the reference is finite differences only" in out
  content = json.loads((tmp_path / "run" / "gradients.json").read_text())
  assert content["reference"] == "finite differences"
  found = {of["name"]: of for of in content["gradients"]}
  layers = {f"Dense_{i}/{of}" for i in (0, 1) for of in ("kernel", "bias")}
  assert set(found) == layers | parameters
  assert found["Dense_0/kernel"]["shape"] == [784, 8]
  assert found["Dense_0/kernel"]["num_compared"] == own_gradients.MAX_ENTRIES
  assert all(of["error"] < own_gradients.TOLERANCE for of in found.values())


def test_a_wrong_gradient_is_found(capsys):
  assert check_gradients.main(["x", "--loss=test_own_gradients:wrong"]) == 1
  out = capsys.readouterr().out
  assert "jax.grad does NOT agree with finite differences for 0 of 4 parameters" in out
  assert out.count("9.9e-03") + out.count("1.0e-02") == 4


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (["--model=own_parts:Nothing"], "own_parts:Nothing cannot be imported"),
    (["--loss=own_parts:mean_of_batch"], "must return a number per example, [5], not []"),
    (["--model=test_own_gradients:InFloat32"], "computes float32 from float64"),
    (["--model=mlp", "--module=x.py"], "give either --module or --model and --loss"),
    (["--model=mlp", "--dataset=nothing"], "nothing"),
  ],
)
def test_mistakes_are_one_line(settings, message, capsys):
  assert check_gradients.main(["x", *settings]) == 2
  err = capsys.readouterr().err
  assert message in err
  assert err.count("\n") == 1
