"""The one table of built-in backbones. `setup.py` makes packages and entry points from it.

Standard library only and no import of anything else of ours: `setup.py` runs this file alone.
"""

from __future__ import annotations

from collections import namedtuple

BuiltinBackbone = namedtuple("BuiltinBackbone", ["name", "package", "module"])

#: name = entry-point name = what `--backbone` takes; its package lies under `plugins/<package without medchat_>/`.
#: One plugin may offer several: Huozi is of Bloom's architecture.
BUILTIN_BACKBONES = (
    BuiltinBackbone("chatglm", "medchat_chatglm", "medchat_chatglm.plugin"),
    BuiltinBackbone("llama", "medchat_llama", "medchat_llama.plugin"),
    BuiltinBackbone("bloom", "medchat_bloom", "medchat_bloom.plugin"),
    BuiltinBackbone("huozi", "medchat_bloom", "medchat_bloom.plugin"),
    BuiltinBackbone("remote", "medchat_remote", "medchat_remote.plugin"),
)

#: Environment variables that built-in plugins read, so that one that is nearly one of them can be pointed out.
PLUGIN_VARIABLES = (
    "MEDCHAT_REMOTE_KEY",
    "MEDCHAT_REMOTE_CONTEXT",
    "MEDCHAT_REMOTE_TIMEOUT",
    "MEDCHAT_REMOTE_DEADLINE",
)
