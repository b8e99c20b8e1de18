"""Makes the plan of a run from flags, a file and settings: backbone, recipe, settings, folders and template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medchat.api import LoadOptions, PromptTemplate, SFTOptions, SFTRecipe
from medchat.api.option import declared_options
from medchat.chat.model_choice import find_adapter, find_model, open_registry, recognize_backbone
from medchat.chat.setup import named_template
from medchat.commands.sft.options import given_flags
from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.launcher import Process
from medchat.registry import Extensions, GuardedBackbone, Registry
from medchat.settings import Settings
from medchat.settings.plugin_options import check_option, chosen_options
from medchat.sft_job.keys import EXTRA
from medchat.sft_job.run_file import FILE_NAME, read_run_file, require_text
from medchat.sft_job.settings import Given, RunSettings, Setting, choose_recipe, first_of, resolve_settings
from medchat.templates import same_template
from medchat.user_paths import user_path

#: The program's general settings that apply here too, below flags and `--config`.
_SHARED = ("backbone", "model", "device")


@dataclass(frozen=True)
class RunPlan:
    """One run, with everything checked that needs no data or weights."""

    registry: Registry
    backbone: GuardedBackbone
    recipe: SFTRecipe
    settings: RunSettings
    options: SFTOptions
    data: tuple[Path, ...]
    template: PromptTemplate | None
    process: Process
    offline: bool = False


def make_plan(flags: Mapping[str, Any], process: Process) -> RunPlan:
    """Merge the layers and check them against the backbone and its recipe.

    Raises UsageError (unknown backbone, method, setting, template; a bad value), CheckpointError (no such
    model or file), PluginError.
    """
    program = Settings.load(flags={"offline": flags.get("offline") or None})
    layers = _layers(flags, program)
    registry = open_registry(program)
    extensions = registry.extensions()
    backbone, model = _backbone_and_model(layers, registry, resume=bool(flags["resume"]))
    recipes = dict(backbone.recipes)
    recipes |= {recipe.method: recipe for recipe in extensions.sft_recipes(backbone.name)}
    recipe = choose_recipe(recipes, backbone.name, *first_of(layers, "method"))
    layers = [*layers, _own_options(program, backbone)]
    settings = resolve_settings(layers, recipe, processes=process.world_size)
    settings = _with_checked_options(settings, backbone)
    # A dry run writes nothing: it needs no output folder.
    nowhere = flags["dry_run"] and not flags["resume"] and not settings.value("output")
    output = Path() if nowhere else user_path(_needed(settings, "output", "--output DIR"))
    adapters = tuple(find_adapter(value, registry) for value in settings.value("adapters") or ())
    if adapters and not backbone.capabilities.adapters:
        raise UsageError(
            say(f"{backbone.name} 不支持 --adapter", f"{backbone.name} does not take --adapter"),
            say("去掉 --adapter", "leave --adapter out"),
        )
    asked = settings.options(model=model, output=output, adapters=adapters, resume=bool(flags["resume"]))
    options = recipe.resolve_options(asked)
    if process.leads and not (options.resume or nowhere):
        _refuse_occupied(options.output)
    data = tuple(user_path(value) for value in _needed(settings, "data", "--data FILE"))
    template = _template(settings.value("template"), backbone, options, registry, extensions)
    settings = _as_found(settings, backbone.name, options, data).resolved(options)
    if template is None and (name := _own_template(backbone, recipe, options, registry, extensions)):
        settings = settings.with_resolved("template", name)
    require_text(settings)
    return RunPlan(
        registry, backbone, recipe, settings, options, data, template, process, bool(program.value("offline"))
    )


def _layers(flags: Mapping[str, Any], program: Settings) -> list[Given]:
    """Return the layers, highest first: flags, the file, the program's general settings."""
    typed = given_flags(flags)
    layers: list[Given] = [typed]
    if flags["config"]:
        layers.append(read_run_file(user_path(flags["config"])))
    elif flags["resume"] and "output" in typed:
        # A resumed run keeps its settings: `medchat sft --output DIR --resume` is enough.
        earlier = user_path(typed["output"][0]) / FILE_NAME
        if earlier.is_file():
            layers.append(read_run_file(earlier))
    shared = {
        name: (program.value(name), str(program.origin(name))) for name in _SHARED if program.is_set(name)
    }
    return [*layers, shared]


