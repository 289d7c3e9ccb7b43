"""What answers tell browsers: security headers for all, CORS for the origins that are allowed."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from services.gateway.door import VISIT

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
HSTS = "max-age=31536000"

# Keys are not among them: one that a browser holds is no secret.
ALLOWED_HEADERS = "Content-Type, Idempotency-Key, X-Request-ID"
EXPOSED_HEADERS = "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy"
PREFLIGHT_SECONDS = "3600"


class Browsers:
    def __init__(self, origins: str, *, https: bool) -> None:
        self._origins = {origin.strip().rstrip("/") for origin in origins.split(",")} - {""}
        self._https = https

    @web.middleware
    async def preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer CORS preflights; they do nothing, so they count against no limit."""
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        if request.method != hdrs.METH_OPTIONS or not wanted or not self._allows(request):
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
        """Add to every answer, errors and streamed ones included, as it leaves."""
        headers = response.headers
        headers.popall(hdrs.SERVER, None)
        for name, value in SECURITY.items():
            headers.setdefault(name, value)
        page = headers.get(hdrs.CONTENT_TYPE, "").startswith("text/html")
        headers.setdefault(SECURITY_POLICY, PAGE_POLICY if page else POLICY)
        if self._https:
            headers.setdefault("Strict-Transport-Security", HSTS)
        if self._origins:
            headers.add(hdrs.VARY, hdrs.ORIGIN)
            if self._allows(request):
                headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
                headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS
        visit = request.get(VISIT)
        if visit is not None and visit.decision is not None:
            headers.update(visit.decision.headers())

    def _allows(self, request: web.Request) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        return origin is not None and ("*" in self._origins or origin in self._origins)
