"""Members per second against members at a time; convolutions; precisions; memory."""

import concurrent.futures
import statistics
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.population import devices, own_check, plan, tuning

from .networks import WORKLOADS
from .part import Part
from .timing import PRECISIONS, Program, compile_arm, time_epochs


class Job(NamedTuple):
  """A program to time.

  Attributes:
    table: of its row.
    network: name in `WORKLOADS`.
    arm: its settings.
    width: members at a time.
    precision: name in `PRECISIONS`.
    row: what else its row says.
  """

  table: str
  network: str
  arm: Arm
  width: int
  precision: str
  row: Mapping[str, Any] = MappingProxyType({})


def measure(part: Part):
  widths, wide = ((1, 2), 2) if part.is_tiny else ((1, 4, 16, 64, 256, 1024), 64)
  names = ("mlp_minibatch",) if part.is_tiny else tuple(WORKLOADS)
  _time_widths(part, names[:2], widths)
  precisions = [
    Job("precisions", name, WORKLOADS[name].arm, wide, precision)
    for name in names
    for precision in PRECISIONS
  ]
  _time_jobs(part, [*(job for name in names for job in _convolutions(name, wide)), *precisions])
  _time_widths(part, names[2:], widths)


def _time_widths(part: Part, names: Sequence[str], widths: Sequence[int]):
  """Times workloads with several numbers of members at a time, and says where the rate flattens."""
  jobs = [
    Job(f"members at a time: {name}", name, WORKLOADS[name].arm, width, "TF32")
    for name in names
    for width in widths
  ]
  rates = _time_jobs(part, jobs)
  for place, name in enumerate(names):
    of = rates[len(widths) * place : len(widths) * (place + 1)]
    if max(of) > 0:
      enough = min(w for w, rate in zip(widths, of, strict=True) if rate >= 0.9 * max(of))
      _, planned = estimate_member(WORKLOADS[name].arm, part.examples(name))
      part.row("widths", network=name, planned=planned, at_90_percent_of_the_best_rate=enough)


def _convolutions(name: str, width: int) -> Iterator[Job]:
  """Yields a CNN with products and with XLA's convolution, which is grouped for several members."""
  if name == "cnn_binary":
    cnn = "jaxdl.nn.models:CNN(activation='relu', native_conv={})"
    models = {"products": cnn.format(False), "XLA's": cnn.format(True)}
  elif name == "resnet8":
    models = {
      "products": "resnet(8)",
      "XLA's": "experiments.gpu_parts.networks:NativeResNet(depth=8)",
    }
  else:
    return
  for how, model in models.items():
    for members in (1, width):
      # A model that is called as one of the user's own gets no dropout here.
      arm = WORKLOADS[name].arm.replace(model=model, dropout_rate=0.0)
      yield Job("convolutions", name, arm, members, "TF32", {"how": how})


def _time_jobs(part: Part, jobs: Sequence[Job]) -> list[float]:
  """Compiles all jobs in parallel, then times one after the other.

  Returns:
    Examples per second of each job; 0 where it failed, or there was no time.
  """
  rates: list[float] = []
  estimates: dict[Arm, float] = {}
  with concurrent.futures.ThreadPoolExecutor(max_workers=len(jobs) or 1) as pool:
    compiled = [pool.submit(_compile_job, part, job) for job in jobs]
    concurrent.futures.wait(compiled)  # tuning kernels uses the device too
  for job, future in zip(jobs, compiled, strict=True):
    rates.append(0.0)
    row = {"network": job.network, **job.row, "members": job.width, "precision": job.precision}
    if part.seconds_left < 0:
      part.row(job.table, **row, error="out of time")
      continue
    with part.trying(job.table, **row):
      program = future.result()
      times = time_epochs(program.bound)
      if job.arm not in estimates:
        estimates[job.arm] = estimate_member(job.arm, part.examples(job.network))[0] / 1e6
      num_train = len(program.bound.splits[0].targets)
      rates[-1] = job.width * num_train / statistics.median(times)
      part.row(
        job.table,
        **row,
        ms_per_step=1e3 * statistics.median(times) * job.arm.batch_size / num_train,
        slowest=1e3 * max(times) * job.arm.batch_size / num_train,
        examples_per_second=rates[-1],
        TFLOPs=rates[-1] * WORKLOADS[job.network].flops / 1e12,
        compile_seconds=program.compile_seconds,
        MB_per_member=program.temporary_bytes / job.width / 1e6,
        estimated_MB=estimates[job.arm],
      )
  return rates


def _compile_job(part: Part, job: Job) -> Program:
  return compile_arm(job.arm, part.examples(job.network), job.width, job.precision)


def estimate_member(arm: Arm, dataset: Dataset) -> tuple[int, int]:
  """Returns the estimated bytes of a member, and the planned width of a very large population."""
  kind = devices.kind_of(jax.local_devices()[0])
  (group,) = plan.plan_groups(dataset, {"arm": arm}, range(4096), 0, kind)
  hyper = jax.tree.map(lambda leaf: leaf[0], group.hyper)
  member = own_check.member_shapes(group.recipe, hyper)
  state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(member))
  estimate = 3 * state + tuning.activation_bytes(group.recipe, member, hyper)
  return estimate, group.layout.chunk_size
