#!/usr/bin/env python3
"""Asks the statements of queries.sql of `submit-job sql` and of DuckDB, and compares.

    bench/sql_peers.py SUBMIT_JOB DATA_ROOT [--threads N] [--runs N]

Both read the same Parquet files, and both answers must be the same. A figure is the mean of several
runs one after the other, the least of three rounds. DuckDB runs in this process. Of Tarmac a process
runs a statement once, and another one that many times more: what they differ by is the runs without
the start, which is told apart.
"""

import argparse
import math
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import duckdb

ROUNDS = 3


def statements():
    """Titles and texts."""
    text = (Path(__file__).parent / "queries.sql").read_text()
    found = re.findall(r"^-- ([^\n]*)\n((?:(?!--)[^\n]+\n)+)", text, re.MULTILINE)
    return [(title, sql.strip()) for title, sql in found]


def cpu(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


class Tarmac:
    """Statements in a process of their own."""

    def __init__(self, submit_job, data, threads):
        self.command = [submit_job, "--data", data, "--master", f"local[{threads}]", "sql", "-f"]

    def run(self, sql, times):
        """(rows, wall seconds, CPU seconds) of so many times the same statement."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(sql * times)
            file.flush()
            before, began = cpu(resource.RUSAGE_CHILDREN), time.monotonic()
            ended = subprocess.run([*self.command, file.name], capture_output=True, text=True)
            wall = time.monotonic() - began
        if ended.returncode:
            raise SystemExit(f"{sql}\n{ended.stderr}")
        return ended.stdout, wall, cpu(resource.RUSAGE_CHILDREN) - before

    def fastest(self, sql, runs):
        """(rows, wall, CPU) of a run without the start."""
        once = [self.run(sql, 1) for _ in range(ROUNDS)]
        often = [self.run(sql, 1 + runs) for _ in range(ROUNDS)]
        least = [min(of[i] for of in often) - min(of[i] for of in once) for i in (1, 2)]
        return rows_of(once[0][0]), *(seconds / runs for seconds in least)


def rows_of(table):
    """The cells of a printed table, without its heading."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


class DuckDb:
    """The peer."""

    def __init__(self, data, threads):
        self.connection = duckdb.connect(config={"threads": threads})
        files = f"{data}/flights/**/*.parquet"
        self.connection.execute(
            f"CREATE VIEW flights AS FROM read_parquet('{files}', hive_partitioning = true)"
        )

    def run(self, sql, times):
        """(rows, wall seconds, CPU seconds) of so many times the same statement."""
        before, began = cpu(resource.RUSAGE_SELF), time.monotonic()
        for _ in range(times):
            rows = self.connection.execute(sql).fetchall()
        return rows, time.monotonic() - began, cpu(resource.RUSAGE_SELF) - before

    def fastest(self, sql, runs):
        """(rows, wall, CPU) of a run."""
        rows, *_ = self.run(sql, 1)
        often = [self.run(sql, runs) for _ in range(ROUNDS)]
        return rows, *(min(of[i] for of in often) / runs for i in (1, 2))


def is_same(ours, theirs):
    """Whether a printed cell is a value."""
    if theirs is None:
        return ours in ("", "NULL")
    if ours == "" or isinstance(theirs, str) or hasattr(theirs, "isoformat"):
        return ours == str(theirs)
    return math.isclose(float(ours), float(theirs), rel_tol=1e-9, abs_tol=1e-9)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("submit_job")
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    tarmac, peer = Tarmac(args.submit_job, args.data, args.threads), DuckDb(args.data, args.threads)
    print(f"{'ms':44}{'tarmac':>8}{'cpu':>8}{'duckdb':>8}{'cpu':>8}{'ratio':>7}")
    ratios = []
    for title, sql in statements():
        theirs = peer.fastest(sql, args.runs)
        ours = tarmac.fastest(sql, args.runs)
        rows = zip(ours[0], theirs[0], strict=True)
        if not all(is_same(*cells) for row in rows for cells in zip(*row, strict=True)):
            raise SystemExit(f"{title}: {ours[0][:3]} and not {theirs[0][:3]}")
        if ours[1] <= 0:
            raise SystemExit(f"{title}: too fast beside this noise, ask with more --runs")
        ratios.append(ours[1] / theirs[1])
        figures = "".join(f"{1e3 * seconds:8.1f}" for seconds in (*ours[1:], *theirs[1:]))
        print(f"{title:44}{figures}{ratios[-1]:7.2f}", flush=True)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    start = min(tarmac.run("SELECT 1;", 1)[1] for _ in range(7))
    print(f"geometric mean {mean:.2f}, start with SELECT 1 {1e3 * start:.1f} ms")


if __name__ == "__main__":
    main()
