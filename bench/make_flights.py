#!/usr/bin/env python3
"""Makes a large flights file out of the shipped one.

Flights are drawn with replacement, put in calendar order as the published
months are, and moved a little: a few minutes of departure delay, the arrival
moved along with it, and a small noise of its own. Columns and types are those
of the source. The same source, rows and seed give the same rows.
"""

import argparse
import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "data" / "nycflights13" / "flights.parquet"
COLUMNS = [
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay",
    "arr_time", "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum",
    "origin", "dest", "air_time", "distance", "hour", "minute", "time_hour",
]
ROW_GROUP = 500_000
FLIGHT_NUMBERS = 9_999  # 1..9999, four digits as airlines have
STRIDE = 7_919  # coprime to FLIGHT_NUMBERS: a walk over all of them


def numbers(table, name):
    """Values of a column as int64, and where they are null."""
    column = table.column(name).combine_chunks()
    if pa.types.is_floating(column.type):  # NaN stands for null in some writers
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    null = column.is_null().to_numpy(zero_copy_only=False)
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return np.rint(values).astype(np.int64), null


def shift_clock(clock, minutes):
    """HHMM moved by minutes; midnight is 2400, as in the source."""
    at = (clock // 100 * 60 + clock % 100 + minutes) % 1440
    at = np.where(at == 0, 1440, at)
    return at // 60 * 100 + at % 60


def occurrence(group, seen):
    """How often each row's group came before it, counting earlier chunks."""
    order = np.argsort(group, kind="stable")
    ranked = group[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    lengths = np.diff(np.r_[starts, len(ranked)])
    rank = np.arange(len(ranked)) - np.repeat(starts, lengths)
    out = np.empty(len(group), np.int64)
    out[order] = rank
    out += seen[group]
    seen[ranked[starts]] += lengths
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_800_000)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--source", type=pathlib.Path, default=SOURCE)
    parser.add_argument("--compression", choices=["zstd", "snappy"], default="zstd")
    args = parser.parse_args()

    source = pq.read_table(args.source, columns=COLUMNS).select(COLUMNS)
    source = source.replace_schema_metadata(None).combine_chunks()
    year, month, day = (numbers(source, name)[0] for name in ("year", "month", "day"))
    date = (year * 16 + month) * 32 + day
    _, date = np.unique(date, return_inverse=True)
    carrier = source.column("carrier").combine_chunks()
    if not pa.types.is_dictionary(carrier.type):
        carrier = carrier.dictionary_encode()
    group = date * len(carrier.dictionary) + carrier.indices.to_numpy(zero_copy_only=False)
    seen = np.zeros(group.max() + 1, np.int64)

    rng = np.random.default_rng(args.seed)
    draw = rng.integers(0, source.num_rows, args.rows, dtype=np.int32)
    draw = draw[np.argsort(date[draw].astype(np.int32), kind="stable")]  # a day's flights in no order

    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_name(args.out.name + ".partial")
    with pq.ParquetWriter(partial, source.schema, compression=args.compression) as writer:
        for start in range(0, args.rows, ROW_GROUP):
            rows = draw[start:start + ROW_GROUP]
            chunk = source.take(pa.array(rows))
            moved = rng.integers(-3, 4, len(rows))
            noise = rng.integers(-2, 3, len(rows))

            changed = {}
            for name, by in (("dep_delay", moved), ("arr_delay", moved + noise)):
                value, null = numbers(chunk, name)
                changed[name] = (value + by, null)
            for name, by in (("dep_time", moved), ("arr_time", moved + noise)):
                value, null = numbers(chunk, name)
                changed[name] = (shift_clock(value, by), null)
            value, null = numbers(chunk, "air_time")
            changed["air_time"] = (np.maximum(value + noise, 1), null)
            # A carrier flies a number once a day, until there are more flights than numbers.
            of = group[rows]
            number = 1 + (of * 131 + occurrence(of, seen) * STRIDE) % FLIGHT_NUMBERS
            changed["flight"] = (number, np.zeros(len(rows), bool))

            for name, (value, null) in changed.items():
                field = source.schema.field(name)
                array = pa.array(value, mask=null).cast(pa.int64())
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
                    array = array.cast(pa.string())
                chunk = chunk.set_column(chunk.schema.get_field_index(name), field, array.cast(field.type))
            writer.write_table(chunk, row_group_size=ROW_GROUP)
    os.replace(partial, args.out)
    print(f"{args.out}: {args.rows} rows, {args.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
