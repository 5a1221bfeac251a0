#!/usr/bin/env python3
"""Asks for predictions over HTTP, and looks for the answers: each accepted request has one.

    load.py ask URL RATE FILE     asks until it is told to end (SIGTERM), RATE times a second; writes
                                  the id of each accepted request into FILE
    load.py answers URL FILE      waits until each of them is answered, at most ten minutes

A request that was refused, or whose connection broke, was not accepted: whoever asked knows.
"""
import http.client
import json
import queue
import re
import signal
import sys
import threading
import time
import urllib.parse

ASK = "/flights/delays/predict/classify_realtime"
AN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
THREADS = 8
PATIENCE_SECONDS = 600


def exchange(host, method, path, fields=None):
    """One request on a connection of its own: its status and body; None when it broke."""
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        body = urllib.parse.urlencode(fields) if fields else None
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if fields else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def ask(host, rate, file):
    flight = {
        "DepDelay": 15, "Carrier": "AA", "FlightDate": "2013-12-25", "Origin": "JFK",
        "Dest": "LAX", "FlightNum": 1,
    }
    ending, due = threading.Event(), queue.Queue(maxsize=THREADS)
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    counts, lock = {"accepted": 0, "refused": 0}, threading.Lock()

    def worker():
        while due.get() is not None:
            answer = exchange(host, "POST", ASK, flight)
            found = AN_ID.search(answer[1]) if answer and answer[0] in (200, 202) else None
            with lock:
                if found:
                    counts["accepted"] += 1
                    print(found.group(), file=out, flush=True)
                else:
                    counts["refused"] += 1

    with open(file, "a") as out:
        threads = [threading.Thread(target=worker) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        while not ending.wait(1 / rate):
            due.put(1)
        for _ in threads:
            due.put(None)
        for thread in threads:
            thread.join()
    print(json.dumps(counts))


def answers(host, file):
    with open(file) as lines:
        waiting = set(lines.read().split())
    n_asked, deadline = len(waiting), time.monotonic() + PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        for uuid in list(waiting):
            answer = exchange(host, "GET", f"{ASK}/response/{uuid}")
            try:
                if answer and json.loads(answer[1] or "{}").get("status") == "OK":
                    waiting.discard(uuid)
            except ValueError:  # a page that says that something is away
                pass
        time.sleep(1)
    print(json.dumps({"asked": n_asked, "not_answered": len(waiting)}))
    if waiting:
        sys.exit(f"not answered: {', '.join(sorted(waiting)[:5])}")


def main():
    match sys.argv[1:]:
        case ["ask", url, rate, file]:
            ask(urllib.parse.urlsplit(url).netloc, float(rate), file)
        case ["answers", url, file]:
            answers(urllib.parse.urlsplit(url).netloc, file)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
