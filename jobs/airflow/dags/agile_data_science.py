"""The two schedules of the original system, under their names there.

| DAG | when | tasks |
|---|---|---|
| agile_data_science_batch_prediction_model_training | weekly | download → ingest → train → gate → publish |
| agile_data_science_batch_predictions_daily | daily, after midnight | fetch → score → load |

Each task may run again at any time, after a failure or because somebody wants it: it replaces what it
made, or finds nothing to do.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowException

from submit_job import SubmitJob, report_failure, submit_job

DEFAULTS = {
    "owner": "tarmac",
    "retries": 3,
    "retry_delay": timedelta(seconds=float(os.environ.get("TARMAC_RETRY_SECONDS", "300"))),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
    "execution_timeout": timedelta(hours=6),
    "on_failure_callback": report_failure,
}
# One run at a time: two would do the same work twice, and wait for each other. No run is made up for
# afterwards: the next one finds all that has come since.
SCHEDULED = {
    "start_date": datetime(2016, 12, 1, tzinfo=timezone.utc),
    "catchup": False,
    "max_active_runs": 1,
    "dagrun_timeout": timedelta(hours=24),
    "default_args": DEFAULTS,
    "tags": ["tarmac"],
}


def day_of(dag_run, params) -> str:
    """The day whose questions a run answers: the one that was asked for, for a scheduled run the
    one that has just ended, else the day of the run. A run by hand has no logical date."""
    if params.get("day"):
        return params["day"]
    date = dag_run.logical_date or dag_run.run_after
    if dag_run.run_type in ("scheduled", "backfill"):
        date -= timedelta(days=1)
    return date.astimezone(timezone.utc).strftime("%Y-%m-%d")


with DAG(
    dag_id="agile_data_science_batch_prediction_model_training",
    description="Flights to a model: what was published since, trained and promoted if it is no worse",
    schedule="0 3 * * 1",
    params={
        "first_month": Param(
            os.environ.get("TARMAC_FIRST_MONTH", "2015-01"),
            type="string",
            pattern="^[0-9]{4}-[0-9]{2}$",
            description="First month of flights, YYYY-MM; those that are there are not fetched again",
        ),
        "last_month": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]{4}-[0-9]{2}$",
            description="Last one; without it the newest that is published",
        ),
    },
    **SCHEDULED,
):
    download = SubmitJob(
        task_id="download",
        arguments=[
            "download",
            "--from={{ params.first_month }}",
            "{{ '--to=' ~ params.last_month if params.last_month else '' }}",
        ],
    )
    ingest = SubmitJob(task_id="ingest", arguments=["ingest", "--new"])
    train = SubmitJob(task_id="train", arguments=["train", "--no-promote", "--json"])

    @task(execution_timeout=timedelta(minutes=30))
    def gate(trained: dict) -> str:
        """Makes the model the champion if it is no worse; what was decided."""
        decided = submit_job("models", "promote", "--if-better", trained["model"])
        if decided.returncode != 0:
            raise AirflowException(decided.stderr.strip())
        return decided.stdout.strip()

    publish = SubmitJob(task_id="publish", arguments=["publish"])
    download >> ingest >> train
    gate(train.output) >> publish

with DAG(
    dag_id="agile_data_science_batch_predictions_daily",
    description="Answers what was left on the pages to be answered overnight",
    schedule="15 0 * * *",
    params={
        "day": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
            description="Day on which the questions were left, YYYY-MM-DD, UTC",
        )
    },
    user_defined_macros={"day_of": day_of},
    **SCHEDULED,
):
    steps = [
        SubmitJob(
            task_id=step,
            arguments=["predict", "--only", step, "--day", "{{ day_of(dag_run, params) }}"],
        )
        for step in ("fetch", "score", "load")
    ]
    steps[0] >> steps[1] >> steps[2]
