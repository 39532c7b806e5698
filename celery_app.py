"""The Celery instance: broker, queues, acknowledgement. No task.

The reasons for the settings are in docs/adr/0001 and docs/operations.md.
"""

from celery import Celery
from kombu import Queue

from config import get_settings
from jobs.routing import QUEUES

settings = get_settings()

app = Celery("whisper_queue", broker=settings.redis_url.get_secret_value() or None, include=["tasks"])
app.conf.update(
    # Early acknowledgement: the row in PostgreSQL is the job, the message is a doorbell that may be lost (ADR 0001).
    task_acks_late=False,
    task_reject_on_worker_lost=False,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_proc_alive_timeout=180,  # seconds; 4 kills a child that loads a model (celery reads it for replaced ones)
    worker_max_tasks_per_child=None,
    worker_max_memory_per_child=settings.worker_max_memory_mb * 1024 or None,  # KiB; looked at after a task
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_send_task_events=True,  # Flower
    task_send_sent_event=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    # JSON only: a message can never run code
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    # Direct queues survive a FLUSHALL; nothing else may create one
    task_queues=[Queue(name, routing_key=name) for name in QUEUES],
    task_create_missing_queues=False,
    task_default_queue="transcription.normal",
    task_default_exchange_type="direct",
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "queue_order_strategy": "priority",  # in the order of -Q
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "visibility_timeout": 300,
        "unacked_restore_throttle": 1,
        "max_retries": 0,  # the relay takes back what was not sent; the worker's own reconnection is not meant by this
    },
    task_publish_retry=False,  # the relay rings again
)
