"""The compiled library: where it is, whether it can be used here, and which instructions it shall use."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medchat.errors import MedchatError, UsageError
from medchat.language import say

#: Instruction sets by the names that users give them, the slowest first; their numbers are the library's.
INSTRUCTION_SETS = ("scalar", "avx2", "avx512", "amx")
#: Names one of them, for tests and for finding faults: it is used in place of the fastest.
VARIABLE = "MEDCHAT_ENGINE_INSTRUCTIONS"
#: As in `medchat_interface_version` of native/interface.cpp.
_INTERFACE = 7
#: Beside this module: the library is never looked for anywhere else.
LIBRARY_FILE = Path(__file__).with_name("_native.so")


class EngineUnavailableError(MedchatError):
    """The native engine cannot be used here: not compiled, or compiled from another version."""


@dataclass(frozen=True, slots=True)
class NativeLibrary:
    """The functions of the library and the instruction sets that this CPU has, the slowest first."""

    functions: ctypes.CDLL
    usable: tuple[str, ...]

    @property
    def fastest(self) -> str:
        """The last of the usable instruction sets."""
        return self.usable[-1]


def open_library(file: Path = LIBRARY_FILE) -> NativeLibrary:
    """Load the library, once. Raises EngineUnavailableError where it is missing, unreadable or of another version."""
    return _opened(file)


@cache
def _opened(file: Path) -> NativeLibrary:
    if not file.is_file():
        raise _unavailable(say("没有编译", "it was not compiled"), file)
    try:
        functions = ctypes.CDLL(str(file))
        version = functions.medchat_interface_version()
    except (OSError, AttributeError) as error:
        raise _unavailable(" ".join(str(error).split())[:200], file) from error
    if version != _INTERFACE:
        raise _unavailable(say("由另一版本编译", "it was compiled from another version"), file)
    _declare(functions)
    usable = tuple(name for number, name in enumerate(INSTRUCTION_SETS) if functions.medchat_can_run(number))
    return NativeLibrary(functions, usable)


def chosen_instructions(library: NativeLibrary) -> str:
    """Return the instruction set to use: the fastest, or the one that the environment variable names.

    Raises UsageError if that is unknown, or not one of this CPU's.
    """
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return library.fastest
    if wanted not in library.usable:
        known = wanted in INSTRUCTION_SETS
        raise UsageError(
            say(f"这个 CPU 没有 {wanted} 指令", f"this CPU lacks the instructions {wanted}")
            if known
            else say(f"{VARIABLE} 的值“{wanted[:40]}”无效", f"{VARIABLE}={wanted[:40]!r} is not valid"),
            say(f"可用的值：{'|'.join(library.usable)}", f"valid values: {'|'.join(library.usable)}"),
        )
    return wanted


def _unavailable(reason: str, file: Path) -> EngineUnavailableError:
    return EngineUnavailableError(
        say(f"原生计算引擎不可用：{reason}", f"the native engine cannot be used: {reason}"),
        say(
            "安装 C++ 编译器（如 g++），再重新安装：pip install -e .；没有它时由 torch 计算（较慢）",
            "install a C++ compiler (such as g++), then install again: pip install -e .; without it torch computes "
            "(slower)",
        ),
        where=str(file),
    )


def _declare(functions: ctypes.CDLL) -> None:
    number, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    functions.medchat_can_run.argtypes = [number]
    functions.medchat_pack.argtypes = [number, size, size, pointer, pointer, pointer]
    functions.medchat_pack.restype = None
    functions.medchat_unpack.argtypes = functions.medchat_pack.argtypes
    functions.medchat_unpack.restype = None
    functions.medchat_multiply.argtypes = [
        *(number, size, number, number, size, size),
        *(pointer, pointer, size, pointer, pointer),
    ]
    functions.medchat_decoder_create.argtypes = [pointer]
    functions.medchat_decoder_create.restype = pointer
    functions.medchat_decoder_destroy.argtypes = [pointer]
    functions.medchat_decoder_destroy.restype = None
    functions.medchat_decoder_set_linear.argtypes = [
        *(pointer, number, number, number),
        *(size, size, pointer, pointer),
    ]
    functions.medchat_decoder_set_linear.restype = None
    functions.medchat_decoder_set_low_rank.argtypes = [pointer, number, number, size, pointer, pointer]
    functions.medchat_decoder_set_low_rank.restype = None
    functions.medchat_decoder_set_norm.argtypes = [pointer, number, number, pointer, pointer]
    functions.medchat_decoder_set_norm.restype = None
    functions.medchat_decoder_set_slopes.argtypes = [pointer, pointer]
    functions.medchat_decoder_step.argtypes = [pointer, pointer]
    functions.medchat_cache_create.argtypes = [pointer]
    functions.medchat_cache_create.restype = pointer
    functions.medchat_cache_copy.argtypes = [pointer]
    functions.medchat_cache_copy.restype = pointer
    functions.medchat_cache_destroy.argtypes = [pointer]
    functions.medchat_cache_destroy.restype = None
    functions.medchat_cache_reserve.argtypes = [pointer, size]
    functions.medchat_cache_store.argtypes = [pointer, pointer, size, size, pointer, pointer]
    functions.medchat_draw.argtypes = [
        *(number, pointer, size, ctypes.c_float, ctypes.c_double, size),
        *(pointer, pointer, pointer),
    ]
