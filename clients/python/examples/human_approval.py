"""Code asks a person before it does something that matters. The question outlives this script: end it with Ctrl-C while
it asks, start it again, and the same code waits for the same answer, with its variables.

    $ cob serve &
    $ python human_approval.py            # Ctrl-C, and again, as often as you like

An answer can be given on the command line, too: `python human_approval.py yes`.
"""

from __future__ import annotations

import os
import sys
from typing import Optional

import cob_client

CODE = """
import cob
draft = "Dear all, the kitchen is closed on Friday."
if cob.tools.approve(action="send a mail", text=draft):
    print("sent:", draft)
else:
    print("not sent")
"""


def main(given: Optional[str]) -> None:
    with cob_client.connect_blocking() as client:
        # The same keys find the same session and the same execution: nothing begins twice.
        session = client.open_session(name="mailer", key="human-approval")

        # Offered first: a call that has been waiting since the last time is put to us at once.
        @session.tool
        def approve(action: str, text: str) -> bool:
            """Asks a person."""
            print(f"The code wants to {action}:\n  {text}")
            answer = given if given is not None else input("May it? [yes/no] ")
            return answer.strip().lower() in ("y", "yes")

        execution = session.execute(CODE, key="the mail")
        print("found again:" if execution.joined else "asked for:", execution.promise)
        print(execution.result().stdout, end="")
        # Only now: whoever ends before this line finds everything again.
        session.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
    except cob_client.SessionClosed:
        print("That mail is decided, and its session has ended; `cob sessions --all` names it.")
    except KeyboardInterrupt:
        print("\nThe code waits on; start this again.", flush=True)
        # At once: the thread that asks is still waiting for a line.
        os._exit(130)
