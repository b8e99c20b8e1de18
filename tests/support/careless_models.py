"""Careless models: wrong answers and wrong results of other calls. (PYTEST_DONT_REWRITE: imported by name.)"""

from __future__ import annotations

from textwrap import indent

from careless_plugins import Careless


def _stream(*deltas: str) -> str:
    return f"def stream(self, segments, config, cancel): return said({', '.join(deltas)})"


def _priced(prices: str) -> str:
    return f"def describe(self): return {{**super().describe(), 'prices': {prices}}}"


def _half_then(line: str) -> str:
    return (
        "def stream(self, segments, config, cancel):\n"
        "    yield Delta('多', 1, 4)\n    yield Delta('喝', 2, 4)\n" + indent(line, "    ")
    )


_END = "Delta('', 3, 4, finish=Finish.STOP)"
_WHOLE = "Delta('多喝水', 3, 4)"
_SAID = "多喝"

CARELESS_ANSWERS = {
    "stream gives texts": Careless("stream", _stream("'多'", "'喝'"), says="Delta"),
    "stream gives None": Careless("stream", _stream("None"), says="Delta"),
    "stream returns nothing": Careless("stream", "def stream(self, segments, config, cancel): pass"),
    "stream returns a text": Careless("stream", "def stream(self, s, c, e): return '多喝水'", says="Delta"),
    "stream takes other arguments": Careless("stream", "def stream(self, prompt): return said()"),
    "stream gives no finish": Careless("stream", _stream(_WHOLE), kept="多喝水", says="finish"),
    "stream gives nothing at all": Careless("stream", _stream(), says="finish"),
    "stream finishes twice": Careless("stream", _stream(_WHOLE, _END, _END), kept="多喝水", says="finish"),
    "stream goes on after finish": Careless("stream", _stream(_END, _WHOLE), says="finish"),
    "stream gives finish as a text": Careless(
        "stream", _stream(_WHOLE, "Delta('', 3, 4, finish='stop')"), kept="多喝水", says="Finish"
    ),
    "stream ends with an error that it keeps to itself": Careless(
        "stream", _stream(_WHOLE, "Delta('', 3, 4, finish=Finish.ERROR)"), kept="多喝水", says="Finish.ERROR"
    ),
    "stream says that it was cancelled": Careless(
        "stream", _stream(_WHOLE, "Delta('', 3, 4, finish=Finish.CANCELLED)"), kept="多喝水", says="CANCELLED"
    ),
    "stream counts no tokens": Careless(
        "stream",
        _stream("Delta('多喝水')", "Delta('', finish=Finish.STOP)"),
        kept="多喝水",
        says="completion_tokens",
    ),
    "stream counts backwards": Careless(
        "stream", _stream("Delta('多', 3)", "Delta('喝', 2)", _END), kept="多", says="completion_tokens"
    ),
    "stream counts in texts": Careless("stream", _stream("Delta('多', '1')", _END), says="int"),
    "stream gives None as reasoning": Careless(
        "stream", _stream("Delta('多', 1, 4, reasoning=None)", _END), says="str"
    ),
    "stream gives the rejected settings as one text": Careless(
        "stream", _stream("Delta('多', 1, 4, rejected='top_p')", _END), says="tuple"
    ),
    "stream reuses more tokens than the prompt has": Careless(
        "stream",
        _stream("Delta('多', 1, 4)", "Delta('', 1, 4, 5, finish=Finish.STOP)"),
        kept="多",
        says="reused_tokens",
    ),
    "stream gives bytes": Careless("stream", _stream("Delta(b'duo', 1)", _END), says="str"),
    "stream gives half a character": Careless("stream", _stream(r"Delta('多\ud83d', 1)", _END)),
    "stream gives the whole text again": Careless(
        "stream",
        _stream(
            *(f"Delta('{'多喝水吧'[:n]}', {n})" for n in range(1, 5)), "Delta('', 4, finish=Finish.STOP)"
        ),
        kept="多多喝多喝水",
    ),
    "stream gives the whole text again at the end": Careless(
        "stream",
        _stream("Delta('多喝', 2)", "Delta('温水', 4)", "Delta('多喝温水', 4, finish=Finish.STOP)"),
        kept="多喝温水",
    ),
    "stream fails half-way": Careless(
        "stream", _half_then("raise RuntimeError('gone')"), kept=_SAID, says="gone"
    ),
    "stream leaves the program": Careless("stream", _half_then("sys.exit(0)"), kept=_SAID, says="SystemExit"),
    "stream raises Ctrl-C itself": Careless(
        "stream", _half_then("raise KeyboardInterrupt"), kept=_SAID, says="KeyboardInterrupt"
    ),
    "stream raises GeneratorExit": Careless(
        "stream", _half_then("raise GeneratorExit"), kept=_SAID, says="GeneratorExit"
    ),
    "stream raises what cannot be shown": Careless(
        "stream",
        _half_then("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})"),
        kept=_SAID,
        says="Odd",
    ),
    "stream raises what leaves the program when it is shown": Careless(
        "stream",
        _half_then("raise type('Odd', (Exception,), {'__str__': lambda self: sys.exit(0)})"),
        kept=_SAID,
        says="Odd",
    ),
    "stream raises an exception that no handler knows": Careless(
        "stream", _half_then("raise type('Odd', (BaseException,), {})"), kept=_SAID, says="Odd"
    ),
    "stream recurses without end": Careless(
        "stream", _half_then("self.describe = lambda: self.describe()\nself.describe()"), kept=_SAID
    ),
    "stream raises our error with exit code 0": Careless(
        "stream", _half_then("raise type('Mine', (MedchatError,), {'exit_code': 0})('fine')"), kept=_SAID
    ),
    "stream raises our error with no text": Careless(
        "stream", _half_then("raise CheckpointError(Path('x'))"), kept=_SAID
    ),
    "stream raises our error without its fields": Careless(
        "stream",
        _half_then("raise type('Mine', (MedchatError,), {'__init__': lambda self: None})"),
        kept=_SAID,
    ),
    "stream says on purpose that the file is damaged": Careless(
        "", _half_then("raise CheckpointError('half a file')"), kept=_SAID, code=3, says="half a file"
    ),
    "stream says on purpose that the question is too long": Careless(
        "", "def stream(self, *a): raise UsageError('too long')", code=2, says="too long"
    ),
    "stream runs out of memory": Careless("", _half_then("raise MemoryError"), kept=_SAID, code=4),
}
CARELESS_MODELS = {
    "stream fails in a chat": Careless(
        "stream", _half_then("raise RuntimeError('gone')"), verb="chat", typed="头痛\n", kept=_SAID
    ),
    "stream gives the wrong type in a chat": Careless(
        "stream", _stream("'多'"), verb="chat", typed="头痛\n", says="Delta"
    ),
    "go_on says the answer from its beginning": Careless(
        "go_on",
        "def go_on(self, s, answer, c, e): return said(Delta(answer + '休息', 6, 4, finish=Finish.STOP))\n"
        + _stream("Delta('多喝温水', 4, 4, finish=Finish.LENGTH)"),
        verb="chat",
        typed="头痛\n/continue\n",
        says="从头重复",
        kept="多喝温水多喝温水休息",
    ),
    "prompt_ids are texts": Careless(
        "prompt_ids",
        "def prompt_ids(self, segments): return ['多']",
        verb="chat",
        typed="头痛\n/raw\n",
        says="int",
    ),
    "context_length is missing": Careless(
        "context_length", "@property\ndef context_length(self): return self._n"
    ),
    "context_length is None": Careless("context_length", "context_length = None", says="int"),
    "context_length is a text": Careless("context_length", "context_length = '4096'", says="int"),
    "context_length is 0": Careless("context_length", "context_length = 0"),
    "count returns None": Careless("count", "def count(self, segments): pass", says="int"),
    "count returns the ids": Careless("count", "def count(self, segments): return [1, 2]", says="int"),
    "count returns 0": Careless("count", "def count(self, segments): return 0"),
    "count is negative": Careless("count", "def count(self, segments): return -1"),
    "count fails": Careless(
        "count", "def count(self, segments): return segments.text", says="AttributeError"
    ),
    "describe returns None": Careless("describe", "def describe(self): pass", says="Mapping"),
    "describe returns a text": Careless("describe", "def describe(self): return 'mine'", says="Mapping"),
    "describe lacks dtype": Careless(
        "describe", "def describe(self): return {'backbone': '', 'model': '', 'device': ''}", says="dtype"
    ),
    "describe gives one note as a text": Careless(
        "describe", "def describe(self): return {**super().describe(), 'notes': 'careful'}"
    ),
    "describe states prices as texts": Careless(
        "describe: prices", _priced("{'prompt': '1', 'completion': '2', 'currency': 'USD'}"), says="float"
    ),
    "describe states a price below zero": Careless(
        "describe: prices", _priced("{'prompt': -1, 'completion': 2, 'currency': 'USD'}")
    ),
    "close fails": Careless("close", "def close(self): raise RuntimeError('gone')", kept="多喝水"),
    "generate_batch returns None": Careless(
        "generate_batch", "def generate_batch(self, p, c): pass", verb="infer"
    ),
    "generate_batch returns texts": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): return ['多喝水'] * len(p)",
        verb="infer",
        says="Completion",
    ),
    "generate_batch returns one too few": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): return super().generate_batch(p[1:], c)",
        verb="infer",
    ),
    "generate_batch gives finish as a text": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): return [replace(one, finish='stop') for one in super().generate_batch(p, c)]",
        verb="infer",
        says="Finish",
    ),
    "generate_batch counts no tokens": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): return [Completion('多', Finish.STOP, 4, 0)] * len(p)",
        verb="infer",
    ),
    "generate_batch gives no text": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): return [replace(one, text=None) for one in super().generate_batch(p, c)]",
        verb="infer",
        says="str",
    ),
    "generate_batch leaves the program": Careless(
        "generate_batch", "def generate_batch(self, p, c): sys.exit(0)", verb="infer"
    ),
}
