#!/bin/sh
# Prints the path of the newest supported Python that works, or fails with a message.
#   tools/find_python.sh [VERSION ...]     (default: 3.13 3.12 3.11)
# A version manager may have a shim for a Python that is not installed, and a distribution's Python
# may lack venv, so each candidate is tried. PYTHON=... overrides the search.
set -u
[ $# -gt 0 ] || set -- 3.13 3.12 3.11

# runs CANDIDATE [VERSION]: whether it is a Python with venv and that version (default: >= 3.11).
runs() {
  "$1" -c "
import ensurepip, ssl, sys, venv
version = '%d.%d' % sys.version_info[:2]
sys.exit(version != '${2:-}' if '${2:-}' else sys.version_info < (3, 11))" >/dev/null 2>&1
}

# Prints the path of the real interpreter; a shim may start another one in another folder.
resolve() { "$1" -c 'import sys; print(sys.executable)'; }

if [ -n "${PYTHON:-}" ]; then
  if runs "$PYTHON"; then
    resolve "$PYTHON"
    exit 0
  fi
  echo "error: PYTHON=$PYTHON is not a working Python >= 3.11 with the module venv" >&2
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
echo "error: found no working Python $* with the module venv; install one or set PYTHON=..." >&2
exit 2
