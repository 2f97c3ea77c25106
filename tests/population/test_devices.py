"""What a device holds."""

import types

import jax
import numpy as np
import pytest

from jaxdl import data
from jaxdl.errors import InputError
from jaxdl.population import devices, hosts, programs


def device(memory):
  """A device that only says how much memory it has."""
  return types.SimpleNamespace(
    platform="gpu", device_kind="NVIDIA H100", memory_stats=lambda: {"bytes_limit": memory}
  )


def test_data_larger_than_a_devices_memory_are_refused_before_they_are_copied(monkeypatch):
  x = np.zeros((10, 4, 5, 3), np.uint8)
  dataset = data.from_arrays(x, np.arange(10) % 2, x[:2], [0, 1], validation=0.2, name="mine")
  monkeypatch.setattr(jax, "device_put", None)
  small, mesh = device(767), types.SimpleNamespace(local_devices=[device(767)])
  for put, where in ((programs.put_splits, small), (hosts.replicate_splits, mesh)):
    with pytest.raises(InputError) as error:
      put(dataset, where)
    # 60 pixels and a class of 4 bytes
    assert str(error.value) == (
      "mine does not fit the memory of a device: 12 examples of 64 bytes are 768 bytes, and NVIDIA "
      "H100 has 767; take fewer examples with num_train"
    )
  devices.check_data_fit(dataset, device(768))
  devices.check_data_fit(dataset, jax.local_devices()[0])
