#!/bin/sh
# Writes the software bill of materials of the installed environment to stdout: CycloneDX 1.5, JSON.
#   sh scripts/sbom.sh > sbom.json
# The same packages give the same bytes: it holds no time, no path and no random number.
set -eu
. "$(dirname -- "$0")/environment.sh"
install ""
exec "$venv/bin/python" scripts/sbom.py
