"""Answers SQL over a data root with DuckDB, for comparison.

Reads {"root": directory, "statements": [text, …]} as JSON from standard input; prints a list with,
for each statement, {"rows": [[text or null, …], …]} or {"error": text}.
"""

import json
import sys

import duckdb

asked = json.load(sys.stdin)
db = duckdb.connect()
db.execute("SET threads = 2")
for table in ("flights", "distances"):
    files = f"{asked['root']}/{table}/**/*.parquet"
    db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{files}', hive_partitioning = true)")


def answer(statement):
    for kind in ("SEMI", "ANTI"):
        statement = statement.replace(f"LEFT {kind} JOIN", f"{kind} JOIN")
    try:
        rows = db.execute(statement).fetchall()
    except duckdb.Error as error:
        return {"error": str(error)}
    return {"rows": [[None if value is None else str(value) for value in row] for row in rows]}


print(json.dumps([answer(statement) for statement in asked["statements"]]))
