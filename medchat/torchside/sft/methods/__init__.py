"""The methods of fine-tuning: what each trains, how that is written, and that chat loads it again."""

from medchat.torchside.sft.methods.bottlenecks import BottleneckMethod
from medchat.torchside.sft.methods.full import FullMethod
from medchat.torchside.sft.methods.lora import LoraMethod
from medchat.torchside.sft.methods.method import Method
from medchat.torchside.sft.methods.prefix import PrefixMethod
from medchat.torchside.sft.methods.qlora import QLoraMethod

__all__ = [
    "BottleneckMethod",
    "FullMethod",
    "LoraMethod",
    "Method",
    "PrefixMethod",
    "QLoraMethod",
]
