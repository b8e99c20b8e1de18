"""Saved sessions as files: exported for reading, sharing and training, and imported again.

`export` makes them, `importing` reads what it made and other programs' conversations.
"""

from medchat.transcripts.export import FORMATS, export, export_suffix, redacted
from medchat.transcripts.importing import read_transcripts
from medchat.transcripts.writing import check_place, export_text, left_out, write_export

__all__ = [
    "FORMATS",
    "check_place",
    "export",
    "export_suffix",
    "export_text",
    "left_out",
    "read_transcripts",
    "redacted",
    "write_export",
]
