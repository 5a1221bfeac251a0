#!/usr/bin/env python3
"""Grows the same forest with each peer, each in a process of its own.

Prints one JSON line a peer:
  fit_seconds        the fit alone, data in memory (for LightGBM with its binning)
  job_seconds        from reading the Parquet to the held-out rows evaluated
  peak_rss_mb        the process with its descendants
  train_accuracy, holdout_accuracy
"""

import argparse
import json
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PEERS = ["spark", "lightgbm", "sklearn"]


def lightgbm(data, threads):
    import lightgbm as lgb
    import numpy as np

    import flights

    began = time.monotonic()
    x, y, held_out, _ = flights.load(data)
    train_x, train_y = x[~held_out], y[~held_out]
    test_x, test_y = x[held_out], y[held_out]
    del x, y

    fit = time.monotonic()
    dataset = lgb.Dataset(
        train_x, train_y, feature_name=flights.FEATURES, categorical_feature=flights.CATEGORICAL,
        params={"max_bin": flights.FOREST_LIGHTGBM["max_bin"], "verbose": -1, "num_threads": threads},
    )
    model = lgb.train({**flights.FOREST_LIGHTGBM, "num_threads": threads}, dataset, num_boost_round=flights.TREES)
    fitted = time.monotonic()

    def accuracy(x, y):
        right = 0
        for start in range(0, len(x), 500_000):
            part = slice(start, start + 500_000)
            right += int((np.argmax(model.predict(x[part], num_threads=threads), axis=1) == y[part]).sum())
        return right / len(x)

    holdout = accuracy(test_x, test_y)
    ended = time.monotonic()
    return {
        "fit_seconds": fitted - fit, "job_seconds": ended - began,
        "train_rows": len(train_x), "holdout_rows": len(test_x),
        "train_accuracy": accuracy(train_x, train_y), "holdout_accuracy": holdout,
        "version": lgb.__version__,
    }


def sklearn(data, threads):
    import sklearn
    from sklearn.ensemble import RandomForestClassifier

    import flights

    began = time.monotonic()
    x, y, held_out, _ = flights.load(data)
    train_x, train_y = x[~held_out], y[~held_out]
    test_x, test_y = x[held_out], y[held_out]
    del x, y

    fit = time.monotonic()
    model = RandomForestClassifier(
        n_estimators=flights.TREES, max_depth=5, criterion="gini", max_features=3,
        bootstrap=True, min_samples_leaf=1, n_jobs=threads, random_state=7,
    ).fit(train_x, train_y)
    fitted = time.monotonic()
    holdout = model.score(test_x, test_y)
    ended = time.monotonic()
    return {
        "fit_seconds": fitted - fit, "job_seconds": ended - began,
        "train_rows": len(train_x), "holdout_rows": len(test_x),
        "train_accuracy": model.score(train_x, train_y), "holdout_accuracy": holdout,
        "version": sklearn.__version__,
    }


def spark(data, threads):
    import pyspark
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import RandomForestClassifier
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator
    from pyspark.ml.feature import Bucketizer, StringIndexer, VectorAssembler
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    import flights

    session = (
        SparkSession.builder.appName("train_peers").master(f"local[{threads}]")
        .config("spark.driver.memory", os.environ.get("SPARK_DRIVER_MEMORY", "8g"))
        .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "8")
        .config("spark.sql.legacy.parquet.nanosAsLong", "true")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")

    began = time.monotonic()
    date = f.make_date(f.col("year").cast("int"), f.col("month").cast("int"), f.col("day").cast("int"))
    number = lambda name: f.nanvl(f.col(name).cast("double"), f.lit(None).cast("double"))
    rows = (
        session.read.parquet(str(data))
        .select(
            number("arr_delay").alias("ArrDelay"), number("dep_delay").alias("DepDelay"),
            f.col("distance").cast("double").alias("Distance"),
            f.unix_date(date).alias("Day"), f.dayofmonth(date).alias("DayOfMonth"), (f.weekday(date) + 1).alias("DayOfWeek"),
            f.dayofyear(date).alias("DayOfYear"),
            f.col("carrier").alias("Carrier"), f.col("origin").alias("Origin"), f.col("dest").alias("Dest"),
        )
        .where("ArrDelay is not null and DepDelay is not null")
        .withColumn("Route", f.concat("Origin", f.lit("-"), "Dest"))
    )
    infinity = float("inf")
    rows = Bucketizer(
        splits=[-infinity, *map(float, flights.SPLITS), infinity], inputCol="ArrDelay", outputCol="ArrDelayBucket",
    ).transform(rows)
    held_out = f.col("Day") % flights.HOLDOUT == 0
    train, test = rows.where(~held_out), rows.where(held_out)

    names = ["Carrier", "Origin", "Dest", "Route"]
    prepare = Pipeline(stages=[
        *(StringIndexer(inputCol=n, outputCol=n + "_index", handleInvalid="keep") for n in names),
        VectorAssembler(
            inputCols=["DepDelay", "Distance", "DayOfMonth", "DayOfWeek", "DayOfYear", *(n + "_index" for n in names)],
            outputCol="Features_vec",
        ),
    ]).fit(train)
    categories = max(len(stage.labels) for stage in prepare.stages[:-1]) + 1
    train = prepare.transform(train).select("Features_vec", "ArrDelayBucket").persist()
    train_rows = train.count()  # the vectors are in memory when the fit begins

    fit = time.monotonic()
    model = RandomForestClassifier(
        featuresCol="Features_vec", labelCol="ArrDelayBucket", predictionCol="Prediction",
        numTrees=flights.TREES, maxDepth=5, impurity="gini", featureSubsetStrategy="sqrt",
        maxBins=int(os.environ.get("SPARK_MAX_BINS") or max(256, categories)),
        maxMemoryInMB=1024, minInstancesPerNode=1, seed=7,
    ).fit(train)
    fitted = time.monotonic()

    accuracy = MulticlassClassificationEvaluator(
        labelCol="ArrDelayBucket", predictionCol="Prediction", metricName="accuracy")
    holdout = accuracy.evaluate(model.transform(prepare.transform(test)))
    ended = time.monotonic()
    result = {
        "fit_seconds": fitted - fit, "job_seconds": ended - began,
        "train_rows": train_rows, "holdout_rows": test.count(),
        "train_accuracy": accuracy.evaluate(model.transform(train)), "holdout_accuracy": holdout,
        "max_bins": model.getMaxBins(), "version": pyspark.__version__,
    }
    session.stop()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.child:
        result = {"spark": spark, "lightgbm": lightgbm, "sklearn": sklearn}[args.child](args.data, args.threads)
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}))
        return

    sys.path.insert(0, str(HERE))
    import measure

    peers = [name for name in args.peers.split(",") if name]
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(args.threads), "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "SPARK_LOCAL_IP": "127.0.0.1",
    }
    failed = False
    for name in peers:
        command = [sys.executable, __file__, "--child", name, "--data", str(args.data), "--threads", str(args.threads)]
        code, output, wall, peak = measure.run(command, env=environment)
        result = {"peer": name, **measure.last_object(output), "wall_seconds": round(wall, 3), "peak_rss_mb": round(peak / 2**20)}
        if code:
            result["error"] = f"exit code {code}"
            failed = True
        print(json.dumps(result), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
