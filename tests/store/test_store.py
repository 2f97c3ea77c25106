"""What a run keeps of its chunks: whole or refused, whatever happens to the disk."""

import contextlib
import errno
import fcntl
import hashlib
import io
import logging
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from jaxdl.errors import InputError
from jaxdl.store import files, interrupts, leases, locks, packing, store

_ARRAYS = st.dictionaries(
  st.text("abc/xyz019 é", min_size=1, max_size=12).filter(lambda name: name != "sha256"),
  st_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
  ),
  max_size=4,
)


_CHUNK = "g0-s0x1-a0x1"


def _equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(a[name], b[name])


@given(_ARRAYS)
def test_arrays_come_back(arrays):
  _equal(packing.unpack(packing.pack(arrays, "me"), "me"), arrays)


@given(_ARRAYS, st.data())
@settings(max_examples=200)
def test_damage_is_found_or_does_not_matter(arrays, data):
  """One bit, or everything after some byte: the arrays are the same, or refused."""
  content = bytearray(packing.pack(arrays, "me"))
  place = data.draw(st.integers(0, len(content) - 1))
  if data.draw(st.booleans()):
    content[place] ^= 1 << data.draw(st.integers(0, 7))
  else:
    del content[place:]
  try:
    found = packing.unpack(bytes(content), "me")
  except ValueError:
    return
  _equal(found, arrays)


@given(st.binary(max_size=300))
def test_strange_bytes_are_refused_in_one_line(content):
  with pytest.raises(ValueError, match=":") as caught:
    packing.unpack(content, "me")
  assert "\n" not in str(caught.value)


def _archive(shape="(3,)", compression=zipfile.ZIP_STORED, size=24):
  """Returns an .npz file of one array of 24 bytes, of which header and directory may say more."""
  stream = io.BytesIO()
  header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
  content = b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(size)
  with zipfile.ZipFile(stream, "w", compression) as archive:
    archive.writestr("x.npy", content)
  return stream.getvalue()


def test_what_unpacks_to_more_than_it_says_takes_no_memory():
  """Compressed zeros, an array that is larger than its file, a part larger than the archive."""
  with packing.arrays_in(io.BytesIO(_archive())) as arrays:
    assert arrays["x"].tolist() == [0, 0, 0]
  sound = _archive()
  # The size of the part, compressed and not, where the directory of the archive says it.
  place = sound.rindex(b"PK\x01\x02") + 20
  large = sound[:place] + (2**30).to_bytes(4, "little") * 2 + sound[place + 8 :]
  bomb = _archive("(12500000,)", zipfile.ZIP_DEFLATED, 10**8)
  assert len(bomb) < 10**6
  tracemalloc.start()
  for content, message in (
    (bomb, "it is compressed"),
    (_archive("(1250000000,)"), "is larger than the file"),
    (large, "parts are larger than the file"),
  ):
    with pytest.raises(ValueError, match=message):
      packing.unpack(content, "me")
  assert tracemalloc.get_traced_memory()[1] < 10**7
  tracemalloc.stop()


def test_nothing_that_is_read_can_run_code():
  class Evil:
    def __reduce__(self):
      return print, ("code of a file has run",)

  stream = io.BytesIO()
  np.savez(stream, sha256=np.zeros(32, np.uint8), x=np.array([Evil()], object))
  with pytest.raises(ValueError, match="allow_pickle=False"):
    packing.unpack(stream.getvalue(), "me")


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
  _equal(found, arrays[3])


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
  _equal(found, arrays[2])
  (warning,) = [r.getMessage() for r in caplog.records if r.name == "jaxdl"]
  assert f"{one.folder / 'checkpoints' / 'c' / '3'} cannot be used" in warning
  assert "\n" not in warning
  damage(one.folder / "checkpoints" / "c" / "2")
  assert one.read_checkpoint("c") is None


def test_a_damaged_chunk_is_no_chunk(tmp_path, caplog):
  one = store.Store(tmp_path)
  arrays = {"x": np.arange(1000.0)}
  one.commit_chunk("c", arrays)
  _equal(one.read_chunk("c"), arrays)
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
  _equal(one.read_checkpoint("a")[1], arrays)


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
  _equal(one.read_checkpoint("c")[1], arrays[3])


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


def _stage(folder, content, **options):
  with files.staging(folder, **options) as stage:
    for name, text in content.items():
      (stage / name).parent.mkdir(parents=True, exist_ok=True)
      (stage / name).write_text(text)


