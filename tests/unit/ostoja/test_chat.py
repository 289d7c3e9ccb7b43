"""`ostoja chat`: what is typed in a terminal, and what the gateway gets."""

from typing import Any

from tests.unit.ostoja.conftest import Gateway, Run


def told(ask: dict[str, Any] | None, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"reply": "Słucham.", "session_id": "s1", "ask": ask, **more}


def ask(id_: str, kind: str, *choices: str, **more: Any) -> dict[str, Any]:
    listed = [{"id": each, "label": each.title()} for each in choices]
    return {"id": id_, "kind": kind, "choices": listed, "skippable": True, **more}


AREA = [{"name": "area", "text": "45 m²"}]


def test_chips_are_tapped_by_number_and_the_rest_is_a_message(run: Run, gateway: Gateway) -> None:
    consent = ask("consent-5", "consent", "yes", "no", wording={"text": "…", "sha256": "a" * 64})
    gateway.answers = [
        told(ask("opening-0", "choice", "quote", "other")), told(ask("area-1", "number")),
        told(ask("budget-2", "number", "0-30"), card=AREA),
        told(ask("area-3", "number"), card=AREA), told(consent), told(None),
    ]  # fmt: skip
    done = run("chat", said="/1\n45\n/3\n/1\n/1\n/9\n")
    assert done.exit_code == 0
    sent = [body for method, _, body, _ in gateway.asked if method == "POST"]
    assert [each.get("tap", each.get("message")) for each in sent] == [
        {"ask": "opening-0", "choice": "quote"},
        "45",
        {"ask": "card", "choice": "area"},
        {"ask": "area-3", "choice": "skip"},
        {"ask": "consent-5", "choice": "yes", "wording": "a" * 64},
        "/9",
    ]
    assert [each.get("session_id") for each in sent] == [None, *["s1"] * 5]
    assert "/1 Quote  /2 Other  /3 skip" in done.stdout
    assert "/3 change: 45 m²" in done.stdout
    assert not any("X-ADMIN-API-KEY" in headers for *_, headers in gateway.asked)


def test_what_the_ask_does_not_offer_is_said_and_can_be_answered_again(
    run: Run, gateway: Gateway
) -> None:
    fault = {"title": "Unprocessable", "errors": [{"field": "tap.choice", "message": "is past"}]}
    gateway.answers = [told(ask("start-1", "month", "2020-01", "asap")), (422, fault), told(None)]
    done = run("chat", said="/1\n/2\n")
    assert done.exit_code == 0
    assert "is past" in done.stderr
    assert gateway.asked[-1][2]["tap"] == {"ask": "start-1", "choice": "asap"}
