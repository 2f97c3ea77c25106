"""Settings for the whole suite, made before JAX is first used."""

import atexit
import functools
import gc
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from typing import NamedTuple

# Compilers take most of the suite's time, and most of theirs goes into optimising code that then
# runs for milliseconds. Set before JAX is imported; subprocesses inherit it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxdl import batches, data, forward, population, train
from jaxdl.arm import Arm
from jaxdl.batches import Examples, seed_key
from jaxdl.data.dataset import Dataset, Split
from jaxdl.recipe import Form, Hyperparams, Recipe, form_of, group_by_recipe, hyperparams

# No test may find, or leave, a cache in the home of whoever runs it.
if "JAXDL_CACHE_DIR" not in os.environ:
  os.environ["JAXDL_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxdl-tests-")
  atexit.register(shutil.rmtree, os.environ["JAXDL_CACHE_DIR"], ignore_errors=True)


def _kept_programs() -> pathlib.Path:
  """Returns a folder for compiled programs that outlives the suite.

  Run again, the suite compiles little. Another processor has another folder.
  """
  info = pathlib.Path("/proc/cpuinfo")
  lines = info.read_text().splitlines() if info.exists() else []
  features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
  name = "programs-" + hashlib.sha256((platform.machine() + features).encode()).hexdigest()[:8]
  folder = pathlib.Path(__file__).parents[1] / ".pytest_cache" / name
  if folder.exists() and sum(file.stat().st_size for file in folder.iterdir()) > 1e9:
    shutil.rmtree(folder)
  folder.mkdir(parents=True, exist_ok=True)
  return folder


# What one test has compiled no other has to, in whichever process.
_PROGRAMS = pathlib.Path(os.environ["JAXDL_CACHE_DIR"], "programs")
if not _PROGRAMS.exists():
  _PROGRAMS.parent.mkdir(parents=True, exist_ok=True)
  _PROGRAMS.symlink_to(_kept_programs())
jax.config.update("jax_compilation_cache_dir", str(_PROGRAMS))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Compiling makes objects by the million that stay; looking for garbage among them takes time.
gc.freeze()
gc.set_threshold(200_000, 20, 20)

# Compiling takes longer than any deadline; the same examples every time keep a red test red.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("suite")

# A silent broadcast across ranks is how a loss [B] minus labels [B, 1] becomes [B, B].
jax.config.update("jax_numpy_rank_promotion", "raise")

# The files that take longest, longest first: processes that take files off one list, as with `make
# test`, then end at about the same time.
_LONGEST = (
  *("test_survival", "test_cpu", "test_population", "test_backprop", "test_cluster", "test_train"),
  *("test_examples", "test_multihost", "test_benchmark", "test_command_line"),
  "test_coursework_networks",
)

# Of the command line, for experiments that run in the tests' own process.
DEFAULT_FLAGS = {
  "data_dir": "",
  "overwrite": "false",
  "resume_anyway": "false",
  "partial": "false",
  "save_params": "true",
  "tensorboard": "false",
  "until_decided": "false",
  "checkpoint_every": "0",
  "executor": "local",
  "scheduler": "",
  "scheduler_file": "",
  "index": "0",
  "count": "1",
}

ROOT = pathlib.Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


# Files of whole runs, each in processes of its own: `make test-slow` runs them.
_SLOW = (
  *("test_survival", "test_cluster", "test_multihost", "test_array", "test_benchmark"),
  *("test_examples", "test_gpu_check"),
)


def pytest_collection_modifyitems(items):
  """Marks the tests of slow files, and puts the files that take longest first."""
  places = {name: place for place, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: places.get(item.path.stem, len(places)))
  for item in items:
    if item.path.stem in _SLOW:
      item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tfds_dir() -> pathlib.Path:
  """Prepared MNIST and CIFAR-10, where they lie beside the project."""
  if not (SHARED / "tfds").is_dir():
    pytest.skip("no prepared datasets beside the project")
  return SHARED / "tfds"


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> pathlib.Path:
  """A folder with the library as pip installs its source distribution without a C++ compiler."""
  source, target = (tmp_path_factory.mktemp(name) for name in ("source", "installed"))
  ignore = shutil.ignore_patterns("__pycache__", "*.so")
  for name in ("experiments", "jaxdl", "ml_collections_configs"):
    shutil.copytree(ROOT / name, source / name, ignore=ignore)
  for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
    shutil.copy(ROOT / name, source)
  build = "from setuptools import build_meta; build_meta.build_sdist('.')"
  subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
  install = "-m pip install --no-deps --no-index --no-build-isolation --no-compile --quiet"
  subprocess.run(
    [sys.executable, *install.split(), f"--target={target}", *source.glob("*.tar.gz")],
    env={**os.environ, "CXX": "false"},
    check=True,
  )
  return target


