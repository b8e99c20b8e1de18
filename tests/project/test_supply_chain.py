"""What a build is made of: the lock file, the bill of materials, and the scripts that make them."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from locations import ROOT

LOCKED = re.compile(r"(?P<pin>\S+==\S+) --hash=sha256:[0-9a-f]{64}")
LOCK = runpy.run_path(str(ROOT / "scripts" / "lock.py"))
SBOM = runpy.run_path(str(ROOT / "scripts" / "sbom.py"))


def lines_of(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def report(**environment: str) -> dict[str, Any]:
    """Return what pip reports of one package, on the platform of the lock unless told otherwise."""
    chosen = {
        "metadata": {"name": "Typing_Extensions"},
        "download_info": {"archive_info": {"hashes": {"sha256": "0" * 64}}},
    }
    return {"environment": LOCK["PLATFORM"] | environment, "install": [chosen]}


# ---------------------------------------------------------------- the lock file


def test_the_lock_file_names_the_versions_of_the_constraints_each_with_one_hash() -> None:
    locked = [LOCKED.fullmatch(line) for line in lines_of("requirements.lock")]
    assert all(locked)
    assert [match["pin"] for match in locked if match] == lines_of("constraints.txt")


def test_the_lock_file_states_its_platform_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert text.startswith(LOCK["HEADER"])
    assert "x86_64" in LOCK["HEADER"] and "3.11" in LOCK["HEADER"]
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links| @ ", text)


def test_hashes_are_found_by_the_name_that_indexes_compare() -> None:
    assert LOCK["hashes"](report()) == {"typing-extensions": "0" * 64}


@pytest.mark.parametrize("other", [{"python_version": "3.12"}, {"platform_machine": "aarch64"}])
def test_another_platform_makes_no_lock_file(other: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match=r"3\.11"):
        LOCK["hashes"](report(**other))


def test_a_file_without_a_hash_makes_no_lock_file() -> None:
    bare = report()
    bare["install"][0]["download_info"] = {"dir_info": {}}
    with pytest.raises(SystemExit, match="SHA-256"):
        LOCK["hashes"](bare)


# ---------------------------------------------------------------- the bill of materials


def printed() -> str:
    command = [sys.executable, str(ROOT / "scripts" / "sbom.py")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_bill_of_materials_has_the_fields_that_cyclonedx_requires() -> None:
    bill = json.loads(printed())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    ours = bill["metadata"]["component"]
    assert (ours["type"], ours["name"]) == ("application", "medchat")
    for component in bill["components"]:
        assert component["type"] == "library" and component["version"]
        assert component["purl"] == component["bom-ref"]
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[^@/]+", component["purl"]), component["purl"]
        for licence in component.get("licenses", []):
            assert licence.get("expression") or licence["license"]["name"]
    assert {"torch", "transformers", "click"} <= {component["name"] for component in bill["components"]}


def test_every_reference_in_the_bill_of_materials_is_to_one_component_of_it() -> None:
    bill = SBOM["bill"](distributions())
    references = [each["bom-ref"] for each in (bill["metadata"]["component"], *bill["components"])]
    assert len(references) == len(set(references))
    assert sorted(entry["ref"] for entry in bill["dependencies"]) == sorted(references)
    assert {ref for entry in bill["dependencies"] for ref in entry["dependsOn"]} <= set(references)
    needed = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert any(ref.startswith("pkg:pypi/torch@") for ref in needed[references[0]])


def test_the_same_packages_give_the_same_bytes_without_a_path() -> None:
    once, again = printed(), printed()
    assert once == again
    assert str(ROOT) not in once and str(Path(sys.prefix)) not in once


def test_without_medchat_there_is_no_bill_of_materials() -> None:
    with pytest.raises(SystemExit, match="medchat"):
        SBOM["bill"](())
