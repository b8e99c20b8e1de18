"""Write the installed packages as a CycloneDX 1.5 bill of materials, from their own metadata alone."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from typing import Any
from urllib.parse import quote

OURS = "medchat"


def canonical(name: str) -> str:
    """Return the name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def purl(name: str, version: str) -> str:
    """Return the package URL, which also serves as the reference inside the bill."""
    return f"pkg:pypi/{name}@{quote(version, safe='')}"


def licences(found: Distribution) -> list[dict[str, Any]]:
    """Return the licence as the package states it: an SPDX expression, else its classifiers, else its own words."""
    stated = found.metadata
    if expression := stated.get("License-Expression"):
        return [{"expression": expression}]
    marks = stated.get_all("Classifier") or []
    names = {mark.rpartition(" :: ")[2] for mark in marks if mark.startswith("License :: ")}
    names -= {"OSI Approved"}
    if not names and (words := (stated.get("License") or "").strip()):
        names = {words.splitlines()[0][:120]}
    return [{"license": {"name": name}} for name in sorted(names)]


def component(found: Distribution, kind: str) -> dict[str, Any]:
    """Return one package as a component."""
    name, version = canonical(found.metadata["Name"]), found.version
    entry: dict[str, Any] = {
        "type": kind,
        "bom-ref": purl(name, version),
        "name": name,
        "version": version,
        "purl": purl(name, version),
    }
    if stated := licences(found):
        entry["licenses"] = stated
    return entry


def needed(found: Distribution) -> set[str]:
    """Return the canonical names of what a package needs, with all its extras and conditions."""
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in found.requires or ())
    return {canonical(name.group()) for name in names if name}


def bill(installed: Iterable[Distribution]) -> dict[str, Any]:
    """Return the bill of materials. Raises SystemExit where MedChat is not among the packages."""
    packages: dict[str, Distribution] = {}
    for found in installed:  # the first of a name is the one that Python imports
        packages.setdefault(canonical(found.metadata["Name"]), found)
    if OURS not in packages:
        raise SystemExit("错误：没有安装 medchat / medchat is not installed")
    references = {name: purl(name, found.version) for name, found in packages.items()}
    content = {
        "metadata": {"component": component(packages[OURS], "application")},
        "components": [component(packages[name], "library") for name in sorted(packages) if name != OURS],
        "dependencies": [
            {
                "ref": references[name],
                "dependsOn": sorted(
                    references[other] for other in needed(packages[name]) if other in references
                ),
            }
            for name in sorted(packages)
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


if __name__ == "__main__":
    json.dump(bill(distributions()), sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
