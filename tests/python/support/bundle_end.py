"""One end of a bundle, in an interpreter of its own that has nothing but the package `cob`.

`python -c "import bundle_end; bundle_end.main()" save|load FILE`, with code on stdin: before it saves, or after it
has loaded. What comes of it is the last line of stdout, as JSON.
"""
import json
import pickle
import sys


class Writer:
    """What the native side is to `cob.bundle.save`."""

    def __init__(self):
        self.blobs, self.present, self.whole = [], [], None

    def write(self, buffer):
        self.present.append(memoryview(buffer).tobytes())

    def end_blob(self):
        self.blobs.append(b"".join(self.present))
        self.present = []
        return len(self.blobs) - 1

    def finish(self, outline):
        assert not self.present and self.whole is None
        self.whole = outline


class Reader:
    """What the native side is to `cob.bundle.load`."""

    def __init__(self, outline, blobs):
        self.whole, self.blobs = outline, iter(blobs)

    def outline(self):
        return self.whole

    def blob_into(self, room):
        blob = next(self.blobs, None)
        if blob is None:
            return None
        view = memoryview(room)
        if view.nbytes:
            view.cast("B")[:] = blob[: view.nbytes]
        return len(blob)


def main():
    action, path, force = sys.argv[1:]
    main = sys.modules["__main__"].__dict__
    main.pop("bundle_end", None)
    code = compile(sys.stdin.read(), "<the session>", "exec", dont_inherit=True)
    from cob import bundle

    if action == "save":
        exec(code, main)
        writer = Writer()
        bundle.save(writer)
        with open(path, "wb") as file:
            pickle.dump((writer.whole, writer.blobs), file)
        outcome = json.loads(writer.whole)
    else:
        with open(path, "rb") as file:
            reader = Reader(*pickle.load(file))
        status, text = bundle.load(reader, force == "force")
        outcome = json.loads(text) if status == "value" else {"declined": text}
        main["outcome"] = outcome
        exec(code, main)
    print("\n" + json.dumps(outcome))
