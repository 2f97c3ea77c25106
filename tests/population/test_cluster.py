"""Runs on workers of Dask, which die now and then, against the same run in one process."""

import asyncio
import contextlib
import json
import logging
import os
import pydoc
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SHORT_RUN, hashes, start_run

from jaxdl.errors import InputError
from jaxdl.population import dask as dask_lib
from jaxdl.population import environment, local, plan
from jaxdl.population.progress import Progress
from jaxdl.store import interrupts, store

distributed = pytest.importorskip("distributed")
comm = pytest.importorskip("distributed.comm")


def test_a_cluster_of_its_own(finished, tmp_path):
  """Ctrl-C, which a terminal sends to all of its processes, is one line; nothing stays behind."""
  folder = tmp_path / "temporary"
  folder.mkdir()
  options = {"env": {**os.environ, "TMPDIR": str(folder)}, "start_new_session": True}
  run = start_run(tmp_path / "run", "--executor=dask", **options)
  while not list(tmp_path.glob("run/run/locks/*")):
    assert run.poll() is None
    time.sleep(0.05)
  os.killpg(run.pid, signal.SIGINT)
  _, error = run.communicate(timeout=60)
  assert run.returncode == interrupts.EXIT_STATUS
  assert error == "interrupted by SIGINT; run the same command again to continue\n"
  assert not list(folder.iterdir())

  run = start_run(tmp_path / "run", "--executor=dask")
  _, error = run.communicate(timeout=300)
  assert run.returncode == 0, error
  assert "Traceback" not in error
  assert hashes(tmp_path / "run") == hashes(finished)
  origin = json.loads((tmp_path / "run" / "provenance.json").read_text())
  assert origin["num_workers"] == len(os.sched_getaffinity(0))


def test_nobody_else_can_use_a_cluster_of_this_machine(tmp_path):
  """Without its key: neither without any, nor with one of somebody's own."""
  other = dask_lib._create_security(distributed, tmp_path).get_connection_args("client")

  async def reach(address, **arguments):
    connection = await comm.connect(address, timeout=3, **arguments)
    await connection.close()

  with dask_lib.connect(num_workers=1) as cluster:
    client = cluster._client
    (worker,) = client.scheduler_info()["workers"].values()
    for address in (client.scheduler.address, worker["nanny"], *client.nthreads()):
      assert address.startswith("tls://127.0.0.1:")
      asyncio.run(reach(address, **client.security.get_connection_args("client")))
      with pytest.raises(OSError, match=r"."):
        asyncio.run(reach(address, **other))
      with pytest.raises(OSError, match=r"."):
        asyncio.run(reach(address.replace("tls", "tcp")))


