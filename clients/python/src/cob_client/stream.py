"""Numbered items that come at their reader's pace, through any number of connections.

The server sends as much as it was granted; more is granted as items are read. After a reconnect a stream goes on after
the last item it got: none comes twice, and none is missing unnoticed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, Mapping, Optional, TypeVar

from .connection import Connection, Request
from .errors import CobError, ConnectionLost, from_content
from .wire import Message

Item = TypeVar("Item")


class Stream(ABC, Generic[Item]):
    """One subscription, for one reader. Subclasses say how to ask for it and what its messages mean.

    **Invariant:** items that cost credit are in `_items`, or were granted and not sent yet: never more than the window.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._window = max(1, connection.options.window)
        self._items: deque[tuple[Item, int]] = deque()
        self._changed = asyncio.Event()
        self._subscription: Optional[str] = None
        #: Credit of items that were read, not granted again yet.
        self._owed = 0
        #: Whether somebody is to subscribe after a reconnect.
        self._is_open = False
        self._is_ended = False
        self._failure: Optional[CobError] = None

    # --- For subclasses --------------------------------------------------------------------------------------

    @abstractmethod
    def _request(self, credit: int) -> tuple[str, Mapping[str, Any]]:
        """How to subscribe, from the first item that has not come."""

    @abstractmethod
    def _take(self, message: Message) -> None:
        """A message of the subscription."""

    def _opened(self, reply: Message) -> None:
        """The subscription stands."""

    def _put(self, item: Item, cost: int = 1) -> None:
        self._items.append((item, cost))
        self._changed.set()

    def _return(self, credit: int) -> None:
        """So much was used up and is free again."""
        self._owed += credit
        if self._subscription is not None and self._owed * 2 >= self._window:
            self._connection.tell("credit", {"subscription": self._subscription, "credit": self._owed})
            self._owed = 0

    def _end(self) -> None:
        self._is_ended = True
        self._close()

    # --- Life ------------------------------------------------------------------------------------------------

    def attach(self, subscription: str) -> None:
        """Its messages come under this name from now on."""
        if not self._is_ended:
            if self._subscription is not None:
                self._connection.routes.pop(self._subscription, None)
            self._subscription = subscription
            self._is_open = True
            self._connection.resumables[id(self)] = self
            self._connection.routes[subscription] = self._route

    def open(self) -> None:
        """Subscribes, unless that is done."""
        if not self._is_open and not self._is_ended:
            self._is_open = True
            self._connection.resumables[id(self)] = self
            self._connection.spawn(self._subscribe())

    def resume(self) -> None:
        """There is a new connection: the old subscription ended with the old one."""
        if self._is_open and self._is_lost():
            self._subscription = None
            self._connection.spawn(self._subscribe())

    def _is_lost(self) -> bool:
        return self._subscription is not None and self._subscription not in self._connection.routes

    def fail(self, error: CobError) -> None:
        """It cannot go on. The reader is told once, after what has come; when it reads again, it is tried again."""
        if self._is_open:
            self._failure = error
            self._close()

    async def stop(self) -> None:
        """The reader wants no more."""
        subscription = self._subscription
        self._end()
        if subscription is not None and self._connection.is_connected:
            try:
                await self._connection.request("unsubscribe", {"subscription": subscription})
            except CobError:
                # It had ended, which is what was asked for.
                pass

    def _close(self) -> None:
        self._is_open = False
        self._connection.resumables.pop(id(self), None)
        if self._subscription is not None:
            self._connection.routes.pop(self._subscription, None)
            self._subscription = None
        self._changed.set()

    async def _subscribe(self) -> None:
        msg_type, content = self._request(self._window - sum(cost for _, cost in self._items))
        self._owed = 0
        try:
            self._opened(await self._connection.submit(Request(msg_type, content, on_sent=self.attach)))
        except CobError as error:
            self.fail(error)

    def _route(self, message: Message) -> None:
        if message.type != "subscription_end":
            self._take(message)
            return
        reason, error = message.content.get("reason"), message.content.get("error")
        if reason != "failed":
            self._take(message)
            self._end()
            return
        failure = from_content(error if isinstance(error, dict) else {"evalue": str(error or "the subscription failed")})
        if failure.code == "slow_subscriber":
            # Everything is kept at the server: it goes on from where it was.
            self._again()
        else:
            self.fail(failure)

    def _again(self) -> None:
        """The subscription is no good any more: another one, from the first item that has not come."""
        if self._subscription is not None:
            self._connection.routes.pop(self._subscription, None)
            self._connection.tell("unsubscribe", {"subscription": self._subscription})
        self.resume()

    # --- Reading ---------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Items that have come and were not read."""
        return len(self._items)

    async def next(self) -> Optional[Item]:
        """The next item; `None` at the end."""
        entry = await self.next_entry()
        return entry[0] if entry is not None else None

    async def next_entry(self) -> Optional[tuple[Item, int]]:
        """As `next`, with what the item cost: for items that may be `None` themselves."""
        while not self._items:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._is_ended:
                return None
            if self._connection.is_closed:
                raise ConnectionLost("this client is closed.")
            self.open()
            self._changed.clear()
            await self._changed.wait()
        entry = self._items.popleft()
        if entry[1]:
            self._return(entry[1])
        return entry


class Numbers:
    """Which numbered items have come: tells the next one from one that is here already, and from one too many."""

    def __init__(self, first: int = 1) -> None:
        self.next = first

    def admit(self, number: int) -> Optional[bool]:
        """`True`: it is the next. `False`: it is here already. `None`: one is missing before it."""
        if number == self.next:
            self.next += 1
            return True
        return False if number < self.next else None
