#!/usr/bin/env python3
"""The other sides of bench/ingest.sh: makes its files, runs DuckDB and Polars, prints the table.

    csv_peers.py make nyc|bts PARQUET CSV
    csv_peers.py duckdb|polars nyc|bts CSV DIRECTORY --threads N
    csv_peers.py table RESULTS DIRECTORY...

The peers do what an ingestion does of it: the same columns typed the same way, minutes of the day
from clock times, a directory a month, zstd level 3. They check nothing: no codes, no rejects with
file and line, no ids, no repeats.
"""

import argparse
import csv
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# names in the file, of what is kept: shipped layout, BTS's
NAMES = {
    "nyc": {
        "carrier": "carrier", "number": "flight", "tail": "tailnum", "origin": "origin", "dest": "dest",
        "crs_dep": "sched_dep_time", "dep": "dep_time", "dep_delay": "dep_delay",
        "crs_arr": "sched_arr_time", "arr": "arr_time", "arr_delay": "arr_delay",
        "air_time": "air_time", "distance": "distance",
    },
    "bts": {
        "carrier": "Reporting_Airline", "number": "Flight_Number_Reporting_Airline", "tail": "Tail_Number",
        "origin": "Origin", "dest": "Dest", "crs_dep": "CRSDepTime", "dep": "DepTime", "dep_delay": "DepDelay",
        "crs_arr": "CRSArrTime", "arr": "ArrTime", "arr_delay": "ArrDelay", "air_time": "AirTime",
        "distance": "Distance",
    },
}
TEXTS = ["carrier", "number", "tail", "origin", "dest"]
CLOCKS = ["crs_dep", "dep", "crs_arr", "arr"]
NUMBERS = ["dep_delay", "arr_delay", "air_time", "distance"]


def make(layout, source, out):
    import pyarrow.compute as pc
    import pyarrow.csv
    import pyarrow.parquet as pq

    partial = pathlib.Path(f"{out}.partial")
    file = pq.ParquetFile(source)
    if layout == "nyc":
        names = [field.name for field in file.schema_arrow if field.name != "time_hour"]
        with open(partial, "wb") as target:
            target.write((",".join(names) + "\n").encode())
            options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
            for batch in file.iter_batches(columns=names):
                pyarrow.csv.write_csv(batch, target, options)
    else:
        make_bts(file, partial)
    partial.rename(out)


