"""Checks what was requested against a backbone's declared capabilities, before anything is loaded."""

from __future__ import annotations

from medchat.api import ENGINES, Capabilities, LoadOptions
from medchat.errors import UsageError
from medchat.language import say
from medchat.settings import Layer, Settings, key_named

#: The origins of settings that were chosen for this run only.
_TYPED = (Layer.PROFILE, Layer.FLAG, Layer.COMMAND)


def require_capabilities(backbone: str, can: Capabilities, settings: Settings, options: LoadOptions) -> None:
    """Raise UsageError for a request that the backbone cannot fulfil. `options` are those to load with.

    Device, precision and quantisation in the configuration apply to every model: those that this one does not
    support are reported by `ineffective_settings`.
    """
    if options.adapters and not can.adapters:
        raise _cannot(backbone, "--adapter", str(options.adapters[0]), ())
    require_beams(backbone, can, int(settings.value("num_beams") or 1))
    for name, possible in _unfit(can, settings):
        if settings.origin(name).layer in _TYPED and settings.origin("model").layer is not Layer.COMMAND:
            raise _cannot(backbone, key_named(name).flag, str(settings.value(name)), possible)


def require_beams(backbone: str, can: Capabilities, beams: int) -> None:
    """Raise UsageError if the backbone does not support that many beams."""
    if beams > 1 and not can.beams:
        raise _cannot(backbone, "--num-beams", str(beams), ("1",))


def ineffective_settings(backbone: str, can: Capabilities, settings: Settings) -> list[str]:
    """Return a line for each setting of the configuration that has no effect on a model of this backbone."""
    return [
        say(
            f"！{name} = {settings.value(name)}（{settings.origin(name)}）对 {backbone} 不起作用",
            f"! {name} = {settings.value(name)} ({settings.origin(name)}) has no effect on {backbone}",
        )
        for name, _ in _unfit(can, settings)
    ]


def honoured(name: str, can: Capabilities, settings: Settings) -> str:
    """Return the value of `device`, `dtype`, `quantize` or `engine` to load with: unset if it is not supported."""
    open_value = "none" if name == "quantize" else "auto"
    if name in dict(_unfit(can, settings)):
        return open_value
    return str(settings.value(name) or open_value)


def _unfit(can: Capabilities, settings: Settings) -> list[tuple[str, tuple[str, ...]]]:
    """Return the settings that this family does not support, each with the supported values."""
    possible = {
        "device": ("auto", *can.devices),
        "dtype": ("auto", *can.dtypes),
        "quantize": ("none", *can.quantize),
        # Only torch computes weights that are not quantised, or not on a CPU.
        "engine": ENGINES if can.quantize and "cpu" in can.devices else ("auto",),
    }
    return [
        (name, values)
        for name, values in possible.items()
        if str(settings.value(name) or values[0]).partition(":")[0] not in values
    ]


def _cannot(backbone: str, flag: str, value: str, possible: tuple[str, ...]) -> UsageError:
    return UsageError(
        say(f"{backbone} 不支持 {flag} {value}", f"{backbone} does not take {flag} {value}"),
        say(f"去掉 {flag}", f"leave {flag} out")
        + (say("，或换成：", ", or make it: ") + " | ".join(possible) if len(possible) > 1 else ""),
    )
