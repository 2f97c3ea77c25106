"""A run from Python: the files and the guarantees of the command line."""

import json
import re
import shutil
import threading
from dataclasses import replace

import pytest
from conftest import Forks, hashes

from jaxdl import launch, stats
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment


@pytest.fixture(scope="module")
def experiment(finished):
  """What the command line ran."""
  return Experiment.from_json(json.loads((finished / "config.json").read_text()))


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


# Signals arrive in the main thread of a process, which may not be the one that tests run in.
_STOPPED = """
import os, signal, time
from conftest import *
from jaxdl import launch
from jaxdl.experiment import Experiment
from jaxdl.report import figures
from jaxdl.store import interrupts, store

def run(config, workdir):
  experiment = Experiment.from_json(json.loads(pathlib.Path(config).read_text()))
  figures.save = save_no_picture
  commit, asked = store.Store.commit_chunk, []

  def commit_and_ask_to_stop(self, *arguments):
    commit(self, *arguments)
    asked.append(self)
    if len(asked) == 1:  # a second signal would end the process at once
      os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)  # or this worker may train all that is left before the signal is noticed

  store.Store.commit_chunk = commit_and_ask_to_stop
  try:
    launch.run(experiment, workdir)
  except interrupts.Interrupted as stopped:
    print(stopped)
  store.Store.commit_chunk = commit
  files = {file: file.stat().st_mtime_ns for file in pathlib.Path(workdir).glob("run/chunks/*")}
  assert 1 <= len(files) < 3
  launch.run(experiment, workdir)
  assert all(file.stat().st_mtime_ns == then for file, then in files.items())
"""


def test_a_signal_stops_it_and_the_same_call_goes_on(finished, tmp_path):
  """What was trained before is not trained again."""
  with Forks(_STOPPED, "run(*sys.argv[1:])") as forks:
    result = forks(str(finished / "config.json"), str(tmp_path / "run"))
  assert (result.returncode, result.stdout) == (0, "SIGTERM\n"), result.stderr
  assert _numbers(tmp_path / "run") == _numbers(finished)


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
  message = r"^executor must be one of local, dask, array, multihost, not 'nonsense'\Z"
  with pytest.raises(InputError, match=message):
    launch.run(experiment, tmp_path / "run", executor="nonsense")
  assert not (tmp_path / "run").exists()
