"""All that a plugin may rely on, whether it is a backbone, an extension or a command.

Nothing else of MedChat is public but `medchat.hf` (chat models of transformers) and `medchat.testing`: it may
change with any version. What stands here changes as docs/plugins/versions.md says; each name is explained in
docs/plugins/reference.md. Importing this imports neither torch nor click: what only some plugins need is imported
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medchat.api import (
    AdapterCard,
    Backbone,
    BatchScoringModel,
    BatchStreamingModel,
    Capabilities,
    ChatModel,
    Completion,
    ContinuingModel,
    Control,
    Conversation,
    Delta,
    DiskEstimate,
    Finish,
    GenerationConfig,
    KnownWeights,
    LoadOptions,
    MemoryEstimate,
    ModelCard,
    Notice,
    Option,
    PreviewPiece,
    PromptTemplate,
    Segment,
    SFTData,
    SFTEvaluation,
    SFTNote,
    SFTOptions,
    SFTProgress,
    SFTRecipe,
    SFTReport,
    SFTSample,
    SFTSaved,
    SFTStatus,
    SFTSurvey,
    SFTWatcher,
    SlashCommand,
    SpecialTokens,
    Text,
    Turn,
)
from medchat.errors import (
    CheckpointError,
    DataError,
    GateError,
    MedchatError,
    MemoryShortageError,
    UsageError,
)
from medchat.extras import require_extra
from medchat.hookspecs import AnswerScores, Finding, ReferencedAnswer, hookimpl
from medchat.language import in_language, say
from medchat.regular_files import read_json, read_regular
from medchat.sanitize import StreamSanitizer, sanitize, sanitize_line
from medchat.templates import load_template
from medchat.units import guess_tokens

if TYPE_CHECKING:
    from medchat.asking import OpenedModel, ResolvedModel, open_model, resolve_model
    from medchat.batch.command_results import Results, open_results
    from medchat.batch.questions import Question, read_questions
    from medchat.batch.rows import as_line
    from medchat.calls.limits import CallLimits, call_flags
    from medchat.calls.stored import StoredAnswer, StoredCalls, open_calls
    from medchat.chat.events import (
        Advice,
        AnswerFinished,
        AnswerPiece,
        AnswerRestarted,
        AnswerReviewed,
        HistoryDropped,
        ReasoningPiece,
    )
    from medchat.chat.saved_conversations import SavedConversations
    from medchat.checkpoints.gguf_header import GGUFHeader, read_gguf_header
    from medchat.checkpoints.stated_template import with_template
    from medchat.cli.group import Group, LocalizedCommand
    from medchat.cli.options import field_flags, generation_flags, model_flags
    from medchat.cli.output import write_out
    from medchat.datafiles.data_file import open_data_file
    from medchat.datafiles.fields import FieldChoice, RecordError
    from medchat.datafiles.record import QuestionRecord, parse_record
    from medchat.disk import free_space, output_error
    from medchat.document import Document, Paragraph, Picture, Quotation, Section, Table, as_html, as_markdown
    from medchat.hashing import sha256_of
    from medchat.inference.library_model import LibraryModel
    from medchat.medical_safety import aigc_metadata, disclaimer, notice_texts, urgent_notices
    from medchat.redaction import find_personal, redact
    from medchat.settings.plugin_options import plugin_settings
    from medchat.sft_job.data import read_training_data
    from medchat.templates.jinja_template import parse_jinja
    from medchat.user_paths import user_path
    from medchat.whole_file import check_output_file, staged_output, write_whole_file

__all__ = [
    "AdapterCard",
    "Advice",
    "AnswerFinished",
    "AnswerPiece",
    "AnswerRestarted",
    "AnswerReviewed",
    "AnswerScores",
    "Backbone",
    "BatchScoringModel",
    "BatchStreamingModel",
    "CallLimits",
    "Capabilities",
    "ChatModel",
    "CheckpointError",
    "Completion",
    "ContinuingModel",
    "Control",
    "Conversation",
    "DataError",
    "Delta",
    "DiskEstimate",
    "Document",
    "FieldChoice",
    "Finding",
    "Finish",
    "GGUFHeader",
    "GateError",
    "GenerationConfig",
    "Group",
    "HistoryDropped",
    "KnownWeights",
    "LibraryModel",
    "LoadOptions",
    "LocalizedCommand",
    "MedchatError",
    "MemoryEstimate",
    "MemoryShortageError",
    "ModelCard",
    "Notice",
    "OpenedModel",
    "Option",
    "Paragraph",
    "Picture",
    "PreviewPiece",
    "PromptTemplate",
    "Question",
    "QuestionRecord",
    "Quotation",
    "ReasoningPiece",
    "RecordError",
    "ReferencedAnswer",
    "ResolvedModel",
    "Results",
    "SFTData",
    "SFTEvaluation",
    "SFTNote",
    "SFTOptions",
    "SFTProgress",
    "SFTRecipe",
    "SFTReport",
    "SFTSample",
    "SFTSaved",
    "SFTStatus",
    "SFTSurvey",
    "SFTWatcher",
    "SavedConversations",
    "Section",
    "Segment",
    "SlashCommand",
    "SpecialTokens",
    "StoredAnswer",
    "StoredCalls",
    "StreamSanitizer",
    "Table",
    "Text",
    "Turn",
    "UsageError",
    "aigc_metadata",
    "as_html",
    "as_line",
    "as_markdown",
    "call_flags",
    "check_output_file",
    "disclaimer",
    "field_flags",
    "find_personal",
    "free_space",
    "generation_flags",
    "guess_tokens",
    "hookimpl",
    "in_language",
    "load_template",
    "model_flags",
    "notice_texts",
    "open_calls",
    "open_data_file",
    "open_model",
    "open_results",
    "output_error",
    "parse_jinja",
    "parse_record",
    "plugin_settings",
    "read_gguf_header",
    "read_json",
    "read_questions",
    "read_regular",
    "read_training_data",
    "redact",
    "require_extra",
    "resolve_model",
    "sanitize",
    "sanitize_line",
    "say",
    "sha256_of",
    "staged_output",
    "urgent_notices",
    "user_path",
    "with_template",
    "write_out",
    "write_whole_file",
]

_EVENTS = (
    *("Advice", "HistoryDropped", "ReasoningPiece"),
    *("AnswerPiece", "AnswerRestarted", "AnswerReviewed", "AnswerFinished"),
)
#: What only a command needs, or a model that a library computes, and where it is.
_WHEN_USED = {
    "OpenedModel": "medchat.asking",
    "ResolvedModel": "medchat.asking",
    "open_model": "medchat.asking",
    "Results": "medchat.batch.command_results",
    "resolve_model": "medchat.asking",
    "open_results": "medchat.batch.command_results",
    "Question": "medchat.batch.questions",
    "read_questions": "medchat.batch.questions",
    "as_line": "medchat.batch.rows",
    "CallLimits": "medchat.calls.limits",
    "call_flags": "medchat.calls.limits",
    "StoredAnswer": "medchat.calls.stored",
    "StoredCalls": "medchat.calls.stored",
    "open_calls": "medchat.calls.stored",
    **dict.fromkeys(_EVENTS, "medchat.chat.events"),
    "SavedConversations": "medchat.chat.saved_conversations",
    "Group": "medchat.cli.group",
    "LocalizedCommand": "medchat.cli.group",
    "field_flags": "medchat.cli.options",
    "generation_flags": "medchat.cli.options",
    "model_flags": "medchat.cli.options",
    "write_out": "medchat.cli.output",
    "open_data_file": "medchat.datafiles.data_file",
    "FieldChoice": "medchat.datafiles.fields",
    "RecordError": "medchat.datafiles.fields",
    "QuestionRecord": "medchat.datafiles.record",
    "parse_record": "medchat.datafiles.record",
    "aigc_metadata": "medchat.medical_safety",
    "disclaimer": "medchat.medical_safety",
    "notice_texts": "medchat.medical_safety",
    "urgent_notices": "medchat.medical_safety",
    "GGUFHeader": "medchat.checkpoints.gguf_header",
    "Document": "medchat.document",
    "Paragraph": "medchat.document",
    "Picture": "medchat.document",
    "Quotation": "medchat.document",
    "Section": "medchat.document",
    "Table": "medchat.document",
    "as_html": "medchat.document",
    "as_markdown": "medchat.document",
    "sha256_of": "medchat.hashing",
    "find_personal": "medchat.redaction",
    "redact": "medchat.redaction",
    "read_gguf_header": "medchat.checkpoints.gguf_header",
    "with_template": "medchat.checkpoints.stated_template",
    "LibraryModel": "medchat.inference.library_model",
    "plugin_settings": "medchat.settings.plugin_options",
    "read_training_data": "medchat.sft_job.data",
    "parse_jinja": "medchat.templates.jinja_template",
    "user_path": "medchat.user_paths",
    "check_output_file": "medchat.whole_file",
    "free_space": "medchat.disk",
    "output_error": "medchat.disk",
    "staged_output": "medchat.whole_file",
    "write_whole_file": "medchat.whole_file",
}


def __getattr__(name: str) -> Any:
    """Import and return what only some plugins need. Raises AttributeError for any other name."""
    if name not in _WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHEN_USED[name]), name)
