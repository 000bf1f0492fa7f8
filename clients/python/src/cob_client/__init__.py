"""Run code in durable sessions of `cob serve`.

    import cob_client

    async with cob_client.connect() as client:
        async with await client.open_session() as session:
            result = await session.run("6 * 7")
            print(result.text)

Whatever becomes of the connection, of the server's process or of this one: code that was accepted is recorded and runs
once, and its events and its result can be asked for again. `connect_blocking` is the same without asyncio.
"""

from __future__ import annotations

import os
from typing import Any, Optional, Union

from .backoff import Patience
from .blocking import BlockingChannel, BlockingCheckpoint, BlockingClient, BlockingExecution, BlockingSession
from .channel import Channel
from .checkpoint import Checkpoint, Checkpoints, Finding, Missing, Restoration
from .client import Client
from .connection import Options
from .discovery import CurveKeys, Target
from .errors import (
    AlreadySettled,
    Busy,
    Canceled,
    CheckpointFailed,
    CheckpointRefused,
    CobError,
    CodeError,
    ConnectionLost,
    Declined,
    ExecutionError,
    Forbidden,
    Incompatible,
    KeyReused,
    LimitReached,
    NotFound,
    NotSettled,
    ProtocolError,
    RequestError,
    ServerFailed,
    ServerNotFound,
    SessionClosed,
    ToolUnavailable,
    Untrusted,
    WorkerFailed,
)
from .events import Event
from .execution import Execution, Prompt
from .result import ErrorInfo, Output, Result, Settlement
from .session import Session
from .tools import Tool

__version__ = "0.1.0"

__all__ = [
    "AlreadySettled",
    "BlockingChannel",
    "BlockingCheckpoint",
    "BlockingClient",
    "BlockingExecution",
    "BlockingSession",
    "Busy",
    "Canceled",
    "Channel",
    "Checkpoint",
    "CheckpointFailed",
    "CheckpointRefused",
    "Checkpoints",
    "Client",
    "CobError",
    "CodeError",
    "ConnectionLost",
    "CurveKeys",
    "Declined",
    "ErrorInfo",
    "Event",
    "Execution",
    "ExecutionError",
    "Finding",
    "Forbidden",
    "Incompatible",
    "KeyReused",
    "LimitReached",
    "Missing",
    "NotFound",
    "NotSettled",
    "Options",
    "Output",
    "Patience",
    "Prompt",
    "ProtocolError",
    "RequestError",
    "Restoration",
    "Result",
    "ServerFailed",
    "ServerNotFound",
    "Session",
    "SessionClosed",
    "Settlement",
    "Tool",
    "ToolUnavailable",
    "Untrusted",
    "WorkerFailed",
    "connect",
    "connect_blocking",
]


def connect(
    server: Optional[Union[str, os.PathLike[str]]] = None,
    *,
    key: Optional[Union[str, bytes]] = None,
    curve: Optional[CurveKeys] = None,
    **options: Any,
) -> Client:
    """A client, which ``async with`` or ``await`` connects.

    `server` is an endpoint url or the path of a ``server.json``; without it `COB_SERVER` is, else the server of this user
    on this machine. `key` signs the messages to a tcp endpoint, `curve` encrypts them. `options` are the fields of
    `Options`: `principal`, `patience`, `wait`, `window`, `heartbeat`, …
    """
    return Client(Target(server, key, curve), Options(**options))


def connect_blocking(
    server: Optional[Union[str, os.PathLike[str]]] = None,
    *,
    key: Optional[Union[str, bytes]] = None,
    curve: Optional[CurveKeys] = None,
    **options: Any,
) -> BlockingClient:
    """As `connect`, for programs without asyncio: a client that is connected, on a thread of its own."""
    return BlockingClient(connect(server, key=key, curve=curve, **options))