def _content(folder):
  """Returns name -> text of all files, the manifest apart, and None of folders."""
  paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*")}
  paths.pop(files.MANIFEST, None)
  return {name: p.read_text() if p.is_file() else None for name, p in paths.items()}


def test_staged_files_come_all_at_once_or_not_at_all(tmp_path):
  _stage(tmp_path, {"old": "old", "kept": "kept", "figures/old.png": "x"})
  before = _content(tmp_path)

  def fail():
    with files.staging(tmp_path) as stage:
      (stage / "new").write_text("new")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert _content(tmp_path) == before
  (tmp_path / "mine").write_text("mine")
  _stage(tmp_path, {"new/a": "new", "kept": "newer"}, last=["kept"])
  assert _content(tmp_path) == {"new": None, "new/a": "new", "kept": "newer", "mine": "mine"}


def _write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


@pytest.mark.parametrize(
  ("place", "put"),
  [
    ("report", lambda path: _write(path, "mine")),
    ("report", lambda path: (path.unlink(), path.mkdir(), _write(path / "notes", "mine"))),
    ("report", lambda path: (path.unlink(), path.symlink_to("../theirs"))),
    ("figures/mine.png", lambda path: _write(path, "mine")),
    ("figures/more/mine.png", lambda path: _write(path, "mine")),
    ("figures/a.png", lambda path: _write(path, "mine")),
    ("other", lambda path: _write(path, "mine")),
    (files.MANIFEST, lambda path: _write(path, "mine")),
    (files.MANIFEST, lambda path: _write(path, '{"files": {"../theirs": "0"}}')),
  ],
)
def test_nothing_is_replaced_that_did_not_come_the_same_way(tmp_path, place, put):
  folder = tmp_path / "results"
  (tmp_path / "theirs").write_text("theirs")
  _stage(folder, {"report": "report", "figures/a.png": "a"})
  put(folder / place)
  before = _content(tmp_path)
  with pytest.raises(InputError, match=f"{place.split('/')[0]}.*' was made by no run"):
    _stage(folder, {"report": "new", "figures/b.png": "b", "other": "o"})
  assert _content(tmp_path) == before


def test_a_folder_of_the_same_name_is_not_replaced_the_first_time_either(tmp_path):
  _write(tmp_path / "figures" / "mine.png", "mine")
  with pytest.raises(InputError, match=r"mine\.png' was made by no run"):
    _stage(tmp_path, {"figures/a.png": "a"})
  assert _content(tmp_path) == {"figures": None, "figures/mine.png": "mine"}


def test_killed_at_any_moment_what_is_there_can_still_be_replaced(tmp_path, monkeypatch):
  """A process that ends before the n-th change of the folder, for every n."""
  new = {"report": "new", "config": "new", "figures/b.png": "b"}

  class Killed(BaseException):
    pass

  def killing(function, left):
    def call(*arguments, **options):
      if left[0] == 0:
        raise Killed
      left[0] -= 1
      return function(*arguments, **options)

    return call

  for when in range(100):
    folder = tmp_path / str(when)
    _stage(folder, {"report": "old", "config": "old", "figures/a.png": "a"}, last=["config"])
    with monkeypatch.context() as patch:
      left = [when]
      for owner, name in ((os, "replace"), (pathlib.Path, "unlink"), (pathlib.Path, "rmdir")):
        patch.setattr(owner, name, killing(getattr(owner, name), left))
      patch.setattr(shutil, "rmtree", lambda *_, **__: None)
      try:
        _stage(folder, new, last=["config"])
        done = True
      except Killed:
        done = False
    found = _content(folder)
    if found.get("config") is not None:  # it vouches for all others
      texts = {found["config"], found.get("report")}
      assert len(texts) == 1
    _stage(folder, new, last=["config"])
    assert _content(folder) == {**new, "figures": None}
    if done:
      break
  assert when > 5


@pytest.mark.parametrize("length", [256, 5000])
def test_a_path_that_is_too_long_is_one_line(tmp_path, length):
  with pytest.raises(InputError, match="File name too long"):
    locks.Lock(tmp_path / ("a" * length))


def test_a_file_that_is_no_lock_is_left_alone(tmp_path):
  (tmp_path / ".lock").write_text("mine")
  with pytest.raises(InputError, match="is no lock"):
    locks.Lock(tmp_path)
  assert (tmp_path / ".lock").read_text() == "mine"
