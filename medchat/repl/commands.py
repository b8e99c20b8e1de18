"""The table of the built-in slash commands, gathered from the modules that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.repl.comparing import COMPARE_COMMANDS
from medchat.repl.context_commands import CONTEXT_COMMANDS
from medchat.repl.file_commands import FILE_COMMANDS
from medchat.repl.medical_commands import MEDICAL_COMMANDS
from medchat.repl.model_commands import MODEL_COMMANDS
from medchat.repl.preset_commands import PRESET_COMMANDS
from medchat.repl.prompt_commands import PROMPT_COMMANDS
from medchat.repl.saved_commands import SAVED_COMMANDS
from medchat.repl.session_commands import SESSION_COMMANDS
from medchat.repl.slash import ReplCommand
from medchat.repl.system_commands import SYSTEM_COMMANDS
from medchat.repl.turn_commands import TURN_COMMANDS

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

COMMANDS: tuple[ReplCommand[Chat], ...] = (
    *TURN_COMMANDS,
    *SESSION_COMMANDS,
    *SAVED_COMMANDS,
    *COMPARE_COMMANDS,
    *FILE_COMMANDS,
    *PRESET_COMMANDS,
    *MODEL_COMMANDS,
    *CONTEXT_COMMANDS,
    *PROMPT_COMMANDS,
    *MEDICAL_COMMANDS,
    *SYSTEM_COMMANDS,
)
