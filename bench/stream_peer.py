"""The original's streaming job on Spark: drains the topic of requests into MongoDB with an MLlib
forest, and prints what that took.

    stream_peer.py FLIGHTS.parquet BROKERS MONGO_URL JARS_DIRECTORY MONGOD_PID

What it does is what the original does: parse, index the four categories, assemble, score, drop
what is of the model, append. It writes each answer at least once, with its prediction and nothing
else of the model, with the same concern as Tarmac: a majority, in the journal.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from pyspark.ml.classification import RandomForestClassifier
from pyspark.ml.feature import Bucketizer, StringIndexer, VectorAssembler
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

TOPIC = "flight_delay_classification_request"
REQUEST = (
    "DepDelay double, Carrier string, FlightDate string, Dest string, FlightNum string, "
    "Origin string, Distance double, Timestamp string, UUID string"
)
CATEGORIES = ["Carrier", "Origin", "Dest", "Route"]
NUMBERS = ["DepDelay", "Distance", "DayOfMonth", "DayOfWeek", "DayOfYear"]
ROWS_A_BATCH = 100_000


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def with_days(frame, date):
    return (
        frame.withColumn("DayOfMonth", F.dayofmonth(date))
        .withColumn("DayOfWeek", F.weekday(date) + 1)
        .withColumn("DayOfYear", F.dayofyear(date))
        .withColumn("Route", F.concat_ws("-", "Origin", "Dest"))
    )


def train(spark, path):
    """The fitted steps of the original, in their order."""
    flights = spark.read.parquet(path).dropna(subset=["arr_delay", "dep_delay"])
    frame = with_days(
        flights.select(
            F.make_date("year", "month", "day").alias("FlightDate"),
            F.col("arr_delay").alias("ArrDelay"),
            F.col("dep_delay").alias("DepDelay"),
            F.col("distance").alias("Distance"),
            F.col("carrier").alias("Carrier"),
            F.col("origin").alias("Origin"),
            F.col("dest").alias("Dest"),
        ),
        "FlightDate",
    )
    infinity = float("inf")
    classes = Bucketizer(
        splits=[-infinity, -15.0, 0.0, 30.0, infinity], inputCol="ArrDelay", outputCol="Class"
    )
    frame = classes.transform(frame)
    steps = []
    for category in CATEGORIES:
        indexer = StringIndexer(
            inputCol=category, outputCol=f"{category}_index", handleInvalid="keep"
        )
        steps.append(indexer.fit(frame))
        frame = steps[-1].transform(frame)
    inputs = NUMBERS + [f"{category}_index" for category in CATEGORIES]
    steps.append(VectorAssembler(inputCols=inputs, outputCol="Features", handleInvalid="keep"))
    forest = RandomForestClassifier(
        featuresCol="Features",
        labelCol="Class",
        predictionCol="Prediction",
        maxBins=4657,
        maxMemoryInMB=1024,
        seed=1,
    )
    steps.append(forest.fit(steps[-1].transform(frame)))
    return steps


def main():
    flights, brokers, mongo, jars, mongod = sys.argv[1:]
    spark = (
        SparkSession.builder.master(f"local[{os.cpu_count()}]")
        .config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.streaming.numRecentProgressUpdates", "100000")
        .config("spark.jars", ",".join(str(jar) for jar in Path(jars).glob("*.jar")))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    steps = train(spark, flights)
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", brokers)
        .option("subscribe", TOPIC)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", ROWS_A_BATCH)
        .load()
    )
    request = F.from_json(F.col("value").cast("string"), REQUEST)
    frame = records.select(request.alias("request")).select("request.*")
    frame = with_days(frame.withColumn("FlightDate", F.to_date("FlightDate")), "FlightDate")
    frame = frame.withColumn("Distance", F.coalesce("Distance", F.lit(0.0)))
    for step in steps:
        frame = step.transform(frame)
    of_model = ["Features", "rawPrediction", "probability"]
    frame = frame.drop(*of_model, *[f"{category}_index" for category in CATEGORIES])
    writer = (
        frame.writeStream.format("mongodb")
        .option("checkpointLocation", tempfile.mkdtemp())
        .option("spark.mongodb.connection.uri", mongo)
        .option("spark.mongodb.database", "spark")
        .option("spark.mongodb.collection", "answers")
        .option("spark.mongodb.write.writeConcern.w", "majority")
        .option("spark.mongodb.write.writeConcern.journal", "true")
        .outputMode("append")
        .trigger(availableNow=True)
    )
    jvm = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
    cpu, of_mongod, started = cpu_seconds(jvm), cpu_seconds(mongod), time.monotonic()
    query = writer.start()
    query.awaitTermination()
    seconds = time.monotonic() - started
    rows = sum(progress["numInputRows"] for progress in query.recentProgress)
    figures = {
        "spark": rows,
        "seconds": round(seconds, 1),
        "per_second": round(rows / seconds),
        "cpu_us_a_request": round(1e6 * (cpu_seconds(jvm) - cpu) / rows, 1),
        "mongod_cpu_us": round(1e6 * (cpu_seconds(mongod) - of_mongod) / rows, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
