"""An agent's loop: a model proposes code, a session runs it, the model reads what came of it and repairs.

    $ cob serve &
    $ python data_analysis_agent.py

The "model" here is made up, so that no key is needed; yours goes where `Model.propose` stands.
"""

from __future__ import annotations

import asyncio
from typing import Optional

import cob_client

TASK = "Which weekday sells best, and how much on average?"

DATA = """
import random
random.seed(7)
days = ["Mon", "Tue", "Wed", "Thu", "Fri"]
sales = [(days[n % 5], random.randint(50, 100) + 40 * (n % 5 == 3)) for n in range(200)]
print(len(sales), "rows, for example", sales[0])
"""

FIRST = """
totals = {}
for day, amount in sales:
    totals[day].append(amount)
"""

REPAIRED = """
totals = {}
for day, amount in sales:
    totals.setdefault(day, []).append(amount)
"""

ANSWER = """
averages = {day: sum(amounts) / len(amounts) for day, amounts in totals.items()}
best = max(averages, key=averages.get)
print(f"best is {best}")
averages[best]
"""


class Model:
    """Stands for a language model: looks at what happened, and says what to run next."""

    def propose(self, last: Optional[cob_client.Result]) -> Optional[str]:
        if last is None:
            return FIRST
        if last.error is not None:
            return REPAIRED if last.error.ename == "KeyError" else None
        return ANSWER if last.text is None else None


async def main() -> None:
    async with cob_client.connect() as client:
        async with await client.open_session(name="analysis", limits="time=30s") as session:
            print("task:", TASK)
            print("data:", (await session.run(DATA)).stdout.strip())
            model, result = Model(), None
            for step in range(1, 10):
                code = model.propose(result)
                if code is None:
                    break
                # The key makes a step that is tried again, after a crash of this script too, one step.
                result = await session.run(code, check=False, key=f"step-{step}")
                if result.error is not None:
                    print(f"step {step}: {result.error.ename}: {result.error.evalue} – the model repairs it")
                else:
                    print(f"step {step}: fine {result.stdout.strip()}")
            if result is not None:
                print("answer:", result.stdout.strip(), "with", result.text)


if __name__ == "__main__":
    asyncio.run(main())
