"""`byhand.check`: right backward passes pass, and planted mistakes are found, placed and named."""

import doctest
import json
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from experiments import check_gradients
from jaxdl import byhand
from jaxdl.byhand import backward_check
from jaxdl.errors import InputError

# --- A network of three layers, and backward passes of it with one mistake each ---

_RNG = np.random.default_rng(0)
_NUM = 5  # as many examples as units, so that a sum over the wrong axis has the right shape
_X, _Y = _RNG.normal(size=(_NUM, 4)), np.eye(3)[_RNG.integers(0, 3, _NUM)]
_PARAMS = {
  "W1": _RNG.normal(size=(4, 5)),
  "b1": _RNG.normal(size=5),
  "W2": _RNG.normal(size=(5, 5)),
  "b2": _RNG.normal(size=5),
  "W3": _RNG.normal(size=(5, 3)),
  "b3": _RNG.normal(size=3),
}


def forward(inputs, params):
  """tanh, tanh, softmax, mean cross-entropy, in NumPy."""
  x, y = inputs
  a1 = np.tanh(x @ params["W1"] + params["b1"][None])
  a2 = np.tanh(a1 @ params["W2"] + params["b2"][None])
  p = np.exp(a2 @ params["W3"] + params["b3"][None])
  p = p / p.sum(axis=1, keepdims=True)
  return -(y * np.log(p)).sum() / len(x), (a1, a2, p)


def forward_jax(inputs, params):
  """The same in JAX, without the cache."""
  x, y = inputs
  a1 = jnp.tanh(x @ params["W1"] + params["b1"][None])
  a2 = jnp.tanh(a1 @ params["W2"] + params["b2"][None])
  return -(y * jax.nn.log_softmax(a2 @ params["W3"] + params["b3"][None])).sum() / len(x)


def backward(inputs, params, cache, mistake=""):
  """Its gradients, with a mistake."""
  (x, y), (a1, a2, p), m = inputs, cache, len(inputs[0])
  d3 = (p - y) / m
  d3 = {"no 1/m": m * d3, "1/m twice": d3 / m, "sign": -d3, "factor 2": 2 * d3}.get(mistake, d3)
  back2, slope2 = d3 @ params["W3"].T, 1 - a2**2
  d2 = {"no slope": back2, "slope twice": back2 * slope2**2}.get(mistake, back2 * slope2)
  back1, slope1 = d2 @ params["W2"].T, 1 - a1**2
  if mistake == "W2 transposed":
    back1 = d2 @ params["W2"]
  wrong = {"other slope": slope2, "slope of a": 1 - np.tanh(a1) ** 2, "plus": 1 + a1**2}
  d1 = back1 * wrong.get(mistake, slope1)
  d1 = np.maximum(back1, 0) if mistake == "mask" else d1
  gradients = {
    "W1": x.T @ d1,
    "W2": a1.T @ d2,
    "W3": a2.T @ d3,
    "b1": d1.sum(axis=0),
    "b2": d2.sum(axis=0),
    "b3": d3.sum(axis=0),
  }
  if mistake in _CHANGES:
    name, change = _CHANGES[mistake]
    gradients[name] = change(gradients[name], d2, params)
  return gradients


_CHANGES = {
  "dW2 transposed": ("W2", lambda g, d2, p: g.T),
  "dW1 transposed": ("W1", lambda g, d2, p: g.T),
  "bias not summed": ("b2", lambda g, d2, p: d2),
  "bias averaged": ("b2", lambda g, d2, p: d2.mean(axis=0)),
  "wrong axis": ("b2", lambda g, d2, p: d2.sum(axis=1)),
  "one example": ("b2", lambda g, d2, p: d2[0]),
  "kept axis": ("b2", lambda g, d2, p: g[None]),
  "penalty": ("W2", lambda g, d2, p: g + 0.1 * p["W2"]),
  "reversed": ("W2", lambda g, d2, p: g[::-1, ::-1]),
  "zeros": ("W2", lambda g, d2, p: 0 * g),
  "not finite": ("W2", lambda g, d2, p: np.nan * g),
  "a half": ("W2", lambda g, d2, p: np.where(np.arange(5) < 2, g, 1 + g)),
}

