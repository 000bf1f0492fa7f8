"""Whatever arrives on a port: the kernel goes on, and nothing of it runs."""
import json
import os
import random
import socket
import struct
from contextlib import nullcontext

import pytest

from support import target

CHANNELS = ("shell", "control", "stdin", "iopub", "hb")
GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32


def check_alive(kernel):
    """Everything works as before. ipykernel publishes its complaints, wherever they fit or not."""
    with nullcontext() if target.IS_COB else kernel.client.unchecked():
        _check_alive(kernel)


def _check_alive(kernel):
    assert kernel.run("1 + 1").ok().result == "2"
    assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"


def execute_frames(client, code):
    header = client.header("execute_request")
    return client.frames(header, {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                                  "allow_stdin": False, "stop_on_error": True})


def port(kernel, channel):
    return kernel.connection["ip"], kernel.connection[channel + "_port"]


def say(kernel, channel, data, patience=10):
    """Connects, says the bytes, and waits until the kernel hangs up or has had them."""
    with socket.create_connection(port(kernel, channel), timeout=patience) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass
        except OSError:  # it hung up, or says nothing more
            pass


# Messages --------------------------------------------------------------------

@pytest.mark.parametrize("channel", ["shell", "control"])
def test_a_wrong_signature_runs_nothing(kernel, channel):
    kernel.run("hits = []").ok()
    for signature in (b"", b"0" * 64, b"x", b"\xff" * 64):
        frames = execute_frames(kernel.client, "hits.append(1)")
        frames[1] = signature
        kernel.client.send_frames(channel, frames)
    frames = execute_frames(kernel.client, "hits.append(1)")
    kernel.client.send_frames(channel, [*frames[:1], frames[1].upper(), *frames[2:]])
    check_alive(kernel)
    assert kernel.value("hits") == []


def test_a_message_that_was_changed_on_its_way_runs_nothing(kernel):
    kernel.run("hits = []").ok()
    frames = execute_frames(kernel.client, "hits.append(1)")
    kernel.client.send_frames("shell", [*frames[:-1], frames[-1].replace(b"append(1)", b"append(2)")])
    check_alive(kernel)
    assert kernel.value("hits") == []


def test_a_message_that_comes_again_does_not_run_again(kernel):
    kernel.run("hits = []").ok()
    frames = execute_frames(kernel.client, "hits.append(1)")
    id_ = json.loads(frames[2])["msg_id"]
    kernel.client.sent[id_] = ("shell", json.loads(frames[2]))
    for _ in range(3):
        kernel.client.send_frames("shell", frames)
    kernel.client.until(lambda: kernel.client.is_idle(id_))
    assert kernel.value("hits") == [1]


@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
@pytest.mark.parametrize("frames", [
    [b""], [b"x"], [b"<IDS|MSG>"], [b"<IDS|MSG>", b"sig"], [b"<IDS|MSG>"] * 8, [b"a", b"<IDS|MSG>", b"", b"{}", b"{}"],
    [b"no delimiter", b"at", b"all", b"{}", b"{}", b"{}"], [b"{}", b"{}", b"{}", b"{}", b"sig", b"<IDS|MSG>"], [b"\xff" * 1000] * 50,
], ids=["empty", "one", "only the delimiter", "two", "all delimiters", "short", "no delimiter", "reversed", "bytes"])
def test_frames_without_sense_are_dropped(kernel, channel, frames):
    kernel.client.send_frames(channel, frames)
    check_alive(kernel)


@pytest.mark.parametrize("parts", [
    [b"", b"", b"", b""], [b"{", b"{}", b"{}", b"{}"], [b"[]", b"{}", b"{}", b"{}"], [b"null", b"null", b"null", b"null"],
    [b"{}", b"{}", b"{}", b"{}"], [b'{"msg_type": 5, "msg_id": []}', b"{}", b"{}", b"{}"], [b"\xff\xfe", b"{}", b"{}", b"{}"],
    [b"[" * 100_000, b"{}", b"{}", b"{}"], [b'{"msg_id": "' + b"x" * 1_000_000 + b'", "msg_type": "kernel_info_request"}', b"{}", b"{}", b"{}"],
], ids=["empty", "cut", "list", "null", "no type", "wrong types", "not utf-8", "deep", "huge id"])
def test_signed_nonsense_is_dropped(kernel, parts):
    client = kernel.client
    for channel in ("shell", "control", "stdin"):
        client.send_frames(channel, [b"<IDS|MSG>", client.sign(parts), *parts])
    with client.unchecked():
        check_alive(kernel)


