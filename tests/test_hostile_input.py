"""What others may have written gets one line or is shown as it is: never a traceback, never a hang.

Each strategy starts from something valid and damages it, which leads further into a loader than
random bytes do; those are tried as well.
"""

import contextlib
import copy
import csv
import hashlib
import importlib
import io
import itertools
import json
import math
import os
import re
import time
import tomllib
import xml.etree.ElementTree
import zipfile
from dataclasses import replace

import markdown_it
import numpy as np
import pandas as pd
import pytest
from conftest import Forks
from drawing import make_population
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments import check_worksheet, claims, claims_page, claims_runs, gradient_flow
from experiments.coursework_claims import CLAIMS, Run
from jaxdl import data, errors, report
from jaxdl.arm import Arm
from jaxdl.byhand import expressions, worksheet
from jaxdl.data import cache, catalog, tfds_records
from jaxdl.data import dataset as dataset_lib
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.nn import initializers, models
from jaxdl.optim import schedules
from jaxdl.report import figures, plots, worksheet_plots
from ml_collections_configs import claims as claims_configs

# While looking for bugs, set it to 100 and derandomize to False.
EXAMPLES = int(os.environ.get("JAXDL_FUZZ", "1"))


def fuzz(max_examples):
  return settings(
    deadline=None,
    max_examples=EXAMPLES * max_examples,
    derandomize=EXAMPLES == 1,
    suppress_health_check=list(HealthCheck),
  )


def outcome(function, *args, seconds=10):
  """Returns what a loader returns, None if it refuses; in one line, and in time.

  Time of the processor, which no other process on the machine makes longer. That a loader does not
  go on and on can only be told by a clock.
  """
  started = time.process_time()
  try:
    value = function(*args)
  except InputError as error:
    message, value = str(error), None
    assert message
    assert message.isprintable()
    assert len(message) <= 10_000
  assert time.process_time() - started < seconds
  return value


# --- Strategies ---

HOSTILE = (
  "<script>alert(1)</script>",
  "$\\frac$",
  "$\\frac{1}{2}$",
  "a|b",
  "](javascript:x)",
  "![](x) [a](b) **b** __i__ ~~s~~ `c`",
  "../../etc/passwd",
  "two\nlines\r\nand\u2028three",
  "\x00\x1b[31m\x7f",
  "\u202egnitirw\u2066 \u200b",
  "x" * 10_000,
  " " * 10_000 + "!",
  "a" + " " * 100_000 + "!",
  "# - 1. +",
  "--> ]]> <!-- &amp; &",
  "1. a",
  "- a",
  "---",
  "a #",
  "_x_ __ ___",
  "\\",
  "中文 \U0001f600",
  "\ud800",
  "",
)
TEXT = st.one_of(
  st.sampled_from(HOSTILE),
  st.text(st.characters(), max_size=20),
  st.text("\\`*_[]()<>#+-.!|$~&;:=\"'{} \t\n19a", max_size=30),
)
NUMBERS = st.one_of(
  st.integers(-3, 40),
  st.integers(),
  st.sampled_from((10**400, -(10**400), 2**31, 2**63, 1e300, 5e-324, 1e999, -0.0)),
  st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
VALUES = st.recursive(
  SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)


def places(document, path=()):
  """Yields the path of everything in a document of dictionaries and lists."""
  entries = document.items() if isinstance(document, dict) else enumerate(document)
  for key, inner in entries:
    yield (*path, key)
    if isinstance(inner, dict | list):
      yield from places(inner, (*path, key))


@st.composite
def damaged(draw, document, values=VALUES):
  """A document in which a few values are others, gone, twice there or under another name."""
  document = copy.deepcopy(document)
  for _ in range(draw(st.integers(1, 3))):
    paths = list(places(document))
    if not paths:
      break
    *above, key = draw(st.sampled_from(paths))
    parent = document
    for step in above:
      parent = parent[step]
    how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "repeat", "rename")))
    if how == "replace":
      parent[key] = draw(values)
    elif how == "remove":
      del parent[key]
    elif isinstance(parent, list):
      parent.insert(key, copy.deepcopy(parent[key]))
    else:
      name = draw(TEXT)
      parent[name] = copy.deepcopy(parent[key])
      if how == "rename" and name != key:
        del parent[key]
  return document


