"""`python -m lib.text.storyteller --port 0`: the storyteller as a program on the loopback.

In:   flags: port, seed, the mischief
Out:  one JSON line {"base_url": ...} on stdout, then HTTP

With --parent it ends when that process does, however that ends: it looks at its parent's number five times a second.
(PR_SET_PDEATHSIG would be tied to the parent's *thread*, and a worker thread may end long before its process.)
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from typing import Annotated

import cyclopts
import uvicorn
from cyclopts import Parameter

from lib.text.storyteller.mischief import Mischief, parse_planted
from lib.text.storyteller.server import Storyteller

CUT_ON_PURPOSE = "returned without completing response"  # what uvicorn says when a reply is cut off: see server.py

app = cyclopts.App(name="storyteller", help="A story grammar behind an OpenAI-compatible endpoint on 127.0.0.1.")


@app.default
def serve(
    *,
    port: int = 0,
    seed: int = 0,
    parent: int | None = None,
    planted: list[str] | None = None,
    mischief: Annotated[Mischief | None, Parameter(name="*")] = None,
) -> None:
    """Serve until stopped.

    Parameters
    ----------
    port
        0 takes a free one.
    seed
        Another seed tells other stories for the same requests.
    parent
        End when this process is no longer our parent.
    planted
        CONCEPT=RATE, for example troll=0.01; may be given several times.
    """
    try:
        mischief = Mischief(**(mischief or Mischief()).model_dump() | {"planted": parse_planted(planted or [])})
    except ValueError as error:
        raise SystemExit(f"storyteller: {error}") from error
    listener = _listen(port)
    print(json.dumps({"base_url": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"}), flush=True)
    teller = Storyteller(seed, mischief)
    quiet = {"access_log": False, "log_level": "warning"}
    logging.getLogger("uvicorn.error").addFilter(lambda line: CUT_ON_PURPOSE not in line.getMessage())
    config = uvicorn.Config(teller, lifespan="off", ws="none", timeout_keep_alive=60, **quiet)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(uvicorn.Server(config), listener, parent))


def _listen(port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol number says TCP, and socket.create_server leaves it 0;
    # without it, each answer waits 40 ms for the client's delayed ACK (8 connections: 175 answers/s, not 1,900).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise SystemExit(f"storyteller: port {port} cannot be had ({error}); --port 0 takes a free one") from error
    listener.listen(1024)  # before the address is printed: from now on a client is let in, or waits
    return listener


async def _serve(server: uvicorn.Server, listener: socket.socket, parent: int | None) -> None:
    async with asyncio.TaskGroup() as together:
        if parent is not None:
            together.create_task(_watch(parent, server))
        together.create_task(server.serve(sockets=[listener]))


async def _watch(parent: int, server: uvicorn.Server) -> None:
    while os.getppid() == parent and not server.should_exit:
        await asyncio.sleep(0.2)
    server.should_exit = server.force_exit = True


if __name__ == "__main__":
    app()
