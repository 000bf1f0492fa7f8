"""An agent that may spoil its data: what a failed step did to variables is undone before the next one is tried.

    $ cob serve &
    $ python undo_loop.py

With ``checkpoints="auto"`` the session keeps itself as it was before each of the last few executions. Undone are variables,
never effects outside: files that were written, mails that were sent.
"""

from __future__ import annotations

import cob_client

DATA = """
orders = [{"item": "tea", "price": "2.50"}, {"item": "cake", "price": "3,20"}, {"item": "jam", "price": "4.00"}]
"""

#: What a model might propose, one after the other, when it sees that the one before failed.
PROPOSALS = [
    # Fails at the cake, with the tea changed already: tried again, it would fail at the tea.
    'for order in orders: order["cents"] = round(float(order.pop("price")) * 100)',
    # Ends by force: it does not even react to an interrupt.
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); orders.clear()\nwhile True: pass",
    'for order in orders: order["cents"] = round(float(order.pop("price").replace(",", ".")) * 100)',
]


def main() -> None:
    with cob_client.connect_blocking() as client:
        with client.open_session(checkpoints="auto", interrupt_grace=0.5) as session:
            session.run(DATA)
            for code in PROPOSALS:
                result = session.run(code, check=False, deadline=2.0)
                if result.ok:
                    break
                print("failed:", result.error.code or result.error.ename if result.error else "?")
                if result.restored is not None:
                    # Its process had to be killed: the session went back by itself.
                    print("  the session is as it was at", result.restored.checkpoint)
                else:
                    print("  without an undo:", session.run("orders[0]").text)
                    # Before the step and before the look at what it had done.
                    session.undo(2)
                print("  now:", session.run("orders[0]").text)
            print("total:", session.run("sum(order['cents'] for order in orders)").text)


if __name__ == "__main__":
    main()
