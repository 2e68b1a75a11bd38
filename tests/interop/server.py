"""The interop server: `python -m tests.interop.server --front grpcio [--tls-folder DIR]`.

Serves `service.py` by a front of the project, prints `{"port": ...}` when it takes calls, and ends
with its standard input, so that it never outlives the test that started it.
"""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from server.admission import Admission
from server.fronts import FrontOptions, make_front
from server.handlers import HandlerTable
from tests.interop import service
from tests.interop.fronts import FRONTS

HOST = "127.0.0.1"


async def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--front", choices=FRONTS, required=True)
    parser.add_argument("--tls-folder", type=Path)
    arguments = parser.parse_args()
    admission = Admission()
    admission.open()
    table = HandlerTable(service.methods(), admission)
    options = FrontOptions(kind=arguments.front)
    if arguments.tls_folder:
        certificate, key = (str(arguments.tls_folder / f"{name}.pem") for name in ("cert", "key"))
        options = replace(options, tls_certificate=certificate, tls_key=key)
    front = make_front(options, table)
    port = front.listen(f"{HOST}:0")
    await front.start()
    print(json.dumps({"port": port}), flush=True)
    # Nobody reads the pipe from here on, and what is logged must not fill it.
    os.dup2(2, 1)
    await asyncio.to_thread(sys.stdin.read)
    await front.stop(grace_s=0)


if __name__ == "__main__":
    uvloop.run(main())
