"""One population over several devices, in one process and in two."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from jax.experimental import multihost_utils

from experiments import compare_initializers
from jaxdl import experiment as experiment_lib
from jaxdl import multihost, population, report, stats
from jaxdl.devices import DeviceKind
from jaxdl.errors import InputError
from ml_collections_configs import compare_initializers as configs

# Three chunks, so that two processes train twice, the second time long enough to be killed.
_SETTINGS = {
  "initializers": ("glorot_uniform", "random_normal"),
  "num_seeds": 3,
  "chunk_size": 1,
  "model": "mlp",
  "num_epochs": 400,
  "patience": -1,
  "num_resamples": 999,
}

# Chunks of one member each on three devices of one process: devices have different arms, the last
# round is not full, members stop at different epochs, and one chunk is there already.
_DEVICES = """
import pathlib, re, tempfile
from conftest import *
from jaxdl import executors, multihost, plan
from jaxdl.devices import DeviceKind
from jaxdl.progress import Progress
from jaxdl.store import Store

def observe(recipe, params, hyper, train, validation, test):
  return {"first": params["Dense_0"]["bias"][:2]}

def execute(function, *arguments):
  progress = Progress()
  progress.start(8, 48)
  return function(blobs, *arguments, settings, groups, chunks, progress)

blobs, arm = blobs.__wrapped__(), mlp_arm.__wrapped__()
arm = replace(arm, model="mlp(256,256)", patience=1)
arms = {name: replace(arm, kernel_initializer=name) for name in ("glorot_uniform", "random_normal")}
settings = {"observe": observe, "keep_logits": True}
groups = population.plan_population(blobs, arms, range(4), 0, DeviceKind("cpu", "cpu", None))
chunks = plan.all_chunks(groups)
assert [(c.num_seeds, c.num_arms) for c in chunks] == [(1, 1)] * 8

mesh = multihost.create_mesh()
assert mesh.size == 3
compiled = multihost.compile_on_mesh(groups[0], multihost.put_splits(blobs, mesh), mesh, observe)
for program in compiled[1:]:
  text = program.as_text()
  assert "num_partitions=3" in text
  found = re.findall("all-reduce|all-gather|all-to-all|collective|reduce-scatter|send|recv", text)
  assert not found, found

one = execute(executors.train_here, jax.devices()[:1], None).results
store = Store(pathlib.Path(tempfile.mkdtemp(dir="FOLDER")))
store.commit_chunk(chunks[1].name, one[chunks[1]].to_arrays())
outcome = execute(multihost.train_across_hosts, store)
assert outcome.num_workers == 3
assert list(outcome.results) == chunks
assert len({int(result.num_epochs[0, 0]) for result in one.values()}) > 1
for chunk in chunks:
  expected, found = (results[chunk].to_arrays() for results in (one, outcome.results))
  assert expected.keys() == found.keys() > {"logits", "observations/first"}
  for name in expected.keys() - {"train_seconds"}:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
"""


def _environment(**extra):
  return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **extra}


def test_devices_train_chunks_as_workers_do_and_never_talk(tmp_path):
  """No collective in any program, and the same bits as one worker gives."""
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3"
  result = subprocess.run(
    [sys.executable, "-c", _DEVICES.replace("FOLDER", str(tmp_path))],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=_environment(XLA_FLAGS=flags),
  )
  assert result.returncode == 0, result.stderr


def _start(folder):
  """Starts two processes over loopback; returns them and the files of what they print."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  arguments = [
    f"--config={ROOT}/ml_collections_configs/compare_initializers.py:smoke",
    f"--workdir={folder / 'run'}",
    *(f"--config.{name}={value}" for name, value in _SETTINGS.items()),
    *("--executor=multihost", f"--coordinator=127.0.0.1:{port}", "--num_processes=2"),
  ]
  command = [sys.executable, "-m", "experiments.compare_initializers", *arguments]
  processes, logs = [], [folder / f"process{place}.log" for place in (0, 1)]
  for place, log in enumerate(logs):
    with log.open("w", encoding="utf-8") as stream:
      mine = [*command, f"--process_id={place}"]
      processes.append(
        subprocess.Popen(mine, stdout=stream, stderr=stream, cwd=ROOT, env=_environment())
      )
  return processes, logs


