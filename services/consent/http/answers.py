"""A withdrawal's result as an HTTP answer."""

from typing import Any

from aiohttp import web

from libs.common.http.application import Problem, json_response
from services.consent.recovery.withdrawals import Answer
from services.consent.rules import WithdrawalResult

STATUS = {
    WithdrawalResult.DONE: 200,
    WithdrawalResult.IN_FLIGHT: 202,
    WithdrawalResult.SUPERSEDED: 409,
    WithdrawalResult.RESTRICTED: 409,
}


def withdrawal_response(body: dict[str, Any], answer: Answer) -> web.Response:
    if answer.result is WithdrawalResult.SUPERSEDED:
        raise Problem(
            409,
            detail="a newer consent was recorded in the meantime; repeat the request",
        )
    if answer.result is WithdrawalResult.RESTRICTED:
        raise Problem(409, detail="withdrawn; the processing is restricted: lift that, then erase")
    if answer.result is WithdrawalResult.IN_FLIGHT:
        body |= {"unsubscribed": True, "in_flight": answer.in_flight}
    return json_response(body, status=STATUS[answer.result])
