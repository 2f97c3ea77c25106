"""Files and folders that are written atomically; errors that name the file."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from jaxdl.errors import InputError

MANIFEST = "files.json"
_STAGING = ".jaxdl-"


def expand_home(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path that a user means: `~/x` is in the home, and `./~` is a folder called so.

  Raises:
    InputError: there is no such home.
  """
  given = os.fspath(path)
  if not given.startswith("~"):  # pathlib drops the `./` of `./~` before it expands
    return pathlib.Path(given)
  try:
    return pathlib.Path(given).expanduser()
  except RuntimeError as error:
    raise InputError(f"{given!r} cannot be resolved ({error})") from error


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
  folder: pathlib.Path, manifest: str = MANIFEST, last: Sequence[str] = ()
) -> Iterator[pathlib.Path]:
  """Yields an empty folder whose content moves to `folder` in place of what came there before.

  The file `manifest` lists what comes, with hashes, under "files". Nothing is deleted or replaced
  that it does not list, or that has changed since. It is there before the others and stays until
  they are gone, so that it vouches for them whenever the process is killed.

  Args:
    folder: created if it does not exist; one process at a time, see `locks.Lock`.
    manifest: a JSON file of an object, which may be staged with other content.
    last: names that are deleted before all others and move after them, as they vouch for the rest.

  Raises:
    InputError: something cannot be written, or stands in the place of what comes. What was in
      `folder` before is then still there, unless the move itself failed halfway.
  """
  with naming(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_STAGING}*"):  # by a process that was killed
      if re.fullmatch(r"[0-9a-f]{32}", left.name.removeprefix(_STAGING)):
        shutil.rmtree(left)
    stage = folder / f"{_STAGING}{uuid.uuid4().hex}"
    try:
      stage.mkdir()
      yield stage
      _write_manifest(stage, manifest)
      names = {path.name for path in stage.iterdir()}
      made = check_replaceable(folder, sorted(names), manifest)
      _delete(folder, sorted(made, key=lambda name: name not in last))
      (folder / manifest).unlink(missing_ok=True)
      ends = {manifest: 0, **{name: 2 + place for place, name in enumerate(last)}}
      for name in sorted(names, key=lambda name: ends.get(name, 1)):
        os.replace(stage / name, folder / name)
      flush_folder(folder)
    finally:
      shutil.rmtree(stage, ignore_errors=True)


def check_replaceable(
  folder: pathlib.Path, names: Sequence[str], manifest: str = MANIFEST
) -> list[str]:
  """Checks that `staging` may put files and folders of some names into a folder.

  Returns:
    The files that would be deleted: all that the folder's manifest lists.

  Raises:
    InputError: something stands in the place of what would come, or of what would be deleted, that
      did not come there by `staging` or has changed since; it names the file.
  """
  made = _read_manifest(folder / manifest)
  tops = {name.partition("/")[0] for name in made}
  for name in sorted({*names, *tops} - {manifest}):
    for path in _files_in(folder / name):
      known = made.get(path.relative_to(folder).as_posix())
      if known is None or not _is_as_made(path, known):
        raise InputError(
          f"{str(path)!r} was made by no run, or has changed since; move it away, or choose "
          "another workdir"
        )
  return list(made)


def check_intact(
  folder: pathlib.Path, manifest: str = MANIFEST, select: Callable[[str], bool] | None = None
) -> list[str]:
  """Checks that what `staging` put into a folder is as it was then.

  Args:
    folder: the folder.
    manifest: as of `staging`.
    select: of the name of a file, whether it is checked; None: all are.

  Returns:
    The names of the files that the folder's manifest lists; no other file came by `staging`.

  Raises:
    InputError: there is no manifest, or a file is missing, has changed or cannot be read; it names
      the file.
  """
  if not os.path.lexists(folder / manifest):
    raise InputError(f"{str(folder)!r} holds no finished run: there is no {manifest}")
  made = _read_manifest(folder / manifest)
  for name, known in made.items():
    if select is not None and not select(name):
      continue
    with naming(folder / name, "read"):
      if not _is_as_made(folder / name, known):
        raise InputError(f"{str(folder / name)!r} is missing, or has changed since it was made")
  return list(made)


def _is_as_made(path: pathlib.Path, known: str) -> bool:
  return path.is_file() and not path.is_symlink() and known == _hash(path)


def _write_manifest(stage: pathlib.Path, manifest: str):
  file = stage / manifest
  content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
  paths = sorted(path for path in stage.rglob("*") if path.is_file() and path != file)
  content["files"] = {path.relative_to(stage).as_posix(): _hash(path) for path in paths}
  write_json(file, content)


def write_json(file: pathlib.Path, value: Any) -> None:
  """Writes a value that has neither NaN nor infinity."""
  file.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _read_manifest(file: pathlib.Path) -> dict[str, str]:
  """Returns name -> hash of the files that a manifest lists, or nothing without a manifest."""
  if not os.path.lexists(file):
    return {}
  with naming(file, "read"):
    text = file.read_bytes() if file.is_file() else b""  # reading a pipe might never end
  try:
    made = json.loads(text)["files"]
    if not all(_is_below(name) for name in made):
      raise ValueError("it lists a file of another folder")
    return dict(made.items())
  except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
    raise InputError(
      f"{str(file)!r} was made by no run, or by an older version of jaxdl; move it away, or choose "
      "another workdir"
    ) from error


def _is_below(name: str) -> bool:
  return not pathlib.PurePosixPath(name).is_absolute() and ".." not in name.split("/")


def _files_in(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the files and links at or below a path, in order."""
  if path.is_dir() and not path.is_symlink():
    for inner in sorted(path.iterdir()):
      yield from _files_in(inner)
  elif os.path.lexists(path):
    yield path


def _hash(file: pathlib.Path) -> str:
  with open(file, "rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _delete(folder: pathlib.Path, names: Sequence[str]):
  """Deletes files in a folder, and the folders below it that they leave empty."""
  for name in names:
    (folder / name).unlink(missing_ok=True)
  folders = {parent for name in names for parent in pathlib.PurePosixPath(name).parents}
  for inner in sorted(folders, key=lambda path: -len(path.parts)):
    if inner.parts:
      with contextlib.suppress(OSError):  # it is not empty, or not there
        (folder / inner).rmdir()
