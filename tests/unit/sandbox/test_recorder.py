from deploy.sandbox.mail import Mail
from deploy.sandbox.recorder import ACCEPTED_LIMIT, REFUSED_LIMIT, Kept, Recorder


def mail(size: int = 1) -> Mail:
    return Mail("a@b.pl", ["c@d.pl"], b"x" * size)


def test_the_oldest_are_pushed_out_by_number_or_bytes_and_stay_counted() -> None:
    for limit, size in (((3, 1000), 1), ((100, 20), 6)):
        kept = Kept[Mail](limit)
        for number in range(5):
            kept.add(number, mail(size))
        assert (len(kept), kept.count) == (3, 5)
        assert kept.get(1) is None
        assert kept.get(2) is not None


def test_a_flood_of_refused_requests_evicts_no_accepted_one() -> None:
    recorder = Recorder(["slack"])
    recorder.record("slack", b"first", accepted=True, answered=200)

    for _ in range(REFUSED_LIMIT[0] + 1):
        recorder.record("slack", b"x", accepted=False, answered=500)

    count, received = recorder.received("slack", refused_too=True)
    assert count == REFUSED_LIMIT[0] + 2
    assert len(received) == REFUSED_LIMIT[0] + 1
    assert received[0].content == b"first"
    assert ACCEPTED_LIMIT[0] >= 10_000
