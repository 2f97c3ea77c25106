"""The check for a GPU: its parts, in small, on a CPU."""

import argparse
import functools
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from experiments import gpu_check, workloads
from experiments.gpu_parts import agreement, networks, populations, profile, timing
from experiments.gpu_parts.part import Part
from jaxdl.nn.networks import ResNet
from jaxdl.population import devices, plan
from ml_collections_configs import benchmark


@pytest.fixture
def part(tmp_path):
  options = argparse.Namespace(
    device="cpu", scale="tiny", seconds=60.0, data=None, out=str(tmp_path / "lines")
  )
  return Part("tested", options)


def _records(part):
  with open(part.options.out, encoding="utf-8") as lines:
    return [json.loads(line) for line in lines]


def test_a_part_is_run_and_its_results_are_written(tmp_path, capsys):
  """The machine's part, in a process of its own."""
  arguments = ["--device=cpu", "--scale=tiny", "--parts=machine", f"--out={tmp_path}"]
  assert gpu_check.main(arguments) == 0
  found = json.loads((tmp_path / "gpu_check.json").read_text())
  machine = found["parts"]["machine"]
  assert machine["status"] == "done"
  assert machine["tables"]["versions"][0]["jax"].startswith(jax.__version__)
  assert {row["precision"] for row in machine["tables"]["matrix products"]} == {*timing.PRECISIONS}
  text = (tmp_path / "gpu_check.md").read_text()
  assert "## machine: done" in text
  assert "| python | jax |" in capsys.readouterr().out


def test_what_a_part_wrote_before_it_was_killed_is_there(tmp_path, monkeypatch):
  """And the next part starts; a half-written line is no line."""
  options = argparse.Namespace(
    device="cpu", scale="tiny", seconds=60.0, data=None, out=str(tmp_path)
  )
  script = tmp_path / "script.py"
  script.write_text(
    "import sys, time\n"
    "name, out = sys.argv[1:]\n"
    'row = \'{"part": "%s", "table": "t", "row": {"x": 1.5}}\'\n'
    "with open(out, 'a') as file: file.write(row % name + '\\n{\"part\": ')\n"
    "if name == 'first': time.sleep(60)\n"
    "if name == 'second': raise ValueError('it is broken')\n"
  )
  monkeypatch.setattr(gpu_check, "PARTS", {"first": 5.0, "second": 9.0, "third": 9.0})
  run = gpu_check._run

  def run_script(command, log, limit, environment):
    command = [sys.executable, str(script), command[3], command[6].removeprefix("--out=")]
    return run(command, log, 0.7 if command[2] == "first" else limit, environment)

  monkeypatch.setattr(gpu_check, "_run", run_script)
  assert gpu_check.Check(options, ["first", "second", "third"]).run() == 1
  parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
  assert [part["status"] for part in parts.values()] == [
    "stopped after 10 s",
    "failed: ValueError: it is broken",
    "done",
  ]
  assert parts["first"]["tables"] == {"t": [{"x": 1.5}]}


def test_a_process_and_what_it_started_end_at_the_limit(tmp_path):
  code = (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1.5); "
    f'open(r"{tmp_path}/late", "w")\'])\n'
    "time.sleep(60)\n"
  )
  with (tmp_path / "log").open("w") as log:
    assert gpu_check._run([sys.executable, "-c", code], log, 0.5, {}) is None
  time.sleep(1.5)
  assert not (tmp_path / "late").exists()


def test_bad_arguments_are_one_line(tmp_path, capsys):
  for arguments, message in (
    (["--scale=full"], "--scale=full needs the file that --pack makes"),
    (["--scale=tiny", "--parts=machine,nothing"], "unknown part 'nothing'; known: machine, "),
  ):
    with pytest.raises(SystemExit) as error:
      gpu_check.main([*arguments, f"--out={tmp_path}"])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_the_table_says_what_holds():
  checks = [
    {"check": "a | b", "value": 20.5, "holds": True},
    {"check": "c", "value": "none", "holds": None},
  ]
  part = {"status": "done", "seconds": 3.2, "tables": {}, "checks": checks}
  text = gpu_check.markdown({"date": "today", "missing": ["torch"], "parts": {"p": part}})
  assert "| a \\| b | yes | 20.5 |" in text
  assert "| c | not measured | none |" in text
  assert "Missing: torch." in text


