"""Runs that are cut short, damaged, or do not fit, against the same run undisturbed."""

import io
import logging
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SHORT_RUN, Forks, hashes, start_run

from jaxdl import population
from jaxdl.errors import InputError
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import local, trainer, tuning
from jaxdl.population.population import train_population
from jaxdl.population.progress import Progress
from jaxdl.store import locks, store

_LONG = bool(os.environ.get("JAXDL_LONG_TESTS"))


def _observe(recipe, variables, hyper, train, validation, test):
  return {
    "bias": variables.params["Dense_0"]["bias"].sum(),
    "rows": jax.numpy.int32(len(test.targets)),
  }


@pytest.fixture(scope="module")
def arguments(blobs, three_arms):
  """A population with all that a checkpoint has to hold: plateaus, best weights, early stopping."""
  arms = {
    **{name: replace(arm, restore_best=True) for name, arm in three_arms.items()},
    "plateau": replace(
      three_arms["random_normal"], plateau_patience=0, optimizer="momentum", patience=1
    ),
  }
  return {
    "dataset": blobs,
    "arms": arms,
    "seeds": 5,
    "root_seed": 3,
    "chunk_size": 4,
    "observe": _observe,
    "keep_logits": True,
    "workers": jax.local_devices()[:1],
  }


@pytest.fixture(scope="module")
def undisturbed(arguments):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tuning, "compacted_size", _compact)
    return train_population(**arguments)


@pytest.fixture
def compacting(monkeypatch):
  monkeypatch.setattr(tuning, "compacted_size", _compact)


def _compact(num_running, size, *_):
  """Leaves seeds out at once, however little it saves."""
  return min(size, num_running)


def _same(a, b):
  for name in ("status", "epochs", "best_epoch", "confusion", "mean_probabilities"):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
  for name in ("curves", "metrics", "logits"):
    found, expected = getattr(a, name), getattr(b, name)
    assert found.keys() == expected.keys()
    for key in found:
      np.testing.assert_array_equal(found[key], expected[key])
  for name, of in a.observations.items():
    for arm in of:
      np.testing.assert_array_equal(of[arm], b.observations[name][arm])


class _Killed(BaseException):
  """Ends a process, as far as a test can tell."""


class _KilledAt(Progress):
  def __init__(self, when):
    super().__init__(io.StringIO())
    self.when = when

  def update(self, *counts):
    super().update(*counts)
    self.when -= 1
    if self.when == 0:
      raise _Killed


def _train(folder, arguments, when=-1, **options):
  one = store.Store(folder)
  one.claim({"config": {}})
  try:
    return train_population(
      **arguments, store=one, checkpoint_every=1, progress=_KilledAt(when), **options
    )
  finally:
    one.close()


@pytest.mark.usefixtures("compacting")
def test_a_run_that_is_cut_short_after_every_epoch_ends_the_same(arguments, undisturbed, tmp_path):
  """Each process lives for one or two epochs: the first repeats what was not saved yet."""
  for when in range(1000):
    try:
      result = _train(tmp_path, arguments, when=1 + when % 3)
      break
    except _Killed:
      continue
  assert when > 5
  _same(result, undisturbed)
  again = _train(tmp_path, arguments, when=1)  # everything is there: nothing trains
  _same(again, undisturbed)


@pytest.mark.usefixtures("compacting")
@pytest.mark.parametrize("how", ["newest", "all", "chunk"])
def test_damage_is_trained_again(arguments, undisturbed, tmp_path, how, caplog):
  with pytest.raises(_Killed):
    _train(tmp_path, arguments, when=4)
  if how == "chunk":
    _train(tmp_path, arguments)
    damaged = [next((tmp_path / "chunks").iterdir())]
  else:
    newest = sorted((tmp_path / "checkpoints").glob("*/[0-9]*"))
    assert len(newest) == 2
    damaged = newest[-1:] if how == "newest" else newest
    damaged = [max(f.rglob("*/d/*"), key=lambda p: p.stat().st_size) for f in damaged]
  for file in damaged:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
  with caplog.at_level(logging.WARNING, "jaxdl"):
    _same(_train(tmp_path, arguments), undisturbed)
  assert sum("it is damaged" in record.getMessage() for record in caplog.records) == len(damaged)


@pytest.mark.usefixtures("compacting")
def test_chunks_that_were_exchanged_are_trained_again(arguments, undisturbed, tmp_path, caplog):
  """Two of one program, with as many members each."""
  _train(tmp_path, arguments)
  one, other = sorted((tmp_path / "chunks").glob("g0-*"))
  one.rename(tmp_path / "aside")
  other.rename(one)
  (tmp_path / "aside").rename(other)
  with caplog.at_level(logging.WARNING, "jaxdl"):
    _same(_train(tmp_path, arguments), undisturbed)
  assert caplog.text.count("it is of chunk") == 2


