"""Signals are noted, never lost; what a process has started ends with it."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import ROOT, Forks

from jaxdl.store import interrupts


def _wait_for(condition, seconds=20):
  last = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < last
    time.sleep(0.01)


def _is_noted():
  try:
    interrupts.check()
  except interrupts.Interrupted:
    return True
  return False


class _Callback:
  """Whatever is raised while it is deleted is lost, as in a function that C++ calls."""

  def __del__(self):
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.05)  # while this runs, the signal arrives


def test_a_signal_is_noted_wherever_it_arrives():
  handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  with interrupts.interruptible():
    with interrupts.interruptible():
      interrupts.check()
      _Callback()
    _wait_for(_is_noted)  # also after an inner block
    with pytest.raises(interrupts.Interrupted, match="SIGTERM"):
      interrupts.check()
  interrupts.check()  # it was for that block
  assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


# Programs that stop at once, are asked twice, do not stop when they are asked, or are done anyway.
_PROGRAM = """
import os, signal, subprocess, sys, time
from jaxdl.store import interrupts

interrupts._PATIENCE_SECONDS = 0.1

def ask():
  os.kill(os.getpid(), signal.SIGTERM)

def at_once():
  with interrupts.temporary_folder("jaxdl-test-") as folder:
    with interrupts.child([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
      print(folder, child.pid, flush=True)
      ask()
      time.sleep(60)

def twice():
  interrupts._PATIENCE_SECONDS = 60
  with interrupts.interruptible():
    ask()
    ask()
    time.sleep(60)

def too_late():
  with interrupts.interruptible():
    ask()
    time.sleep(60)

def in_time():
  with interrupts.interruptible():
    ask()
    while not interrupts._received:
      time.sleep(0.01)
  time.sleep(0.2)
"""


def test_a_program_ends_in_one_line():
  line = "interrupted by SIGTERM; run the same command again to continue\n"
  with Forks(_PROGRAM, "interrupts.install(); globals()[sys.argv[1]]()") as forks:
    for name in ("twice", "too_late"):
      result = forks(name)
      assert (result.returncode, result.stderr) == (interrupts.EXIT_STATUS, line), name
    assert forks("in_time").returncode == 0
    result = forks("at_once")
  assert (result.returncode, result.stderr) == (interrupts.EXIT_STATUS, line)
  folder, child = result.stdout.split()
  assert not pathlib.Path(folder).exists()
  _wait_for(lambda: not _is_alive(int(child)))


def _is_alive(pid):
  with contextlib.suppress(OSError):  # an orphan stays a zombie where nobody waits for it
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  return False


_CHILD = """
import time
from jaxdl.store import interrupts
interrupts.install()
print("ready", flush=True)
time.sleep(60)
"""
_PARENT = """
import sys
from jaxdl.store import interrupts
interrupts.install()
sys.exit(interrupts.run_child([sys.executable, "-c", sys.argv[1]]))
"""


@pytest.mark.parametrize(
  ("number", "status", "name"),
  [
    (signal.SIGINT, interrupts.EXIT_STATUS, "SIGINT"),
    (signal.SIGTERM, interrupts.EXIT_STATUS, "SIGTERM"),
    (signal.SIGKILL, -signal.SIGKILL, "the end of process {}"),
  ],
)
def test_a_child_stops_with_its_parent(number, status, name):
  """And one of the two says so."""
  parent = subprocess.Popen(
    [sys.executable, "-c", _PARENT, _CHILD],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  assert parent.stdout.readline() == "ready\n"
  parent.send_signal(number)
  _, error = parent.communicate(timeout=20)  # the child has the other end of the pipe as well
  assert parent.returncode == status
  name = name.format(parent.pid)
  assert error == f"interrupted by {name}; run the same command again to continue\n"


@pytest.mark.parametrize("script", ["compare_initializers", "check_gradients", "claims"])
def test_a_signal_while_importing_is_one_line(tmp_path, script):
  for name in ("jax", "absl"):
    (tmp_path / f"{name}.py").write_text(
      "import time; print('importing', flush=True); time.sleep(60)"
    )
  run = subprocess.Popen(
    [sys.executable, "-m", f"experiments.{script}"],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(tmp_path)},
  )
  assert run.stdout.readline() == "importing\n"
  run.send_signal(signal.SIGINT)
  _, error = run.communicate(timeout=20)
  assert run.returncode == interrupts.EXIT_STATUS
  assert error == "interrupted by SIGINT; run the same command again to continue\n"


def test_the_folder_of_a_process_that_was_killed_is_deleted_by_the_next(tmp_path, monkeypatch):
  """It keeps the folder of a process that is alive, and a user's folder with a similar name."""
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  abandoned, file = tmp_path / "jaxdl-test-a_bc1234.jaxdl-temporary", tmp_path / "jaxdl-test-file"
  own = tmp_path / "jaxdl-test-20260101"
  for folder in (abandoned, own):
    (folder / "inside").mkdir(parents=True)
  file.touch()
  with interrupts.temporary_folder("jaxdl-test-") as first:
    assert not abandoned.exists()
    with interrupts.temporary_folder("jaxdl-test-") as second:
      assert os.path.isdir(first)
      assert {path.name for path in tmp_path.iterdir()} == {
        *(os.path.basename(folder) for folder in (first, second)),
        *(file.name, own.name),
      }
  assert {*tmp_path.iterdir()} == {file, own}
  assert (own / "inside").is_dir()
