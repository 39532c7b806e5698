"""Takes the guards away one at a time, in a copy of the tree, and shows that a named test goes red for each.

`python -m tests.faults.mutations [part of a name]`. A guard that nobody would miss is a missing test: exit status 1.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "var", "build", "__pycache__", "node_modules")
WITHIN_S = 300
FENCE = ("jobs/states.py", "        conditions.append(Job.attempt == fence)\n", "        pass\n")
GIVE_UP = (
    "jobs/claim.py",
    ".where(Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.PROCESSING)",
    ".where(Job.id == fence.job_id, Job.status == Status.PROCESSING)",
)
STALE = (
    "jobs/turns.py",
    "WHERE head.published_at IS NULL OR head.published_at < now() - :stale",
    "WHERE head.published_at IS NULL AND :stale IS NOT NULL",
)
Edit = tuple[str, str, str]  # file, what is there once, what stands there instead


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    test: str
    edits: tuple[Edit, ...]


def one(name: str, test: str, *edits: Edit) -> Mutation:
    return Mutation(name, f"tests/{test}", edits)


OLD_ATTEMPT = "test_jobs_claim.py::test_a_worker_whose_attempt_is_old_cannot"
LATE = "faults/test_postgresql_dies.py::test_fault_10_a_finish_that_comes_after_the_lease_is_fenced"
TRUST = "test_jobs_heartbeat.py::test_no_database_for_a_lease_is_a_lost_lease_and_before_that_it_is_not"
RESTART = "test_jobs_sweep.py::test_nothing_is_taken_back_within_a_lease_of_the_start_of_the_database"
AGAIN = "test_jobs_doorbells.py::test_a_doorbell_that_nobody_answered_is_rung_again_after_a_while_and_not_before"
FLUSHED = "faults/test_redis_dies.py::test_fault_4_a_flushed_redis_forgets_no_job"
BLAMED = "test_engine_link.py::test_a_death_that_somebody_else_caused_counts_for_nobody_else"
GIVEN_UP = "test_engine_link.py::test_a_model_whose_load_kills_the_server_is_given_up_after_two_deaths"
ONE_IN_FOUR = "test_engine_batcher.py::test_urgent_rows_that_never_end_leave_others_one_turn_in_four"
ATTEMPT = "test_jobs_attempt.py"
ENDS = f"{ATTEMPT}::test_every_end_of_an_attempt_is_counted_as_what_it_is"
ADOPT, BELLS, FETCH = "test_housekeeping.py", "test_jobs_doorbells.py", "test_fetch_by_address.py"
STALLED = f"{ATTEMPT}::test_what_no_worker_could_do_for_long_is_a_dead_letter_that_says_so"
EMPTY = "test_storage.py::test_an_empty_place_where_the_storage_should_be_is_away"
LET_OUT = f"{BELLS}::test_jobs_whose_queue_nobody_draws_from_are_let_out_to_others_after_a_while"
NOT_TAKEN = f"{BELLS}::test_doorbells_that_redis_did_not_take_are_chosen_again_at_once"
STILL_THERE = f"{BELLS}::test_while_long_jobs_keep_everybody_busy_no_doorbell_that_is_still_there_is_rung_again"
FETCHED_LATE = f"{FETCH}::test_what_a_lost_attempt_fetches_late_neither_stays_nor_takes_the_new_ones_away"
WAITED = "test_jobs_heartbeat.py::test_a_job_that_only_waited_for_the_device_is_not_overdue"
NUMBER_TAKEN = f"{ATTEMPT}::test_a_segment_whose_number_is_taken_is_never_dropped_in_silence"
RELAY, THREADS, INTAKE = "test_relay.py", "test_api_threads.py", "test_api_intake.py"
BEFORE_COMMIT = "test_a_claim_waits_for_no_doorbell_that_is_on_its_way_to_redis"
REFUSED = "test_doorbells_that_redis_refused_ring_as_soon_as_it_takes_them"
REFUSED_SLOWLY = "test_refused_recordings_in_a_slow_store_hold_up_no_poll_and_no_probe"
PURGES = "test_purges_in_a_slow_store_leave_connections_to_all_others_and_delete_everything"
OF_HOURS = "test_a_transcript_of_hours_is_written_beside_the_answers_to_others"
DRIPS = "test_a_client_that_drips_on_after_its_body_was_dropped_loses_its_connection"
RACE = "test_jobs_cancel.py::test_a_cancel_at_the_moment_of_a_claim_always_wins"

MUTATIONS = (
    one("no fence in a move", "test_jobs_states.py::test_a_mover_of_another_attempt_is_fenced", FENCE),
    one("no fence at the finish", f"{OLD_ATTEMPT}[finish]", FENCE),
    one("no fence at the finish, real workers", LATE, FENCE),
    one("no fence at a failure", f"{OLD_ATTEMPT}[fail]", FENCE, GIVE_UP),
    one("no fence at a checkpoint", f"{OLD_ATTEMPT}[checkpoint]", (
        "jobs/attempt.py",
        "(Job.id == self._fence.job_id, Job.attempt == self._fence.attempt, Job.status == Status.PROCESSING)",
        "(Job.id == self._fence.job_id, Job.status == Status.PROCESSING)",
    )),
    one("no fence at a heartbeat", "test_jobs_heartbeat.py::test_a_lost_lease_is_noticed", (
        "jobs/progress.py",
        ".where(Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.PROCESSING)",
        ".where(Job.id == fence.job_id, Job.status == Status.PROCESSING)",
    )),
    one("a claim of what is not pending", "test_jobs_claim.py::test_a_doorbell_that_rings_twice_is_a_no_op", (
        "jobs/states.py", "[Job.id == job_id, Job.status == from_, *guards]", "[Job.id == job_id, *guards]",
    )),
    one("a claim of what is not due", "test_jobs_claim.py::test_a_job_that_is_not_due_is_not_claimed", (
        "jobs/claim.py", "guards=(Job.run_at <= func.now(), ~is_paused()),", "guards=(~is_paused(),),",
    )),
    one("leases taken back before they lapse", "test_jobs_sweep.py::test_a_lease_that_still_runs_is_left_alone", (
        "jobs/sweep.py", "            Job.lease_until < func.now(),\n", "",
    )),
    one("leases taken back at once after a restart", RESTART, (
        "jobs/sweep.py", "            up_since < func.now() - timedelta(seconds=settings.lease_seconds),\n", "",
    )),
    one("a worker that trusts its lease for ever", TRUST, (
        "jobs/progress.py", " or monotonic() - self._renewed_at > self._lease_s", "",
    )),
    one("no doorbell is rung again", AGAIN, STALE),
    one("no doorbell is rung again, real Redis", FLUSHED, STALE),
    one("a cancel of what is final", "test_jobs_cancel.py::test_a_final_job_stays_as_it_is", (
        "jobs/cancel.py", "if status in (Status.PENDING, Status.PROCESSING):", "if status:",
    )),
    one("turns by age alone", "test_jobs_doorbells.py::test_callers_take_turns_however_many_jobs_each_has", (
        "jobs/turns.py", "ORDER BY turn, head.run_at", "ORDER BY head.run_at",
    )),
    one("a key for any payload", "test_idempotency.py::test_one_key_cannot_stand_for_a_recording_and_a_batch", (
        "jobs/idempotency.py", "if row.fingerprint != once.fingerprint:", "if not row.fingerprint:",
    )),
    one("a key that does not lock", "test_idempotency.py::test_fifty_identical_posts_at_once_make_one_job", (
        "api/submit.py", "row is not None and row.job_id is not None", "row is not None and row.batch_id is not None",
    )),
    one("jobs of others", "test_access_ownership.py::test_a_job_of_somebody_else_is_not_there", (
        "jobs/read.py", "if job is None or owner not in (None, job.owner):", "if job is None:",
    )),
    one("batches of others", "test_access_ownership.py::test_a_batch_of_somebody_else_is_not_there", (
        "jobs/read.py", "if batch is None or owner not in (None, batch.owner):", "if batch is None:",
    )),
    one("quotas that nobody waits for", "test_access_quota.py", (
        "access/quota.py", "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))", "SELECT hashtext(:name)",
    )),
    one("rows that pay for a load", BLAMED, (
        "engines/link.py", "== (LOADING if death.loading else RUNNING)", "in (LOADING, RUNNING)",
    )),
    one("loads that kill without end", GIVEN_UP, (
        "engines/link.py", "== (LOADING if death.loading else RUNNING)", "== RUNNING",
    )),
    one("a load beside a suspect", "test_engine_batcher.py::test_no_load_runs_beside_a_suspect", (
        "engines/batcher.py", "lambda: not (self._exclusive or self._suspects)", "lambda: True",
    )),
    one("a suspect beside a load", "test_engine_batcher.py::test_no_suspect_runs_beside_a_load_and_others_do", (
        "engines/batcher.py", "not (self._running or self._loads or self._exclusive)", "not self._running",
    ), ("engines/batcher.py", "if self._suspects and not self._loads:", "if self._suspects:")),
    one("urgent rows alone", ONE_IN_FOUR, (
        "engines/batcher.py", "self._ahead >= URGENT_TURNS", "self._ahead < 0",
    )),
    one("a worker's trouble booked on the recording", f"{ENDS}[StorageAway('x')]", (
        "jobs/blame.py", "        return Cause.WORKER\n", "        return Cause.FAILURE\n",
    )),
    one("memory that is full booked on the recording", f"{ENDS}[OutOfMemory('x')]", (
        "jobs/blame.py", "    errors.OutOfMemory,", "    errors.StorageFull,",
    )),
    one("no rest after a worker's trouble", "faults/test_worker_is_ill.py", (
        "jobs/attempt.py", "    work.breaker.rest()\n", "",
    )),
    one("a rest that no probe ends", "test_jobs_breaker.py::test_nothing_is_claimed_before_a_probe_succeeds", (
        "jobs/breaker.py", "            self._probe()\n", "            pass\n",
    )),
    one("no limit to what no worker can do", STALLED, (
        "jobs/retry.py", "if stalled_s >= limits.stalled_s:", "if stalled_s < 0:",
    )),
    one("an empty mount point is a storage", EMPTY, (
        "storage/local.py", "        if not self.is_marked():\n", "        if False:\n",
    )),
    one("any folder is adopted", f"{ADOPT}::test_a_store_that_lacks_its_recordings_is_not_adopted", (
        "jobs/files.py", "    if has_jobs and not _holds_recordings(storage):\n", "    if False:\n",
    )),
    one("clean failures go to the isolated worker", "test_jobs_retry.py", (
        "jobs/retry.py",
        "    return Again(delay_s=chance * ceiling_s, retrying=now.losses > 0, counters=now)",
        "    return Again(delay_s=chance * ceiling_s, retrying=True, counters=now)",
    )),
    one("ill children are capacity", "test_jobs_doorbells.py::test_a_worker_that_is_ill_draws_from_nothing", (
        "jobs/read.py",
        "well = select(Process.queues).where(is_seen(within_s), Process.illness.is_(None))",
        "well = select(Process.queues).where(is_seen(within_s))",
    )),
    one("a queue without a consumer keeps its jobs", LET_OUT, (
        "jobs/sweep.py", "target = queue if queue in served or not served else served[0]", "target = queue",
    )),
    one("doorbells that Redis did not take stay noted", NOT_TAKEN, (
        "jobs/turns.py", "waiting.values(published_at=None)", "waiting.values(published_at=Job.published_at)",
    )),
    one("what is still in Redis is rung again", STILL_THERE, (
        "jobs/sweep.py", "    stale_s = NEVER_S if is_whole else", "    stale_s = NEVER_S if False else",
    )),
    one("doorbells published before the COMMIT", f"{RELAY}::{BEFORE_COMMIT}", (
        "relay.py",
        "if sweep.try_lead(session) else _Chosen()\n            self._publish(chosen)\n",
        "if sweep.try_lead(session) else _Chosen()\n                self._publish(chosen)\n",
    )),
    one("doorbells that Redis refused wait for long", f"{RELAY}::{REFUSED}", (
        "relay.py", "                sweep.unring(session, chosen.jobs)\n", "",
    )),
    one("one limiter for storage and the database", f"{THREADS}::{REFUSED_SLOWLY}", (
        "api/uploads.py",
        "    await in_thread(threads.storage, form.discard, storage)\n",
        "    await run_in_threadpool(form.discard, storage)\n",
    )),
    one("purges that take all connections", f"{THREADS}::{PURGES}", (
        "api/threads.py", "self.purges = CapacityLimiter(2)", "self.purges = CapacityLimiter(32)",
    )),
    one("transcripts written on the event loop", f"{THREADS}::{OF_HOURS}", (
        "api/openai.py", "await run_in_threadpool(answers.answer, done, options)", "answers.answer(done, options)",
    )),
    one("uploads without a number", f"{INTAKE}::test_every_door_for_recordings_counts", (
        "api/intake.py", "if self._count >= self._most:", "if False:",
    )),
    one("a dropped body keeps its connection", f"{INTAKE}::{DRIPS}", (
        "api/problems.py", '        headers["Connection"] = "close"', '        headers["X-Body"] = "dropped"',
    )),
    one("attempts fetch under one key", FETCHED_LATE, (
        "jobs/fetch.py", "    key = new_key()\n", "    key = job.storage_key\n",
    )),
    one("segments dropped in silence", NUMBER_TAKEN, (
        "jobs/attempt.py", "    if len(written) != len(rows) and not is_again:", "    if False:",
    )),
    one("waiting for the device counts as work", WAITED, (
        "jobs/progress.py", "            deadline_at=Job.deadline_at + timedelta(seconds=waited_s),\n", "",
    )),
    one("a cancel that does not look first", RACE, (
        "jobs/cancel.py", ".where(Job.id == job_id).with_for_update()", ".where(Job.id == job_id)",
    )),
)  # fmt: skip


def run(tree: Path, test: str) -> int:
    """pytest's exit status: 0 green, 1 red, anything else is no answer."""
    command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", test)
    done = subprocess.run((*command, "-o", "addopts="), cwd=tree, capture_output=True, check=False, timeout=WITHIN_S)
    return done.returncode


