# Sourced by lock and test-versions: uv in an environment of its own, and what goes with PyTorch.
uv() {
  local venv=.venv-lock
  [ -x "$venv/bin/uv" ] || {
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.5"
  }
  "$venv/bin/uv" --no-config --quiet "$@"
}

# torch_packages UV-ARGUMENTS: options that leave out torch and the CUDA packages that only it needs.
#
# torch stands in requirements/torch.txt, without a hash: one release is another file with CUDA, without, and on a
# mirror. It names the exact versions of its CUDA packages itself; what else it needs is locked with the others.
torch_packages() {
  uv pip compile pyproject.toml --extra test --no-header --no-annotate "$@" |
    sed -nE 's/^(torch|triton|(nvidia|cuda)-[a-z0-9-]+)==.*/--no-emit-package=\1/p' | sort -u
}