@st.composite
def damaged_bytes(draw, content):
  """A file with some bytes changed, cut off, doubled or put in."""
  content = bytearray(content)
  for _ in range(draw(st.integers(1, 4))):
    start = draw(st.integers(0, max(len(content) - 1, 0)))
    end = draw(st.integers(start, min(start + 200, len(content))))
    content[start:end] = draw(
      st.one_of(
        st.binary(max_size=8),
        st.just(bytes(content[start:end] * 2)),
        st.sampled_from((b"\xff\xff\xff\xff", b"\x00", b"[" * 3000, b"9" * 5000, b'"', b"\n")),
      )
    )
  return bytes(content)


# --- Names and numbers in settings ---

WORDS = st.sampled_from(
  (*models.NAMES, *models.NETWORKS, *initializers.NAMES, *schedules.NAMES, "x")
)
ARGUMENTS = st.one_of(
  TEXT,
  st.sampled_from(("1e9", "99999999999", "9" * 5000, "64,64", "1 2", "1e999", "nan", "-1", "1,1")),
  st.lists(st.integers(0, 2**40), max_size=300).map(lambda sizes: ",".join(map(str, sizes))),
  st.lists(st.floats(), max_size=3).map(lambda values: ",".join(map(str, values))),
)
SPECS = st.one_of(
  VALUES,
  st.tuples(WORDS, ARGUMENTS).map(lambda pair: f"{pair[0]}({pair[1]})"),
  st.tuples(WORDS, TEXT).map("".join),
)


@fuzz(150)
@given(SPECS)
@example("mlp(1e9)")
@example("mlp(99999999999)")
@example("mlp(1 2)")
@example(f"mlp({'9' * 5000})")
@example(f"mlp({','.join(['65536'] * 200)})")
@example("mlp" + " " * 100_000 + "!")
def test_names_of_models_initializers_and_schedules(spec):
  if isinstance(spec, str):
    outcome(models.canonical, spec)
  found = outcome(models.parse, spec)
  if found is not None and found[1] is not None:
    sizes = found[1]
    assert sum(a * b for a, b in itertools.pairwise(sizes)) <= 2**28
  found = outcome(initializers.parse, spec)
  assert found is None or all(math.isfinite(np.float32(v)) for v in found[1].values())
  found = outcome(schedules.parse, spec)
  assert found is None or all(map(math.isfinite, found[1]))
  outcome(schedules.check, spec, 10)
  outcome(catalog._parse_name, spec)


def test_more_steps_than_memory_are_refused():
  for num_epochs, num_steps in ((10**6, 60_000), (10, 2**40)):
    with pytest.raises(InputError, match="too many"):
      schedules.learning_rates("constant", 0.1, num_epochs, num_steps)
  with pytest.raises(InputError, match="num_epochs"):
    Arm(num_epochs=2**31 - 1)
  with pytest.raises(InputError, match="num_seeds"):
    Experiment("?", {"a": Arm()}, num_seeds=2**31 - 1)


@fuzz(100)
@given(st.integers() | st.integers(-3, 300) | st.just(2**31 - 1))
def test_more_layers_than_memory_are_refused(depth):
  config = importlib.import_module("ml_collections_configs.gradient_flow").get_config("smoke")
  config.depths, config.reference = (depth,), ""
  experiment = outcome(gradient_flow.create_experiment, config)
  assert (experiment is not None) == (2 <= depth <= models.MAX_LAYERS)


@fuzz(200)
@given(TEXT | VALUES, st.lists(TEXT, max_size=5))
def test_messages_are_one_line(value, known):
  for error in (InputError(value), errors.unknown_name("thing", value, known)):
    assert str(error).isprintable()
    assert len(str(error)) <= 10_000
  outcome(errors.check_integer, "x", value, 0)


# --- Experiments ---

EXPERIMENT = Experiment(
  "Does it matter?",
  {
    "a": Arm(schedule="step(0.5, 3)", weight_decay=0.1),
    "b": Arm(model="mlp(64)", loss="categorical_cross_entropy", plateau_patience=2),
  },
  classes=(3, "7"),
  reference="a",
  target_loss=0.1,
)


