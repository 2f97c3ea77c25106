"""The chunks of a run on disk: results of those that are done, checkpoints of those in training.

  chunks/NAME.npz          the results of a chunk, committed
  checkpoints/NAME/EPOCH/  a chunk after EPOCH epochs, saved by Orbax; the two newest are kept
  split/NAME               a chunk that did not fit the device and is trained in halves
  failures/NAME.txt        why a chunk failed
  run.json                 the identity of the run; other runs are refused
  continued.json           processes that went on with the run although something differed
  tensorboard/             members as TensorBoard's files, see `jaxdl.report.tensorboard`

Results and checkpoints have the same format, that of `packing.py`, and say of which chunk and run
they are, so that no file of another is taken for its own.
"""

import hashlib
import json
import logging
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.errors import InputError, brief
from jaxdl.store import checkpoints, files, leases, packing, run_folder
from jaxdl.store.packing import Arrays

_LOGGER = logging.getLogger("jaxdl")
# What run.json says while a run is deleted, so that its rest is taken for no run.
_OVERWRITTEN = {"overwritten": True}


def _run_of(identity: Mapping[str, Any] | None) -> str | None:
  if identity is None:
    return None
  text = json.dumps(identity, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


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
    self._saver = checkpoints.Saver(self._write_checkpoint, str(folder))

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
    run_folder.check_access(self.folder)
    if self.read_identity() is None:
      run_folder.check_made(self.folder)
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
    run_folder.check_access(self.folder)
    run_folder.check_made(self.folder)
    if self._read_identity() is not None:
      self._write(self.folder / "run.json", json.dumps(_OVERWRITTEN) + "\n")
    self._sweep()
    with files.naming(self.folder, "delete the run in"):
      run_folder.delete(self.folder)

  def _sweep(self):
    """Deletes what killed processes left half-written or did not come to delete."""
    run_folder.sweep(self.folder)
    for folder in self.folder.glob("checkpoints/*"):
      if self.has_chunk(folder.name):
        checkpoints.delete(folder)

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
    self._write(self._chunk_file(name), packing.pack(arrays, self._owner(name)))
    self._saver.drop(name)
    checkpoints.delete(self._checkpoint_folder(name))
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
      return None if content is None else packing.unpack(content, self._owner(name))
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
    folder = self._checkpoint_folder(name)
    for epoch in checkpoints.epochs(folder):
      try:
        arrays = packing.unpack(checkpoints.restore(folder, epoch), self._owner(name))
        if int(arrays["epoch"]) != epoch:
          raise ValueError("it is from another epoch")
        return epoch, arrays
      except Exception as error:  # Orbax and TensorStore raise errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.reject_checkpoint(name, epoch, reason)
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

  def _write_checkpoint(self, name: str, epoch: int, arrays: Arrays):
    self.check_run()  # it may have waited
    content = packing.pack(arrays, self._owner(name))
    checkpoints.save(self._checkpoint_folder(name), epoch, content)

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