@pytest.fixture(scope="session")
def digits() -> Dataset:
  """The digits 3 and 7, with a validation set: 218 + 55 training and 89 test images."""
  return data.split_validation(data.select_classes(data.load("digits"), (3, 7)), 0.2)


@pytest.fixture(scope="session")
def blobs() -> Dataset:
  """Three classes of 8 x 8 images that a small model learns in a few steps; 50 + 20 + 30 images."""
  rng = np.random.default_rng(0)
  centres = rng.integers(60, 196, (3, 8, 8, 1))

  def split(num_examples):
    labels = np.arange(num_examples, dtype=np.int32) % 3
    noise = rng.normal(0, 60, (num_examples, 8, 8, 1))
    return Split(np.clip(centres[labels] + noise, 0, 255).astype(np.uint8), labels)

  return Dataset("blobs", split(50), split(20), split(30), ("a", "b", "c"), "0" * 64)


def form(num_classes: int, num_train: int, input_shape=(28, 28, 1)) -> Form:
  """Returns the form of a dataset of images with equally many examples of each class."""
  counts = (num_train // num_classes,) * num_classes
  return Form(input_shape, "uint8", (), counts, num_train)


class Member(NamedTuple):
  """What one training run takes, on the device."""

  recipe: Recipe
  key: jax.Array
  hyper: Hyperparams
  train: Examples
  validation: Examples


def member(arm: Arm, dataset: Dataset, slice_size: int = 4096, seed: int = 0) -> Member:
  """Returns a member of an arm that shares its program with no other."""
  (recipe,) = group_by_recipe({"arm": arm}, form_of(dataset), lambda _: slice_size)
  splits = (Examples(s.inputs, s.targets) for s in dataset.splits[:2])
  on_device = jax.device_put((hyperparams(arm, recipe), *splits))
  return Member(recipe, seed_key(0, seed), *on_device)


# Compiled once for each recipe and shape. Called as they are, JAX compiles a program for each of
# their operations.
create_member = jax.jit(train.create_member, static_argnums=0)
train_member = jax.jit(train.train_member, static_argnums=0)
epoch_slices = jax.jit(batches.epoch_slices, static_argnums=(0, 3))
predict = jax.jit(forward.predict, static_argnums=0)
evaluate = jax.jit(forward.evaluate, static_argnums=0)


def epoch_scratch(arm: Arm, dataset: Dataset, step=train.train_step) -> int:
  """Returns how many bytes the program of an epoch needs beside a member's state.

  The state is there twice: donated, and as it was, for a member that has stopped.
  """
  recipe, key, hyper, *splits = member(arm, dataset)
  state = jax.eval_shape(lambda: train.create_member(recipe, key, hyper))
  epoch = jax.jit(functools.partial(train.train_epoch, recipe, step=step), donate_argnums=0)
  memory = epoch.lower(state, key, hyper, *splits, jnp.int32(0)).compile().memory_analysis()
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  assert memory.alias_size_in_bytes == size
  return memory.temp_size_in_bytes - size


@pytest.fixture(scope="session")
def mlp_arm() -> Arm:
  """An arm that trains in no time on `blobs`."""
  return Arm(
    model="mlp",
    loss="categorical_cross_entropy",
    batch_size=16,
    num_epochs=6,
    patience=2,
    learning_rate=0.003,
    dropout_rate=0.3,
  )


@pytest.fixture(scope="session")
def three_arms(mlp_arm):
  """Three initializers on `mlp_arm`."""
  names = ("glorot_uniform", "random_uniform", "random_normal")
  return {name: replace(mlp_arm, kernel_initializer=name, bias_initializer=name) for name in names}


@pytest.fixture(scope="session")
def trained(blobs, three_arms) -> population.Population:
  """Five seeds of the three arms, in chunks of two."""
  return population.train_population(blobs, three_arms, seeds=5, root_seed=3, chunk_size=2)


def save_no_picture(_, path):
  """In the place of `jaxdl.report.figures.save`: files of pictures without their content."""
  Image.new("L", (8, 8)).save(f"{path}.png")
  pathlib.Path(f"{path}.svg").write_text("<svg/>")


@pytest.fixture
def no_pictures(monkeypatch):
  """Pictures take most of a small run's time."""
  from jaxdl.report import figures

  monkeypatch.setattr(figures, "save", save_no_picture)


# Imports once, then answers each line of arguments from a process of its own.
_FORKS = """
import gc, json, os, runpy, sys, tempfile, traceback
sys.path[:0] = [os.getcwd(), "tests"]
{imports}
gc.freeze()  # as above; what was imported stays one copy in memory for all processes
gc.set_threshold(200_000, 20, 20)

for line in sys.stdin:
  with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
    pid = os.fork()
    if pid == 0:
      os.dup2(stdout.fileno(), 1)
      os.dup2(stderr.fileno(), 2)
      folder, *sys.argv[1:] = json.loads(line)
      os.chdir(folder)
      status = 0
      try:
        {call}
      except SystemExit as error:
        status = error.code or 0
      except BaseException:
        status = 1
        traceback.print_exc()
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(status)  # at once: a regular exit takes a second
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    stdout.seek(0)
    stderr.seek(0)
    print(json.dumps([status, stdout.read(), stderr.read()]), flush=True)
"""


class Forks:
  """Makes a call in a process of its own for each list of command-line arguments.

  Importing takes longer than most calls, and is done once. Both are lines of Python.
  """

  def __init__(self, imports, call, through=()):
    self._server = subprocess.Popen(
      [*through, sys.executable, "-W", "ignore", "-c", _FORKS.format(imports=imports, call=call)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )

  def __call__(self, *arguments, cwd=ROOT):
    print(json.dumps([str(cwd), *arguments]), file=self._server.stdin, flush=True)
    return subprocess.CompletedProcess(arguments, *json.loads(self._server.stdout.readline()))

  def close(self):
    self._server.communicate()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


# What experiments import, for those that run in forks.
EXPERIMENT_IMPORTS = """
import pandas, pyarrow.parquet, scipy.stats
from experiments import command_line
from jaxdl.report import figures, line_plots, plots
"""


@pytest.fixture(scope="session")
def run_module():
  """Runs `python -m MODULE ARGUMENTS` in a process whose imports are there already."""
  call = 'runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'
  with Forks(EXPERIMENT_IMPORTS, call) as forks:
    yield forks


# A run of some seconds, in three chunks of both arms.
SHORT_RUN = [
  *(sys.executable, "-m", "experiments.compare_initializers"),
  "--config=ml_collections_configs/compare_initializers.py:digits",
  *("--config.num_seeds=3", "--config.model=mlp(8)", "--config.num_epochs=60"),
  *("--config.chunk_size=1", "--config.patience=20", "--config.batch_size=32"),
  *("--config.initializers=he_normal,random_normal", "--checkpoint_every=5"),
]


def start_run(workdir, *flags, **options):
  """Starts `SHORT_RUN` as a process; options are those of `subprocess.Popen`."""
  return subprocess.Popen(
    [*SHORT_RUN, f"--workdir={workdir}", *flags],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    **options,
  )


def hashes(workdir):
  """Returns hashes of all results, times apart."""
  tables = {
    "members.csv": pd.read_csv(workdir / "members.csv").drop(columns="train_seconds").to_csv()
  }
  names = ("verdicts.json", "per_class.csv", "confusion.npz", "config.json", "curves.parquet")
  found = {name: (workdir / name).read_bytes() for name in names}
  found |= {path.name: path.read_bytes() for path in (workdir / "figures").iterdir()}
  found |= {name: text.encode() for name, text in tables.items()}
  return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def rehash(workdir, name):
  """Makes the hash of a file fit, as somebody might who has edited it."""
  file = workdir / "provenance.json"
  origin = json.loads(file.read_text())
  origin["files"][name] = hashlib.sha256((workdir / name).read_bytes()).hexdigest()
  file.write_text(json.dumps(origin))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
  """What `SHORT_RUN` leaves."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  _, error = (run := start_run(workdir)).communicate()
  assert run.returncode == 0, error
  return workdir
