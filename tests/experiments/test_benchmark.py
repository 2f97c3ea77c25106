"""The benchmark: its workloads, its arithmetic, its processes, and one small run end to end."""

import dataclasses
import json
import re
import sys
import textwrap

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from conftest import ROOT
from drawing import assert_nothing_clipped

from experiments import benchmark, benchmark_rows, jaxdl_worker, workloads
from experiments.peers import keras_peer, process, protocol, torch_peer
from jaxdl import population
from jaxdl.arm import Arm
from jaxdl.data.dataset import Split
from jaxdl.errors import InputError
from jaxdl.report import benchmark_plots
from ml_collections_configs import benchmark as config_file

_LAYERS = [
  {"kind": "flatten"},
  {"kind": "dense", "features": 16, "activation": "relu"},
  {"kind": "dropout", "rate": 0.3},
  {"kind": "dense", "features": 3, "activation": None},
]


@pytest.fixture
def spec(blobs, tmp_path):
  """A workload on `blobs`, as workers read it."""
  np.savez(
    tmp_path / "data.npz",
    train_images=blobs.train.inputs,
    train_labels=blobs.train.targets,
    test_images=blobs.test.inputs,
    test_labels=blobs.test.targets,
  )
  return {
    "data": str(tmp_path / "data.npz"),
    "layers": _LAYERS,
    "loss": "categorical_cross_entropy",
    "optimizer": "adam",
    "learning_rate": 0.003,
    "batch_size": 16,
    "num_members": 3,
    "threads": 2,
    "variant": {"name": "population", "model": "mlp(16)"},
  }


@pytest.mark.parametrize(
  ("name", "classes", "shape", "num_params", "products"),
  [
    # A convolution's products: places x 9 x channels x features.
    ("cnn_binary", 2, (28, 28, 1), 20_417, (26**2 * 9 * 32, 10**2 * 288 * 64, 1600)),
    ("cnn_mnist", 10, (28, 28, 1), 515_146, (26**2 * 9 * 32, 11**2 * 288 * 64, 7744 * 64, 640)),
    ("mlp_minibatch", 10, (28, 28, 1), 109_386, (784 * 128, 128 * 64, 640)),
    ("cifar_mlp", 10, (32, 32, 3), 1_707_274, (3072 * 512, 512 * 256, 2560)),
  ],
)
def test_workloads_are_the_coursework_s(name, classes, shape, num_params, products):
  """Parameters as the coursework has; operations by hand: two a product, no input gradient."""
  workload = config_file.get_config().workloads[name]
  network = workloads.layers(workload, classes)
  first, *others = products
  assert workloads.training_flops(network, shape) == 4 * first + 6 * sum(others)
  layers = [protocol.build(protocol.Layer, layer, "layer") for layer in network]
  counted = 0
  for layer, at in protocol.input_shapes(layers, shape):
    if layer.kind in ("conv", "dense"):
      counted += (9 if layer.kind == "conv" else 1) * at[-1] * layer.features + layer.features
  assert counted == num_params


def test_ratio_is_taken_within_rounds():
  """The machine was three times slower in the last round, for all; the best peer is torch."""
  rounds = {"torch": [2.0, 2.2, 6.0], "keras": [2.1, 2.3, 6.3], "jaxdl": [1.0, 1.0, 3.0]}
  rows = [
    {
      "system": name,
      "is_peer": name != "jaxdl",
      "seconds_of_rounds": seconds,
      "seconds_per_pass": benchmark_rows.summarize(seconds),
    }
    for name, seconds in rounds.items()
  ]
  *_, found = benchmark_rows.compare(rows)
  assert found["ratio_to_best_peer"] == pytest.approx(2.0)
  assert found["ratio_range"] == pytest.approx([2.0, 2.2])
  assert {row["best_peer"] for row in rows} == {"torch"}
  (alone,) = benchmark_rows.compare(rows[2:])
  assert alone["ratio_to_best_peer"] is None


