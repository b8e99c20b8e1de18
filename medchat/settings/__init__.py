"""Settings in layers: where each value comes from, and which one counts.

Start at `Settings.load`; the keys there are in the one table `KEYS`.
"""

from medchat.settings.keys import KEYS, Key, key_named
from medchat.settings.layered import Effective, Layer, Origin, Settings, configured_language

__all__ = ["KEYS", "Effective", "Key", "Layer", "Origin", "Settings", "configured_language", "key_named"]
