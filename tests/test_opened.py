"""A finished run is opened again: tables, parameters, predictions."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import own_parts
import pytest
from conftest import rehash
from PIL import Image

import jaxdl
from experiments import predict
from jaxdl import launch
from jaxdl.arm import Arm
from jaxdl.data import Dataset, Split
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.report import params


@pytest.fixture(scope="module")
def run(blobs, tmp_path_factory):
  """The result of two arms on `blobs`, one with batch statistics, and its folder."""
  workdir = tmp_path_factory.mktemp("opened") / "run"
  base = Arm(model="mlp(8)", loss="categorical_cross_entropy", learning_rate=0.01, batch_size=16,
             num_epochs=2, patience=None, restore_best=True)  # fmt: skip
  arms = {"known": base, "own/net": base.replace(model=own_parts.Normalised, dropout_rate=0.0)}
  return jaxdl.compare(
    blobs, arms, seeds=3, margins={"test_accuracy": 0.1}, workdir=workdir, keep_logits=True
  )


def test_members_predict_what_they_predicted(run, blobs):
  opened = jaxdl.open_run(run.workdir)
  for arm in run.experiment.arms:
    z = run.population.logits[arm].astype(np.float64)
    expected = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    for seed in range(3):
      found = opened.predict(blobs.test.inputs, arm, seed)
      np.testing.assert_allclose(found, expected[seed], atol=1e-5)
      logits = opened.apply(opened.variables(arm, seed), blobs.test.inputs, arm)
      np.testing.assert_allclose(logits, z[seed], atol=1e-4)
    np.testing.assert_allclose(
      opened.predict(blobs.test.inputs, arm), expected.mean(axis=0), atol=1e-5
    )
  stats = opened.variables("own/net", 1)["batch_stats"]
  assert np.abs(jax.tree.leaves(stats)[0]).max() > 0
  assert opened.params("known", 0)["Dense_0"]["kernel"].shape == (64, 8)


def test_tables_are_those_of_the_run(run):
  opened = jaxdl.open_run(run.workdir)
  assert list(opened.members.columns) == list(run.members.columns)
  assert len(opened.curves) == len(run.curves)
  assert [v["verdict"] for v in opened.verdicts] == [v.verdict for v in run.verdicts]
  assert opened.experiment == run.experiment


@dataclasses.dataclass(frozen=True)
class _Kind(Experiment):
  more: int = 3


def test_kinds_of_experiments_are_opened_too(blobs, tmp_path):
  arm = Arm(model="mlp(8)", loss="hinge", num_epochs=1, batch_size=50)
  experiment = _Kind(question="Why?", arms={"a": arm}, dataset="blobs", num_seeds=1)
  launch.run(experiment, tmp_path, dataset=blobs)
  opened = jaxdl.open_run(tmp_path)
  assert opened.config["more"] == 3
  assert opened.experiment.arms == {"a": arm}


def test_a_run_whose_model_is_gone_still_opens(run, tmp_path):
  shutil.copytree(run.workdir, tmp_path / "run")
  file = tmp_path / "run" / "config.json"
  file.write_text(file.read_text().replace("own_parts:Normalised", "gone:Net(width=3)"))
  with pytest.raises(InputError, match=r"config\.json' is missing, or has changed"):
    jaxdl.open_run(tmp_path / "run")
  rehash(tmp_path / "run", "config.json")
  opened = jaxdl.open_run(tmp_path / "run")
  assert len(opened.members) == 6
  assert "params" in opened.variables("own/net", 0)
  with pytest.raises(InputError, match="gone:Net cannot be imported"):
    opened.predict(np.zeros((1, 8, 8, 1), np.uint8), "own/net")


@pytest.mark.parametrize(
  ("inputs", "arm", "seed", "message"),
  [
    (np.zeros((2, 9, 8, 1), np.uint8), "known", None, r"\[N, 8, 8, 1\], not \[2, 9, 8, 1\]"),
    (np.zeros((2, 8, 8, 1)), "known", None, "integers from 0 to 255"),
    (np.full((2, 8, 8, 1), 256), "known", None, "integers from 0 to 255"),
    (np.zeros((2, 8, 8, 1), np.uint8), "knwon", None, "did you mean 'known'"),
    (np.zeros((2, 8, 8, 1), np.uint8), "known", 3, "no member with seed 3"),
  ],
)
def test_other_inputs_are_refused(run, inputs, arm, seed, message):
  with pytest.raises(InputError, match=message):
    jaxdl.open_run(run.workdir).predict(inputs, arm, seed)


def test_folders_without_a_run_are_refused(run, tmp_path):
  with pytest.raises(InputError, match="holds no finished run: there is no provenance"):
    jaxdl.open_run(tmp_path)
  shutil.copytree(run.workdir, tmp_path / "run")
  damaged = tmp_path / "run" / "params" / params.file_name("known")
  damaged.write_bytes(damaged.read_bytes()[:100])
  with pytest.raises(InputError, match=r"known\.safetensors' is missing, or has changed"):
    jaxdl.open_run(tmp_path / "run").params("known", 0)
  rehash(tmp_path / "run", f"params/{damaged.name}")
  with pytest.raises(InputError, match=r"cannot read .*known\.safetensors"):
    jaxdl.open_run(tmp_path / "run").params("known", 0)
  damaged.unlink()
  file = tmp_path / "run" / "provenance.json"  # as of a run that kept none
  origin = json.loads(file.read_text())
  del origin["files"][f"params/{damaged.name}"]
  file.write_text(json.dumps(origin))
  with pytest.raises(InputError, match="has kept no parameters of arm 'known'"):
    jaxdl.open_run(tmp_path / "run").params("known", 0)


@pytest.mark.parametrize("arm", ["a/b", "..", "x" * 300, "a b", "ä", ".hidden", "%2F"])
def test_names_of_files_are_names_of_files(arm):
  name = params.file_name(arm)
  assert "/" not in name
  assert not name.startswith(".")
  assert len(name.encode()) < 200
  assert name != params.file_name(arm + "x")


def test_images_from_files(run, blobs, tmp_path, capsys):
  files = []
  for index in range(2):
    files.append(str(tmp_path / f"{index}.png"))
    Image.fromarray(blobs.test.inputs[index, ..., 0]).save(files[-1])
  command = ["predict", f"--workdir={run.workdir}", f"--inputs={','.join(files)}"]
  assert predict.main([*command, "--arms=known"]) == 0
  _, _, *lines = capsys.readouterr().out.splitlines()
  expected = jaxdl.open_run(run.workdir).predict(blobs.test.inputs[:2], "known")
  for line, p in zip(lines, expected, strict=True):
    assert line.split()[2:4] == ["abc"[p.argmax()], f"{p.max():.3f}"]
  (tmp_path / "no.png").write_text("x")
  assert predict.main([*command[:2], f"--inputs={tmp_path / 'no.png'}"]) == 2
  assert capsys.readouterr().err.startswith("error: cannot read the image")
  assert predict.main(command[:2]) == 2


def test_models_without_a_name_are_given_again(blobs, tmp_path):
  def model(scale):
    class Local(nn.Module):
      num_outputs: int

      @nn.compact
      def __call__(self, x):
        return nn.Dense(self.num_outputs)(scale * x.reshape(len(x), -1))

    return Local

  arm = Arm(model=model(2.0), loss="hinge", num_epochs=1, dropout_rate=0.0, patience=None)
  options = {"seeds": 1, "margins": {"test_accuracy": 0.1}, "workdir": tmp_path}
  jaxdl.compare(blobs, {"a": arm}, **options)
  images = blobs.test.inputs
  with pytest.raises(InputError, match="has no importable name"):
    jaxdl.open_run(tmp_path).predict(images, "a")
  assert jaxdl.open_run(tmp_path, {"a": arm}).predict(images, "a").shape == (30, 3)
  with pytest.raises(InputError, match="arm 'a' is not the one that was trained"):
    jaxdl.open_run(tmp_path, {"a": arm.replace(loss="mean_squared_error")})


def test_numbers_are_predicted_too(tmp_path):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(40, 3)).astype(np.float32)
  split = [Split(part, part.sum(axis=1)) for part in (x[:20], x[20:30], x[30:])]
  dataset = Dataset("sums", *split, (), "0" * 64)
  arm = Arm(model=own_parts.Mlp, loss="huber", num_epochs=1, batch_size=8, dropout_rate=0.0)
  options = {"seeds": 1, "margins": {"r2": 0.1}, "workdir": tmp_path, "keep_logits": True}
  result = jaxdl.compare(dataset, {"a": arm}, **options)
  found = jaxdl.open_run(tmp_path).predict(x[30:], "a")
  np.testing.assert_allclose(found, result.population.logits["a"][0], rtol=1e-5)
  assert "preprocess" in json.loads((tmp_path / "provenance.json").read_text())["dataset"]["form"]
