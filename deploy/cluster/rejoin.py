"""Kills the RabbitMQ node of this host if it stays apart from the others, so that it starts again.

With `pause_minority` a node may stay out after the network is whole: it paused and did not boot
again, or nodes see different members. rabbitmq-server's starter runs this beside it, as its child.
It asks the management API of all hosts, and restarts its own node only while another host's is in
a majority, and only if its own sees the fewest. A node that the others see running is not
restarted because its API is silent. The three decide independently: what they see
differs for a moment, so two may be restarted one after the other. Standard library only.
"""

import base64
import json
import os
import signal
import ssl
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException

SECONDS = 60.0
"""Longer than a node needs to notice that another one is back (net_ticktime is 15 s)."""


def apart(seen: Mapping[str, frozenset[str]], own: str) -> bool:
    """Return whether our node is the one to restart.

    :param seen: by host, the hosts whose nodes its node sees running; empty if it does not answer
    """
    majority = len(seen) // 2 + 1
    joined = any(len(running) >= majority for host, running in seen.items() if host != own)
    members = frozenset().union(*seen.values())
    known = {host: running for host, running in seen.items() if running or host not in members}
    fewest = min(known, key=lambda host: (len(known[host]), host))
    return joined and fewest == own and len(seen[own]) < len(seen)


def ask(host: str) -> frozenset[str]:
    """Return the hosts whose nodes, named NAME@HOST, this one's node sees running."""
    password = f"admin:{os.environ['RABBITMQ_ADMIN_PASSWORD']}".encode()
    folder = os.environ.get("TLS_DIR")
    tls = ssl.create_default_context(cafile=f"{folder}/ca.crt") if folder else None
    scheme = "https" if folder else "http"
    request = urllib.request.Request(
        f"{scheme}://{host}:{os.environ['RABBITMQ_UI_PORT']}/api/nodes",
        headers={"Authorization": f"Basic {base64.b64encode(password).decode()}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5, context=tls) as answer:
            nodes = json.load(answer)
        return frozenset(node["name"].split("@")[1] for node in nodes if node["running"])
    except (OSError, HTTPException, LookupError, ValueError, TypeError):
        return frozenset()


def main() -> None:
    server, own = os.getppid(), os.environ["HOST"]
    hosts = [os.environ[name] for name in "ABC"]
    patience = float(os.environ.get("RABBITMQ_APART_SECONDS", SECONDS))
    joined = False  # until then it boots, and gets ten times as long
    # Those whose nodes saw ours out: what another sees may be the one that was there before it.
    without: set[str] = set()
    since = time.monotonic()
    while os.getppid() == server:
        seen = {host: ask(host) for host in hosts}
        within = {host for host, running in seen.items() if own in running}
        joined = joined or bool(within & (without | {own}))
        without |= {host for host, running in seen.items() if running} - within
        waited = time.monotonic() - since
        if not apart(seen, own):
            since = time.monotonic()
        elif waited >= patience * (1 if joined else 10):
            told = {host: sorted(running) for host, running in seen.items()}
            print(
                f"rejoin: for {waited:.0f} s each host's node sees those of {told}: restart",
                flush=True,
            )
            os.kill(server, signal.SIGKILL)  # one that hangs ignores anything else
            return
        time.sleep(2 if joined else 0.5)  # it may join, and stop again at once


if __name__ == "__main__":
    main()
