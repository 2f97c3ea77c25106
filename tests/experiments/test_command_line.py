"""The command line as a user meets it: a smoke run, and every kind of mistake."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

from experiments import command_line, compare, compare_initializers, from_config
from jaxdl.arm import Arm
from jaxdl.errors import InputError

_CONFIG = "ml_collections_configs/compare_initializers.py"
_SCRIPT = "experiments.compare_initializers"

_SMOKE = f"--config={_CONFIG}:smoke"
_SECOND_OF_TWO = (
  *(_SMOKE, "--executor=multihost", "--coordinator=host:1234"),
  *("--num_processes=2", "--process_id=1"),
)
# Arguments, apart from --workdir, and what the line on standard error has to say.
_MISTAKES = [
  ([_SMOKE, "--config.nun_seeds=3"], "unknown config key 'nun_seeds'; did you mean 'num_seeds'?"),
  ([_SMOKE, "--config.num-seeds=3"], "unknown config key 'num-seeds'; did you mean 'num_seeds'?"),
  ([_SMOKE, "--config.margins.test_acc=1"], "did you mean 'margins.test_accuracy'?"),
  ([_SMOKE, "--config.num_seeds=many"], "--config.num_seeds=many: invalid literal for int()"),
  ([_SMOKE, "--config.num_epochs.x=3"], "config key 'num_epochs' is a value and has no key 'x'"),
  ([_SMOKE, "--config.l3=1"], "unknown config key 'l3'; did you mean 'l2'?"),
  ([_SMOKE, "--config.l2=-1"], "l2 must be a finite number >= 0, not -1.0"),
  ([_SMOKE, "--config.schedule=cosin"], "unknown schedule 'cosin'; did you mean 'cosine'?"),
  ([_SMOKE, "--config.weight_decay=x"], "weight_decay must be a finite number >= 0, not 'x'"),
  ([_SMOKE, "--config.num_train=-1"], "num_train must be an integer >= 1, not -1"),
  ([_SMOKE, "--config.margins=3"], "--config.margins=3: "),
  ([_SMOKE, "--config.classes[0]=3"], "a value cannot be set in the config: IndexError: "),
  (
    [_SMOKE, "--config.kernel_initializer=he_normal"],
    "config key 'kernel_initializer' has no effect: every arm has a value of its own",
  ),
  ([_SMOKE, "--config.num_seeds=0"], "num_seeds must be an integer >= 1, not 0"),
  ([_SMOKE, "--config.chunk_size=-1"], "chunk_size must be an integer >= 1, not -1"),
  ([_SMOKE, "--config.num_resamples=10", "--config.num_seeds=40"], "give at least 60"),
  ([_SMOKE, "--config.learning_rate=-1"], "learning_rate must be a finite number > 0, not -1.0"),
  ([_SMOKE, "--config.patience=-2"], "patience must be an integer >= 0, not -2"),
  ([_SMOKE, "--config.validation_fraction=1.5"], "1.5"),
  ([_SMOKE, "--config.alpha=2.0"], "alpha must be between 0 and 0.5, not 2.0"),
  ([_SMOKE, "--config.model=cnn_binry"], "did you mean 'cnn_binary'?"),
  ([_SMOKE, "--config.initializers=he_normal/zero"], "did you mean 'zeros'?"),
  ([_SMOKE, "--config.initializers=he_normal,he_normal"], "'he_normal' is named twice"),
  ([_SMOKE, "--config.initializers=()"], "there is no arm"),
  ([_SMOKE, "--config.classes=(3,77)"], "digits has no class 77"),
  ([_SMOKE, "--config.classes=()"], "tells 2 classes apart, the dataset has 10"),
  (
    [_SMOKE, "--config.dataset=fashion_mnits", "--data_dir=nowhere"],
    "did you mean 'fashion_mnist'",
  ),
  ([_SMOKE, "--config.dataset=fashion_mnist", "--data_dir=nowhere"], "is not prepared in"),
  ([f"--config={_CONFIG}:smok"], "unknown variant 'smok'; did you mean 'smoke'?"),
  (["--config", f"{_CONFIG}:smoke", "--config.nun_seeds=3"], "did you mean 'num_seeds'?"),
  (["--config=no/such/file.py"], "cannot read the config file 'no/such/file.py'"),
  (
    ["--config=tests/own_parts.py"],
    "the config file 'tests/own_parts.py' has no function get_conf",
  ),
  ([], "--config is missing"),
  ([_SMOKE, "--wrokdir=x"], "Unknown command line flag 'wrokdir'. Did you mean: workdir ?"),
  ([_SMOKE, "num_seeds=3"], "unknown argument 'num_seeds=3'"),
  ([_SMOKE, "--process_id=0"], "--process_id needs --executor=multihost"),
  ([_SMOKE, "--executor=multihost"], "--executor=multihost needs --coordinator"),
  ([*_SECOND_OF_TWO, "--coordinator=host"], "--coordinator must be HOST:PORT, not 'host'"),
  ([*_SECOND_OF_TWO, "--coordinator=host:65536"], "must be HOST:PORT, not 'host:65536'"),
  ([*_SECOND_OF_TWO, "--process_id=2"], "--process_id must be less than --num_processes=2"),
  ([*_SECOND_OF_TWO, "--partial"], "--partial trains nothing"),
  ([*_SECOND_OF_TWO, "--checkpoint_every=1"], "--executor=multihost saves no checkpoints"),
]


@pytest.fixture
def read(monkeypatch):
  """Reads a config with arguments of the command line, for a script."""

  def call(script, file, *arguments):
    optional = {} if script is None else from_config.optional_keys(script.arm_keys_below)
    parser = command_line._PARSER
    monkeypatch.setattr(parser, "optional", optional)
    monkeypatch.setattr(parser, "arguments", ["script", *arguments])
    return parser.parse(str(file))

  return call


def test_every_setting_that_a_config_does_not_list_has_room(read, tmp_path):
  """In the config or, where it has them, in a base and in each arm, with the default."""
  (file := tmp_path / "few.py").write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config():\n"
    "  return ConfigDict({'base': {}, 'arms': {'a': {}, 'b/c': {}}, 'margins': {'f1': 1.0}})\n"
  )
  fields = [field for field in dataclasses.fields(Arm) if field.default is not None]
  for field in fields:
    config = read(compare_initializers.SCRIPT, file, f"--config.{field.name}=1")
    assert config[field.name] == field.default
    base = read(compare.SCRIPT, file, f"--config.base.{field.name}", "1").base
    one = read(compare.SCRIPT, file, f"--config.arms.a.{field.name}=1").arms.a
    assert base.to_dict() == one.to_dict() == {field.name: field.default}
  arms = read(compare.SCRIPT, file, '--config.arms["b/c"].l2=1').arms
  assert arms.to_dict() == {"a": {}, "b/c": {"l2": 0.0}}
  config = read(
    compare_initializers.SCRIPT, file, "--noconfig.restore_best", "--config.num_train=3"
  )
  assert config.restore_best is False
  assert config.num_train is None
  assert config.is_locked


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("base.l3=1", "unknown config key 'base.l3'; did you mean 'base.l2'?"),
    ("arms.b.l2=1", "unknown config key 'arms.b'"),
    ("margins.l2=1", "unknown config key 'margins.l2'"),
    ("base.l2.x=1", "config key 'base.l2' is a value and has no key 'x'"),
    ("question.x=1", "config key 'question' is a value and has no key 'x'"),
    ("arms.lion.batch-size=1", "did you mean 'arms.lion.batch_size'"),
  ],
)
def test_keys_below_have_nearest_names(read, argument, message):
  file = ROOT / "ml_collections_configs" / "compare.py"
  extra = ["--config.base.l2=1"] if "base.l2.x" in argument else []
  with pytest.raises(InputError, match=re.escape(message)):
    read(compare.SCRIPT, file, *extra, f"--config.{argument}")


def test_a_config_that_is_read_by_nothing_else_takes_no_further_keys(read):
  """Programs other than experiments have no arms."""
  with pytest.raises(InputError, match="unknown config key 'l2'"):
    read(None, ROOT / "ml_collections_configs" / "measure_scaling.py", "--config.l2=1")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
  """The folder that every mistake wants to write to."""
  return tmp_path_factory.mktemp("mistakes") / "run"


@pytest.mark.parametrize(("arguments", "expected"), _MISTAKES, ids=[m[:30] for _, m in _MISTAKES])
def test_a_mistake_gets_one_line_and_status_2(run_module, wanted, arguments, expected):
  result = run_module(_SCRIPT, *arguments, f"--workdir={wanted}")
  assert result.returncode == 2, result.stderr
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert "Traceback" not in result.stderr
  assert expected in result.stderr
  assert not wanted.exists()


def test_help_has_the_docstring_and_the_flags(run_module):
  result = run_module(_SCRIPT, "--help")
  assert (result.returncode, result.stderr) == (0, "")
  for text in ("Does the weight initializer matter?", "--config.KEY=VALUE", "--[no]tensorboard: "):
    assert text in result.stdout


def test_paths_that_are_none(tmp_path, run_module):
  """A pipe is not read, which might never end; and what is a home is not a folder called `~`."""
  pipe = tmp_path / "pipe"
  os.mkfifo(pipe)
  no_file = f"error: cannot read the config file '{pipe}': it is not a regular file\n"
  home = os.path.expanduser("~")
  for arguments, expected in (
    ([f"--config={pipe}", f"--workdir={tmp_path}"], no_file),
    ([f"--config={pipe}:smoke", f"--workdir={tmp_path}"], no_file),
    ([_SMOKE, "--workdir="], "error: --workdir is empty\n"),
    ([_SMOKE, f"--workdir={pipe}"], f"error: cannot write to workdir '{pipe}': File exists\n"),
    (
      ["--config=~/no/such.py", f"--workdir={tmp_path}"],
      f"error: cannot read the config file '{home}/no/such.py'\n",
    ),
  ):
    result = run_module(_SCRIPT, *arguments)
    assert (result.returncode, result.stderr) == (2, expected)
  assert list(tmp_path.iterdir()) == [pipe]


def test_a_home_is_expanded_in_paths_only():
  home = os.path.expanduser("~")
  for name in ("config", "workdir", "data_dir", "scheduler_file"):
    assert command_line._expand_home(f"--{name}=~/x") == f"--{name}={home}/x"
  for other in ("--workdir=./~", "--config.dataset=~", "~/x", "--workdir"):
    assert command_line._expand_home(other) == other


def test_smoke_run(tmp_path, run_module):
  """From the command to the verdicts, in another directory; then again into the same workdir."""
  workdir = tmp_path / "run"
  arguments = (
    f"--config={ROOT / _CONFIG}:smoke",
    f"--workdir={workdir}",
    "--config.initializers=he_normal/zeros,random_normal(0.1)",
  )
  result = subprocess.run(
    [sys.executable, "-m", _SCRIPT, *arguments],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
  )
  assert result.returncode == 0, result.stderr
  assert "No claim can be made from so few seeds" in result.stdout
  assert f"Report: {workdir / 'report.html'}" in result.stdout
  log = [line for line in result.stderr.splitlines() if line]
  # Chunks of one member, two epochs each, and nothing else.
  assert all(re.match(r"chunk [1-4]/4, epoch [12]/2: [0-4]/4 members done", line) for line in log)
  assert "4/4 members done" in log[-1]

  members = pd.read_csv(workdir / "members.csv")
  assert len(members) == 4
  assert (members.num_params == 20_417).all()
  assert (members[["tn", "fp", "fn", "tp"]].sum(axis=1) == 89).all()
  config = json.loads((workdir / "config.json").read_text())
  assert config["arms"]["he_normal/zeros"]["bias_initializer"] == "zeros"
  assert config["arms"]["random_normal(0.1)"]["bias_initializer"] == "random_normal(0.1)"

  first = (workdir / "verdicts.json").read_bytes()
  again = run_module(_SCRIPT, *arguments)
  assert again.returncode == 0, again.stderr
  assert (workdir / "verdicts.json").read_bytes() == first
  refused = run_module(_SCRIPT, *arguments, "--config.seed=1")
  assert refused.returncode == 2
  assert "holds a run of another config (seed: 0 there, 1 now)" in refused.stderr


def test_damaged_dataset_is_named(tmp_path, tfds_dir, run_module):
  """A truncated record file: refused, by name, with nothing left behind."""
  source = tfds_dir / "mnist" / "3.0.1"
  copy = tmp_path / "tfds" / "mnist" / "3.0.1"
  copy.mkdir(parents=True)
  for file in source.iterdir():
    content = file.read_bytes()
    damaged = "test.array_record" in file.name
    (copy / file.name).write_bytes(content[: len(content) // 2] if damaged else content)
  flags = f"--config={_CONFIG}:mnist", f"--workdir={tmp_path / 'run'}"
  result = run_module(_SCRIPT, *flags, f"--data_dir={tmp_path / 'tfds'}")
  assert result.returncode == 2
  assert result.stderr.count("\n") == 1
  assert "mnist-test.array_record-00000-of-00001" in result.stderr
  assert not (tmp_path / "run").exists()


def test_the_coursework_s_numbers_add_up():
  from experiments.compare_initializers import COURSEWORK

  for matrix in COURSEWORK.values():
    assert [sum(row) for row in matrix] == [1010, 1028]


def test_mnist_config_is_the_coursework_s_setting(tfds_dir):
  """Sizes of the real data: 12,396 training images, 9,916 after the split, 2,038 test images."""
  from jaxdl import experiment as experiment_lib
  from ml_collections_configs import compare_initializers as configs

  experiment = compare_initializers.create_experiment(configs.get_config())
  dataset = experiment_lib.load_dataset(experiment, tfds_dir)
  assert len(dataset.train) + len(dataset.validation) == 12_396
  assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (9_916, 2_480, 2_038)
  assert [(dataset.test.targets == c).sum() for c in (0, 1)] == [1010, 1028]
  assert dataset.class_names == ("3", "7")
  assert experiment.num_seeds == 16
  for name, arm in experiment.arms.items():
    assert (arm.kernel_initializer, arm.bias_initializer) == (name, name)
    assert (arm.batch_size, arm.num_epochs, arm.patience) == (512, 20, 4)
    assert (arm.threshold, arm.optimizer, arm.learning_rate) == (0.9, "adam", 0.001)


def test_matplotlib_does_not_announce_its_new_list_of_fonts(tmp_path):
  code = """
from experiments import command_line

def draw(_):
  from jaxdl.report import figures

command_line.main(draw)
"""
  config = "ml_collections_configs/compare_initializers.py:smoke"
  result = subprocess.run(
    [sys.executable, "-c", code, f"--config={config}", f"--workdir={tmp_path}"],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, "MPLCONFIGDIR": str(tmp_path)},
    check=True,
  )
  assert list(tmp_path.glob("fontlist*.json"))
  assert "fontManager" not in result.stderr
