"""The systems of the benchmark: this project and its peers, each in the variant that is fastest."""

import contextlib
import dataclasses
import json
import logging
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxdl.cpu import matmul
from jaxdl.nn import models
from jaxdl.population import devices

from . import CONFIGS, workloads
from .peers import keras_peer, process, torch_peer
from .workloads import Workload

_ROOT = CONFIGS.parent
_LOGGER = logging.getLogger("jaxdl")
PEERS = {
  "keras-tensorflow": ("experiments.peers.keras_peer", keras_peer, {"backend": "tensorflow"}),
  "keras-jax": ("experiments.peers.keras_peer", keras_peer, {"backend": "jax"}),
  "torch": ("experiments.peers.torch_peer", torch_peer, {}),
}
# The prefix of variants that are programs for a whole epoch, written around a peer's layers.
_BY_HAND = "epoch_function"


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
    return process.Team(self.python, self.module, self.specs, _ROOT)


class Systems:
  """The systems that a config lists, for each of its workloads.

  Attributes:
    threads: that each process may use.
    missing: peer -> why it is missing.
    versions: package -> version.
  """

  def __init__(self, config: ConfigDict, data_dir: str | None, folder: pathlib.Path):
    """Finds the peers.

    Args:
      config: the config.
      data_dir: folder of TFDS datasets.
      folder: a temporary one, for the data of the workloads.
    """
    self._config, self._data_dir, self._folder = config, data_dir, folder
    self.threads = config.threads or devices.num_cores()
    self._python, self.missing, self.versions = _find_peers(config)
    self._workloads: dict[str, Workload] = {}
    self._chosen: dict[str, list[System]] = {}

  def workload(self, name: str) -> Workload:
    """Returns a workload; loads it on the first call."""
    if name not in self._workloads:
      config = self._config.workloads[name]
      self._workloads[name] = workloads.load(name, config, self._data_dir, self._folder)
    return self._workloads[name]

  def spec(self, name: str) -> dict[str, Any]:
    """Returns the fields of `experiments.peers.protocol.Spec` for a workload, without variant."""
    own = {"seed": self._config.seed, "threads": self.threads, "device": self._config.device}
    return {**self.workload(name).spec, **own}

  def jaxdl(self, name: str, num_members: int, suffix: str = "", xla_alone: bool = False) -> System:
    """Returns this project's system for a workload."""
    workload = self._config.workloads[name]
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
    module, _, own = PEERS[peer]
    spec = {**self.spec(name), **own, "variant": dict(variant), **changes}
    by_hand = variant["name"].startswith(_BY_HAND)
    label = f"{peer}, loop by hand" if by_hand else peer
    return System(label, self._python, module, (spec,), spec.get("num_members", 1), not by_hand)

  def peers(self, name: str) -> list[System]:
    """Returns each peer in its fastest variant, and with a loop by hand if the config says so."""
    if name not in self._chosen:
      self._chosen[name] = self._choose(name)
    return self._chosen[name]

  def to_train(self, name: str) -> list[System]:
    """Returns what trains a workload: jaxdl, perhaps by XLA alone, too, and the peers."""
    num_members = self._config.num_members
    systems = [self.jaxdl(name, num_members)]
    if self._config.xla_alone:
      systems.append(self.jaxdl(name, num_members, " by XLA alone", xla_alone=True))
    return systems + self.peers(name)

  def to_populate(self, name: str) -> list[System]:
    """Returns populations of several sizes: jaxdl, peers that train one by one, torch.func."""
    sizes = self._config.population_sizes
    systems = [self.jaxdl(name, n, f" of {n}") for n in sizes]
    for system in self.offered(name):
      systems.append(dataclasses.replace(system, name=f"{system.name}, one by one"))
      if self._config.device == "cpu":
        specs = tuple({**system.specs[0], "threads": 1, "seed": i} for i in range(self.threads))
        changes = {"name": f"{system.name}, one per core", "specs": specs}
        systems.append(dataclasses.replace(system, num_members=len(specs), **changes))
    if "torch" in self._config.peers and "torch" not in self.missing:
      for size in sizes[1:]:
        # Not compiled: compiled, it took half to twice the time, and minutes to compile.
        variant = torch_peer.variants({**self.spec(name), "num_members": size})[0]
        system = self.peer("torch", name, variant, num_members=size)
        systems.append(dataclasses.replace(system, name=f"torch.func of {size}"))
    return systems

  def offered(self, name: str) -> list[System]:
    """Returns each peer in its fastest variant."""
    return [system for system in self.peers(name) if system.is_peer]

  def _choose(self, name: str) -> list[System]:
    systems = []
    for peer in self._config.peers:
      if peer in self.missing:
        continue
      spec = {**self.spec(name), **PEERS[peer][2]}
      known = {variant["name"]: variant for variant in PEERS[peer][1].variants(spec)}
      wanted = [v for v in self._config.variants[variants_key(peer)] if v in known] or list(known)
      offered = [v for v in wanted if not v.startswith(_BY_HAND)]
      by_hand = [v for v in known if v.startswith(_BY_HAND)] if self._config.loops_by_hand else []
      if models.is_convolutional(self._config.workloads[name].model):
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
      with started([system]) as teams:
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
def started(systems: Sequence[System]) -> Iterator[dict[str, process.Team]]:
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


def _find_peers(config: ConfigDict) -> tuple[str, dict[str, str], dict[str, str]]:
  """Returns the peers' interpreter, peer -> why it is missing, and package -> version."""
  python = str((_ROOT / config.peers_python).absolute())
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


def all_variants(peer: str) -> list[str]:
  """Returns the names of all variants of a peer, for any workload."""
  _, module, own = PEERS[peer]
  specs = [
    {"layers": [{"kind": kind}], "augmentation": augmentation, **own}
    for kind in ("dense", "conv")
    for augmentation in (None, {})
  ]
  return list(dict.fromkeys(v["name"] for spec in specs for v in module.variants(spec)))


def _trial_size(workload: Workload) -> int:
  """Returns the number of examples, in whole batches, of the trial that selects a variant."""
  num_train, batch_size = len(workload.dataset.train), workload.batch_size
  if batch_size > 1000:
    return num_train
  return max(1, min(num_train // 2, 2000) // batch_size) * batch_size


def variants_key(peer: str) -> str:
  """Returns the key of a peer in `config.variants`, which must be an identifier."""
  return peer.replace("-", "_")
