"""Who this process is, and whether another on this machine still lives. A pid alone says nothing: it comes again."""

import contextlib
import os
import platform
import socket
import sys
from functools import cache
from pathlib import Path

from api.services.leases import Holder


def holder() -> Holder:
    """Return this process as a holder of jobs."""
    return Holder(host_name(), os.getpid(), start_of(os.getpid()))


@cache
def host_name() -> str:
    """Return a name of this machine that two pid namespaces never share: containers may have one host name and the same pids."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{namespace.readlink()}" if namespace.is_symlink() else socket.gethostname()


@cache
def machine() -> str:
    """Return what kind of machine this is, and how many CPUs this process may use: alike machines take alike times."""
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{n_cpus} x {model}"


def start_of(pid: int) -> str:
    """Return when a process started, in ticks since a boot, with the boot's id; empty when there is none or the system does not tell."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        # The name in field 2 may hold spaces and brackets, so fields are counted from its end; starttime is field 22 (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else f"{boot}:{fields[19]}"


def is_alive(pid: int, start: str) -> bool:
    """Tell whether the process that started then still runs; where the system does not tell, the lease has to."""
    if not sys.platform.startswith("linux") or not start:
        return True
    return start_of(pid) == start
