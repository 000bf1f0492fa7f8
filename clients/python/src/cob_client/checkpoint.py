"""Checkpoints of a session: to go back to, to branch off from, or to wake up from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Callable, Generic, List, Mapping, Optional, Sequence, TypeVar, Union

if TYPE_CHECKING:
    from .session import Session

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ID = re.compile(r"s\d+\.k\d+\Z")


@dataclass(frozen=True)
class Finding:
    """Something that a checkpoint does not hold, or not as it was: a thread, a socket, …"""

    #: A word for programs: ``thread``, ``child``, ``cuda``, ``socket``, ``file``, …
    kind: str
    #: A sentence for people that names it.
    text: str
    #: A checkpoint is refused for it, unless it is forced.
    blocks: bool = False


@dataclass(frozen=True)
class Missing:
    """A variable that a durable checkpoint does not hold, or that a restore did not bring back."""

    name: str
    #: The type of its value, as far as that is known.
    kind: str
    #: A sentence.
    reason: str


@dataclass(frozen=True, repr=False)
class CheckpointView:
    """What the server says of a checkpoint."""

    #: Its name, never given twice: ``"s7.k3"``.
    id: str
    #: Where it is: ``memory`` (a process that waits), ``durable`` (in the store), or ``both``.
    tier: str
    label: Optional[str] = None
    #: It was taken without being asked for, and goes when newer ones come.
    automatic: bool = False
    #: The number of the last execution that it knows of; 0: none.
    execution: int = 0
    #: The highest ``In [count]`` by then.
    count: int = 0
    taken_at: datetime = _EPOCH
    #: The checkpoint that the session had come from, if it was restored or forked before.
    parent: Optional[str] = None
    #: Of one in memory: bytes that only it holds, as last measured.
    private_bytes: Optional[int] = None
    #: Of a durable one: bytes of its values.
    bytes: Optional[int] = None
    #: Of a durable one: those that were not in the store before it.
    new_bytes: Optional[int] = None
    findings: Sequence[Finding] = ()
    #: Of a durable one: the variables that it does not hold.
    missing: Sequence[Missing] = ()

    @property
    def age(self) -> timedelta:
        """How long ago it was taken, by this machine's clock."""
        return datetime.now(timezone.utc) - self.taken_at

    @property
    def is_durable(self) -> bool:
        """Whether it survives the server."""
        return self.tier != "memory"

    def __repr__(self) -> str:
        words = [type(self).__name__, self.id, *([repr(self.label)] if self.label else []), self.tier]
        words.append(f"after execution {self.execution}" if self.execution else "before any execution")
        return f"<{' '.join(words)}{_lacking(self.missing, self.findings)}>"


@dataclass(frozen=True, repr=False, kw_only=True)
class Checkpoint(CheckpointView):
    """A checkpoint of `session`, or one that it took in."""

    session: "Session" = field(compare=False)

    async def restore(self, **options: Any) -> "Restoration":
        """The session goes back to it; takes the options of `Session.restore`."""
        return await self.session.restore(self, **options)

    async def fork(self, n: int = 1, **options: Any) -> "List[Session]":
        """`n` new sessions that begin where it stands; takes the options of `Session.fork`."""
        return await self.session.fork(n, checkpoint=self, **options)

    async def drop(self) -> None:
        """It is not needed any more."""
        await self.session.drop_checkpoint(self)

    async def export(self, path: str) -> int:
        """Writes a durable one into a file on the server's host, and says how many bytes it has. For the operator."""
        return await self.session.export_checkpoint(self, path)


@dataclass(frozen=True, repr=False)
class Restoration:
    """What came of a restore. Effects outside the variables (files, mails, rows) are not undone by it."""

    #: Where the session went back to.
    checkpoint: str
    #: ``memory``: everything came back but what `findings` say; ``durable``: look at `missing`, too.
    tier: str
    #: From the checkpoint to the restore.
    age: timedelta = timedelta()
    #: Executions that had begun since. What they did to variables is undone.
    executions_since: int = 0
    #: From a durable one: variables that were set.
    restored: Sequence[str] = ()
    #: Variables that did not come back.
    missing: Sequence[Missing] = ()
    #: Variables that are not of the checkpoint and stayed.
    kept: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    #: Numbers of the last executions whose source looks as if it defined what is missing: a guess. Nothing runs again
    #: by itself.
    rebuild: Sequence[int] = ()

    def __repr__(self) -> str:
        seconds = f"{self.age.total_seconds():.1f} s old"
        count = self.executions_since
        since = f"{count} execution{'s' * (count > 1)} undone" if count else "nothing undone"
        return f"<Restoration {self.checkpoint} {self.tier}, {seconds}, {since}{_lacking(self.missing, self.findings)}>"

    @classmethod
    def of(cls, content: Any) -> Optional["Restoration"]:
        """From a message; `None` where there is none."""
        if not isinstance(content, Mapping):
            return None
        told = _told(cls, content)
        told["checkpoint"], told["tier"] = str(content.get("checkpoint", "")), str(content.get("tier", ""))
        return cls(**told, age=timedelta(milliseconds=_number(content.get("age_ms"))))


Held = TypeVar("Held", bound=CheckpointView)


class Checkpoints(List[Held], Generic[Held]):
    """The checkpoints of a session, oldest first, and what it does about them."""

    #: The policy that is in force, see `Client.open_session`.
    policy: Mapping[str, Any]
    #: Why the last automatic one was not taken, if it was not.
    skipped: Optional[str]

    def __init__(self, items: Sequence[Held], policy: Mapping[str, Any], skipped: Optional[str]) -> None:
        super().__init__(items)
        self.policy = policy
        self.skipped = skipped


def view_fields(view: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `CheckpointView` from a message."""
    told = _told(CheckpointView, view)
    told["id"], told["tier"] = str(view.get("checkpoint", "")), str(view.get("tier", ""))
    told["taken_at"] = _EPOCH + timedelta(microseconds=_number(view.get("taken_at")))
    return told


def id_of(checkpoint: Union[str, CheckpointView]) -> str:
    """Its name."""
    return checkpoint.id if isinstance(checkpoint, CheckpointView) else checkpoint


def named(checkpoint: Union[str, CheckpointView]) -> dict[str, str]:
    """How a request says which: text that is not the name of a checkpoint is a label."""
    name = id_of(checkpoint)
    is_id = isinstance(checkpoint, CheckpointView) or _ID.match(name)
    return {"checkpoint" if is_id else "label": name}


def _told(kind: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a message says of the fields of a dataclass that mean the same in both."""
    told = {each.name: content[each.name] for each in fields(kind) if content.get(each.name) is not None}
    readers: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {"findings": _finding, "missing": _missing}
    for name, read in readers.items():
        if name in told:
            told[name] = tuple(read(entry) for entry in told[name] if isinstance(entry, Mapping))
    for name in ("restored", "kept", "rebuild"):
        if name in told:
            told[name] = tuple(told[name])
    return told


def _finding(content: Mapping[str, Any]) -> Finding:
    return Finding(str(content.get("kind", "")), str(content.get("text", "")), bool(content.get("blocks")))


def _missing(content: Mapping[str, Any]) -> Missing:
    return Missing(str(content.get("name", "")), str(content.get("kind", "")), str(content.get("reason", "")))


def _lacking(missing: Sequence[Missing], findings: Sequence[Finding]) -> str:
    names = f", missing: {', '.join(each.name for each in missing)}" if missing else ""
    kinds = f", findings: {', '.join(each.kind for each in findings)}" if findings else ""
    return names + kinds


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0
