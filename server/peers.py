"""What people do today, measured in the same run: a Lua script on Redis, a row lock in MySQL.

Both as their users write them, with a hot SKU and one unit a call. Neither is as safe as what it is
compared with: the Redis here flushes its log once a second, as by default, and may lose the last
sales with the machine.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import redis.asyncio
from hdrh.histogram import HdrHistogram

from persistence.private import PrivateMariaDB, PrivateRedis

RESERVE = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local left = tonumber(redis.call('GET', KEYS[1]))
if left < 1 then return 0 end
redis.call('DECRBY', KEYS[1], 1)
redis.call('SET', KEYS[2], 1)
redis.call('XADD', KEYS[3], '*', 'buyer', ARGV[1])
return 1
"""
UNITS = 100_000_000
MYSQL_THREADS = 16


class PeerRate:
    """How many sales a peer made, and how long each took."""

    def __init__(self) -> None:
        self.sold = 0
        self.seconds = 0.0
        self.latency_us = HdrHistogram(1, 60_000_000, 3)


def measure_redis_lua(directory: Path, *, callers: int, seconds: float) -> PeerRate:
    """redis-py asyncio, so many callers, one script call a sale, appendfsync everysec."""
    server = PrivateRedis(directory / "peer-redis", settings={"appendfsync": "everysec"})
    server.start()
    try:
        return asyncio.run(_redis_callers(server.url, callers, seconds))
    finally:
        server.stop()


async def _redis_callers(url: str, callers: int, seconds: float) -> PeerRate:
    client = redis.asyncio.Redis.from_url(url, max_connections=callers)
    rate = PeerRate()
    await client.set("stock", UNITS)
    script = client.register_script(RESERVE)
    await script(keys=["stock", "buyer:first", "orders"], args=["first"])
    began = time.perf_counter()

    async def caller(number: int) -> None:
        turn = 0
        while (started := time.perf_counter()) < began + seconds:
            buyer = f"{number}-{turn}"
            done = await script(keys=["stock", f"buyer:{buyer}", "orders"], args=[buyer])
            rate.sold += int(done)
            rate.latency_us.record_value(max(1, int((time.perf_counter() - started) * 1e6)))
            turn += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(callers):
            tasks.create_task(caller(number))
    rate.seconds = time.perf_counter() - began
    await client.aclose()
    return rate


def measure_mysql(directory: Path, *, seconds: float) -> PeerRate:
    """PyMySQL, sixteen threads: a conditional UPDATE of the hot row and an order, one commit."""
    server = PrivateMariaDB(directory / "peer-mariadb")
    server.start()
    try:
        return _mysql_callers(server.url, seconds)
    finally:
        server.stop()


def _mysql_callers(url: str, seconds: float) -> PeerRate:
    rate = PeerRate()
    connect = _connector(url)
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE peer_stock (sku INT PRIMARY KEY, units BIGINT NOT NULL)")
        cursor.execute(
            "CREATE TABLE peer_orders (id BIGINT AUTO_INCREMENT PRIMARY KEY,"
            " buyer VARCHAR(64) NOT NULL UNIQUE)"
        )
        cursor.execute("INSERT INTO peer_stock VALUES (1, %s)", (UNITS,))
        connection.commit()
    lock = threading.Lock()
    until = time.perf_counter() + seconds

    def caller(number: int) -> None:
        turn = 0
        with connect() as connection, connection.cursor() as cursor:
            while (started := time.perf_counter()) < until:
                sold = cursor.execute(
                    "UPDATE peer_stock SET units = units - 1 WHERE sku = 1 AND units >= 1"
                )
                cursor.execute("INSERT INTO peer_orders (buyer) VALUES (%s)", (f"{number}-{turn}",))
                connection.commit()
                took_us = max(1, int((time.perf_counter() - started) * 1e6))
                turn += 1
                with lock:
                    rate.sold += int(sold)
                    rate.latency_us.record_value(took_us)

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(MYSQL_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate.seconds = seconds
    return rate


def _connector(url: str) -> Callable[[], "pymysql.connections.Connection[Any]"]:
    parts = urlsplit(url)

    def connect() -> "pymysql.connections.Connection[Any]":
        return pymysql.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=parts.username or "",
            password=parts.password or "",
            database=parts.path.strip("/"),
            connect_timeout=10,
            read_timeout=30,
            write_timeout=30,
        )

    return connect
