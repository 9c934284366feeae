# Makes .venv in the repository and installs this package into it, once per change of what it needs.
# Sourced by the other scripts: `source launch/environment.sh EXTRAS`, EXTRAS such as "prep" or "dev".
# PYTHON names the interpreter to start from (default: the first of python3, python3.13, 3.12, 3.11 that is new enough).

extras="$1"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$repository" || exit 1

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python >= 3.11 found; install one or name it: PYTHON=/path/to/python3.12 $0" >&2
  return 1
}

stamp=".venv/.installed-$extras"
wanted="$(cat pyproject.toml launch/constraints.txt | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  python="$(find_python)" || exit 1
  echo "Installing into .venv (extras: $extras) ..."
  [ -x .venv/bin/python ] || "$python" -m venv .venv || exit 1
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint launch/constraints.txt \
    --editable ".[$extras]" || exit 1
  echo "$wanted" >"$stamp"
fi
export PATH="$repository/.venv/bin:$PATH"
