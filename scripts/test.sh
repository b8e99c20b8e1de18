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
sh scripts/check.sh linters
set -x
# A worker a core, each file's tests in one of them, in the order of their names: by their number of tests, as
# pytest-xdist has it otherwise, the long runs of files with few tests come last, and one core waits for the other.
# Threads of their own would wait for each other.
OMP_NUM_THREADS=1
export OMP_NUM_THREADS
python -m pytest -m "not slow and not gpu" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
    --durations=10 --cov --cov-report=term:skip-covered --cov-fail-under=85
