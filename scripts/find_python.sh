#!/usr/bin/env bash
# Prints the newest Python that the project is tested on, or the one of the
# version named: scripts/find_python.sh 3.11. Looks at the PATH, then into
# pyenv's folder of versions. A command that is there may still not run (pyenv
# puts one on the PATH for each version it has, active or not): each is tried.
set -u
for version in "${@:-3.13 3.12 3.11}"; do
  for number in $version; do
    for python in "python$number" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$number"*/bin/python; do
      if "$python" -c "import sys, ensurepip, venv
sys.exit('%d.%d' % sys.version_info[:2] != '$number')" >/dev/null 2>&1; then
        command -v "$python"
        exit 0
      fi
    done
  done
done
echo "No Python ${*:-3.11, 3.12 or 3.13} with venv found: install one, or pass" \
  'PYTHON=path to make' >&2
exit 1