def test_losses_agree_within_the_spread_between_seeds():
  ours = [0.9, 1.0, 1.1]  # standard deviation 0.1: 0.4 and a tenth of 1.0 are allowed
  assert benchmark_rows._agrees([1.49], ours)
  assert not benchmark_rows._agrees([1.51], ours)
  assert benchmark_rows._agrees([1.09], [1.0])
  assert not benchmark_rows._agrees([float("nan")], ours)


def test_worker_trains_what_an_experiment_trains(spec, blobs):
  """The benchmark times the programs of `train_population`: the same losses, bit for bit."""
  worker = jaxdl_worker.JaxdlWorker(
    protocol.parse_spec(spec), protocol.load_data(protocol.parse_spec(spec))
  )
  worker.train(1, 50)
  losses = worker.train(2, 50)
  arm = Arm(
    model="mlp(16)",
    loss="categorical_cross_entropy",
    learning_rate=0.003,
    batch_size=16,
    dropout_rate=0.3,
    num_epochs=3,
    patience=None,
  )
  nothing = Split(blobs.train.inputs[:0], blobs.train.targets[:0])
  dataset = dataclasses.replace(blobs, validation=nothing)
  trained = population.train_population(dataset, {"arm": arm}, seeds=3)
  np.testing.assert_allclose(losses, trained.curves["train_loss"][:, 0, 2], rtol=1e-6)
  logits = worker.predictor(7, 30)()
  assert logits.shape == (30, 3)
  np.testing.assert_allclose(logits[:5], worker.predictor(5, 5)(), rtol=1e-4, atol=1e-5)


def test_worker_refuses_another_network_than_the_spec_s(spec):
  other = {**spec, "variant": {"name": "population", "model": "mlp(8)"}}
  parsed = protocol.parse_spec(other)
  with pytest.raises(protocol.PeerError, match="not the network of the spec"):
    jaxdl_worker.JaxdlWorker(parsed, protocol.load_data(parsed))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"batch_size": 0}, "batch_size must be an integer from 1"),
    ({"optimiser": "adam"}, "unknown spec field 'optimiser'"),
    ({"layers": []}, "layers must be a list of layers"),
    ({"layers": _LAYERS[:-1]}, "last layer must be dense"),
    ({"loss": "binary_cross_entropy"}, "does not fit 3 logits"),
    ({"augmentation": {"rotation_range": 200}}, "rotation_range"),
  ],
)
def test_bad_specs_get_one_line(spec, change, message):
  with pytest.raises(protocol.PeerError, match=message) as error:
    protocol.parse_spec({**spec, **change})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("peer", "changes", "expected"),
  [
    (torch_peer, {}, {"eager", "compile", "compile_step"}),
    (torch_peer, {"num_members": 2}, {"func", "func_compile", "func_compile_step"}),
    (keras_peer, {"backend": "jax"}, {"fit", "fit_tf_data", "epoch_function", "step_function"}),
  ],
)
def test_variants_need_no_framework(spec, peer, changes, expected):
  spec = {**spec, "num_members": 1, **changes}
  assert {variant["name"] for variant in peer.variants(spec)} == expected
  assert not {"torch", "keras", "tensorflow"} & set(sys.modules)


_FAKE = textwrap.dedent("""
  import json, sys
  print(json.dumps({"ready": True, "device": "none"}), flush=True)
  for line in sys.stdin:
    order = json.loads(line)
    if order["command"] == "train":
      print(json.dumps({"seconds": 0.5, "train_loss": [order["num_epochs"]]}), flush=True)
    elif order["command"] == "predict":
      print(json.dumps({"error": "no prediction here"}), flush=True)
    else:
      sys.exit("out of memory")
""")


@pytest.fixture
def fake(tmp_path):
  """Starts a worker that does nothing."""
  (tmp_path / "fake_worker.py").write_text(_FAKE)
  teams = []

  def start(num_workers):
    teams.append(process.Team(sys.executable, "fake_worker", [{}] * num_workers, tmp_path))
    return teams[-1]

  yield start
  for team in teams:
    team.close()


