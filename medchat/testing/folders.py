"""Properties of a plugin before its model: what it makes of folders, and what its import costs and does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from medchat.api import ModelCard
from medchat.testing.properties import tested_property
from medchat.testing.strange_folders import write_strange_folders
from medchat.testing.subject import CORPUS, Subject, expect, hashes_of, skip_unless

#: Seconds of the processor that an import may take: `plugins show` and the first prompt wait for it.
IMPORT_SECONDS = 1.0
#: Seconds until a child that imports a plugin is given up.
_PATIENCE = 60.0
#: What must not be imported before a model is loaded.
_HEAVY = ("torch", "transformers", "tensorflow", "jax", "llama_cpp", "xllamacpp")

_CHILD = """
import json, os, signal, sys, threading, time
import medchat.api, medchat.errors, medchat.templates, medchat.hookspecs
heavy = HEAVY
numbers = [number for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP)]
handlers = {number: signal.getsignal(number) for number in numbers}
here, path, before = os.getcwd(), list(sys.path), time.process_time()
module = __import__(MODULE, fromlist=["_"])
seconds = time.process_time() - before
said = {"seconds": seconds, "threads": threading.active_count() - 1, "folder": os.getcwd() != here,
        "heavy": [name for name in heavy if name in sys.modules],
        "signals": [number.name for number in numbers if signal.getsignal(number) is not handlers[number]]}
from pathlib import Path
found = __import__(CLASS_MODULE, fromlist=["_"])
for name in CLASS.split("."):
    found = getattr(found, name, None)
if isinstance(found, type):
    before = {name for name in heavy if name in sys.modules}
    for folder in FOLDERS:
        try:
            found().inspect(Path(folder))
        except Exception:
            pass
    said["inspected"] = [name for name in heavy if name in sys.modules and name not in before]
print("\\0" + json.dumps(said))
"""


class FolderProperties(Subject):
    """What holds of a plugin's module and of the folders that it is shown."""

    _imported: ClassVar[dict[str, Any]] = {}

    @tested_property
    def test_inspect_takes_any_folder(self) -> None:
        """`inspect` returns None for folders of any other kind, broken and hostile ones too, and never raises.

        When it fails: whatever cannot be read as this family's own is none of it: return None. Read with a bound,
        and only ordinary files.
        """
        for what, path in write_strange_folders(self.room("strange")).items():
            try:
                card = self.backbone.inspect(path)
            except Exception as error:
                expect(False, f"{what}: inspect raises {type(error).__name__}: {error}")
            else:
                expect(card is None, f"{what}: inspect takes it for {card}")

    @tested_property
    def test_inspect_describes_the_model(self) -> None:
        """`inspect` knows the miniature: the backbone's name, its template, the context that the model has.

        When it fails: state what `load` and `template` find; `models show` prints the card.
        """
        skip_unless(not isinstance(self.model, str), "the model is no folder")
        card = self.backbone.inspect(self.checkpoint())
        expect(isinstance(card, ModelCard), f"inspect gives {card!r} for a model of its own")
        assert card is not None
        expect(card.backbone == self.backbone.name, f"the card's backbone is {card.backbone!r}")
        expect(
            card.context_length >= self.loaded().context_length > 0,
            "context_length: the card and the model differ",
        )
        template = self.backbone.template(self.options()).name
        expect(
            card.template == template, f"the card's template is {card.template!r}, the model's {template!r}"
        )

    @tested_property
    def test_a_miniature_is_written_alike(self) -> None:
        """`tiny` with the same arguments writes the same bytes.

        When it fails: draw from a generator that `seed` makes, and write nothing of the hour or the path.
        """
        skip_unless(self.model is None, "the model was given")
        written = []
        for name in ("one", "other"):
            self.backbone.tiny(path := self.room(name), corpus=CORPUS, seed=3, **self.shape)
            written.append(hashes_of(path))
        names = sorted(
            name for name in {*written[0], *written[1]} if written[0].get(name) != written[1].get(name)
        )
        expect(not names, f"written twice, these differ: {', '.join(names)}")

    @tested_property
    def test_the_import_is_light(self) -> None:
        """Importing the plugin imports no torch and takes less than a second of the processor.

        When it fails: import what is heavy inside `load`; annotate under `if TYPE_CHECKING`.
        """
        said = self._import()
        expect(not said["heavy"], f"the import imports {', '.join(said['heavy'])}")
        expect(said["seconds"] < IMPORT_SECONDS, f"the import takes {said['seconds']:.1f} seconds")

    @tested_property
    def test_the_import_does_nothing(self) -> None:
        """Importing the plugin starts no thread, says nothing, takes no signal and changes no folder.

        When it fails: move it into `load`. Every command that looks at plugins imports them.
        """
        said = self._import()
        expect(not said["threads"], f"the import leaves {said['threads']} threads")
        expect(not said["signals"], f"the import takes the signals {', '.join(said['signals'])}")
        expect(not said["folder"], "the import changes the working folder")
        expect(not said["printed"], f"the import prints {said['printed'][:200]!r}")

    @tested_property
    def test_inspect_imports_no_torch(self) -> None:
        """`inspect` reads headers without torch and its like: `models show` asks every plugin.

        When it fails: read config.json, and headers of weights with `medchat.checkpoints`.
        """
        said = self._import()
        skip_unless("inspected" in said, "the backbone's class is no attribute of its module")
        expect(not said["inspected"], f"inspect imports {', '.join(said['inspected'])}")

    def _import(self) -> dict[str, Any]:
        """Import the plugin in a process of its own, once, and return what that did."""
        kind = type(self.backbone)
        module = self.module or kind.__module__
        key = f"{module}:{kind.__qualname__}"
        if key not in self._imported:
            self._imported[key] = self._import_in_child(module, kind)
        found: dict[str, Any] = self._imported[key]
        return found

    def _import_in_child(self, module: str, kind: type) -> dict[str, Any]:
        shown = [
            str(path) for path in write_strange_folders(self.room("shown")).values() if "\0" not in str(path)
        ]
        if isinstance(self.model, Path) or self.model is None:
            shown.append(str(self.checkpoint()))
        given = {
            "HEAVY": _HEAVY,
            "MODULE": module,
            "CLASS": kind.__qualname__,
            "CLASS_MODULE": kind.__module__,
            "FOLDERS": shown,
        }
        source = "".join(f"{key} = {value!r}\n" for key, value in given.items()) + _CHILD
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-"],
            input=source.encode("utf-8", "surrogatepass"),
            capture_output=True,
            env=environment,
            timeout=_PATIENCE,
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        expect(done.returncode == 0 and "\0" in out, f"importing {module} fails: {err[-600:]}")
        printed, _, said = out.partition("\0")
        found: dict[str, Any] = json.loads(said)
        return {**found, "printed": printed + err}
