"""Tasks that know of each other by files alone, against the same run in one process."""

import logging
import threading
import time

import numpy as np
import pytest
from conftest import SHORT_RUN, hashes, start_run

from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import array, devices, plan, trainer
from jaxdl.population.progress import Progress
from jaxdl.report import Workdir, workdir
from jaxdl.store import interrupts, leases, store


def test_tasks_share_out_the_chunks_and_one_of_them_reports(finished, tmp_path, run_module):
  """One of two is killed; a third finds that there is nothing left to do."""
  folder = tmp_path / "run"
  tasks = [start_run(folder, "--executor=array", f"--index={i}", "--count=3") for i in (0, 1)]
  while not list(folder.glob("run/checkpoints/*/[0-9]*")):
    assert tasks[0].poll() is None
    time.sleep(0.01)
  tasks[0].kill()
  tasks[0].communicate()
  _, error = tasks[1].communicate()
  assert tasks[1].returncode == 0, error
  assert hashes(folder) == hashes(finished)
  before = (folder / "provenance.json").read_bytes()
  third = run_module(
    *SHORT_RUN[2:], f"--workdir={folder}", "--executor=array", "--index=2", "--count=3"
  )
  assert third.returncode == 0, third.stderr
  assert (folder / "provenance.json").read_bytes() == before  # it is reported already
  assert not list(folder.glob("run/locks/*"))


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--executor=array", "--count=2"], "--executor=array needs --index"),
    (["--index=1"], "--index needs --executor=array"),
    (["--executor=array", "--index=2", "--count=2"], "--index must be less than --count=2"),
    (["--executor=array", "--index=1", "--count=2", "--overwrite"], "must not start anew"),
  ],
)
def test_mistakes_are_one_line(flags, message, tmp_path, run_module):
  result = run_module(*SHORT_RUN[2:], f"--workdir={tmp_path / 'run'}", *flags)
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert message in line
  assert not (tmp_path / "run").exists()


@pytest.fixture
def tasks(blobs, three_arms, tmp_path, monkeypatch):
  """Returns a function that runs one of three tasks in this process."""
  monkeypatch.setattr(array, "_POLL_SECONDS", 0.05)
  one = store.Store(tmp_path)
  one.claim({"config": {}})
  kind = devices.kind_of(devices.workers()[0])
  groups = plan.plan_groups(blobs, three_arms, range(5), 3, kind, chunk_size=2)
  chunks = plan.all_chunks(groups)

  def run(index):
    workers = devices.workers()[:1]
    return array.train_share(
      blobs, workers, one, {}, (index, 3), groups, chunks, Progress(quiet=True)
    )

  run.store, run.chunks, run.groups = one, chunks, groups
  return run


def test_each_task_begins_with_its_own_share(tasks, monkeypatch):
  """And gives what one process gives, whatever is there already."""
  order, train = [], trainer.Trainer.train

  def note(self, chunk, *rest):
    order.append(chunk)
    return train(self, chunk, *rest)

  monkeypatch.setattr(trainer.Trainer, "train", note)
  outcome = tasks(1)
  first, second, third = tasks.chunks
  assert order == [second, third, first]
  assert list(outcome.results) == tasks.chunks
  order.clear()
  again = tasks(2)
  assert order == []
  for chunk in tasks.chunks:
    one, other = (of.results[chunk].to_arrays() for of in (outcome, again))
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_a_chunk_of_a_task_that_died_elsewhere_is_taken_over(tasks, monkeypatch, caplog):
  """Once its lease is old; until then the task says what it waits for."""
  monkeypatch.setattr(interrupts, "_SILENT_SECONDS", 0.0)
  monkeypatch.setattr(logging.getLogger("jaxdl"), "propagate", True)
  lease = tasks.store.lease_file(tasks.chunks[0].name)
  lease.parent.mkdir()
  lease.write_text(f"process 1 on another machine, {'0' * 32}\n")
  monkeypatch.setattr(leases, "_STALE_SECONDS", 3.0)
  with caplog.at_level(logging.WARNING, "jaxdl"):
    outcome = tasks(0)
  assert "waiting for other tasks" in caplog.text
  assert list(outcome.results) == tasks.chunks
  assert not lease.exists()


def test_a_chunk_that_fails_in_one_task_is_not_tried_by_all(tasks, monkeypatch):
  """It is tried again when the tasks are started again."""
  attempts, train = [], trainer.Trainer.train
  broken, other = tasks.chunks[1:]

  def fail(self, chunk, *rest):
    if chunk != broken:
      assert chunk != other
      tasks.store.write_failure(other.name, "broken elsewhere")
      return train(self, chunk, *rest)
    attempts.append(chunk)
    raise RuntimeError("broken")

  monkeypatch.setattr(trainer.Trainer, "train", fail)
  outcome = tasks(0)
  assert len(attempts) == 3
  assert outcome.failures == {
    broken: "RuntimeError: broken",
    other: "it failed in another task",
  }
  monkeypatch.undo()
  assert not tasks(2).failures


def test_a_workdir_is_one_run_s_or_that_of_the_tasks_of_an_array(three_arms, tmp_path, monkeypatch):
  """Whoever comes second is refused, and what has ended is in nobody's way."""
  experiment = Experiment("?", three_arms, dataset="digits")
  monkeypatch.setattr(workdir, "_START_SECONDS", 0.0)
  with Workdir(tmp_path, experiment, shared=True), Workdir(tmp_path, experiment, shared=True):
    with pytest.raises(InputError, match="is in use by 2 tasks of an array; wait for them, or"):
      Workdir(tmp_path, experiment)
    with pytest.raises(InputError, match="is in use by 2 tasks of an array"):
      Workdir(tmp_path, experiment, overwrite=True)
  assert not list(tmp_path.glob("run/locks/*"))
  killed = tmp_path / "run" / "locks" / f"task-{'0' * 32}.lease"
  killed.write_text(f"process {2**30} on {leases._host()}, {'0' * 32}\n")
  with Workdir(tmp_path, experiment):
    assert not killed.exists()
    with pytest.raises(InputError, match=r"is in use by process \d+ on"):
      Workdir(tmp_path, experiment, shared=True)


def test_a_task_waits_for_one_that_reports(three_arms, tmp_path, monkeypatch):
  experiment = Experiment("?", three_arms, dataset="digits")
  monkeypatch.setattr(workdir, "_START_SECONDS", 0.0)
  with Workdir(tmp_path, experiment, shared=True) as first:
    assert first.take_to_report()
    threading.Timer(0.3, first._release).start()
    with Workdir(tmp_path, experiment, shared=True):
      assert first._lock is None
