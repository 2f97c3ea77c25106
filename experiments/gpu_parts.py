"""The parts of the GPU check; `experiments.gpu_check` runs each as a process of its own.

  python -m experiments.gpu_parts PART --device=gpu --scale=full --data=FILE --out=FILE.jsonl

Every measurement is a line of JSON in the output file as soon as there is one: a row of a table,
or a check, which holds or does not. `trial`, `steps` and `pack` are no parts: the first two train
with other settings, for `agreement` and `loops`, and the last writes the data.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import glob
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset, Split
from jaxdl.population import devices, environment, own_check, plan, tuning
from jaxdl.population.plan import Group
from jaxdl.population.population import train_population
from jaxdl.population.progress import Progress

from . import CONFIGS
from .gpu_measuring import (
  PRECISIONS,
  ROOT,
  WORKLOADS,
  Part,
  Program,
  best_seconds,
  compile_arm,
  compile_group,
  device_memory,
  first_examples,
  load,
  matmul_rate,
  pack,
  time_epochs,
)

# The runs of the ledger of claims, as in ml_collections_configs/claims.py.
_COURSEWORK = {
  "compare_initializers": "mnist",
  "compare_losses": "quick",
  "compare_optimizers": "mnist",
  "compare_strategies": "cifar10",
  "gradient_flow": "mnist",
  "compare_batch_sizes": "mnist",
}
# An epoch of more steps than this is measured on so many, and scaled.
_MAX_STEPS = 2_000

# --- The parts ---


def measure_machine(part: Part):
  """Versions, the rates of matrix products and of copies, and what a step of a loop costs."""
  device = jax.local_devices()[0]
  packages = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "jax-cuda13-plugin")
  found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
  part.row("versions", python=platform.python_version(), **{p: found.get(p, "-") for p in packages})
  stats = device.memory_stats() or {}
  part.row(
    "device",
    kind=device.device_kind,
    number=len(jax.local_devices()),
    GiB_for_JAX=stats.get("bytes_limit", 0) / 2**30,
    in_use=device_memory(),
    XLA_FLAGS=os.environ.get("XLA_FLAGS", ""),
    preallocate=os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", ""),
  )
  size = 512 if part.is_tiny else 8192
  for precision in PRECISIONS:
    with part.trying("matrix products", precision=precision, size=size):
      rate = matmul_rate(precision, size, 0.2 if part.is_tiny else 1.0)
      part.row("matrix products", precision=precision, size=size, TFLOPs=rate / 1e12)
  x = jnp.ones(2**20 if part.is_tiny else 2**29)
  add = jax.jit(lambda x: x + 1)
  seconds = best_seconds(lambda: add(x))
  part.row("copies", what="read and write, GB/s", rate=2 * x.nbytes / seconds / 1e9)
  steps = jax.jit(lambda x: jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=1000)[0])
  seconds = best_seconds(lambda: steps(jnp.eye(64)))
  part.row("copies", what="a step of a loop with one small product, µs", rate=seconds * 1e3)


# Models that are trained on two devices, and compared.
def _trials(every: Mapping[str, Dataset], is_tiny: bool) -> dict[str, tuple[Dataset, dict]]:
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


def measure_agreement(part: Part):
  """Does it run; does it agree with a CPU; are the bits of a second run the same?"""
  options = part.options
  gpu = {"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {}
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
    demo = _start_demo(part, folder, gpu)
    trials = {name: _start_trial(name, folder, env, options) for name, env in runs.items()}
    _guard_an_epoch(part)
    _find_varying_operations(part)
    demo()
    found = {}
    for name, finish in trials.items():
      found[name] = finish()
      _say_trial(part, name, found)
  if isinstance(found["CPU"], dict):
    _compare_with_cpu(part, found)


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


def _start_trial(name, folder, env, options, what="trial") -> Callable[[], Any]:
  file = pathlib.Path(folder) / f"{name}.json"
  command = [sys.executable, "-m", "experiments.gpu_parts", what, f"--out={file}"]
  command += [f"--scale={options.scale}", f"--data={options.data or ''}"]
  process = _start(command, env)

  def finish():
    said = process.communicate()[1]
    return json.loads(file.read_text("utf-8")) if file.exists() else _last_line(said)

  return finish


def _start_demo(part: Part, folder: str, env: Mapping[str, str]) -> Callable[[], None]:
  """Starts the experiment of `make demo`, with its report."""
  variant = "smoke" if part.is_tiny else "digits"
  command = [
    *(sys.executable, "-m", "experiments.compare_initializers", f"--workdir={folder}/demo"),
    f"--config=ml_collections_configs/compare_initializers.py:{variant}",
  ]
  start = time.perf_counter()
  process = _start(command, {**env, "JAXDL_CACHE_DIR": f"{folder}/cache"})

  def finish():
    said, errors = process.communicate()
    _, *answers = [line for line in said.splitlines() if line.strip()] or [""]  # the question
    answer = answers[0] if answers else _last_line(errors)
    seconds, status = time.perf_counter() - start, process.returncode
    part.row("make demo", status=status, seconds=seconds, answer=answer[:300])
    part.check("make demo runs", f"status {status}", status == 0)

  return finish


def _start(command, env) -> subprocess.Popen:
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, **pipes)


def _last_line(text: str) -> str:
  return (text.strip().splitlines() or ["no message"])[-1][:300]


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
    part.check(name, _last_line(str(error)), False)


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


def measure_mnist(part: Part):
  """The experiment `mnist` with 64 seeds: three initializers, from the data to the verdicts."""
  from jaxdl import answer as answer_lib
  from jaxdl import experiment as experiment_lib

  experiment, dataset = _coursework(part, "compare_initializers", "mnist")
  start = time.perf_counter()
  population = experiment_lib.train_arms(experiment, dataset, progress=Progress(quiet=True))
  seconds = time.perf_counter() - start
  accuracy = population.metrics["test_accuracy"]  # [S, A]
  for place, arm in enumerate(population.arms):
    part.row(
      "test accuracy",
      arm=arm,
      seeds=len(accuracy),
      mean=float(np.nanmean(accuracy[:, place])),
      deviation=float(np.nanstd(accuracy[:, place], ddof=1)),
      epochs=float(population.epochs[:, place].mean()),
    )
  part.row(
    "time",
    seconds=seconds,
    compiling=population.compile_seconds,
    members=accuracy.size,
    at_a_time=population.chunks[0].chunk_size * population.chunks[0].chunk_arms,
  )
  verdicts = experiment_lib.compare(experiment, population)
  metric = next(iter(experiment.margins))
  part.row("answer", answer=answer_lib.answer(verdicts, metric, population))
  text = f"{experiment.dataset} with {len(accuracy)} seeds runs"
  part.check(text, f"{seconds:.0f} s", bool(np.isfinite(accuracy).all()))


def _coursework(part: Part, name: str, variant: str) -> tuple[Any, Dataset]:
  """Returns an experiment of the coursework with 64 seeds, and its data."""
  from jaxdl import experiment as experiment_lib

  variant = "smoke" if part.is_tiny else variant
  config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)
  config.num_seeds = 2 if part.is_tiny else 64
  module = importlib.import_module(f".{name}", __package__)
  experiment = module.SCRIPT.create_experiment(config)
  dataset = part.data.get(experiment.dataset)
  if dataset is not None:  # of CIFAR-10, the file has a part only
    train, test = (_at_least(split, 10_000) for split in (dataset.train, dataset.test))
    dataset = dataclasses.replace(dataset, train=train, test=test)
  return experiment, experiment_lib.load_dataset(experiment, dataset=dataset)


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


def _at_least(split: Split, size: int) -> Split:
  """Returns a split whose examples are repeated if there are fewer."""
  return split if len(split) >= size else split.take(np.arange(size) % len(split))


def measure_populations(part: Part):
  """Members per second against members at a time; convolutions; precisions; memory."""
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
      _, planned = _planned(WORKLOADS[name].arm, _dataset(part, name))
      part.row("widths", network=name, planned=planned, at_90_percent_of_the_best_rate=enough)


def _convolutions(name: str, width: int) -> Iterator[Job]:
  """Yields a CNN with products and with XLA's convolution, which is grouped for several members."""
  if name == "cnn_binary":
    cnn = "jaxdl.nn.models:CNN(activation='relu', native_conv={})"
    models = {"products": cnn.format(False), "XLA's": cnn.format(True)}
  elif name == "resnet8":
    models = {"products": "resnet(8)", "XLA's": "experiments.gpu_measuring:NativeResNet(depth=8)"}
  else:
    return
  for how, model in models.items():
    for members in (1, width):
      # A model that is called as one of the user's own gets no dropout here.
      arm = WORKLOADS[name].arm.replace(model=model, dropout_rate=0.0)
      yield Job("convolutions", name, arm, members, "TF32", {"how": how})


