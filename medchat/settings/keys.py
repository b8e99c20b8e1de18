"""The one table of settings: name, kind, default, what it means, and who may set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from medchat.api import DEVICES_HELP, DTYPES, ENGINES, GENERATION_RANGES, QUANTIZE, SPECULATE, Range
from medchat.api.option import option_flag
from medchat.builtin import BUILTIN_BACKBONES
from medchat.errors import UsageError
from medchat.language import LANGUAGES, say

#: `generation.` keys without a value leave the backbone's own default in force.
GENERATION = "generation."

#: Built-in backbones that a folder's own `medchat.toml` may choose: not other people's code, and
#: nothing that sends questions away.
_LOCAL_BACKBONES = tuple(builtin.name for builtin in BUILTIN_BACKBONES if builtin.name != "remote")

#: Colours of the chat's own lines. Their looks are in `medchat.repl`.
THEMES = ("default", "bright", "mono")


class Kind(Enum):
    """What a value is, with its names for the user."""

    TEXT = ("文字", "text")
    FLAG = (" true 或 false", "true or false")
    WHOLE = ("整数", "a whole number")
    NUMBER = ("数字", "a number")
    LIST = ("文字列表", "a list of texts")

    def described(self) -> str:
        """Return the name in the interface language."""
        return say(*self.value)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `default` None means unset.

    `project` says what `./medchat.toml` may choose: anything (True), nothing (False), or these values.
    `is_path` ones are a name or a path. Where the folder's file chooses an `announced` one, the user is told.
    """

    name: str
    kind: Kind
    default: Any
    zh: str
    en: str
    choices: tuple[str, ...] = ()
    allowed: Range | None = None
    pattern: str = ""
    project: bool | tuple[Any, ...] = True
    is_path: bool = False
    announced: bool = False

    @property
    def short(self) -> str:
        """The name without its table."""
        return self.name.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "MEDCHAT_" + self.short.upper()

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return option_flag(self.short)

    @property
    def summary(self) -> str:
        """What it means, in the interface language."""
        return say(self.zh, self.en)


def _generation(name: str, kind: Kind, zh: str, en: str, **how: Any) -> Key:
    return Key(GENERATION + name, kind, None, zh, en, allowed=GENERATION_RANGES.get(name), **how)


