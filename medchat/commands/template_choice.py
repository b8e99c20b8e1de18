"""Which template `--template` names: a shipped one, a file, the backbone's own, or another backbone's.

A form made for one family is plain text in most cases, and then any vocabulary can write it. Other
plugins are imported only for a name that nothing else has, and take no part in the chat.
"""

from __future__ import annotations

from medchat.api import Backbone, Control, LoadOptions, PromptTemplate, SpecialTokens
from medchat.errors import UsageError
from medchat.inert import inert_line
from medchat.language import say
from medchat.registry import Extensions, Registry
from medchat.templates import load_template


def named_template(
    wanted: str, backbone: Backbone, options: LoadOptions, registry: Registry, extensions: Extensions
) -> PromptTemplate:
    """Return the template that `wanted` names or whose path it is, for a chat with `backbone`.

    Raises UsageError: no such template, a file that is none, or another backbone's form whose control
    tokens this vocabulary lacks.
    """
    owners: dict[str, str] = {}

    def elsewhere() -> list[PromptTemplate]:
        found = []
        for name in registry.names():
            for template in registry.templates_of(name) if name != backbone.name else ():
                owners.setdefault(template.name, name)
                found.append(template)
        return found

    def asked_specials() -> SpecialTokens:
        return registry.ask(backbone, lambda known: known.special_tokens(options))

    template = load_template(wanted, extensions.templates(), asked_specials, elsewhere)
    # An endpoint keeps its vocabulary to itself, and gets control tokens by their names.
    if template.name == wanted and wanted in owners and not options.address:
        used = {part.token for part in template.render((), "?") if isinstance(part, Control)}
        lacking = sorted(used.difference(asked_specials().tokens)) if used else []
        if lacking:
            raise _foreign(wanted, owners[wanted], backbone.name, lacking)
    return template


def _foreign(template: str, owner: str, backbone: str, lacking: list[str]) -> UsageError:
    tokens = inert_line(" ".join(lacking), 120)
    return UsageError(
        say(
            f"模板 {template} 属于 --backbone {owner}：{backbone} 的词表里没有它的控制符 {tokens}",
            f"template {template} belongs to --backbone {owner}: the vocabulary of {backbone} lacks its "
            f"control tokens {tokens}",
        ),
        say(
            f"换用 --backbone {owner} 的权重，或去掉 --template",
            f"use weights of --backbone {owner}, or leave --template out",
        ),
    )