@pytest.mark.usefixtures("compacting")
def test_a_checkpoint_of_another_chunk_is_not_used(arguments, undisturbed, tmp_path, caplog):
  with pytest.raises(_Killed):
    _train(tmp_path, arguments, when=3)
  (there,) = (tmp_path / "checkpoints").iterdir()
  there.rename(there.with_name(there.name.replace("s0", "s3")))
  with caplog.at_level(logging.WARNING, "jaxdl"):
    _same(_train(tmp_path, arguments), undisturbed)
  assert "it is of chunk" in caplog.text


def test_checkpoints_of_another_run_are_not_taken(arguments, tmp_path, blobs, mlp_arm):
  """As with --resume_anyway: what does not fit is trained again, not forced in."""
  with pytest.raises(_Killed):
    _train(tmp_path, arguments, when=3)
  arm = replace(mlp_arm, model="mlp(8)", num_epochs=2)
  other = {**arguments, "arms": dict.fromkeys("abcd", arm), "observe": None}
  _same(_train(tmp_path, other), train_population(**other))


class _OutOfMemory:
  """Programs of more than some members do not fit the device."""

  def __init__(self, most):
    self.most, self.compile_chunk = most, chunk_lib.compile_chunk

  def __call__(self, group, splits, device, observe, num_seeds=None, num_arms=None):
    programs = self.compile_chunk(group, splits, device, observe, num_seeds, num_arms)
    size = (num_seeds or group.layout.chunk_size) * (num_arms or group.layout.chunk_arms)

    def train_epoch(*arguments):
      if size > self.most:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")
      return programs.train_epoch(*arguments)

    return programs._replace(train_epoch=train_epoch)


@pytest.mark.parametrize("most", [6, 2])
def test_what_does_not_fit_the_device_is_halved(blobs, three_arms, tmp_path, monkeypatch, most):
  """Down to single arms of single seeds, and the width is on record, also for the next process."""
  arguments = {"dataset": blobs, "arms": three_arms, "seeds": 4, "chunk_size": 4, "root_seed": 3}
  reference = train_population(**{**arguments, "chunk_size": 2 if most == 6 else 1})
  monkeypatch.setattr(chunk_lib, "compile_chunk", _OutOfMemory(most))
  result = _train(tmp_path, arguments)
  assert "g0-s0x4-a0x3" in result.split_chunks
  assert ("g0-s0x2-a0x3" in result.split_chunks) == (most == 2)
  assert len(list((tmp_path / "chunks").iterdir())) == 1  # as planned, and no halves
  if most == 6:
    for name in population.CURVES:
      np.testing.assert_array_equal(result.curves[name], reference.curves[name])
  for name, values in result.metrics.items():
    np.testing.assert_allclose(values, reference.metrics[name], rtol=2e-3, atol=2e-4)
  assert _train(tmp_path, arguments, when=1).split_chunks == result.split_chunks
  assert train_population(**arguments).split_chunks == result.split_chunks  # without a store too


def test_one_member_that_does_not_fit_is_one_line(blobs, mlp_arm, monkeypatch):
  monkeypatch.setattr(chunk_lib, "compile_chunk", _OutOfMemory(0))
  with pytest.raises(InputError, match="one member of a does not fit the memory of"):
    train_population(blobs, {"a": mlp_arm}, seeds=2)


def test_a_chunk_that_fails_is_tried_again_then_left_out(arguments, tmp_path, monkeypatch):
  attempts = []
  train = trainer.Trainer.train

  def fail(self, chunk, *rest):
    if chunk.seed == 0:
      attempts.append(chunk)
      raise RuntimeError("it is\nbroken")
    return train(self, chunk, *rest)

  monkeypatch.setattr(trainer.Trainer, "train", fail)
  result = _train(tmp_path, arguments)
  assert len(attempts) == 2 * local.ATTEMPTS  # two programs
  assert result.seeds == (3, 4)
  assert result.missing_seeds == (0, 1, 2)
  assert set(result.failures.values()) == {"RuntimeError: it is"}
  for name in result.failures:
    assert "Traceback" in (tmp_path / "failures" / f"{name}.txt").read_text()
  monkeypatch.undo()
  healed = _train(tmp_path, arguments)
  assert healed.missing_seeds == ()
  assert not list((tmp_path / "failures").iterdir())


def test_results_of_no_seed_are_refused_in_one_line(arguments, tmp_path, monkeypatch):
  def fail(*_):
    raise RuntimeError("broken")

  monkeypatch.setattr(trainer.Trainer, "train", fail)
  with pytest.raises(InputError, match=r"no seed has finished .*; chunk g0-s0x3-a0x3 failed"):
    _train(tmp_path, arguments)


