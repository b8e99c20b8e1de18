"""The tables of built-in plugins. `setup.py` makes packages and entry points from them.

Standard library only and no import of anything else of ours: `setup.py` runs this file alone.
"""

from __future__ import annotations

from collections import namedtuple

BuiltinBackbone = namedtuple("BuiltinBackbone", ["name", "package", "module"])
BuiltinCommand = namedtuple("BuiltinCommand", ["name", "package", "module", "zh", "en"])

#: name = entry-point name = what `--backbone` takes; its package is under `plugins/<package without
#: medchat_>/`. One plugin may offer several: Huozi is of Bloom's architecture.
BUILTIN_BACKBONES = (
    BuiltinBackbone("chatglm", "medchat_chatglm", "medchat_chatglm.plugin"),
    BuiltinBackbone("llama", "medchat_llama", "medchat_llama.plugin"),
    BuiltinBackbone("bloom", "medchat_bloom", "medchat_bloom.plugin"),
    BuiltinBackbone("huozi", "medchat_bloom", "medchat_bloom.plugin"),
    BuiltinBackbone("remote", "medchat_remote", "medchat_remote.plugin"),
)

#: name = entry-point name = the command, `medchat NAME`; one line in Chinese and in English for `medchat --help`.
BUILTIN_COMMANDS = (
    BuiltinCommand(
        "data",
        "medchat_data",
        "medchat_data.plugin",
        "构建、检查、整理训练数据",
        "build, check and prepare training data",
    ),
    BuiltinCommand(
        "export",
        "medchat_export",
        "medchat_export.plugin",
        "导出模型：合并适配器、GGUF、Ollama",
        "export a model: adapters merged, GGUF, Ollama",
    ),
    BuiltinCommand(
        "serve",
        "medchat_serve",
        "medchat_serve.plugin",
        "供多人和其他程序使用：OpenAI 兼容接口",
        "for several users and other programs: an OpenAI-compatible interface",
    ),
    BuiltinCommand(
        "eval",
        "medchat_eval",
        "medchat_eval.plugin",
        "评测模型：选择题、文本指标、急症",
        "evaluate models: choice questions, text metrics, emergencies",
    ),
    BuiltinCommand(
        "bench",
        "medchat_bench",
        "medchat_bench.plugin",
        "测速：每秒词元数、首个词元、内存",
        "measure speed: tokens a second, first token, memory",
    ),
)

#: Environment variables that built-in plugins read, so that one that is nearly one of them can be pointed out.
PLUGIN_VARIABLES = (
    "MEDCHAT_REMOTE_KEY",
    "MEDCHAT_REMOTE_CONTEXT",
    "MEDCHAT_REMOTE_TIMEOUT",
    "MEDCHAT_REMOTE_DEADLINE",
    "MEDCHAT_SERVE_TOKEN",
)
