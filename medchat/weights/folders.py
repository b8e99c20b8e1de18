"""Where weights lie on this machine, and what a name given in place of a path means.

Pulled weights are in `places.models_dir()/NAME`. While they are on their way the folder holds one named
`.medchat-pull`; a folder with that in it is not whole.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from medchat import paths
from medchat.api import KnownWeights
from medchat.checkpoints.elsewhere import ADAPTER_CONFIG, file_given
from medchat.checkpoints.json_object import read_json_object
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.user_paths import user_path
from medchat.weights.catalogue import Catalogue

#: In a folder whose download is not finished; holds what has come of each file.
UNFINISHED = ".medchat-pull"


class State(StrEnum):
    """Whether weights are on this machine."""

    HERE = "here"
    UNFINISHED = "unfinished"
    ABSENT = "absent"


def folder_of(name: str) -> Path:
    """Return the folder where the weights of that name lie, or would."""
    return paths.models_dir() / name


def state_of(folder: Path) -> State:
    """Say whether `folder` holds weights. Looks at names only; `verifying` looks at bytes."""
    if (folder / UNFINISHED).exists():
        return State.UNFINISHED
    return State.HERE if folder.is_dir() and any(folder.iterdir()) else State.ABSENT


def weights_here(kind: Literal["base", "adapter"]) -> tuple[str, ...]:
    """Return the names under which whole weights of that kind lie in the models folder."""
    try:
        folders = sorted(paths.models_dir().iterdir())
    except OSError:  # nothing was pulled yet
        return ()
    return tuple(
        folder.name
        for folder in folders
        if folder.is_dir() and state_of(folder) is State.HERE and is_adapter(folder) is (kind == "adapter")
    )


def locate_weights(
    value: str, kind: Literal["base", "adapter"], catalogue: Callable[[], Catalogue], *, either: bool = False
) -> Path:
    """Return the folder that `--model` or `--adapter` names: a path, or a name under the models folder.

    A folder that holds an adapter is no base, unless `either` will do. The catalogue is only asked for where
    there is no such folder, or not of that kind. Raises CheckpointError that says what to
    type: the `pull` of known weights, the name that may have been meant, or the right flag for the kind.
    """
    path = user_path(value)
    if path.is_file():
        raise file_given(path, "--model" if kind == "base" else "--adapter")
    if path.is_dir():
        folder, name = path, str(path)
    else:
        entry = None if _is_name(value) and folder_of(value).is_dir() else catalogue().find(value)
        name = entry.known.name if entry else value
        folder = folder_of(name)
        if not (_is_name(name) and folder.is_dir()):
            raise _not_here(value, kind, catalogue())
    if state_of(folder) is State.UNFINISHED:
        raise CheckpointError(
            say("这些权重还没有下载完", "the download of these weights is not finished"),
            f"medchat models pull {folder.name}"
            + ("" if folder == folder_of(folder.name) else f" --dir {folder}"),
            where=str(folder),
        )
    if kind == "base" and not either and is_adapter(folder):
        raise _adapter_as_model(folder, catalogue())
    return folder


def is_adapter(folder: Path) -> bool:
    """Say whether the folder holds an adapter as peft writes one, and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").exists()


def _adapter_as_model(folder: Path, catalogue: Catalogue) -> CheckpointError:
    """Return the error for an adapter's folder given as `--model`: what it is, and the flags that load it."""
    try:
        config = read_json_object(folder / ADAPTER_CONFIG)
    except CheckpointError:
        config = {}
    entry = catalogue.find(folder.resolve().name)
    stated = config.get("base_model_name_or_path")
    base = entry.known.fits[0] if entry and entry.known.fits else _known_base(stated, catalogue)
    place = shlex.quote(str(folder))
    what = say(
        f"这是适配器（{_kind_of(config)}），不是完整的模型",
        f"this is an adapter ({_kind_of(config)}), not a whole model",
    )
    if not base and isinstance(stated, str) and stated:
        # Anybody can write anything there: it is quoted, and not put into what to type.
        quoted = sanitize_line(stated, 80)
        what += say(
            f"；文件中注明的底座：{quoted}（未经核实）", f"; the base it states (not trusted): {quoted}"
        )
    base = base or say("底座", "BASE")
    return CheckpointError(
        what,
        say(f"请改用：--model {base} --adapter {place}", f"use: --model {base} --adapter {place}"),
        where=str(folder),
    )


def _kind_of(config: Mapping[str, Any]) -> str:
    kind = config.get("peft_type")
    return (
        sanitize_line(kind, 40) if isinstance(kind, str) and kind else say("种类未注明", "of unstated kind")
    )


def _known_base(stated: object, catalogue: Catalogue) -> str:
    """Return the name of the published base that an adapter's file states, "" where it states none of them."""
    if not isinstance(stated, str):
        return ""
    entry = catalogue.find(stated) or catalogue.find(stated.rstrip("/").rpartition("/")[2])
    return entry.known.name if entry and entry.known.kind == "base" else ""


def _is_name(value: str) -> bool:
    """Whether `value` can be the name of a folder under the models folder, and nothing outside it."""
    return value not in ("", ".", "..") and "/" not in value and "\0" not in value


def _not_here(value: str, kind: Literal["base", "adapter"], catalogue: Catalogue) -> CheckpointError:
    what = say("找不到模型", "no such model") if kind == "base" else say("找不到适配器", "no such adapter")
    entry = catalogue.find(value)
    if entry is None:
        return CheckpointError(what, _remedy_for_unknown(value, kind, catalogue), where=value)
    known = entry.known
    if known.kind != kind:
        return _wrong_kind(known)
    return CheckpointError(
        say(f"{known.name} 还不在本机", f"{known.name} is not on this machine yet"),
        f"medchat models pull {known.name}",
        where=str(folder_of(known.name)),
    )


def _wrong_kind(known: KnownWeights) -> CheckpointError:
    if known.kind == "adapter":
        base = known.fits[0] if known.fits else say("底座", "BASE")
        return CheckpointError(
            say(
                f"{known.name} 是适配器，不是完整的模型",
                f"{known.name} is an adapter, not a whole model",
            ),
            f"--model {base} --adapter {known.name}",
        )
    return CheckpointError(
        say(
            f"{known.name} 是完整的模型，不是适配器",
            f"{known.name} is a whole model, not an adapter",
        ),
        f"--model {known.name}",
    )


def _remedy_for_unknown(value: str, kind: Literal["base", "adapter"], catalogue: Catalogue) -> str:
    near = catalogue.near(value)
    if near:
        names = ", ".join(near)
        return say(
            f"是不是想用：{names}（medchat models list）", f"did you mean: {names} (medchat models list)"
        )
    if kind == "adapter":
        return say(
            "检查 --adapter 的路径，或查看全部：medchat models list",
            "check the path given to --adapter, or to see them all: medchat models list",
        )
    place = paths.models_dir()
    return say(
        f"检查路径，或把权重放到 {place} 下（已知的权重：medchat models list）；没有权重可用：medchat demo",
        f"check the path, or put the weights under {place} (see: medchat models list); without weights: medchat demo",
    )
