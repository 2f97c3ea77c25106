"""One population over several devices, in one process and in two."""

import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from jax.experimental import multihost_utils

from experiments import compare_initializers
from jaxdl import experiment as experiment_lib
from jaxdl import report, stats
from jaxdl.cpu import matmul
from jaxdl.errors import InputError
from jaxdl.population import devices, hosts, plan
from jaxdl.population.devices import DeviceKind
from ml_collections_configs import compare_initializers as configs

# Three chunks, so that two processes train twice, the second time with a device to spare.
_SETTINGS = {
  "initializers": ("glorot_uniform", "random_normal"),
  "num_seeds": 3,
  "chunk_size": 1,
  "model": "mlp(16)",
  "num_epochs": 4,
  "num_resamples": 999,
}

# Two processes that agree on something again and again, until something happens to one of them.
_FATE = """
import os, signal, sys
from jaxdl.population import hosts
from jaxdl.store import interrupts

interrupts.install()
coordinator, place, event = sys.argv[1], int(sys.argv[2]), sys.argv[3]
hosts.join(coordinator, 2, place)
assert hosts._exchange(place).tolist() == [0, 1]
own = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
for kind in ("tcp", "tcp6"):
  for _, address, _, state, *_, inode in (line.split()[:10] for line in open(f"/proc/net/{kind}")):
    if state == "0A" and any(file.endswith(f"socket:[{inode}]") for file in own):  # it listens
      assert address.split(":")[0].endswith("0100007F"), address
if (event, place) == ("killed", 1):
  os.kill(os.getpid(), signal.SIGKILL)
if (event, place) == ("failed", 0):
  hosts.end(2)
try:
  with interrupts.interruptible():
    if (event, place) == ("stopped", 1):
      os.kill(os.getpid(), signal.SIGTERM)
    while True:
      hosts._exchange(0)
      interrupts.check()
except interrupts.Interrupted:
  hosts.end(interrupts.EXIT_STATUS)
except hosts.LostError as error:
  print("error:", error, file=sys.stderr)
  hosts.end(1, tell=False)
"""

# Chunks of one member each on three devices of one process: devices have different arms, the last
# round is not full, members stop at different epochs, and one chunk is there already.
_DEVICES = """
import itertools, pathlib, re, tempfile
from conftest import *
from jaxdl.population import local
from jaxdl.population import hosts
from jaxdl.population import plan
from jaxdl.population.devices import DeviceKind
from jaxdl.population.progress import Progress
from jaxdl.store.store import Store

def observe(recipe, variables, hyper, train, validation, test):
  return {"first": variables.params["Dense_0"]["bias"][:2]}

def execute(function, *arguments):
  progress = Progress()
  progress.start(8, 48)
  return function(blobs, *arguments, settings, groups, chunks, progress)

blobs, arm = blobs.__wrapped__(), mlp_arm.__wrapped__()
arm = replace(arm, model="mlp(256,256)", patience=1)
arms = {name: replace(arm, kernel_initializer=name) for name in ("glorot_uniform", "random_normal")}
settings = {"observe": observe, "keep_logits": True}
kind = DeviceKind("cpu", "cpu", None, kernels=KERNELS)
groups = plan.plan_groups(blobs, arms, range(4), 0, kind)
assert groups[0].layout.kernels == KERNELS
chunks = plan.all_chunks(groups)
assert [(c.num_seeds, c.num_arms) for c in chunks] == [(1, 1)] * 8

mesh = hosts.create_mesh()
assert mesh.size == 3
compiled = hosts.compile_on_mesh(groups[0], hosts.replicate_splits(blobs, mesh), mesh, observe)
for program in compiled[1:]:
  text = program.as_text()
  assert "num_partitions=3" in text
  found = re.findall("all-reduce|all-gather|all-to-all|collective|reduce-scatter|send|recv", text)
  assert not found, found

with local.here(blobs, jax.devices()[:1], None, settings) as train_here:
  one = train_here(groups, chunks, Progress()).results
each = one
if not KERNELS:
  with local.here(blobs, jax.devices()[:2], None, settings) as train_here:  # a worker for each
    each = train_here(groups, chunks, Progress()).results
store = Store(pathlib.Path(tempfile.mkdtemp(dir="FOLDER")))
store.commit_chunk(chunks[1].name, one[chunks[1]].to_arrays())
outcome = execute(hosts.train_across_hosts, store)
assert outcome.num_workers == 3
assert list(outcome.results) == chunks
assert len({int(result.num_epochs[0, 0]) for result in one.values()}) > 1
for chunk, others in itertools.product(chunks, (each, outcome.results)):
  expected, found = (results[chunk].to_arrays() for results in (one, others))
  assert expected.keys() == found.keys() > {"logits", "observations/first"}
  for name in expected.keys() - {"train_seconds"}:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
"""


def _environment(**extra):
  return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **extra}


@pytest.mark.parametrize("in_cpp", [False, True])
def test_devices_train_chunks_as_workers_do_and_never_talk(in_cpp, tmp_path):
  """The same bits as one worker gives, in lockstep and each by itself, and no collective.

  One would change no result, only have devices wait for each other; so the program has to be read.
  """
  if in_cpp and matmul.why_unavailable() is not None:
    pytest.skip(f"no layers in C++: {matmul.why_unavailable()}")
  script = _DEVICES.replace("FOLDER", str(tmp_path))
  script = script.replace("KERNELS", repr(devices.CPP if in_cpp else ""))
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3"
  result = subprocess.run(
    [sys.executable, "-c", script],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=_environment(XLA_FLAGS=flags, JAXDL_CPU_LAYERS=str(int(in_cpp))),
  )
  assert result.returncode == 0, result.stderr


