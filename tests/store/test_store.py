"""What a run keeps of its chunks: whole or refused, whatever happens to the disk."""

import hashlib
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import ROOT

from jaxdl.errors import InputError
from jaxdl.store import files, locks, store

_CHUNK = "g0-s0x1-a0x1"


@pytest.fixture
def saved(tmp_path):
  """A store with checkpoints of three epochs, and of each what was saved."""
  arrays = {epoch: {"epoch": np.int64(epoch), "x": np.full(5000, epoch)} for epoch in (1, 2, 3)}
  one = store.Store(tmp_path / "run")
  one.claim({"config": {}})
  for epoch in arrays:
    one.save_checkpoint("c", epoch, arrays[epoch])
    one.flush()
  one.close()
  return one, arrays


def test_the_two_newest_checkpoints_stay(saved):
  one, arrays = saved
  assert {p.name for p in (one.folder / "checkpoints" / "c").iterdir()} == {"2", "3"}
  epoch, found = one.read_checkpoint("c")
  assert epoch == 3
  np.testing.assert_equal(found, arrays[3])


def _data_files(folder):
  """Orbax writes the same bytes twice, and reads one of the two."""
  sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
  return [path for path, size in sizes.items() if size == max(sizes.values())]


def _truncate(folder):
  for file in _data_files(folder):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _zero(folder):
  for file in _data_files(folder):
    file.write_bytes(bytes(file.stat().st_size))


def _flip(folder):
  for file in _data_files(folder):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def _lose(folder):
  for file in _data_files(folder):
    file.unlink()


@pytest.mark.parametrize("damage", [_truncate, _zero, _flip, _lose])
def test_of_a_damaged_checkpoint_the_one_before_is_used(saved, damage, caplog):
  one, arrays = saved
  damage(one.folder / "checkpoints" / "c" / "3")
  with caplog.at_level(logging.WARNING, "jaxdl"):
    epoch, found = one.read_checkpoint("c")
  assert epoch == 2
  np.testing.assert_equal(found, arrays[2])
  (warning,) = [r.getMessage() for r in caplog.records if r.name == "jaxdl"]
  assert f"{one.folder / 'checkpoints' / 'c' / '3'} cannot be used" in warning
  assert "\n" not in warning
  damage(one.folder / "checkpoints" / "c" / "2")
  assert one.read_checkpoint("c") is None


def test_a_damaged_chunk_is_no_chunk(tmp_path, caplog):
  one = store.Store(tmp_path)
  arrays = {"x": np.arange(1000.0)}
  one.commit_chunk("c", arrays)
  np.testing.assert_equal(one.read_chunk("c"), arrays)
  _flip(tmp_path / "chunks")
  with caplog.at_level(logging.WARNING, "jaxdl"):
    assert one.read_chunk("c") is None
  assert "c.npz cannot be used: it is damaged" in caplog.text
  assert not one.has_chunk("c")


@pytest.fixture
def two_runs(tmp_path):
  """Stores of two runs that differ in one setting."""
  stores = [store.Store(tmp_path / str(rate)) for rate in (1, 2)]
  for rate, one in enumerate(stores):
    one.claim({"config": {"learning_rate": rate}})
  return stores


def test_a_chunk_of_another_name_or_run_is_no_chunk(two_runs, caplog):
  one, other = two_runs
  for name in ("a", "b"):
    one.commit_chunk(name, {"x": np.zeros(3)})
  chunks = one.folder / "chunks"
  (chunks / "a.npz").replace(chunks / "b.npz")
  other.commit_chunk("a", {"x": np.ones(3)})
  (other.folder / "chunks" / "a.npz").replace(chunks / "a.npz")
  with caplog.at_level(logging.WARNING, "jaxdl"):
    assert one.read_chunk("a") is one.read_chunk("b") is None
  first, second = [record.getMessage() for record in caplog.records]
  assert f"it is of chunk a of run {other.run}, not of chunk a of run {one.run}" in first
  assert f"it is of chunk a of run {one.run}, not of chunk b" in second


