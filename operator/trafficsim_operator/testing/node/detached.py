"""
Start a program that outlives us, inside the given cgroups, and print its process id.

Run as a file with `python -I -S detached.py LOG [CGROUP_PROCS_FILE ...] -- ARGV...`; standard library only. The cgroups
are joined before anything is started: there is no instant at which a program of the node is outside them.
"""

import os
import signal
import sys


def main(arguments: list[str]) -> None:
    """Join the cgroups, leave the session, execute the program in a child and go."""
    split = arguments.index("--")
    log, *memberships = arguments[:split]
    argv = arguments[split + 1 :]
    for path in memberships:
        with open(path, "w") as procs:
            procs.write(str(os.getpid()))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if child := os.fork():
        print(child, flush=True)
        return
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # masks survive exec
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"exec {argv[0]}: {error.strerror}\n".encode())
        os._exit(128)


if __name__ == "__main__":
    main(sys.argv[1:])
