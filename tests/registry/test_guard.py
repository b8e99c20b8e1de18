"""Behind the guard, whatever a plugin's backbone does against its contract is a failure of that plugin."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_backbone import ScriptedModel

from medchat.api import Backbone, KnownWeights, LoadOptions, ModelCard
from medchat.errors import CheckpointError, Interruption, MedchatError, MemoryShortageError, PluginError
from medchat.registry import GuardedBackbone
from medchat.registry.metadata import BACKBONES, PluginEntry

ENTRY = PluginEntry(BACKBONES, "rude", "rude_module", "rude-distribution", "1.0")
OPTIONS = LoadOptions(Path())
#: Every question that can be put to a backbone before and after loading.
QUESTIONS: dict[str, Callable[[Backbone], object]] = {
    "summary": lambda backbone: backbone.summary,
    "known_weights": lambda backbone: backbone.known_weights,
    "generation": lambda backbone: backbone.generation,
    "load_keys": lambda backbone: backbone.load_keys,
    "capabilities": lambda backbone: backbone.capabilities,
    "file_suffix": lambda backbone: backbone.file_suffix,
    "not_applicable": lambda backbone: backbone.not_applicable,
    "recipes": lambda backbone: backbone.recipes,
    "check": lambda backbone: backbone.check(OPTIONS),
    "template": lambda backbone: backbone.template(OPTIONS),
    "trained_templates": lambda backbone: backbone.trained_templates(OPTIONS),
    "special_tokens": lambda backbone: backbone.special_tokens(OPTIONS),
    "exchange_adapters": lambda backbone: backbone.exchange_adapters(ScriptedModel(Path()), OPTIONS),
    "save_merged": lambda backbone: backbone.save_merged(OPTIONS, Path(), "float16"),
    "save_quantized": lambda backbone: backbone.save_quantized(OPTIONS, Path()),
    "inspect": lambda backbone: backbone.inspect(Path()),
    "inspect_adapter": lambda backbone: backbone.inspect_adapter(Path()),
    "tiny": lambda backbone: backbone.tiny(Path()),
    "models_in": lambda backbone: backbone.models_in(Path()),
    "address": lambda backbone: backbone.address(""),
    "notices": lambda backbone: backbone.notices(OPTIONS),
}


class Failing:
    """Not even a Backbone: raises `error` whatever it is asked, but for its name."""

    name = "rude"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def guarded(inner: object) -> GuardedBackbone:
    return GuardedBackbone(inner, ENTRY)  # type: ignore[arg-type]


def test_every_member_of_a_backbone_is_guarded() -> None:
    stated = {*dir(Backbone), *Backbone.__annotations__} - {"load", "name"}
    members = {name for name in stated if not name.startswith("_")}
    assert members == set(QUESTIONS)
    assert members | {"load", "guard", "name", "given", "module"} == {
        name for name in dir(guarded(Failing(ValueError()))) if not name.startswith("_")
    }


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("error", [ValueError("rude"), SystemExit(3), RecursionError("deep")])
def test_whatever_is_raised_is_the_plugins_failure(question: str, error: BaseException) -> None:
    with pytest.raises(PluginError) as caught:
        QUESTIONS[question](guarded(Failing(error)))
    assert "rude-distribution" in caught.value.what and caught.value.exit_code == 5


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("error", [CheckpointError("broken", ""), KeyboardInterrupt(), Interruption("stop")])
def test_what_is_raised_on_purpose_passes_unchanged(question: str, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        QUESTIONS[question](guarded(Failing(error)))
    assert caught.value is error


class Loading(Failing):
    """Raises only when the model is loaded."""

    def load(self, options: LoadOptions) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such option"),
        KeyError("hidden_size"),
        ImportError("no module named engine"),
        AssertionError(),
        RecursionError("deep"),
        SystemExit(0),
        type("PluginsOwnError", (BaseException,), {})("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_loading_raises_is_the_plugins_failure_and_says_where(error: BaseException) -> None:
    with pytest.raises(PluginError) as caught:
        guarded(Loading(error)).load(OPTIONS)
    for part in ("rude-distribution", f"load: {type(error).__name__}", str(error)):
        assert part in caught.value.what
    assert caught.value.exit_code == 5 and "rude-distribution" in caught.value.remedy
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("broken", ""),
        MemoryShortageError("small", ""),
        PermissionError(13, "Permission denied", "model.safetensors"),
        KeyboardInterrupt(),
        Interruption("stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_loading_passes_what_is_no_fault_of_the_plugin(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        guarded(Loading(error)).load(OPTIONS)
    assert caught.value is error


@pytest.mark.parametrize("question", ["save_merged", "save_quantized", "exchange_adapters"])
def test_a_disk_that_a_library_in_rust_finds_full_is_no_fault_of_the_plugin(question: str) -> None:
    error = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OSError, match="No space") as caught:
        QUESTIONS[question](guarded(Failing(error)))
    assert caught.value.errno == errno.ENOSPC and caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("member", "wrong", "right"),
    [
        ("known_weights", (object(),), KnownWeights),
        ("inspect", object(), ModelCard),
        ("inspect_adapter", {"fault": "none"}, "AdapterCard"),
    ],
)
def test_a_result_of_another_kind_is_named(member: str, wrong: object, right: object) -> None:
    class Answering(Failing):
        known_weights = wrong

        def inspect(self, path: Path) -> object:
            return wrong

        def inspect_adapter(self, path: Path) -> object:
            return wrong

    with pytest.raises(PluginError) as caught:
        QUESTIONS[member](guarded(Answering(ValueError())))
    assert f"{member}: " in caught.value.what and getattr(right, "__name__", right) in caught.value.what


def test_other_objects_of_the_plugin_are_asked_under_the_same_guard() -> None:
    backbone = guarded(Failing(ValueError()))
    with pytest.raises(PluginError, match="rude-distribution"), backbone.guard():
        raise ZeroDivisionError
    with pytest.raises(MedchatError, match="on purpose"), backbone.guard():
        raise MedchatError("on purpose")
