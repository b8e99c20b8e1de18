#!/bin/sh
# scripts/test.sh under each supported Python that is installed here, each in an environment of its own (.venv-3.11, …).
# Arguments go on to pytest and then replace the linters: sh scripts/matrix.sh -m "not torch"
#   PYTHONS    which versions (default: 3.11 3.12 3.13)
# Exits 1 when one failed, and when none is installed.
set -eu
cd "$(dirname -- "$0")/.."
passed='' failed='' missing=''
for version in ${PYTHONS:-3.11 3.12 3.13}; do
    if ! "python$version" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "跳过：没有安装 Python $version / skipped: Python $version is not installed" >&2
        missing="$missing $version"
        continue
    fi
    echo "== Python $version" >&2
    if PYTHON=python$version MEDCHAT_VENV=$PWD/.venv-$version sh scripts/test.sh "$@"; then
        passed="$passed $version"
    else
        failed="$failed $version"
    fi
done
echo "通过 / passed:${passed:- -}  失败 / failed:${failed:- -}  跳过 / skipped:${missing:- -}" >&2
[ -z "$failed" ] && [ -n "$passed" ]