def _spawn(*command):
  return subprocess.Popen(
    [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    cwd=ROOT,
  )


def test_workers_that_are_killed_change_nothing(finished, tmp_path):
  """Two worker processes over loopback, found by a scheduler file; both are killed."""
  file, workdir = tmp_path / "scheduler.json", tmp_path / "run"
  network = ("--host=127.0.0.1", "--no-dashboard")
  worker = (
    *("dask_worker", f"--scheduler-file={file}", *network, "--nthreads=1", "--no-nanny"),
    f"--local-directory={tmp_path}",
  )
  processes = [_spawn("dask_scheduler", f"--scheduler-file={file}", "--port=0", *network)]
  try:
    while not file.exists():
      assert processes[0].poll() is None
      time.sleep(0.05)
    workers = [_spawn(*worker), _spawn(*worker)]
    processes += workers
    run = start_run(workdir, "--executor=dask", f"--scheduler_file={file}")
    processes.append(run)
    for victim in workers:
      seen = len(list(workdir.glob("run/c*/*")))
      while len(list(workdir.glob("run/c*/*"))) <= seen and run.poll() is None:
        time.sleep(0.01)
      victim.send_signal(signal.SIGKILL)
      if victim is workers[0]:
        processes.append(_spawn(*worker))  # as a batch system, or a nanny, would
    _, error = run.communicate(timeout=300)
    assert run.returncode == 0, error
  finally:
    for process in reversed(processes):
      process.kill()
      process.communicate()
  assert hashes(workdir) == hashes(finished)


def test_there_is_no_scheduler(tmp_path, run_module):
  file = tmp_path / "no.json"
  file.write_text('{"address": 5}')
  for flag, message in (
    ("--scheduler_file=nowhere.json", "at nowhere.json: OSError: no such file"),
    (f"--scheduler_file={file}", "no.json: ValueError: no scheduler has written this file"),
    ("--scheduler=nonsense://x", "no Dask cluster with workers at nonsense://x"),
    ("--scheduler=tcp://127.0.0.1:65536", "ValueError: there is no port 65536"),
    ("--scheduler=", "--scheduler is empty"),
  ):
    result = run_module(*SHORT_RUN[2:], f"--workdir={tmp_path / 'run'}", "--executor=dask", flag)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
  assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def threads():
  """A cluster of threads of this process: quick, and what it runs can be replaced by a test."""
  with (
    distributed.LocalCluster(
      n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as local,
    distributed.Client(local) as client,
  ):
    yield dask_lib.Cluster(client, is_own=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_workers", [None, 0])
def test_no_wait_for_a_cluster_is_silent_or_for_ever(num_workers, monkeypatch, caplog):
  """The address is no scheduler's, or the scheduler has no workers."""
  monkeypatch.setattr(interrupts, "_SILENT_SECONDS", 0.0)
  monkeypatch.setattr(dask_lib, "_ATTEMPT_SECONDS", 0.2)
  monkeypatch.setattr(dask_lib, "_CONNECT_SECONDS", 0.1)
  monkeypatch.setattr(logging.getLogger("jaxdl"), "propagate", True)
  with contextlib.ExitStack() as stack:
    address = "tcp://127.0.0.1:1"
    if num_workers is not None:
      cluster = distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", dashboard_address=None
      )
      address = stack.enter_context(cluster).scheduler_address
    stack.enter_context(pytest.raises(InputError, match=f"no Dask cluster .* at {address}"))
    with dask_lib.connect(address):
      pass
  assert f"waiting for {'the Dask scheduler' if num_workers is None else 'workers'}" in caplog.text


# A worker whose Python has no jaxdl.
_WITHOUT = """
import sys

class NotHere:
  def find_spec(self, name, path=None, target=None):
    if name == "jaxdl":
      raise ModuleNotFoundError("No module named 'jaxdl'", name=name)

sys.meta_path.insert(0, NotHere())
from distributed.cli.dask_worker import main
main()
"""


@pytest.mark.filterwarnings("ignore")
def test_a_worker_without_the_library_that_joins_late_is_said_and_not_used(
  tmp_path, monkeypatch, caplog
):
  """It is the only one with time for the chunks, until it is sent away."""
  monkeypatch.setattr(logging.getLogger("jaxdl"), "propagate", True)
  with (
    distributed.LocalCluster(
      n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as here,
    distributed.Client(here) as client,
  ):
    command = [sys.executable, "-c", _WITHOUT, here.scheduler_address]
    options = ("--host=127.0.0.1", "--no-dashboard", "--no-nanny", "--nthreads=1")
    late = subprocess.Popen(
      [*command, *options, f"--local-directory={tmp_path}"], stderr=subprocess.DEVNULL
    )

    monkeypatch.setattr(dask_lib, "late", late, raising=False)

    def work(chunk):
      while dask_lib.late.poll() is None:  # found by name, since it cannot be sent
        time.sleep(0.05)
      return chunk.seed

    try:
      found = dict(dask_lib.Cluster(client, is_own=False).map(work, _chunks(8)))
    finally:
      late.kill()
      late.communicate()
  assert found == {chunk: chunk.seed for chunk in _chunks(8)}
  assert "is not used, without jaxdl: no module named jaxdl.population.dask" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_cannot_import_the_library_is_one_line(threads, monkeypatch):
  monkeypatch.setattr(pydoc, "locate", lambda name: None)
  with pytest.raises(InputError, match=r"a worker cannot run jaxdl.*no module named jaxdl\."):
    _ = dask_lib.Cluster(threads._client, is_own=False).device


def _chunks(num_chunks):
  return [plan.Chunk(0, place, 0, 1, 1) for place in range(num_chunks)]


@pytest.mark.filterwarnings("ignore")  # of Dask's own
def test_every_chunk_is_done_and_failures_come_with_their_reason(threads, tmp_path):
  def work(chunk):
    if chunk.seed % 10 == 3:
      with open(tmp_path / chunk.name, "a") as file:
        file.write("x")
      raise RuntimeError("broken")
    return chunk.seed

  found = dict(threads.map(work, _chunks(40)))
  assert len(found) == 40
  for chunk, result in found.items():
    if chunk.seed % 10 == 3:
      assert str(result) == "broken"
      assert (tmp_path / chunk.name).stat().st_size == local.ATTEMPTS
    else:
      assert result == chunk.seed


def test_a_worker_stops_once_another_run_has_the_folder(tmp_path):
  """It may outlive its client: it then loads, trains and writes nothing."""
  store.Store(tmp_path).claim({"config": {"num_seeds": 2}})
  before = sorted(tmp_path.rglob("*"))
  job = dask_lib.Job(None, None, str(tmp_path), run="of a run that was replaced")
  with pytest.raises(InputError, match="was deleted or replaced by another one"):
    dask_lib.train_chunk(job, _chunks(1)[0])
  assert sorted(tmp_path.rglob("*")) == before


def test_a_worker_of_another_installation_is_refused(tmp_path):
  here = environment.describe()
  for name, other in (("jax", "0.1"), ("source", "f00"), ("jax_threefry_partitionable", "no")):
    described = tuple({**here, name: other}.items())
    job = dask_lib.Job(None, None, str(tmp_path), environment=described)
    with pytest.raises(InputError, match=f"a worker has {name} {here[name]}, and this .* {other};"):
      dask_lib.train_chunk(job, _chunks(1)[0])


@pytest.mark.filterwarnings("ignore")
def test_failed_chunks_are_left_out_and_bad_input_ends_the_run(threads, tmp_path, monkeypatch):
  one = store.Store(tmp_path)
  job = dask_lib.Job(None, threads.device, str(tmp_path))

  def fail(error, *_):
    raise error

  monkeypatch.setattr(dask_lib, "train_chunk", lambda *_: fail(RuntimeError("broken")))
  monkeypatch.setattr(local, "read_committed", lambda *_: local.Outcome({}))
  outcome = threads.train(job, [], _chunks(2), Progress(quiet=True))
  assert list(outcome.failures.values()) == ["RuntimeError: broken"] * 2
  assert "broken" in one.failure_file(_chunks(1)[0].name).read_text()
  monkeypatch.setattr(dask_lib, "train_chunk", lambda *_: fail(InputError("no such data")))
  with pytest.raises(InputError, match="no such data"):
    threads.train(job, [], _chunks(2), Progress(quiet=True))
