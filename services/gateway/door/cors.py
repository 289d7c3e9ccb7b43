"""Headers for browsers: security headers on every response, CORS for allowed origins."""

from collections.abc import Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from services.gateway.door.access import CONTEXT

SECURITY = {
    istr("X-Content-Type-Options"): "nosniff",
    istr("X-Frame-Options"): "DENY",
    istr("Referrer-Policy"): "no-referrer",
    hdrs.CACHE_CONTROL: "no-store",
}
SECURITY_POLICY = istr("Content-Security-Policy")
POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HSTS = "max-age=31536000; includeSubDomains"

# Without the key headers: a key in a browser is no secret.
ALLOWED_HEADERS = "Content-Type, Idempotency-Key, X-Proof, X-Request-ID"
EXPOSED_HEADERS = "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy"
CONSOLE = "/console"
"""No other site's page may read the console, whatever CORS_ORIGINS says."""
PREFLIGHT_SECONDS = "3600"


class Cors:
    def __init__(self, origins: str, of_forms: Collection[str] = (), *, https: bool) -> None:
        """:param of_forms: pages with a form may call the public API, for the chat beside it"""
        self._origins = {origin.strip().rstrip("/") for origin in origins.split(",")} - {""}
        self._origins |= set(of_forms)
        self._https = https

    @web.middleware
    async def preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer CORS preflights, which count against no limit."""
        if request.method != hdrs.METH_OPTIONS:
            return await handler(request)
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        if not wanted or not self._allows(request):
            return await handler(request)
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, PUT, DELETE",
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ALLOWED_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: PREFLIGHT_SECONDS,
            },
        )

    async def finish(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add headers to every response, including errors and streams."""
        headers = response.headers
        for name, value in SECURITY.items():
            headers.setdefault(name, value)
        page = headers.get(hdrs.CONTENT_TYPE, "").startswith("text/html")
        headers.setdefault(SECURITY_POLICY, PAGE_POLICY if page else POLICY)
        if self._https:
            headers.setdefault("Strict-Transport-Security", HSTS)
        if self._origins and hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in headers:
            headers.add(hdrs.VARY, hdrs.ORIGIN)
            if self._allows(request):
                headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
                headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS
        try:
            decision = request[CONTEXT].decision
        except KeyError:  # answered before the access control
            return
        if decision is not None:
            headers.update(decision.headers())

    def _allows(self, request: web.Request) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not origin.isascii() or request.path.startswith(CONSOLE):
            return False  # it is echoed
        return "*" in self._origins or origin in self._origins
