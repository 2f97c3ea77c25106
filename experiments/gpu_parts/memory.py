"""Several processes on one device; a population that is too large for what one may use."""

import argparse
import tempfile
import time

import jax

from jaxdl import data
from jaxdl.population.population import train_population
from jaxdl.population.progress import Progress

from .machine import device_memory
from .networks import WORKLOADS
from .part import Part
from .populations import estimate_member
from .processes import start_other


def measure(part: Part):
  if part.options.device == "cpu":
    part.check("a population that is too large is halved and finishes", "not on a CPU", None)
    part.check("three processes train on one device at the same time", "not on a CPU", None)
    return
  with tempfile.TemporaryDirectory() as folder:
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4"}
    small = argparse.Namespace(scale="tiny", data=None)
    others = [start_other("trial", f"{folder}/{i}.json", env, small) for i in range(2)]
    _train_too_many(part)
    used = device_memory()
    found = [finish() for finish in others]
  part.row("two processes more", memory_in_use=used, same_bits=found[0] == found[1])
  holds = all(isinstance(of, dict) for of in found)
  part.check("three processes train on one device at the same time", used, holds)


def _train_too_many(part: Part):
  """Trains more members at a time than fit what this process may use."""
  limit = (jax.local_devices()[0].memory_stats() or {})["bytes_limit"]
  arm = WORKLOADS["cnn_binary"].arm.replace(num_epochs=1)
  dataset = data.take_train(part.data["two"], 1024)
  estimate, planned = estimate_member(arm, dataset)
  width = int(3 * limit / estimate)
  start = time.perf_counter()
  large = train_population(
    dataset, {"cnn": arm}, seeds=width, chunk_size=width, progress=Progress(quiet=True)
  )
  part.row(
    "a population that is too large",
    members_at_a_time=width,
    planned=planned,
    GB_estimated=width * estimate / 1e9,
    GB_of_the_device=limit / 1e9,
    halved=", ".join(large.split_chunks),
    seconds=time.perf_counter() - start,
    in_use_afterwards=device_memory(),
  )
  finished = bool((large.status == "finished").all())
  text = "a population that is too large is halved and finishes"
  part.check(text, f"{len(large.split_chunks)} halved", finished and bool(large.split_chunks))
