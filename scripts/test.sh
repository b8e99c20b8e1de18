#!/bin/sh
# All set-up and all checks but the markers slow and gpu: linters, types, layers, tests with coverage.
# Arguments go on to pytest and then replace the linters: sh scripts/test.sh -k tokenizer
set -eu
. "$(dirname -- "$0")/environment.sh"
install "[test]"
PATH=$venv/bin:$PATH
export PATH
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
set -x
ruff check .
ruff format --check .
mypy
lint-imports --no-cache
python -m pytest -m "not slow and not gpu" --cov --cov-report=term:skip-covered --cov-fail-under=85
