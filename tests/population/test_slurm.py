"""The commands of docs/scaling.md under SLURM, against the same run in one process.

A cluster of two nodes on this machine is set up for these tests and ended afterwards, which takes
root and Debian's packages slurm-wlm and munge: `make test-slurm`.
"""

import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
import slurm
from conftest import ROOT, SHORT_RUN, hashes

pytestmark = [
  pytest.mark.skipif("JAXDL_SLURM_TESTS" not in os.environ, reason="make test-slurm"),
  pytest.mark.skipif(not slurm.is_installed(), reason="no SLURM, or not root"),
]


@pytest.fixture(scope="module")
def cluster():
  with slurm.cluster() as running:
    yield running


def _script(*command, then=""):
  return f"#!/bin/sh\ncd {shlex.quote(str(ROOT))}\n{shlex.join(map(str, command))}\n{then}\n"


def _wait_until(condition, seconds=120):
  last = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < last
    time.sleep(0.05)


def _begun(workdir):
  return list(workdir.glob("run/checkpoints/*/[0-9]*"))


def _requeue(cluster, task):
  cluster.run("scontrol", "requeue", task)
  _begin_again(cluster, task)


def _begin_again(cluster, task):
  """Lets a task begin at once that was put into the queue again, instead of after two minutes."""
  _wait_until(lambda: cluster.restarts(task) and cluster.states(task) == {task: "PENDING"})
  time.sleep(2)  # at once, SLURM 22.05 may forget that it is to begin again
  cluster.run("scontrol", "update", f"JobId={task}", "StartTime=now")


def _kill(*arguments):
  """Kills the processes of Python that have such arguments: scancel asks them to stop first."""
  for process in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      command = (process / "cmdline").read_bytes().decode()
      if "python" in command.partition("\0")[0] and all(one in command for one in arguments):
        os.kill(int(process.name), signal.SIGKILL)


def _is_reachable(host, port):
  try:
    socket.create_connection((host, port), timeout=5).close()
  except OSError:
    return False
  return True


def test_workers_and_the_run_itself_are_put_into_the_queue_again(cluster, finished, tmp_path):
  """A scheduler, two workers and the run are jobs. The run is requeued, with 75, then a worker."""
  file, workdir = tmp_path / "scheduler.json", tmp_path / "run"
  dask = (sys.executable, "-m", "dask")
  network = ("--host=127.0.0.1", "--no-dashboard")
  scheduler = (*dask, "scheduler", f"--scheduler-file={file}", *network, "--port=0")
  worker = (*dask, "worker", f"--scheduler-file={file}", *network, "--nthreads=1")
  worker += (f"--local-directory={tmp_path}", "--death-timeout=60")
  cluster.submit(_script(*scheduler))
  _wait_until(file.exists)
  workers = cluster.submit(_script(*worker), "--array=0-1", "--requeue")
  flags = (f"--workdir={workdir}", "--executor=dask", f"--scheduler_file={file}")
  run = cluster.submit(_script("exec", *SHORT_RUN, *flags), "--requeue")
  _wait_until(lambda: _begun(workdir))
  cluster.run("scancel", "--signal=TERM", "--batch", run)
  _begin_again(cluster, run)
  _requeue(cluster, f"{workers}_0")
  cluster.wait(run)
  assert "interrupted by SIGTERM; run the same command again to continue" in cluster.output(run)
  assert hashes(workdir) == hashes(finished)
  port = int(file.read_text().partition("tcp://127.0.0.1:")[2].partition('"')[0])
  assert _is_reachable("127.0.0.1", port)
  assert not _is_reachable("127.0.0.2", port)  # as it would be if it listened on all addresses
  cluster.run("scancel", "--me", check=False)


def _array_script(workdir):
  """Returns the script of docs/scaling.md, for three tasks of the short run."""
  text = (ROOT / "docs" / "scaling.md").read_text()
  script = next(part for part in text.split("```") if "#SBATCH --array" in part)
  command = f"{shlex.join(SHORT_RUN)} --workdir={shlex.quote(str(workdir))}"
  start = script.index("python -m experiments")
  end = script.index(" \\\n", start)
  script = script[:start] + command + script[end:]
  script = script.removeprefix("sh\n").replace("--count=64", "--count=3")
  return script.replace(" --gpus=1 --cpus-per-task=4", f" --chdir={ROOT}")


def test_an_array_of_tasks(cluster, finished, tmp_path):
  """One of three tasks is killed, another is asked to stop and put into the queue again."""
  workdir = tmp_path / "run"
  job = cluster.submit(_array_script(workdir), "--array=0-2")
  _wait_until(lambda: _begun(workdir))
  _kill("--index=0", str(workdir))
  cluster.run("scancel", "--signal=TERM", "--batch", f"{job}_1")
  _begin_again(cluster, f"{job}_1")
  over = {"COMPLETED", "FAILED", "CANCELLED"}
  _wait_until(lambda: set(cluster.states(job).values()) <= over)
  states = cluster.states(job)
  assert states[f"{job}_0"] == "FAILED"
  assert [states[f"{job}_{i}"] for i in (1, 2)] == ["COMPLETED"] * 2, cluster.output(job)
  assert hashes(workdir) == hashes(finished)


# As in docs/scaling.md: the cluster's scheduler is part of the process that asks for workers.
_JOBQUEUE = """
import sys
from dask_jobqueue import SLURMCluster
from experiments import compare_initializers, command_line

folder, *arguments = sys.argv[1:]
with SLURMCluster(
  cores=1,
  processes=1,
  memory="900MB",
  python=sys.executable,
  job_extra_directives=["--requeue"],
  worker_extra_args=["--host=127.0.0.1", "--no-dashboard"],
  local_directory=folder,
  log_directory=folder,
  scheduler_options={"host": "127.0.0.1", "dashboard_address": None},
) as cluster:
  cluster.scale(2)
  print(cluster.scheduler_address, flush=True)
  sys.argv[1:] = [*arguments, "--executor=dask", f"--scheduler={cluster.scheduler_address}"]
  command_line.run(compare_initializers.SCRIPT)
"""


def test_workers_of_dask_jobqueue(cluster, finished, tmp_path):
  pytest.importorskip("dask_jobqueue")
  workdir = tmp_path / "run"
  command = (sys.executable, "-c", _JOBQUEUE, str(tmp_path), *SHORT_RUN[3:])
  run = subprocess.Popen(
    [*command, f"--workdir={workdir}"],
    cwd=ROOT,
    env=cluster.environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    _wait_until(lambda: _begun(workdir) or run.poll() is not None)
    (task, *_) = cluster.run("squeue", "-h", "-o", "%i", "--states=RUNNING").split()
    _requeue(cluster, task)
    _, error = run.communicate(timeout=240)
    assert run.returncode == 0, error
  finally:
    run.send_signal(signal.SIGKILL)
    run.communicate()
    cluster.run("scancel", "--me", check=False)
  assert hashes(workdir) == hashes(finished)
