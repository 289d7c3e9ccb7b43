from libs.common.messaging.topology import (
    Binding,
    Exchange,
    delay_name,
    delay_queue,
    request_queue,
    work_queue,
)

WORK = Exchange("svc", "direct")
EVENTS = Exchange("other.events", "topic")
DLX = Exchange("svc.dlx", "direct")
AT_LEAST_ONCE = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": -1,
}


def test_a_work_queue_dead_letters_into_retry_at_least_once() -> None:
    work, retry, _ = work_queue("svc.work", exchange=WORK, dlx=DLX)
    assert work.arguments == AT_LEAST_ONCE | {
        "x-dead-letter-exchange": "svc.dlx",
        "x-dead-letter-routing-key": "svc.work.retry",
    }
    assert retry.name == "svc.work.retry"
    assert retry.bindings == (Binding(DLX, "svc.work.retry"),)


def test_the_retry_queue_returns_messages_at_least_once() -> None:
    work, retry, _ = work_queue("svc.work", exchange=WORK, dlx=DLX)
    assert retry.arguments == AT_LEAST_ONCE | {
        "x-dead-letter-exchange": "svc",
        "x-dead-letter-routing-key": "svc.work",
    }
    assert Binding(WORK, "svc.work") in work.bindings


def test_the_ttl_of_retry_is_a_policy_not_an_argument() -> None:
    for queue in work_queue("svc.work", exchange=WORK, dlx=DLX):
        assert "x-message-ttl" not in queue.arguments
        assert "x-expires" not in queue.arguments


def test_dead_keeps_everything_until_a_person_acts() -> None:
    *_, dead = work_queue("svc.work", exchange=WORK, dlx=DLX)
    assert dead.arguments == {"x-queue-type": "quorum", "x-delivery-limit": -1}
    assert dead.bindings == (Binding(DLX, "svc.work.dead"),)


def test_bindings_are_kept_without_duplicates() -> None:
    own, foreign = Binding(WORK, "svc.work"), Binding(EVENTS, "thing.*")
    work, *_ = work_queue("svc.work", exchange=WORK, dlx=DLX, bindings=(own, foreign))
    assert sorted(work.bindings, key=repr) == sorted((own, foreign), key=repr)


def test_a_delay_queue_has_its_delay_in_name_and_arguments() -> None:
    delay = delay_queue("svc.work", 600, exchange=WORK, dlx=DLX)
    assert delay.name == delay_name("svc.work", 600) == "svc.work.retry.600"
    assert delay.arguments == AT_LEAST_ONCE | {
        "x-dead-letter-exchange": "svc",
        "x-dead-letter-routing-key": "svc.work",
        "x-message-ttl": 600_000,
    }
    assert delay.bindings == (Binding(DLX, "svc.work.retry.600"),)


def test_a_request_queue_dead_letters_nothing() -> None:
    requests, dead = request_queue("svc.requests", dlx=DLX, bindings=(Binding(WORK, "ask"),))
    assert requests.arguments == {"x-queue-type": "quorum", "x-delivery-limit": -1}
    assert dead.name == "svc.requests.dead"
