"""How fast is jaxdl beside what its users would otherwise run, on the same work and machine?

  python -m experiments.benchmark --config=ml_collections_configs/benchmark.py --workdir=DIR

trains the same networks with jaxdl and with each peer that is installed (`make install-peers`),
every system in a process of its own that holds its data in memory. Of each peer the fastest variant
of a short trial counts. Then rounds, in each of which every system trains one epoch, in an order
drawn for each: whatever else the machine does slows all of them alike, and ratios are taken within
rounds. Compiling and the first epoch are reported apart. It writes `benchmark.json` after every
workload, and in the end `benchmark.md` and pictures.
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
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import command_line
from experiments.peers import keras_peer, process, torch_peer
from jaxdl import (
  benchmark_plots,
  comparison_plots,
  data,
  devices,
  figures,
  files,
  losses,
  models,
  report,
)
from jaxdl.arm import Arm
from jaxdl.errors import InputError, unknown_name
from jaxdl.types import Dataset

ROOT = pathlib.Path(__file__).parents[1]
_LOGGER = logging.getLogger("jaxdl")
_PEERS = {
  "keras-tensorflow": ("experiments.peers.keras_peer", keras_peer, {"backend": "tensorflow"}),
  "keras-jax": ("experiments.peers.keras_peer", keras_peer, {"backend": "jax"}),
  "torch": ("experiments.peers.torch_peer", torch_peer, {}),
}
# Of a variant that is a program for a whole epoch, written by hand around a peer's layers.
_BY_HAND = "epoch_function"
# A peer's loss, as far from the mean of jaxdl's members, in standard deviations of theirs, and a
# tenth of the mean besides: there are few members to take the deviation of.
_DEVIATIONS, _SHARE = 4, 0.1
# Of the scripts that are started to see how long that takes.
_COLD_VARIANTS = {"compare_initializers": "mnist", "mnist_cnn": "notebook"}
_COLUMNS = ("workload", "system", "variant", "members", "s per member and epoch", "ratio", "peak")


@dataclasses.dataclass(frozen=True)
class System:
  """What is timed: a process, or several that work at the same time.

  Attributes:
    name: in the results; those of this project begin with "jaxdl".
    python: interpreter.
    module: of the worker.
    specs: one for each process.
    num_members: trained in one epoch, by all processes together.
    is_peer: whether it counts as what a peer offers.
  """

  name: str
  python: str
  module: str
  specs: tuple[dict[str, Any], ...]
  num_members: int
  is_peer: bool = True

  @property
  def variant(self) -> str:
    """The name of its variant."""
    return self.specs[0]["variant"]["name"]

  def start(self) -> process.Team:
    """Starts its processes. Raises WorkerError."""
    return process.Team(self.python, self.module, self.specs, ROOT)


class Benchmark:
  """One run: what was measured so far, and how to measure more."""

  def __init__(self, config: ConfigDict, workdir: pathlib.Path, data_dir: str | None):
    """Checks the config, finds the peers and measures the matmul peak. Raises InputError."""
    _check(config)
    self.config, self.workdir, self._data_dir = config, workdir, data_dir
    self.threads = config.threads or devices.num_cores()
    self._python, self.missing, self.versions = _find_peers(config)
    self._chosen: dict[str, list[System]] = {}
    self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    self.results: list[dict[str, Any]] = []
    self.peak = matmul_peak()
    _LOGGER.info("matmul peak: %.0f GFLOP/s", self.peak / 1e9)

  def run(self):
    """Measures all that the config asks for."""
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
    """Writes what there is to benchmark.json."""
    for row in self.results:
      flops = row.get("model_flops_per_second")
      row["fraction_of_matmul_peak"] = None if flops is None else flops / self.peak
    files.write(self.workdir / "benchmark.json", json.dumps(self.to_json(), indent=2) + "\n")

  def to_json(self) -> dict[str, Any]:
    """Returns all that was measured and on what."""
    return {
      "command": [pathlib.Path(sys.executable).name, *sys.orig_argv[1:]],
      "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "machine": _machine(),
      "threads": self.threads,
      "versions": self.versions,
      "missing": self.missing,
      "matmul_peak_flops_per_second": self.peak,
      "config": self.config.to_dict(),
      "results": self.results,
    }

  # --- Workloads ---

  def spec(self, name: str) -> dict[str, Any]:
    """Returns a workload as `experiments.peers.protocol.Spec` has it, with its data in a file."""
    workload = self.config.workloads[name]
    dataset = _load(workload, self._data_dir)
    path = pathlib.Path(self._folder.name) / f"{name}.npz"
    if not path.exists():
      np.savez(
        path,
        train_images=dataset.train.images,
        train_labels=dataset.train.labels,
        test_images=dataset.test.images,
        test_labels=dataset.test.labels,
      )
    changes = ("rotation_range", "shift_range", "horizontal_flip")
    augmentation = {key: workload[key] for key in changes}
    return {
      "data": str(path),
      "layers": layers(workload, dataset.num_classes),
      **{key: workload[key] for key in ("loss", "optimizer", "learning_rate")},
      "batch_size": min(workload.batch_size, len(dataset.train)),
      "augmentation": augmentation if any(augmentation.values()) else None,
      "seed": self.config.seed,
      "threads": self.threads,
      "device": self.config.device,
    }

  def jaxdl(self, name: str, num_members: int, suffix: str = "") -> System:
    """Returns this project's system for a workload."""
    workload = self.config.workloads[name]
    variant = {"name": "population", "model": workload.model, "activation": workload.activation}
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
    """Returns each peer in its fastest variant, and with a loop by hand if that is asked for."""
    if name not in self._chosen:
      self._chosen[name] = self._choose(name)
    return self._chosen[name]

  def _choose(self, name: str) -> list[System]:
    systems = []
    for peer in self.config.peers:
      if peer in self.missing:
        continue
      spec = {**self.spec(name), **_PEERS[peer][2]}
      known = {variant["name"]: variant for variant in _PEERS[peer][1].variants(spec)}
      wanted = [v for v in self.config.variants[peer] if v in known] or list(known)
      offered = [v for v in wanted if not v.startswith(_BY_HAND)]
      by_hand = [v for v in known if v.startswith(_BY_HAND)] if self.config.loops_by_hand else []
      if models.is_convolutional(self.config.workloads[name].model):
        by_hand = []  # XLA's convolutions are ten times slower inside a loop
      for group in (offered, by_hand):
        chosen = self._fastest(peer, name, [known[variant] for variant in group])
        systems += [chosen] if chosen is not None else []
    return systems

  def _fastest(self, peer: str, name: str, variants: Sequence[Mapping[str, Any]]) -> System | None:
    """Returns a peer in the variant that trains a part of the examples fastest."""
    systems = [self.peer(peer, name, variant) for variant in variants]
    if len(systems) < 2:
      return systems[0] if systems else None
    seconds = {}
    for system in systems:
      spec = system.specs[0]
      num_train = len(np.load(spec["data"], allow_pickle=False)["train_labels"])
      batch = spec["batch_size"]
      size = num_train if batch > 1000 else max(1, min(num_train // 2, 2000) // batch) * batch
      with self._started({system.name: system}) as teams:
        if not teams:
          continue
        team = teams[system.name]
        try:
          times = [team.ask("train", num_epochs=1, num_examples=size)[0] for _ in range(3)]
        except process.WorkerError as error:
          _LOGGER.info("%s: %s, %s: %s", name, peer, system.variant, error)
          continue
      seconds[system.variant] = min(times[1:])
    _LOGGER.info("%s: %s: %s", name, peer, ", ".join(f"{v} {s:.3g} s" for v, s in seconds.items()))
    best = min(seconds, key=seconds.get, default=None)
    return next((system for system in systems if system.variant == best), None)

  @contextlib.contextmanager
  def _started(self, systems: Mapping[str, System]) -> Iterator[dict[str, process.Team]]:
    """Starts systems and ends them; those that do not start are named and left out."""
    with contextlib.ExitStack() as stack:
      teams = {}
      for name, system in systems.items():
        try:
          teams[name] = system.start()
          stack.callback(teams[name].close)
        except process.WorkerError as error:
          _LOGGER.info("%s (%s) does not start: %s", name, system.variant, error)
      yield teams

  # --- What is measured ---

  def _train(self, name: str):
    systems = {s.name: s for s in [self.jaxdl(name, self.config.num_members), *self.peers(name)]}
    self.results += self._take_turns(name, systems)

  def _populate(self, name: str):
    """Members against their number: a population, torch.func, and peers one after the other."""
    sizes = self.config.population_sizes
    systems = {f"jaxdl of {n}": self.jaxdl(name, n, f" of {n}") for n in sizes}
    for system in self.peers(name):
      if not system.is_peer:
        continue
      systems[system.name] = dataclasses.replace(system, name=f"{system.name}, one by one")
      specs = tuple({**system.specs[0], "threads": 1, "seed": i} for i in range(self.threads))
      label = f"{system.name}, one per core"
      if self.config.device == "cpu":
        systems[label] = dataclasses.replace(
          system, name=label, specs=specs, num_members=len(specs)
        )
    if "torch" in self.config.peers and "torch" not in self.missing:
      for size in sizes[1:]:
        spec = {**self.spec(name), "num_members": size}
        # The plain one: compiled, it took half to twice the time and minutes to compile.
        variant = torch_peer.variants(spec)[0]
        system = self.peer("torch", name, variant, num_members=size)
        label = f"torch.func of {size}"
        systems[label] = dataclasses.replace(system, name=label)
    self.results += self._take_turns(f"population of {name}", systems, workload=name)

  def _take_turns(
    self, label: str, systems: Mapping[str, System], workload: str | None = None
  ) -> list[dict[str, Any]]:
    """Has systems train an epoch each, in rounds, and returns a row for each."""
    name = workload or label
    with self._started(systems) as teams:
      first, times = {}, {key: [] for key in teams}
      for key, team in list(teams.items()):
        try:
          first[key], _ = team.ask("train", num_epochs=1, num_examples=None)
        except process.WorkerError as error:
          _LOGGER.info("%s: %s: %s", label, key, error)
          del teams[key]
      answers, rng = {}, np.random.default_rng(self.config.seed)
      for number in range(self.config.rounds):
        for place in rng.permutation(len(teams)):
          key = list(teams)[place]
          seconds, answers[key] = teams[key].ask("train", num_epochs=1, num_examples=None)
          times[key].append(seconds / systems[key].num_members)
        _LOGGER.info("%s: round %d of %d", label, number + 1, self.config.rounds)
      rows = []
      for key, team in teams.items():
        start = max(worker.start_seconds for worker in team.workers)
        rows.append(
          {
            "workload": label,
            "system": systems[key].name,
            "variant": systems[key].variant,
            "device": team.workers[0].ready["device"],
            "num_members": systems[key].num_members,
            "num_processes": len(team.workers),
            "batch_size": systems[key].specs[0]["batch_size"],
            "seconds_per_member_epoch": _summary(times[key]),
            "seconds_of_rounds": times[key],
            "start_seconds": start,
            "first_epoch_seconds": first[key],
            "compile_seconds": max(
              0.0, first[key] - float(np.median(times[key])) * systems[key].num_members
            ),
            "peak_memory_mb": sum(answer["peak_memory_mb"] for answer in answers[key]),
            "train_loss": [loss for answer in answers[key] for loss in answer["train_loss"]],
            "is_peer": systems[key].is_peer,
          }
        )
    return self._complete(name, rows)

  def _complete(self, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to the rows of one workload what follows from them together."""
    workload = self.config.workloads[name]
    dataset = _load(workload, self._data_dir)
    shape = dataset.train.images.shape[1:]
    flops = training_flops(layers(workload, dataset.num_classes), shape)
    peers = [row for row in rows if row["is_peer"]]
    best = min(peers, key=lambda row: row["seconds_per_member_epoch"]["median"], default=None)
    # Of the most members, whose spread is known best.
    ours = max((r["train_loss"] for r in rows if r["system"].startswith("jaxdl")), key=len)
    for row in rows:
      per_second = len(dataset.train) / row["seconds_per_member_epoch"]["median"]
      row["examples_per_second"] = per_second
      row["model_flops_per_second"] = per_second * flops
      row |= _ratio(best, row)
      row["loss_agrees"] = bool(_agrees(row["train_loss"], ours))
    return rows

  def _infer(self, name: str):
    """Latency of one image and throughput of the test set."""
    systems = {s.name: s for s in [self.jaxdl(name, 1), *self.peers(name)]}
    systems = {key: system for key, system in systems.items() if not key.endswith("by hand")}
    num_test = len(_load(self.config.workloads[name], self._data_dir).test)
    kinds = {"latency": (1, 1, 50), "throughput": (min(1000, num_test), num_test, 1)}
    with self._started(systems) as teams:
      times = {(kind, key): [] for kind in kinds for key in teams}
      rng = np.random.default_rng(self.config.seed)
      for _ in range(self.config.rounds):
        for place in rng.permutation(len(teams)):
          key = list(teams)[place]
          for kind, (batch_size, num_images, repeats) in kinds.items():
            order = {"batch_size": batch_size, "num_images": num_images, "repeats": repeats}
            (answer,) = teams[key].ask("predict", **order)[1]
            times[kind, key].append(float(np.median(answer["seconds"])))
      for kind, (_, num_images, _) in kinds.items():
        rows = []
        for key, team in teams.items():
          summary = _summary(times[kind, key])
          rows.append(
            {
              "workload": f"{kind} of {name}",
              "system": key,
              "variant": systems[key].variant,
              "device": team.workers[0].ready["device"],
              "num_members": 1,
              "seconds_per_pass": summary,
              "seconds_of_rounds": times[kind, key],
              "examples_per_second": num_images / summary["median"],
              "is_peer": systems[key].is_peer,
            }
          )
        peers = [row for row in rows if row["is_peer"]]
        best = min(peers, key=lambda row: row["seconds_per_pass"]["median"], default=None)
        self.results += [row | _ratio(best, row) for row in rows]

  def _start_cold(self, name: str):
    """From the start of a process to the end of its first epoch."""
    times: dict[str, list[float]] = {}
    systems = [system for system in self.peers(name) if system.is_peer]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as cache:
      _seconds_to_first_epoch(self.config.workloads[name], self._data_dir, cache)  # reads the data
      for _ in range(self.config.rounds):
        for label, empty in (("jaxdl, empty cache", True), ("jaxdl", False)):
          if empty:
            _remove_programs(cache)
          seconds = _seconds_to_first_epoch(self.config.workloads[name], self._data_dir, cache)
          times.setdefault(label, []).append(seconds)
        for system in systems:
          start = time.perf_counter()
          with self._started({system.name: system}) as teams:
            teams[system.name].ask("train", num_epochs=1, num_examples=None)
            times.setdefault(system.name, []).append(time.perf_counter() - start)
    rows = [
      {
        "workload": f"cold start of {name}",
        "system": key,
        "num_members": 1,
        "seconds_to_first_epoch": _summary(seconds),
        "seconds_of_rounds": seconds,
        "is_peer": not key.startswith("jaxdl"),
      }
      for key, seconds in times.items()
    ]
    peers = [row for row in rows if row["is_peer"]]
    best = min(peers, key=lambda row: row["seconds_to_first_epoch"]["median"], default=None)
    self.results += [row | _ratio(best, row) for row in rows]


# --- What a workload is ---


def layers(workload: ConfigDict, num_classes: int) -> list[dict[str, Any]]:
  """Returns the network of a workload layer by layer, as the peers build it."""
  outputs = losses.num_outputs(workload.loss, num_classes)
  settings = {"kernel_init": None, "bias_init": None, "dropout_rate": workload.dropout_rate}
  model = models.create(workload.model, workload.activation, num_outputs=outputs, **settings)
  names = models.hidden_activations(workload.model, workload.activation)
  found = [
    {
      "kind": "conv",
      "features": features,
      "size": 3,
      "pool": block < model.num_pooled,
      "activation": workload.activation,
    }
    for block, features in enumerate(getattr(model, "features", ()))
  ]
  found.append({"kind": "flatten"})
  for features, name in zip(model.hidden, names, strict=True):
    found.append({"kind": "dense", "features": features, "activation": name})
  if workload.dropout_rate > 0:
    found.append({"kind": "dropout", "rate": workload.dropout_rate})
  return [*found, {"kind": "dense", "features": outputs, "activation": None}]


def training_flops(network: Sequence[Mapping[str, Any]], image_shape: Sequence[int]) -> int:
  """Returns the floating-point operations of matrix products that one example takes in training.

  Two for each weight and place it is used at: forward, for the weights' gradient, and for that of
  the input, which the first layer needs not. Outputs that pooling drops are not counted, nor is
  anything but products.
  """
  total, shape, first = 0, tuple(image_shape), True
  for layer in network:
    if layer["kind"] == "conv":
      height, width = (side - layer["size"] + 1 for side in shape[:2])
      if layer["pool"]:
        height, width = height // 2 * 2, width // 2 * 2
      weights = layer["size"] ** 2 * shape[2] * layer["features"]
      products = height * width * weights
      halve = 2 if layer["pool"] else 1
      shape = (height // halve, width // halve, layer["features"])
    elif layer["kind"] == "dense":
      products = int(np.prod(shape)) * layer["features"]
      shape = (layer["features"],)
    else:
      continue
    total += 2 * products * (2 if first else 3)
    first = False
  return total


def matmul_peak(size: int = 2048, seconds: float = 2.0) -> float:
  """Returns the most float32 FLOP/s of a matrix product `[size, size]`, on all that JAX uses."""
  a = jnp.ones((size, size), jnp.float32)
  product = jax.jit(lambda a: a @ a)
  jax.block_until_ready(product(a))
  best, end = 0.0, time.perf_counter() + seconds
  while time.perf_counter() < end:
    start = time.perf_counter()
    jax.block_until_ready(product(a))
    best = max(best, 2 * size**3 / (time.perf_counter() - start))
  return best


def _load(workload: ConfigDict, data_dir: str | None) -> Dataset:
  dataset = data.load(workload.dataset, data_dir=data_dir)
  if workload.classes:
    dataset = data.select_classes(dataset, tuple(workload.classes))
  if workload.num_train:
    dataset = data.take_train(dataset, workload.num_train)
  return dataset


def _check(config: ConfigDict):
  for kind in ("train", "inference", "population", "cold_start"):
    for name in config[kind]:
      if name not in config.workloads:
        raise unknown_name("workload", name, config.workloads)
  for name in config.cold_start:
    workload = config.workloads[name]
    if bool(workload.classes) != (workload.loss == "binary_cross_entropy"):
      raise InputError(
        f"cold_start of {name!r} needs two classes with binary_cross_entropy, or all with another"
      )
  for peer in config.peers:
    if peer not in _PEERS:
      raise unknown_name("peer", peer, _PEERS)
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


def _find_peers(config: ConfigDict) -> tuple[str, dict[str, str], dict[str, str]]:
  """Returns the peers' interpreter, why which peers are missing, and versions of what is there."""
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
  return python, missing, {"jaxdl's jax": jax.__version__, **peers}


def _machine() -> str:
  model = ""
  with contextlib.suppress(OSError):
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
  device = jax.local_devices()[0]
  return f"{devices.num_cores()} cores ({model or 'unknown CPU'}), JAX on {device.device_kind}"


# --- Numbers ---


def _summary(seconds: Sequence[float]) -> dict[str, float]:
  return {
    "median": float(np.median(seconds)),
    "min": float(np.min(seconds)),
    "max": float(np.max(seconds)),
  }


def _ratio(best: Mapping[str, Any] | None, row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns how many times as fast a row is as the best peer: the median over rounds, the range."""
  if best is None:
    return {"ratio_to_best_peer": None, "ratio_range": None, "best_peer": None}
  ratios = np.array(best["seconds_of_rounds"]) / np.array(row["seconds_of_rounds"])
  return {
    "ratio_to_best_peer": float(np.median(ratios)),
    "ratio_range": [float(ratios.min()), float(ratios.max())],
    "best_peer": best["system"],
  }


def _agrees(loss: Sequence[float], ours: Sequence[float]) -> bool:
  """Whether a final training loss lies within the spread between seeds."""
  mean = np.mean(ours)
  allowed = _DEVIATIONS * (np.std(ours, ddof=1) if len(ours) > 1 else 0.0) + _SHARE * abs(mean)
  return abs(np.mean(loss) - mean) <= allowed


def _seconds_to_first_epoch(workload: ConfigDict, data_dir: str | None, cache: str) -> float:
  """Runs an experiment as a user would, until its log says that the first epoch is done."""
  settings = ("dataset", "model", "batch_size", "loss", "dropout_rate", "optimizer")
  # Of two classes, and of all.
  script = "compare_initializers" if workload.classes else "mnist_cnn"
  classes = ",".join(map(str, workload.classes))
  with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
    command = [
      *(sys.executable, "-m", f"experiments.{script}"),
      f"--config={ROOT / 'ml_collections_configs' / script}.py:{_COLD_VARIANTS[script]}",
      f"--workdir={folder}/run",
      "--config.initializers=glorot_uniform",
      "--config.num_seeds=1",
      *([f"--config.classes=({classes})"] if classes else []),
      *(f"--config.{name}={workload[name]}" for name in settings),
      *([f"--data_dir={data_dir}"] if data_dir else []),
    ]
    start = time.perf_counter()
    run = subprocess.Popen(
      command,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
      env={**os.environ, "JAXDL_CACHE_DIR": cache},
    )
    try:
      said = []
      for line in run.stderr:
        said.append(line.strip())
        if "epoch 1/" in line:
          return time.perf_counter() - start
    finally:
      run.kill()
      run.wait()
      run.stderr.close()
  raise InputError(f"the start of {workload.model} failed: {said[-1] if said else 'no message'}")


def _remove_programs(cache: str):
  for path in (pathlib.Path(cache) / "programs").glob("*"):
    path.unlink()


# --- What is written ---


def _seconds(row: Mapping[str, Any]) -> dict[str, float]:
  kinds = ("seconds_per_member_epoch", "seconds_per_pass", "seconds_to_first_epoch")
  return next(row[kind] for kind in kinds if kind in row)


def table(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  """Returns the results as rows of text, header first."""
  rows = [list(_COLUMNS)]
  for row in results:
    summary, ratio = _seconds(row), row["ratio_to_best_peer"]
    spread = row["ratio_range"]
    share = row.get("fraction_of_matmul_peak")
    rows.append(
      [
        row["workload"],
        row["system"],
        row.get("variant", ""),
        str(row["num_members"]),
        f"{summary['median']:.3g} ({summary['min']:.3g} to {summary['max']:.3g})",
        "" if ratio is None else f"{ratio:.2f} ({spread[0]:.2f} to {spread[1]:.2f})",
        "" if share is None else f"{share:.0%}",
      ]
    )
  return rows


def pictures(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the pictures, file name without suffix -> figure."""

  def triple(values):
    return values["median"], values["min"], values["max"]

  ours = [r for r in results if r["system"] == "jaxdl" and r["ratio_to_best_peer"] is not None]
  members: dict[str, dict[str, list]] = {}
  batches: dict[str, list] = {}
  for row in results:
    if row["workload"].startswith("population of "):
      panel = members.setdefault(row["workload"].removeprefix("population of "), {})
      system = row["system"].split(" of ")[0]
      point = triple(row["seconds_per_member_epoch"])
      panel.setdefault(system, []).append((row["num_members"], *point))
    elif row["workload"].startswith("mlp_"):
      scale = row["examples_per_second"] * row["seconds_per_member_epoch"]["median"]
      point = (1e6 * value / scale for value in triple(row["seconds_per_member_epoch"]))
      batches.setdefault(row["system"], []).append((row["batch_size"], *point))
  for panel in members.values():  # one after the other takes as long for each, however many
    most = max((point[0] for line in panel.values() for point in line), default=1)
    for line in panel.values():
      if len(line) == 1 and line[0][0] < most:
        line.append((most, *line[0][1:]))
  peak = {
    f"{r['workload']}: {r['system']}": np.array([r["fraction_of_matmul_peak"]])
    for r in results
    if r.get("fraction_of_matmul_peak") and "population" not in r["workload"]
  }
  return {
    "ratios": benchmark_plots.ratios(
      {r["workload"]: (r["ratio_to_best_peer"], *r["ratio_range"]) for r in ours},
      x_label="times as fast as the fastest peer, per member",
    ),
    "members": benchmark_plots.against_size(
      members, x_label="members", y_label="seconds per member and epoch"
    ),
    "batch_size": benchmark_plots.against_size(
      {"MLP 784-128-64-10": batches}, x_label="batch size", y_label="microseconds per example"
    ),
    "matmul_peak": comparison_plots.timings(peak, x_label="share of the measured matmul peak"),
  }


def markdown(benchmark: Mapping[str, Any]) -> str:
  """Returns the report."""
  missing = [f"{name}: {why}" for name, why in benchmark["missing"].items()]
  disagree = [
    f"{row['workload']}: {row['system']}"
    for row in benchmark["results"]
    if row.get("loss_agrees") is False
  ]
  versions = ", ".join(f"{name} {version}" for name, version in benchmark["versions"].items())
  peak = benchmark["matmul_peak_flops_per_second"] / 1e9
  lines = [
    "# Benchmark",
    f"{report.escape(benchmark['machine'])}; {benchmark['threads']} threads; {benchmark['date']}; "
    f"float32 matmul peak {peak:.0f} GFLOP/s; {report.escape(versions)}.",
    "Medians (min to max) of interleaved rounds, after a first epoch that compiles. `ratio` is how "
    "many times as fast a system is as the fastest peer, per member, within rounds. `loop by hand` "
    "is a whole-epoch program written around a peer's layers, which is not what a peer offers and "
    "is not compared with. `peak` is the share of the measured matmul peak.",
    "Missing: " + ("; ".join(map(report.escape, missing)) if missing else "nothing") + ".",
    "Training losses outside of the spread between seeds: "
    + ("; ".join(map(report.escape, disagree)) if disagree else "none")
    + ".",
    report.markdown_table(table(benchmark["results"])),
    *(
      f"![{caption}](figures/{name}.png)"
      for name, caption in {
        "ratios": "Ratio to the best peer",
        "members": "Time per member against the number of members",
        "batch_size": "Time against batch size",
        "matmul_peak": "Share of the matmul peak",
      }.items()
    ),
  ]
  return "\n\n".join(lines) + "\n"


def main(config: ConfigDict):
  """Measures, writes, and prints the table."""
  workdir = pathlib.Path(command_line.WORKDIR.value)
  if (workdir / "benchmark.json").exists() and not command_line.OVERWRITE.value:
    raise InputError(f"workdir {str(workdir)!r} holds a benchmark; replace it with --overwrite")
  with files.naming(workdir):
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
  benchmark = Benchmark(config, workdir, command_line.DATA_DIR.value)
  benchmark.run()
  for name, figure in pictures(benchmark.results).items():
    figures.save(figure, workdir / "figures" / name)
  files.write(workdir / "benchmark.md", markdown(benchmark.to_json()))
  print(report.text_table(table(benchmark.results)))
  print(f"\nReport: {workdir / 'benchmark.md'}")


if __name__ == "__main__":
  command_line.main(main)