def _dataset(part: Part, name: str) -> Dataset:
  """Returns the examples on which a workload is timed."""
  workload = WORKLOADS[name]
  num_train = workload.arm.batch_size if part.is_tiny else workload.num_train
  return first_examples(part.data[workload.data], num_train)


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
        estimates[job.arm] = _planned(job.arm, _dataset(part, job.network))[0] / 1e6
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
  return compile_arm(job.arm, _dataset(part, job.network), job.width, job.precision)


def _planned(arm: Arm, dataset: Dataset) -> tuple[int, int]:
  """Returns the estimated bytes of a member, and the planned width of a very large population."""
  kind = devices.kind_of(jax.local_devices()[0])
  (group,) = plan.plan_groups(dataset, {"arm": arm}, range(4096), 0, kind)
  hyper = jax.tree.map(lambda leaf: leaf[0], group.hyper)
  member = own_check.member_shapes(group.recipe, hyper)
  state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(member))
  estimate = 3 * state + tuning.activation_bytes(group.recipe, member, hyper)
  return estimate, group.layout.chunk_size


def measure_pytorch(part: Part):
  """64 members of `cnn_binary` against PyTorch, one after the other and by torch.func."""
  wide = 2 if part.is_tiny else 64
  workload, dataset = WORKLOADS["cnn_binary"], _dataset(part, "cnn_binary")
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
  from . import workloads
  from .peers import process, torch_peer

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


