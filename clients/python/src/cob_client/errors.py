"""Everything that can be raised, made from the server's error codes: one class per family.

A code is stable and meant for programs. The classes sort codes by who can mend it; a few have a class of their own,
because callers want to catch exactly them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

if TYPE_CHECKING:
    from .result import Result


class CobError(Exception):
    """The root of all errors of this package.

    `code` is the stable name (``"busy"``), `hint` says what to do, `retry_after` is in seconds where the server said it.
    """

    def __init__(
        self, message: str, *, code: str = "", hint: str = "", retry_after: Optional[float] = None, ename: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.retry_after = retry_after
        self.ename = ename

    def __str__(self) -> str:
        message = self.message
        if message and self.hint and message[-1] not in ".?!":
            message += "."
        parts = [f"[{self.code}]" if self.code else "", message, self.hint]
        return " ".join(part for part in parts if part)


class ServerNotFound(CobError):
    """There is no server where one was looked for."""


class ConnectionLost(CobError):
    """The server could not be reached again for as long as this client was patient."""


class ProtocolError(CobError):
    """The server said something that makes no sense to this client."""


class RequestError(CobError):
    """The request was wrong: another one is needed."""


class NotFound(RequestError):
    """No such session, promise, checkpoint or subscription."""


class Forbidden(RequestError):
    """It belongs to somebody else."""


class KeyReused(RequestError):
    """The idempotency key was used before, for another request."""


class AlreadySettled(RequestError):
    """Somebody was first; the first answer counts."""


class NotSettled(RequestError):
    """It has not ended within the time that was given."""


class SessionClosed(RequestError):
    """The session has ended; what was recorded of it can still be read."""


class Canceled(RequestError):
    """It was cancelled, or its session was restarted, before it ended."""


class ToolUnavailable(RequestError):
    """Nobody offers the tool."""


class CheckpointRefused(RequestError):
    """Something would be missing in it (a thread, a child process, a variable), and it was not forced."""


class CheckpointFailed(CobError):
    """It could not be taken or restored; the session goes on as it was."""


class Incompatible(RequestError):
    """It was made with another interpreter or other packages, and the restore was not forced."""


class Untrusted(RequestError):
    """It is not signed with the key that was given: nothing of it was loaded."""


class LimitReached(CobError):
    """A limit was reached: of memory, time, size…"""


class Busy(LimitReached):
    """The server has too much to do; nothing was recorded. Already tried again for a while."""


class CodeError(CobError):
    """The code that ran was wrong."""


class WorkerFailed(CobError):
    """The process that runs the code failed: its variables are gone, or those of a checkpoint (`Result.restored`)."""


class ServerFailed(CobError):
    """cob itself failed, or its disk is full."""


class ExecutionError(CobError):
    """Code did not end well. `ename`, `evalue` and `traceback` are those of the code's own error.

    Where cob ended it (a limit, a lost worker, a cancel), `code` and `hint` say so and ``__cause__`` is of that family.
    `result` has everything the code printed before.
    """

    def __init__(self, result: "Result") -> None:
        error = result.error
        assert error is not None, "only a failed execution is raised"
        self.result = result
        self.evalue = error.evalue
        self.traceback = error.traceback
        super().__init__(f"{error.ename}: {error.evalue}", code=error.code, hint=error.hint, ename=error.ename)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.traceback])


class Declined(Exception):
    """Raise it in an `on_input` to refuse an answer, with the reason."""


#: The error codes of the protocol, and what is raised for each.
FAMILIES: Mapping[str, type[CobError]] = {
    "bad_request": RequestError,
    "request_too_large": LimitReached,
    "key_reused": KeyReused,
    "busy": Busy,
    "worker_start_failed": WorkerFailed,
    "worker_lost": WorkerFailed,
    "worker_stalled": WorkerFailed,
    "interrupted_by_force": CodeError,
    "memory_limit": LimitReached,
    "cpu_limit": LimitReached,
    "time_limit": LimitReached,
    "disk_limit": LimitReached,
    "execution_lost": ServerFailed,
    "deadline_passed": LimitReached,
    "store_full": ServerFailed,
    "store_busy": ServerFailed,
    "store_failed": ServerFailed,
    "invalid_limit": RequestError,
    "not_greeted": RequestError,
    "unsupported_version": RequestError,
    "forbidden": Forbidden,
    "unknown_session": NotFound,
    "unknown_promise": NotFound,
    "unknown_subscription": NotFound,
    "already_settled": AlreadySettled,
    "not_settled": NotSettled,
    "session_closed": SessionClosed,
    "restarted": Canceled,
    "canceled": Canceled,
    "tool_unavailable": ToolUnavailable,
    "unknown_checkpoint": NotFound,
    "checkpoint_refused": CheckpointRefused,
    "checkpoint_limit": LimitReached,
    "checkpoint_failed": CheckpointFailed,
    "incompatible_checkpoint": Incompatible,
    "untrusted_bundle": Untrusted,
    "damaged_bundle": ServerFailed,
    "slow_subscriber": LimitReached,
    "shutting_down": ServerFailed,
}


def from_content(content: Mapping[str, Any]) -> CobError:
    """The error that a reply with ``status: "error"`` stands for. A code that is newer than this client is a `CobError`."""
    code = str(content.get("code") or "")
    after = content.get("retry_after_ms")
    ename = str(content.get("ename") or "")
    return FAMILIES.get(code, CobError)(
        str(content.get("evalue") or ename or "the server refused without saying why"),
        code=code,
        hint=str(content.get("hint") or ""),
        retry_after=after / 1000 if isinstance(after, (int, float)) else None,
        ename=ename,
    )