# --- Processes ---


def _is_clean(workdir):
  names = {p.name for p in workdir.rglob("*") if "tmp" in p.name or p.name.startswith(".")}
  return not names and not list((workdir / "run" / "checkpoints").iterdir())


def test_killed_at_random_moments_it_ends_the_same(finished, tmp_path, run_module):
  """SIGKILL, which nothing can prepare for. JAXDL_LONG_TESTS=1: twenty times."""
  workdir, rng, kills, most = tmp_path / "run", random.Random(0), 0, 20 if _LONG else 2
  while kills < most:
    run = start_run(workdir)
    # From the first checkpoint on: before it a run has nothing to lose.
    while run.poll() is None and not list(workdir.glob("run/checkpoints/*/[0-9]*")):
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    # Every other time in the middle of the writing of a checkpoint or a chunk.
    while (
      kills % 2
      and run.poll() is None
      and not (
        list(workdir.glob("run/checkpoints/*/*.orbax*")) or list(workdir.glob("run/chunks/.*"))
      )
    ):
      pass
    run.kill()
    run.communicate()
    kills += 1
  run = run_module(*SHORT_RUN[2:], f"--workdir={workdir}")
  assert run.returncode == 0, run.stderr
  assert "resuming the run in" in run.stderr
  assert hashes(workdir) == hashes(finished)
  assert _is_clean(workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, *([signal.SIGINT] if _LONG else [])])
def test_asked_to_stop_it_saves_and_says_so(finished, tmp_path, number, run_module):
  workdir = tmp_path / "run"
  run = start_run(workdir, "--checkpoint_every=1000")
  for line in run.stderr:
    if "epoch" in line:
      break
  run.send_signal(number)
  _, error = run.communicate(timeout=60)
  assert run.returncode == 75, error
  assert error.splitlines()[-1] == (
    f"interrupted by {number.name}; run the same command again to continue"
  )
  assert "Traceback" not in error
  assert not (workdir / "report.md").exists()
  assert not (workdir / ".lock").exists()
  assert list((workdir / "run" / "checkpoints").glob("*/[0-9]*"))
  second = run_module(*SHORT_RUN[2:], f"--workdir={workdir}")
  assert second.returncode == 0, second.stderr
  assert hashes(workdir) == hashes(finished)


def test_a_second_process_is_refused(tmp_path, run_module):
  with locks.Lock(tmp_path):
    second = run_module(*SHORT_RUN[2:], f"--workdir={tmp_path}")
  assert second.returncode == 2
  assert f"is in use by process {os.getpid()}" in second.stderr


def test_another_run_is_refused_unless_told_otherwise(finished, run_module):
  def run(*flags):
    result = run_module(*SHORT_RUN[2:], f"--workdir={finished}", *flags)
    return result.returncode, result.stderr.splitlines()

  before = hashes(finished)
  status, lines = run("--config.num_seeds=4")
  assert status == 2
  assert len(lines) == 1
  assert "holds a run of another config (num_seeds: 3 there, 4 now)" in lines[0]
  assert hashes(finished) == before
  status, lines = run("--config.alpha=0.04", "--resume_anyway")
  assert status == 0
  origin = pd.read_json(finished / "provenance.json", typ="series")
  assert origin["resumed_anyway"] == ["alpha: 0.05 there, 0.04 now"]
  assert run()[0] == 0  # nothing is trained, and everything is as it was
  assert hashes(finished) == before


def test_a_partial_report_can_be_made_at_any_time(finished, run_module):
  command = (*SHORT_RUN[2:], f"--workdir={finished}", "--partial")
  result = run_module(*command)
  assert result.returncode == 0, result.stderr
  assert "Partial" not in (finished / "partial" / "report.md").read_text()
  removed = sorted((finished / "run" / "chunks").iterdir())[-1]
  content = removed.read_bytes()
  removed.unlink()
  result = run_module(*command)
  removed.write_bytes(content)
  assert result.returncode == 0, result.stderr
  text = (finished / "partial" / "report.md").read_text()
  assert "**Partial: 2 of 3 seeds have finished with all of their arms.** Missing: " in text
  members = pd.read_csv(finished / "partial" / "members.csv")
  whole = pd.read_csv(finished / "members.csv")
  pd.testing.assert_frame_equal(
    members, whole[whole.seed.isin(members.seed)].reset_index(drop=True)
  )


# Whoever runs the tests as root may write anywhere; this runs a command without that right.
_CAPABILITIES = "-dac_override,-dac_read_search"
_THROUGH = (
  ("setpriv", f"--bounding-set={_CAPABILITIES}", f"--inh-caps={_CAPABILITIES}")
  if os.geteuid() == 0
  else ()
)