def measure_coursework(part: Part):
  """The runs of the ledger with 64 seeds: an epoch of every program, times how often it runs."""
  from jaxdl import experiment as experiment_lib

  kind = devices.kind_of(jax.local_devices()[0])
  work = []
  runs = dict([*_COURSEWORK.items()][:2]) if part.is_tiny else _COURSEWORK
  for name, variant in runs.items():
    experiment, dataset = _coursework(part, name, variant)
    groups = experiment_lib.plan_groups(experiment, dataset, kind)
    work += [(name, group, dataset) for group in groups]
  start = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(max_workers=devices.num_cores()) as pool:
    compiled = [pool.submit(_compile_some_steps, group, dataset) for _, group, dataset in work]
    concurrent.futures.wait(compiled)
  compiling = time.perf_counter() - start
  part.row("compiling all programs, in parallel", programs=len(work), seconds=compiling)
  totals: dict[str, float] = {}
  measured = 0
  for (name, group, _), future in zip(work, compiled, strict=True):
    if part.seconds_left < 0:
      break
    model = f"{group.recipe.arm.model}, batch {group.recipe.arm.batch_size}"
    with part.trying("programs", run=name, model=model):
      program, share = future.result()
      seconds = statistics.median(time_epochs(program.bound, most=2)) / share
      total = seconds * group.recipe.arm.num_epochs * group.layout.num_chunks
      measured += 1
      totals[name] = totals.get(name, 0.0) + total
      part.row(
        "programs",
        run=name,
        model=model,
        optimizer=str(group.recipe.optimizer),
        members=program.num_members,
        chunks=group.layout.num_chunks,
        epochs=group.recipe.arm.num_epochs,
        seconds_per_epoch=seconds,
        seconds=total,
      )
  for name, total in totals.items():
    part.row("runs, without early stopping", run=name, seconds=total)
  total = sum(totals.values())
  text = f"{total:.0f} s training, {compiling:.0f} s compiling, {measured} of {len(work)} programs"
  is_whole = measured == len(work) and not part.is_tiny
  holds = total + compiling <= 60 if is_whole else None
  part.check("the whole coursework with 64 seeds an arm takes at most 60 s", text, holds)