def test_two_processes_share_one_fate_and_leave_what_one_leaves(tmp_path):
  """One is killed and the other ends; the same commands go on, to the bits of a single process."""
  run = tmp_path / "run"
  processes, logs = _start(tmp_path)
  while len(list(run.glob("run/chunks/g*.npz"))) < 2:
    assert [process.poll() for process in processes] == [None, None], logs[0].read_text()
    time.sleep(0.02)
  processes[1].kill()
  assert processes[0].wait(timeout=30) == 1
  (line,) = (line for line in logs[0].read_text().splitlines() if line.startswith("error: "))
  assert "another process of this run has ended" in line
  assert processes[1].wait() == -signal.SIGKILL
  assert not (run / "report.md").exists()

  processes, logs = _start(tmp_path)
  statuses = [process.wait() for process in processes]
  first, second = (log.read_text() for log in logs)
  assert statuses == [0, 0], first + second
  assert "2 of 3 chunks are done" in first
  assert "Report: " in first
  assert "Report: " not in second
  assert json.loads((run / "provenance.json").read_text())["num_workers"] == 2

  config = configs.get_config("smoke")
  config.update(_SETTINGS)
  experiment = compare_initializers.create_experiment(config)
  dataset = experiment_lib.load_dataset(experiment)
  trained = experiment_lib.train(experiment, dataset)
  verdicts = [stats.to_json(verdict) for verdict in experiment_lib.compare(experiment, trained)]
  assert json.loads((run / "verdicts.json").read_text()) == verdicts
  table = pd.read_csv(io.StringIO(report.members_table(trained).to_csv(index=False)))
  for expected, found in (
    (table, pd.read_csv(run / "members.csv")),
    (report.curves_table(trained), pd.read_parquet(run / "curves.parquet")),
  ):
    times = [name for name in expected if name == "train_seconds"]
    pd.testing.assert_frame_equal(found.drop(columns=times), expected.drop(columns=times))
    np.testing.assert_array_equal(found.train_loss, expected.train_loss)


def test_processes_notice_what_is_wrong(monkeypatch):
  """That one is about another run, has failed, or is gone."""

  def others_say(answer):
    monkeypatch.setattr(multihost_utils, "process_allgather", answer)

  others_say(lambda mine: np.stack([mine, mine]))
  multihost._check_same("another config", "text")
  others_say(lambda mine: np.stack([mine, mine + 1]))
  with pytest.raises(InputError, match="process 1 of this run has another config than process 0"):
    multihost._check_same("another config", "text")
  others_say(lambda mine: np.stack([mine, -np.ones_like(mine)]))
  with pytest.raises(multihost.LostError, match="has ended"):
    multihost._check_same("another config", "text")

  def fail(_):
    raise ValueError("connection reset by peer")

  others_say(fail)
  with pytest.raises(multihost.LostError, match="has ended"):
    multihost._check_same("another config", "text")


def test_identity_of_a_run_is_all_that_its_programs_depend_on(blobs, mlp_arm):
  cpu = DeviceKind("cpu", "cpu", None)

  def identity(dataset=blobs, root_seed=0, seeds=(0, 1), keep_logits=False, **settings):
    arms = {"a": replace(mlp_arm, **settings)}
    groups = population.plan_population(dataset, arms, seeds, root_seed, cpu)
    return multihost._identity(dataset, groups, {"keep_logits": keep_logits})

  images = blobs.test.images.copy()
  images[-1, -1, -1, -1] ^= 1
  others = [
    identity(root_seed=1),
    identity(seeds=(0, 2)),
    identity(keep_logits=True),
    identity(learning_rate=0.1),
    identity(model="mlp(8)"),
    identity(replace(blobs, test=replace(blobs.test, images=images))),
  ]
  assert identity() == identity()
  assert len({identity(), *others}) == 1 + len(others)
