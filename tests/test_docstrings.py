"""The examples in the docstrings of what users call run as they stand."""

import doctest
import importlib
import inspect

import pytest

import jaxdl
from jaxdl import stats

_FLAGS = doctest.NORMALIZE_WHITESPACE
# They are described where they come from.
_WITHOUT = {jaxdl.Population, jaxdl.Dataset, jaxdl.InputError, jaxdl.Result, jaxdl.run}
DESCRIBED = {getattr(jaxdl, name) for name in jaxdl.__all__} - _WITHOUT | {stats.compare}


@pytest.mark.parametrize("described", sorted(DESCRIBED, key=lambda item: item.__name__))
def test_examples_run(described, tmp_path, monkeypatch, no_pictures):
  monkeypatch.chdir(tmp_path)
  module = importlib.import_module(described.__module__)
  finder = doctest.DocTestFinder(recurse=False)
  (test,) = finder.find(described, described.__name__, module=module, globs={})
  assert test.examples, f"{described.__name__} has no example"
  said = []
  result = doctest.DocTestRunner(optionflags=_FLAGS, verbose=False).run(test, out=said.append)
  assert result.failed == 0, "".join(said)
  assert "\n  Examples:\n" in inspect.getsource(described)