def make_bts(file, out):
    """The columns and quotes of a month from BTS: what the shipped flights know, and for the rest
    what stands in one of its rows."""
    with open(ROOT / "data" / "fixtures" / "bts_new.csv", newline="") as fixture:
        header = fixture.readline().rstrip("\r\n")
        row = fixture.readline().rstrip("\r\n")
    names = next(csv.reader([header]))
    values, fields, quoted = [], next(csv.reader([row])), []
    rest = row
    for field in fields:  # which of its fields stand between quotes
        quoted.append(rest.startswith('"'))
        rest = rest[len(field) + (2 if quoted[-1] else 0) + 1:]
    at = {name: i for i, name in enumerate(names)}
    with open(out, "w", newline="") as target:
        target.write(header + "\n")
        for batch in file.iter_batches(batch_size=100_000):
            lines = []
            for flight in batch.to_pylist():
                fields_of_row = list(fields)

                def put(name, value):
                    fields_of_row[at[name]] = "" if value is None else str(value)

                year, month, day = flight["year"], flight["month"], flight["day"]
                put("Year", year), put("Month", month), put("DayofMonth", day)
                put("Quarter", (month + 2) // 3)
                put("FlightDate", f"{year}-{month:02}-{day:02}")
                for name in ("Reporting_Airline", "IATA_CODE_Reporting_Airline"):
                    put(name, flight["carrier"])
                put("Tail_Number", flight["tailnum"]), put("Flight_Number_Reporting_Airline", flight["flight"])
                put("Origin", flight["origin"]), put("Dest", flight["dest"])
                for name, key in (("CRSDepTime", "sched_dep_time"), ("DepTime", "dep_time"),
                                  ("CRSArrTime", "sched_arr_time"), ("ArrTime", "arr_time")):
                    put(name, None if flight[key] is None else f"{int(flight[key]):04}")
                for name, key in (("DepDelay", "dep_delay"), ("ArrDelay", "arr_delay"),
                                  ("AirTime", "air_time"), ("Distance", "distance")):
                    put(name, None if flight[key] is None else f"{flight[key]:.2f}")
                put("Cancelled", "1.00" if flight["dep_time"] is None else "0.00")
                is_diverted = flight["dep_time"] is not None and flight["arr_delay"] is None
                put("Diverted", "1.00" if is_diverted else "0.00")
                lines.append(",".join(f'"{f}"' if q else f for f, q in zip(fields_of_row, quoted)))
            target.write("\n".join(lines) + "\n")


def duckdb(layout, source, out, threads):
    import duckdb

    of = NAMES[layout]
    clock = lambda name: f"(TRY_CAST({of[name]} AS INTEGER) // 100 % 24 * 60 + TRY_CAST({of[name]} AS INTEGER) % 100)::INTEGER AS {name}_minutes"
    date = "make_date(year::INTEGER, month::INTEGER, day::INTEGER)" if layout == "nyc" else "FlightDate::DATE"
    cancelled = f"({of['dep']} IS NULL)" if layout == "nyc" else "(Cancelled::DOUBLE = 1)"
    diverted = f"({of['dep']} IS NOT NULL AND {of['arr_delay']} IS NULL)" if layout == "nyc" else "(Diverted::DOUBLE = 1)"
    columns = [f"{date} AS flight_date"]
    columns += [f"{of[name]} AS {name}" for name in TEXTS]
    columns += [clock(name) for name in CLOCKS]
    columns += [f"{of[name]}::DOUBLE AS {name}_number" for name in NUMBERS]
    columns += [f"{cancelled} AS cancelled", f"{diverted} AS diverted", "Year::INTEGER AS year", "Month::INTEGER AS month"]
    null = "['', 'NA']"
    read = f"read_csv('{source}', header = true, all_varchar = true, nullstr = {null}, parallel = true)"
    connection = duckdb.connect(config={"threads": threads})
    connection.execute(
        f"COPY (SELECT {', '.join(columns)} FROM {read}) TO '{out}' "
        "(FORMAT parquet, PARTITION_BY (year, month), COMPRESSION zstd, COMPRESSION_LEVEL 3)"
    )


def polars(layout, source, out, threads):
    import os

    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    of = NAMES[layout]
    frame = pl.scan_csv(source, infer_schema=False, null_values=["", "NA"])
    clock = lambda name: (lambda hhmm: (hhmm // 100 % 24 * 60 + hhmm % 100).alias(f"{name}_minutes"))(
        pl.col(of[name]).cast(pl.Int32))
    number = lambda name: pl.col(name).cast(pl.Float64)
    if layout == "nyc":
        parts = [pl.col(name).cast(pl.Int32) for name in ("year", "month", "day")]
        date = pl.date(*parts)
        year, month = parts[0], parts[1]
        cancelled = pl.col(of["dep"]).is_null()
        diverted = pl.col(of["dep"]).is_not_null() & pl.col(of["arr_delay"]).is_null()
    else:
        date = pl.col("FlightDate").str.to_date("%Y-%m-%d")
        year, month = pl.col("Year").cast(pl.Int32), pl.col("Month").cast(pl.Int32)
        cancelled, diverted = number("Cancelled") == 1, number("Diverted") == 1
    columns = [date.alias("flight_date")]
    columns += [pl.col(of[name]).alias(name) for name in TEXTS]
    columns += [clock(name) for name in CLOCKS]
    columns += [number(of[name]).alias(f"{name}_number") for name in NUMBERS]
    columns += [cancelled.alias("cancelled"), diverted.alias("diverted"), year.alias("year"), month.alias("month")]
    frame.select(columns).sink_parquet(
        pl.PartitionBy(out, key=["year", "month"], include_key=False),
        compression="zstd", compression_level=3, mkdir=True,
    )


def table(results, directories):
    import pyarrow.parquet as pq

    best = {}
    for line in open(results):
        result = json.loads(line)
        if "error" not in result:
            known = best.setdefault(result["peer"], result)
            if result["wall_seconds"] < known["wall_seconds"]:
                best[result["peer"]] = result
    ours = best["tarmac"]
    print(f"{'':8} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'files':>6} {'MB':>7} {'rows':>10} {'wall ratio':>11}")
    for (peer, result), directory in zip(best.items(), directories):
        files = sorted(pathlib.Path(directory).rglob("*.parquet"))
        n_bytes = sum(file.stat().st_size for file in files)
        n_rows = sum(pq.ParquetFile(file).metadata.num_rows for file in files)
        print(f"{peer:8} {result['wall_seconds']:8.2f} {result['cpu_seconds']:8.2f} {result['peak_rss_mb']:8} "
              f"{len(files):6} {n_bytes / 1e6:7.0f} {n_rows:10} {result['wall_seconds'] / ours['wall_seconds']:11.2f}")
    print("ratio = peer / tarmac: above 1, tarmac is the quicker")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "duckdb", "polars", "table"])
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.what == "make":
        make(*args.arguments)
    elif args.what == "table":
        table(args.arguments[0], args.arguments[1:])
    else:
        {"duckdb": duckdb, "polars": polars}[args.what](*args.arguments, args.threads)


if __name__ == "__main__":
    main()
