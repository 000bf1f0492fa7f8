"""Several sessions at once, each tries another way; the best result wins and the others are thrown away.

    $ cob serve &
    $ python parallel_branches.py
"""

from __future__ import annotations

import asyncio

import cob_client

#: What a model might propose when it is asked for three different ways to find the lowest point of a curve.
BRANCHES = {
    "walk downhill": """
x = 4.0
for _ in range(200):
    x -= 0.01 * (f(x + 1e-6) - f(x - 1e-6)) / 2e-6
""",
    "try a grid": "x = min((n / 100 for n in range(-500, 501)), key=f)",
    "divide by zero": "x = 1 / 0",
    "think too long": "while True: pass",
}

CURVE = """
import math
def f(x):
    return x * x / 10 + math.sin(3 * x)
"""


async def attempt(client: cob_client.Client, name: str, code: str) -> tuple[float, str]:
    """One branch, in a session of its own; what fails is infinitely bad."""
    async with await client.open_session(name=name, limits="memory=512M") as session:
        await session.run(CURVE)
        result = await session.run(f"{code}\nf(x)", check=False, deadline=2.0)
        if result.error is not None:
            print(f"  {name}: {result.error.code or result.error.ename}")
            return float("inf"), name
        print(f"  {name}: {result.text}")
        return float(result.text or "inf"), name


async def main() -> None:
    async with cob_client.connect() as client:
        attempts = await asyncio.gather(*(attempt(client, name, code) for name, code in BRANCHES.items()))
        value, name = min(attempts)
        print(f"best: {name} with {value:.4f}")


if __name__ == "__main__":
    asyncio.run(main())
