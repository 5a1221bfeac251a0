#!/usr/bin/env python3
"""Runs a command and measures it from outside: wall seconds and peak memory.

    bench/measure.py --out FILE -- COMMAND ARG...

Memory is the larger of two figures: ru_maxrss of the command itself, and the
largest sum of resident sizes over the command and all its descendants, sampled
ten times a second (a JVM below a Python process counts with it).
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


def _tree(root):
    """The process and its descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(children.get(pid, []))
    return found


def _resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def run(command, **options):
    """(exit code, standard output, wall seconds, peak bytes); stderr passes through."""
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    peak, done = [0], threading.Event()

    def sample():
        tree, tick = [child.pid], 0
        while not done.wait(0.1):
            if tick % 10 == 0:  # the list of processes changes seldom
                tree = _tree(child.pid)
            tick += 1
            peak[0] = max(peak[0], sum(map(_resident, tree)))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    sampler.join()
    return child.returncode, output, wall, max(peak[0], usage.ru_maxrss * 1024)


def last_object(output):
    """The JSON object on the last line that is one, or an empty one."""
    for line in reversed(output.splitlines()):
        line = line.strip()
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="tarmac")
    parser.add_argument("--out", required=True, help="appends the figures to this file as one JSON line")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    code, output, wall, peak = run(args.command)
    sys.stdout.write(output)
    result = {"peer": args.name, **last_object(output), "wall_seconds": round(wall, 3), "peak_rss_mb": round(peak / 2**20)}
    if code:
        result["error"] = f"exit code {code}"
    with open(args.out, "a") as file:
        file.write(json.dumps(result) + "\n")
    sys.exit(code if code >= 0 else 1)


if __name__ == "__main__":
    main()
