"""The wire format, against vectors that are made with hmac alone."""
import hashlib
import hmac
import json

import pytest

from cob_client.errors import ProtocolError
from cob_client.wire import DELIMITER, Codec


def test_the_signature_is_that_of_rfc_2104():
    known = b"f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    assert Codec(b"key", "me").sign([b"The quick brown fox ", b"jumps over the lazy dog"]) == known


def test_a_written_message_is_signed_over_its_four_parts_and_can_be_read():
    codec = Codec(b"secret", "me")
    delimiter, signature, *parts = codec.write("execute_request", "id1", {"code": "1", "text": "é\ud800"})
    assert delimiter == DELIMITER
    assert signature.decode() == hmac.new(b"secret", b"".join(parts), hashlib.sha256).hexdigest()
    message = codec.read([b"identity", delimiter, signature, *parts, b"\0buffer"])
    assert (message.type, message.header["msg_id"], message.header["session"]) == ("execute_request", "id1", "me")
    assert message.content == {"code": "1", "text": "é\ud800"}
    assert message.buffers == [b"\0buffer"]
    assert len(message.header["date"]) > 20 and message.parent_id == ""


def test_without_a_key_nothing_is_signed():
    codec = Codec(b"", "me")
    parts = codec.write("ping", "i", {})
    assert parts[1] == b"" and codec.read(parts).type == "ping"


@pytest.mark.parametrize("spoil", [
    lambda parts: parts[1:],
    lambda parts: parts[:5],
    lambda parts: [],
    lambda parts: [parts[0]],
    lambda parts: [*parts[:1], b"0" * 64, *parts[2:]],
    lambda parts: [*parts[:5], b'{"code":"2"}'],
])
def test_what_cannot_be_believed_is_refused(spoil):
    codec = Codec(b"k", "me")
    with pytest.raises(ProtocolError):
        codec.read(spoil(codec.write("execute_request", "i", {"code": "1"})))


@pytest.mark.parametrize("part", [b"[]", b"{", b"\xff", b"1"])
def test_parts_that_are_no_json_object_are_refused(part):
    codec = Codec(b"", "me")
    with pytest.raises(ProtocolError):
        codec.read([DELIMITER, b"", part, b"{}", b"{}", b"{}"])


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}])
def test_values_that_are_no_json_are_refused_before_anything_is_sent(value):
    with pytest.raises((TypeError, ValueError)):
        Codec(b"", "me").write("answer", "i", {"value": value})


def test_json_is_compact():
    assert json.loads(Codec(b"", "me").write("ping", "i", {"a": [1, 2]})[5]) == {"a": [1, 2]}
    assert b" " not in Codec(b"", "me").write("ping", "i", {"a": [1, 2]})[5]
