#!/bin/sh
# The fast check, for every edit: linters, types, layers, and the tests that need no torch. Under a minute on two cores.
#   sh scripts/check.sh            everything
#   sh scripts/check.sh linters    without the tests; scripts/test.sh calls this
set -eu
. "$(dirname -- "$0")/environment.sh"
only=${1-}
case $only in
    '' | linters) ;;
    *)
        echo "错误：不认识的参数 $only / unknown argument $only" >&2
        echo '下一步 / Next: sh scripts/check.sh [linters]' >&2
        exit 2
        ;;
esac
install "[test]"
PATH=$venv/bin:$PATH
export PATH
started=$(date +%s)
# mypy takes longer than all the others, and runs beside them and beside the tests.
types=$(mktemp)
trap 'rm -f "$types"' EXIT INT TERM
mypy > "$types" 2>&1 &
typing=$!
failed=0
(
    set -x
    ruff check . && ruff format --check . && lint-imports --no-cache && deptry .
) || failed=1
# Folders whose tests are quick and need no torch; a module that imports it is not even read.
OMP_NUM_THREADS=1
export OMP_NUM_THREADS
if [ "$failed" = 0 ] && [ "$only" != linters ]; then
    set -- tests/batch tests/chat tests/datafiles tests/registry tests/repl tests/settings tests/sft_job tests/store tests/templates
    for module in $(grep -lE '^pytestmark = .*mark\.torch' tests/batch/*.py tests/chat/*.py tests/sft_job/*.py); do
        set -- "$@" "--ignore=$module"
    done
    (
        set -x
        python -m pytest -q -n auto --maxprocesses 4 \
            -m "not torch and not golden and not terminal and not slow and not gpu" "$@"
    ) || failed=1
fi
echo '+ mypy' >&2
wait "$typing" || failed=1
cat "$types"
if [ "$only" = linters ]; then
    exit "$failed"
fi
seconds=$(($(date +%s) - started))
echo "用时 $seconds 秒；全部测试：sh scripts/test.sh / $seconds s; every test: sh scripts/test.sh" >&2
exit "$failed"