_TWICE = (
  "the factor 1/5 of the mean over 5 examples is there twice, or it is averaged instead of summed"
)
# Mistake -> the parameter where it is first seen, and its cause.
_FOUND = {
  "no 1/m": ("b3", "the factor 1/5 of the mean over 5 examples is missing"),
  "1/m twice": ("b3", _TWICE),
  "sign": ("b3", "its sign is wrong"),
  "factor 2": ("b3", "there is a factor 2 too many"),
  "no slope": ("b2", "the derivative of the activation is missing"),
  "slope twice": ("b2", "the derivative of the activation is there twice"),
  "W2 transposed": ("b1", "the gradient goes back through W2 transposed wrongly"),
  "other slope": ("b1", "the derivative of the activation is taken in the layer of b2"),
  "slope of a": (
    "b1",
    "the derivative of the activation is 1 - tanh(a)**2 instead of 1 - a**2, with a = tanh(z)",
  ),
  "plus": (
    "b1",
    "the derivative of the activation is 1 + a**2 instead of 1 - a**2, with a = tanh(z)",
  ),
  "mask": ("b1", "the mask of ReLU is taken from the gradient, not from the layer"),
  "dW2 transposed": ("W2", "it is transposed"),
  "dW1 transposed": ("W1", "it is transposed"),
  "bias not summed": ("b2", "it is not summed over axis 0, of 5 numbers"),
  "bias averaged": ("b2", _TWICE),
  "wrong axis": ("b2", "it is summed over the wrong axis"),
  "one example": ("b2", "it is of the first example only, not summed over all"),
  "kept axis": ("b2", "its numbers are right, but its shape is (1, 5) instead of (5,)"),
  "penalty": ("W2", "it is off by 0.1 times W2: the gradient of a penalty is wrong"),
  "reversed": ("W2", "its first two axes are reversed"),
  "zeros": ("W2", "it is all zeros"),
  "not finite": ("W2", "it is not finite"),
  "a half": ("W2", "15 of 25 numbers are wrong"),
}


def test_a_right_backward_pass_passes_in_numpy_and_in_jax():
  checked = byhand.check(forward, backward, (_X, _Y), _PARAMS)
  assert checked.passed
  assert checked.reference == "differences of the loss"
  assert [g.name for g in checked.gradients] == ["b3", "W3", "b2", "W2", "b1", "W1"]
  assert max(g.error for g in checked.gradients) < 1e-9

  def without_cache(inputs, params):
    return backward(inputs, params, forward(inputs, params)[1])

  checked = byhand.check(forward_jax, without_cache, (_X, _Y), _PARAMS)
  assert checked.passed
  assert checked.reference == "jax.grad"
  assert max(g.error for g in checked.gradients) < 1e-12
  assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("mistake", _FOUND)
def test_a_planted_mistake_is_placed_and_named(mistake):
  checked = byhand.check(forward, lambda i, p, c: backward(i, p, c, mistake), (_X, _Y), _PARAMS)
  first = checked.first_wrong
  assert (first.name, first.cause) == _FOUND[mistake]
  assert first.cause in str(checked)
  order = [g.name for g in checked.gradients]
  assert all(g.passed for g in checked.gradients[: order.index(first.name)])


@pytest.mark.parametrize(
  ("factor", "cause"),
  [(1, "a factor 2 is missing"), (-2, "its sign is wrong"), (0.7, "")],
)
def test_a_single_number_has_a_cause_only_if_a_usual_mistake_fits(factor, cause):
  checked = byhand.check(lambda _, w: w**2, lambda _, w: factor * w, None, 3.0)
  assert (checked.passed, checked.first_wrong.cause) == (False, cause)


