"""The outputs of one execution, in order, as a reader would see them."""
import re


def without_colour(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Outputs:
    """Outputs with neighbouring chunks of the same stream merged: where a kernel
    cuts a stream into messages is its own affair, the order is not."""

    def __init__(self, messages):
        self.messages = [m for m in messages if m.type not in ("status", "execute_input")]

    def merged(self):
        """(kind, text or MIME bundle), kind being stdout, stderr or the message type."""
        found = []
        for message in self.messages:
            kind, value = _output(message)
            if found and kind in ("stdout", "stderr") and found[-1][0] == kind:
                found[-1] = (kind, found[-1][1] + value)
            elif value != "":
                found.append((kind, value))
        return found

    def plain(self):
        """As `merged`, with text/plain for displays and results, the name for errors."""
        return [(kind, value.get("text/plain", value.get("ename")) if isinstance(value, dict) else value)
                for kind, value in self.merged()]

    def text(self, stream):
        return "".join(m.content["text"] for m in self.messages
                       if m.type == "stream" and m.content["name"] == stream)

    def of_type(self, msg_type):
        return [m for m in self.messages if m.type == msg_type]

    @property
    def result(self):
        results = self.of_type("execute_result")
        assert len(results) <= 1, "more than one result"
        return results[0].content["data"] if results else None

    @property
    def error(self):
        errors = self.of_type("error")
        assert len(errors) <= 1, "more than one error"
        return errors[0].content if errors else None

    @property
    def displays(self):
        return [m.content["data"] for m in self.of_type("display_data")]


def _output(message):
    content = message.content
    if message.type == "stream":
        return content["name"], content["text"]
    return message.type, content.get("data", content)
