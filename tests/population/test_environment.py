"""The cache of compiled programs, on a disk that is full."""

import json

from conftest import Forks

# Compiles a program with room for so many bytes in a file, and says which files are there.
_COMPILE = """
import json, os, pathlib, resource, signal, sys
import jax, jax.numpy as jnp
from jaxdl.population import environment

def compile_with(folder, limit):
  said = []
  environment._LOGGER.warning = said.append
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  environment.cache_programs(pathlib.Path(folder))
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), old[1]))
  values = jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 4)))
  resource.setrlimit(resource.RLIMIT_FSIZE, old)
  assert values.shape == (3, 3)
  there = {path.name: path.stat().st_size for path in pathlib.Path(folder).iterdir()}
  print(json.dumps([said, there]))
"""


def test_a_full_disk_leaves_no_part_of_a_program(tmp_path):
  """None is kept that later processes would neither use nor replace."""
  folder = tmp_path / "programs"
  with Forks(_COMPILE, "compile_with(*sys.argv[1:])") as forks:

    def compile_with(limit):
      result = forks(str(folder), str(limit))
      assert result.returncode == 0, result.stderr
      return json.loads(result.stdout)

    for limit in (0, 100):
      said, found = compile_with(limit)
      assert found == {}
      assert said == [f"compiled programs are not cached in {folder}: File too large"]
    said, found = compile_with(10**8)
    assert not said
    assert found
    whole = dict(found)
    for name in whole:
      (folder / name).write_bytes(b"")  # as earlier versions left it
    _, found = compile_with(10**8)
    assert found.keys() == whole.keys()
    assert all(found.values())
