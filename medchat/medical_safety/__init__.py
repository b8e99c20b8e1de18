"""What MedChat owes its users as a medical tool: what is always said, and red flags in the user's words.

`find_red_flags(text, previous=None)` is the detector: deterministic rules on the user's words, run before the
model. It returns a `RedFlags`, true where anything fired:

- `notices`: what to show, in order, each a `medchat.api.Notice` with `key` (stable), `text` (in full),
  `short` (one line in place of `text` where the same key was shown before in this conversation), `urgent`
  and `vital`. Self-harm and the police come first; never do two of them call 120.
- `evidence`: each rule that fired, with its mentions (span in the text, concept), scopes and source;
  `silenced`: what a scope kept from firing.

`review_answer(question, answer)` says what to add behind an answer where something fired.
`advise` is the same as the chat engine's adviser, `red_flag_notices` adds what plugins advise, and
`merge_notices` joins notices that are there already; `notice_texts()` are all the texts of ours.
The detector is imported when one of its names is first
used, and reads its lexicon at the first call: a start pays for neither. No plugin, flag or template removes
any of this.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medchat.medical_safety.statements import (
    AI_MARK_EN,
    AI_MARK_ZH,
    DISCLAIMER_KEY,
    HOTLINES,
    HOTLINES_CHECKED,
    HOTLINES_REGION,
    Hotline,
    ai_mark,
    aigc_metadata,
    disclaimer,
    hotlines,
    hotlines_region,
    start_line,
)

if TYPE_CHECKING:
    from medchat.medical_safety.answers import review_answer
    from medchat.medical_safety.lexicon_files import notice_texts
    from medchat.medical_safety.red_flags import (
        Evidence,
        Mention,
        RedFlags,
        advise,
        as_fields,
        find_red_flags,
        keys_shown,
        merge_notices,
        red_flag_notices,
        urgent_notices,
    )

__all__ = [
    "AI_MARK_EN",
    "AI_MARK_ZH",
    "DISCLAIMER_KEY",
    "HOTLINES",
    "HOTLINES_CHECKED",
    "HOTLINES_REGION",
    "Evidence",
    "Hotline",
    "Mention",
    "RedFlags",
    "advise",
    "ai_mark",
    "aigc_metadata",
    "as_fields",
    "disclaimer",
    "find_red_flags",
    "hotlines",
    "hotlines_region",
    "keys_shown",
    "merge_notices",
    "notice_texts",
    "red_flag_notices",
    "review_answer",
    "start_line",
    "urgent_notices",
]


def __getattr__(name: str) -> Any:
    """Return a name of the detector, importing its module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"review_answer": "answers", "notice_texts": "lexicon_files"}.get(name, "red_flags")
    return getattr(import_module(f"{__name__}.{module}"), name)
