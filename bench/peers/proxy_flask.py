"""Flask, Flask-Limiter on Redis and requests, under gunicorn's threads.

PORT=… UPSTREAM_URL=… REDIS_URL=… gunicorn -k gthread --threads 16 bench.peers.proxy_flask:app
"""

import os
import threading

import requests
from flask import Flask, Response, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

UPSTREAM = os.environ["UPSTREAM_URL"]

app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    storage_uri=os.environ["REDIS_URL"],
    default_limits=["1000000000/minute", "1000000000/hour"],
)
kept = threading.local()


def session() -> requests.Session:
    if not hasattr(kept, "session"):
        kept.session = requests.Session()
    return kept.session


@app.route("/<path:path>", methods=["GET", "POST"])
def proxy(path: str) -> Response:
    answer = session().request(
        request.method,
        f"{UPSTREAM}/{path}",
        data=request.get_data(),
        headers={"Content-Type": request.content_type or ""},
        timeout=10,
    )
    return Response(
        answer.content, status=answer.status_code, content_type=answer.headers["Content-Type"]
    )
