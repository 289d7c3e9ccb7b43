"""Celery with a quorum queue, late acknowledgement and publisher confirms."""

import os
import sys
import threading

import celery
import requests
from kombu import Queue

from bench.peers import TEXT

app = celery.Celery("bench", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_queues=[Queue("bench.celery", queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue="bench.celery",
    task_acks_late=True,
    task_ignore_result=True,
    broker_transport_options={"confirm_publish": True},
)
_local = threading.local()  # a session must not be shared by threads


@app.task(name="post")
def post(text: str) -> None:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    _local.session.post(os.environ["SINK_URL"], json={"text": text}, timeout=10).raise_for_status()


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        post.delay(TEXT)
