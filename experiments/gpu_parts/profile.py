"""Where the time of an epoch goes, by JAX's profiler."""

import glob
import tempfile

import jax

from .networks import WORKLOADS
from .part import Part
from .timing import compile_arm

# Names of kernels and operations, the first that fits.
_KINDS = {
  "matrix products": ("gemm", "cublas", "cutlass", "xmma", "dot", "nvjet", "ynn"),
  "convolutions": ("conv", "cudnn"),
  "random numbers and sorting": ("threefry", "sort", "rng"),
  "copies and transposes": ("memcpy", "memset", "copy", "transpose", "concatenate", "slice"),
  "sums": ("reduce",),
}


def measure(part: Part):
  width = 2 if part.is_tiny else 64
  for name in ("mlp_minibatch",) if part.is_tiny else ("cnn_binary", "mlp_minibatch"):
    workload = WORKLOADS[name]
    bound = compile_arm(workload.arm, part.examples(name), width, "TF32").bound
    members = jax.block_until_ready(bound.train_epoch(bound.create(), 0)[0])
    table = f"an epoch of {width} members of {name}"
    with tempfile.TemporaryDirectory() as folder, part.trying(table):
      with jax.profiler.trace(folder):
        jax.block_until_ready(bound.train_epoch(members, 1))
      for kind, share, calls in where_time_goes(folder):
        part.row(table, what=kind, share=share, calls=calls)


def where_time_goes(folder: str) -> list[tuple[str, float, int]]:
  """Returns the five kinds of operations that take most of a profile: name, share, calls.

  The time between the first and the last operation in which none runs is `idle`.
  """
  (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
  spans = []
  for plane in jax.profiler.ProfileData.from_file(file).planes:
    of_kernels = "Stream" if plane.name.startswith("/device:GPU") else "tf_XLA"
    for line in plane.lines:
      for event in line.events if line.name.startswith(of_kernels) else ():
        # A CPU's threads also record what XLA itself does there, as `Class::Function (...)`.
        if event.duration_ns > 0 and "::" not in event.name:
          spans.append((event.start_ns, event.start_ns + event.duration_ns, event.name))
  if not spans:
    raise RuntimeError("the profile has no operations of the device")
  totals: dict[str, list[float]] = {}
  for start, end, name in spans:
    of = totals.setdefault(_kind_of(name.lower()), [0.0, 0])
    of[0], of[1] = of[0] + end - start, of[1] + 1
  busy, reached = 0.0, 0.0
  for start, end, _ in sorted(spans):
    busy += max(0.0, end - max(start, reached))
    reached = max(reached, end)
  whole = reached - min(start for start, *_ in spans)
  totals["idle"] = [whole - busy, 0]
  scale = sum(of[0] for of in totals.values())
  found = [(kind, time / scale, int(calls)) for kind, (time, calls) in totals.items()]
  return sorted(found, key=lambda of: -of[1])[:5]


def _kind_of(name: str) -> str:
  fits = (kind for kind, words in _KINDS.items() if any(word in name for word in words))
  return next(fits, "other, mostly fused element by element")