def test_a_mistake_is_named_with_jax_too():
  def wrong(inputs, params):
    return backward(inputs, params, forward(inputs, params)[1], "no slope")

  first = byhand.check(forward_jax, wrong, (_X, _Y), _PARAMS).first_wrong
  assert (first.name, first.cause) == _FOUND["no slope"]


@pytest.mark.parametrize("mistake", ["", "no slope", "not summed", "wrong axis"])
def test_examples_may_be_columns(mistake):
  """A = W X + b with b [N, 1], as some courses write it; gradients are called dW, db."""
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 4)), np.array([[1, 0, 1, 1]])
  params = {"W1": rng.normal(size=(4, 2)), "b1": np.zeros((4, 1))}
  params |= {"W2": rng.normal(size=(1, 4)), "b2": np.zeros((1, 1))}

  def forward(inputs, params):
    x, y = inputs
    a = np.tanh(params["W1"] @ x + params["b1"])
    p = 1 / (1 + np.exp(-(params["W2"] @ a + params["b2"])))
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), (a, p)

  def backward(inputs, params, cache):
    (x, y), (a, p) = inputs, cache
    d2 = (p - y) / y.shape[1]
    d1 = params["W2"].T @ d2 * (1 if mistake == "no slope" else 1 - a**2)
    sums = {"not summed": d1, "wrong axis": d1.sum(axis=0)[:, None]}
    db1 = sums.get(mistake, d1.sum(axis=1, keepdims=True))
    db2 = d2.sum(axis=1, keepdims=True)
    return {"dW1": d1 @ x.T, "db1": db1, "dW2": d2 @ a.T, "db2": db2}

  checked = byhand.check(forward, backward, (x, y), params)
  causes = {
    "no slope": "the derivative of the activation is missing",
    "not summed": "it is not summed over axis 1, of 4 numbers",
    "wrong axis": "it is summed over the wrong axis",
  }
  assert checked.passed == (mistake == "")
  if mistake:
    assert (checked.first_wrong.name, checked.first_wrong.cause) == ("b1", causes[mistake])


def test_a_gradient_that_is_not_returned_and_one_that_is_not_asked_for():
  def backward(inputs, params):
    return {"w": 2 * params["w"], "x": 0.0}

  params = {"w": 1.0, "v": 2.0}
  checked = byhand.check(lambda _, p: p["w"] ** 2 + p["v"], backward, None, params)
  assert checked.first_wrong.cause == "the backward pass does not return it"
  assert checked.notes == ("The backward pass also returns x, which is not a parameter.",)


@pytest.mark.parametrize("maximum", [np.maximum, jnp.maximum])
@pytest.mark.parametrize(("slope", "passed"), [(0, True), (0.5, True), (1, True), (2, False)])
def test_any_slope_between_the_sides_of_a_kink_is_right(maximum, slope, passed):
  """Relu at 0: by differences 1/2, by `jax.grad` of the maximum 1/2, in most books 0."""

  def backward(x, w):
    return np.where(x * w > 0, x, slope * x * (x * w == 0))

  checked = byhand.check(lambda x, w: maximum(x * w, 0).sum(), backward, np.ones(2), [0.0, 3.0])
  assert checked.passed == passed
  if slope in (0, 1):
    assert "1 of its numbers are at a kink" in checked.notes[0]


def test_differences_find_their_step():
  """A kink 1e-4 away, a curvature of 1e4, a number of 1e6: all to eight digits."""
  params = np.array([1e-4, 0.5, 1e6])

  def forward(_, p):
    return np.abs(p[0]) + np.sin(100 * p[1]) + np.log(p[2])

  def backward(_, p):
    return np.array([1, 100 * np.cos(100 * p[1]), 1 / p[2]])

  assert byhand.check(forward, backward, None, params).gradients[0].error < 1e-8