def test_a_worker_s_own_time_counts_and_a_team_s_is_the_caller_s(fake):
  seconds, answers = fake(1).ask("train", num_epochs=3)
  assert seconds == 0.5
  assert answers[0]["train_loss"] == [3]
  seconds, answers = fake(2).ask("train", num_epochs=1)
  assert seconds != 0.5
  assert len(answers) == 2


def test_what_a_worker_complains_of_is_one_line(fake):
  with pytest.raises(process.WorkerError, match=r"^no prediction here$"):
    fake(1).ask("predict")
  with pytest.raises(process.WorkerError, match=r"^the worker has ended: out of memory$"):
    fake(1).ask("anything else")
  with pytest.raises(process.WorkerError, match=r"^the worker has ended: .*No module named"):
    process.Team(sys.executable, "no_such_worker", [{}], ROOT)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_module):
  """A run of the smallest variant with a peer that is not installed."""
  workdir = tmp_path_factory.mktemp("benchmark") / "run"
  command = [
    "experiments.benchmark",
    "--config=ml_collections_configs/benchmark.py:smoke",
    f"--workdir={workdir}",
    "--config.peers=('torch',)",
    "--config.peers_python=no/such/python",
    "--config.train=('mlp',)",
    "--config.cold_start=('mlp',)",
    "--config.rounds=1",
  ]
  done = run_module(*command)
  assert done.returncode == 0, done.stderr
  return workdir, command, done


def test_smoke_run_measures_and_names_what_is_missing(smoke):
  workdir, _, done = smoke
  found = json.loads((workdir / "benchmark.json").read_text())
  assert list(found["missing"]) == ["torch"]
  assert "torch is missing: not installed in no/such/python" in done.stderr
  rows = {(row["workload"], row["system"]): row for row in found["results"]}
  row = rows["mlp", "jaxdl"]
  assert row["num_members"] == 2
  assert len(row["seconds_of_rounds"]) == found["config"]["rounds"]
  summary = row["seconds_per_member_epoch"]
  assert 0 < summary["min"] <= summary["median"] <= summary["max"]
  assert row["examples_per_second"] == pytest.approx(200 / summary["median"])
  flops = 4 * 784 * 16 + 6 * 16 * 10
  assert row["model_flops_per_second"] == pytest.approx(flops * row["examples_per_second"])
  peak = found["matmul_peak_flops_per_second"]
  assert row["fraction_of_matmul_peak"] == pytest.approx(row["model_flops_per_second"] / peak)
  assert row["ratio_to_best_peer"] is None
  assert row["loss_agrees"] is True
  assert row["peak_memory_mb"] > 10
  assert {"latency of mlp", "throughput of mlp", "cold start of mlp"} <= {w for w, _ in rows}
  assert ("population of mlp", "jaxdl of 2") in rows
  report = (workdir / "benchmark.md").read_text()
  assert "Missing: torch: not installed" in report
  for picture in re.findall(r"\((figures/\w+\.png)\)", report):
    assert (workdir / picture).read_bytes().startswith(b"\x89PNG")
  assert not [path for path in workdir.iterdir() if path.name.startswith(".")]


def test_a_benchmark_is_not_overwritten(smoke, run_module):
  workdir, command, _ = smoke
  before = (workdir / "benchmark.json").read_bytes()
  done = run_module(*command)
  assert done.returncode == 2
  assert done.stderr.strip().splitlines()[-1].endswith("replace it with --overwrite")
  assert (workdir / "benchmark.json").read_bytes() == before


