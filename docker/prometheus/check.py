#!/usr/bin/env python3
"""Asks a Prometheus that has watched a running system about every expression of the rules and of the
dashboard: each must be understood, and all that it names must have been seen.

    check.py http://127.0.0.1:9090
"""
import json
import pathlib
import re
import sys
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
# not there before the first of it
EVENTS = {"tarmac_stream_live_log_loss", "tarmac_stream_live_flights"}
# named in an expression, before its labels or its range
METRIC = re.compile(r"\b((?:tarmac|process)_[a-z_]+|up)\b")


def ask(url, path, **fields):
    query = urllib.parse.urlencode(fields)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=10) as answer:
        return json.load(answer)["data"]


def expressions():
    """All of them, with where they stand."""
    for line in (HERE / "rules.yml").read_text().splitlines():
        if line.strip().startswith("expr: "):
            yield "rules.yml", line.split("expr: ", 1)[1]
    dashboard = json.loads((HERE / "../grafana/dashboards/tarmac.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    url, n_empty, n_all, wrong = sys.argv[1], 0, 0, []
    seen = set(ask(url, "label/__name__/values"))
    for place, expression in expressions():
        n_all += 1
        try:
            result = ask(url, "query", query=expression)["result"]
        except OSError as error:
            wrong.append(f"{place}: {expression}: {error}")
            continue
        n_empty += not result
        named = set(METRIC.findall(expression))
        unseen = named - seen - EVENTS
        if unseen:
            wrong.append(f"{place}: never seen: {', '.join(sorted(unseen))}")
        elif not result and place != "rules.yml" and not named & EVENTS:
            # a rule that says nothing is well; a panel that shows nothing is not
            wrong.append(f"{place}: shows nothing: {expression}")
    print(f"{n_all} expressions, of which {n_empty} say nothing now")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
