#!/usr/bin/env python3
"""Runs a command and measures it from outside: wall seconds, CPU seconds and peak memory.

    bench/measure.py --out FILE [--cluster PID] -- COMMAND ARG...

Memory is the larger of two figures: ru_maxrss of the command itself, and the
largest sum of resident sizes over the command and all its descendants, sampled
ten times a second (a JVM below a Python process counts with it).

With --cluster, the scheduler and the executors that a `submit-job cluster` of
this PID has started count too: their CPU seconds while the command ran are added
to its own, and the peak of each since its start is a figure of its own.

What else the machine did meanwhile is told as the cores that it kept busy: with
more than a little, the wall says more about the machine than about the command.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


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


def cluster_processes(pid):
    """{pid: "scheduler" or "executor"} of what a `submit-job cluster` has started."""
    roles = {}
    for child in _tree(pid)[1:]:
        with open(f"/proc/{child}/cmdline") as file:
            words = file.read().split("\0")
        roles[child] = next((role for role in ("scheduler", "executor") if role in words), None)
    roles = {child: role for child, role in roles.items() if role}
    if sorted(set(roles.values())) != ["executor", "scheduler"]:
        sys.exit(f"{pid} has no scheduler and executors: {roles}")
    return roles


def _cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _machine_seconds():
    """CPU seconds of all processes since the machine's start, with what a hypervisor took."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def _peak_mb(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM:"))


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
    parser.add_argument("--cluster", type=int, metavar="PID", help="a running `submit-job cluster`")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    roles = cluster_processes(args.cluster) if args.cluster else {}
    machine = -_machine_seconds()
    cpu = -sum(map(_cpu_seconds, roles))
    code, output, wall, peak = run(args.command)
    try:
        cpu += sum(map(_cpu_seconds, roles))
    except OSError:
        sys.exit(f"{args.name}: a process of the cluster has ended")
    machine += _machine_seconds()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += usage.ru_utime + usage.ru_stime
    sys.stdout.write(output)
    result = {"peer": args.name, **last_object(output), "wall_seconds": round(wall, 3), "peak_rss_mb": round(peak / 2**20)}
    result["cpu_seconds"] = round(cpu, 3)
    result["other_cores"] = round(max((machine - cpu) / wall, 0), 2)
    for role in sorted(set(roles.values())):
        result[f"{role}_peak_mb"] = [round(_peak_mb(pid)) for pid in roles if roles[pid] == role]
    if code:
        result["error"] = f"exit code {code}"
    with open(args.out, "a") as file:
        file.write(json.dumps(result) + "\n")
    sys.exit(code if code >= 0 else 1)


if __name__ == "__main__":
    main()
