#!/bin/sh
# All set-up and all checks but the markers slow and gpu: linters, types, layers, tests; coverage of the core.
# Arguments go on to pytest and then replace the linters: sh scripts/test.sh -k tokenizer
set -eu
. "$(dirname -- "$0")/environment.sh"
install "[test]"
PATH=$venv/bin:$PATH
export PATH
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
# Whoever imports torch and its like first compiles them, and each of several workers would: once, beside the linters.
PYTHONDONTWRITEBYTECODE='' python -c 'import medchat.hf, medchat.training.trainer' >/dev/null 2>&1 &
sh scripts/check.sh linters
# Tests wait for terminals, servers and children as well as for a core: one worker more than there are cores. Each
# file's tests in one of them, in the order of their names: by their number of tests, as pytest-xdist has it otherwise,
# the long runs of files with few tests come last, and one core waits for the other. Threads of their own would wait
# for each other.
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
workers=$((cores < 4 ? cores + 1 : 4))
OMP_NUM_THREADS=1
export OMP_NUM_THREADS
# run_tests WORD...: the tests that are not left out, in all workers.
run_tests() {
    python -m pytest -m "not slow and not gpu" -n "$workers" --dist loadfile --no-loadscope-reorder --durations=10 "$@"
}
# Tracing makes a test take half as long again: the packages of the core are traced here, all others by coverage.sh.
core='batch calls chat datafiles registry settings sft_job store templates weights'
# What imports torch at once is left to the second run, so that the first need not.
others=''
set --
for folder in $core; do
    set -- "$@" "tests/$folder" "--cov=medchat.$folder"
    others="$others --ignore=tests/$folder"
done
for module in $(grep -lrE '^pytestmark = .*mark\.torch' --include='test_*.py' $(printf 'tests/%s ' $core)); do
    set -- "$@" "--ignore=$module"
    others="$others $module"
done
set -x
status=0
run_tests "$@" --cov-report=term:skip-covered --cov-fail-under=85 || status=1
# shellcheck disable=SC2086 # a word for each folder
run_tests tests $others || status=1
exit $status
