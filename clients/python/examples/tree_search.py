"""A search over states of a program: the best one is forked, every branch tries another step, the best goes on.

    $ cob serve &
    $ python tree_search.py

Forking takes milliseconds, whatever the session holds: the data is loaded once, and no branch sees another's changes.
"""

from __future__ import annotations

import asyncio

import cob_client

START = """
import math, random, statistics
random.seed(4)
rows = [random.lognormvariate(3, 1) for _ in range(2000)] + [-1.0] * 15 + [1e6] * 3

def skewness():
    mean, deviation = statistics.fmean(rows), statistics.pstdev(rows)
    return abs(sum(((row - mean) / deviation) ** 3 for row in rows) / len(rows))
skewness()
"""

#: What a model might propose to make the rows even. They change them in place, and some fail half-way.
STEPS = {
    "logarithms": "for n, row in enumerate(rows): rows[n] = math.log(row)",
    "drop what cannot be": "rows[:] = [row for row in rows if row > 0]",
    "cut the tails": "rows.sort(); cut = len(rows) // 100; rows[:] = rows[cut:-cut]",
    "square roots": "for n, row in enumerate(rows): rows[n] = math.sqrt(row)",
}


async def attempt(branch: cob_client.Session, code: str) -> float:
    """One step in a branch; what fails is infinitely bad, and its half-changed rows go with the branch."""
    result = await branch.run(f"{code}\nskewness()", check=False)
    return float(result.text or "inf") if result.ok else float("inf")


async def grow(node: cob_client.Session, steps: dict[str, str]) -> tuple[float, str, cob_client.Session]:
    """The best of all steps from here, in a session of its own."""
    branches = await node.fork(len(steps))
    scores = await asyncio.gather(*map(attempt, branches, steps.values()))
    best, name, kept = min(zip(scores, steps, branches), key=lambda each: each[0])
    await asyncio.gather(*(branch.close() for branch in branches if branch is not kept))
    return best, name, kept


async def main() -> None:
    async with cob_client.connect() as client:
        node, steps = await client.open_session(name="search"), dict(STEPS)
        score = float((await node.run(START)).text or "inf")
        print(f"at first: {score:.3f}")
        while steps:
            best, name, branch = await grow(node, steps)
            if best >= score:
                await branch.close()
                break
            await node.close()
            score, node = best, branch
            del steps[name]
            print(f"{name}: {score:.3f}, in {node.id}")
        print(f"best: {score:.3f} with {(await node.run('len(rows)')).text} rows")
        await node.close()


if __name__ == "__main__":
    asyncio.run(main())