def _backbone_and_model(
    layers: Sequence[Given], registry: Registry, *, resume: bool
) -> tuple[GuardedBackbone, Path]:
    name, _ = first_of(layers, "backbone")
    value, _ = first_of(layers, "model")
    backbone = registry.backbone(str(name)) if name else None
    if value is None and resume:
        output, _ = first_of(layers, "output")
        raise UsageError(
            say("这里没有可以继续的训练", "there is no run to go on with here")
            if output
            else say("--resume：要继续哪次训练？", "--resume: which run should go on?"),
            say("用 --output 指定那次训练的输出目录", "give the --output folder of that run"),
            where=str(output or ""),
        )
    if value is None:
        flag = f"--backbone {name} " if name else ""
        raise UsageError(
            say("没有指定要微调的模型", "the model to fine-tune was not given"),
            say(
                f"medchat sft {flag}--model 权重目录 --data 数据文件 --output 输出目录",
                f"medchat sft {flag}--model FOLDER --data FILE --output DIR",
            ),
        )
    model = find_model(value, str(name) if name else None, registry)
    return backbone or recognize_backbone(registry, model), model


def _needed(settings: RunSettings, name: str, flag: str) -> Any:
    value = settings.value(name)
    if not value:
        raise UsageError(say(f"缺少 {name}", f"{name} was not given"), say(f"加上 {flag}", f"add {flag}"))
    return value


def _refuse_occupied(output: Path) -> None:
    """Raise before the data is read what the recipe would raise after it."""
    if output.is_file() or (output.is_dir() and any(entry.name != ".lock" for entry in output.iterdir())):
        raise UsageError(
            say(
                "输出位置已经有内容，不会覆盖它", "there is something at --output already; it was left alone"
            ),
            say(
                "换一个 --output；如果那是未完成的训练，加上 --resume 继续",
                "choose another --output; if an unfinished run is there, go on with --resume",
            ),
            where=str(output),
        )


def _own_options(program: Settings, backbone: GuardedBackbone) -> Given:
    """Return the backbone's own options in the program's configuration."""
    chosen = chosen_options(program, backbone.name, declared_options(backbone.load_keys))
    return {EXTRA + name: (one.value, one.place) for name, one in chosen.items()}


def _with_checked_options(settings: RunSettings, backbone: GuardedBackbone) -> RunSettings:
    """Return the settings with the backbone's own options converted. Raises UsageError."""
    declared, found = declared_options(backbone.load_keys), dict(settings.settings)
    for name, setting in settings.settings.items():
        if name.startswith(EXTRA):
            key = name.removeprefix(EXTRA)
            value = check_option(backbone.name, key, declared, setting.value, setting.origin)
            found[name] = replace(setting, value=value)
    for key, option in declared.items():
        if option.default is not None and EXTRA + key not in found:
            found[EXTRA + key] = Setting(EXTRA + key, option.default, say("内置", "built-in"))
    return RunSettings(found)


def _template(
    name: str | None,
    backbone: GuardedBackbone,
    options: SFTOptions,
    registry: Registry,
    extensions: Extensions,
) -> PromptTemplate | None:
    if not name:
        return None
    loading = LoadOptions(model=options.model, adapters=options.adapters, extra=dict(options.extra))
    return named_template(name, backbone, loading, registry, extensions)


def _own_template(
    backbone: GuardedBackbone,
    recipe: SFTRecipe,
    options: SFTOptions,
    registry: Registry,
    extensions: Extensions,
) -> str | None:
    """Return the name of the default template of a run, if `--template` with that name means the same."""
    own = recipe.template(options)
    if own is None:
        return None
    try:
        named = _template(own.name, backbone, options, registry, extensions)
    except MedchatError:
        # The weights' folder contains it as a file.
        return None
    return own.name if named is not None and same_template(own, named) else None


def _as_found(settings: RunSettings, backbone: str, options: SFTOptions, data: Sequence[Path]) -> RunSettings:
    """Return the settings with the resolved folders in place of what was typed, so that they can be reused."""
    found: dict[str, Any] = {
        "backbone": backbone,
        "model": str(options.model.absolute()),
        "output": str(options.output.absolute()) if settings.value("output") else None,
        "adapters": tuple(str(adapter.absolute()) for adapter in options.adapters),
        "data": tuple(str(path.absolute()) for path in data),
    }
    template = settings.value("template")
    if template and user_path(template).is_file():
        found["template"] = str(user_path(template).absolute())
    changed: dict[str, Setting] = {
        name: replace(settings.settings[name], value=value) for name, value in found.items()
    }
    if not changed["backbone"].chosen:
        changed["backbone"] = replace(
            changed["backbone"], origin=say("由权重识别", "recognised from the weights")
        )
    return RunSettings({**settings.settings, **changed})
