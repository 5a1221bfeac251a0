"""Tests of the two DAGs and of the operator, without a scheduler: `python test_dags.py`.

The program is a stand-in that keeps the states of jobs in files, so that each way in which a job or
a worker can end is met.
"""

import os
import stat
import sys
import tempfile
import unittest
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

HOME = tempfile.TemporaryDirectory()
os.environ |= {
    "AIRFLOW_HOME": HOME.name,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
}
os.environ.pop("TARMAC_RETRY_SECONDS", None)
DAGS = Path(__file__).parent / "dags"
sys.path.insert(0, str(DAGS))

from airflow.dag_processing.dagbag import DagBag  # noqa: E402
from airflow.sdk.exceptions import AirflowException  # noqa: E402

import agile_data_science as dags  # noqa: E402
import submit_job as jobs  # noqa: E402

TRAINING = "agile_data_science_batch_prediction_model_training"
DAILY = "agile_data_science_batch_predictions_daily"
# `--status` gives the next of the states, the last of them for ever; what else is asked is noted.
STAND_IN = """#!/bin/sh
cd "$(dirname "$0")"
if [ "$1" = --status ]; then
  state=$(head -n 1 states)
  [ "$(wc -l <states)" -gt 1 ] && sed -i 1d states
  case $state in
    none) echo "there is no job $2" >&2; exit 3 ;;
    silent) echo "the data root does not answer" >&2; exit 1 ;;
  esac
  echo '{"state": "'$state'", "error": "broken", "result": {"model": "ab"}}'
  case $state in succeeded) exit 0 ;; running) exit 4 ;; lost) exit 5 ;; cancelled) exit 130 ;; esac
  exit 1
fi
echo "$@" >>asked
echo "what it prints goes to a file" >&2
"""


class Structure(unittest.TestCase):
    def setUp(self):
        self.bag = DagBag(dag_folder=str(DAGS))

    def test_both_import_and_nothing_else_is_a_dag(self):
        self.assertEqual(self.bag.import_errors, {})
        self.assertEqual(set(self.bag.dags), {TRAINING, DAILY})

    def test_tasks_follow_one_another(self):
        for dag_id, order in [
            (TRAINING, ["download", "ingest", "train", "gate", "publish"]),
            (DAILY, ["fetch", "score", "load"]),
        ]:
            dag = self.bag.dags[dag_id]
            self.assertEqual({task.task_id for task in dag.tasks}, set(order))
            for task, following in zip(order, order[1:]):
                self.assertEqual(dag.get_task(task).downstream_task_ids, {following})

    def test_a_failure_is_tried_again_and_runs_do_not_overlap(self):
        for dag in self.bag.dags.values():
            self.assertEqual((dag.catchup, dag.max_active_runs), (False, 1))
            self.assertIsNotNone(dag.dagrun_timeout)
            for task in dag.tasks:
                self.assertEqual((task.retries, task.retry_delay.total_seconds()), (3, 300))
                self.assertEqual(task.retry_exponential_backoff, 2.0)
                self.assertIsNotNone(task.execution_timeout)
                self.assertTrue(task.on_failure_callback)

    def test_a_run_answers_the_day_that_has_ended_or_what_is_asked_for(self):
        def day(run_type, logical_date, **params):
            run_after = datetime(2016, 12, 26, 0, 15, tzinfo=timezone.utc)
            run = SimpleNamespace(run_type=run_type, logical_date=logical_date, run_after=run_after)
            return dags.day_of(run, params)

        self.assertEqual(day("scheduled", datetime(2016, 12, 26, tzinfo=timezone.utc)), "2016-12-25")
        self.assertEqual(day("manual", None), "2016-12-26")
        self.assertEqual(day("manual", None, day="2016-12-20"), "2016-12-20")


class Operator(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        program = self.directory / "submit-job"
        program.write_text(STAND_IN)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.variables = {}
        for patch in (
            mock.patch.dict(os.environ, {"SUBMIT_JOB": str(program), "TARMAC_DATA": "nowhere"}),
            mock.patch.object(jobs.Variable, "get", lambda key, default: self.variables.get(key)),
            mock.patch.object(jobs.Variable, "set", self.set_variable),
            mock.patch.object(jobs.Variable, "delete", self.variables.pop),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def set_variable(self, key, value, description):
        self.variables[key] = value

    def attempt(self, *states):
        """An attempt of a task whose job is in these states, one look after the other."""
        (self.directory / "states").write_text("\n".join(states) + "\n")
        arguments = ["train", "", "--json"]
        self.task = jobs.SubmitJob(task_id="train", arguments=arguments, poll=0)
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id="train", map_index=-1)
        return self.task.execute({"ti": ti})

    def asked(self):
        path = self.directory / "asked"
        asked = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return asked

    def test_a_job_is_begun_and_followed_to_its_result(self):
        self.assertEqual(self.attempt("none", "running", "running", "succeeded"), {"model": "ab"})
        (begun,) = self.asked()
        self.assertRegex(begun, "^--job-id train-[0-9a-f]{12} --no-wait train --json$")
        # cleared, it begins another one
        self.attempt("none", "succeeded")
        self.assertNotEqual(self.asked(), [begun])

    def test_the_next_attempt_resumes_what_failed_or_was_lost(self):
        for state in ("failed", "lost", "cancelled"):
            with self.assertRaisesRegex(AirflowException, f"is {state}: broken"):
                self.attempt("none", "running", state)
            (begun,) = self.asked()
            job = begun.split()[1]
            self.assertEqual(self.attempt(state, "running", "succeeded"), {"model": "ab"})
            self.assertEqual(self.asked(), [f"--resume {job} --no-wait"])
            self.assertEqual(self.variables, {})

    def test_a_worker_that_died_leaves_its_job_to_the_next_attempt(self):
        for states in (["running", "running", "succeeded"], ["succeeded"]):
            with mock.patch.object(jobs.SubmitJob, "follow", side_effect=SystemExit):
                with self.assertRaises(SystemExit):
                    self.attempt("none")
            self.asked()
            self.assertEqual(self.attempt(*states), {"model": "ab"})
            self.assertEqual(self.asked(), [])

    def test_looks_without_an_answer_are_borne_for_a_while(self):
        silent = ["silent"] * (jobs.SILENT_MAX - 1)
        self.attempt("none", "running", *silent, "running", *silent, "succeeded")
        with self.assertRaisesRegex(AirflowException, "it may be running"):
            self.attempt("none", "running", "silent")

    def test_a_task_that_is_ended_ends_its_job(self):
        self.attempt("none", "succeeded")
        job = self.asked()[0].split()[1]
        self.task.on_kill()
        self.assertEqual(self.asked(), [f"--kill {job}"])

    def test_a_program_that_does_not_begin_says_why(self):
        (self.directory / "submit-job").write_text(
            '#!/bin/sh\n[ "$1" = --status ] && exit 3\necho "error: no data root" >&2\nexit 1\n'
        )
        with self.assertRaisesRegex(AirflowException, "did not begin: error: no data root"):
            self.attempt("none")


if __name__ == "__main__":
    unittest.main(verbosity=2)