def test_integers_of_thousands_of_digits():
  """Python refuses to write them, also into a message."""
  huge = 16**5000
  config = EXPERIMENT.to_json()
  for key in config:
    assert outcome(Experiment.from_json, {**config, key: huge}) is None
    assert outcome(Experiment.from_json, {**config, key: [[huge]]}) is None
  for key in config["arms"]["a"]:
    arms = {"a": {**config["arms"]["a"], key: huge}}
    assert outcome(Experiment.from_json, {**config, "arms": arms}) is None
  for parse in (models.parse, initializers.parse, schedules.parse, catalog._parse_name):
    assert outcome(parse, huge) is None
  assert outcome(worksheet.check, f"learning_rate = {hex(huge)}\n[given]\n") is None


@fuzz(200)
@given(damaged(EXPERIMENT.to_json()) | VALUES)
@example({**EXPERIMENT.to_json(), "alpha": 5e-324, "num_seeds": 40})
@example({**EXPERIMENT.to_json(), "margins": {"test_accuracy": 10**400}})
@example({**EXPERIMENT.to_json(), "arms": {"a\nb": {}}, "reference": None})
def test_configs_of_experiments(config):
  experiment = outcome(Experiment.from_json, config)
  if experiment is not None:
    text = json.dumps(experiment.to_json(), allow_nan=False)
    assert Experiment.from_json(json.loads(text)) == experiment


@fuzz(100)
@given(damaged_bytes(json.dumps(EXPERIMENT.to_json()).encode()) | st.binary(max_size=100))
@example(b"[" * 200_000)
@example(b'{"a":' * 200_000)
@example(b'{"seed": ' + b"9" * 5000 + b"}")
def test_damaged_files_are_no_run_of_an_experiment(tmp_path_factory, content):
  folder = tmp_path_factory.getbasetemp()
  (folder / "config.json").write_bytes(content)
  assert isinstance(outcome(claims_runs.is_run_of, EXPERIMENT, folder), bool)


def _overrides(script, num):
  """Yields overrides of the keys of a script's config with values that mostly do not fit."""
  config = importlib.import_module(f"ml_collections_configs.{script}").get_config()
  keys = [*config, *(f"margins.{metric}" for metric in config.margins), "margins.x", "x", "seed.x"]
  texts = [t for t in HOSTILE if "\x00" not in t and "\ud800" not in t and len(t) < 20_000]
  texts.append("\udcff")  # a byte that is no text, as Python has it from the command line
  texts += ["9" * 5000, "1e999", "nan", "-1", "()", "(1,", "None", "0x" + "f" * 5000, "mlp(1 2)"]
  texts += ["[" * 500, "(0x" + "f" * 5000 + ",)", "'a'", "{}", "1,2", "True"]
  rng = np.random.default_rng(0)
  for _ in range(num):
    yield f"--config.{rng.choice(keys)}={texts[rng.integers(len(texts))]}"


def test_settings_on_the_command_line():
  imports = "from experiments import command_line, compare_initializers, compare_optimizers"
  for script in ("compare_initializers", "compare_optimizers"):
    call = f"command_line.main(lambda config: {script}.create_experiment(config) and None)"
    with Forks(imports, call) as forks:
      for text in _overrides(script, 20 * EXAMPLES):
        result = forks(f"--config=ml_collections_configs/{script}.py:smoke", "--workdir=x", text)
        assert result.returncode in (0, 2), result
        if result.returncode:
          assert result.stderr.startswith("error: "), result
          assert result.stderr.count("\n") == 1, result
        assert "Traceback" not in result.stderr, result


# --- Worksheets ---

