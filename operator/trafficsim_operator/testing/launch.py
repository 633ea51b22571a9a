"""
Become another program that dies with its parent, inside the given cgroups.

Run as a file with `python -I -S launch.py PARENT_PID [CGROUP_PROCS_FILE ...] -- ARGV...`; standard library only, so
that it starts in some 20 ms. A `preexec_fn` would do the same, but is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
START_ERROR = 128  # what containerd reports when a container's program cannot be executed


def main(arguments: list[str]) -> None:
    """Bind the life of this process to its parent's, join the cgroups and execute the program."""
    split = arguments.index("--")
    parent, *memberships = arguments[:split]
    argv = arguments[split + 1 :]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before prctl
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # masks survive exec
    for path in memberships:
        with open(path, "w") as procs:
            procs.write(str(os.getpid()))
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"exec {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(START_ERROR)


if __name__ == "__main__":
    main(sys.argv[1:])
