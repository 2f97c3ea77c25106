"""How much fits this machine's memory."""

import os
import pathlib

from jaxdl import errors


def machine_bytes() -> int:
  """Returns the bytes of memory that this process may use: the machine's, or its container's."""
  total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  try:
    limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")
    return min(total, int(limit))
  except (OSError, ValueError):  # no such file, or "max": no limit
    return total


def check_fits(num_bytes: int) -> None:
  """Raises InputError if arrays are larger than this machine's memory."""
  if num_bytes > (there := machine_bytes()):
    raise errors.InputError(
      f"has arrays of {num_bytes:,} bytes, and this machine has {there:,} bytes of memory"
    )