SHEET = {
  "title": "a sheet",
  "learning_rate": 0.1,
  "loss": "L",
  "given": {"x": 1, "w": 0.5, "y": 1.0},
  "equations": {"z": "w*x", "a": "sigmoid(z)", "L": "(a - y)**2 / 2"},
  "claims": [
    {"of": "z", "value": "0.5"},
    {"of": "a", "value": "0.622"},
    {"of": "dL/da", "value": "-0.38", "from": "a - y"},
    {"of": "dL/dw", "value": "-8.88 x 10^-2"},
    {"of": "w'", "value": "0.509", "from": "w - learning_rate * dL/dw"},
  ],
}
# Arrays, an optimizer, examples in turn and several gradient steps.
ARRAY_SHEET = {
  "title": "Arrays",
  "loss": "L",
  "learning_rate": [0.1, 0.05],
  "optimizer": {"name": "adam", "beta1": 0.9},
  "parameters": ["W", "b"],
  "given": {"W": [[0.5, -1.0], [2, 0]], "b": [0.5, 0]},
  "examples": [{"x": [1, 2], "y": [1, 0]}, {"x": [0, 1], "y": [0, 1]}],
  "equations": {"z": "W @ x + b", "p": "softmax(z)", "L": "-sum(y * log(p))"},
  "claims": [
    {"of": "z", "value": "[-1.0, 2.0]"},
    {"of": "dL/dz", "value": "[-0.95, 0.95]", "from": "p - y", "points": 2},
    {"of": "dL/dW", "value": "[[-0.95, -1.9], [0.95, 1.9]]", "from": "outer(dL/dz, x)"},
    {"of": "dL/dW[0, 1]", "value": "-1.9", "step": 2},
    {"of": "m_W'", "value": "[[-0.1, -0.19], [0.1, 0.19]]"},
    {"of": "W''[0]", "value": "[0.64, -0.9]"},
    {"of": "L'", "value": "2.5"},
  ],
}
FORMULAS = st.lists(
  st.sampled_from(
    (
      *"xywzaLd'()+-*/^,. 09",
      *("**", "9**", "1e308", "1e-320", "dL/da", "w'", "learning_rate"),
      *("W", "@", ".T", "[", "]", ":", "[0,1]", "axis=0", "keepdims=True", "w'9", "dz[0]/dW"),
      *(f"{name}(" for name in expressions.FUNCTION_NAMES),
    )
  ),
  max_size=25,
).map("".join)
SHEET_VALUES = st.one_of(
  VALUES,
  FORMULAS,
  FORMULAS,
  st.sampled_from(
    ("9**9**9**9", "(" * 1000, "-" * 1900, "z", "a", "9" * 190_000, "1e9999", "0.1e-4000", "1/0")
  ),
  NUMBERS.map(str),
)


def to_toml(sheet):
  """Returns TOML text; a value that has no place there may come out as no TOML, which is fine."""
  lines = []
  for key, value in sheet.items():
    if key in ("given", "equations") and isinstance(value, dict):
      lines.append(f"[{key}]")
      lines += [f"{_quote(name)} = {_toml_value(inner)}" for name, inner in value.items()]
    elif key in ("claims", "examples") and isinstance(value, list):
      for claim in value:
        lines.append(f"[[{key}]]")
        pairs = claim.items() if isinstance(claim, dict) else ()
        lines += [f"{_quote(name)} = {_toml_value(inner)}" for name, inner in pairs]
    else:
      lines.insert(0, f"{_quote(key)} = {_toml_value(value)}")
  return "\n".join(lines) + "\n"


def _toml_value(value):
  if isinstance(value, str):
    return _quote(value)
  if isinstance(value, dict):
    return "{" + ", ".join(f"{_quote(k)} = {_toml_value(v)}" for k, v in value.items()) + "}"
  if isinstance(value, list):
    return "[" + ", ".join(map(_toml_value, value)) + "]"
  if isinstance(value, bool):
    return str(value).lower()
  return "1979-05-27" if value is None else repr(value)


def _quote(text):
  quoted = json.dumps(text).replace("\x7f", "\\u007f")
  # In lines that a worksheet may have.
  parts = re.findall(r"(?:\\u....|\\.|.){1,1500}", quoted[1:-1])
  # A lone line, a key that is, or lines that continue each other, none longer than they may be.
  return quoted if len(parts) < 2 else '"""' + "\\\n".join(parts) + '"""'


def assert_checked(checked):
  """What is said of a worksheet can be written and read."""
  json.dumps(worksheet.to_json(checked), allow_nan=False)
  text = check_worksheet.markdown(checked)
  text.encode()
  assert "<script" not in text
  assert_plain(report.escape(checked.title), checked.title)


@fuzz(60)
@given(damaged(SHEET, SHEET_VALUES) | damaged(ARRAY_SHEET, SHEET_VALUES))
def test_damaged_worksheets(sheet):
  text = to_toml(sheet)
  checked = outcome(worksheet.check, text)
  if checked is not None:
    assert_checked(checked)


