#!/usr/bin/env python3
"""Prints JSON lines of train.sh or score.sh as a table, with ratios peer/tarmac."""

import argparse
import json

TRAIN = [  # heading, keys in order of preference, format
    ("fit s", ("fit_seconds", "wall_seconds"), "{:.2f}"),
    ("job s", ("evaluated_seconds", "job_seconds", "wall_seconds"), "{:.2f}"),
    ("peak MB", ("peak_rss_mb",), "{:.0f}"),
    ("fit rows", ("train_rows", "fit_rows"), "{:,.0f}"),
    ("train acc", ("train_accuracy",), "{:.4f}"),
    ("held-out acc", ("holdout_accuracy",), "{:.4f}"),
]
TRAIN_RATIOS = ["fit s", "job s", "peak MB"]
SCORE = [
    ("ns/row", ("ns_per_row",), "{:.1f}"),
    ("median", ("ns_per_row_median",), "{:.1f}"),
    ("cpu", ("ns_per_row_cpu",), "{:.1f}"),
    ("trees", ("trees",), "{:.0f}"),
    ("ns/tree", ("ns_per_tree",), "{:.1f}"),
    ("leaves", ("leaves",), "{:.0f}"),
    ("deviation", ("deviation",), "{:.1e}"),
]
SCORE_RATIOS = ["ns/row", "ns/tree"]


def print_table(table):
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["train", "score"])
    parser.add_argument("file", help="JSON lines")
    args = parser.parse_args()
    columns, ratios = (TRAIN, TRAIN_RATIOS) if args.kind == "train" else (SCORE, SCORE_RATIOS)
    with open(args.file) as file:
        results = [json.loads(line) for line in file if line.startswith("{")]  # libraries chat between

    def value(result, heading):
        for key in next(keys for name, keys, _ in columns if name == heading):
            if isinstance(result.get(key), (int, float)) and not isinstance(result[key], bool):
                return result[key], key
        return None, None

    for result in results:
        if result.get("ns_per_row") and result.get("trees"):
            result["ns_per_tree"] = result["ns_per_row"] / result["trees"]
    ours = {r["peer"]: r for r in results if "error" not in r}
    table = [["", *(name for name, _, _ in columns), *(f"{name} ratio" for name in ratios)]]
    notes = []
    for result in results:
        row = [result["peer"]]
        if "error" in result:
            notes.append(f"{result['peer']}: {result['error']}")
        for heading, keys, form in columns:
            got, key = value(result, heading)
            if key and key == "wall_seconds":
                notes.append(f"{result['peer']}: no {keys[0]} reported, the wall of the process stands for it")
            row.append("-" if got is None else form.format(got))
        alike = "tarmac_default" if result["peer"].endswith("_default") else "tarmac"
        for heading in ratios:
            (theirs, _), (mine, _) = value(result, heading), value(ours.get(alike, {}), heading)
            row.append(f"{theirs / mine:.2f}" if theirs and mine else "-")
        table.append(row)
    rows_fitted = {value(r, "fit rows")[0] for r in results} - {None} if args.kind == "train" else set()
    if len(rows_fitted) > 1:
        notes.append("the fits had different numbers of rows: weigh the ratios by them")

    print_table(table)
    print("\nratio = peer / tarmac, of _default / tarmac_default: above 1, tarmac is the smaller")
    for note in notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
