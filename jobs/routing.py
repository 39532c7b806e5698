"""Queue names, and which queue a waiting job's doorbell goes to: pure."""

HIGH = "transcription.high"
NORMAL = "transcription.normal"
RETRY = "transcription.retry"
DLQ = "transcription.dlq"  # follow-up of dead letters; the table is the truth
WEBHOOKS = "webhooks"
OF_JOBS = (HIGH, NORMAL, RETRY)  # most urgent first, as the next
QUEUES = (*OF_JOBS, DLQ, WEBHOOKS)

AGED_SHARE = 4  # one in so many places of the high queue is for normal jobs that have waited too long


def queue_for(*, priority: str, retrying: bool) -> str:
    if retrying:
        return RETRY
    return HIGH if priority == "high" else NORMAL
