"""How fast is jaxdl compared with Keras and PyTorch, on the same work and the same machine?

  jaxdl run benchmark --workdir=DIR

trains the same networks with jaxdl and with each peer that is installed (`make install-peers`).
Every system runs in its own process and holds its data in memory. A short trial selects the fastest
variant of each peer. Then every system trains one epoch per round, in a random order, so that other
load on the machine slows all of them alike; ratios are taken within rounds. Compilation and the
first epoch are reported separately. The script writes `benchmark.json` after every workload, and
`benchmark.md`, `benchmark.html` and pictures at the end.
"""

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxdl import report
from jaxdl.arm import Arm
from jaxdl.cpu import matmul
from jaxdl.errors import InputError, unknown_name
from jaxdl.nn import models
from jaxdl.population import devices, environment, timing
from jaxdl.report import figures
from jaxdl.store import files, interrupts, locks

from . import CONFIGS, benchmark_report, command_line, workloads
from .peers import keras_peer, process, torch_peer
from .workloads import Workload

ROOT = CONFIGS.parent
_LOGGER = logging.getLogger("jaxdl")
_RESULTS = "benchmark.json"
_PEERS = {
  "keras-tensorflow": ("experiments.peers.keras_peer", keras_peer, {"backend": "tensorflow"}),
  "keras-jax": ("experiments.peers.keras_peer", keras_peer, {"backend": "jax"}),
  "torch": ("experiments.peers.torch_peer", torch_peer, {}),
}
# The prefix of variants that are programs for a whole epoch, written around a peer's layers.
_BY_HAND = "epoch_function"
# A peer's loss agrees if it differs from the mean of jaxdl's members by at most this many of their
# standard deviations plus this share of the mean, because few members give the deviation.
_DEVIATIONS, _SHARE = 4, 0.1
# The config variants of the scripts whose cold start is timed.
_COLD_VARIANTS = {"compare_initializers": "mnist", "mnist_cnn": "notebook"}
_EMPTY_CACHE = "jaxdl, empty cache"


@dataclasses.dataclass(frozen=True)
class System:
  """A system that is timed: one process, or several that run concurrently.

  Attributes:
    name: name in the results; those of this project begin with "jaxdl".
    python: path of the interpreter.
    module: module of the worker.
    specs: one spec per process.
    num_members: number of members that all processes together train.
    is_peer: whether jaxdl is compared with it, as something that a peer offers.
  """

  name: str
  python: str
  module: str
  specs: tuple[dict[str, Any], ...]
  num_members: int
  is_peer: bool = True

  @property
  def variant(self) -> str:
    """The name of the variant."""
    return self.specs[0]["variant"]["name"]

  def start(self) -> process.Team:
    """Starts the processes. Raises WorkerError."""
    return process.Team(self.python, self.module, self.specs, ROOT)


