#!/bin/sh
# Builds the wheel of the last commit into dist/, twice, and compares the two byte by byte.
# Prints its SHA-256. What is not committed is not in it.
set -eu
. "$(dirname -- "$0")/environment.sh"
install "[test]"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
# Every time in the archive is that of the commit, every mode that of this mask.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
umask 022
for build in first second; do
    mkdir "$work/$build"
    git archive --output "$work/$build.tar" HEAD
    tar -xf "$work/$build.tar" -C "$work/$build"
    "$venv/bin/python" -m pip wheel --disable-pip-version-check --quiet --no-build-isolation --no-deps \
        --wheel-dir "$work/$build-wheel" "$work/$build"
done
name=$(basename -- "$work"/first-wheel/*.whl)
if ! cmp -- "$work/first-wheel/$name" "$work/second-wheel/$name"; then
    echo '错误：两次构建的 wheel 不同 / the two builds differ' >&2
    exit 1
fi
mkdir -p dist
cp -- "$work/first-wheel/$name" "dist/$name"
"$venv/bin/python" -c 'import hashlib, pathlib, sys; print(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest(), sys.argv[1])' "dist/$name"
