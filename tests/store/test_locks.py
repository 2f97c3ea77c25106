"""Locks and leases: one process at a time has them, whatever becomes of it."""

import contextlib
import errno
import fcntl
import logging
import os
import re
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from jaxdl.errors import InputError
from jaxdl.store import files, interrupts, leases, locks


def _no_flock(*_):
  raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("has_flock", [True, False])
def test_a_folder_is_one_process_s_at_a_time(tmp_path, has_flock, monkeypatch):
  """Also on a file system without flock."""
  if not has_flock:
    monkeypatch.setattr(fcntl, "flock", _no_flock)
  folder = tmp_path / "run"
  with locks.Lock(folder):
    with pytest.raises(InputError, match=r"is in use by process \d+ on"):
      locks.Lock(folder)
    lock = folder / (".lock" if has_flock else ".lock.lease")
    left = lock.read_text()
  assert not folder.exists()  # nothing came of it
  with locks.Lock(folder):
    (folder / "result").write_text("x")
  with locks.Lock(folder):
    pass
  assert [p.name for p in folder.iterdir()] == ["result"]
  lock.write_text(re.sub(r"process \d+", "process 999999999", left))  # it was killed
  with locks.Lock(folder):
    assert lock.read_text().startswith(f"process {os.getpid()} on")


# Each process checks in its own files again and again; whoever is refused tries again.
_FOUR = """
import pathlib, sys
from jaxdl.errors import InputError
from jaxdl.store import files, locks

folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
for _ in range(20):
  try:
    with locks.Lock(folder), files.staging(folder) as stage:
      for file in ("report", f"of {name}"):
        (stage / file).write_text(name)
  except InputError as error:
    assert "is in use by" in str(error), error
"""


def test_four_processes_do_not_mix_their_files(tmp_path):
  command = [sys.executable, "-c", _FOUR, str(tmp_path / "run")]
  runs = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abcd"]
  assert [run.wait() for run in runs] == [0] * 4
  folder = tmp_path / "run"
  name = (folder / "report").read_text()
  assert sorted(path.name for path in folder.iterdir()) == [files.MANIFEST, f"of {name}", "report"]
  files.check_intact(folder)


def test_a_wait_for_a_lock_is_said(tmp_path, monkeypatch, caplog):
  lock = locks.exclusive(tmp_path / "lock")
  lock.__enter__()
  monkeypatch.setattr(interrupts, "_SILENT_SECONDS", 0.0)
  monkeypatch.setattr(logging.getLogger("jaxdl"), "propagate", True)
  timer = threading.Timer(0.5, lock.__exit__, (None, None, None))
  timer.start()
  with caplog.at_level(logging.WARNING, "jaxdl"), locks.exclusive(tmp_path / "lock"):
    pass
  assert [
    r.getMessage().startswith("waiting for the process that has") for r in caplog.records
  ] == [True]


def test_a_lease_is_taken_over_from_who_has_ended(tmp_path, monkeypatch):
  file = tmp_path / "lease"
  first = leases.Lease(file)
  with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
    leases.Lease(file)
  first.release()
  assert not file.exists()

  ended = subprocess.Popen(["true"])
  for wait in (lambda: os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT), ended.wait):
    wait()
    file.write_text(f"process {ended.pid} on {leases._host()}, {'0' * 32}\n")
    with leases.Lease(file) as lease:
      assert lease.is_held()
  # Nobody knows of a process on another machine, but that it renews its lease.
  file.write_text(f"process {ended.pid} on another, {'0' * 32}\n")
  with pytest.raises(BlockingIOError, match="on another"):
    leases.Lease(file)
  old = time.time() - leases._STALE_SECONDS - 1
  os.utime(file, (old, old))
  with leases.Lease(file) as lease:
    os.utime(file, (old, old))  # as if this process had been suspended for long
    file.write_text(file.read_text().replace(str(os.getpid()), str(ended.pid)))
    assert not lease.is_held()
  assert file.exists()  # it is another's now


def test_a_lease_is_renewed(tmp_path, monkeypatch):
  monkeypatch.setattr(leases, "_RENEW_SECONDS", 0.01)
  file = tmp_path / "lease"
  with leases.Lease(file):
    os.utime(file, (0, 0))
    while file.stat().st_mtime == 0:
      time.sleep(0.01)


def test_an_old_lease_goes_to_one_of_those_who_want_it(tmp_path):
  file = tmp_path / "lease"
  file.write_text(f"process 1 on another, {'0' * 32}\n")
  os.utime(file, (0, 0))
  start, found = threading.Barrier(4), []

  def take():
    start.wait()
    with contextlib.suppress(BlockingIOError):
      found.append(leases.Lease(file))

  threads = [threading.Thread(target=take) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [lease.is_held() for lease in found] == [True]
  found[0].release()


@pytest.mark.parametrize("length", [256, 5000])
def test_a_path_that_is_too_long_is_one_line(tmp_path, length):
  with pytest.raises(InputError, match="File name too long"):
    locks.Lock(tmp_path / ("a" * length))


def test_a_file_that_is_no_lock_is_left_alone(tmp_path):
  (tmp_path / ".lock").write_text("mine")
  with pytest.raises(InputError, match="is no lock"):
    locks.Lock(tmp_path)
  assert (tmp_path / ".lock").read_text() == "mine"
