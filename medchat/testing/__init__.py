"""What every backbone must keep to, as tests: for pytest, and behind `medchat plugins test NAME`.

    from medchat.testing import BackboneTests

    class TestMine(BackboneTests):
        backbone = Mine()

Each test is a property of the interface; its docstring says what it proves and what to do when it fails. They run on
the miniature that `Backbone.tiny` writes, or on `model`. Needs neither pytest nor torch of itself.
"""

from medchat.testing.kit import PROPERTIES, BackboneTests
from medchat.testing.subject import Subject

__all__ = ["PROPERTIES", "BackboneTests", "Subject"]
