"""Any current chat model of transformers as a MedChat backbone: a class, and what it is called."""

from collections.abc import Mapping

from medchat.hf import TransformersBackbone
from medchat.plugin_kit import Backbone, KnownWeights, hookimpl

medchat_api_version = 1


class HF(TransformersBackbone):
    name = "hf"
    summary: Mapping[str, str] = {
        "zh": "示例：transformers 的对话模型",
        "en": "example: chat models of transformers",
    }
    model_types = ("llama", "qwen2", "qwen3", "gpt2", "smollm3", "gemma3_text", "phi3", "mistral")
    known_weights = (
        KnownWeights(
            name="smollm2-135m-instruct",
            title="SmolLM2-135M-Instruct",
            source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            template="",
        ),
    )


@hookimpl
def medchat_backbones() -> list[Backbone]:
    return [HF()]
