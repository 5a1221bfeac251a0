#!/usr/bin/env python3
"""Loads a running web server, and says how it bears it.

    bench/web.py http://127.0.0.1:5000 [SECONDS]

The server must allow one client as much (submit-job web --requests-per-second 1000000
--trusted-proxy 127.0.0.1) and have the shipped flights published behind it. First each page is read by 30 clients at once, each asking
again as soon as it has its answer; times until a response began are those that the server measures
(/metrics). Then 1,000 event streams are held open while 200 requests a second arrive.

Only Python's own library: the load costs the same cores as the server, so a client that does little
is a fair one.
"""

import asyncio
import itertools
import sys
import time
import urllib.request
import uuid

CLIENTS = 30
STREAMS = 1_000
PER_SECOND = 200
PAGES = [
    "/airlines",
    "/airline/UA",
    "/airplanes?Manufacturer=BOEING",
    "/airplane/N14228",
    "/airports",
    "/airport/JFK",
    "/routes",
    "/flights/search?Origin=EWR&Dest=IAH",
    "/flights/search?Carrier=UA",
    "/flights/EWR/IAH/2013-01-01",
    "/on_time_performance?Carrier=UA&FlightDate=2013-01-01&FlightNum=1545",
    "/total_flights",
    "/total_flights_chart",
    "/delays",
    "/model",
    "/flights/delays/predict_kafka",
]
EVENTS = "/flights/delays/predict/classify_realtime/response/{}/events"


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.host, port = self.url.removeprefix("http://").split(":")
        self.port = int(port)

    def metrics(self):
        with urllib.request.urlopen(self.url + "/metrics") as response:
            lines = response.read().decode().splitlines()
        return {
            line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in lines
            if not line.startswith("#")
        }

    async def connect(self):
        return await asyncio.open_connection(self.host, self.port)

    def request(self, path, client):
        """As a proxy sends it: one client may not hold all streams, nor search all the time."""
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAccept-Encoding: gzip\r\n"
            f"X-Forwarded-For: 10.0.{client // 250}.{client % 250 + 1}\r\n\r\n"
        ).encode()

    async def read(self, reader, writer, path, client):
        """The status of a page and its bytes on the wire; the connection stays open."""
        writer.write(self.request(path, client))
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
        await reader.readexactly(length)
        return int(lines[0].split()[1]), length


def quantiles(before, after):
    """Upper bounds of the median and the 99th percentile of the server's times, in ms."""
    name = 'tarmac_web_request_seconds_bucket{le="'
    counts = {
        float(key.removeprefix(name).rstrip('"}')): after[key] - before.get(key, 0)
        for key in after
        if key.startswith(name)
    }
    total = max(counts.values())
    bound = lambda share: min(b for b, n in counts.items() if n >= share * total) * 1e3
    return bound(0.5), bound(0.99), total


async def read_page(server, path, seconds, is_fresh):
    """All clients read one page; the number of answers that were not 200, and its bytes. A fresh one
    is asked for under another address each time, so that the server makes it anew."""
    end, wrong, size, n = time.monotonic() + seconds, 0, 0, itertools.count()
    more = ("&" if "?" in path else "?") + "page=" if is_fresh else ""

    async def read_on(client):
        nonlocal wrong, size
        reader, writer = await server.connect()
        while time.monotonic() < end:
            address = f"{path}{more}{next(n)}" if is_fresh else path
            status, size = await server.read(reader, writer, address, client)
            wrong += status != 200
        writer.close()

    await asyncio.gather(*(read_on(client) for client in range(CLIENTS)))
    return wrong, size


async def hold_streams(server, seconds):
    """Streams that nobody answers stay open; how many did, and how the pages did beside them."""
    streams = []
    for client in range(STREAMS):
        reader, writer = await server.connect()
        writer.write(server.request(EVENTS.format(uuid.uuid4()), client))
        streams.append((reader, writer))
    for reader, _ in streams:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
    free = [(*await server.connect(), client) for client in range(CLIENTS)]
    wrong, late, times = 0, 0, []

    async def ask(path):
        nonlocal wrong
        reader, writer, client = connection = free.pop()
        started = time.monotonic()
        status, _ = await server.read(reader, writer, path, client)
        times.append((time.monotonic() - started) * 1e3)
        wrong += status != 200
        free.append(connection)

    started, tasks = time.monotonic(), []
    for i in range(PER_SECOND * seconds):
        await asyncio.sleep(max(0, started + i / PER_SECOND - time.monotonic()))
        if free:
            tasks.append(asyncio.create_task(ask(PAGES[i % len(PAGES)])))
        else:
            late += 1
    await asyncio.gather(*tasks)
    took = time.monotonic() - started
    open_streams = server.metrics()["tarmac_web_streams_open"]
    times.sort()
    at = lambda share: times[int(share * (len(times) - 1))]
    print(
        f"{open_streams:.0f} event streams open, {len(times) / took:.0f} requests/s beside them: "
        f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms at the client; {wrong} failed, "
        f"{late} not sent in time"
    )
    for _, writer in streams:
        writer.close()


async def main():
    server = Server(sys.argv[1])
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    print(f"{CLIENTS} clients at once; the bounds are those of the server's histogram")
    for is_fresh in (False, True):
        print("each page made anew" if is_fresh else "pages as they are, kept for 10 s")
        for path in PAGES:
            before = server.metrics()
            wrong, size = await read_page(server, path, max(1, seconds // 8), is_fresh)
            p50, p99, n = quantiles(before, server.metrics())
            print(f"  p50 ≤ {p50:5.1f} ms  p99 ≤ {p99:6.1f} ms  {n:6.0f} read  {size:6d} B  {path}")
            assert wrong == 0, f"{wrong} of {path} failed"
    await hold_streams(server, seconds)


asyncio.run(main())
