"""Answers the questions of a deep-learning course as controlled experiments.

Import the modules that you need: `from jaxdl import data, plots, population, stats`. `jaxdl.train`
is the one to read first; `jaxdl.data.dataset` has the words.
"""
