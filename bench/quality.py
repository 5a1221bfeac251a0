#!/usr/bin/env python3
"""Trains peers on the flights of a data root and prints a table with what `train --json` said.

All learn from the same flights and are judged on the same held-out days. The error of calibration
is the expected one of the predicted class, over 15 bins of equal numbers of flights.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

HOLDOUT = 5
CLASSES = 4
SPLITS = [-15, 0, 30]
NUMBERS = ["dep_delay", "distance", "day_of_month", "day_of_week", "day_of_year"]
CATEGORIES = ["carrier", "origin", "dest", "route"]
BASELINE_ROWS = 30_000  # as jobs/src/train/baselines.rs
INDICATORS = 16
GAP_MAX = 0.005


def load(root):
    """Features by name, classes, days and flight ids of the flights that departed and arrived."""
    names = ["flight_id", "flight_date", "carrier", "origin", "dest", "dep_delay_minutes", "arr_delay_minutes",
             "distance_miles", "cancelled", "diverted"]
    flights = ds.dataset(f"{root}/flights", format="parquet", partitioning="hive").to_table(columns=names)
    texts = [pa.string() if pa.types.is_string_view(field.type) else field.type for field in flights.schema]
    flights = flights.cast(pa.schema(list(zip(names, texts))))
    arrived = pc.and_(pc.is_valid(flights["arr_delay_minutes"]), pc.is_valid(flights["dep_delay_minutes"]))
    for flag in ("cancelled", "diverted"):
        arrived = pc.and_(arrived, pc.invert(pc.fill_null(flights[flag], False)))
    flights = flights.filter(arrived)
    distances = ds.dataset(f"{root}/distances", format="parquet").to_table().to_pylist()
    known = {(d["origin"], d["dest"]): d["distance_miles"] for d in distances}
    text = {name: np.array(flights[name].to_pylist(), dtype=object) for name in ("carrier", "origin", "dest")}
    distance = flights["distance_miles"].to_numpy(zero_copy_only=False).astype(float)
    for i in np.flatnonzero(np.isnan(distance)):
        distance[i] = known.get((text["origin"][i], text["dest"][i])) or np.nan
    days = flights["flight_date"].to_numpy().astype("datetime64[D]")
    day = days.astype(np.int64)
    columns = {
        "dep_delay": flights["dep_delay_minutes"].to_numpy(zero_copy_only=False).astype(float),
        "distance": distance,
        "day_of_month": (days - days.astype("datetime64[M]")).astype(np.int64) + 1.0,
        "day_of_week": (day + 3) % 7 + 1.0,
        "day_of_year": (days - days.astype("datetime64[Y]")).astype(np.int64) + 1.0,
        **text,
        "route": text["origin"] + "-" + text["dest"],
    }
    classes = np.digitize(flights["arr_delay_minutes"].to_numpy(zero_copy_only=False), SPLITS)
    return columns, classes, day, flights["flight_id"].to_numpy()


def ranks(values, train):
    """Place of each text among those of the training by frequency, ties alphabetical; rarest last."""
    names, counts = np.unique(values[train], return_counts=True)
    place = {name: i for i, name in enumerate(names[np.lexsort((names, -counts))])}
    return np.array([place.get(value, len(place)) for value in values], dtype=float)


def measures(probabilities, truth):
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    of_truth = probabilities[np.arange(len(truth)), truth]
    right = predicted == truth
    bins = np.array_split(np.argsort(confidence, kind="stable"), 15)
    error = sum(abs(confidence[b].sum() - right[b].sum()) for b in bins) / len(truth)
    loss = -np.log(np.maximum(of_truth, 1e-15)).mean()
    return {"accuracy": right.mean(), "log_loss": loss, "calibration_error": error}


def logistic(columns, classes, held_out, ids):
    """scikit-learn's, on the rows and columns of the baseline, its numbers not cut off."""
    from sklearn.linear_model import LogisticRegression

    train = ~held_out
    share = min(max(BASELINE_ROWS * 65_536 // train.sum(), 1), 65_536)
    sample = train & ((ids >> 16) & 65_535 < share)
    matrix = []
    for name in NUMBERS:
        column = columns[name]
        mean, scale = np.nanmean(column[sample]), np.nanstd(column[sample]) or 1.0
        matrix.append(np.nan_to_num((column - mean) / scale))
    for name in CATEGORIES:
        rank = ranks(columns[name], train)
        matrix += [(rank == i).astype(float) for i in range(INDICATORS) if (rank == i).any()]
    matrix = np.column_stack(matrix)
    began = time.monotonic()
    model = LogisticRegression(max_iter=500).fit(matrix[sample], classes[sample])
    return time.monotonic() - began, model.predict_proba(matrix[held_out])


def encoded(columns, held_out):
    numbers = [columns[name] for name in NUMBERS]
    return np.column_stack(numbers + [ranks(columns[name], ~held_out) for name in CATEGORIES])


def forest(columns, classes, held_out, _ids):
    """scikit-learn's, with the settings of the default preset where it has them."""
    from sklearn.ensemble import RandomForestClassifier

    x = np.nan_to_num(encoded(columns, held_out), nan=-1.0)
    began = time.monotonic()
    model = RandomForestClassifier(
        n_estimators=50, max_depth=12, min_samples_leaf=20, max_features=5, n_jobs=-1, random_state=7,
    ).fit(x[~held_out], classes[~held_out])
    return time.monotonic() - began, model.predict_proba(x[held_out])


def boosted(columns, classes, held_out, _ids):
    """LightGBM's gradient boosting, as it comes."""
    import lightgbm as lgb

    x = encoded(columns, held_out)
    places = list(range(len(NUMBERS), len(NUMBERS) + len(CATEGORIES)))
    params = {"objective": "multiclass", "num_class": CLASSES, "seed": 7, "verbose": -1}
    began = time.monotonic()
    data = lgb.Dataset(x[~held_out], classes[~held_out], categorical_feature=places, params={"verbose": -1})
    model = lgb.train(params, data, num_boost_round=100)
    return time.monotonic() - began, model.predict(x[held_out])


PEERS = {
    "logistic": ("scikit-learn logistic", logistic),
    "forest": ("scikit-learn forest", forest),
    "boosted": ("LightGBM boosted", boosted),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="data root with flights")
    parser.add_argument("--tarmac", type=pathlib.Path, required=True, help="what `train --json` said of both presets")
    parser.add_argument("--peers", default=",".join(PEERS))
    args = parser.parse_args()

    original, default = map(json.loads, args.tarmac.read_text().splitlines())
    of = original["compared"]
    # names say the number of flights where those are a sample
    find = lambda name: next((of[key] for key in of if key.startswith(name)), None)
    rows = [(name, find(name), None) for name in ("majority class", "delay alone", "logistic")]
    ours = find("logistic")
    rows.append(("preset original", of["forest"], original["fit_seconds"]))
    rows.append(("preset default", default["compared"]["forest"], default["fit_seconds"]))

    columns, classes, day, ids = load(args.data)
    held_out = day % HOLDOUT == 0
    counted = (int((~held_out).sum()), int(held_out.sum()))
    if counted != (default["train_rows"], default["holdout_rows"]):
        sys.exit(f"not the same flights: {counted} here, {default['train_rows']}, {default['holdout_rows']} there")
    found = {}
    for peer in filter(None, args.peers.split(",")):
        title, train = PEERS[peer]
        seconds, probabilities = train(columns, classes, held_out, ids)
        found[peer] = measures(probabilities, classes[held_out])
        rows.append((title, found[peer], seconds))

    print(f"{counted[0]:,} flights to learn from, {counted[1]:,} held out (every fifth day)\n")
    print("| | accuracy | log loss | calibration error | fit |\n|---|---|---|---|---|")
    for title, m, seconds in rows:
        if m is None:
            continue
        fit = "" if seconds is None else f"{seconds:.1f} s"
        print(f"| {title} | {m['accuracy']:.4f} | {m['log_loss']:.4f} | {m['calibration_error']:.4f} | {fit} |")
    if ours and "logistic" in found:
        gap = ours["log_loss"] - found["logistic"]["log_loss"]
        print(f"\nlogistic less scikit-learn's on the same rows: {gap:+.4f} (at most {GAP_MAX})")
        sys.exit(int(gap > GAP_MAX))


if __name__ == "__main__":
    main()
