"""Whether jaxdl runs on the device, agrees with a CPU, and gives the same bits twice."""

import argparse
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.population.population import train_population
from jaxdl.population.progress import Progress

from .datasets import first_examples, load
from .networks import WORKLOADS
from .part import Part
from .processes import last_line, start, start_other
from .timing import compile_arm


def measure(part: Part):
  """Does it run; does it agree with a CPU; are the bits of a second run the same?"""
  gpu = part.environment
  deterministic = " ".join((os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true"))
  runs = {
    "float32": {**gpu, "JAX_DEFAULT_MATMUL_PRECISION": "float32"},
    "float32, again": {**gpu, "JAX_DEFAULT_MATMUL_PRECISION": "float32"},
    "TF32": {**gpu, "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"},
    "JAX's default": gpu,
    "JAX's default, deterministic": {**gpu, "XLA_FLAGS": deterministic},
    # Last, because it may take longest.
    "CPU": {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "float32"},
  }
  if part.is_tiny:
    runs = {name: runs[name] for name in ("float32", "CPU")}
  with tempfile.TemporaryDirectory() as folder:
    finish_demo = _start_demo(part, folder)
    trials = {
      name: start_other("trial", f"{folder}/{name}.json", env, part.options)
      for name, env in runs.items()
    }
    _guard_an_epoch(part)
    _find_varying_operations(part)
    finish_demo()
    found = {}
    for name, finish in trials.items():
      found[name] = finish()
      _say_trial(part, name, found)
  if isinstance(found["CPU"], dict):
    _compare_with_cpu(part, found)


def _trials(every: Mapping[str, Dataset], is_tiny: bool) -> dict[str, tuple[Dataset, dict]]:
  """Returns name -> dataset and arms: models that are trained on two devices, and compared."""
  digits = data.split_validation(data.select_classes(data.load("digits"), (3, 7)), 0.2)
  demo = Arm(batch_size=32, num_epochs=2 if is_tiny else 12, threshold=0.9)
  names = ("glorot_uniform", "random_normal")
  small = data.split_validation(first_examples(every["cifar10"], 64 if is_tiny else 512), 0.25)
  resnet = WORKLOADS["resnet8"].arm.replace(
    model="jaxdl.nn.networks:ResNet(depth=8, width=8)",
    num_epochs=1 if is_tiny else 3,
    batch_size=32,
    horizontal_flip=True,
  )
  two = data.take_train(every["two"], 64 if is_tiny else 2048)
  mnist = Arm(num_epochs=1 if is_tiny else 3, batch_size=32 if is_tiny else 512, patience=None)
  trials = {
    "demo": (
      digits,
      {n: demo.replace(kernel_initializer=n, bias_initializer=n) for n in names},
    ),
    "mnist": (two, {"cnn": mnist}),
    "resnet": (small, {"resnet": resnet}),
  }
  return {"resnet": trials["resnet"]} if is_tiny else trials


def trial(options: argparse.Namespace) -> int:
  """Trains small populations and writes their curves, and a hash of all their numbers."""
  is_tiny = options.scale == "tiny"
  found = {}
  for name, (dataset, arms) in _trials(load(options.data or None), is_tiny).items():
    result = train_population(
      dataset, arms, seeds=2, chunk_size=2, keep_params=True, progress=Progress(quiet=True)
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((result.curves, result.metrics, result.variables)):
      digest.update(np.ascontiguousarray(leaf))
    found[name] = {
      "loss": result.curves["train_loss"].tolist(),
      "accuracy": result.metrics["test_accuracy"].tolist(),
      "hash": digest.hexdigest(),
    }
  pathlib.Path(options.out).write_text(json.dumps(found), encoding="utf-8")
  return 0


def _say_trial(part: Part, name: str, found: Mapping[str, Any]):
  """Writes what came of the newest of several trials, and whether its bits are those of another."""
  if isinstance(found[name], str):
    part.row("trials", run=name, error=found[name])
    return
  for network, of in found[name].items():
    loss, accuracy = np.array(of["loss"]), np.array(of["accuracy"])
    row = {"first_loss": loss[..., 0].mean(), "test_accuracy": accuracy.mean()}
    part.row("trials", run=name, network=network, **row, bits=of["hash"][:8])
    first = found.get("float32")
    if name == "float32, again" and isinstance(first, dict):
      same = of["hash"] == first[network]["hash"]
      part.check(f"{network}: a second run gives the same bits", same, same)


def _compare_with_cpu(part: Part, found: Mapping[str, Any]):
  """Writes how far the losses and accuracies of trials are from those on the CPU."""
  for name, trial_ in found.items():
    if name == "CPU" or isinstance(trial_, str):
      continue
    for network, of in trial_.items():
      reference = found["CPU"][network]
      loss, expected = np.array(of["loss"]), np.array(reference["loss"])
      off = np.nanmax(np.abs(loss - expected) / np.abs(expected), axis=(0, 1))  # [E]
      part.row(
        "against the CPU",
        run=name,
        network=network,
        loss_off_first_epoch=off[0],
        loss_off_last_epoch=off[-1],
        accuracy_off=np.abs(np.array(of["accuracy"]) - reference["accuracy"]).max(),
      )
      if name == "float32":
        text = f"{network}: the loss of the first epoch is the CPU's within 0.2%, in float32"
        part.check(text, f"{100 * off[0]:.2g}%", off[0] < 2e-3)


def _start_demo(part: Part, folder: str) -> Callable[[], None]:
  """Starts the experiment of `make demo`, with its report."""
  variant = "smoke" if part.is_tiny else "digits"
  command = [
    *(sys.executable, "-m", "experiments.compare_initializers", f"--workdir={folder}/demo"),
    f"--config=ml_collections_configs/compare_initializers.py:{variant}",
  ]
  begin = time.perf_counter()
  process = start(command, {**part.environment, "JAXDL_CACHE_DIR": f"{folder}/cache"})

  def finish():
    said, errors = process.communicate()
    _, *answers = [line for line in said.splitlines() if line.strip()] or [""]  # the question
    answer = answers[0] if answers else last_line(errors)
    seconds, status = time.perf_counter() - begin, process.returncode
    part.row("make demo", status=status, seconds=seconds, answer=answer[:300])
    part.check("make demo runs", f"status {status}", status == 0)

  return finish


def _guard_an_epoch(part: Part):
  """Trains an epoch in which no copy between host and device is allowed."""
  name = "no copy between host and device inside an epoch"
  workload = WORKLOADS["mlp_minibatch" if part.is_tiny else "cnn_binary"]
  arm = workload.arm.replace(batch_size=64, rotation_range=5.0)
  bound = compile_arm(arm, first_examples(part.data[workload.data], 128), 2).bound
  members, index = bound.create(), bound.put(np.int32(0))
  train, validation, _ = bound.splits
  try:
    with jax.transfer_guard("disallow"):
      jax.block_until_ready(
        bound.programs.train_epoch(members, bound.keys, bound.hyper, train, validation, index)
      )
    part.check(name, "none", True)
  except jax.errors.JaxRuntimeError as error:
    part.check(name, last_line(str(error)), False)


def _find_varying_operations(part: Part):
  """Runs operations that add in any order ten times each, and says which give other bits."""
  key = jax.random.key(0)
  x = jax.random.normal(key, (4 if part.is_tiny else 256, 32, 32, 8))
  kernel = jax.random.normal(key, (3, 3, 8, 8))
  rows = jax.random.randint(key, (20_000,), 0, 50)

  def embed(table, rows):
    return jnp.sin(table[rows]).sum()

  def convolve(kernel, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    return jnp.sin(y).sum()

  def pool(x):
    window = (1, 2, 2, 1)
    return jnp.sin(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")).sum()

  # With their arguments: what depends on none is computed once, by the compiler.
  operations = {
    "sum": (jnp.sum, x),
    "mean and variance of channels": (lambda x: (x.mean((0, 1, 2)), x.var((0, 1, 2))), x),
    "matrix product": (lambda x: x.reshape(-1, 256).T @ x.reshape(-1, 256), x),
    "gradient of a gather (an embedding)": (jax.grad(embed), jnp.ones((50, 64)), rows),
    "gradient of XLA's convolution": (jax.grad(convolve), kernel, x),
    "gradient of reduce_window": (jax.grad(pool), x),
    "permutation": (lambda key: jax.random.permutation(key, 50_000), key),
  }
  for name, (function, *arguments) in operations.items():
    with part.trying("bits of ten calls", operation=name):
      jitted = jax.jit(function)
      results = {
        hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(r))).digest()
        for r in (jitted(*arguments) for _ in range(10))
      }
      part.row("bits of ten calls", operation=name, different_results=len(results))
