"""64 members of `cnn_binary` against PyTorch, one after the other and by torch.func."""

import contextlib
import importlib.util
import os
import runpy
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.population import devices

from .. import CONFIGS
from ..peers import process, torch_peer
from .networks import WORKLOADS
from .part import Part
from .processes import ROOT
from .timing import compile_arm, matmul_rate, time_epochs


def measure(part: Part):
  wide = 2 if part.is_tiny else 64
  workload, dataset = WORKLOADS["cnn_binary"], part.examples("cnn_binary")
  has_torch = importlib.util.find_spec("torch") is not None
  table = f"seconds an epoch of {len(dataset.train):,} images"
  for precision in ("TF32", "float32"):
    ours = {}
    for width in (1, wide):
      program = compile_arm(workload.arm, dataset, width, precision)
      ours[width] = statistics.median(time_epochs(program.bound))
      rate = width * len(dataset.train) * workload.flops / ours[width]
      peak = matmul_rate(precision, 512 if part.is_tiny else 8192, 0.3)
      row = {"precision": precision, "system": "jaxdl", "members": width, "seconds": ours[width]}
      part.row(table, **row, per_member=ours[width] / width, of_the_matmul_rate=rate / peak)
    part.check(
      f"{wide} members take at most twice the time of one ({precision})",
      f"{ours[wide] / ours[1]:.2f} times",
      ours[wide] <= 2 * ours[1],
    )
    for kind, members, least in (("one by one", 1, 20), ("torch.func", wide, 3)):
      text = f"{wide} members: at least {least} times as fast as PyTorch, {kind} ({precision})"
      times = _time_torch(part, table, dataset, members, precision) if has_torch else {}
      for variant, seconds in times.items():
        row = {"precision": precision, "system": f"PyTorch, {variant}", "members": members}
        part.row(table, **row, seconds=seconds, per_member=seconds / members)
      ratio = min(times.values(), default=0.0) / members / (ours[wide] / wide)
      value = f"{ratio:.1f} times" if times else "PyTorch is missing, or fails"
      part.check(text, value, ratio >= least if times else None)


def _time_torch(
  part: Part, table: str, dataset: Dataset, members: int, precision: str
) -> dict[str, float]:
  """Returns PyTorch's seconds an epoch of all members, by variant; compiled ones take too long."""
  from .. import workloads  # it needs a package that the other parts do without

  config = runpy.run_path(str(CONFIGS / "benchmark.py"))["get_config"]().workloads.cnn_binary
  on = precision == "TF32"
  environment = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if on else {"NVIDIA_TF32_OVERRIDE": "0"}
  times = {}
  with tempfile.TemporaryDirectory() as folder, _environment(environment):
    arrays = {
      f"{name}_{kind}": array
      for name, split in (("train", dataset.train), ("test", dataset.test))
      for kind, array in (("images", split.inputs), ("labels", split.targets))
    }
    np.savez(f"{folder}/data.npz", **arrays)
    spec = {
      "data": f"{folder}/data.npz",
      "layers": workloads.layers(config, 2),
      **{key: config[key] for key in ("loss", "optimizer", "learning_rate")},
      "batch_size": min(config.batch_size, len(dataset.train)),
      "threads": devices.num_cores(),
      "num_members": members,
      "device": part.options.device,
    }
    for variant in torch_peer.variants(spec):
      if variant["compile"] != "none":
        continue
      with part.trying(table, precision=precision, system=f"PyTorch, {variant['name']}"):
        arguments = {**spec, "variant": variant}
        worker = process.Worker(sys.executable, torch_peer.__name__, arguments, ROOT)
        try:
          for _ in range(3):
            worker.send("train", num_epochs=1, num_examples=None)
            times[variant["name"]] = worker.read()["seconds"]
        finally:
          worker.close()
  return times


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
  """Sets variables for the processes that are started meanwhile."""
  before = dict(os.environ)
  os.environ |= variables
  try:
    yield
  finally:
    for name in variables:
      os.environ.pop(name)
    os.environ |= before