@pytest.mark.parametrize("name", ["figures/mine.png", "benchmark.md", "benchmark.json"])
def test_what_is_of_no_benchmark_is_not_replaced(tmp_path, name):
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_text("mine")
  with (
    flagsaver.as_parsed(workdir=str(tmp_path), overwrite="true"),
    pytest.raises(InputError, match=f"{name}' was made by no run"),
  ):
    benchmark.main(None)
  assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("--config.train=('mpl',)", "unknown workload 'mpl'; did you mean 'mlp'"),
    ("--config.peers=('torhc',)", "unknown peer 'torhc'; did you mean 'torch'"),
    (
      "--config.variants.keras_jax=('fti',)",
      "unknown variant of keras-jax 'fti'; did you mean 'fit'",
    ),
    ("--config.device=gpu", "JAX runs on cpu here, not on gpu"),
    ("--config.rounds=0", "rounds must be at least 1"),
    ("--config.workloads.mlp.loss=hing", "workload 'mlp': unknown loss 'hing'"),
  ],
)
def test_mistakes_get_one_line(tmp_path, change, message, run_module):
  if jax.default_backend() != "cpu":
    pytest.skip("the message about devices is for a CPU")
  config = "--config=ml_collections_configs/benchmark.py:smoke"
  done = run_module("experiments.benchmark", config, f"--workdir={tmp_path / 'run'}", change)
  assert done.returncode == 2
  (line,) = done.stderr.strip().splitlines()
  assert message in line


def test_many_systems_fit_the_legend_of_one_panel():
  """It is as wide as the figure at most, which one panel makes a narrow one."""
  names = ("jaxdl by XLA alone", "keras-tensorflow, loop by hand", "keras-jax, loop by hand")
  panel = {f"{name}, {i}": [(1, 2.0, 1.0, 3.0)] for i in range(3) for name in names}
  figure = benchmark_plots.against_size({"MLP": panel}, x_label="members", y_label="seconds")
  assert_nothing_clipped(figure)
  (legend,) = figure.legends
  drawn = legend.get_window_extent()
  assert drawn.x0 >= 0
  assert drawn.x1 <= figure.bbox.width


def test_pictures_draw_every_value():
  figure = benchmark_plots.ratios({"a": (2.0, 1.5, 3.0), "b": (0.5, 0.4, 0.6)}, x_label="times")
  (ax,) = figure.axes
  dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
  assert dots == [2.0, 0.5]
  low, high = ax.get_xlim()
  assert low < 0.4
  assert high > 3.0
  panels = {"p": {"us": [(1, 2.0, 1.0, 3.0), (4, 1.0, 0.9, 1.2)], "them": [(1, 9.0, 8.0, 9.5)]}}
  figure = benchmark_plots.against_size(panels, x_label="members", y_label="seconds")
  (ax,) = figure.axes
  assert [list(line.get_ydata()) for line in ax.lines] == [[2.0, 1.0], [9.0]]
  assert ax.get_ylim()[0] < 0.9
  assert ax.get_ylim()[1] > 9.5
  assert benchmark_plots.ratios({}, x_label="times").texts


@pytest.mark.skipif(
  not (ROOT / ".venv-peers" / "installed-from").is_file(),
  reason="peers are not installed (make install-peers)",
)
@pytest.mark.parametrize(
  ("module", "changes"),
  [
    ("keras_peer", {"backend": "tensorflow"}),
    ("keras_peer", {"backend": "jax"}),
    ("torch_peer", {}),
    ("torch_peer", {"num_members": 3}),
  ],
)
def test_peers_train_the_same_network(spec, module, changes):
  """Loss after a few epochs, within the spread between ten members of ours."""
  spec = {**spec, "variant": None, "num_members": 1, **changes}
  python = str(ROOT / ".venv-peers" / "bin" / "python")
  team = process.Team(python, f"experiments.peers.{module}", [spec], ROOT)
  try:
    assert team.workers[0].ready["num_params"] == 64 * 16 + 16 + 16 * 3 + 3
    _, (answer,) = team.ask("train", num_epochs=8, num_examples=None)
    _, (predicted,) = team.ask("predict", batch_size=4, num_images=30, repeats=2)
  finally:
    team.close()
  assert len(predicted["seconds"]) == 2
  ours = {**spec, "num_members": 10, "variant": {"name": "population", "model": "mlp(16)"}}
  parsed = protocol.parse_spec(ours)
  losses = jaxdl_worker.JaxdlWorker(parsed, protocol.load_data(parsed)).train(8, 50)
  assert len(answer["train_loss"]) == spec["num_members"]
  assert abs(np.mean(answer["train_loss"]) - np.mean(losses)) < 4 * np.std(losses) + 0.05
