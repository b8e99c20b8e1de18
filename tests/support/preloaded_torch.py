"""The imports of a fork server for runs of a tiny model: the program's, torch and related libraries."""

# ruff: noqa: F401
from __future__ import annotations

import peft
import preloaded_program
import sentencepiece
import torch
import transformers.models.llama.modeling_llama
import transformers.trainer