@pytest.mark.skipif(
  bool(_THROUGH) and shutil.which("setpriv") is None, reason="root, and no setpriv"
)
def test_permission_denied_is_one_line_and_nothing_is_lost(finished, tmp_path, run_module):
  """Each part of a run that lacks a chunk may in turn not be read, or written to."""
  workdir = tmp_path / "run"
  shutil.copytree(finished, workdir)
  here = store.Store(workdir / "run")
  here.join()
  removed = sorted((here.folder / "chunks").iterdir())[-1]
  removed.unlink()
  here.save_checkpoint(removed.stem, 7, {"epoch": np.int32(7)})
  here.close()
  before = sorted(workdir.rglob("*"))
  checkpoint = next(p for p in before if "checkpoints" in p.parts and p.is_file())
  imports = "from experiments import command_line, compare_initializers"
  call = "command_line.run(compare_initializers.SCRIPT)"
  with Forks(imports, call, through=_THROUGH) as forks:
    for path, mode in (
      (workdir, 0o555),
      (here.folder, 0o000),
      (here.folder / "run.json", 0o000),
      (here.folder / "chunks", 0o000),
      (here.folder / "checkpoints", 0o555),
      (checkpoint.parent, 0o000),
      (checkpoint, 0o000),
    ):
      usual = path.stat().st_mode
      path.chmod(mode)
      try:
        refused = forks(*SHORT_RUN[3:], f"--workdir={workdir}")
      finally:
        path.chmod(usual)
      assert refused.returncode == 2, (path, refused)
      assert refused.stderr.startswith("error: "), (path, refused)
      assert refused.stderr.count("\n") == 1, (path, refused)
      assert "ermission denied" in refused.stderr, (path, refused)
      assert sorted(workdir.rglob("*")) == before
  run = run_module(*SHORT_RUN[2:], f"--workdir={workdir}")
  assert run.returncode == 0, run.stderr
  assert hashes(workdir) == hashes(finished)


# Python runs it at its start: whoever asks for the time gets today, tomorrow or yesterday.
_JUMPING_CLOCK = """
import itertools, time
days, now, now_ns = itertools.cycle((0, 1, -1)), time.time, time.time_ns
time.time = lambda: now() + 86_400 * next(days)
time.time_ns = lambda: now_ns() + 86_400 * 10**9 * next(days)
"""


def test_an_odd_environment_changes_nothing(finished, tmp_path):
  """Another working directory, no HOME, an odd locale, a clock that jumps, in an odd time zone."""
  (tmp_path / "sitecustomize.py").write_text(_JUMPING_CLOCK)
  environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "LANG")}
  environment |= {
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Pacific/Kiritimati",
    "PYTHONPATH": f"{tmp_path}:{ROOT}",
  }
  command = [part.replace("ml_collections_configs", f"{ROOT}/ml_collections_configs", 1)
             if part.startswith("--config=") else part for part in SHORT_RUN]  # fmt: skip
  run = subprocess.run(
    [*command, "--workdir=run"], capture_output=True, text=True, cwd=tmp_path, env=environment
  )
  assert run.returncode == 0, run.stderr
  assert hashes(tmp_path / "run") == hashes(finished)


# A chunk that fails by itself, whatever is tried.
_BROKEN_CHUNK = """
from experiments import command_line, compare_initializers
from jaxdl.population import trainer

train = trainer.Trainer.train

def fail(self, chunk, *rest):
  if chunk.seed == 1:
    raise RuntimeError("broken")
  return train(self, chunk, *rest)

trainer.Trainer.train = fail
"""


def test_a_run_with_a_broken_chunk_reports_the_rest_and_exits_with_1(
  finished, tmp_path, run_module
):
  """The chunk of seed 1 is tried three times; the same command then trains only that."""
  workdir = tmp_path / "run"
  with Forks(_BROKEN_CHUNK, "command_line.run(compare_initializers.SCRIPT)") as forks:
    broken = forks(*SHORT_RUN[3:], f"--workdir={workdir}")
  error = broken.stderr
  assert broken.returncode == 1, error
  assert "Traceback" not in error
  assert error.count("attempt 3 of 3): RuntimeError: broken; see ") == 1
  assert error.strip().endswith("1 seeds are missing; the report says why")
  (traceback,) = (workdir / "run" / "failures").iterdir()
  assert "in fail" in traceback.read_text()
  assert "RuntimeError: broken" in (workdir / "report.md").read_text()
  assert set(pd.read_csv(workdir / "members.csv").seed) == {0, 2}
  run = run_module(*SHORT_RUN[2:], f"--workdir={workdir}")
  assert run.returncode == 0, run.stderr
  assert "2 of 3" in run.stderr
  assert hashes(workdir) == hashes(finished)
