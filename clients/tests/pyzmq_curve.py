"""libzmq under CURVE. Run by zmtp_curve_pyzmq.rs, which serves an echo: `pyzmq_curve.py ENDPOINT SERVER_KEY FOLDER`.

The keys that may come in lie in FOLDER.
"""

import os
import pathlib
import struct
import sys

import zmq
from zmq.utils.monitor import recv_monitor_message

ENDPOINT, SERVER_KEY, FOLDER = sys.argv[1], sys.argv[2].encode(), pathlib.Path(sys.argv[3])
PATIENCE_MS = 60_000
context = zmq.Context()
public, secret = zmq.curve_keypair()


def socket_with(keys=(public, secret), server_key=SERVER_KEY, **options):
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = socket.sndtimeo = PATIENCE_MS
    if keys:
        socket.curve_publickey, socket.curve_secretkey = keys
        socket.curve_serverkey = server_key
    for name, value in options.items():
        socket.set(getattr(zmq, name), value)
    return socket


def connected(**options):
    socket = socket_with(**options)
    socket.connect(ENDPOINT)
    return socket


def echo(socket, *parts):
    parts = list(parts)
    socket.send_multipart(parts)
    assert socket.recv_multipart() == parts, (len(parts), parts[0][:40])


def outcome(socket):
    """The first event that says how the handshake ended."""
    events = (
        zmq.EVENT_HANDSHAKE_SUCCEEDED
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
    )
    monitor = socket.get_monitor_socket(events)
    socket.connect(ENDPOINT)
    assert monitor.poll(PATIENCE_MS)
    event = recv_monitor_message(monitor)
    socket.disable_monitor()
    socket.close()
    return event["event"], event["value"]


def refused():
    strange = zmq.curve_keypair()
    assert outcome(socket_with(keys=strange)) == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)
    other_server, _ = zmq.curve_keypair()
    assert outcome(socket_with(server_key=other_server)) == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)
    assert outcome(socket_with(keys=None))[0] != zmq.EVENT_HANDSHAKE_SUCCEEDED
    plain = {"PLAIN_USERNAME": b"user", "PLAIN_PASSWORD": b"pass"}
    assert outcome(socket_with(keys=None, **plain))[0] != zmq.EVENT_HANDSHAKE_SUCCEEDED


def authorised():
    """A key that is added while the server runs."""
    assert outcome(socket_with())[0] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
    (FOLDER / "libzmq.pub").write_bytes(public + b"\n")
    assert outcome(socket_with())[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED


def dealer():
    with connected(IDENTITY=b"dealer") as socket:
        echo(socket, b"a", b"", b"b")
        echo(socket, b"")
        echo(socket, *[bytes([number]) * number for number in range(64)])
        for size in (222, 223, 255, 256, 8191, 65_536, 1 << 20, 20_000_000):
            echo(socket, b"size", os.urandom(size), b"end")


def pipelined():
    with connected(SNDHWM=0, RCVHWM=0) as socket:
        for number in range(3_000):
            socket.send_multipart([struct.pack("!I", number), b"x" * (number % 500)])
        for number in range(3_000):
            assert socket.recv_multipart() == [struct.pack("!I", number), b"x" * (number % 500)], number


def heartbeats():
    """Nothing is sent for many heartbeat intervals, and the connection stays."""
    socket = socket_with(HEARTBEAT_IVL=10, HEARTBEAT_TIMEOUT=150, HEARTBEAT_TTL=200)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    socket.connect(ENDPOINT)
    assert monitor.poll(PATIENCE_MS)
    assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
    assert not monitor.poll(400), recv_monitor_message(monitor)
    echo(socket, b"still here")
    socket.disable_monitor()
    socket.close()


def asked():
    """The server asks a silent client (its limit is 100 ms here), and libzmq answers by itself."""
    with connected() as socket:
        echo(socket, b"hello")
        assert not socket.poll(700)
        echo(socket, b"the same connection")


for check in (refused, authorised, dealer, pipelined, heartbeats, asked, dealer):
    check()
    print("ok", check.__name__, flush=True)
context.destroy(linger=0)
