from libs.common.messaging.topology import Binding, Exchange, delay_queue, request_queue, work_queue

WORK = Exchange("svc", "direct")
EVENTS = Exchange("other.events", "topic")
DLX = Exchange("svc.dlx", "direct")
AT_LEAST_ONCE = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": -1,
}


ASIDE = {"x-queue-type": "quorum", "x-delivery-limit": -1}


def dead_lettering(exchange: str, key: str) -> dict[str, object]:
    return AT_LEAST_ONCE | {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key}


def test_no_argument_and_no_binding_of_a_queue_ever_changes() -> None:
    """RabbitMQ refuses another declaration. The TTL of `.retry` is a policy, for it may change."""
    own, foreign = Binding(WORK, "svc.work"), Binding(EVENTS, "thing.*")
    queues = [
        *work_queue("svc.work", exchange=WORK, dlx=DLX, bindings=(own, foreign)),
        delay_queue("svc.work", 600, exchange=WORK, dlx=DLX),
        *request_queue("svc.requests", dlx=DLX, bindings=(Binding(WORK, "ask"),)),
    ]
    back, ttl = dead_lettering("svc", "svc.work"), {"x-message-ttl": 600_000}
    assert {queue.name: (queue.arguments, queue.bindings) for queue in queues} == {
        "svc.work": (dead_lettering("svc.dlx", "svc.work.retry"), (own, foreign)),
        "svc.work.retry": (back, (Binding(DLX, "svc.work.retry"),)),
        "svc.work.retry.600": (back | ttl, (Binding(DLX, "svc.work.retry.600"),)),
        "svc.work.dead": (ASIDE, (Binding(DLX, "svc.work.dead"),)),
        "svc.requests": (ASIDE, (Binding(WORK, "ask"),)),
        "svc.requests.dead": (ASIDE, (Binding(DLX, "svc.requests.dead"),)),
    }
