"""From flags and settings to a model that can answer: cheap checks first, loading last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.api import (
    GENERATION_SETTINGS,
    ChatModel,
    Control,
    GenerationConfig,
    LoadOptions,
    PromptTemplate,
    QuantizedCache,
    SpecialTokens,
    Text,
)
from medchat.api.option import declared_options
from medchat.chat.fitness import honoured, ineffective_settings, require_capabilities
from medchat.chat.model_choice import find_adapter, find_model, open_registry, recognize_backbone
from medchat.errors import UsageError
from medchat.language import say
from medchat.paths import quantized_dir
from medchat.registry import Extensions, GuardedBackbone, Registry
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.settings.plugin_options import option_values
from medchat.templates import load_template
from medchat.user_paths import user_path

# The template that `--template` names: a shipped one, a file, the backbone's own, or another backbone's.
#
# A template made for one family is plain text in most cases, and then any vocabulary can encode it. Other
# plugins are imported only for a name that nothing else has, and take no part in the chat.


def named_template(
    wanted: str, backbone: GuardedBackbone, options: LoadOptions, registry: Registry, extensions: Extensions
) -> PromptTemplate:
    """Return the template with the name or path `wanted`, for a chat with `backbone`.

    Raises UsageError: no such template, not a template file, or another backbone's template whose control
    tokens this vocabulary lacks.
    """
    owners: dict[str, str] = {}

    def elsewhere() -> list[PromptTemplate]:
        found = []
        for name in registry.names():
            for template in registry.templates_of(name) if name != backbone.name else ():
                owners.setdefault(template.name, name)
                found.append(template)
        # The weights' own comes first: a saved session names it, even if its plugin does not offer it by
        # name.
        return [*found, backbone.template(options)]

    def asked_specials() -> SpecialTokens:
        return backbone.special_tokens(options)

    template = load_template(wanted, extensions.templates(), asked_specials, elsewhere)
    # An endpoint does not expose its vocabulary, and gets control tokens by their names.
    if template.name == wanted and not options.address:
        used = {part.token for part in template.render((), "?") if isinstance(part, Control)}
        lacking = sorted(used.difference(asked_specials().tokens)) if used else []
        if lacking:
            # One plugin may offer several backbones, and a template is named after its own one.
            owner = wanted if wanted in registry.names() else owners.get(wanted, backbone.name)
            raise _foreign(wanted, owner, backbone.name, lacking)
    return template


def _foreign(template: str, owner: str, backbone: str, lacking: list[str]) -> UsageError:
    tokens = sanitize_line(" ".join(lacking), 120)
    return UsageError(
        say(
            f"模板 {template} 属于 --backbone {owner}：{backbone} 的词表里没有它的特殊标记 {tokens}",
            f"template {template} belongs to --backbone {owner}: the vocabulary of {backbone} lacks its "
            f"control tokens {tokens}",
        ),
        say(
            f"换用 --backbone {owner} 的权重，或去掉 --template",
            f"use weights of --backbone {owner}, or leave --template out",
        ),
    )


#: Flags whose values are settings of the same name, the highest layer except `/set`.
SETTING_FLAGS = (
    *("backbone", "model", "template", "system", "device", "dtype", "quantize", "engine"),
    *("style", "history"),
)
#: The key among flags under which a command names settings that no file may choose.
UNSET = "unset"


@dataclass(frozen=True)
class ChatSetup:
    """A conversation's model and settings, checked; `load` is the only slow step left."""

    settings: Settings
    registry: Registry
    extensions: Extensions
    backbone: GuardedBackbone
    options: LoadOptions
    template: PromptTemplate
    generation: GenerationConfig

    @property
    def template_value(self) -> str:
        """The value of `--template` that chooses this template: the path of its file, else its name."""
        chosen = self.settings.value("template")
        path = user_path(str(chosen)) if chosen else None
        return str(path.absolute()) if path is not None and path.is_file() else self.template.name

    def load(self) -> ChatModel:
        """Load the model. Raises MedchatError, OSError; PluginError for anything else that the backbone raises."""
        return self.backbone.load(self.options)

    def notices(self, *, in_chat: bool = False) -> list[str]:
        """Return notices to show before the first question: where the text is sent, a template of other weights.

        `in_chat`: slash commands can be typed.
        """
        stated = self.backbone.notices(self.options)
        ineffective = ineffective_settings(self.backbone.name, self.backbone.capabilities, self.settings)
        said = [*stated, *ineffective, *self._other_template(in_chat)]
        return [sanitize_line(notice, 600) for notice in said]

    def _other_template(self, in_chat: bool) -> list[str]:
        if not self.settings.value("template"):
            return []
        trained = self.backbone.trained_templates(self.options)
        if not trained or self.template.name in trained or self._same_template():
            return []
        names = say("、", ", ").join(trained)
        zh, en = (
            ("/模板 none ", "/template none takes")
            if in_chat
            else ("去掉 --template ", "without --template you get")
        )
        return [
            say(
                f"！这些权重是用模板 {names} 训练的，现在用的是 {self.template.name}，回答可能变差"
                f"（{zh}即改用原来的模板）",
                f"! these weights were trained on template {names}, not on {self.template.name}: answers may be "
                f"worse ({en} theirs)",
            )
        ]

    def _same_template(self) -> bool:
        """Whether the chosen template is the weights' own under another name, such as a copy in a file."""
        return _written(self.template) == _written(self.backbone.template(self.options))


