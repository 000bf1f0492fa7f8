"""A session that is not needed for a while costs no process; the next request wakes it up with its variables.

    $ cob serve &
    $ python hibernate.py

What is put into the store is what Python can pickle. What it cannot is named before anything is given up.
"""

from __future__ import annotations

import cob_client

CODE = """
class Visit:
    def __init__(self, name):
        self.name = name

visits = [Visit("Ann"), Visit("Bob")]
latest = visits[-1]
numbers = (n * n for n in range(10))
"""


def main() -> None:
    with cob_client.connect_blocking() as client, client.open_session() as session:
        session.run(CODE)
        try:
            session.hibernate()
        except cob_client.CheckpointRefused as refusal:
            print("refused:", refusal.message)
        checkpoint = session.hibernate(force=True)
        print("asleep:", session.info()["state"], "missing:", [each.name for each in checkpoint.missing])
        # Nothing has to be done to wake it up.
        result = session.run("latest is visits[-1], latest.name")
        print("awake:", result.text)
        if result.restored is not None:
            print("from:", result.restored)
            # Where the server knows which code had made what is missing, it says so; it never runs anything again.
            print("to rebuild it, run again:", [f"{session.id}.e{number}" for number in result.restored.rebuild])


if __name__ == "__main__":
    main()
