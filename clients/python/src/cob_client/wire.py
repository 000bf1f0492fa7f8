"""The wire format, which is Jupyter's: `<IDS|MSG>`, signature, header, parent header, metadata, content, buffers.

Nothing here opens a socket. The signature is checked before any JSON is read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Mapping, Sequence

from .errors import ProtocolError

DELIMITER = b"<IDS|MSG>"
#: Version of the Jupyter messaging protocol that headers name.
PROTOCOL_VERSION = "5.5"


@dataclass(frozen=True)
class Message:
    """A message that was received and verified."""

    header: Mapping[str, Any]
    parent: Mapping[str, Any]
    metadata: Mapping[str, Any]
    content: Mapping[str, Any]
    buffers: Sequence[bytes] = field(default=())

    @property
    def type(self) -> str:
        """Its `msg_type`."""
        return str(self.header.get("msg_type", ""))

    @property
    def parent_id(self) -> str:
        """The `msg_id` of the message that it answers, or nothing."""
        return str(self.parent.get("msg_id", ""))


def new_id() -> str:
    """A name that nobody else has."""
    return uuid.uuid4().hex


class Codec:
    """Writes and reads the messages of one client. An empty key: no signatures, as on the local socket."""

    def __init__(self, key: bytes, session: str) -> None:
        self._key = key
        self.session = session

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """HMAC-SHA256 of the four JSON parts, hexadecimal; empty without a key."""
        if not self._key:
            return b""
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(part)
        return digest.hexdigest().encode()

    def write(self, msg_type: str, msg_id: str, content: Mapping[str, Any]) -> list[bytes]:
        """The parts of a request. Values that are not JSON (NaN, bytes, …) are a `TypeError` or `ValueError`."""
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": self.session,
            "username": "",
            "date": datetime.now(timezone.utc).isoformat(),
            "version": PROTOCOL_VERSION,
        }
        parts = [_dump(header), b"{}", b"{}", _dump(content)]
        return [DELIMITER, self.sign(parts), *parts]

    def read(self, parts: Sequence[bytes]) -> Message:
        """A received message. `ProtocolError` says why it is to be dropped."""
        if DELIMITER not in parts:
            raise ProtocolError("no <IDS|MSG> delimiter")
        signature, *rest = parts[parts.index(DELIMITER) + 1 :] or [b""]
        if len(rest) < 4:
            raise ProtocolError("fewer than five parts after the delimiter")
        if self._key and not hmac.compare_digest(signature, self.sign(rest[:4])):
            raise ProtocolError("the signature is wrong")
        try:
            header, parent, metadata, content = (json.loads(part) for part in rest[:4])
        except ValueError as error:
            raise ProtocolError(f"a part is no JSON: {error}") from error
        if not all(isinstance(part, dict) for part in (header, parent, metadata, content)):
            raise ProtocolError("a part is no JSON object")
        return Message(header, parent, metadata, content, rest[4:])


def _dump(value: Mapping[str, Any]) -> bytes:
    # Lone surrogates cannot be UTF-8; escaped they can, and JSON allows them.
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
