"""Who acts, from the gateway's headers."""

from aiohttp import web

from services.console.store.actions import Actor


def admin_key(request: web.Request) -> Actor:
    """Return the holder of the admin key, with the name that they claim."""
    claimed = request.headers.get("X-Operator", "").strip()
    return Actor("env", "ADMIN_API_KEY", claimed[:200] or None)