def _written(template: PromptTemplate) -> str:
    segments = template.render((), "?")
    return "".join(part.text if isinstance(part, Text) else f"\0{part.token}\0" for part in segments)


def read_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings overridden by the profile that this command's flags name, and by the other flags.

    Those that `flags` names under `UNSET` count as chosen by nobody.
    """
    settings = Settings.load(as_settings(dict(flags)), profile=str(flags.get("profile") or ""))
    return settings.changed(dict.fromkeys(flags.get(UNSET, ())), "--server")


def resolve_setup(settings: Settings, *, registry: Registry | None = None) -> ChatSetup:
    """Check everything that can be checked without loading weights.

    Raises UsageError (unknown backbone, template, setting), CheckpointError (no such model), PluginError.
    """
    registry = registry or open_registry(settings)
    name = settings.value("backbone")
    backbone = registry.backbone(str(name)) if name else None
    generation = settings.generation(over=backbone.generation if backbone else GenerationConfig())
    place = str(settings.value("model") or "")
    address = backbone.address(place) if backbone else None
    model = (
        Path(address)
        if address
        else find_model(settings.value("model"), backbone.name if backbone else None, registry)
    )
    if address and settings.value("offline"):
        raise _forbidden_offline(address)
    if backbone is None:
        backbone = recognize_backbone(registry, model)
        generation = settings.generation(over=backbone.generation)
    options = _load_options(settings, registry, backbone, model, address or "")
    require_capabilities(backbone.name, backbone.capabilities, settings, options)
    extensions = registry.extensions()
    chosen = settings.value("template")
    template = (
        named_template(str(chosen), backbone, options, registry, extensions)
        if chosen
        else backbone.template(options)
    )
    return ChatSetup(settings, registry, extensions, backbone, options, template, generation)


def _load_options(
    settings: Settings,
    registry: Registry,
    backbone: GuardedBackbone,
    model: Path,
    address: str,
) -> LoadOptions:
    can = backbone.capabilities
    return LoadOptions(
        model=model,
        adapters=tuple(find_adapter(value, registry) for value in _many(settings.value("adapter"))),
        device=honoured("device", can, settings),
        dtype=honoured("dtype", can, settings),
        quantize=honoured("quantize", can, settings),
        engine=honoured("engine", can, settings),
        offline=bool(settings.value("offline")),
        extra=option_values(settings, backbone.name, declared_options(backbone.load_keys)),
        address=address,
        quantized_cache=_quantized_cache(settings),
    )


def _quantized_cache(settings: Settings) -> QuantizedCache | None:
    most = int(settings.value("quantized_cache")) << 30
    return QuantizedCache(quantized_dir(), most) if most else None


def _forbidden_offline(address: str) -> UsageError:
    return UsageError(
        say("--offline 禁止使用远程模型", "--offline forbids a remote model"),
        say(
            "去掉 --offline（或配置项 offline），或换用本机的权重",
            "leave --offline (or the setting) out, or use weights on this machine",
        ),
        where=address,
    )


def _many(value: Any) -> list[str]:
    if not value:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def as_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the given flags as settings: unset ones left out, generation flags under `generation.`."""
    chosen: dict[str, Any] = {}
    for name in SETTING_FLAGS:
        if flags.get(name) is not None:
            chosen[name] = flags[name]
    for name in GENERATION_SETTINGS:
        if flags.get(name) is not None:
            chosen[f"generation.{name}"] = flags[name]
    for name in ("adapter", "option"):
        if flags.get(name):
            chosen[name] = list(flags[name])
    if flags.get("offline"):
        chosen["offline"] = True
    return chosen
