"""Errors as HTML pages, for people who follow a mailed link or send a form."""

import re
from html import escape
from typing import NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from libs.common.http import plain_form
from libs.common.http.heads import media_type

PATHS = frozenset({"/unsubscribe", "/preferences", "/opt-in/confirm", "/erasure/confirm"})
FORMS = "/forms/"
CONSOLE = re.compile("/console(/|$)")
LEADS = "/api/leads"
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1.125rem/1.55 system-ui,sans-serif;margin:0 auto;"
    "padding:1rem 1.25rem;max-width:36rem}"
    "button,a{display:block;box-sizing:border-box;width:100%;padding:.85rem 1rem;border:0;"
    "border-radius:.625rem;font:inherit;font-weight:600;text-align:center;text-decoration:none;"
    "color:#fff;background:#0b5cad;cursor:pointer}"
)


class Text(NamedTuple):
    title: str
    body: str


AGAIN = {"pl": "Spróbuj ponownie", "en": "Try again"}
TOO_MANY = {
    "pl": Text("Chwilę cierpliwości", "Za dużo prób naraz. Nic się nie zmieniło."),
    "en": Text("One moment", "Too many attempts at once. Nothing has changed."),
}
NOT_SHOWN = {
    "pl": Text(
        "Ta strona teraz się nie otwiera",
        "Nic się nie zmieniło. Link pozostaje ważny, nie zgub go.",
    ),
    "en": Text(
        "This page does not open now", "Nothing has changed. Your link stays valid; keep it."
    ),
}
NOT_CONFIRMED = {
    "pl": Text(
        "Nie wiemy, czy się udało",
        "Odczekaj chwilę i naciśnij przycisk jeszcze raz. Powtórzenie niczemu nie szkodzi, "
        "a link pozostaje ważny.",
    ),
    "en": Text(
        "We do not know whether it worked",
        "Wait a moment and press the button again. Repeating it does no harm, and your link stays "
        "valid.",
    ),
}
NOT_SENT = {
    "pl": Text(
        "Nic nie zostało wysłane",
        "Proszę wrócić do formularza przyciskiem „wstecz” w przeglądarce: to, co jest w nim "
        "wpisane, nie przepadło. Potem proszę odczekać chwilę i wysłać go jeszcze raz.",
    ),
    "en": Text(
        "Nothing was sent",
        "Please go back with your browser's button: what you wrote is still there. Then wait a "
        "moment and send it again.",
    ),
}
NOT_TAKEN = {
    "pl": Text(
        "Ten formularz teraz nie działa",
        "Nic nie zostało wysłane. Prosimy o kontakt telefoniczny lub mailowy; dane są na stronie, "
        "z której pochodzi formularz.",
    ),
    "en": Text(
        "This form does not work now",
        "Nothing was sent. Please call or write an e-mail; the page with the form says how.",
    ),
}
NO_CONSOLE = {
    "pl": Text(
        "Konsola teraz nie odpowiada",
        "Powiadomienia, formularze, czat i wypisywanie działają dalej. Jeśli coś właśnie zostało "
        "zapisane, sprawdź to tutaj, gdy konsola wróci.",
    ),
    "en": Text(
        "The console does not answer now",
        "Alerts, forms, the chat and unsubscribing go on. If you have just saved something, look "
        "here for it when the console is back.",
    ),
}
NO_PAGE = {
    "pl": Text("Tego tu nie ma", "Nic się nie zmieniło. Wróć do początku konsoli."),
    "en": Text("This is not here", "Nothing has changed. Go back to the start of the console."),
}
NOT_READ = {
    "pl": Text("Coś poszło nie tak", "Nic się nie zmieniło. Otwórz jeszcze raz link z wiadomości."),
    "en": Text("Something went wrong", "Nothing has changed. Open the link in the message again."),
}


@web.middleware
async def errors_as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if response.status < 400:
        return response
    if not _is_page(request) or response.content_type != "application/problem+json":
        return response
    page = web.Response(
        text=_page(request, response.status), status=response.status, content_type="text/html"
    )
    for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
        if name in response.headers:
            page.headers[name] = response.headers[name]
    return page


def _is_page(request: web.Request) -> bool:
    return (
        request.path in PATHS
        or request.path.startswith(FORMS)
        or CONSOLE.match(request.path) is not None
        or (request.path == LEADS and media_type(request.headers) in plain_form.TYPES)
    )


def _page(request: web.Request, status: int) -> str:
    language = language_of(request)
    posted = request.method == hdrs.METH_POST
    if request.path.startswith(FORMS) and status == web.HTTPNotFound.status_code:
        return _document(language, NOT_TAKEN[language], "")
    if request.path == LEADS:
        # Its values are not known here. A form that was read is shown again (forms/pages.py).
        busy = status in {408, 429} or status >= 500
        return _document(language, (NOT_SENT if busy else NOT_TAKEN)[language], "")
    if CONSOLE.match(request.path):
        shown = NO_CONSOLE if status >= 500 else TOO_MANY if status == 429 else NO_PAGE
        button = f'<a href="/console/">{AGAIN[language]}</a>'
        return _document(language, shown[language], button)
    if status == web.HTTPTooManyRequests.status_code:
        text = TOO_MANY[language]
    elif status < web.HTTPInternalServerError.status_code:
        text = NOT_READ[language]
    else:
        text = (NOT_CONFIRMED if posted else NOT_SHOWN)[language]
    here, again = escape(request.rel_url.raw_path_qs), AGAIN[language]
    # Which purpose was withdrawn on /preferences is not known here: its page asks again.
    if posted and request.path != "/preferences":
        button = f'<form method="post" action="{here}"><button>{again}</button></form>'
    else:
        button = f'<a href="{here}">{again}</a>'
    return _document(language, text, button)


def _document(language: str, text: Text, button: str) -> str:
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text.title}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{text.title}</h1><p>{text.body}</p>{button}</main></body></html>"
    )


def language_of(request: web.Request, parameter: str = "lang") -> str:
    chosen = (
        request.query.get(parameter) or request.headers.get(hdrs.ACCEPT_LANGUAGE, "").lower()[:2]
    )
    return "en" if chosen == "en" else "pl"
