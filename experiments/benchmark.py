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
import datetime
import json
import logging
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxdl import report
from jaxdl.arm import Arm
from jaxdl.errors import InputError, unknown_name
from jaxdl.population import devices, environment, timing
from jaxdl.report import figures
from jaxdl.store import files, interrupts, locks

from . import CONFIGS, benchmark_report, command_line
from .benchmark_rows import add_rates, compare, summarize, training_row
from .benchmark_systems import PEERS, System, Systems, all_variants, started, variants_key
from .gpu_parts.timing import best_seconds
from .peers import process

_LOGGER = logging.getLogger("jaxdl")
_RESULTS = "benchmark.json"
# The config variants of the scripts whose cold start is timed.
_COLD_VARIANTS = {"compare_initializers": "mnist", "mnist_cnn": "notebook"}
_EMPTY_CACHE = "jaxdl, empty cache"


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
    self._systems = Systems(config, data_dir, folder)
    self.results: list[dict[str, Any]] = []
    self.peak = matmul_peak()
    _LOGGER.info("matmul peak: %.0f GFLOP/s", self.peak / 1e9)

  def run(self):
    """Measures everything that the config lists."""
    for names, measure in (
      (self.config.train, self._train),
      (self.config.inference, self._infer),
      (self.config.population, self._populate),
      (self.config.cold_start, self._start_cold),
    ):
      for name in names:
        measure(name)
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
      "threads": self._systems.threads,
      "versions": self._systems.versions,
      "missing": self._systems.missing,
      "matmul_peak_flops_per_second": self.peak,
      "config": self.config.to_dict(),
      "results": self.results,
    }

  def _rounds(self, label: str, names: Sequence[str]) -> Iterator[str]:
    """Yields every name once per round, in a random order."""
    orders = timing.draw_orders(list(names), self.config.rounds, self.config.seed)
    for number, order in enumerate(orders, 1):
      yield from order
      _LOGGER.info("%s: round %d of %d", label, number, self.config.rounds)

  # --- What is measured ---

  def _train(self, name: str):
    self.results += self._take_turns(name, name, self._systems.to_train(name))

  def _populate(self, name: str):
    systems = self._systems.to_populate(name)
    self.results += self._take_turns(name, f"population of {name}", systems)

  def _take_turns(
    self, workload: str, label: str, systems: Sequence[System]
  ) -> list[dict[str, Any]]:
    """Lets the systems train one epoch each per round; returns one row of results per system."""
    with started(systems) as teams:
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
        training_row(label, s, teams[s.name], first[s.name], times[s.name], answers[s.name])
        for s in systems
        if s.name in teams
      ]
    return compare(add_rates(self._systems.workload(workload), rows))

  def _infer(self, name: str):
    """Times the prediction of one image (latency) and of the test set (throughput)."""
    systems = {s.name: s for s in [self._systems.jaxdl(name, 1), *self._systems.offered(name)]}
    num_test = len(self._systems.workload(name).dataset.test)
    kinds = {"latency": (1, 1, 50), "throughput": (min(1000, num_test), num_test, 1)}
    with started(list(systems.values())) as teams:
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
            "seconds_per_pass": summarize(times[kind, key]),
            "seconds_of_rounds": times[kind, key],
            "examples_per_second": num_images / float(np.median(times[kind, key])),
            "is_peer": systems[key].is_peer,
          }
          for key, team in teams.items()
        ]
        self.results += compare(rows)

  def _start_cold(self, name: str):
    """Times from the start of a process to the end of its first epoch."""
    workload, peers = self.config.workloads[name], {s.name: s for s in self._systems.offered(name)}

    def start(label: str, cache: str) -> float:
      if label == _EMPTY_CACHE:
        _remove_programs(cache)
      if label not in peers:
        return _seconds_to_first_epoch(workload, self._data_dir, cache)
      begin = time.perf_counter()
      with started([peers[label]]) as teams:
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
        "seconds_to_first_epoch": summarize(seconds),
        "seconds_of_rounds": seconds,
        "is_peer": label in peers,
      }
      for label, seconds in times.items()
    ]
    self.results += compare(rows)


# --- The config and the machine ---


def matmul_peak(size: int = 2048, seconds: float = 2.0) -> float:
  """Returns the best measured float32 FLOP/s of a product of matrices `[size, size]`."""
  a = jnp.ones((size, size), jnp.float32)
  product = jax.jit(lambda a: a @ a)
  return 2 * size**3 / best_seconds(lambda: product(a), seconds)


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
    if peer not in PEERS:
      raise unknown_name("peer", peer, PEERS)
  for peer in PEERS:
    known = all_variants(peer)
    for variant in config.variants[variants_key(peer)]:
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


def _machine() -> str:
  model = ""
  with contextlib.suppress(OSError):
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
  device = jax.local_devices()[0]
  return f"{devices.num_cores()} cores ({model or 'unknown CPU'}), JAX on {device.device_kind}"


# --- Cold starts ---


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
      cwd=CONFIGS.parent,
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
