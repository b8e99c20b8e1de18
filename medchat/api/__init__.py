"""The types that cross the border between the core and a backbone plugin.

Standard library only: importing this package never imports torch, so a plugin's own module can
define its `Backbone` cheaply and import torch inside `load`. Everything here is frozen; what a
plugin receives it cannot change behind the core's back.
"""

from __future__ import annotations

from medchat.api.backbone import (
    HUB,
    Backbone,
    Capabilities,
    KnownFile,
    KnownWeights,
)
from medchat.api.conversation import (
    Conversation,
    Finish,
    Notice,
    SlashCommand,
    Turn,
)
from medchat.api.finetuning import (
    DiskEstimate,
    Example,
    MemoryEstimate,
    PreviewPiece,
    SFTData,
    SFTEvaluation,
    SFTEvent,
    SFTNote,
    SFTProgress,
    SFTRecipe,
    SFTReport,
    SFTSample,
    SFTSaved,
    SFTStatus,
    SFTSurvey,
    SFTWatcher,
)
from medchat.api.generation import (
    DEVICES_HELP,
    DTYPES,
    ENGINES,
    GENERATION_RANGES,
    GENERATION_SETTINGS,
    QUANTIZE,
    SPECULATE,
    Completion,
    Delta,
    GenerationConfig,
    LoadOptions,
    QuantizedCache,
    Range,
)
from medchat.api.models import (
    AdapterCard,
    AnswerIds,
    BatchScoringModel,
    BatchStreamingModel,
    ChatModel,
    ContinuingModel,
    ModelCard,
    PromptIds,
    PromptParts,
)
from medchat.api.option import Option
from medchat.api.prompts import (
    Control,
    PromptTemplate,
    Segment,
    SpecialTokens,
    Text,
)
from medchat.api.sft_options import (
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULERS,
    TRACKERS,
    SFTOptions,
    option_facts,
)

#: What a plugin module states as `medchat_api_version`. Raised when something here changes incompatibly.
API_VERSION = 1

__all__ = [
    "API_VERSION",
    "DEVICES_HELP",
    "DTYPES",
    "ENGINES",
    "GENERATION_RANGES",
    "GENERATION_SETTINGS",
    "HUB",
    "METHODS",
    "OPTIMIZERS",
    "PRECISIONS",
    "QUANTIZE",
    "SCHEDULERS",
    "SPECULATE",
    "TRACKERS",
    "AdapterCard",
    "AnswerIds",
    "Backbone",
    "BatchScoringModel",
    "BatchStreamingModel",
    "Capabilities",
    "ChatModel",
    "Completion",
    "ContinuingModel",
    "Control",
    "Conversation",
    "Delta",
    "DiskEstimate",
    "Example",
    "Finish",
    "GenerationConfig",
    "KnownFile",
    "KnownWeights",
    "LoadOptions",
    "MemoryEstimate",
    "ModelCard",
    "Notice",
    "Option",
    "PreviewPiece",
    "PromptIds",
    "PromptParts",
    "PromptTemplate",
    "QuantizedCache",
    "Range",
    "SFTData",
    "SFTEvaluation",
    "SFTEvent",
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
    "Segment",
    "SlashCommand",
    "SpecialTokens",
    "Text",
    "Turn",
    "option_facts",
]
