"""Plugins: their names from metadata alone, their code only when asked for, their failures contained.

`medchat.registry.metadata` is on the path of `medchat --help`, so this package imports `loading`, and
with it pluggy, only when `Registry` and its companions are asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read it as true; importing typing costs more than the scan itself
if TYPE_CHECKING:
    from medchat.registry.contract import ContractError
    from medchat.registry.extensions import Extensions
    from medchat.registry.guard import GuardedBackbone
    from medchat.registry.loading import Registry
    from medchat.registry.plugin import PluginFailure, SharedModel

__all__ = ["ContractError", "Extensions", "GuardedBackbone", "PluginFailure", "Registry", "SharedModel"]
_HOMES = {
    "Extensions": "extensions",
    "GuardedBackbone": "guard",
    "PluginFailure": "plugin",
    "SharedModel": "plugin",
    "ContractError": "contract",
    "Registry": "loading",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
