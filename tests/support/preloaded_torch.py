"""What a fork server imports for runs of a miniature of any family: what the program needs, and torch with its like."""

# ruff: noqa: F401
from __future__ import annotations

import peft
import preloaded_program
import sentencepiece
import torch
import transformers.models.llama.modeling_llama
import transformers.trainer
