"""Jobs of Tarmac as tasks of Airflow.

A task starts its job with `--no-wait` and then only looks at it: the job is a process of its own, so
the death of the task's worker does not end it. What the task knows, the id of its job, stands in a
variable of Airflow until the job has succeeded. So the next attempt of the task finds the job: it
goes on looking at one that runs, resumes one that failed or was lost, and is done when the job has
succeeded meanwhile. A task that is cleared after it succeeded begins a new job.

Where the data root, the store and the cluster are is said by the environment of the workers, as to
every command of `submit-job`: TARMAC_DATA, TARMAC_MONGO or TARMAC_MONGO_FILE, TARMAC_MASTER.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import time
import urllib.request
import uuid

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.exceptions import AirflowException

# exit codes of `submit-job --status`
SUCCEEDED, NO_SUCH_JOB, RUNNING = 0, 3, 4
# Seconds between two looks.
POLL = 5.0
# Looks in a row that may find no answer, such as while an object store restarts: two minutes.
SILENT_MAX = 24
# Seconds that a command may take that only looks, starts or ends.
COMMAND_WAIT = 120
# Lines of what the job printed that go to the log of the task.
LINES_SHOWN = 200

log = logging.getLogger(__name__)


def submit_job(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of submit-job that ends soon."""
    program = os.environ.get("SUBMIT_JOB", "submit-job")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=COMMAND_WAIT, check=False
    )


class SubmitJob(BaseOperator):
    """A batch job; its result is what the task returns.

    :param arguments: the command and its flags, such as `["train", "--no-promote"]`
    :param poll: seconds between two looks
    """

    template_fields = ("arguments",)

    def __init__(self, *, arguments: list[str], poll: float = POLL, **kwargs) -> None:
        super().__init__(**kwargs)
        self.arguments = arguments
        self.poll = poll
        self.job: str | None = None

    def execute(self, context) -> dict:
        variable = variable_of(context["ti"])
        self.job = Variable.get(variable, default=None)
        if self.job is None:
            self.job = f"{self.task_id}-{uuid.uuid4().hex[:12]}"
            # before the job begins: whoever dies in between has lost none
            Variable.set(variable, self.job, description="job of a task that has not succeeded yet")
        self.begin()
        record = self.follow()
        Variable.delete(variable)
        return record["result"]

    def begin(self) -> None:
        """Has the job run, unless it does or has succeeded."""
        code, record = self.status()
        if code == RUNNING:
            log.info("job %s is running", self.job)
            return
        if code == SUCCEEDED:
            return
        if code == NO_SUCH_JOB:
            # a flag that a template leaves empty is none
            command = [argument for argument in self.arguments if argument]
            arguments = ["--job-id", self.job, "--no-wait", *command]
        elif record is not None:
            log.info("job %s is %s: %s", self.job, record["state"], record["error"])
            arguments = ["--resume", self.job, "--no-wait"]
        else:
            raise AirflowException(f"job {self.job} cannot be looked at")
        log.info("submit-job %s", " ".join(arguments))
        begun = submit_job(*arguments)
        log.info("%s", begun.stderr.strip())
        if begun.returncode != SUCCEEDED:
            raise AirflowException(f"job {self.job} did not begin: {begun.stderr.strip()}")

    def follow(self) -> dict:
        """Looks at the job until it has ended; its record."""
        n_silent = 0
        while n_silent < SILENT_MAX:
            code, record = self.status()
            if code != RUNNING and record is not None:
                self.show_log()
                if code == SUCCEEDED:
                    return record
                raise AirflowException(f"job {self.job} is {record['state']}: {record['error']}")
            n_silent = 0 if record else n_silent + 1
            time.sleep(self.poll)
        raise AirflowException(f"job {self.job} cannot be looked at any more; it may be running")

    def status(self) -> tuple[int, dict | None]:
        """The exit code of `--status`, and the record where it is known."""
        try:
            looked = submit_job("--status", self.job)
        except subprocess.TimeoutExpired:
            return -1, None
        try:
            return looked.returncode, json.loads(looked.stdout)
        except ValueError:
            log.info("%s", looked.stderr.strip())
            return looked.returncode, None

    def show_log(self) -> None:
        """Copies the end of what the job printed, where the data root is a directory here."""
        path = os.path.join(os.environ.get("TARMAC_DATA", "tarmac-data"), "jobs", f"{self.job}.log")
        if not os.path.isfile(path):
            return
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines.readlines()[-LINES_SHOWN:]:
                log.info("  %s", line.rstrip())

    def on_kill(self) -> None:
        """Ends the job: somebody has ended the task, or it took too long."""
        if self.job is not None:
            log.info("%s", submit_job("--kill", self.job).stderr.strip())


def variable_of(ti) -> str:
    """The name of the variable that holds the job of a task of a run."""
    task = f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"
    return f"submit_job_{hashlib.sha256(task.encode()).hexdigest()[:32]}"


def report_failure(context) -> None:
    """Says which task has failed for good: to the log, and as JSON to TARMAC_ALERT_URL."""
    ti = context["ti"]
    failure = {
        "dag": ti.dag_id,
        "task": ti.task_id,
        "run": ti.run_id,
        "error": str(context.get("exception")),
    }
    log.error("failed for good: %s", failure)
    url = os.environ.get("TARMAC_ALERT_URL")
    if url:
        request = urllib.request.Request(
            url, json.dumps(failure).encode(), {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as error:
            log.error("TARMAC_ALERT_URL: %s", error)
