"""The chunks of a run on disk: results of those that are done, checkpoints of those in training.

  chunks/NAME.npz          the results of a chunk, committed
  checkpoints/NAME/EPOCH/  a chunk after EPOCH epochs, saved by Orbax; the two newest are kept
  split/NAME               a chunk that did not fit the device and is trained in halves
  failures/NAME.txt        why a chunk failed
  run.json                 the identity of the run; other runs are refused
  continued.json           processes that went on with the run although something differed
  tensorboard/             members as TensorBoard's files, see `jaxdl.report.tensorboard`

Results and checkpoints have the same format: an .npz file that contains a checksum and no pickle,
so that damage is detected and reading a file cannot run code. The checksum covers the name of the
chunk and the identity of the run, so that no file of another chunk or run is taken for its own.
Orbax saves this file as a single array, because its cost grows with the number of arrays (measured:
30 ms of a core for one, 90 ms for 40).
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import pathlib
import re
import shutil
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.errors import InputError, brief
from jaxdl.store import files, leases

_LOGGER = logging.getLogger("jaxdl")
_CHECKSUM = "sha256"
_OWNER = "owner"
# How long a worker may take for the file in hand after its run was overwritten.
_PATIENCE_SECONDS = 10.0
# What run.json says while a run is deleted, so that its rest is taken for no run.
_OVERWRITTEN = {"overwritten": True}
# All files that a run makes, and those that it leaves when it is killed while it writes.
_NAME = r"g\d+-s\d+x\d+-a\d+x\d+"
_MADE = re.compile(
  rf"(run|continued)\.json|dataset\.npz|(chunks/{_NAME}\.npz)|(split/{_NAME})|"
  rf"(locks/({_NAME}(\.lease)?|task-[0-9a-f]{{32}}\.lease))|(failures/{_NAME}\.txt)|"
  rf"(checkpoints/{_NAME}/\d+/.+)|"
  r"(tensorboard/[^/]+/seed_\d+/events\.out\.tfevents\.0\.jaxdl)"
)
_LITTER = re.compile(
  r"(\w+/|tensorboard/[^/]+/seed_\d+/)?\.[^/]+\.[0-9a-f]{32}\.tmp|"
  rf"checkpoints/{_NAME}/(\.\d+|\d+\.orbax[^/]*)(/.+)?"
)
# Checkpoints kept of each chunk: if the newest is damaged, the one before it is used.
_KEPT = 2

# Orbax numbers its operations in one sequence per process, so two at a time would wait for each
# other's files and fail.
_ORBAX = threading.Lock()

Arrays = Mapping[str, np.ndarray]


def pack(arrays: Arrays, owner: str) -> bytes:
  """Returns the bytes of an .npz file with the arrays, whose they are, and a checksum of it all."""
  arrays = {**arrays, _OWNER: np.frombuffer(owner.encode(), np.uint8)}
  stream = io.BytesIO()
  checksum = np.frombuffer(_digest(arrays), np.uint8)
  np.savez(stream, allow_pickle=False, **{_CHECKSUM: checksum}, **arrays)
  return stream.getvalue()


def unpack(content: bytes, owner: str) -> dict[str, np.ndarray]:
  """Returns the arrays that `pack` was given.

  Raises:
    ValueError: the bytes are not from `pack`, are damaged, or belong to another owner.
  """
  try:
    with files.arrays_in(io.BytesIO(content)) as found:
      arrays = dict(found)
    checksum = arrays.pop(_CHECKSUM).tobytes()
  except Exception as error:  # zipfile and numpy raise a dozen types of error on damaged files
    raise ValueError(f"it is damaged: {brief(error)}") from error
  if checksum != _digest(arrays):
    raise ValueError("it is damaged: wrong checksum")
  if _OWNER not in arrays:
    raise ValueError("it does not say which chunk and run it is of")
  found = arrays.pop(_OWNER).tobytes().decode()
  if found != owner:
    raise ValueError(f"it is of {found}, not of {owner}")
  return arrays


def _run_of(identity: Mapping[str, Any] | None) -> str | None:
  if identity is None:
    return None
  text = json.dumps(identity, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def _digest(arrays: Arrays) -> bytes:
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name} {array.dtype.str} {arrays[name].shape}\n".encode())
    digest.update(array.reshape(-1).view(np.uint8))
  return digest.digest()


def _delete_folder(folder: pathlib.Path):
  """Deletes a folder, also while a worker that outlived its run finishes a file in it."""
  last = time.monotonic() + _PATIENCE_SECONDS
  while folder.exists():
    try:
      shutil.rmtree(folder)
    except OSError as error:
      if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > last:
        raise
      time.sleep(0.1)


class Store:
  """The folder of one run. Threads may share it, and so may processes that train other chunks.

  Attributes:
    folder: where everything is.
    run: what tells its run from others, a hash of its identity; None before there is one.
  """

  def __init__(self, folder: pathlib.Path, run: str | None = None):
    """Uses a folder, which may already have content; writes nothing yet.

    Args:
      folder: created once something is written.
      run: of the store that has claimed the folder, in a process that works for it.
    """
    self.folder, self.run = folder, run
    self._saver = _Saver(self._write_checkpoint, str(folder))

  # --- Which run this is ---

  def claim(self, identity: Mapping[str, Any], shared: bool = False) -> dict[str, Any]:
    """Claims the folder for a run, unless another run has claimed it.

    Args:
      identity: everything that the results depend on.
      shared: other processes may be writing to the folder.

    Returns:
      The identity of the run that claimed the folder first; `identity` if this one did. The caller
      compares the two.

    Raises:
      InputError: the folder cannot be written, its content cannot be read, or is none of a run's.
    """
    self._check_access()
    if self.read_identity() is None:
      self._check_made()
      self._write(self.folder / "run.json", json.dumps(identity, indent=2) + "\n")
    claimed = self.join()
    if not shared:
      self._sweep()
    return dict(identity) if claimed is None else claimed

  def join(self) -> dict[str, Any] | None:
    """Makes this the store of the run that has claimed the folder; returns its identity or None.

    Raises:
      InputError: it cannot be read.
    """
    identity = self.read_identity()
    self.run = _run_of(identity)
    return identity

  def check_run(self):
    """Raises InputError if the folder is no longer that of the run that this store is of.

    A worker may outlive the process that it works for, while another run takes the folder.
    """
    if _run_of(self.read_identity()) != self.run:
      raise InputError(f"the run in {str(self.folder)!r} was deleted or replaced by another one")

  def read_identity(self) -> dict[str, Any] | None:
    """Returns the identity of the run that claimed the folder, or None if there is none.

    Raises:
      InputError: it cannot be read.
    """
    identity = self._read_identity()
    if identity == _OVERWRITTEN:
      raise InputError(
        f"the run in {str(self.folder)!r} is half deleted; delete the rest with --overwrite"
      )
    return identity

  def _read_identity(self) -> dict[str, Any] | None:
    file = self.folder / "run.json"
    try:
      if file.exists() and not file.is_file():
        raise ValueError("it is no regular file")  # reading a pipe might never end
      identity = json.loads(file.read_text(encoding="utf-8"))
      if identity != _OVERWRITTEN and not isinstance(identity["config"], dict):
        raise ValueError("its config is none")
    except FileNotFoundError:
      return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
      raise InputError(
        f"{str(file)!r} is damaged or of no run ({brief(error)}); move it away, or choose another "
        "workdir"
      ) from error
    return identity

  def note_continuation(self, differences: Sequence[str]):
    """Records that from now on chunks are trained by a process that differs from the run's first.

    Args:
      differences: in what it differs, a line each; empty if it does not.

    Raises:
      InputError: the record cannot be read or written.
    """
    records = self.continuations()
    if list(differences) == (records[-1]["differences"] if records else []):
      return
    done = sorted(path.stem for path in self.folder.glob("chunks/[!.]*.npz"))
    begun = sorted({path.parent.name for path in self.folder.glob("checkpoints/*/[0-9]*")})
    records.append({"differences": list(differences), "done": done, "begun": begun})
    self._write(self.folder / "continued.json", json.dumps(records, indent=2) + "\n")

  def continuations(self) -> list[dict[str, list[str]]]:
    """Returns the records of `note_continuation`, oldest first.

    Each has the process's `differences`, and the names of the chunks that were then `done` and
    `begun`.

    Raises:
      InputError: they cannot be read.
    """
    file = self.folder / "continued.json"
    try:
      if not os.path.lexists(file):
        return []
      if not file.is_file():
        raise ValueError("it is no regular file")
      records = json.loads(file.read_text(encoding="utf-8"))
      return [
        {key: list(map(str, record[key])) for key in ("differences", "done", "begun")}
        for record in records
      ]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
      raise InputError(f"{str(file)!r} is damaged ({brief(error)}); move it away") from error

  def clear(self):
    """Deletes the run in the folder, its identity last.

    Raises:
      InputError: something in the folder was made by no run, and nothing is deleted; or something
        cannot be deleted.
    """
    self._check_access()
    self._check_made()
    if self._read_identity() is not None:
      self._write(self.folder / "run.json", json.dumps(_OVERWRITTEN) + "\n")
    self._sweep()
    with files.naming(self.folder, "delete the run in"):
      for name in ("checkpoints", "chunks", "split", "failures", "locks", "tensorboard"):
        _delete_folder(self.folder / name)
      (self.folder / "continued.json").unlink(missing_ok=True)
      (self.folder / "run.json").unlink(missing_ok=True)

  def _check_made(self):
    """Raises InputError if something in the folder was made by no run."""
    for name in sorted(self._files()):
      if not _MADE.fullmatch(name) and not _LITTER.fullmatch(name):
        raise InputError(
          f"{str(self.folder / name)!r} was made by no run; move it away, or choose another workdir"
        )

  def _files(self) -> Iterator[str]:
    """Yields the names of all files, and of links, relative to the folder."""
    for folder, folders, names in os.walk(self.folder):
      links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
      for name in (*names, *links):
        yield (pathlib.Path(folder) / name).relative_to(self.folder).as_posix()

  def _check_access(self):
    """Raises InputError if this process lacks permission to read or replace something.

    Otherwise a checkpoint that it may not read would later be taken for damaged, and deleted.
    """

    def refuse(error: OSError):
      if not isinstance(error, FileNotFoundError):
        raise InputError(f"cannot read {error.filename!r}: {error.strerror}") from error

    for folder, _, names in os.walk(self.folder, onerror=refuse):
      if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder!r}: Permission denied")
      for file in (os.path.join(folder, name) for name in names):
        # A file that no longer exists was another process's.
        if not os.access(file, os.R_OK) and os.path.lexists(file):
          raise InputError(f"cannot read {file!r}: Permission denied")

  def _sweep(self):
    """Deletes what killed processes left half-written or did not come to delete."""
    for pattern in (".*", "*/.*", "checkpoints/*/*", "tensorboard/*/*/.*"):
      for path in self.folder.glob(pattern):
        if not _LITTER.fullmatch(path.relative_to(self.folder).as_posix()):
          continue
        if path.is_dir():
          shutil.rmtree(path, ignore_errors=True)
        else:
          path.unlink(missing_ok=True)
    for folder in self.folder.glob("checkpoints/*"):
      if self.has_chunk(folder.name):
        self._delete_checkpoints(folder.name)

  def newest_change(self) -> float:
    """Returns when a chunk was last committed or failed, by the clock of the disk; 0: never."""
    files_of = [*self.folder.glob("chunks/[!.]*"), *self.folder.glob("failures/[!.]*")]
    return max((path.stat().st_mtime for path in files_of), default=0.0)

  def lease(self, name: str) -> leases.Lease:
    """Takes the lease of a chunk, for processes that share out the chunks of a run.

    Raises:
      BlockingIOError: another process has it.
      InputError: it cannot be written.
    """
    try:
      return leases.Lease(self.lease_file(name))
    except BlockingIOError:
      raise
    except OSError as error:
      raise InputError(f"cannot write to {str(self.folder)!r}: {error.strerror}") from error

  def lease_file(self, name: str) -> pathlib.Path:
    """Returns the file of `lease`, which is there while a process has it, and if it was killed."""
    return self.folder / "locks" / f"{name}.lease"

  def join_tasks(self) -> leases.Lease:
    """Takes a lease that says that a process shares out the chunks of this run with others.

    Raises:
      InputError: it cannot be written.
    """
    self.count_tasks()  # deletes leases of dead ones
    with files.naming(self.folder):
      return leases.Lease(self.folder / "locks" / f"task-{uuid.uuid4().hex}.lease")

  def count_tasks(self) -> int:
    """Returns how many processes have the lease of `join_tasks`; deletes those of dead ones.

    Raises:
      InputError: they cannot be read.
    """
    count = 0
    with files.naming(self.folder):
      for file in self.folder.glob("locks/task-*.lease"):
        if leases.is_live(file):
          count += 1
        else:
          file.unlink(missing_ok=True)
    return count

  def log_resumption(self, names: Sequence[str]):
    """Logs in one line how many of the chunks are done or have begun, if any."""
    done = sum(self.has_chunk(name) for name in names)
    begun = len({path.parent for path in self.folder.glob("checkpoints/*/[0-9]*")})
    if done or begun:
      _LOGGER.info(
        "resuming the run in %s: %d of %d chunks are done, %d have begun",
        *(self.folder, done, len(names), begun),
      )

  # --- Results of chunks ---

  def commit_chunk(self, name: str, arrays: Arrays):
    """Writes the results of a chunk, and deletes its checkpoints, which are no longer needed.

    Raises:
      InputError: they cannot be written, or another run has taken the folder.
    """
    self.check_run()
    self._write(self._chunk_file(name), pack(arrays, self._owner(name)))
    self._saver.drop(name)
    self._delete_checkpoints(name)
    self.failure_file(name).unlink(missing_ok=True)

  def read_chunk(self, name: str) -> dict[str, np.ndarray] | None:
    """Returns the results of a chunk, or None if it has none; warns if they cannot be used.

    Raises:
      InputError: they exist but cannot be read from the disk.
    """
    file = self._chunk_file(name)
    try:
      with files.naming(file, "read"):
        content = file.read_bytes() if self.has_chunk(name) else None
      return None if content is None else unpack(content, self._owner(name))
    except ValueError as error:
      if isinstance(error, InputError):
        raise
      _LOGGER.warning("%s cannot be used: %s; the chunk is trained again", file, error)
      file.unlink(missing_ok=True)
      return None

  def delete_chunk(self, name: str):
    """Deletes the results of a chunk, if it has any."""
    self._chunk_file(name).unlink(missing_ok=True)

  def has_chunk(self, name: str) -> bool:
    """Returns whether a chunk is committed; its results may still be damaged.

    Raises:
      InputError: the disk cannot be read.
    """
    file = self._chunk_file(name)
    with files.naming(file, "read"):
      return file.is_file()

  def _chunk_file(self, name: str) -> pathlib.Path:
    return self.folder / "chunks" / f"{name}.npz"

  def _owner(self, name: str) -> str:
    return f"chunk {name} of run {self.run or 'unknown'}"

  # --- Checkpoints ---

  def save_checkpoint(self, name: str, epoch: int, arrays: Arrays):
    """Saves a checkpoint of a chunk, in the background.

    Raises:
      InputError: an earlier checkpoint could not be written, or another run has taken the folder.
    """
    self.check_run()
    self._saver.save(name, epoch, arrays)

  def read_checkpoint(self, name: str) -> tuple[int, dict[str, np.ndarray]] | None:
    """Returns the epoch and the arrays of a chunk's newest sound checkpoint, or None without one.

    Those that cannot be used are deleted, each with a warning.
    """
    folders = [p for p in self._checkpoint_folder(name).glob("*") if p.name.isdecimal()]
    for folder in sorted(folders, key=lambda path: int(path.name), reverse=True):
      try:
        arrays = unpack(_restore(folder), self._owner(name))
        if int(arrays["epoch"]) != int(folder.name):
          raise ValueError("it is from another epoch")
        return int(folder.name), arrays
      except Exception as error:  # Orbax and TensorStore raise errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.reject_checkpoint(name, int(folder.name), reason)
    return None

  def reject_checkpoint(self, name: str, epoch: int, reason: str):
    """Deletes a checkpoint that cannot be used, with a warning."""
    folder = self._checkpoint_folder(name) / str(epoch)
    _LOGGER.warning("%s cannot be used: %.200s; the one before it is", folder, reason)
    shutil.rmtree(folder, ignore_errors=True)

  def flush(self):
    """Waits until all checkpoints are written.

    Raises:
      InputError: one could not be written.
    """
    self._saver.flush()

  def close(self):
    """Waits until all checkpoints are written or one has failed, then ends the thread."""
    self._saver.close()

  def _checkpoint_folder(self, name: str) -> pathlib.Path:
    return self.folder / "checkpoints" / name

  def _delete_checkpoints(self, name: str):
    folder = self._checkpoint_folder(name)
    for path in folder.glob("*"):
      if path.name.isdecimal():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is none, or something else is in it
      folder.rmdir()

  def _write_checkpoint(self, name: str, epoch: int, arrays: Arrays):
    self.check_run()  # it may have waited
    folder = self._checkpoint_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / str(epoch), pack(arrays, self._owner(name)))
    older = sorted((int(p.name) for p in folder.glob("*") if p.name.isdecimal()), reverse=True)
    for old in older[_KEPT:]:
      # Renamed first, so that a half-deleted checkpoint is never taken for a whole one.
      aside = folder / f".{old}"
      (folder / str(old)).rename(aside)
      shutil.rmtree(aside, ignore_errors=True)

  # --- Chunks that do not fit, and chunks that fail ---

  def split(self, name: str):
    """Records that a chunk is trained in halves."""
    self.check_run()
    self._write(self.folder / "split" / name, "")

  def is_split(self, name: str) -> bool:
    """Returns whether a chunk is trained in halves."""
    return (self.folder / "split" / name).exists()

  def split_chunks(self) -> list[str]:
    """Returns the names of the chunks that are trained in halves."""
    return sorted(path.name for path in self.folder.glob("split/[!.]*"))

  def write_failure(self, name: str, text: str) -> pathlib.Path:
    """Writes down why a chunk failed, and returns the file."""
    self.check_run()
    file = self.failure_file(name)
    self._write(file, text)
    return file

  def failure_file(self, name: str) -> pathlib.Path:
    """Returns the file that says why a chunk failed; it need not exist."""
    return self.folder / "failures" / f"{name}.txt"

  def _write(self, file: pathlib.Path, content: str | bytes):
    with files.naming(self.folder):
      file.parent.mkdir(parents=True, exist_ok=True)
      files.write(file, content)


class _Saver:
  """A thread that writes checkpoints, one at a time, and of each chunk only the newest.

  It replaces Orbax's background saving, which handles one checkpoint at a time per process.
  """

  def __init__(self, write: Callable[[str, int, Arrays], None], folder: str):
    self._write, self._folder = write, folder
    self._pending: dict[str, tuple[int, Arrays]] = {}
    self._writing: str | None = None
    self._error: Exception | None = None
    self._closed = False
    self._changed = threading.Condition()
    self._thread: threading.Thread | None = None

  def save(self, name: str, epoch: int, arrays: Arrays):
    with self._changed:
      self._check()
      self._pending[name] = (epoch, arrays)
      if self._thread is None:
        # A daemon, so that a second signal need not wait for the disk.
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()
      self._changed.notify_all()

  def drop(self, name: str):
    """Discards a chunk's pending checkpoint; returns when none of it is being written."""
    with self._changed:
      self._pending.pop(name, None)
      self._changed.wait_for(lambda: self._writing != name)

  def flush(self):
    with self._changed:
      self._changed.wait_for(lambda: not self._pending and self._writing is None)
      self._check()

  def close(self):
    with self._changed:
      self._closed = True
      self._changed.notify_all()
    if self._thread is not None:
      self._thread.join()

  def _check(self):
    if self._error is not None:
      raise self._error

  def _work(self):
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._pending or self._closed)
        if not self._pending:
          return
        name = next(iter(self._pending))
        epoch, arrays = self._pending.pop(name)
        self._writing = name
      error = None
      try:
        self._write(name, epoch, arrays)
      except InputError as raised:
        error = raised
      except Exception as raised:  # Orbax and TensorStore raise errors of many types
        error = InputError(f"cannot write a checkpoint to {self._folder!r}: {_reason(raised)}")
      with self._changed:
        self._writing = None
        self._error = self._error or error
        if error is not None:
          self._pending.clear()
        self._changed.notify_all()


def _reason(error: Exception) -> str:
  """Returns the operating system's message, which libraries wrap in their own."""
  text = str(error)
  for known in ("No space left on device", "File too large", "Permission denied", "Read-only"):
    if known in text:
      return known
  return getattr(error, "strerror", None) or brief(error)


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
  """Yields Orbax and a checkpointer; one thread at a time."""
  with _ORBAX:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      import orbax.checkpoint as ocp  # imported here because it takes a second

    # The caller reports failures, in one line.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      yield ocp, checkpointer


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  return "orbax" not in record.pathname


def _save(folder: pathlib.Path, content: bytes):
  tree = {"packed": np.frombuffer(content, np.uint8)}
  try:
    with _checkpointer() as (ocp, checkpointer):
      checkpointer.save(folder.absolute(), args=ocp.args.StandardSave(tree), force=True)
  except Exception:
    for unfinished in folder.parent.glob(f"{folder.name}.orbax*"):
      shutil.rmtree(unfinished, ignore_errors=True)
    raise


def _restore(folder: pathlib.Path) -> bytes:
  with _checkpointer() as (ocp, checkpointer):
    tree = checkpointer.restore(folder.absolute(), args=ocp.args.StandardRestore())
  return np.asarray(tree["packed"]).tobytes()
