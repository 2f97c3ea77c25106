"""Formulas over arrays: values and derivatives are those of JAX, which reads them as Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_formulas import JAX

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Name
from jaxdl.errors import InputError

SHAPES = {
  "s": (),
  "u": (3,),
  "v": (2,),
  "x": (3,),
  "W": (2, 3),
  "M": (3, 3),
  "X": (4, 3),
  "P": (4, 4),
  "K": (2, 2),
  "c": (4, 1),
  "C": (2, 4, 3),
  "F": (3, 2, 2, 2),
  "R": (1, 2),
}
FORMULAS = [
  "W @ x + v",
  "X @ W.T + v",
  "x @ u",
  "v @ W",
  "v @ W @ M",
  "(M @ W.T).T",
  "x.T + u",
  "outer(v, x) * W",
  "X - mean(X, axis=0)",
  "X / sum(X, axis=1, keepdims=True)",
  "sum(X * c)",
  "mean(X, axis=1, keepdims=True) + c",
  "softmax(X)",
  "softmax(X, axis=0)",
  "log_softmax(x)",
  "softmax(v @ W) @ x",
  "-sum(u * log_softmax(x))",
  "softmax(M @ M.T / sqrt(3)) @ M",
  "[s, 2*s, x[0]] * u",
  "[x, u][1]",
  "W[0] + W[1, 0:2][1]",
  "W[:, 1:3]",
  "X[1:3, 0] * v",
  "P[-1]",
  "concat(x, v)",
  "concat(X, M)",
  "concat(X, c, axis=1)",
  "flatten(W) * 2",
  "conv(P, K)",
  "conv(P, K, 2)",
  "conv(pad(K), flip(K))",
  "conv(pad(P, 2), K, stride=3)",
  "max_pool(P)",
  "max_pool(P, 3, 1)",
  "mean_pool(P, size=2, stride=1)",
  "relu(conv(P, K)) ** 2",
  "max(X)",
  "max(X, axis=0)",
  "min(X, axis=1, keepdims=True) - X",
  "max(x, u, s)",
  "min(X, c)",
  "sigmoid(X) * tanh(x) - exp(-x) / sqrt(2 + sin(u) * cos(s))",
  "leaky_relu(x) + leaky_relu(u, 0.2) + gelu(x) + softplus(u) + step(x) * abs(u)",
  "ln(X**2) ** 3 - 2 ** x + abs(u) ** s",
  "s * W",
  "sum(W) * mean(X) + s",
  "mean(X, axis=1)[:, None] * X",
  "x[None] + v[:, None]",
  "erf(X) * s",
  "sum(X, axis=-1) * mean(X, axis=-1) + sum(softmax(C, axis=-2), axis=-3)[0, 0]",
  "concat(X, c, axis=-1) - mean(X, axis=-1, keepdims=True)",
  "conv(C, F) + x[:, None, None]",
  "conv(C, F[0])",
  "conv(P, F[:, 0], 2)",
  "conv(pad(C, 1, 2), F, stride=2)",
  "max_pool(C, 2, 1) * mean_pool(C, 2, 1)",
  "flip(dilate(C, 3)) + dilate(pad(C, 1), 1)[:, 0:1, 0:1]",
  "conv(pad(dilate(P), 0, 1), R)",
  "max(x, u) * min(s, u)",
  "(W @ M).T / (x * sqrt(u * u))[:, None]",
]


def _as_python(text):
  return text.replace("[s, 2*s, x[0]]", "array([s, 2*s, x[0]])").replace("[x, u]", "array([x, u])")


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


@functools.cache
def _by_jax():
  """Values, cotangents of the results and of the inputs of all formulas, in one compilation."""
  at, cotangents = _inputs(), {}
  for text in FORMULAS:
    shape = expressions.shapes(expressions.parse(text, SHAPES), lambda q: SHAPES[q.name])[-1]
    cotangents[text] = np.random.default_rng(1).normal(size=shape)

  def differentiate(at, cotangents):
    found = {}
    for text, cotangent in cotangents.items():
      python = compile(_as_python(text), "formula", "eval")
      value, pull = jax.vjp(lambda at, f=python: jnp.asarray(eval(f, dict(JAX), at)), at)
      found[text] = (value, pull(cotangent)[0])
    return found

  with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
    return cotangents, jax.tree.map(np.asarray, jax.jit(differentiate)(at, cotangents))


@pytest.mark.parametrize("text", FORMULAS)
def test_values_and_derivatives_are_those_of_jax(text):
  at = _inputs()
  cotangents, by_jax = _by_jax()
  value, expected = by_jax[text]
  expression = expressions.parse(text, SHAPES)
  steps = expressions.steps(expression, lambda q: at[q.name])
  shapes = expressions.shapes(expression, lambda q: SHAPES[q.name])
  assert [np.shape(step) for step in steps] == shapes
  np.testing.assert_allclose(steps[-1], value, rtol=1e-12, atol=1e-14)
  wanted = set(expressions.quantities(expression))
  slopes = expressions.pull_back(expression, steps, cotangents[text], wanted)
  assert set(slopes) == wanted
  for quantity, slope in slopes.items():
    np.testing.assert_allclose(slope, expected[quantity.name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("text", FORMULAS)
def test_many_points_are_as_good_as_one(text):
  """With 3 points the values and derivatives are those of each point."""
  points = [_inputs(seed) for seed in range(3)]
  at = {name: np.stack([point[name] for point in points], axis=-1) for name in SHAPES}
  expression = expressions.parse(text, SHAPES)
  wanted = set(expressions.quantities(expression))
  steps = expressions.steps(expression, lambda q: at[q.name], num_points=1)
  shape = expressions.shapes(expression, lambda q: SHAPES[q.name])[-1]
  cotangent = np.random.default_rng(1).normal(size=(*shape, 1))
  slopes = expressions.pull_back(expression, steps, cotangent, wanted, num_points=1)
  for i, point in enumerate(points):
    single = expressions.steps(expression, lambda q, point=point: point[q.name])
    value = np.broadcast_to(steps[-1], (*shape, 3))[..., i]
    np.testing.assert_allclose(value, single[-1], rtol=1e-12, atol=1e-14)
    expected = expressions.pull_back(expression, single, cotangent[..., 0], wanted)
    for quantity in wanted:
      slope = np.broadcast_to(slopes[quantity], at[quantity.name].shape)[..., i]
      np.testing.assert_allclose(slope, expected[quantity], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("text", FORMULAS)
def test_what_is_written_is_what_is_parsed(text):
  expression = expressions.parse(text, SHAPES)
  assert expressions.parse(expressions.write(expression), SHAPES) == expression


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("max([2, 2, 1, 2])", [1 / 3, 1 / 3, 0, 1 / 3]),
    ("max_pool([[2, 2], [1, 0]])[0, 0]", [[0.5, 0.5], [0, 0]]),
    ("max([3, 1], [3, 2])[0]", [0.5, 0]),
    ("sum(relu([0, -1, 2]))", [0, 0, 1]),
  ],
)
def test_equal_entries_share_a_maximum(text, value):
  """The derivative with respect to the array in the formula, by hand."""
  start = text.index("[", text.index("("))
  level, end = 0, start
  while True:
    level += {"[": 1, "]": -1}.get(text[end], 0)
    end += 1
    if level == 0:
      break
  at = np.array(eval(text[start:end]), float)
  expression = expressions.parse(f"{text[:start]}A{text[end:]}")
  steps = expressions.steps(expression, lambda q: at)
  slopes = expressions.pull_back(expression, steps, np.ones(()), {Name("A")})
  np.testing.assert_allclose(slopes[Name("A")], value)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("W @ v", r"the shapes \(2, 3\) and \(2,\) do not fit together in @; .* outer"),
    ("2 * tanh(W + v)", r"in W \+ v: the shapes \(2, 3\) and \(2,\) do not fit together"),
    ("s @ x", "@ multiplies vectors and matrices"),
    ("W + v", r"the shapes \(2, 3\) and \(2,\) do not fit together"),
    ("sum(x, axis=1)", r"there is no axis 1 in the shape \(3,\)"),
    ("sum(x, axis=-2)", r"there is no axis -2 in the shape \(3,\)"),
    ("sum(x, axis=x)", "axis of sum must be an integer from 0 to 9999, as in axis=1"),
    ("pad(x, -1)", "width of pad must be an integer from 0 to 9999"),
    ("sum(x, stride=1)", "sum takes axis and keepdims, not stride"),
    ("tanh(x, axis=1)", "tanh takes no option, not axis"),
    ("x[3]", "entries are counted from 0"),
    ("x[0, 0]", r"2 indices are too many for the shape \(3,\)"),
    ("x[2:2]", "a slice .* is empty"),
    ("x[s]", "expected an index"),
    ("[x, v]", r"the parts of a list \[...\] have different shapes: \(3,\) and \(2,\)"),
    ("[]", "expected a number"),
    ("conv(K, P)", r"conv takes a picture and a window that is no larger, not .* \(2, 2\)"),
    ("conv(P, K, 0)", "the stride must be at least 1"),
    ("max_pool(P, 0)", "size of a pool must be at least 1"),
    ("outer(W, x)", "outer takes two vectors"),
    ("concat(x, W)", "concat cannot join"),
    ("softmax(s)", r"softmax\(\[z1, z2\]\)\[0\]"),
    ("max(s)", "an array or several arguments, not one number"),
    ("pad(P, 9)", "484 numbers has more than 400"),
    ("[[[[[s]]]]]", "5 axes, more than 4"),
    ("conv(C, K)", r"\(2, 4, 3\) and \(2, 2\); with C channels and F kernels they are"),
    ("conv(C[0:1], F)", r"\(1, 4, 3\) has 1 channels, but the kernel \(3, 2, 2, 2\) has 2"),
    ("dilate(P, 0)", "the stride must be at least 1"),
    ("x[None, 0, 0]", r"2 indices are too many for the shape \(3,\)"),
    ("outer(flatten(P), flatten(outer(flatten(P), u)))", "768 numbers has more than 400"),
    ("Wᵀ @ v", "the transpose of W is written W.T"),
    ("x ⊙ u", r"the elementwise product is written \*"),
  ],
)
def test_what_does_not_fit_is_said_in_a_line(text, message):
  with pytest.raises(InputError, match=message):
    expressions.shapes(expressions.parse(text, SHAPES), lambda q: SHAPES[q.name])


@settings(max_examples=60)
@given(st.lists(st.sampled_from(FORMULAS), min_size=2, max_size=2), st.sampled_from("+-*/@"))
def test_any_two_formulas_fit_or_are_refused(texts, operator):
  expression = expressions.parse(f"({texts[0]}) {operator} ({texts[1]})", SHAPES)
  try:
    found = expressions.shapes(expression, lambda q: SHAPES[q.name])
  except InputError:
    return
  at = _inputs()
  with np.errstate(all="ignore"):
    steps = expressions.steps(expression, lambda q: at[q.name])
  assert [np.shape(value) for value in steps] == found


@pytest.mark.parametrize("text", FORMULAS)
def test_a_backward_pass_as_a_formula_has_the_values_of_the_backward_pass(text):
  at = _inputs()
  expression = expressions.parse(text, SHAPES)
  steps = expressions.steps(expression, lambda q: at[q.name])
  at["g"] = np.random.default_rng(1).normal(size=np.shape(steps[-1]))
  wanted = set(expressions.quantities(expression))
  slopes = expressions.pull_back(expression, steps, at["g"], wanted)
  without = []
  for quantity in wanted:
    formula = expressions.pull_back_formula(
      expression, quantity.name, (Name("g"),), lambda q: np.shape(at[q.name]), lambda q: at[q.name]
    )
    if formula is None:
      without.append(quantity.name)
      continue
    value = expressions.evaluate(formula, lambda q: at[q.name])
    value = np.broadcast_to(value, np.shape(at[quantity.name]))
    np.testing.assert_allclose(value, slopes[quantity], rtol=1e-10, atol=1e-12)

  assert without == WITHOUT_FORMULA.get(text, [])


# The names whose backward pass would be a list of too many terms.
WITHOUT_FORMULA: dict[str, list[str]] = {}