@contextmanager
def mutated(tree: Path, edits: tuple[Edit, ...]) -> Iterator[None]:
    before = {path: (tree / path).read_text() for path, _, _ in edits}
    try:
        for path, old, new in edits:
            text = (tree / path).read_text()
            assert text.count(old) == 1, f"{path} does not hold this once: {old}"
            (tree / path).write_text(text.replace(old, new))
        yield
    finally:
        for path, text in before.items():
            (tree / path).write_text(text)


def verdict(tree: Path, mutation: Mutation) -> str:
    """Red is good; a test that is red without the mutation says nothing."""
    with mutated(tree, mutation.edits):
        status = run(tree, mutation.test)
    if status == 1:
        return "red" if run(tree, mutation.test) == 0 else "red without it too"
    return "GREEN" if status == 0 else f"pytest ended with {status}"


def main(part: str = "") -> int:
    chosen = [mutation for mutation in MUTATIONS if part in mutation.name]
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        verdicts = [told(tree, mutation) for mutation in chosen]
    print(f"{verdicts.count('red')} of {len(verdicts)} guards are missed when they are gone")
    return 0 if verdicts and set(verdicts) == {"red"} else 1


def told(tree: Path, mutation: Mutation) -> str:
    started = time.monotonic()
    said = verdict(tree, mutation)
    print(f"{mutation.name:42} {said:5} {time.monotonic() - started:5.1f} s  {mutation.test}", flush=True)
    return said


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
