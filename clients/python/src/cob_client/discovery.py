"""Where the server is: an explicit url, `COB_SERVER`, or the file that a running server leaves in its runtime folder."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import zmq

from .errors import ServerNotFound

#: Name of the server's file in its runtime folder.
SERVER_FILE = "server.json"
_HINT = "Start one with `cob serve`, or name it in COB_SERVER."


@dataclass(frozen=True)
class CurveKeys:
    """The keys of an encrypted connection, each in Z85 (40 characters): `cob keys add NAME` makes them."""

    #: The server's public key.
    server: str
    #: This client's secret key; the server must know the public one that belongs to it.
    secret: str = field(repr=False)

    @property
    def public(self) -> str:
        """This client's public key."""
        return zmq.curve_public(self.secret.encode()).decode()

    @classmethod
    def read(cls, server: str, path: Union[str, os.PathLike[str]]) -> "CurveKeys":
        """With the secret key that stands in a file (`NAME.key`)."""
        return cls(server.strip(), Path(path).read_text().strip())


@dataclass(frozen=True)
class Address:
    """Where to connect, and how to be believed there."""

    url: str
    key: bytes = field(default=b"", repr=False)
    curve: Optional[CurveKeys] = None


@dataclass(frozen=True)
class Target:
    """What the caller said about the server; looked at again on every reconnect, since a new server has a new key."""

    #: An endpoint url or the path of a server file; absent: `COB_SERVER`, else the runtime folder's.
    server: Optional[Union[str, os.PathLike[str]]] = None
    key: Optional[Union[str, bytes]] = field(default=None, repr=False)
    curve: Optional[CurveKeys] = None

    def resolve(self) -> Address:
        """The address as it stands now. `ServerNotFound` when there is none."""
        named = os.fspath(self.server) if self.server is not None else os.environ.get("COB_SERVER", "")
        key = self.key.encode() if isinstance(self.key, str) else self.key or b""
        if "://" in named:
            return Address(named, key, self.curve)
        return _from_file(Path(named) if named else runtime_folder() / SERVER_FILE)


def runtime_folder() -> Path:
    """The folder where the processes of this user find each other, by the server's own rules."""
    if folder := os.environ.get("COB_RUNTIME_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder) / "cob"
    return Path(tempfile.gettempdir()) / f"cob-{os.geteuid()}"


def read_server_file(path: Path) -> Mapping[str, Any]:
    """What a running server says of itself."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ServerNotFound(f"no server is described in {path}: {error.strerror}.", hint=_HINT) from error
    except ValueError as error:
        raise ServerNotFound(f"{path} does not describe a server: {error}.", hint=_HINT) from error
    if not isinstance(content, dict):
        raise ServerNotFound(f"{path} does not describe a server.", hint=_HINT)
    return content


def _from_file(path: Path) -> Address:
    content = read_server_file(path)
    if isinstance(ipc := content.get("ipc"), str):
        return Address(ipc)
    tcp = content.get("tcp")
    if isinstance(tcp, dict) and isinstance(tcp.get("endpoint"), str):
        return Address(tcp["endpoint"], str(tcp.get("key", "")).encode())
    raise ServerNotFound(f"{path} names no endpoint.", hint=_HINT)
