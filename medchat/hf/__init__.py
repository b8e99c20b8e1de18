"""Chat models that transformers computes and whose folders say the rest: what a plugin for one subclasses.

    class Qwen(TransformersBackbone):
        name = "qwen"
        summary = {"zh": "…", "en": "…"}
        model_types = ("qwen2",)

Importing this imports no torch.
"""

from medchat.hf.backbone import TransformersBackbone

__all__ = ["TransformersBackbone"]
