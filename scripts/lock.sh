#!/bin/sh
# Writes requirements.lock: the versions of constraints.txt with the SHA-256 of the file that pip chooses for each.
# Needs Python 3.11 on Linux x86_64, for which the file is made. Run it after every change of constraints.txt.
# jieba is published as source alone.
#   pip install --no-deps --require-hashes -r requirements.lock && pip install --no-deps -e .
set -eu
. "$(dirname -- "$0")/environment.sh"
install "[test]"
report=$(mktemp)
trap 'rm -f "$report"' EXIT INT TERM
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet --dry-run --ignore-installed --no-deps \
    --only-binary :all: --no-binary jieba --report "$report" -r constraints.txt
"$venv/bin/python" scripts/lock.py "$report" > "$report.lock"
mv "$report.lock" requirements.lock