def test_of_many_numbers_some_are_compared():
  params = {"w": np.ones((50, 40))}
  checked = byhand.check(
    lambda _, p: (p["w"] ** 2).sum(), lambda _, p: {"w": 2 * p["w"]}, 0, params
  )
  assert (checked.passed, checked.gradients[0].num_compared) == (True, 200)


def test_parameters_may_be_nested_and_in_lists():
  params = {"layers": [{"w": [[1, 2], [3, 4]]}, {"w": np.float32(3)}]}

  def forward(_, p):
    return p["layers"][0]["w"].sum() * p["layers"][1]["w"] ** 2

  def backward(_, p):
    first, second = (layer["w"] for layer in p["layers"])
    return {"layers": [{"w": np.full((2, 2), second**2)}, {"w": 2 * second * first.sum()}]}

  checked = byhand.check(forward, backward, None, params)
  assert checked.passed
  assert [g.name for g in checked.gradients] == ["layers/1/w", "layers/0/w"]


def _add_one(array):
  array += 1
  return array.sum()


_CALLS = iter(range(100))


@pytest.mark.parametrize(
  ("forward", "backward", "message"),
  [
    (lambda x, p: next(_CALLS) * p.sum(), None, "another loss when it is called again"),
    (lambda x, p: p, None, r"one number as the loss, not shape \(2,\)"),
    (lambda x, p: np.nan * p.sum(), None, "the loss is nan"),
    (lambda x, p: p @ x, None, "forward failed: ValueError"),
    (lambda x, p: _add_one(p), None, "forward changes its params"),
    (lambda x, p: _add_one(x), None, "forward changes its inputs"),
    (lambda x, p: (p.sum(), 1, 2), None, r"the loss or the pair \(loss, cache\)"),
    (lambda x, p: p.sum(), lambda x, p: _add_one(x), "backward changes its inputs"),
    (lambda x, p: p.sum(), lambda x, p: "abc", "is not an array of numbers"),
    (lambda x, p: p.sum(), lambda x, p: p * next(_CALLS), "another gradient array when it is"),
    (lambda x, p: p.sum(), lambda x: x, "backward failed: TypeError"),
  ],
)
def test_what_cannot_be_checked_is_said_in_one_line(forward, backward, message):
  with pytest.raises(InputError, match=message):
    byhand.check(forward, backward, np.ones(3), np.ones(2))


def test_the_example_of_the_docstring():
  flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
  result = doctest.testmod(backward_check, optionflags=flags)
  assert result.attempted > 0
  assert result.failed == 0


# --- The command ---

_MODULE = """
  inputs, params = 3.0, {"w": 2.0}

  def forward(x, params):
    return (x * params["w"]) ** 2

  def backward(x, params):
    return {"w": FACTOR * x * x * params["w"]}
"""


@pytest.mark.parametrize(("factor", "status"), [("2", 0), ("1", 1)])
def test_command_checks_a_module(factor, status, tmp_path, capsys):
  file = tmp_path / "my_net.py"
  file.write_text(textwrap.dedent(_MODULE).replace("FACTOR", factor))
  arguments = [f"--module={file}", f"--workdir={tmp_path / 'run'}"]
  assert check_gradients.main(["check_gradients", *arguments]) == status
  out = capsys.readouterr().out
  assert ("a factor 2 is missing" in out) == (status == 1)
  content = json.loads((tmp_path / "run" / "gradients.json").read_text())
  assert content["passed"] == (status == 0)
  assert "| w | () |" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "there is no file"),
    ("1 +", "failed: SyntaxError"),
    ("forward = inputs = 1", "does not define backward, params"),
  ],
)
def test_command_refuses_what_is_no_module(text, message, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(ROOT)
  file = tmp_path / "my_net.py"
  if text is not None:
    file.write_text(text)
  assert check_gradients.main(["check_gradients", f"--module={file}"]) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: --module: ")
  assert message in err
  assert err.count("\n") == 1
