"""Finds the model that is meant and its backbone: paths, names of published weights, files, foreign folders."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from medchat.api import ModelCard
from medchat.checkpoints.elsewhere import file_given
from medchat.checkpoints.layout import unrecognised
from medchat.errors import CheckpointError, MedchatError, PluginError, UsageError
from medchat.language import say
from medchat.registry import GuardedBackbone, PluginFailure, Registry, SharedModel
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.user_paths import user_path
from medchat.weights.catalogue import Catalogue
from medchat.weights.folders import locate_weights

#: The number of a folder's models that an error names.
_NAMED = 5
#: Web pages of weights, and the command of their own program that downloads a repository into a folder.
_HUBS = {
    **dict.fromkeys(("huggingface.co", "hf-mirror.com"), "hf download {} --local-dir"),
    **dict.fromkeys(("modelscope.cn", "www.modelscope.cn"), "modelscope download {} --local_dir"),
}


def open_registry(settings: Settings) -> Registry:
    """Return the registry, restricted to the allow-list in the settings if there is one."""
    allowed = settings.value("plugins")
    return Registry() if allowed is None else Registry(allowed=tuple(allowed))


def find_model(
    value: Any,
    backbone: str | None,
    registry: Registry | None = None,
    *,
    either: bool = False,
    flag: str = "--model",
) -> Path:
    """Return the model that `--model` names: a path, or a name under the models folder; an adapter too if `either`.

    It is a folder, or a file if the backbone (any, if none is named) takes files. `flag` is the flag that the
    user gave. Raises CheckpointError; for published weights that are missing it names the command that
    downloads them, for a folder of several model files each of them.
    """
    if not value:
        raise CheckpointError(
            say("没有指定模型", "no model was given"),
            say(
                "加上 --model 权重目录；没有权重时可先试：medchat demo",
                "add --model FOLDER; without weights try: medchat demo",
            ),
        )
    if "://" in str(value):
        raise _address_given(str(value))
    path = user_path(str(value))
    if path.is_file():
        file = _model_file(path, backbone, registry, flag)
        if file is None:
            raise file_given(path, flag)
        return file
    folder = locate_weights(str(value), "base", partial(known_weights, registry), either=either)
    return _model_file(folder, backbone, registry, flag) or folder


def _address_given(value: str) -> UsageError:
    """Return the error for a URL in place of a folder: of a file, a hub's page, or a service."""
    scheme, _, rest = value.partition("://")
    host, _, page = rest.rpartition("@")[2].partition("/")
    repository = "/".join(page.removeprefix("models/").split("/")[:2])
    if scheme.lower() == "file":
        remedy = f"--model {shlex.quote(unquote(rest.removeprefix('localhost')))}"
    elif host.lower() in _HUBS and "/" in repository:
        download = _HUBS[host.lower()].format(shlex.quote(repository))
        remedy = say(
            f"先下载：{download} 目录；再用 --model 目录", f"fetch it, then --model FOLDER: {download} FOLDER"
        )
    else:
        remedy = say(
            "远程模型须注明：--backbone remote", "a remote model must be asked for: --backbone remote"
        )
    return UsageError(
        say("--model 是网址，不是权重目录", "--model is an address, not a folder"),
        remedy,
        where=value.rpartition("@")[2],
    )


def _model_file(path: Path, backbone: str | None, registry: Registry | None, flag: str) -> Path | None:
    """Return the model file that `path` is or contains, None if no backbone takes one.

    Raises CheckpointError if the folder holds several.
    """
    if path.is_dir() and (path / "config.json").exists():
        return None  # every folder format has it: no plugin has to be imported
    registry = registry or open_registry(Settings.load())
    if backbone:
        offered = list(registry.backbone(backbone).models_in(path))
    else:
        asked = registry.call_each(lambda one: one.models_in(path))
        offered = [model for _, models in asked for model in models]
    found = dict.fromkeys(model for model in offered if model.is_file())
    if len(found) < 2:
        return next(iter(found), None)
    names = sorted(sanitize_line(model.name, 80) for model in found)
    more = "…" if len(names) > _NAMED else ""
    raise CheckpointError(
        say(
            f"这个目录里有 {len(found)} 个模型文件，要写明用哪个",
            f"this folder holds {len(found)} model files: name one",
        ),
        f"{flag} {shlex.quote(str(min(found)))}"
        + say("（有：", " (there are: ")
        + ", ".join(names[:_NAMED])
        + more
        + say("）", ")"),
        where=str(path),
    )


def find_adapter(value: str, registry: Registry | None = None) -> Path:
    """Return the folder that `--adapter` names: a path, or a name as in `find_model`."""
    return locate_weights(value, "adapter", partial(known_weights, registry))


def known_weights(registry: Registry | None = None) -> Catalogue:
    """Return the published weights of every backbone whose plugin loads and lists them."""
    registry = registry or open_registry(Settings.load())
    return Catalogue(
        [backbone for backbone, _ in registry.call_each(lambda backbone: backbone.known_weights)]
    )


def recognize_backbone(registry: Registry, model: Path, flag: str = "--model") -> GuardedBackbone:
    """Return the backbone that recognises the folder, asking each plugin; `Registry.lines` reports several.

    An error of one of them about the folder (a MedchatError) counts only if no other recognises it. Raises
    CheckpointError if no plugin recognises it, naming one that could not be loaded. `flag` is the flag that
    the user gave.
    """
    objections: list[MedchatError] = []

    def asked(backbone: GuardedBackbone) -> ModelCard | None:
        try:
            return backbone.inspect(model)
        except PluginError:
            raise
        except MedchatError as error:
            objections.append(error)
            return None

    knowing = [backbone for backbone, card in registry.call_each(asked) if card is not None]
    if not knowing:
        refusal = objections[0] if objections else unrecognised(model, flag) or _unrecognised(model, registry)
        raise _beside_failures(refusal, registry.failures)
    if len(knowing) > 1:
        registry.note(SharedModel(tuple(backbone.name for backbone in knowing)))
    return knowing[0]


def _unrecognised(model: Path, registry: Registry) -> CheckpointError:
    broken = {failure.entry for failure in registry.failures}
    names = [name for name in registry.names() if name not in broken]
    return CheckpointError(
        say("无法识别该目录中的模型", "no plugin recognises the model in this folder"),
        say(f"用 --backbone 指定：{'、'.join(names)}", f"name one with --backbone: {', '.join(names)}"),
        where=str(model),
    )


def _beside_failures(refusal: MedchatError, failures: tuple[PluginFailure, ...]) -> MedchatError:
    """Return the error with the name of a plugin that could not be loaded: the model may be that one's."""
    if failures:
        refusal.what += say("；", "; ") + str(failures[0])
        refusal.remedy = say(
            f"这个模型也许属于它，先看它错在哪里：medchat plugins list --check；若不是：{refusal.remedy}",
            f"the model may be that plugin's, see what is wrong with it: medchat plugins list --check; "
            f"if not: {refusal.remedy}",
        )
    return refusal