def _compile_some_steps(group: Group, dataset: Dataset) -> tuple[Program, float]:
  """Compiles a group for at most `_MAX_STEPS` steps; returns their share of an epoch too."""
  steps = -(-len(dataset.train) // group.recipe.arm.batch_size)
  if steps <= _MAX_STEPS:
    return compile_group(group, dataset), 1.0
  num_train = _MAX_STEPS * group.recipe.arm.batch_size
  fewer = data.take_train(dataset, num_train)
  return compile_group(group, fewer), _MAX_STEPS / steps


def measure_memory(part: Part):
  """Several processes on one device; a population that is too large for what one may use."""
  if part.options.device == "cpu":
    part.check("a population that is too large is halved and finishes", "not on a CPU", None)
    part.check("three processes train on one device at the same time", "not on a CPU", None)
    return
  with tempfile.TemporaryDirectory() as folder:
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4"}
    small = argparse.Namespace(scale="tiny", data=None)
    others = [_start_trial(f"process {i}", folder, env, small) for i in range(2)]
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
  estimate, planned = _planned(arm, dataset)
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


def measure_profile(part: Part):
  """Where the time of an epoch goes, by JAX's profiler."""
  width = 2 if part.is_tiny else 64
  for name in ("mlp_minibatch",) if part.is_tiny else ("cnn_binary", "mlp_minibatch"):
    workload = WORKLOADS[name]
    bound = compile_arm(workload.arm, _dataset(part, name), width, "TF32").bound
    members = jax.block_until_ready(bound.train_epoch(bound.create(), 0)[0])
    table = f"an epoch of {width} members of {name}"
    with tempfile.TemporaryDirectory() as folder, part.trying(table):
      with jax.profiler.trace(folder):
        jax.block_until_ready(bound.train_epoch(members, 1))
      for kind, share, calls in where_time_goes(folder):
        part.row(table, what=kind, share=share, calls=calls)


# Settings of XLA that change what a step inside a loop costs, where steps are short.
_LOOP_FLAGS = {
  "as XLA has it": "",
  "no CUDA graphs": "--xla_gpu_enable_command_buffer=",
  "CUDA graphs with loops": "--xla_gpu_enable_command_buffer="
  "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION",
  "loops unrolled twice": "--xla_gpu_enable_while_loop_double_buffering=true",
}


def measure_loops(part: Part):
  """What a short step costs, with several settings of XLA: 600,000 of them are of batch size 1."""
  options = argparse.Namespace(scale=part.options.scale, data=part.options.data)
  env = {"JAX_PLATFORMS": "cpu"} if part.options.device == "cpu" else {}
  settings = [*_LOOP_FLAGS.items()]
  for name, flags in settings[:1] if part.is_tiny else settings:
    if part.seconds_left < 0:
      return
    with tempfile.TemporaryDirectory() as folder:
      flags = " ".join((os.environ.get("XLA_FLAGS", ""), flags))
      found = _start_trial("steps", folder, {**env, "XLA_FLAGS": flags}, options, "steps")()
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


# Names of kernels and operations, the first that fits.
_KINDS = {
  "matrix products": ("gemm", "cublas", "cutlass", "xmma", "dot", "nvjet", "ynn"),
  "convolutions": ("conv", "cudnn"),
  "random numbers and sorting": ("threefry", "sort", "rng"),
  "copies and transposes": ("memcpy", "memset", "copy", "transpose", "concatenate", "slice"),
  "sums": ("reduce",),
}


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


_MEASURE = {
  "machine": measure_machine,
  "agreement": measure_agreement,
  "mnist": measure_mnist,
  "populations": measure_populations,
  "pytorch": measure_pytorch,
  "coursework": measure_coursework,
  "memory": measure_memory,
  "profile": measure_profile,
  "loops": measure_loops,
}
_OTHERS = {"trial": trial, "steps": steps, "pack": pack}


def main(argv: Sequence[str]) -> int:
  """Measures one part and returns the exit status."""
  parser = argparse.ArgumentParser(prog="experiments.gpu_parts", allow_abbrev=False)
  parser.add_argument("part", choices=(*_MEASURE, *_OTHERS))
  parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
  parser.add_argument("--scale", choices=("full", "tiny"), default="full")
  parser.add_argument("--seconds", type=float, default=60)
  parser.add_argument("--data")
  parser.add_argument("--data_dir")
  parser.add_argument("--out", required=True)
  options = parser.parse_args(argv)
  if options.part in _OTHERS:
    return _OTHERS[options.part](options)
  if options.device == "cpu":
    jax.config.update("jax_platforms", "cpu")
  elif jax.local_devices()[0].platform != "gpu":
    print(f"error: JAX computes on {jax.local_devices()[0].platform} here", file=sys.stderr)
    return 2
  environment.check()
  _MEASURE[options.part](Part(options.part, options))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
