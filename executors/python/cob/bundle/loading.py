"""Takes a bundle in, one component after the other; what fails hurts no other."""

import json
import pickle
import sys

from cob.bundle import blame, rebuild, surroundings
from cob.bundle.saving import is_users


class Broken(Exception):
    """The stream is not what its outline says: nothing more of it can be read."""


def load(reader, force, namespace):
    outline = json.loads(reader.outline())
    reasons = surroundings.differences(outline["runtime"])
    if outline.get("language") != "python":
        reasons = [f"it holds a session of {outline.get('language')}"]
        force = False
    if reasons and not force:
        return "declined", "; ".join(reasons)
    result = Loading(reader, outline, namespace)
    result.findings.extend({"kind": "runtime", "text": reason, "blocks": False} for reason in reasons)
    return "value", json.dumps(result.run())


class Loading:
    """The state of a load."""

    def __init__(self, reader, outline, namespace):
        self.reader, self.outline, self.namespace = reader, outline, namespace
        self.sizes = outline["extra"]["blobs"]
        self.next = 0
        self.restored, self.findings = [], []
        self.missing = list(outline.get("missing", ()))

    def run(self):
        facts = self.outline["extra"]
        surroundings.return_to(facts, self.findings)
        of_bundle = {entry["name"] for entry in self.missing}
        for component in self.outline["components"]:
            of_bundle.update(component["names"])
            self.take(component)
        surroundings.return_to_random(facts, self.findings)
        kept = [name for name in self.namespace if name not in of_bundle and is_users(name, self.namespace[name])]
        return {"restored": self.restored, "missing": self.missing, "kept": kept, "findings": self.findings}

    def take(self, component):
        names = component["names"]
        try:
            if component["codec"] == "reference":
                values = [rebuild.module(component["reference"])]
            else:
                values = self.read(component["blobs"])
            if len(values) != len(names):
                raise pickle.UnpicklingError(f"{len(values)} values for {len(names)} names")
        except (Broken, KeyboardInterrupt):
            raise
        except BaseException as error:  # code of the user's runs in there: whatever it raises is an answer
            reason = f"it could not be loaded: {blame.text_of(error)}"
            self.missing.extend({"name": name, "kind": component["kind"], "reason": reason} for name in names)
            return
        self.namespace.update(zip(names, values))
        self.restored.extend(names)

    def read(self, blobs):
        first, *others = blobs
        while self.next < first:
            self.skip()
        data = bytearray(self.sizes[first][0])
        self.fill(data)
        end = first + len(blobs)
        if others != list(range(first + 1, end)):
            raise Broken("the blobs of a component do not stand together")
        rebuild.next_blob = self.fill
        try:
            return pickle.loads(data, buffers=self.buffers(end))
        finally:
            rebuild.next_blob = None
            while self.next < end:
                self.skip()

    def buffers(self, end):
        """Memory for each buffer that a pickle asks for."""
        while self.next < end:
            size, readonly = self.sizes[self.next]
            data = bytearray(size)
            self.fill(data)
            yield memoryview(data).toreadonly() if readonly else data

    def fill(self, memory):
        """Read the next blob, which must be as long as the memory."""
        wanted = memoryview(memory).nbytes
        size = self.reader.blob_into(memory)
        self.next += 1
        if size != wanted:
            raise Broken(f"a blob has {size} bytes instead of {wanted}")

    def skip(self):
        self.next += 1
        if self.reader.blob_into(bytearray()) is None:
            raise Broken("it ends too early")
