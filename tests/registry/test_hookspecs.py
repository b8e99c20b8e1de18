"""Every hook is documented, and none stops at the first result."""

from __future__ import annotations

from locations import ROOT

from medchat import hookspecs
from medchat.registry.metadata import GROUPS


def test_every_hook_and_group_is_documented() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs.Hooks) if name.startswith("medchat_")]
    assert len(hooks) == 10
    for name in [*hooks, *GROUPS, "medchat_api_version", "MEDCHAT_PLUGINS", "MEDCHAT_STRICT"]:
        assert f"`{name}" in page, name
    for name in hooks:
        assert len((getattr(hookspecs.Hooks, name).__doc__ or "").split()) > 10, name


def test_no_hook_stops_at_the_first_result() -> None:
    for name in vars(hookspecs.Hooks):
        if name.startswith("medchat_"):
            assert getattr(hookspecs.Hooks, name).medchat_spec["firstresult"] is False