def _run_two(folder, *command):
  """Runs two processes over loopback until both end.

  Args:
    folder: for the files of what they print.
    *command: the arguments of Python; in each, COORDINATOR and PLACE stand for what they say.

  Returns:
    The statuses and what they printed.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    coordinator = f"127.0.0.1:{free.getsockname()[1]}"
  processes, logs = [], [folder / f"process{place}.log" for place in (0, 1)]
  for place, log in enumerate(logs):
    mine = [a.replace("COORDINATOR", coordinator).replace("PLACE", str(place)) for a in command]
    with log.open("w", encoding="utf-8") as stream:
      processes.append(
        subprocess.Popen(
          [sys.executable, *mine], stdout=stream, stderr=stream, cwd=ROOT, env=_environment()
        )
      )
  try:
    statuses = [process.wait(timeout=300) for process in processes]
  finally:
    for process in processes:
      process.kill()
  return statuses, [log.read_text(encoding="utf-8") for log in logs]


def test_two_processes_leave_what_one_leaves(tmp_path):
  """Verdicts, members and curves, bit for bit; the first process alone reports."""
  run = tmp_path / "run"
  statuses, (first, second) = _run_two(
    tmp_path,
    *("-m", "experiments.compare_initializers", f"--workdir={run}"),
    f"--config={ROOT}/ml_collections_configs/compare_initializers.py:smoke",
    *(f"--config.{name}={value}" for name, value in _SETTINGS.items()),
    *("--executor=multihost", "--coordinator=COORDINATOR"),
    *("--num_processes=2", "--process_id=PLACE"),
  )
  assert statuses == [0, 0], first + second
  assert "Report: " in first
  assert "Report: " not in second
  assert json.loads((run / "provenance.json").read_text())["num_workers"] == 2

  config = configs.get_config("smoke")
  config.update(_SETTINGS)
  experiment = compare_initializers.create_experiment(config)
  dataset = experiment_lib.load_dataset(experiment)
  trained = experiment_lib.train_arms(experiment, dataset)
  verdicts = [stats.to_json(verdict) for verdict in experiment_lib.compare(experiment, trained)]
  assert json.loads((run / "verdicts.json").read_text()) == json.loads(json.dumps(verdicts))
  members = pd.read_csv(io.StringIO(report.members_table(trained).to_csv(index=False)))
  for expected, found in (
    (members.drop(columns="train_seconds"), pd.read_csv(run / "members.csv")),
    (report.curves_table(trained), pd.read_parquet(run / "curves.parquet")),
  ):
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_exact=True)


@pytest.mark.parametrize(
  ("event", "expected"), [("killed", [1, -9]), ("failed", [2, 1]), ("stopped", [1, 75])]
)
def test_what_happens_to_one_process_ends_the_others_with_a_line(tmp_path, event, expected):
  statuses, printed = _run_two(tmp_path, "-c", _FATE, "COORDINATOR", "PLACE", event)
  assert statuses == expected, printed
  text = printed[expected.index(1)]
  assert text.count("error: another process of this run has ended") == 1
  assert "Traceback" not in text
  assert "Terminating" not in text


def test_process_0_listens_where_it_is_told_to():
  with socket.create_server(("127.0.0.1", 0)) as taken:
    for host, port in (("192.0.2.1", 1), ("127.0.0.1", taken.getsockname()[1])):
      with pytest.raises(InputError, match=f"process 0 cannot listen at {host}:{port}, "):
        hosts.join(f"{host}:{port}", 2, 0)


def test_a_coordinator_that_is_not_there_is_one_line(monkeypatch):
  monkeypatch.setattr(hosts, "_JOIN_SECONDS", 0)
  with pytest.raises(InputError, match="process 0 cannot be reached at 127"):
    hosts.join("127.0.0.1:1", 2, 1)


def test_processes_notice_what_is_wrong(monkeypatch):
  """That one is about another run, has failed, or is gone."""

  def others_say(answer):
    monkeypatch.setattr(multihost_utils, "process_allgather", answer)

  others_say(lambda mine: np.stack([mine, mine]))
  hosts._check_same("another config", "text")
  others_say(lambda mine: np.stack([mine, mine + 1]))
  with pytest.raises(InputError, match="process 1 of this run has another config than process 0"):
    hosts._check_same("another config", "text")
  others_say(lambda mine: np.stack([mine, -np.ones_like(mine)]))
  with pytest.raises(hosts.LostError, match="has ended"):
    hosts._check_same("another config", "text")

  def fail(_):
    raise ValueError("connection reset by peer")

  others_say(fail)
  with pytest.raises(hosts.LostError, match="has ended"):
    hosts._check_same("another config", "text")


def test_identity_of_a_run_is_all_that_its_programs_depend_on(blobs, mlp_arm):
  cpu = DeviceKind("cpu", "cpu", None)

  def identity(dataset=blobs, root_seed=0, seeds=(0, 1), keep_logits=False, **settings):
    arms = {"a": replace(mlp_arm, **settings)}
    groups = plan.plan_groups(dataset, arms, seeds, root_seed, cpu)
    return hosts._identity(dataset, groups, {"keep_logits": keep_logits})

  images = blobs.test.inputs.copy()
  images[-1, -1, -1, -1] ^= 1
  others = [
    identity(root_seed=1),
    identity(seeds=(0, 2)),
    identity(keep_logits=True),
    identity(learning_rate=0.1),
    identity(model="mlp(8)"),
    identity(replace(blobs, test=replace(blobs.test, inputs=images))),
  ]
  assert identity() == identity()
  assert len({identity(), *others}) == 1 + len(others)
