"""What this process may use of the machine; beside it, what a program compiled for another machine needs of that."""

import os


def cores() -> int:
    """Cores this process may run on; fewer than the machine has inside a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