@pytest.mark.parametrize("content", [{}, {"code": 5}, {"code": None}, {"code": ["1"]}, {"code": "1", "silent": "perhaps"}, {"code": "1", "user_expressions": [1]}])
def test_a_request_with_wrong_content_is_answered_or_dropped(kernel, content):
    client = kernel.client
    client.send("shell", "execute_request", {"stop_on_error": False, **content})
    check_alive(kernel)


@pytest.mark.parametrize("msg_type", ["complete_request", "inspect_request", "history_request", "is_complete_request", "comm_open", "comm_msg",
                                      "comm_close", "comm_info_request", "input_reply", "debug_request"])
@pytest.mark.parametrize("content", [{}, {"code": 7, "cursor_pos": "x", "comm_id": [], "data": 1}, {"code": "x", "cursor_pos": 10**9, "n": -1}])
def test_any_request_with_wrong_content_is_survived(kernel, msg_type, content):
    for channel in ("shell", "control"):
        kernel.client.send(channel, msg_type, content)
    check_alive(kernel)


def test_an_input_reply_that_nobody_asked_for_is_ignored(kernel):
    kernel.client.send("stdin", "input_reply", {"value": "unasked"})
    run = kernel.execute("input('asked')")
    kernel.client.answer(run.asked(), "the answer")
    assert run.wait().ok().result == "'the answer'"


def test_parts_beyond_the_message_are_buffers(kernel):
    request = kernel.client.send("shell", "kernel_info_request", buffers=[b"x"] * 20)
    kernel.client.until(lambda: kernel.client.reply_to(request) and kernel.client.is_idle(request))


# Bytes -----------------------------------------------------------------------

@pytest.mark.parametrize("channel", CHANNELS)
def test_random_bytes_end_nothing(kernel, channel):
    random.seed(channel)
    for size in (0, 1, 10, 64, 1000, 100_000):
        say(kernel, channel, random.randbytes(size))
    check_alive(kernel)


@pytest.mark.parametrize("channel", CHANNELS)
def test_other_protocols_end_nothing(kernel, channel):
    say(kernel, channel, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    say(kernel, channel, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500))
    say(kernel, channel, b"SSH-2.0-OpenSSH_9.2\r\n")
    check_alive(kernel)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("length", [2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_length_beyond_all_bounds_is_not_believed(kernel, channel, length):
    frame = b"\x02" + struct.pack(">Q", length) + b"x" * 100
    ready = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
    say(kernel, channel, GREETING + frame, patience=1)
    say(kernel, channel, GREETING + ready + frame, patience=1)
    check_alive(kernel)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_greeting_cut_anywhere_ends_nothing(kernel, channel):
    for cut in range(0, len(GREETING), 5):
        say(kernel, channel, GREETING[:cut])
    check_alive(kernel)


def test_connections_that_say_nothing_do_not_keep_others_out(kernel):
    silent = [socket.create_connection(port(kernel, channel)) for channel in CHANNELS for _ in range(20)]
    try:
        check_alive(kernel)
        other = kernel.connect()
        assert other.run("2 + 2").ok().result == "4"
    finally:
        for peer in silent:
            peer.close()


def test_a_front_end_that_vanishes_leaves_the_others_alone(kernel):
    other = kernel.connect()
    run = other.execute("print('ready', flush=True)\nimport time; time.sleep(0.2)\nvanished = 'done'").printed("ready\n")
    other.close()
    kernel.clients.remove(other)
    assert run.id
    assert kernel.run("vanished").ok().result == "'done'"


@pytest.mark.cob_only("aborts what every client has queued")
def test_a_front_end_that_vanishes_while_it_is_asked_leaves_the_kernel_interruptible(kernel):
    other = kernel.connect()
    run = other.execute("input('anyone?')")
    run.asked()
    other.close()
    kernel.clients.remove(other)
    kernel.interrupt()
    check_alive(kernel)


@pytest.mark.cob_only("keeps what it was sent")
def test_garbage_does_not_bloat_the_process(own):
    import psutil
    kernel = own("bare")
    process = psutil.Process(kernel.pid)
    check_alive(kernel)
    before = process.memory_info().rss
    for _ in range(200):
        say(kernel, "shell", os.urandom(100_000))
        kernel.client.send_frames("shell", [b"<IDS|MSG>", b"wrong", b"x" * 1_000_000])
    check_alive(kernel)
    assert process.memory_info().rss - before < 64 * 1024 * 1024
