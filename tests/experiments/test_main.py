"""The command `jaxdl`: which script it starts, with which arguments, and what it says itself."""

import inspect
import os
import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

import experiments.__main__ as command
from experiments import CONFIGS, check_gradients, check_worksheet, compare_scores, export, predict
from jaxdl.store import files

_CONFIG = f"--config={CONFIGS}"


@pytest.fixture
def say(monkeypatch, capsys):
  """Calls the command; returns its status, output and errors, and the script that it started."""

  def call(*arguments):
    started = []
    monkeypatch.setattr(sys, "argv", ["jaxdl", *arguments])
    monkeypatch.setattr(command, "_start", lambda script, rest: started.extend((script, *rest)))
    status = 0
    try:
      command.main()
    except SystemExit as error:
      status = error.code
    return status, *capsys.readouterr(), started

  return call


@pytest.mark.parametrize(
  ("arguments", "started"),
  [
    (
      ["run", "compare_losses:smoke", "--workdir=x"],
      ["compare_losses", f"{_CONFIG}/compare_losses.py:smoke", "--workdir=x"],
    ),
    (["run", "mnist_cnn"], ["mnist_cnn", f"{_CONFIG}/mnist_cnn.py"]),
    (["run", "mnist_cnn", "--config=my.py"], ["mnist_cnn", "--config=my.py"]),
    (["run", "mnist_cnn", "--config", "my.py"], ["mnist_cnn", "--config", "my.py"]),
    (["compare", "my.py:b", "--overwrite"], ["compare", "--config=my.py:b", "--overwrite"]),
    (["compare", "--config=my.py"], ["compare", "--config=my.py"]),
    (["tune", "my.py"], ["tune", "--config=my.py"]),
    (["tune", "textbook:a", "--workdir=x"], ["tune", f"{_CONFIG}/textbook.py:a", "--workdir=x"]),
    (["check", "a.toml", "--answers"], ["check_worksheet", "a.toml", "--answers"]),
    (["predict", "--workdir=x"], ["predict", "--workdir=x"]),
    (["scores"], ["compare_scores"]),
    (["gradients", "--module=a.py"], ["check_gradients", "--module=a.py"]),
    (
      ["demo", "--overwrite"],
      [
        "compare_initializers",
        f"{_CONFIG}/compare_initializers.py:digits",
        *("--workdir=runs/demo", "--overwrite"),
      ],
    ),
  ],
)
def test_a_command_starts_a_script(say, arguments, started):
  assert say(*arguments) == (0, "", "", started)
  assert (ROOT / "experiments" / f"{started[0]}.py").is_file()


@pytest.mark.parametrize(
  ("arguments", "error"),
  [
    (["rum"], "unknown command 'rum'; did you mean 'run'?"),
    (["run"], "jaxdl run needs an experiment, one of benchmark, "),
    (["run", "--workdir=x"], "jaxdl run needs an experiment, one of benchmark, "),
    (
      ["run", "compare_loses"],
      "unknown experiment 'compare_loses'; did you mean 'compare_losses'?",
    ),
    (["run", "compare:wine", "--config=my.py"], "give either the variant 'wine' or --config"),
    (["list", "models"], "jaxdl list takes no 'models'"),
    (["help", "chek"], "unknown command or experiment 'chek'; did you mean 'check'?"),
  ],
)
def test_a_mistake_gets_one_line_and_status_2(say, arguments, error):
  status, out, err, started = say(*arguments)
  assert (status, out, started) == (2, "", [])
  assert err.startswith(f"error: {error}")
  assert err.count("\n") == 1


def test_help_has_every_command_and_each_has_help(say):
  _, text, *_ = say("help")
  assert say()[1] == say("--help")[1] == text
  for name in command._COMMANDS:
    assert f"jaxdl {name}" in text
    status, own, err, _ = say("help", name)
    assert (status, err) == (0, "")
    assert own.strip()
  assert "VARIANT" in say("help", "gradient_flow")[1]
  # A command and its config have one name: both are explained.
  assert "jaxdl compare FILE" in say("help", "compare")[1]
  assert "wine" in say("help", "compare")[1]


def test_a_reader_that_has_seen_enough_ends_it_silently():
  reader, writer = os.pipe()
  os.close(reader)
  run = [sys.executable, "-m", "experiments", "help"]
  result = subprocess.run(run, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
  os.close(writer)
  assert (result.returncode, result.stderr) == (1, b"")


def test_the_list_has_every_experiment_and_its_variants(say):
  status, text, err, _ = say("list")
  assert (status, err) == (0, "")
  for file in CONFIGS.glob("*.py"):
    config = runpy.run_path(str(file))
    (variants,) = re.findall(rf"^  {file.stem}: \S.*\n((?:    .*\n)+)", text, re.MULTILINE)
    names = variants.replace(",", " ").split()
    assert tuple(names) == config["VARIANTS"]
    # The first one is the default, as the list says.
    (default,) = inspect.signature(config["get_config"]).parameters.values()
    assert default.default == names[0]
  for line in ("Models: cifar_mlp, ", "Optimizers: adagrad, adam, ", "Datasets: digits, "):
    assert line in text


def test_a_worksheet_is_a_file_or_the_name_of_an_example():
  examples = ROOT / "experiments" / "worksheets"
  assert check_worksheet._find("softmax") == str(examples / "softmax.toml")
  for file in ("softmax.toml", "./softmax", "a/b", "/x.toml"):
    assert check_worksheet._find(file) == file
  with pytest.raises(check_worksheet.InputError, match="did you mean 'softmax'"):
    check_worksheet._find("sotfmax")


@pytest.mark.parametrize(
  ("given", "expanded"),
  [
    ("~/x", "/home/me/x"),
    ("./~/x", "~/x"),
    ("a/~", "a/~"),
    ("/~/x", "/~/x"),
    ("~/~", "/home/me/~"),
  ],
)
def test_a_home_is_expanded_once(monkeypatch, given, expanded):
  monkeypatch.setenv("HOME", "/home/me")
  path = files.expand_home(given)
  assert str(path) == expanded


@pytest.mark.parametrize(
  ("main", "arguments"),
  [
    (predict.main, ["--workdir=~/none", "--inputs=~/a.png"]),
    (export.main, ["--workdir=~/none", "--out=~/out"]),
    (check_gradients.main, ["--module=~/none/my.py", "--workdir=~/new"]),
    (
      compare_scores.main,
      [
        *("--scores=~/none/a.csv", "--metric=m", "--arm=a", "--seed=s", "--margin=1"),
        "--workdir=~/new",
      ],
    ),
  ],
)
def test_every_script_finds_a_home(monkeypatch, tmp_path, capsys, main, arguments):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert main(["script", *arguments]) == 2
  assert f"{tmp_path}/none" in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []
