# Sourced by the other scripts: make a virtual environment once, and install the project into it.
#   environment NAME EXTRAS
environment() {
  local venv=".venv-$1" extras="$2" python
  python="${PYTHON:-python3}"
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' || {
    echo "$python is $("$python" --version); tinyseg needs Python 3.10 or newer: set PYTHON=/path/to/python3" >&2
    return 1
  }
  command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || {
    echo "no C++ compiler found; install one (Debian, Ubuntu: sudo apt-get install g++)" >&2
    return 1
  }
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  # What was installed, so that a second run starts at once.
  local stamp="$venv/installed" wanted
  wanted="$(cat pyproject.toml CMakeLists.txt native/*.cpp native/*.hpp | cksum) $extras"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing tinyseg into $venv (a few minutes the first time)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "scikit-build-core>=1.0" "nanobind>=2.9" cmake ninja
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".$extras"
    echo "$wanted" >"$stamp"
  fi
  export PATH="$PWD/$venv/bin:$PATH"
}
