"""An agent that works in JavaScript: the code calls a tool, shows a table, and two branches go on from where it stands.

    $ cob serve &
    $ python javascript_agent.py

TypeScript runs as it is. The code reaches no file, no network and no process: what it needs, it asks for.
"""

from __future__ import annotations

import asyncio

import cob_client

#: What a model might write. Types are checked by nobody; they may be there.
LOAD = """
type Order = { item: string; count: number };
const orders: Order[] = [{ item: "tea", count: 3 }, { item: "cake", count: 2 }];
const priced = [];
for (const { item, count } of orders) {
  priced.push({ item, count, price: await cob.tools.price({ item }) });
}
cob.display(cob.table(priced));
console.log(`${priced.length} orders`);
"""

#: Two ideas of a discount. Each branch changes the orders in place, and sees nothing of the other.
IDEAS = {
    "a fifth off tea": "for (const row of priced) if (row.item === 'tea') row.price *= 0.8;",
    "one cake is free": "priced.find((row) => row.item === 'cake').count -= 1;",
}

TOTAL = "priced.reduce((sum, { count, price }) => sum + count * price, 0)"


async def main() -> None:
    async with cob_client.connect() as client, await client.open_session(language="javascript") as session:

        @session.tool
        def price(item: str) -> float:
            """What the program knows and the code does not."""
            return {"tea": 2.5, "cake": 4.0}[item]

        result = await session.run(LOAD)
        print(result.stdout, end="")
        print("shown:", ", ".join(sorted(result.displays[0].data)))
        # The checkpoint is a copy of the worker's memory: it takes milliseconds, whatever the session holds.
        before = await session.checkpoint("before discounts")
        branches = await session.fork(len(IDEAS), checkpoint=before)
        for (name, code), branch in zip(IDEAS.items(), branches):
            print(f"{name}: {(await branch.run(code + TOTAL)).text}")
            await branch.close()
        print(f"as it was: {(await session.run(TOTAL)).text}")


if __name__ == "__main__":
    asyncio.run(main())