@pytest.mark.parametrize("name", ["cnn_binary", "mlp_minibatch", "cifar_mlp"])
def test_workloads_are_those_of_the_benchmark(name):
  """A second definition of the operations, and the settings."""
  config, workload = benchmark.get_config().workloads[name], networks.WORKLOADS[name]
  shape = (32, 32, 3) if workload.data == "cifar10" else (28, 28, 1)
  layers = workloads.layers(config, 2 if workload.data == "two" else 10)
  assert workload.flops == workloads.training_flops(layers, shape)
  for setting in ("model", "batch_size", "loss", "optimizer", "learning_rate"):
    assert getattr(workload.arm, setting) == config[setting]


def test_xla_s_convolutions_are_the_same_network():
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  products, native = ResNet(depth=8, width=2), networks.NativeResNet(depth=8, width=2)
  variables = jax.jit(products.init)(jax.random.key(1), x)
  # A layer's name is that of its class.
  params = {name.replace("Conv", "XlaConv"): of for name, of in variables["params"].items()}
  found = jax.jit(native.apply)({**variables, "params": params}, x)
  np.testing.assert_allclose(found, jax.jit(products.apply)(variables, x), rtol=1e-4)


def test_time_goes_somewhere(tmp_path):
  """The shares of a profile add up to one."""
  x = jnp.ones((300, 300))
  function = jax.jit(lambda x: jnp.sin(x @ x).sum())
  jax.block_until_ready(function(x))
  with jax.profiler.trace(str(tmp_path)):
    jax.block_until_ready(function(x))
  found = profile.where_time_goes(str(tmp_path))
  assert 0 < sum(share for _, share, _ in found) <= 1 + 1e-9
  assert all(share >= 0 for _, share, _ in found)


def test_differences_between_two_trials(part):
  def of(loss, hash_):
    return {"net": {"loss": [[[loss, 1.0]]], "accuracy": [[0.5]], "hash": hash_}}

  found = {"float32": of(2.002, "b"), "float32, again": of(2.002, "b"), "CPU": of(2.0, "a")}
  for name in found:
    agreement._say_trial(part, name, found)
  agreement._compare_with_cpu(part, found)
  records = _records(part)
  rows = [r["row"] for r in records if r.get("table") == "against the CPU"]
  assert [row["loss_off_first_epoch"] for row in rows] == pytest.approx([1e-3, 1e-3])
  assert [r["row"]["bits"] for r in records if r.get("table") == "trials"] == ["b", "b", "a"]
  checks = {record["check"]: record["holds"] for record in records if "check" in record}
  assert checks == {
    "net: a second run gives the same bits": True,
    "net: the loss of the first epoch is the CPU's within 0.2%, in float32": True,
  }


def test_operations_repeat_their_bits_on_a_cpu(part):
  agreement._find_varying_operations(part)
  rows = [record["row"] for record in _records(part)]
  assert [row["different_results"] for row in rows] == [1] * len(rows)


def test_the_shell_script_finds_a_python_and_passes_arguments_on(tmp_path):
  script = str(ROOT / "tools" / "gpu_check.sh")
  environment = {**os.environ, "PYTHON": sys.executable}
  arguments = ["--device=cpu", "--scale=tiny", f"--packages={tmp_path}", "--parts=nothing"]
  run = functools.partial(subprocess.run, capture_output=True, text=True)
  result = run([script, *arguments], env=environment)
  assert result.returncode == 2
  assert "unknown part 'nothing'" in result.stderr


@pytest.mark.parametrize("name", ["cnn_binary", "resnet8"])
def test_ways_to_convolve_are_the_same_network(name, part):
  """They are planned, as for training, and have the same parameters."""
  jobs = list(populations._convolutions(name, 2))
  assert [job.width for job in jobs] == [1, 2, 1, 2]
  dataset, kind = part.examples(name), devices.DeviceKind("gpu", "a GPU", 2**33)
  groups = [plan.plan_groups(dataset, {"a": job.arm}, range(2), 0, kind)[0] for job in jobs[::2]]
  assert groups[0].recipe != groups[1].recipe
  assert groups[0].num_params == groups[1].num_params
