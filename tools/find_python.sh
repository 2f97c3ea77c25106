#!/bin/sh
# Prints the path of the newest supported Python that really runs, or fails with a message.
#   tools/find_python.sh [VERSION ...]     (default: 3.13 3.12 3.11)
# A version manager's shim may exist for a Python that is not there, and a distribution's Python may
# come without venv, so each candidate has to show that it works. PYTHON=... overrides the search.
set -u
[ $# -gt 0 ] || set -- 3.13 3.12 3.11

# runs CANDIDATE [VERSION]: whether it is a Python of that version (any from 3.11 on without) with venv.
runs() {
  "$1" -c "
import ensurepip, ssl, sys, venv
version = '%d.%d' % sys.version_info[:2]
sys.exit(version != '${2:-}' if '${2:-}' else sys.version_info < (3, 11))" >/dev/null 2>&1
}

# The real interpreter, not the shim: a shim's meaning depends on the folder that it is called from.
resolve() { "$1" -c 'import sys; print(sys.executable)'; }

if [ -n "${PYTHON:-}" ]; then
  if runs "$PYTHON"; then
    resolve "$PYTHON"
    exit 0
  fi
  echo "error: PYTHON=$PYTHON is no Python >= 3.11 that runs and has the module venv" >&2
  exit 2
fi

for version in "$@"; do
  for candidate in "python$version" python3 python \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/python3 \
    "${HOME:-}/.local/share/uv/python/cpython-$version".*/bin/python3 \
    "/opt/homebrew/bin/python$version" "/usr/local/bin/python$version" "/usr/bin/python$version"; do
    if runs "$candidate" "$version"; then
      resolve "$candidate"
      exit 0
    fi
  done
done
echo "error: found no Python $* that runs and has the module venv; install one or set PYTHON=..." >&2
exit 2
