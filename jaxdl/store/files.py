"""Files that are written atomically, and folders that one process at a time may write to."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from jaxdl.errors import InputError

STAGING = ".staging"
_LOCK = ".lock"


@contextlib.contextmanager
def naming(folder: pathlib.Path, doing: str = "write to workdir") -> Iterator[None]:
  """Turns an OSError into an InputError that names the folder and the reason."""
  try:
    yield
  except OSError as error:
    raise InputError(f"cannot {doing} {str(folder)!r}: {error.strerror or error}") from error


def write(file: pathlib.Path, content: str | bytes):
  """Writes a file as `writing` does."""
  with writing(file) as stream:
    stream.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(file: pathlib.Path) -> Iterator[BinaryIO]:
  """Yields a stream to a temporary file, which is then flushed to the disk and renamed to `file`.

  Raises:
    OSError: it cannot be written. The file is then as it was before, and no other one is left.
  """
  temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
  try:
    with open(temporary, "xb") as stream:
      yield stream
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(temporary, file)
    flush_folder(file.parent)
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def flush_folder(folder: pathlib.Path):
  """Flushes the names in a folder to the disk, without which a renamed file may be lost."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:  # some file systems do not support this
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):
      raise
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def staging(
  folder: pathlib.Path, replaces: Sequence[str] = (), last: Sequence[str] = ()
) -> Iterator[pathlib.Path]:
  """Yields an empty folder whose content moves to `folder` once it is complete.

  Args:
    folder: created if it does not exist.
    replaces: names in `folder` that are deleted, even if nothing new takes their place.
    last: names that move after all others, because they vouch for the others.

  Raises:
    InputError: something cannot be written. What was in `folder` before is then still there, unless
      the move itself failed halfway.
  """
  stage = folder / STAGING
  with naming(folder):
    try:
      shutil.rmtree(stage, ignore_errors=True)  # left by a process that was killed
      stage.mkdir(parents=True)
      yield stage
      for name in replaces:
        _remove(folder / name)
      names = {path.name for path in stage.iterdir()}
      for name in (*sorted(names - set(last)), *(name for name in last if name in names)):
        if (folder / name).is_dir():
          shutil.rmtree(folder / name)
        os.replace(stage / name, folder / name)
    finally:
      shutil.rmtree(stage, ignore_errors=True)


def _remove(path: pathlib.Path):
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(file: pathlib.Path) -> Iterator[None]:
  """Holds an exclusive lock on a file, once no other process does; creates the file."""
  with naming(file.parent):
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


class Lock:
  """A folder that belongs to this process until it is released or the process dies."""

  def __init__(self, folder: pathlib.Path):
    """Locks the folder, and creates it if it does not exist.

    Raises:
      InputError: another process holds it, or it cannot be written.
    """
    self._created = [path for path in (folder, *folder.parents) if not path.exists()]
    self._file = folder / _LOCK
    with naming(folder):
      folder.mkdir(parents=True, exist_ok=True)
      while True:
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
          fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
          owner = os.read(self._descriptor, 200).decode(errors="replace").strip()
          os.close(self._descriptor)
          raise InputError(
            f"workdir {str(folder)!r} is in use by {owner or 'another process'}; wait for it, or "
            "choose another workdir"
          ) from error
        if self._is_current():
          break
        os.close(self._descriptor)  # the previous owner has just deleted it: try again
      try:
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
      except OSError:
        self.release()
        raise

  def _is_current(self) -> bool:
    try:
      return os.path.samestat(os.stat(self._file), os.fstat(self._descriptor))
    except FileNotFoundError:
      return False

  def release(self):
    """Unlocks the folder, and deletes it if it was created here and is still empty."""
    with contextlib.suppress(OSError):
      self._file.unlink()
    os.close(self._descriptor)
    for folder in self._created:  # innermost first
      with contextlib.suppress(OSError):
        folder.rmdir()

  def __enter__(self) -> "Lock":
    return self

  def __exit__(self, *_: Any):
    self.release()
