"""Processor time of another process, from Linux's /proc."""

import os
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Return seconds of processor time that ``pid`` used so far, in itself and its children; 0.0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # After the name, which may hold anything: state is the first field, utime, stime, cutime, cstime are 12 to 15.
    fields = stat.rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:15]) / _TICKS_PER_S
