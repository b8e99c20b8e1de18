#!/bin/sh
# The fast check, for every edit: linters, types, layers, and the tests that need no torch. Under a minute on two cores.
#   sh scripts/check.sh            everything
#   sh scripts/check.sh linters    without the tests; scripts/test.sh calls this
set -eu
. "$(dirname -- "$0")/environment.sh"
case ${1-} in
    '' | linters) ;;
    *)
        echo "错误：不认识的参数 $1 / unknown argument $1" >&2
        echo '下一步 / Next: sh scripts/check.sh [linters]' >&2
        exit 2
        ;;
esac
install "[test]"
PATH=$venv/bin:$PATH
export PATH
started=$(date +%s)
# mypy takes as long as all the others, and runs beside them.
types=$(mktemp)
trap 'rm -f "$types"' EXIT INT TERM
mypy > "$types" 2>&1 &
typing=$!
failed=0
(
    set -x
    ruff check . && ruff format --check . && lint-imports --no-cache && deptry .
) || failed=1
echo '+ mypy' >&2
wait "$typing" || failed=1
cat "$types"
if [ "$failed" = 1 ]; then
    exit 1
fi
if [ "${1-}" = linters ]; then
    exit 0
fi
# The folders of the core, which imports no torch, without the tests in them that run a whole program for long.
OMP_NUM_THREADS=1
export OMP_NUM_THREADS
(
    set -x
    python -m pytest -q -n auto --maxprocesses 4 -m "not torch and not golden and not terminal and not slow and not gpu" \
        tests/batch tests/calls tests/chat tests/data_command tests/datafiles tests/registry tests/repl tests/settings tests/sft_job tests/store tests/templates \
        tests/weights tests/test_*.py tests/project/test_scripts.py
)
seconds=$(($(date +%s) - started))
echo "用时 $seconds 秒；全部测试：sh scripts/test.sh / $seconds s; every test: sh scripts/test.sh" >&2
