"""What a part of the GPU check is given, and where its measurements go."""

import argparse
import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from jaxdl.data.dataset import Dataset

from . import datasets
from .networks import WORKLOADS


class Part:
  """What a part is given, and where its measurements go."""

  def __init__(self, name: str, options: argparse.Namespace):
    """Starts the part's clock."""
    self.name, self.options = name, options
    self.is_tiny = options.scale == "tiny"
    self._end = time.monotonic() + options.seconds

  @property
  def seconds_left(self) -> float:
    """Seconds until the part should have stopped by itself."""
    return self._end - time.monotonic()

  @functools.cached_property
  def data(self) -> dict[str, Dataset]:
    """Name -> data: `mnist`, `two` of its digits, and `cifar10`."""
    return datasets.load(None if self.is_tiny else self.options.data)

  def examples(self, network: str) -> Dataset:
    """Returns the examples on which a network of `WORKLOADS` is timed."""
    workload = WORKLOADS[network]
    num_train = workload.arm.batch_size if self.is_tiny else workload.num_train
    return datasets.first_examples(self.data[workload.data], num_train)

  @property
  def environment(self) -> dict[str, str]:
    """Variables with which another process computes on the part's device."""
    return {"JAX_PLATFORMS": "cpu"} if self.options.device == "cpu" else {}

  def row(self, table: str, **row: Any):
    """Writes a row of a table."""
    self._write({"table": table, "row": row})

  def check(self, check: str, value: Any, holds: bool | None):
    """Writes whether something holds; None: it was not measured."""
    self._write({"check": check, "value": value, "holds": None if holds is None else bool(holds)})

  def _write(self, record: Mapping[str, Any]):
    with open(self.options.out, "a", encoding="utf-8") as file:
      file.write(json.dumps({"part": self.name, **record}, default=float) + "\n")

  @contextlib.contextmanager
  def trying(self, table: str, **row: Any) -> Iterator[None]:
    """Writes a row with the last line of an error, if there is one, and goes on."""
    try:
      yield
    except Exception as error:
      lines = str(error).strip().splitlines() or ["no message"]
      self.row(table, **row, error=f"{type(error).__name__}: {lines[0][:200]}")
