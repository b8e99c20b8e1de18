"""What `--model` names: an address in a folder's place is answered with what to type for it."""

from __future__ import annotations

import pytest

from medchat.chat.model_choice import find_model
from medchat.errors import UsageError


@pytest.mark.parametrize(
    ("address", "typed"),
    [
        ("file:///data/models/llama-7b", "--model /data/models/llama-7b"),
        ("FILE://localhost/data/my%20models/7b", "--model '/data/my models/7b'"),
        ("https://huggingface.co/Qwen/Qwen2-7B", "hf download Qwen/Qwen2-7B --local-dir"),
        ("https://huggingface.co/Qwen/Qwen2-7B/tree/main", "hf download Qwen/Qwen2-7B --local-dir"),
        ("https://hf-mirror.com/a/b;rm", "hf download 'a/b;rm' --local-dir"),
        ("https://www.modelscope.cn/models/Qwen/Qwen2-7B", "modelscope download Qwen/Qwen2-7B --local_dir"),
        ("https://huggingface.co/Qwen", "--backbone remote"),
        ("http://127.0.0.1:8000/v1#m", "--backbone remote"),
        ("https://user:word@example.org/v1", "--backbone remote"),
    ],
)
def test_an_address_is_answered_with_what_to_type(address: str, typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_model(address, None)
    assert typed in caught.value.remedy and "word" not in caught.value.where