@pytest.mark.parametrize("sheet", [SHEET, ARRAY_SHEET])
def test_undamaged_worksheet(sheet):
  text = to_toml(sheet)
  assert tomllib.loads(text) == sheet
  assert_checked(worksheet.check(text))


@fuzz(60)
@given(
  damaged_bytes(to_toml(SHEET).encode())
  | damaged_bytes(to_toml(ARRAY_SHEET).encode())
  | st.binary(max_size=200)
)
def test_damaged_files_of_worksheets(tmp_path_factory, content):
  file = tmp_path_factory.getbasetemp() / "sheet.toml"
  file.write_bytes(content)
  checked = outcome(worksheet.check, file)
  if checked is not None:
    assert_checked(checked)


@pytest.mark.parametrize(
  "text",
  [
    "a = " + "[" * 3000,
    "\n".join(f"a.{'.'.join(['b'] * 1000)}{i} = 1" for i in range(90)),
    "x = " + "9" * 3990,
    "x = 0x" + "f" * 3990,
    "[given]\n" + "\n".join(f"x{i} = 1" for i in range(20_000)),
    to_toml({**SHEET, "claims": [{"of": f"z{i}", "value": "1"} for i in range(5000)]}),
    to_toml({**SHEET, "claims": [{"of": "z", "value": "9" * 190_000 + "!"}]}),
    to_toml({**SHEET, "claims": [{"of": "d" * 190_000 + "!", "value": "1"}]}),
    to_toml({**SHEET, "claims": [{"of": "z", "value": "1" + " " * 190_000 + "!"}]}),
    to_toml({**SHEET, "equations": {"z": "9**9**9**9*x", "L": "z"}}),
    to_toml({**SHEET, "equations": {"L": "**".join(["9"] * 900)}}),
    to_toml({**SHEET, "given": {"x" * 100_000: 1}}),
    to_toml({**SHEET, "loss": "L" * 100_000}),
    to_toml({**ARRAY_SHEET, "given": {"W": [[0.5] * 400] * 2}}),
    to_toml({**ARRAY_SHEET, "equations": {"z": "[" * 1000}}),
    to_toml({**ARRAY_SHEET, "claims": [{"of": "z", "value": "[" * 190_000}]}),
    to_toml({**ARRAY_SHEET, "claims": [{"of": "W'99999999", "value": "1"}]}),
    to_toml({**ARRAY_SHEET, "claims": [{"of": "L", "value": "1", "step": 10**9}]}),
  ],
  ids=range(18),
)
def test_large_worksheets_are_refused_in_time(text):
  assert outcome(worksheet.check, text, seconds=5) is None


@fuzz(200)
@given(FORMULAS | TEXT)
def test_formulas(text):
  for working in (False, True):
    formula = outcome(expressions.parse, text, {"x", "w", "L", "a"}, working)
    assert formula is None or all(math.isfinite(getattr(item, "value", 0)) for item in formula)


# --- The cache of datasets ---


def _cache(arrays=None, compression=zipfile.ZIP_STORED, **changes):
  """Returns the content of a cache file with a sound description of what it has."""
  arrays = arrays or {
    "train_inputs": np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1),
    "train_targets": np.array([0, 1, 0], np.int32),
    "validation_inputs": np.zeros((0, 4, 4, 1), np.uint8),
    "validation_targets": np.zeros(0, np.int32),
    "test_inputs": np.zeros((2, 4, 4, 1), np.uint8),
    "test_targets": np.array([1, 0], np.int32),
  }
  arrays = {**arrays, **changes}
  names = ("train", "validation", "test")
  splits = [data.Split(arrays[f"{n}_inputs"], arrays[f"{n}_targets"]) for n in names]
  checksum = ""
  with contextlib.suppress(Exception):
    checksum = dataset_lib.hash_splits(*splits)
  meta = {"name": "tiny", "class_names": ["a", "b"], "checksum": checksum, "arrays": checksum}
  meta |= {"preprocess": None, "notes": [], "source": "f"}
  text = json.dumps(meta).encode()
  arrays["meta"] = np.frombuffer(hashlib.sha256(text).digest() + text, np.uint8)
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w", compression) as file:
    for name, array in arrays.items():
      part = io.BytesIO()
      np.save(part, array, allow_pickle=True)
      file.writestr(f"{name}.npy", part.getvalue())
  return stream.getvalue()