def test_a_checkpoint_of_another_chunk_or_run_is_not_used(two_runs):
  one, other = two_runs
  arrays = {"epoch": np.int64(1)}
  for from_, name in ((one, "a"), (other, "b")):
    from_.save_checkpoint(name, 1, arrays)
    from_.flush()
    from_.close()
  there = one.folder / "checkpoints"
  shutil.copytree(there / "a", there / "c")
  shutil.copytree(other.folder / "checkpoints" / "b", there / "b")
  assert one.read_checkpoint("c") is one.read_checkpoint("b") is None
  np.testing.assert_equal(one.read_checkpoint("a")[1], arrays)


def test_a_chunk_from_before_it_carried_its_owner_is_no_chunk(two_runs, caplog):
  arrays = {"x": np.arange(3.0)}
  digest = hashlib.sha256(b"x <f8 (3,)\n" + arrays["x"].tobytes()).digest()
  file = two_runs[0].folder / "chunks" / "a.npz"
  file.parent.mkdir()
  np.savez(file, sha256=np.frombuffer(digest, np.uint8), **arrays)
  with caplog.at_level(logging.WARNING, "jaxdl"):
    assert two_runs[0].read_chunk("a") is None
  assert "it does not say which chunk and run it is of" in caplog.text


def test_nothing_is_written_once_another_run_has_the_folder(two_runs):
  one, other = two_runs
  (other.folder / "run.json").replace(one.folder / "run.json")
  before = sorted(one.folder.rglob("*"))
  for write in (
    lambda: one.commit_chunk("a", {}),
    lambda: one.save_checkpoint("a", 1, {}),
    lambda: one.split("a"),
    lambda: one.write_failure("a", "why"),
  ):
    with pytest.raises(InputError, match="was deleted or replaced by another one"):
      write()
  assert sorted(one.folder.rglob("*")) == before


def test_a_commit_ends_the_checkpoints_of_its_chunk(saved):
  one, _ = saved
  one = store.Store(one.folder, one.run)
  one.save_checkpoint("c", 4, {"epoch": np.int64(4)})
  one.commit_chunk("c", {"x": np.zeros(3)})
  one.close()
  assert not (one.folder / "checkpoints" / "c").exists()
  assert one.read_checkpoint("c") is None


def test_what_killed_processes_left_is_swept_away(saved):
  one, _ = saved
  other = _CHUNK.replace("s0", "s1")
  litter = [
    one.folder / "checkpoints" / _CHUNK / "4.orbax-checkpoint-tmp",
    one.folder / "checkpoints" / _CHUNK / ".1",
    one.folder / "chunks" / f".{_CHUNK}.npz.{'0' * 32}.tmp",
    one.folder / f".run.json.{'0' * 32}.tmp",
    one.folder / "checkpoints" / other / "1",  # of a chunk that is committed
  ]
  kept = [one.folder / ".git", one.folder / "chunks" / ".notes", one.folder / "notes.tmp"]
  one.commit_chunk(other, {"x": np.zeros(1)})
  for path in (*litter, *kept):
    path.mkdir(parents=True)
  one.claim({"config": {}})
  assert not any(path.exists() for path in litter)
  assert all(path.exists() for path in kept)


def _fill(one):
  """Makes a store hold one of everything."""
  other = _CHUNK.replace("s0", "s1")
  one.save_checkpoint(_CHUNK, 1, {"epoch": np.int64(1)})
  one.flush()
  one.close()
  one.split(_CHUNK)
  one.write_failure(_CHUNK, "why")
  one.commit_chunk(other, {"x": np.zeros(1)})
  with locks.exclusive(one.folder / "locks" / other):
    pass
  (one.folder / "chunks" / f".{_CHUNK}.npz.{'0' * 32}.tmp").write_text("half")


def test_a_run_is_deleted_as_a_whole(two_runs):
  one, _ = two_runs
  _fill(one)
  one.clear()
  assert not list(one.folder.iterdir())
  one.clear()
  assert one.read_identity() is None


