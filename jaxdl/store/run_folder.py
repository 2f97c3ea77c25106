"""Which files in the folder of a run a run has made, which are half-written, and how they go."""

import errno
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator

from jaxdl.errors import InputError

# How long a worker may take for the file in hand after its run was overwritten.
_PATIENCE_SECONDS = 10.0
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


def check_made(folder: pathlib.Path):
  """Raises InputError if something in the folder was made by no run."""
  for name in sorted(_files(folder)):
    if not _MADE.fullmatch(name) and not _LITTER.fullmatch(name):
      raise InputError(
        f"{str(folder / name)!r} was made by no run; move it away, or choose another workdir"
      )


def _files(root: pathlib.Path) -> Iterator[str]:
  """Yields the names of all files, and of links, relative to the root."""
  for folder, folders, names in os.walk(root):
    links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
    for name in (*names, *links):
      yield (pathlib.Path(folder) / name).relative_to(root).as_posix()


def check_access(root: pathlib.Path):
  """Raises InputError if this process lacks permission to read or replace something.

  Otherwise a checkpoint that it may not read would later be taken for damaged, and deleted.
  """

  def refuse(error: OSError):
    if not isinstance(error, FileNotFoundError):
      raise InputError(f"cannot read {error.filename!r}: {error.strerror}") from error

  for folder, _, names in os.walk(root, onerror=refuse):
    if not os.access(folder, os.W_OK | os.X_OK):
      raise InputError(f"cannot write to {folder!r}: Permission denied")
    for file in (os.path.join(folder, name) for name in names):
      # A file that no longer exists was another process's.
      if not os.access(file, os.R_OK) and os.path.lexists(file):
        raise InputError(f"cannot read {file!r}: Permission denied")


def sweep(folder: pathlib.Path):
  """Deletes what killed processes left half-written."""
  for pattern in (".*", "*/.*", "checkpoints/*/*", "tensorboard/*/*/.*"):
    for path in folder.glob(pattern):
      if not _LITTER.fullmatch(path.relative_to(folder).as_posix()):
        continue
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)


def delete(folder: pathlib.Path):
  """Deletes everything, the run's identity last.

  Raises:
    OSError: something cannot be deleted.
  """
  for name in ("checkpoints", "chunks", "split", "failures", "locks", "tensorboard"):
    _delete_folder(folder / name)
  for name in ("continued.json", "run.json"):
    (folder / name).unlink(missing_ok=True)


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
