"""The extras of MedChat's distribution: packages that only some commands need. Standard library only."""

from __future__ import annotations

from importlib.util import find_spec

from medchat.errors import UsageError
from medchat.language import say


def require_extra(extra: str, *packages: str) -> None:
    """Raise UsageError, with what to install, unless all `packages` of that extra are there. Imports none of them."""
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(
                say(f"没有安装 {package}", f"{package} is not installed"), f"pip install 'medchat[{extra}]'"
            )
