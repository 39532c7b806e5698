"""The life of a job: submitted, claimed, transcribed, finished, retried, dead, cancelled. No HTTP, no Celery."""
