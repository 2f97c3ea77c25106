"""Worksheets that several tests use."""

import json

from conftest import ROOT

SHEETS = ROOT / "experiments" / "worksheets"


def make_sheet(equations, claims, given=None, head=""):
  """TOML text; claims are (of, value) or (of, value, from)."""
  lines = [head, "[given]", *(f"{name} = {value}" for name, value in (given or {}).items())]
  lines += ["[equations]", *(f"{name} = {json.dumps(text)}" for name, text in equations.items())]
  for of, value, *working in claims:
    lines += ["[[claims]]", f"of = {json.dumps(of)}", f"value = {json.dumps(value)}"]
    lines += [f"from = {json.dumps(line)}" for line in working]
  return "\n".join(lines) + "\n"


# Two outputs, and a bias shared by the units of each layer: M. Mazur, "A Step by Step
# Backpropagation Example", mattmazur.com, 17 March 2015.
MAZUR_GIVEN = {"i1": 0.05, "i2": 0.10, "b1": 0.35, "b2": 0.60, "t1": 0.01, "t2": 0.99}
MAZUR_GIVEN |= {"w1": 0.15, "w2": 0.20, "w3": 0.25, "w4": 0.30}
MAZUR_GIVEN |= {"w5": 0.40, "w6": 0.45, "w7": 0.50, "w8": 0.55}
MAZUR = {
  "E": "E1 + E2",
  "E1": "(t1 - o1)**2 / 2",
  "E2": "(t2 - o2)**2 / 2",
  "o1": "sigmoid(no1)",
  "o2": "sigmoid(no2)",
  "no1": "w5*h1 + w6*h2 + b2",
  "no2": "w7*h1 + w8*h2 + b2",
  "h1": "sigmoid(nh1)",
  "h2": "sigmoid(nh2)",
  "nh1": "w1*i1 + w2*i2 + b1",
  "nh2": "w3*i1 + w4*i2 + b1",
}

SOFTMAX = {
  "h1": "relu(v1*x + c)",
  "h2": "relu(v2*x + c)",
  "s1": "u1*h1 + u2*h2",
  "s2": "u3*h1 + u4*h2",
  "p1": "exp(s1) / (exp(s1) + exp(s2))",
  "p2": "exp(s2) / (exp(s1) + exp(s2))",
  "H": "-(y1*log(p1) + y2*log(p2))",
}
SOFTMAX_GIVEN = {"x": 2, "v1": 1, "v2": -1, "c": 0.5, "y1": 0, "y2": 1}
SOFTMAX_GIVEN |= {"u1": 1, "u2": 2, "u3": 0.2, "u4": 1}

# A neuron with two inputs and cross-entropy.
NEURON = {"z": "w1*x1 + w2*x2 + b", "a": "sigmoid(z)", "L": "-(y*log(a) + (1 - y)*log(1 - a))"}
NEURON_GIVEN = {"x1": 0.5, "x2": 2, "w1": 0.3, "w2": -0.2, "b": 0.1, "y": 1}
