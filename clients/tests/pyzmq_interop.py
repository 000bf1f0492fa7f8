"""libzmq as the peer. Run by zmtp_pyzmq.rs, which serves: `pyzmq_interop.py ROUTER XPUB HEARTBEAT`.

The ROUTER echoes; a subscription to `flood N SIZE` makes the XPUB publish N numbered messages of that size.
"""

import os
import struct
import sys

import zmq
from zmq.utils.monitor import recv_monitor_message

ROUTER, XPUB, HEARTBEAT = sys.argv[1:]
PATIENCE_MS = 60_000
context = zmq.Context()


def connected(kind, endpoint, **options):
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvtimeo = socket.sndtimeo = PATIENCE_MS
    for name, value in options.items():
        socket.set(getattr(zmq, name), value)
    socket.connect(endpoint)
    return socket


def echo(socket, *parts):
    parts = list(parts)
    socket.send_multipart(parts)
    assert socket.recv_multipart() == parts, (len(parts), parts[0][:40])


def dealer():
    with connected(zmq.DEALER, ROUTER, IDENTITY=b"dealer") as socket:
        echo(socket, b"a", b"", b"b")
        echo(socket, b"")
        echo(socket, *[bytes([number]) * number for number in range(64)])
        for size in (255, 256, 8191, 65_535, 65_536, 1 << 20, 16 << 20):
            echo(socket, b"size", os.urandom(size), b"end")


def pipelined():
    with connected(zmq.DEALER, ROUTER, SNDHWM=0, RCVHWM=0) as socket:
        for number in range(20_000):
            socket.send_multipart([struct.pack("!I", number), b"x" * (number % 500)])
        for number in range(20_000):
            assert socket.recv_multipart() == [struct.pack("!I", number), b"x" * (number % 500)], number


def req():
    for endpoint in (ROUTER, HEARTBEAT):
        with connected(zmq.REQ, endpoint) as socket:
            for text in (b"ping", b"", b"x" * 60_000):
                echo(socket, text)
    with connected(zmq.DEALER, HEARTBEAT) as socket:
        echo(socket, b"", b"enveloped")
        echo(socket, b"id", b"", b"two", b"parts")


def sub():
    for topic, size in ((b"flood 200000 20", 20), (b"flood 500 100000", 100_000), (b"flood 4 16777216", 16 << 20)):
        with connected(zmq.SUB, XPUB, SUBSCRIBE=topic, RCVHWM=0) as socket:
            for number in range(int(topic.split()[1])):
                name, stamp, body = socket.recv_multipart()
                assert (name, stamp, len(body)) == (topic, struct.pack("!I", number), size), (topic, number)


def sub_with_small_queue():
    """A reader slower than the publisher, with libzmq's default queue: back-pressure, and nothing lost."""
    topic = b"flood 30000 1000"
    with connected(zmq.SUB, XPUB, SUBSCRIBE=topic, RCVHWM=10) as socket:
        for number in range(30_000):
            assert socket.recv_multipart()[1] == struct.pack("!I", number), number


def unsubscribe():
    with connected(zmq.SUB, XPUB, SUBSCRIBE=b"flood 10 1") as socket:
        for _ in range(10):
            socket.recv_multipart()
        socket.unsubscribe(b"flood 10 1")
        socket.subscribe(b"flood 11 1")
        for number in range(11):
            assert socket.recv_multipart()[:2] == [b"flood 11 1", struct.pack("!I", number)]


def heartbeats():
    """Nothing is sent for many heartbeat intervals, and the connection stays."""
    for kind, endpoint in ((zmq.DEALER, ROUTER), (zmq.SUB, XPUB), (zmq.REQ, HEARTBEAT)):
        socket = context.socket(kind)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        socket.linger = 0
        socket.rcvtimeo = PATIENCE_MS
        socket.set(zmq.HEARTBEAT_IVL, 10)
        socket.set(zmq.HEARTBEAT_TIMEOUT, 150)
        socket.set(zmq.HEARTBEAT_TTL, 200)
        socket.connect(endpoint)
        assert monitor.poll(PATIENCE_MS)
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        assert not monitor.poll(400), recv_monitor_message(monitor)
        if kind != zmq.SUB:
            echo(socket, b"still here")
        socket.disable_monitor()
        socket.close()


def refused():
    """What the sockets do not accept is refused; libzmq reports the failed handshake or the disconnect."""
    for kind, endpoint, options in (
        (zmq.DEALER, ROUTER, {"PLAIN_USERNAME": b"user", "PLAIN_PASSWORD": b"pass"}),
        (zmq.SUB, ROUTER, {}),
        (zmq.DEALER, XPUB, {}),
        (zmq.SUB, HEARTBEAT, {}),
    ):
        socket = context.socket(kind)
        failed = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED
        monitor = socket.get_monitor_socket(failed | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.linger = 0
        for name, value in options.items():
            socket.set(getattr(zmq, name), value)
        socket.connect(endpoint)
        assert monitor.poll(PATIENCE_MS)
        assert recv_monitor_message(monitor)["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED, (kind, endpoint)
        socket.disable_monitor()
        socket.close()


def takeover():
    with connected(zmq.DEALER, ROUTER, IDENTITY=b"\x01same") as former:
        echo(former, b"1")
        # libzmq would connect again and take over in turn.
        former.set(zmq.RECONNECT_IVL, -1)
        with connected(zmq.DEALER, ROUTER, IDENTITY=b"\x01same") as current:
            echo(current, b"2")
            echo(current, b"3")


def many():
    sockets = [
        connected(kind, endpoint)
        for _ in range(100)
        for kind, endpoint in ((zmq.DEALER, ROUTER), (zmq.REQ, HEARTBEAT))
    ]
    for socket in sockets:
        socket.send(b"hello")
    for socket in sockets:
        assert socket.recv() == b"hello"
        socket.close()


for check in (dealer, pipelined, req, sub, sub_with_small_queue, unsubscribe, heartbeats, refused, takeover, many, dealer):
    check()
    print("ok", check.__name__, flush=True)
context.destroy(linger=0)