def test_a_run_is_deleted_while_a_worker_finishes_a_file_of_it(two_runs, monkeypatch):
  one, _ = two_runs
  _fill(one)
  late, rmdir = [one.folder / "checkpoints" / _CHUNK / "late"], os.rmdir

  def write_first(*arguments, **options):
    if late:
      late.pop().write_text("late")
    return rmdir(*arguments, **options)

  monkeypatch.setattr(os, "rmdir", write_first)
  one.clear()
  assert not late
  assert not list(one.folder.iterdir())


@pytest.mark.parametrize(
  "name", [".git", "notes.txt", "chunks/mine.npz", f"checkpoints/{_CHUNK}/x"]
)
def test_what_no_run_has_made_keeps_a_run_from_being_deleted(two_runs, name):
  one, _ = two_runs
  _fill(one)
  (one.folder / name).write_text("mine")
  before = sorted(one.folder.rglob("*"))
  with pytest.raises(InputError, match=re.escape(f"{name}' was made by no run")):
    one.clear()
  assert sorted(one.folder.rglob("*")) == before
  assert one.read_identity() == {"config": {"learning_rate": 0}}


def test_what_no_run_has_made_keeps_a_folder_from_being_claimed(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(InputError, match=r"notes\.txt' was made by no run"):
    store.Store(tmp_path).claim({"config": {}})
  (tmp_path / "notes.txt").rename(tmp_path / "run.json")
  for do in ("clear", "read_identity"):
    with pytest.raises(InputError, match=r"run\.json' is damaged or of no run"):
      getattr(store.Store(tmp_path), do)()
  assert (tmp_path / "run.json").read_text() == "mine"


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_read(tmp_path):
  for name in ("run.json", files.MANIFEST):
    os.mkfifo(tmp_path / name)
  with pytest.raises(InputError, match=r"run\.json' is .* no regular file"):
    store.Store(tmp_path).read_identity()
  with pytest.raises(InputError, match=f"{files.MANIFEST}' was made by no run"):
    files.check_replaceable(tmp_path, [])


def test_the_rest_of_a_run_that_is_being_deleted_is_no_run(two_runs, monkeypatch):
  """Whatever is deleted first, a kill then leaves nothing that is gone on with."""
  one, _ = two_runs
  _fill(one)

  def fail(*_, **__):
    raise PermissionError(13, "Permission denied")

  with monkeypatch.context() as patch:
    patch.setattr(shutil, "rmtree", fail)
    with pytest.raises(InputError, match=r"cannot delete the run in .*: Permission denied"):
      one.clear()
  for do in (one.join, lambda: one.claim({"config": {}}), lambda: one.commit_chunk(_CHUNK, {})):
    with pytest.raises(InputError, match="is half deleted; delete the rest with --overwrite"):
      do()
  one.clear()
  assert not list(one.folder.iterdir())


def test_a_full_disk_is_one_line_and_the_last_state_stays(saved):
  """A limit on the size of files stands for a disk that is full: the system refuses to write."""
  one, arrays = saved
  code = f"""
    import pathlib, resource
    import numpy as np
    from jaxdl.store import store
    from jaxdl.errors import InputError
    one = store.Store(pathlib.Path({str(one.folder)!r}), {one.run!r})
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, {resource.RLIM_INFINITY}))
    random = np.random.default_rng(0).random(100_000)
    for write in (lambda: (one.save_checkpoint("c", 4, {{"x": random}}), one.flush()),
                  lambda: one.commit_chunk("c", {{"x": random}})):
      try:
        write()
        print("written")
      except InputError as error:
        print(error)
  """
  run = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT
  )
  lines = run.stdout.splitlines()
  assert [line.rpartition(": ")[2] for line in lines] == ["File too large"] * 2, run
  assert "Traceback" not in run.stderr
  names = {p.name for p in one.folder.rglob("*") if "tmp" in p.name or p.name == "4"}
  assert not names
  np.testing.assert_equal(one.read_checkpoint("c")[1], arrays[3])
