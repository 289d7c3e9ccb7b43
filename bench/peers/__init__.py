"""The peers: one program each, run in a separate virtual environment.

Each reads AMQP_URL or DATABASE_URL, and SINK_URL, to which it POSTs each message.
`python -m bench.peers.<peer> send 5000` queues messages; drain.py has the workers' commands.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
TEXT = "a" * 400  # the text of every alert, which is about 500 B in all
PREFETCH = 100
_VERSIONS = """
import json
from importlib.metadata import distributions
print(json.dumps({each.name.lower(): each.version for each in distributions()}))
"""


def prepare() -> None:
    """Create the environment from its lock, unless it exists."""
    version = "3.11" if sys.version_info < (3, 12) else "3.13"
    lock = ROOT / "requirements" / f"bench-{version}.txt"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = VENV / "installed"  # written last, so that an interrupted run installs again
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing the peers into .venv-bench")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([str(PYTHON), *install, "--require-hashes", "-r", str(lock)], check=True)
    stamp.write_text(wanted)


def versions() -> dict[str, str]:
    done = subprocess.run([PYTHON, "-c", _VERSIONS], capture_output=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
