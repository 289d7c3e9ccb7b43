from deploy.sandbox.mail import Mail
from deploy.sandbox.recorder import ACCEPTED_LIMIT, REFUSED_LIMIT, Kept, Recorder


def mail(size: int = 1) -> Mail:
    return Mail("a@b.pl", ["c@d.pl"], b"x" * size)


def test_more_items_than_the_limit_push_out_the_oldest_but_stay_counted() -> None:
    kept = Kept[Mail]((3, 1000))

    for number in range(5):
        kept.add(number, mail())

    assert (len(kept), kept.count) == (3, 5)
    assert kept.get(1) is None
    assert kept.get(2) is not None


def test_more_bytes_than_the_limit_push_out_the_oldest() -> None:
    kept = Kept[Mail]((100, 10))

    kept.add(1, mail(6))
    kept.add(2, mail(6))

    assert kept.get(1) is None
    assert kept.get(2) is not None


def test_evicted_items_free_their_space() -> None:
    kept = Kept[Mail]((100, 10))

    for number in range(20):
        kept.add(number, mail(6))
        kept.drop(number)
    kept.add("a", mail(5))
    kept.add("b", mail(5))

    assert (len(kept), kept.count) == (2, 2)


def test_the_mailbox_keeps_the_newest_ten_thousand() -> None:
    recorder = Recorder(["email"])
    mails = [mail() for _ in range(10_001)]

    for item in mails:
        recorder.record("email", item, accepted=True, answered=250)

    assert len(recorder.mailbox) == 10_000
    assert recorder.mailbox.get(mails[0].id) is None
    assert recorder.mailbox.get(mails[-1].id) is mails[-1]


def test_a_flood_of_refused_requests_evicts_no_accepted_one() -> None:
    recorder = Recorder(["slack"])
    recorder.record("slack", b"first", accepted=True, answered=200)

    for _ in range(REFUSED_LIMIT[0] + 1):
        recorder.record("slack", b"x", accepted=False, answered=500)

    count, received = recorder.received(["slack"], refused_too=True, limit=None)
    assert count == REFUSED_LIMIT[0] + 2
    assert len(received) == REFUSED_LIMIT[0] + 1
    assert received[0].content == b"first"
    assert ACCEPTED_LIMIT[0] >= 10_000
