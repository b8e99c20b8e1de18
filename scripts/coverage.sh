#!/bin/sh
# Coverage of all packages by all tests but those marked slow or gpu; scripts/test.sh traces the core alone.
set -eu
. "$(dirname -- "$0")/environment.sh"
install "[test]"
PATH=$venv/bin:$PATH
OMP_NUM_THREADS=1
export PATH OMP_NUM_THREADS
exec python -m pytest -m "not slow and not gpu" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
    --cov --cov-report=term:skip-covered --cov-fail-under=85 "$@"