def read_cache(folder, content):
  file = folder / "cache.npz"
  file.write_bytes(content)
  return outcome(cache.read, file, "f")


def test_sound_cache(tmp_path):
  assert read_cache(tmp_path, _cache()).class_names == ("a", "b")


class Boom:
  """Leaves a file behind where it is unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return (open, (self.path, "w"))


def test_hostile_caches_are_not_read(tmp_path, monkeypatch):
  """Pickles, bombs, arrays of other types: a file with a right checksum is not a right file."""
  boom = np.array([Boom(tmp_path / "boom")], dtype=object)
  bomb = np.zeros((1000, 100, 100, 1), np.uint8)
  huge = _cache()
  start = huge.index(b"(3, 4, 4, 1), }")
  for content in (
    _cache(train_targets=boom),
    _cache(train_inputs=bomb, compression=zipfile.ZIP_DEFLATED),
    _cache(train_targets=np.array([0.5, 1, 0])),
    _cache(train_inputs=np.zeros((3, 0), np.uint8)),
    huge[:start] + b"(1e9,9**9,9,9)," + huge[start + 15 :],
    huge[:start] + b"(9,)*99999999,}" + huge[start + 15 :],
    huge[:start] + b"(999999999999,)" + huge[start + 15 :],
    huge[:start] + b"((((((((((((((," + huge[start + 15 :],
  ):
    assert read_cache(tmp_path, content) is None
  assert not (tmp_path / "boom").exists()


def test_a_cache_that_never_ends_is_not_read(tmp_path):
  os.mkfifo(tmp_path / "cache.npz")
  assert outcome(cache.read, tmp_path / "cache.npz", "f") is None


@fuzz(150)
@given(damaged_bytes(_cache()) | st.binary(max_size=200))
def test_damaged_caches(tmp_path_factory, content):
  found = read_cache(tmp_path_factory.getbasetemp(), content)
  sound = read_cache(tmp_path_factory.getbasetemp(), _cache())
  if found is not None:
    assert found.checksum == sound.checksum
    np.testing.assert_array_equal(found.train.inputs, sound.train.inputs)


def test_features_cannot_name_code_to_import(tmp_path):
  """TFDS imports the modules of the classes that features.json names, wherever it does."""
  of_tfds = "tensorflow_datasets.core.features.image_feature.Image"
  for key in ("pythonClassName", "python_class_name", "type"):
    inner = {key: "evil.Feature"}
    for features in (
      inner,
      {"pythonClassName": of_tfds, "featuresDict": {"features": {"image": inner}}},
      {"pythonClassName": of_tfds, "jsonFeature": {"json": json.dumps([inner])}},
    ):
      assert "evil.Feature" in list(tfds_records._named_classes(features))


# --- Finished runs, collected ---


def _wanted(name):
  # What is not in the smallest variants, claims need.
  variants = {"compare_strategies": "cifar10", "gradient_flow": "mnist"}
  return claims_runs.plan(name, variants.get(name, "smoke"), claims_configs.get_config("smoke"))


def _members(experiment):
  rows = [
    [seed, name, "finished", min(2, arm.num_epochs), *[0.3 + 0.01 * place + 0.001 * seed] * 2, 2.0]
    for seed in range(experiment.num_seeds)
    for place, (name, arm) in enumerate(experiment.arms.items())
  ]
  rates = ("test_accuracy", "test_accuracy_at_half")
  header = ["seed", "arm", "status", "epochs", *rates, "epochs_to_target"]
  return [header, *rows]


def _tables(name, experiment):
  arms = list(experiment.arms)
  if name == "compare_batch_sizes":
    timings = [
      [arm, kind, r, 1, 0.1 + 0.01 * r + 0.1 * place]
      for place, arm in enumerate(arms)
      for kind in ("train_epoch", "inference")
      for r in range(3)
    ]
    curves = [[s, arm, e, e + 0.5, 0.5] for s in range(2) for arm in arms for e in (1, 2)]
    return {
      "timings": [["arm", "kind", "process", "round", "seconds"], *timings],
      "test_curves": [["seed", "arm", "epoch", "seconds", "test_accuracy"], *curves],
    }
  if name == "compare_optimizers":
    best = {arm.optimizer: arm.learning_rate for arm in experiment.arms.values()}
    return {"best_rates": [["optimizer", "learning_rate"], *map(list, best.items())]}
  if name == "compare_strategies":
    rows = [["base", 2, group, 0.6 + 0.01 * group, 0.5] for group in range(3)]
    return {"ensembles": [["arm", "k", "group", "accuracy", "mean_member_accuracy"], *rows]}
  if name == "gradient_flow":
    cells = {arm: gradient_flow.read_cell(s) for arm, s in experiment.arms.items()}
    rows = [[s, arm, *cell, -1.0 - s] for s in range(2) for arm, cell in cells.items()]
    header = ["seed", "arm", "activation", "initializer", "depth", "log10_gradient_ratio"]
    return {"vanishing": [header, *rows]}
  return {}


PROVENANCE = {
  "dataset": {
    "name": "digits",
    "checksum": "0" * 64,
    "num_train": 10,
    "num_validation": 2,
    "num_test": 3,
  },
  "versions": {"jax": "0.12.0"},
  "source": {"revision": "f" * 40, "clean": True},
  "finished": "2026-01-01T00:00:00",
  "total_seconds": 12.5,
  "device_count": 1,
  "device_kind": "cpu",
  "machine": "x86_64",
}
WANTED = {name: _wanted(name) for name in CLAIMS}
RUNS = {
  name: {
    "members": _members(wanted.experiment),
    "provenance": PROVENANCE,
    **_tables(name, wanted.experiment),
  }
  for name, wanted in WANTED.items()
}


def collect(name, folder, run, cut=None):
  """Writes a run, with hashes that fit, and collects it as `--collect` does; returns the ledger."""
  (folder / "tables").mkdir(exist_ok=True)
  for file in folder.rglob("*.csv"):
    file.unlink()
  (folder / "config.json").write_text(WANTED[name].experiment.dumps())
  for stem, table in run.items():
    path = folder / ("tables" if stem != "members" else ".")
    if stem == "provenance":
      continue
    rows = table if isinstance(table, list) else [table]
    with open(path / f"{stem}.csv", "w", errors="surrogatepass", newline="") as file:
      csv.writer(file).writerows(row if isinstance(row, list) else [row] for row in rows)
  origin = run["provenance"]
  if isinstance(origin, dict):
    made = [*folder.glob("*.csv"), *folder.glob("*/*.csv"), folder / "config.json"]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in made}
    origin = {**origin, "files": {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}}
  (folder / "provenance.json").write_text(json.dumps(origin))
  config = claims_configs.get_config("smoke")
  config.num_resamples = 99

  def judge():
    found = claims_runs.read(WANTED[name], folder)
    outcomes = claims._judge([found], {}, config.alpha)
    json.dumps([claims_page.to_json(*pair) for pair in outcomes], allow_nan=False)
    return claims_page.markdown([found], outcomes, 0.05)

  with np.errstate(all="ignore"):
    return outcome(judge)


@pytest.mark.parametrize("name", CLAIMS)
def test_sound_runs_are_collected(name, tmp_path):
  assert "# Claims" in collect(name, tmp_path, RUNS[name])


CELLS = st.one_of(SCALARS, SCALARS, st.lists(SCALARS, max_size=3), st.sampled_from((1e308, -1e308)))


@pytest.mark.parametrize("name", CLAIMS)
@fuzz(12)
@given(st.data())
def test_damaged_runs_are_refused_or_judged(name, tmp_path_factory, draw):
  folder = tmp_path_factory.mktemp("run")
  run = draw.draw(damaged(RUNS[name], CELLS))
  run = {stem: run.get(stem, []) for stem in RUNS[name]}
  text = collect(name, folder, run)
  if text is not None:
    text.encode()
    assert "<script" not in text


# --- Names in Markdown, pictures and files ---

_MARKDOWN = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _text_of(tokens):
  """Returns the text of inline tokens; there must be nothing else."""
  assert {token.type for token in tokens} <= {"text", "text_special"}, tokens
  return "".join(token.content for token in tokens)


def assert_plain(escaped, text):
  """Wherever it stands in Markdown, it is shown as it is, on one line."""
  shown = errors.one_line(text)
  for source in (escaped, f"# {escaped}", f"## Before {escaped} after", f"- {escaped}"):
    inline = [token for token in _MARKDOWN.parse(source) if token.type == "inline"]
    content = "".join(_text_of(token.children) for token in inline)
    assert content.removeprefix("Before ").removesuffix(" after") == shown
  assert not re.search(r"(?<!\\)(?:\\\\)*\$", escaped)  # where $ begins a formula


@fuzz(150)
@given(TEXT.filter(lambda text: text.strip() not in ("-", "+")))  # which is for tables
@example("1. a")
@example("a ##")
def test_escaped_text_is_shown_as_it_is(text):
  assert_plain(report.escape(text), text)
  report.escape(text).encode()


@fuzz(100)
@given(st.lists(TEXT, min_size=2, max_size=2))
def test_cells_stay_cells(cells):
  table = report.markdown_table([["a", "b"], cells])
  inline = [token for token in _MARKDOWN.parse(table) if token.type == "inline"]
  assert [_text_of(token.children) for token in inline[2:]] == [
    errors.one_line(cell) for cell in cells
  ]
  lines = report.text_table([["a", "b"], cells]).split("\n")
  assert len(lines) == 3
  assert all(line.isprintable() for line in lines)


@fuzz(100)
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_folders_of_worksheets_lie_in_the_workdir(files):
  names = check_worksheet._folder_names([f"{text}.toml" for text in files])
  assert len({name.casefold() for name in names}) == len(names)
  for name in names:
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,90}", name)
    assert name.strip(".")


def test_hostile_names_in_the_report_of_a_run(blobs):
  """Of classes, the dataset, the question and the command."""
  names = ("<script>alert(1)</script>|](javascript:x)", "../../etc/passwd\n$x$", "\u202e\x00\ud800")
  population = make_population(num_classes=3, class_names=names, arm_names=["a|b", "$x$"])
  dataset = replace(blobs, class_names=names, name=names[0])
  experiment = Experiment(" ".join(names), population.arms, margins={"test_accuracy": 0.01})
  origin = report.provenance(dataset, population)
  origin |= {"source": {"revision": names[0], "clean": None}, "total_seconds": 1.0}
  text = report.render(experiment, population, [], {**origin, "command": [*names]}, [], [])
  text.encode()
  for forbidden in ("<script", "\u202e", "\x00", "](javascript"):
    assert forbidden not in text.replace("\\](javascript", "")
  links = {t.type for token in _MARKDOWN.parse(text) for t in token.children or ()}
  assert not links & {"link_open", "html_inline", "image"}


def test_hostile_notes_and_provenance_in_the_ledger(tmp_path):
  hostile = "<script>alert(1)</script>\n\n# x $y$ | \ud800"
  origin = copy.deepcopy(PROVENANCE)
  origin["versions"]["jax"] = origin["source"]["revision"] = origin["finished"] = hostile
  origin["dataset"]["checksum"] = origin["device_count"] = hostile
  (name,) = ("compare_losses",)
  wanted = WANTED[name]
  members = pd.DataFrame({"seed": [0, 1]})
  run = Run(name, wanted.experiment, members, {})
  found = claims_runs.Found(wanted, run, tmp_path, origin)
  text = claims_page.markdown([found], [], 0.05, note=hostile)
  text.encode()
  assert "<script" not in text
  assert "\n# x" not in text


def test_hostile_names_in_pictures(tmp_path):
  names = [name for name in HOSTILE if name][:12]
  population = make_population(num_arms=len(names), arm_names=names, class_names=HOSTILE[:2])
  _, svg = figures.save(plots.metric_distribution(population, "test_accuracy"), tmp_path / "a")
  title = {**SHEET, "title": "".join(HOSTILE[:10])}
  title["claims"] = [{"of": "dz/dw", "value": "7 \u2003 x \v 10^2"}]
  checked = worksheet.check(to_toml(title))
  _, graph = figures.save(worksheet_plots.computation_graph(checked), tmp_path / "b")
  for file in (svg, graph):
    root = xml.etree.ElementTree.parse(file).getroot()
    assert not root.findall(".//{*}script")
    assert not root.findall(".//{*}a")
