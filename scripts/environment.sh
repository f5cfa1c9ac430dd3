# Sourced by the other scripts: make a virtual environment once, and install the project into it.
#   environment NAME [REQUIREMENTS]    what requirements/NAME.txt locks, or another file
# PYTHON is the interpreter. TINYSEG_TORCH=none leaves PyTorch out (several gigabytes with CUDA): its tests are skipped.
environment() {
  local venv=".venv-$1" locked="${2:-requirements/$1.txt}" python torch
  python="${PYTHON:-python3}"
  command -v "$python" >/dev/null || {
    echo "$python is not there; install Python 3.10 or newer (Debian, Ubuntu: sudo apt-get install python3), or set PYTHON=/path/to/python3" >&2
    return 1
  }
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' || {
    echo "$python is $("$python" --version); tinyseg needs Python 3.10 or newer: set PYTHON=/path/to/python3" >&2
    return 1
  }
  command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || {
    echo "no C++ compiler found; install one (Debian, Ubuntu: sudo apt-get install g++)" >&2
    return 1
  }
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || {
    echo "$python has no headers (Python.h); install them (Debian, Ubuntu, Raspberry Pi OS: sudo apt-get install python3-dev)" >&2
    return 1
  }
  # What was installed and for which Python, so that a second run starts at once.
  local stamp="$venv/installed" wanted
  torch=none
  case "$1" in test*) torch="${TINYSEG_TORCH:-requirements/torch.txt}" ;; esac
  wanted="$(cat pyproject.toml CMakeLists.txt native/CMakeLists.txt native/*.cpp native/*.hpp native/capi/* native/include/* requirements/build.txt "$locked" | cksum) $torch $PWD \
$("$python" -c 'import sys; print(sys.base_prefix, sys.version)')"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    # One after the other: all environments build the extension in one folder. What another script has just made is not made again.
    mkdir -p build
    exec 9>build/environment.lock
    ! command -v flock >/dev/null || flock 9
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing tinyseg into $venv (a few minutes the first time)"
    # Anew: a half-made environment, or one of another Python or folder, is never mended.
    "$python" -m venv --clear "$venv" || {
      echo "$python makes no virtual environment (Debian, Ubuntu: sudo apt-get install python3-venv)" >&2
      return 1
    }
    local install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${install[@]}" --require-hashes -r requirements/build.txt
    # Packages that come as source are built apart from this environment, with the same build tools.
    sed -E 's/ *\\$//; /^ +--hash/d' requirements/build.txt >"$venv/build-tools.txt"
    "${install[@]}" --require-hashes -r "$locked" --build-constraint "$venv/build-tools.txt"
    [ "$torch" = none ] || "${install[@]}" -r "$torch"
    # Only our own extension is built with what is installed here, so that it can be built again without the network.
    "${install[@]}" --no-build-isolation --no-deps -e .
    echo "$wanted" >"$stamp"
  fi
  exec 9>&-
  export PATH="$PWD/$venv/bin:$PATH"
}
