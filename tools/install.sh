#!/bin/sh
# Brings a virtual environment up to date with a lock file; does nothing if it is up to date.
#   tools/install.sh VENV LOCK [no-project]
# The environment is created again if the lock, the build or PYTHON=... has changed, or it is broken.
set -eu
venv=$1
lock=$2
tools=$(dirname "$0")
stamp="$venv/installed-from"

# The part of the project that installation depends on (it is editable): what is compiled, and the
# compiler.
project() {
  [ "${1:-}" = no-project ] || { cat setup.py jaxdl/cpu/ops.cc; command -v "${CXX:-c++}" || :; }
}
no_project=${3:-}
wanted() { { cat "$lock" pyproject.toml "$0"; project $no_project; } | cksum; }
version() { "$1" -c 'import sys; print(sys.version)'; }

if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ]; then
  if [ -z "${PYTHON:-}" ] || [ "$(version "$venv/bin/python")" = "$(version "$PYTHON")" ]; then
    exit 0
  fi
fi

python=$("$tools/find_python.sh")
echo "installing into $venv with $("$python" --version) (a minute or two)" >&2
"$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -q -q "$@"; }
# First setuptools, from the lock. It builds this project and the dependency that has no wheel,
# without an isolated build environment, which would fetch unpinned tools.
awk '/^setuptools==/ {on = 1} on {print} on && !/\\$/ {exit}' "$lock" >"$venv/build.lock"
pip install --require-hashes -r "$venv/build.lock"
pip install --require-hashes --no-build-isolation -r "$lock"
if [ "$no_project" != no-project ]; then
  pip install --no-deps --no-build-isolation --editable .
  "$venv/bin/python" -c 'from jaxdl.cpu import matmul
why = matmul.why_unavailable()
if why: print(f"note: no layers in C++, so training on CPU is slower by a factor of up to 1.7: {why}")' >&2
fi
wanted >"$stamp"
