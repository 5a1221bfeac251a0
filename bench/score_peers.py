#!/usr/bin/env python3
"""Nanoseconds a row of compiled and interpreted forests, on one thread.

The features are encoded beforehand; what is timed is the predict call alone.
Prints one JSON line a peer:
  ns_per_row         best of the repetitions
  ns_per_row_median  their median
  ns_per_row_cpu     the best in processor time; far below ns_per_row: the machine was busy
  trees              single trees walked for a row
  leaves             of a tree, on average, where it is compared
  deviation          largest difference from the library the model came from
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

PEERS = ["lightgbm", "treelite_lightgbm", "treelite_sklearn", "lleaves", "lleaves_default"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--fit-rows", type=int, default=300_000)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--peers", default=",".join(PEERS))
    args = parser.parse_args()
    peers = [name for name in args.peers.split(",") if name]
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")

    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    import numpy as np

    import flights

    x, y, held_out, _ = flights.load(args.data)
    rng = np.random.default_rng(7)
    train = np.flatnonzero(~held_out)
    if len(train) > args.fit_rows:
        train = np.sort(rng.choice(train, args.fit_rows, replace=False))
    train_x, train_y = x[train], y[train]
    asked = x[rng.integers(0, len(x), args.rows)]  # in no order, as requests come
    del x, y
    wide = np.ascontiguousarray(asked, np.float64)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    def report(name, predict, trees, expected=None, **more):
        predict()
        seconds, processor = [], []
        for _ in range(args.repeat):
            began, began_processor = time.perf_counter(), time.process_time()
            answer = predict()
            processor.append(time.process_time() - began_processor)
            seconds.append(time.perf_counter() - began)
        result = {
            "peer": name,
            "ns_per_row": round(min(seconds) / args.rows * 1e9, 2),
            "ns_per_row_median": round(statistics.median(seconds) / args.rows * 1e9, 2),
            "ns_per_row_cpu": round(min(processor) / args.rows * 1e9, 2),
            "rows": args.rows, "trees": trees, **more,
        }
        if expected is not None:
            answer = np.asarray(answer).reshape(args.rows, -1)
            result["deviation"] = float(np.abs(answer[: len(expected)] - expected).max())
        print(json.dumps(result), flush=True)

    def compiled(name, model, trees, expected):
        import tl2cgen

        with tempfile.TemporaryDirectory() as folder:
            library = pathlib.Path(folder) / "forest.so"
            tl2cgen.export_lib(model, toolchain="gcc", libpath=library, params={}, options=["-O3"])
            predictor = tl2cgen.Predictor(library, nthread=1)
            matrix = tl2cgen.DMatrix(wide, dtype="float64")
            report(name, lambda: predictor.predict(matrix), trees, expected, version=tl2cgen.__version__)

    def with_lleaves(name, booster):
        import lleaves

        leaves = sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"]) / booster.num_trees()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "forest.txt"
            booster.save_model(path)
            model = lleaves.Model(model_file=path)
            # inlined, large trees take many minutes to compile
            model.compile(cache=pathlib.Path(folder) / "forest.o", finline=leaves < 100)
        # it adds up what a random forest averages: its answers are not compared
        report(name, lambda: model.predict(wide, n_jobs=1), booster.num_trees(), leaves=round(leaves))

    some = slice(0, 10_000)

    @functools.cache
    def boosted(name):
        import lightgbm as lgb

        settings, rounds = flights.LIGHTGBM[name]
        dataset = lgb.Dataset(
            train_x, train_y, feature_name=flights.FEATURES, categorical_feature=flights.CATEGORICAL)
        return lgb.train({**settings, "num_threads": 1}, dataset, num_boost_round=rounds)

    def lightgbm():
        booster = boosted("original")
        report("lightgbm", lambda: booster.predict(asked, num_threads=1), booster.num_trees())

    def treelite_lightgbm():
        import treelite

        booster = boosted("original")
        compiled("treelite_lightgbm", treelite.frontend.from_lightgbm(booster), booster.num_trees(),
                 booster.predict(wide[some], num_threads=1))

    def treelite_sklearn():
        import treelite
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            n_estimators=flights.TREES, max_depth=5, max_features=3, n_jobs=1, random_state=7).fit(train_x, train_y)
        compiled("treelite_sklearn", treelite.sklearn.import_model(forest), flights.TREES,
                 forest.predict_proba(asked[some]))

    run = {
        "lightgbm": lightgbm,
        "treelite_lightgbm": treelite_lightgbm,
        "treelite_sklearn": treelite_sklearn,
        "lleaves": lambda: with_lleaves("lleaves", boosted("original")),
        "lleaves_default": lambda: with_lleaves("lleaves_default", boosted("default")),
    }
    failed = False
    for name in peers:
        try:
            run[name]()
        except Exception as error:  # one peer's failure leaves the others their figures
            failed = True
            print(json.dumps({"peer": name, "error": str(error)}), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
