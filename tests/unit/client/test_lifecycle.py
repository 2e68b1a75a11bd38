"""A client's life: closing, loops, forks and threads."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import stockray
from stockray import AsyncClient, Client, ClientClosed, GrabLine

from tests.unit.client.scripted import ScriptedServer, reserve_all


async def test_closing_lets_waiting_lines_come_to_their_end(server: ScriptedServer) -> None:
    entered, opened = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        entered.set()
        await opened.wait()
        return await reserve_all(request, context)

    server.on("GrabMany", slow)
    client = AsyncClient(server.address)
    waiters = [asyncio.ensure_future(client.grab("c", "s", buyer_id=f"u-{i}")) for i in range(3)]
    await entered.wait()
    closing = asyncio.ensure_future(client.close())
    await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await client.grab("c", "s", buyer_id="late")
    opened.set()
    await closing

    assert [answer.ok for answer in await asyncio.gather(*waiters)] == [True] * 3
    with pytest.raises(ClientClosed):
        await client.get_stock("s")
    await client.close()


async def test_closing_waits_for_single_requests_and_manys(server: ScriptedServer) -> None:
    client = AsyncClient(server.address, call_lines_max=2)
    many = asyncio.ensure_future(client.grab_many([GrabLine("c", "s", "u")] * 20))
    read = asyncio.ensure_future(client.get_stock("s"))
    await asyncio.sleep(0)
    await client.close()

    assert len(await many) == 20
    assert (await read).message == ""


async def test_closing_a_client_that_was_never_used_does_nothing() -> None:
    client = AsyncClient("127.0.0.1:1")
    await client.close()
    with pytest.raises(ClientClosed):
        await client.grab("c", "s", buyer_id="u")


async def test_another_loop_gets_a_clear_error(server: ScriptedServer) -> None:
    def elsewhere(client: AsyncClient) -> None:
        asyncio.run(client.cluster_status())

    async with AsyncClient(server.address) as client:
        with pytest.raises(ClientClosed, match="another event loop"):
            await asyncio.to_thread(elsewhere, client)
        assert (await client.grab("c", "s", buyer_id="u")).ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_a_clear_error() -> None:
    client = Client("127.0.0.1:1")
    child = os.fork()
    if child == 0:
        try:
            client.grab("c", "s", buyer_id="u")
        except ClientClosed as error:
            os._exit(0 if "fork" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    client.close()

    assert os.waitstatus_to_exitcode(status) == 0


def test_many_threads_share_one_client(threaded: ScriptedServer) -> None:
    answers: dict[str, stockray.ReserveResult] = {}

    with Client(threaded.address) as client:

        def buyer(number: int) -> None:
            for turn in range(10):
                name = f"u-{number}-{turn}"
                answers[name] = client.grab("double-11", "sku-1001", buyer_id=name)

        threads = [threading.Thread(target=buyer, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(answers) == 160
    assert all(answer.reservation_id == f"r-{name}" for name, answer in answers.items())
    assert len(threaded.calls["GrabMany"]) < 160


def test_a_closed_synchronous_client_says_so(threaded: ScriptedServer) -> None:
    client = Client(threaded.address)
    assert client.grab("c", "s", buyer_id="u").ok
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.grab("c", "s", buyer_id="u")


def test_both_clients_have_the_same_verbs() -> None:
    def verbs(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert verbs(AsyncClient) == verbs(Client)


async def test_tls_is_spoken_with_the_given_roots(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    secure = ScriptedServer()
    await secure.start(credentials=grpc.ssl_server_credentials([(key, certificate)]))
    async with AsyncClient(
        secure.address, tls=True, tls_ca_pem=certificate, tls_server_name="stock.test"
    ) as client:
        assert (await client.grab("c", "s", buyer_id="u")).ok
    async with AsyncClient(secure.address, tls=True, timeout_ms=300) as stranger:
        with pytest.raises(stockray.DeadlineExceeded):
            await stranger.get_stock("s")
    await secure.stop()


def self_signed(folder: Path) -> tuple[bytes, bytes]:
    """A key and a certificate for stock.test, by the system's openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is missing, and TLS must be tested in CI")
        pytest.skip("OPENSSL IS MISSING: TLS is not tested here")
    options = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stock.test"]
    options += ["-addext", "subjectAltName=DNS:stock.test", "-keyout", "key", "-out", "cert"]
    subprocess.run([openssl, *options], cwd=folder, check=True, capture_output=True)
    return (folder / "key").read_bytes(), (folder / "cert").read_bytes()