class Benchmark:
  """One run of the benchmark, with its results so far."""

  def __init__(
    self, config: ConfigDict, workdir: pathlib.Path, data_dir: str | None, folder: pathlib.Path
  ):
    """Checks the config, finds the peers and measures the matmul peak.

    Args:
      config: the config.
      workdir: where the results go.
      data_dir: folder of TFDS datasets.
      folder: a temporary one, for the data of the workloads.

    Raises:
      InputError: something in the config is wrong.
    """
    _check(config)
    self.config, self.workdir, self._data_dir = config, workdir, data_dir
    self._folder = folder
    self.threads = config.threads or devices.num_cores()
    self._python, self.missing, self.versions = _find_peers(config)
    self._workloads: dict[str, Workload] = {}
    self._chosen: dict[str, list[System]] = {}
    self.results: list[dict[str, Any]] = []
    self.peak = matmul_peak()
    _LOGGER.info("matmul peak: %.0f GFLOP/s", self.peak / 1e9)

  def run(self):
    """Measures everything that the config lists."""
    for name in self.config.train:
      self._train(name)
      self.save()
    for name in self.config.inference:
      self._infer(name)
      self.save()
    for name in self.config.population:
      self._populate(name)
      self.save()
    for name in self.config.cold_start:
      self._start_cold(name)
      self.save()
    self.peak = max(self.peak, matmul_peak())
    self.save()

  def save(self):
    """Writes the results so far to benchmark.json."""
    for row in self.results:
      flops = row.get("model_flops_per_second")
      row["fraction_of_matmul_peak"] = None if flops is None else flops / self.peak
    with files.staging(self.workdir, _RESULTS) as stage:
      self.write(stage)

  def write(self, folder: pathlib.Path):
    """Writes benchmark.json to a folder."""
    text = json.dumps(self.to_json(), indent=2) + "\n"
    (folder / _RESULTS).write_text(text, encoding="utf-8")

  def to_json(self) -> dict[str, Any]:
    """Returns all results, and a description of the machine and the software."""
    return {
      "command": environment.command(),
      "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "machine": _machine(),
      "threads": self.threads,
      "versions": self.versions,
      "missing": self.missing,
      "matmul_peak_flops_per_second": self.peak,
      "config": self.config.to_dict(),
      "results": self.results,
    }

  # --- Systems ---

  def workload(self, name: str) -> Workload:
    """Returns a workload; loads it on the first call."""
    if name not in self._workloads:
      config = self.config.workloads[name]
      self._workloads[name] = workloads.load(name, config, self._data_dir, self._folder)
    return self._workloads[name]

  def spec(self, name: str) -> dict[str, Any]:
    """Returns the fields of `experiments.peers.protocol.Spec` for a workload, without variant."""
    own = {"seed": self.config.seed, "threads": self.threads, "device": self.config.device}
    return {**self.workload(name).spec, **own}

  def jaxdl(self, name: str, num_members: int, suffix: str = "", xla_alone: bool = False) -> System:
    """Returns this project's system for a workload."""
    workload = self.config.workloads[name]
    variant = {
      "name": "XLA alone" if xla_alone else "population",
      "model": workload.model,
      "activation": workload.activation,
      "cpu_layers": not xla_alone,
    }
    spec = {**self.spec(name), "num_members": num_members, "variant": variant}
    system = "jaxdl" + suffix
    return System(system, sys.executable, "experiments.jaxdl_worker", (spec,), num_members, False)

  def peer(self, peer: str, name: str, variant: Mapping[str, Any], **changes: Any) -> System:
    """Returns a peer's system for a workload."""
    module, _, own = _PEERS[peer]
    spec = {**self.spec(name), **own, "variant": dict(variant), **changes}
    by_hand = variant["name"].startswith(_BY_HAND)
    label = f"{peer}, loop by hand" if by_hand else peer
    return System(label, self._python, module, (spec,), spec.get("num_members", 1), not by_hand)

  def peers(self, name: str) -> list[System]:
    """Returns each peer in its fastest variant, and with a loop by hand if the config says so."""
    if name not in self._chosen:
      self._chosen[name] = self._choose(name)
    return self._chosen[name]

  def offered(self, name: str) -> list[System]:
    """Returns each peer in its fastest variant."""
    return [system for system in self.peers(name) if system.is_peer]

  def _choose(self, name: str) -> list[System]:
    systems = []
    for peer in self.config.peers:
      if peer in self.missing:
        continue
      spec = {**self.spec(name), **_PEERS[peer][2]}
      known = {variant["name"]: variant for variant in _PEERS[peer][1].variants(spec)}
      wanted = [v for v in self.config.variants[_key(peer)] if v in known] or list(known)
      offered = [v for v in wanted if not v.startswith(_BY_HAND)]
      by_hand = [v for v in known if v.startswith(_BY_HAND)] if self.config.loops_by_hand else []
      if models.is_convolutional(self.config.workloads[name].model):
        by_hand = []  # inside a loop, the gradient of XLA's convolution is ten times slower
      for group in (offered, by_hand):
        chosen = self._fastest(name, [self.peer(peer, name, known[variant]) for variant in group])
        systems += [chosen] if chosen is not None else []
    return systems

  def _fastest(self, name: str, systems: Sequence[System]) -> System | None:
    """Returns the system that trains part of the examples fastest; None if none of them trains."""
    if len(systems) < 2:
      return systems[0] if systems else None
    size = _trial_size(self.workload(name))
    seconds = {}
    for system in systems:
      with self._started([system]) as teams:
        for team in teams.values():
          try:
            times = [team.ask("train", num_epochs=1, num_examples=size)[0] for _ in range(3)]
            seconds[system.variant] = min(times[1:])
          except process.WorkerError as error:
            _LOGGER.info("%s: %s, %s: %s", name, system.name, system.variant, error)
    peer = systems[0].name
    _LOGGER.info("%s: %s: %s", name, peer, ", ".join(f"{v} {s:.3g} s" for v, s in seconds.items()))
    best = min(seconds, key=seconds.get, default=None)
    return next((system for system in systems if system.variant == best), None)

  @contextlib.contextmanager
  def _started(self, systems: Sequence[System]) -> Iterator[dict[str, process.Team]]:
    """Starts the systems and ends them afterwards; logs and leaves out those that do not start."""
    with contextlib.ExitStack() as stack:
      teams = {}
      for system in systems:
        try:
          teams[system.name] = system.start()
          stack.callback(teams[system.name].close)
        except process.WorkerError as error:
          _LOGGER.info("%s (%s) does not start: %s", system.name, system.variant, error)
      yield teams

  def _rounds(self, label: str, names: Sequence[str]) -> Iterator[str]:
    """Yields every name once per round, in a random order."""
    orders = timing.draw_orders(list(names), self.config.rounds, self.config.seed)
    for number, order in enumerate(orders, 1):
      yield from order
      _LOGGER.info("%s: round %d of %d", label, number, self.config.rounds)

  # --- What is measured ---

  def _train(self, name: str):
    systems = [self.jaxdl(name, self.config.num_members)]
    if self.config.xla_alone:
      systems.append(self.jaxdl(name, self.config.num_members, " by XLA alone", xla_alone=True))
    systems += self.peers(name)
    self.results += self._take_turns(name, name, systems)

  def _populate(self, name: str):
    """Times populations of several sizes: jaxdl, torch.func, and peers that train one by one."""
    sizes = self.config.population_sizes
    systems = [self.jaxdl(name, n, f" of {n}") for n in sizes]
    for system in self.offered(name):
      systems.append(dataclasses.replace(system, name=f"{system.name}, one by one"))
      if self.config.device == "cpu":
        specs = tuple({**system.specs[0], "threads": 1, "seed": i} for i in range(self.threads))
        changes = {"name": f"{system.name}, one per core", "specs": specs}
        systems.append(dataclasses.replace(system, num_members=len(specs), **changes))
    if "torch" in self.config.peers and "torch" not in self.missing:
      for size in sizes[1:]:
        # Not compiled: compiled, it took half to twice the time, and minutes to compile.
        variant = torch_peer.variants({**self.spec(name), "num_members": size})[0]
        system = self.peer("torch", name, variant, num_members=size)
        systems.append(dataclasses.replace(system, name=f"torch.func of {size}"))
    self.results += self._take_turns(name, f"population of {name}", systems)

  def _take_turns(
    self, workload: str, label: str, systems: Sequence[System]
  ) -> list[dict[str, Any]]:
    """Lets the systems train one epoch each per round; returns one row of results per system."""
    with self._started(systems) as teams:
      first = {}
      for name, team in list(teams.items()):
        try:
          first[name], _ = team.ask("train", num_epochs=1, num_examples=None)
        except process.WorkerError as error:
          _LOGGER.info("%s: %s: %s", label, name, error)
          del teams[name]
      times, answers = {name: [] for name in teams}, {}
      for name in self._rounds(label, list(teams)):
        seconds, answers[name] = teams[name].ask("train", num_epochs=1, num_examples=None)
        times[name].append(seconds)
      rows = [
        _training_row(label, s, teams[s.name], first[s.name], times[s.name], answers[s.name])
        for s in systems
        if s.name in teams
      ]
    return _compare(_add_rates(self.workload(workload), rows))

  def _infer(self, name: str):
    """Times the prediction of one image (latency) and of the test set (throughput)."""
    systems = {s.name: s for s in [self.jaxdl(name, 1), *self.offered(name)]}
    num_test = len(self.workload(name).dataset.test)
    kinds = {"latency": (1, 1, 50), "throughput": (min(1000, num_test), num_test, 1)}
    with self._started(list(systems.values())) as teams:
      times = {(kind, key): [] for kind in kinds for key in teams}
      for key in self._rounds(f"inference of {name}", list(teams)):
        for kind, (batch_size, num_images, repeats) in kinds.items():
          order = {"batch_size": batch_size, "num_images": num_images, "repeats": repeats}
          (answer,) = teams[key].ask("predict", **order)[1]
          times[kind, key].append(float(np.median(answer["seconds"])))
      for kind, (_, num_images, _) in kinds.items():
        rows = [
          {
            "workload": f"{kind} of {name}",
            "system": key,
            "variant": systems[key].variant,
            "device": team.workers[0].ready["device"],
            "num_members": 1,
            "seconds_per_pass": _summary(times[kind, key]),
            "seconds_of_rounds": times[kind, key],
            "examples_per_second": num_images / float(np.median(times[kind, key])),
            "is_peer": systems[key].is_peer,
          }
          for key, team in teams.items()
        ]
        self.results += _compare(rows)

  def _start_cold(self, name: str):
    """Times from the start of a process to the end of its first epoch."""
    workload, peers = self.config.workloads[name], {s.name: s for s in self.offered(name)}

    def start(label: str, cache: str) -> float:
      if label == _EMPTY_CACHE:
        _remove_programs(cache)
      if label not in peers:
        return _seconds_to_first_epoch(workload, self._data_dir, cache)
      begin = time.perf_counter()
      with self._started([peers[label]]) as teams:
        teams[label].ask("train", num_epochs=1, num_examples=None)
        return time.perf_counter() - begin

    times = {label: [] for label in ("jaxdl", _EMPTY_CACHE, *peers)}
    with interrupts.temporary_folder("jaxdl-benchmark-") as cache:
      start("jaxdl", cache)  # fills the caches of programs and of data
      for label in self._rounds(f"cold start of {name}", list(times)):
        times[label].append(start(label, cache))
    rows = [
      {
        "workload": f"cold start of {name}",
        "system": label,
        "num_members": 1,
        "seconds_to_first_epoch": _summary(seconds),
        "seconds_of_rounds": seconds,
        "is_peer": label in peers,
      }
      for label, seconds in times.items()
    ]
    self.results += _compare(rows)


