"""The model of what a run costs; its measurements, in small, are part of `make test-long`."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import measure_scaling
from experiments.measure_scaling import CostModel, Size, fit
from ml_collections_configs import measure_scaling as config_file

_SIZES = [Size(4, 2, 1000), Size(4, 6, 1000), Size(4, 2, 4000), Size(4, 6, 4000), Size(12, 2, 1000)]
_SECONDS = st.floats(0.01, 10)


def test_seconds_by_hand():
  model = CostModel(start=5, member=2, epoch=0.5, example=0.001)
  # 5 + 6 / 2 * (2 + 4 * (0.5 + 0.1))
  assert model.seconds(Size(members=6, epochs=4, examples=100), 2) == pytest.approx(18.2)


def test_the_last_batch_counts_as_a_whole_one():
  # 9,916 train, in 20 batches of 512, and 2,480 validate.
  assert measure_scaling.padded(Size(1, 1, 12_396), 512) == Size(1, 1, 10_240 + 2_480)
  assert measure_scaling.padded(Size(1, 1, 100), 512) == Size(1, 1, 100)
  assert measure_scaling.padded(Size(1, 1, 1_000), 100) == Size(1, 1, 1_000)


@given(st.tuples(_SECONDS, _SECONDS, _SECONDS, st.floats(1e-5, 1e-2)), st.integers(1, 8))
def test_a_fit_finds_the_model_that_made_the_times(terms, num_devices):
  model = CostModel(*terms)
  found = fit(_SIZES, num_devices, [model.seconds(size, num_devices) for size in _SIZES])
  np.testing.assert_allclose(found, model, rtol=1e-6)


def test_sizes_tell_the_terms_apart():
  for variant in config_file.VARIANTS:
    config = config_file.get_config(variant)
    sizes = [measure_scaling.padded(Size(*size), config.batch_size) for size in config.fitted]
    terms = [measure_scaling._terms(size, 2) for size in sizes]
    assert np.linalg.matrix_rank(np.array(terms)) == len(CostModel._fields)
    assert config.predicted not in config.fitted


@pytest.mark.skipif("JAXDL_LONG_TESTS" not in os.environ, reason="starts three workers")
def test_smoke(tmp_path):
  found = measure_scaling.measure(config_file.get_config("smoke"), None)
  assert json.loads(json.dumps(found)) == found
  assert found["empty_chunks"]["num_chunks"] == 100
  assert len(found["checkpoints"]["with"]) == len(found["scaling"]["one"]) == 2
  assert "A million members" in measure_scaling.markdown(found)
