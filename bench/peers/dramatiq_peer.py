"""Dramatiq on RabbitMQ: durable classic queues (it has no others) and publisher confirms."""

import os
import sys
import threading

import dramatiq
import requests
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.peers import TEXT

dramatiq.set_broker(RabbitmqBroker(url=os.environ["AMQP_URL"], confirm_delivery=True))
_local = threading.local()


@dramatiq.actor(queue_name="bench.dramatiq")
def post(text: str) -> None:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    _local.session.post(os.environ["SINK_URL"], json={"text": text}, timeout=10).raise_for_status()


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        post.send(TEXT)
