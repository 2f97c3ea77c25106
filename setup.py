"""Compiles the optional C++ extension and lists the packages; all else is in pyproject.toml.

The extension includes headers of the installed jaxlib. If jaxlib is missing or the extension does
not compile, the package is installed without it; see jaxdl/cpu.
"""

import importlib.util
import pathlib
import platform

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
  """Removes libraries of older sources, also when the new source does not compile."""

  def build_extension(self, ext):
    """Compiles an extension from scratch."""
    pathlib.Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
    super().build_extension(ext)

  def copy_extensions_to_source(self):
    """Replaces the libraries beside the source; called only for editable installations."""
    for ext in self.extensions:
      (pathlib.Path(__file__).parent / self.get_ext_filename(ext.name)).unlink(missing_ok=True)
    super().copy_extensions_to_source()


_jaxlib = importlib.util.find_spec("jaxlib")
_is_x86 = platform.machine() in ("x86_64", "AMD64")
_extensions = []
if _jaxlib and _is_x86 and platform.system() != "Windows":
  _include = pathlib.Path(_jaxlib.origin).parent / "include"
  _extensions.append(
    Extension(
      "jaxdl.cpu._ops",
      ["jaxdl/cpu/ops.cc"],
      extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-mprefer-vector-width=512",
        # Both let the compiler vectorize: square roots need not set errno, and a product with a sum
        # is rounded once, as in XLA.
        "-fno-math-errno",
        "-ffp-contract=fast",
        # As system headers, so that the compiler does not warn about them.
        f"-isystem{_include}",
      ],
      optional=True,
    )
  )

setup(
  packages=[
    *find_packages(include=["jaxdl*"]),
    # Found in other folders, see pyproject.toml.
    *("jaxdl.experiments", "jaxdl.experiments.gpu_parts", "jaxdl.experiments.peers"),
    "jaxdl.ml_collections_configs",
  ],
  ext_modules=_extensions,
  cmdclass={"build_ext": BuildExt},
)