_TABLE = (
    Key("backbone", Kind.TEXT, None, "模型家族（插件名）", "model family (plugin)", project=_LOCAL_BACKBONES,
        announced=True),
    Key("model", Kind.TEXT, None, "权重目录或名称", "folder with the weights, or a name", is_path=True, announced=True),
    Key("adapter", Kind.LIST, (), "适配器目录", "adapter folders", is_path=True, announced=True),
    Key(
        "template", Kind.TEXT, None, "提示模板：名称或文件", "template: a name or a file",
        is_path=True, announced=True,
    ),
    Key("system", Kind.TEXT, None, "系统提示", "system prompt", announced=True),
    Key(
        "option", Kind.LIST, (), "模型家族自己的选项：键=值", "a backbone's own options: KEY=VALUE",
        announced=True,
    ),
    Key(
        "device", Kind.TEXT, "auto", f"计算设备：{DEVICES_HELP}", f"where to compute: {DEVICES_HELP}",
        pattern=r"auto|cpu|mps|cuda(:[0-9]+)?",
    ),
    Key("dtype", Kind.TEXT, "auto", "计算精度", "compute precision", choices=DTYPES),
    Key("quantize", Kind.TEXT, "none", "加载时量化", "quantise while loading", choices=QUANTIZE),
    Key(
        "engine", Kind.TEXT, "auto", "量化权重在 CPU 上用哪个引擎计算", "what computes quantised weights on a CPU",
        choices=ENGINES,
    ),
    Key(
        "quantized_cache", Kind.WHOLE, 32, "保存的量化权重最多占用的磁盘空间（GiB）；0：不保存",
        "disk space for kept quantised weights, in GiB; 0 keeps none", allowed=Range(0, 65536), project=False,
    ),
    Key("offline", Kind.FLAG, False, "不使用网络", "never use the network", project=(True,)),
    Key("style", Kind.TEXT, "rich", "显示样式", "how answers look", choices=("rich", "plain")),
    Key("theme", Kind.TEXT, "default", "配色", "colours", choices=THEMES),
    Key("footer", Kind.FLAG, True, "回答下方显示用量与速度", "figures under each answer"),
    Key("bell", Kind.FLAG, False, "较长的回答结束时响铃", "ring the bell when a long answer ends"),
    Key("lang", Kind.TEXT, None, "界面语言", "interface language", choices=LANGUAGES),
    Key("save", Kind.FLAG, True, "把会话保存到磁盘", "save sessions to disk", project=(False,), announced=True),
    Key(
        "history", Kind.TEXT, "all", "模型看到的对话历史；none：每个问题单独发送",
        "the history the model sees; none sends each question alone",
        choices=("all", "none"), announced=True,
    ),
    Key(
        "max_question_bytes", Kind.WHOLE, 1 << 20, "一个问题的最大字节数（UTF-8）",
        "longest question in bytes of UTF-8", allowed=Range(1, 1 << 30),
    ),
    Key(
        "plugins", Kind.LIST, None, "只启用这些插件（不设则全部启用）",
        "the only plugins to enable (all, if unset)", project=False,
    ),
    _generation("max_new_tokens", Kind.WHOLE, "回答的最大词元数", "longest answer in tokens"),
    _generation("temperature", Kind.NUMBER, "采样温度", "sampling temperature"),
    _generation("top_p", Kind.NUMBER, "核采样", "nucleus sampling"),
    _generation("top_k", Kind.WHOLE, "只在概率最高的 K 个词元中采样，0 为关", "from the K likeliest; 0: off"),
    _generation("num_beams", Kind.WHOLE, "束搜索宽度（beam），大于 1 时不采样", "beam width; above 1: no sampling"),
    _generation("repetition_penalty", Kind.NUMBER, "重复惩罚，1 为关", "repetition penalty, 1 is off"),
    _generation("seed", Kind.WHOLE, "随机种子", "random seed"),
    _generation(
        "greedy", Kind.FLAG, "贪心解码：每步取概率最高的词元", "greedy decoding: the likeliest token at each step"
    ),
    _generation(
        "speculate", Kind.TEXT, "引用前文的回答一次读入多个词元，回答不变",
        "several tokens at a time where an answer quotes; it stays the same", choices=SPECULATE,
    ),
)  # fmt: skip

#: Every setting by its full name, in the order they are shown.
KEYS: Mapping[str, Key] = {key.name: key for key in _TABLE}
_BY_SHORT_NAME: Mapping[str, Key] = {key.short: key for key in _TABLE}


def key_named(name: str, where: str = "") -> Key:
    """Return the key of that full or short name (`-` as good as `_`). Raises UsageError, which names `where`."""
    plain = name.strip().replace("-", "_")
    key = KEYS.get(plain) or _BY_SHORT_NAME.get(plain)
    if key is None:
        raise unknown(name, where)
    return key


def unknown(name: str, where: str = "") -> UsageError:
    """Return the error for a name that is no setting: what was meant, or why secrets do not belong here."""
    import difflib

    last = name.rpartition(".")[2]
    secret = _names_a_secret(name)
    # `max_new_token` is a slip of the pen and `model_key` a secret.
    near = difflib.get_close_matches(last, _BY_SHORT_NAME, n=1, cutoff=0.8 if secret else 0.65)
    if near:
        meant = _BY_SHORT_NAME[near[0]].name if where else near[0]
        hint = say(f"是不是想写：{meant}", f"did you mean {meant}?")
        if meant.startswith(GENERATION) and not name.startswith(GENERATION):
            hint += say("（写在 [generation] 一节里）", " (in the table [generation])")
    elif secret:
        return UsageError(
            say(
                f"“{name}”像是密钥，不能写在配置里",
                f"{name!r} looks like a secret; none belongs in configuration",
            ),
            say("请从文件中删去，改用环境变量传入", "delete it there and pass it in an environment variable"),
            where=where,
        )
    else:
        hint = say("所有配置项：medchat config show", "all settings: medchat config show")
    return UsageError(say(f"未知的配置项“{name}”", f"unknown setting {name!r}"), hint, where=where)


def _names_a_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    words = ("key", "token", "secret", "password", "passwd", "credential", "密钥", "密码", "口令")
    return any(plain.removesuffix("s").endswith(word) for word in words)
