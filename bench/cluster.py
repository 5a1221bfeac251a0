#!/usr/bin/env python3
"""Prints JSON lines of cluster.sh or scale.sh as tables, of each way the run of the least wall.

Fails when the ways of cluster.sh did not make the same model.
"""

import argparse
import json
import sys

from compare import print_table


def driver(result):
    return result["peak_rss_mb"]


def scheduler(result):
    return max(result.get("scheduler_peak_mb", []), default=None)


def executor(result):
    return max(result.get("executor_peak_mb", []), default=None)


def everybody(result):
    """The peaks added up: a little more than was ever in use at one moment."""
    return driver(result) + sum(result.get("scheduler_peak_mb", [])) + sum(result.get("executor_peak_mb", []))


WAYS = [  # heading, figure of a run, format, whether there is a ratio of it
    ("wall s", lambda r: r["wall_seconds"], "{:.2f}", True),
    ("cpu s", lambda r: r["cpu_seconds"], "{:.2f}", True),
    ("fit s", lambda r: r["fit_seconds"], "{:.2f}", True),
    ("job s", lambda r: r["job_seconds"], "{:.2f}", True),
    ("driver MB", driver, "{:.0f}", False),
    ("scheduler MB", scheduler, "{:.0f}", False),
    ("executor MB", executor, "{:.0f}", False),
    ("all MB", everybody, "{:.0f}", True),
    ("other cores", lambda r: r["other_cores"], "{:.2f}", False),
]
SCALE = [
    ("fit rows", lambda r: r["train_rows"], "{:,.0f}"),
    ("fit s", lambda r: r["fit_seconds"], "{:.2f}"),
    ("job s", lambda r: r["job_seconds"], "{:.2f}"),
    ("wall s", lambda r: r["wall_seconds"], "{:.2f}"),
    ("fit ns/row", lambda r: r["fit_seconds"] * 1e9 / r["train_rows"], "{:.0f}"),
    ("cpu ns/row", lambda r: r["cpu_seconds"] * 1e9 / r["train_rows"], "{:.0f}"),
    ("peak MB", driver, "{:.0f}"),
    ("other cores", lambda r: r["other_cores"], "{:.2f}"),
]


def quickest(results):
    """{name: the run of the least wall}, in the order of the first ones."""
    found = {}
    for result in results:
        name = result["peer"]
        if name not in found or result["wall_seconds"] < found[name]["wall_seconds"]:
            found[name] = result
    return found


def ways(results):
    models = {(r["peer"], r["model"]) for r in results if "model" in r}
    if len({model for _, model in models}) != 1:
        sys.exit("the models are not the same:\n" + "\n".join(f"{model} {way}" for way, model in sorted(models)))
    best = quickest(results)
    trained = {name: result for name, result in best.items() if "model" in result}

    table = [["", *(heading for heading, *_ in WAYS)]]
    for name, result in trained.items():
        figures = ((figure(result), form) for _, figure, form, _ in WAYS)
        table.append([name, *("-" if value is None else form.format(value) for value, form in figures)])
    print_table(table)
    print(f"\nall made the model {next(iter(models))[1]}")

    for base in ("in process", "in process, indices on disk"):
        table = [[f"ratio to {base}", *(heading for heading, *_, ratio in WAYS if ratio)]]
        for name, result in trained.items():
            pairs = ((figure(result), figure(trained[base])) for _, figure, _, ratio in WAYS if ratio)
            table.append([name, *(f"{value / of:.2f}" for value, of in pairs)])
        print()
        print_table(table)

    walls = {}  # of files with statements, which are named "STAGES COUNT WAY"
    for name, result in best.items():
        if name.startswith(("one_stage ", "two_stages ")):
            stages, n, way = name.split(" ", 2)
            walls.setdefault(way, {}).setdefault(stages, {})[int(n)] = result["wall_seconds"]
    table = [["ms a query", "one stage", "two stages", "idle cores"]]
    for way, timed in walls.items():
        row = [way]
        for stages in ("one_stage", "two_stages"):
            (one, first), (many, all_of_them) = sorted(timed[stages].items())
            row.append(f"{(all_of_them - first) / (many - one) * 1e3:.2f}")
        idle = best.get(f"idle {way}")
        row.append(f"{idle['cpu_seconds'] / idle['wall_seconds']:.3f}" if idle else "-")
        table.append(row)
    print()
    print_table(table)


def scale(results):
    table = [["rows", *(heading for heading, *_ in SCALE)]]
    for name, result in quickest(results).items():
        table.append([name, *(form.format(figure(result)) for _, figure, form in SCALE)])
    print_table(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["ways", "scale"])
    parser.add_argument("file", help="JSON lines")
    args = parser.parse_args()
    with open(args.file) as file:
        results = [json.loads(line) for line in file]
    (ways if args.kind == "ways" else scale)(results)


if __name__ == "__main__":
    main()
