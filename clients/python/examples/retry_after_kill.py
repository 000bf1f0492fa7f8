"""A server is killed in the middle of the work and started again. The work goes on, and is done once.

    $ python retry_after_kill.py [path of cob]

It starts a server of its own, in a folder of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cob_client

CODE = """
import time
with open(effect, "a") as file:
    file.write("charged 10 EUR\\n")
for step in range(5):
    print("step", step, flush=True)
    time.sleep(0.3)
"""


def serve(cob: str, folder: str) -> "subprocess.Popen[bytes]":
    """A server with its records in `folder`; it says on its output when it serves."""
    places = {"COB_RUNTIME_DIR": f"{folder}/run", "COB_STATE_DIR": f"{folder}/state"}
    server = subprocess.Popen([cob, "serve"], stdout=subprocess.PIPE, env={**os.environ, **places})
    assert server.stdout is not None
    if not server.stdout.readline():
        sys.exit("the server did not start; what it says stands above")
    return server


def main(cob: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cob-") as folder:
        server = serve(cob, folder)
        effect = Path(folder, "effect")
        try:
            with cob_client.connect_blocking(f"{folder}/run/server.json") as client:
                session = client.open_session()
                session.run(f"effect = {str(effect)!r}")
                execution = session.execute(CODE, key="invoice 7")
                for event in execution:
                    print(repr(event))
                    if event.text is not None and "step 1" in event.text:
                        server.kill()
                        server.wait()
                        print("-- killed; the code runs on, and here comes the next server")
                        server = serve(cob, folder)
                again = session.execute(CODE, key="invoice 7")
                print("asked again:", again.promise, "joined" if again.joined else "NEW")
                print("output:", again.result().stdout.split("\n"))
                print("effect:", effect.read_text().strip())
                session.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cob")
