"""Saved sessions as files: exported for reading, sharing and training, and imported again.

`export` makes them, `importing` reads what it made and other programs' conversations.
"""

from medchat.transcripts.export import FORMATS, export, export_suffix, redacted
from medchat.transcripts.importing import read_transcripts

__all__ = ["FORMATS", "export", "export_suffix", "read_transcripts", "redacted"]
