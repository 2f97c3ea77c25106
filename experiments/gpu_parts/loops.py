"""What a short step costs, with several settings of XLA: 600,000 of them are of batch size 1."""

import argparse
import json
import os
import pathlib
import tempfile

from .datasets import first_examples, load
from .networks import WORKLOADS
from .part import Part
from .processes import start_other
from .timing import compile_arm, time_epochs

# Settings of XLA that change what a step inside a loop costs, where steps are short.
_FLAGS = {
  "as XLA has it": "",
  "no CUDA graphs": "--xla_gpu_enable_command_buffer=",
  "CUDA graphs with loops": "--xla_gpu_enable_command_buffer="
  "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION",
  "loops unrolled twice": "--xla_gpu_enable_while_loop_double_buffering=true",
}


def measure(part: Part):
  settings = [*_FLAGS.items()]
  for name, flags in settings[:1] if part.is_tiny else settings:
    if part.seconds_left < 0:
      return
    with tempfile.TemporaryDirectory() as folder:
      flags = " ".join((os.environ.get("XLA_FLAGS", ""), flags))
      env = {**part.environment, "XLA_FLAGS": flags}
      found = start_other("steps", f"{folder}/steps.json", env, part.options)()
    part.row("µs a step", setting=name, **(found if isinstance(found, dict) else {"error": found}))


def steps(options: argparse.Namespace) -> int:
  """Times steps of `mlp` at batch sizes 1 and 32, and writes their microseconds."""
  is_tiny = options.scale == "tiny"
  width, number = (2, 20) if is_tiny else (64, 500)
  mnist = load(options.data or None)["mnist"]
  found = {}
  for batch_size in (1, 32):
    arm = WORKLOADS["mlp_minibatch"].arm.replace(batch_size=batch_size)
    dataset = first_examples(mnist, number * batch_size)
    times = time_epochs(compile_arm(arm, dataset, width).bound)
    found[f"batch {batch_size}, {width} members"] = 1e6 * min(times) / number
  pathlib.Path(options.out).write_text(json.dumps(found), encoding="utf-8")
  return 0
