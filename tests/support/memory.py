"""What a process has in memory."""

import re
from pathlib import Path


def resident(pid: int) -> int:
    """Return its resident memory, in kilobytes."""
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes)
