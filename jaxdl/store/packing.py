"""Arrays as the bytes of an .npz file, with a checksum and an owner.

Damage is detected, and as there is no pickle, reading a file runs no code.
"""

import contextlib
import hashlib
import io
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, BinaryIO

import numpy as np

from jaxdl.errors import brief

_CHECKSUM = "sha256"
_OWNER = "owner"

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
    with arrays_in(io.BytesIO(content)) as found:
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


def _digest(arrays: Arrays) -> bytes:
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name} {array.dtype.str} {arrays[name].shape}\n".encode())
    digest.update(array.reshape(-1).view(np.uint8))
  return digest.digest()


@contextlib.contextmanager
def arrays_in(stream: BinaryIO) -> Iterator[Mapping[str, np.ndarray]]:
  """Yields the arrays of an uncompressed .npz file, each of which is read when it is asked for.

  Raises:
    ValueError: it is compressed, or says of an array that it is larger than the file: such a file
      could fill the memory. Damaged files raise errors of a dozen other types.
  """
  size = stream.seek(0, io.SEEK_END)
  stream.seek(0)
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # numpy only warns about some malformed headers
    with np.load(stream, allow_pickle=False) as arrays:
      parts = arrays.zip.infolist()
      if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("it is compressed")
      if sum(part.file_size for part in parts) > size:
        raise ValueError("its parts are larger than the file")
      for part in parts:
        with arrays.zip.open(part) as file:
          if _array_size(file) > part.file_size:
            raise ValueError(f"the array {part.filename} is larger than the file")
      yield arrays


def _array_size(file: IO[bytes]) -> int:
  """Returns the number of bytes of an array, from the header of its .npy file."""
  version = np.lib.format.read_magic(file)
  read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
  shape, _, dtype = read[version](file)
  return math.prod(shape) * dtype.itemsize
