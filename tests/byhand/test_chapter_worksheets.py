"""The chapter on backpropagation: its examples are right, and are those of `backprop/`."""

import re

import numpy as np
import pytest
from conftest import ROOT

from jaxdl.byhand import backprop, worksheet
from jaxdl.byhand.expressions import Derivative, Name

CHAPTER = (ROOT / "docs" / "backprop.md").read_text(encoding="utf-8")
# Name of a rule or optimizer -> its section.
SECTIONS = {
  section.partition("\n")[0]: section
  for section in re.split(r"^### ", CHAPTER, flags=re.MULTILINE)[1:]
  if "```toml" in section
}


def text_of(name):
  (text,) = re.findall(r"```toml\n(.*?)```", SECTIONS[name], re.DOTALL)
  return text


def checked(name):
  return worksheet.check(text_of(name))


def test_every_rule_and_optimizer_has_a_section_with_a_worksheet():
  assert set(SECTIONS) == {*backprop.RULES, *backprop.OPTIMIZERS}


def test_every_module_is_named():
  modules = {file.name for file in (ROOT / "jaxdl" / "byhand" / "backprop").glob("[a-z]*.py")}
  assert {name for name in modules if f"`{name}`" not in CHAPTER} == set()


@pytest.mark.parametrize("name", SECTIONS)
def test_every_number_is_right(name):
  sheet = checked(name)
  assert sheet.title == name
  assert {claim.status for claim in sheet.claims} == {"exact"}
  assert {claim.remark for claim in sheet.claims} == {""}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_worked_solution_has_a_formula_for_every_derivative(name):
  slopes = [line for line in worksheet.answers(text_of(name)) if re.match(r"  d.*/d", line)]
  assert slopes
  assert [line for line in slopes if line.count(" = ") < 2] == []


def picture(x):
  """`[1, H, W, 1]` of a matrix, `[1, H, W, C]` of channels `[C, H, W]`."""
  return x[None, :, :, None] if x.ndim == 2 else np.moveaxis(x, 0, -1)[None]


HALVES = np.full(2, 0.5)  # the derivatives of a mean over two examples
# Rule -> (name of its input in the worksheet, values of the worksheet -> input, further arguments
# and cotangent of the output).
CALLS = {
  "dense": ("x", lambda v: (v["x"], ({"kernel": v["K"], "bias": v["beta"]},), v["T"])),
  "conv": (
    "x",
    lambda v: (
      picture(v["x"]),
      (
        {"kernel": v["K"][:, :, None, None], "bias": v["beta"].reshape(1)},
        (2, 2),
        ((1, 1), (1, 1)),
      ),
      picture(v["T"]),
    ),
  ),
  "max_pool": ("x", lambda v: (picture(v["x"]), (), picture(v["T"]))),
  "avg_pool": ("x", lambda v: (picture(v["x"]), (2,), picture(v["T"]))),
  "global_avg_pool": ("x", lambda v: (picture(v["x"]), (), v["t"][None])),
  "flatten": ("x", lambda v: (picture(v["x"]), (), v["t"][None])),
  "dropout": ("x", lambda v: (v["x"], (v["m"] == 1, v["r"]), v["T"])),
  "residual_sum": ("s", lambda v: (v["s"], ({"branch": v["h"]},), v["t"])),
  **{
    name: ("x", lambda v: (v["x"], (), v["t"]))
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "gelu")
  },
  "softmax": ("z", lambda v: (v["z"], (), v["T"])),
  **{
    name: ("x", lambda v: (v["x"], ({"scale": v["g"], "bias": v["b"]}, float(v["eps"])), v["T"]))
    for name in ("batch_norm", "layer_norm")
  },
  "group_norm": (
    "x",
    lambda v: (
      v["x"].reshape(1, 2, 4),
      ({"scale": v["g"].ravel(), "bias": v["b"].ravel()}, 2, float(v["eps"])),
      v["T"].reshape(1, 2, 4),
    ),
  ),
  "embedding": ("E", lambda v: (v["E"], (np.array([[2, 0, 2]]),), v["T"][None])),
  "attention": (
    "q",
    lambda v: (
      v["q"][None, None],
      ({"key": v["k"][None, None], "value": v["v"][None, None]},),
      v["T"][None, None],
    ),
  ),
  "binary_cross_entropy": ("z", lambda v: (v["z"][:, None], (v["y"],), HALVES)),
  "categorical_cross_entropy": ("z", lambda v: (v["z"], (v["y"].argmax(axis=1),), HALVES)),
  "mean_squared_error": ("p", lambda v: (v["p"], (v["y"],), HALVES)),
  "mean_absolute_error": ("y", lambda v: (v["y"], (v["t"],), HALVES)),
  "huber": ("y", lambda v: (v["y"], (v["t"], v["delta"]), HALVES)),
  "hinge": ("z", lambda v: (v["z"], (v["t"].argmax(axis=1),), HALVES)),
}
# What the parameters of a rule are called in its worksheet.
NAMES = {"kernel": "K", "scale": "g", "branch": "h", "key": "k", "value": "v"}


@pytest.mark.parametrize("name", backprop.RULES)
def test_an_example_is_what_the_rule_computes(name):
  sheet = checked(name)
  rule = backprop.get_rule(name)
  of_input, call = CALLS[name]
  x, arguments, cotangent = call(sheet.values)
  _, cache = rule.forward(x, *arguments)
  dx, dparams = rule.backward(cache, cotangent)
  bias = "beta" if "beta" in sheet.values else "b"
  found = {of_input: dx, **{{**NAMES, "bias": bias}[n]: value for n, value in dparams.items()}}
  channels_last = name == "global_avg_pool"
  for n, value in found.items():
    right = sheet.known[Derivative("L", n)]
    right = np.moveaxis(right, 0, -1) if channels_last else right
    np.testing.assert_allclose(value.reshape(right.shape), right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", backprop.OPTIMIZERS)
def test_two_steps_of_an_optimizer_are_those_of_the_rule(name):
  known = checked(name).known
  gradients = np.array([known[Derivative("L", "w", (), step)] for step in (0, 1)])
  path = backprop.descend(name, known[Name("w")], gradients, 0.1)
  np.testing.assert_allclose([known[Name("w", 1)], known[Name("w", 2)]], path, rtol=1e-12)
