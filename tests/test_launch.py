"""A run from Python: the files and the guarantees of the command line."""

import json
import re
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest
from conftest import hashes

from jaxdl import launch, stats
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.report import figures
from jaxdl.store import interrupts
from jaxdl.store.store import Store


@pytest.fixture(scope="module")
def experiment(finished):
  """What the command line ran."""
  return Experiment.from_json(json.loads((finished / "config.json").read_text()))


@pytest.fixture
def no_pictures(monkeypatch):
  """They take most of the time."""
  monkeypatch.setattr(figures, "save", lambda *_: None)


def _numbers(workdir):
  """Returns hashes of all results but pictures."""
  return {name: value for name, value in hashes(workdir).items() if not re.search("png|svg", name)}


def test_the_files_are_those_of_the_command_line(experiment, finished, tmp_path):
  """Bit for bit; what is returned is what they say."""
  result = launch.run(experiment, tmp_path / "run")
  assert result.workdir == tmp_path / "run"
  assert hashes(result.workdir) == hashes(finished)
  verdicts = json.loads((finished / "verdicts.json").read_text())
  assert json.loads(json.dumps(list(map(stats.to_json, result.verdicts)))) == verdicts
  assert result.answer in (finished / "report.md").read_text()
  assert result.population.seeds == (0, 1, 2)


@pytest.mark.usefixtures("no_pictures")
def test_a_signal_stops_it_and_the_same_call_goes_on(experiment, finished, tmp_path, monkeypatch):
  """What was trained before is not trained again."""
  commit = Store.commit_chunk

  def commit_and_ask_to_stop(store, name, arrays):
    commit(store, name, arrays)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    time.sleep(1)  # or else this worker may train all that is left before the signal is noticed

  with monkeypatch.context() as patch:
    patch.setattr(Store, "commit_chunk", commit_and_ask_to_stop)
    with pytest.raises(interrupts.Interrupted, match="SIGTERM"):
      launch.run(experiment, tmp_path)
  written = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "chunks").iterdir()}
  assert 1 <= len(written) < 3
  launch.run(experiment, tmp_path)
  assert all(file.stat().st_mtime_ns == then for file, then in written.items())
  assert _numbers(tmp_path) == _numbers(finished)


@pytest.mark.usefixtures("no_pictures")
def test_it_runs_in_any_thread(experiment, finished, tmp_path):
  """Also where signals do not arrive; one chunk is left to train."""
  workdir = shutil.copytree(finished, tmp_path / "run")
  next((workdir / "run" / "chunks").iterdir()).unlink()
  (workdir / "members.csv").unlink()
  results = []
  thread = threading.Thread(target=lambda: results.append(launch.run(experiment, workdir)))
  thread.start()
  thread.join()
  assert len(results) == 1
  assert _numbers(workdir) == _numbers(finished)


def test_another_run_is_refused_in_one_line(experiment, finished):
  before = hashes(finished)
  message = r"^workdir .* holds a run of another config \(seed: 0 there, 1 now\); [^\n]*\Z"
  with pytest.raises(InputError, match=message):
    launch.run(replace(experiment, seed=1), finished)
  assert hashes(finished) == before


def test_an_unknown_executor_is_refused_in_one_line(experiment, tmp_path):
  message = r"^executor must be one of local, dask, multihost, not 'nonsense'\Z"
  with pytest.raises(InputError, match=message):
    launch.run(experiment, tmp_path / "run", executor="nonsense")
  assert not (tmp_path / "run").exists()
