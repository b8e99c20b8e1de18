"""Checks errors in both languages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medchat.errors import CheckpointError, MedchatError
from medchat.language import LANGUAGES, set_language


def refused(
    action: Callable[[], object], kind: type[MedchatError] = CheckpointError, code: int = 3
) -> MedchatError:
    """Run a call that must raise a two-line error in both languages; return the English one."""
    errors = []
    for language in LANGUAGES:
        set_language(language)
        try:
            with pytest.raises(kind) as info:
                action()
        finally:
            set_language("zh")
        error = info.value
        assert error.exit_code == code and error.what and error.remedy
        assert "\n" not in error.what + error.remedy + error.where
        errors.append(error)
    assert errors[0].what != errors[1].what
    return errors[1]