def _trial_size(workload: Workload) -> int:
  """Returns the number of examples, in whole batches, of the trial that selects a variant."""
  num_train, batch_size = len(workload.dataset.train), workload.batch_size
  if batch_size > 1000:
    return num_train
  return max(1, min(num_train // 2, 2000) // batch_size) * batch_size


def _training_row(
  label: str,
  system: System,
  team: process.Team,
  first: float,
  times: Sequence[float],
  answers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the results of one system, without comparisons.

  Args:
    label: name of the workload.
    system: the system that was timed.
    team: the processes of the system.
    first: time of the first epoch, in seconds, which includes compilation.
    times: time of one epoch of all members in each round, in seconds.
    answers: the answers of the processes in the last round.
  """
  seconds = np.array(times)
  return {
    "workload": label,
    "system": system.name,
    "variant": system.variant,
    "device": team.workers[0].ready["device"],
    "num_members": system.num_members,
    "num_processes": len(team.workers),
    "batch_size": system.specs[0]["batch_size"],
    "seconds_per_member_epoch": _summary(seconds / system.num_members),
    "seconds_of_rounds": (seconds / system.num_members).tolist(),
    "start_seconds": max(worker.start_seconds for worker in team.workers),
    "first_epoch_seconds": first,
    "compile_seconds": max(0.0, first - float(np.median(seconds))),
    "peak_memory_mb": sum(answer["peak_memory_mb"] for answer in answers),
    "train_loss": [loss for answer in answers for loss in answer["train_loss"]],
    "is_peer": system.is_peer,
  }


def _add_rates(workload: Workload, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Adds rates, which depend on the size of the workload, and whether the losses agree."""
  # From the system with the most members, which has the best estimate of the spread.
  ours = max((r["train_loss"] for r in rows if r["system"].startswith("jaxdl")), key=len)
  for row in rows:
    rate = len(workload.dataset.train) / row["seconds_per_member_epoch"]["median"]
    row["examples_per_second"] = rate
    row["model_flops_per_second"] = rate * workload.flops
    row["loss_agrees"] = bool(_agrees(row["train_loss"], ours))
  return rows


# --- The machine, and what is on it ---


def matmul_peak(size: int = 2048, seconds: float = 2.0) -> float:
  """Returns the best measured float32 FLOP/s of a product of matrices `[size, size]`."""
  a = jnp.ones((size, size), jnp.float32)
  product = jax.jit(lambda a: a @ a)
  jax.block_until_ready(product(a))
  best, end = 0.0, time.perf_counter() + seconds
  while time.perf_counter() < end:
    start = time.perf_counter()
    jax.block_until_ready(product(a))
    best = max(best, 2 * size**3 / (time.perf_counter() - start))
  return best


def _check(config: ConfigDict):
  for kind in ("train", "inference", "population", "cold_start"):
    for name in config[kind]:
      if name not in config.workloads:
        raise unknown_name("workload", name, config.workloads)
  for name in config.cold_start:
    workload = config.workloads[name]
    if bool(workload.classes) != (workload.loss == "binary_cross_entropy"):
      raise InputError(
        f"cold_start of {name!r} needs two classes with binary_cross_entropy, all with other losses"
      )
  for peer in config.peers:
    if peer not in _PEERS:
      raise unknown_name("peer", peer, _PEERS)
  for peer in _PEERS:
    known = _all_variants(peer)
    for variant in config.variants[_key(peer)]:
      if variant not in known:
        raise unknown_name(f"variant of {peer}", variant, known)
  if config.device not in ("cpu", "gpu"):
    raise InputError(f"device must be 'cpu' or 'gpu', not {config.device!r}")
  if jax.local_devices()[0].platform != config.device:
    raise InputError(f"JAX runs on {jax.local_devices()[0].platform} here, not on {config.device}")
  for name in ("rounds", "num_members"):
    if config[name] < 1:
      raise InputError(f"{name} must be at least 1, not {config[name]}")
  for name, workload in config.workloads.items():
    fields = {key: workload[key] for key in workload if key in Arm.__dataclass_fields__}
    try:
      Arm(**fields, patience=None)
    except InputError as error:
      raise InputError(f"workload {name!r}: {error}") from error


def _key(peer: str) -> str:
  """Returns the key of a peer in `config.variants`, which must be an identifier."""
  return peer.replace("-", "_")


def _all_variants(peer: str) -> list[str]:
  """Returns the names of all variants of a peer, for any workload."""
  _, module, own = _PEERS[peer]
  specs = [
    {"layers": [{"kind": kind}], "augmentation": augmentation, **own}
    for kind in ("dense", "conv")
    for augmentation in (None, {})
  ]
  return list(dict.fromkeys(v["name"] for spec in specs for v in module.variants(spec)))


def _find_peers(config: ConfigDict) -> tuple[str, dict[str, str], dict[str, str]]:
  """Returns the peers' interpreter, peer -> why it is missing, and package -> version."""
  python = str((ROOT / config.peers_python).absolute())
  names = ["keras", "tensorflow-cpu", "tensorflow", "jax", "torch", "numpy"]
  code = (
    "import importlib.metadata as m, json, platform\n"
    "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
    "print(json.dumps({'python': platform.python_version(), **names}))"
  )
  try:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
  except (OSError, subprocess.SubprocessError, ValueError):
    found = {}
  needs = {
    "keras-tensorflow": ("keras", ("tensorflow", "tensorflow-cpu")),
    "keras-jax": ("keras", ("jax",)),
    "torch": ("torch", ("torch",)),
  }
  missing = {}
  for peer in config.peers:
    package, others = needs[peer]
    if package not in found or not set(others) & set(found):
      missing[peer] = f"not installed in {config.peers_python} (make install-peers)"
      _LOGGER.warning("%s is missing: %s", peer, missing[peer])
  peers = {f"peers' {name}": found[name] for name in ["python", *names] if name in found}
  in_cpp = matmul.why_unavailable() or "available"
  return python, missing, {"jaxdl's jax": jax.__version__, "its layers in C++": in_cpp, **peers}


def _machine() -> str:
  model = ""
  with contextlib.suppress(OSError):
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
  device = jax.local_devices()[0]
  return f"{devices.num_cores()} cores ({model or 'unknown CPU'}), JAX on {device.device_kind}"


# --- Numbers ---


def _summary(seconds: Sequence[float] | np.ndarray) -> dict[str, float]:
  return {
    "median": float(np.median(seconds)),
    "min": float(np.min(seconds)),
    "max": float(np.max(seconds)),
  }


def _compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Adds each system's speed as a multiple of the best peer's: median and range over rounds."""
  peers = [row for row in rows if row["is_peer"]]
  best = min(peers, key=lambda row: benchmark_report.seconds(row)["median"], default=None)
  for row in rows:
    if best is None:
      row |= {"ratio_to_best_peer": None, "ratio_range": None, "best_peer": None}
      continue
    ratios = np.array(best["seconds_of_rounds"]) / np.array(row["seconds_of_rounds"])
    row["ratio_to_best_peer"] = float(np.median(ratios))
    row["ratio_range"] = [float(ratios.min()), float(ratios.max())]
    row["best_peer"] = best["system"]
  return rows


def _agrees(loss: Sequence[float], ours: Sequence[float]) -> bool:
  """Whether a final training loss agrees with those of jaxdl's members."""
  mean = np.mean(ours)
  allowed = _DEVIATIONS * (np.std(ours, ddof=1) if len(ours) > 1 else 0.0) + _SHARE * abs(mean)
  return abs(np.mean(loss) - mean) <= allowed


def _seconds_to_first_epoch(workload: ConfigDict, data_dir: str | None, cache: str) -> float:
  """Times an experiment's command line until its log says that the first epoch is done."""
  settings = ("dataset", "model", "batch_size", "loss", "dropout_rate", "optimizer")
  # The script for two classes, or that for all.
  script = "compare_initializers" if workload.classes else "mnist_cnn"
  classes = ",".join(map(str, workload.classes))
  with interrupts.temporary_folder("jaxdl-benchmark-") as folder:
    command = [
      *(sys.executable, "-m", f"experiments.{script}"),
      f"--config={CONFIGS / script}.py:{_COLD_VARIANTS[script]}",
      f"--workdir={folder}/run",
      "--config.initializers=glorot_uniform",
      "--config.num_seeds=1",
      *([f"--config.classes=({classes})"] if classes else []),
      *(f"--config.{name}={workload[name]}" for name in settings),
      *([f"--data_dir={data_dir}"] if data_dir else []),
    ]
    start = time.perf_counter()
    with interrupts.child(
      command,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
      env={**os.environ, "JAXDL_CACHE_DIR": cache},
    ) as run:
      said = []
      for line in run.stderr:
        said.append(line.strip())
        if "epoch 1/" in line:
          return time.perf_counter() - start
  raise InputError(f"the start of {workload.model} failed: {said[-1] if said else 'no message'}")


def _remove_programs(cache: str):
  for path in (pathlib.Path(cache) / "programs").glob("*"):
    path.unlink()


def main(config: ConfigDict):
  """Measures, writes the results, and prints the table."""
  workdir = pathlib.Path(command_line.WORKDIR.value)
  if (workdir / _RESULTS).exists() and not command_line.OVERWRITE.value:
    raise InputError(f"workdir {str(workdir)!r} holds a benchmark; replace it with --overwrite")
  with locks.Lock(workdir), interrupts.temporary_folder("jaxdl-benchmark-") as folder:
    files.check_replaceable(
      workdir, (_RESULTS, "benchmark.md", "benchmark.html", "figures"), _RESULTS
    )
    data_dir = command_line.DATA_DIR.value
    benchmark = Benchmark(config, workdir, data_dir, pathlib.Path(folder))
    benchmark.run()
    with files.staging(workdir, _RESULTS) as stage:
      benchmark.write(stage)
      (stage / "figures").mkdir()
      for name, figure in benchmark_report.pictures(benchmark.results).items():
        figures.save(figure, stage / "figures" / name)
      text = benchmark_report.markdown(benchmark.to_json())
      (stage / "benchmark.md").write_text(text, encoding="utf-8")
      (stage / "benchmark.html").write_text(report.html.document(text, stage), encoding="utf-8")
  print(report.text_table(benchmark_report.table(benchmark.results)))
  print(f"\nReport: {workdir / 'benchmark.html'}")


if __name__ == "__main__":
  command_line.main(main)
