"""The fine-tuning methods: what each one trains, and how the result is written and reloaded."""

from medchat.training.methods.bottleneck import BottleneckMethod
from medchat.training.methods.full import FullMethod
from medchat.training.methods.lora import LoraMethod
from medchat.training.methods.method import Method
from medchat.training.methods.prefix_tuning import PrefixMethod
from medchat.training.methods.qlora import QLoraMethod

__all__ = [
    "BottleneckMethod",
    "FullMethod",
    "LoraMethod",
    "Method",
    "PrefixMethod",
    "QLoraMethod",
]
