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


def checked(name):
  (text,) = re.findall(r"```toml\n(.*?)```", SECTIONS[name], re.DOTALL)
  return worksheet.check(text)


def test_the_sections_are_rules_and_optimizers():
  assert set(SECTIONS) <= {*backprop.RULES, *backprop.OPTIMIZERS}
  assert len(SECTIONS) > 20


@pytest.mark.parametrize("name", SECTIONS)
def test_every_number_is_right(name):
  sheet = checked(name)
  assert sheet.title == name
  assert {claim.status for claim in sheet.claims} == {"exact"}
  assert {claim.remark for claim in sheet.claims} == {""}


def _picture(x):
  return x[None, :, :, None]


# Name -> (values of the worksheet -> input and arguments of the rule, cotangent of its output).
CALLS = {
  "dense": lambda v: ((v["x"], {"kernel": v["K"], "bias": v["beta"]}), v["T"]),
  "conv": lambda v: (
    (_picture(v["x"]), {"kernel": v["K"][:, :, None, None], "bias": v["beta"].reshape(1)}),
    _picture(v["T"]),
  ),
  "max_pool": lambda v: ((_picture(v["x"]),), _picture(v["T"])),
  "flatten": lambda v: ((_picture(v["x"]),), v["t"][None]),
  "dropout": lambda v: ((v["x"], v["m"] == 1, v["r"]), v["T"]),
  **{
    name: lambda v: ((v["x"],), v["t"])
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "gelu")
  },
  "softmax": lambda v: ((v["z"],), v["T"]),
  "binary_cross_entropy": lambda v: ((v["z"][:, None], v["y"]), np.full(2, 0.5)),
  "categorical_cross_entropy": lambda v: ((v["z"], v["y"].argmax(axis=1)), np.full(2, 0.5)),
  "mean_squared_error": lambda v: ((v["p"], v["y"]), np.full(2, 0.5)),
  "hinge": lambda v: ((v["z"], v["t"].argmax(axis=1)), np.full(2, 0.5)),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_example_is_what_the_rule_computes(name):
  sheet = checked(name)
  rule = backprop.get_rule(name)
  (x, *arguments), cotangent = CALLS[name](sheet.values)
  _, cache = rule.forward(x, *arguments)
  dx, dparams = rule.backward(cache, cotangent)
  names = {"kernel": "K", "bias": "beta"}
  (given,) = {"x", "z", "p"} & set(sheet.worksheet.given)
  found = {given: dx, **{names[n]: value for n, value in dparams.items()}}
  for n, value in found.items():
    right = sheet.known[Derivative("L", n)]
    np.testing.assert_allclose(value.reshape(right.shape), right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", backprop.OPTIMIZERS)
def test_two_steps_of_an_optimizer_are_those_of_the_rule(name):
  known = checked(name).known
  gradients = np.array([2 * known[Name("w")], 2 * known[Name("w", 1)]])
  path = backprop.descend(name, known[Name("w")], gradients, 0.1)
  np.testing.assert_allclose([known[Name("w", 1)], known[Name("w", 2)]], path, rtol=1e-12)
