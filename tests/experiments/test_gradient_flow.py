"""The experiment on vanishing gradients: its smoke run, its arms, its mistakes."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from experiments import gradient_flow
from jaxdl.errors import InputError
from ml_collections_configs import gradient_flow as configs

_SMOKE = f"--config={ROOT / 'ml_collections_configs/gradient_flow.py'}:smoke"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, run_module):
  """What a smoke run leaves."""
  path = tmp_path_factory.mktemp("gradient_flow") / "run"
  result = run_module("experiments.gradient_flow", _SMOKE, f"--workdir={path}")
  assert result.returncode == 0, result.stderr
  assert "No claim can be made from so few seeds" in result.stdout
  return path


def test_verdicts_are_about_one_change_at_a_time(workdir):
  reference = "relu/he_normal/depth 3"
  others = {"relu/he_normal/depth 2", "sigmoid/he_normal/depth 3", "relu/he_normal(0.3)/depth 3"}
  verdicts = json.loads((workdir / "verdicts.json").read_text())
  for metric in ("epochs_to_target", "test_accuracy"):
    about = [v for v in verdicts if v["metric"] == metric]
    assert {v["arm_a"] for v in about} == others
    assert {v["arm_b"] for v in about} == {reference}
  assert len(pd.read_csv(workdir / "members.csv")) == 2 * 2 * 2 * 2


def test_tables(workdir):
  layers = pd.read_csv(workdir / "tables/layers.csv")
  members, epochs = 2 * 2 * 2, 3  # per depth; epochs with the initialisation
  assert len(layers) == members * epochs * (3 + 4)
  is_output = layers.layer == layers.depth + 1
  assert (layers.saturated.isna() == is_output).all()
  assert ((layers.dead <= layers.saturated) | is_output).all()

  # The other table by this one's numbers.
  start = layers[layers.epoch == 0].set_index(["seed", "arm", "layer"]).gradient_norm
  vanishing = pd.read_csv(workdir / "tables/vanishing.csv")
  assert len(vanishing) == 2 * members
  for row in vanishing.itertuples():
    ratio = start[row.seed, row.arm, 1] / start[row.seed, row.arm, row.depth]
    assert row.log10_gradient_ratio == pytest.approx(np.log10(ratio), abs=1e-5)

  verdicts = pd.read_csv(workdir / "tables/vanishing_verdicts.csv")
  assert set(verdicts.verdict) == {"too few seeds"}
  expected = [
    (f"relu/{initializer}/depth {depth}", f"sigmoid/{initializer}/depth {depth}")
    for depth in (2, 3)
    for initializer in ("he_normal", "he_normal(0.3)")
  ]
  assert list(zip(verdicts.arm_a, verdicts.arm_b, strict=True)) == expected
  ratios = vanishing.set_index(["seed", "arm"]).log10_gradient_ratio
  differences = [
    np.mean([ratios[seed, a] - ratios[seed, b] for seed in (0, 1)]) for a, b in expected
  ]
  np.testing.assert_allclose(verdicts.mean_difference, differences, atol=1e-6)
  speed = pd.read_csv(workdir / "tables/speed_verdicts.csv")
  assert (speed.arm_b.str.contains("/he_normal/")).all()
  assert len(speed) == 4


def test_pictures_and_report(workdir):
  pictures = {path.stem for path in (workdir / "figures").glob("*.png")}
  starts = {f"{s}_at_initialisation" for s in ("gradient_norm", "error_norm", "saturated")}
  assert starts | {"gradient_norm_along_training", "saturated_along_training"} <= pictures
  report = (workdir / "report.md").read_text()
  assert "### Depth 2" in report
  assert "### Depth 3" in report


def test_again_gives_the_same(workdir, run_module):
  names = ("verdicts.json", "tables/layers.csv", "tables/vanishing_verdicts.csv")
  first = [(workdir / name).read_bytes() for name in names]
  again = run_module("experiments.gradient_flow", _SMOKE, f"--workdir={workdir}")
  assert again.returncode == 0, again.stderr
  assert [(workdir / name).read_bytes() for name in names] == first


def test_what_happens_after_divergence_is_left_out(trained):
  """Observations go on with the frozen weights, tables do not."""
  name = next(iter(trained.arms))
  status = np.full_like(trained.status, "finished")
  status[1, 0] = "diverged"
  epochs = np.full_like(trained.epochs, 6)
  epochs[1, 0] = 3  # the third was not finished
  values = np.arange(5 * 7 * 2.0).reshape(5, 7, 2)  # [S, E + 1, L]
  population = dataclasses.replace(
    trained, status=status, epochs=epochs, observations={"x": {name: values}}
  )
  along = gradient_flow._along(population, "x", name)
  assert np.isnan(along[1, 3:]).all()
  assert np.isnan(along).sum() == 4 * 2
  np.testing.assert_array_equal(along[1, :3], values[1, :3])


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_every_variant_is_an_experiment(variant):
  config = configs.get_config(variant)
  experiment = gradient_flow.create_experiment(config)
  size = len(config.activations) * len(config.initializers) * len(config.depths)
  assert len(experiment.arms) == size
  for name, arm in experiment.arms.items():
    assert gradient_flow.read_cell(arm).name == name
    assert arm.model.count(str(config.width)) == gradient_flow.read_cell(arm).depth


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("depths", (1, 2), "each of the depths must be an integer >= 2, not 1"),
    ("depths", (3, 3), "depths has 3 twice"),
    ("depths", (), "depths is empty"),
    ("depths", (201,), "each of the depths must be an integer <= 200"),
    ("width", 0, "width must be an integer >= 1, not 0"),
    ("activations", ("relu,tnh",), "did you mean 'tanh'?"),
    ("initializers", ("he_norml",), "did you mean 'he_normal'?"),
    ("reference", "relu/he_normal/depth 4", "unknown reference arm"),
    ("nun_seeds", 3, "did you mean 'num_seeds'?"),
  ],
)
def test_mistakes(key, value, message):
  config = configs.get_config("smoke")
  with config.unlocked():
    config[key] = value
  with pytest.raises(InputError, match=r"^.*\Z") as caught:
    gradient_flow.create_experiment(config)
  assert message in str(caught.value)


def test_missing_key():
  config = configs.get_config("smoke")
  with config.unlocked():
    del config.depths
  with pytest.raises(InputError, match="has no key 'depths'"):
    gradient_flow.create_experiment(config)
