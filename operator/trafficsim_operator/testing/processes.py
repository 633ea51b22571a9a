"""How the testing package starts programs: they die with this process, and a guard cleans up behind them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

_HERE: Final = Path(__file__).parent
_ISOLATED: Final = (sys.executable, "-I", "-S")
_starter: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")  # one thread that lives as long as we


def bound_to_us(argv: Sequence[str], cgroup_procs: Iterable[Path] = ()) -> list[str]:
    """
    Return the command line that runs *argv* inside the cgroups and kills it when the thread that starts it ends.

    Subtle: the kernel sends the death signal when the *thread* that forked ends, not the process.
    """
    return [*_ISOLATED, str(_HERE / "launch.py"), str(os.getpid()), *map(str, cgroup_procs), "--", *argv]


def start(argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start *argv* so that it ends with this process, whichever thread asks; its output goes to *log*."""
    return _starter.submit(
        subprocess.Popen,
        bound_to_us(argv),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches the tests first, which then stop us in order
    ).result()


def run(argv: Sequence[str], log: IO[bytes], seconds: float | None = None) -> int | None:
    """
    Run *argv* to its end and return its exit code, or None where it takes more than *seconds*.

    Its output goes to *log*. However this is left, by Ctrl-C too, it has ended then, with what it has started.
    """
    process = start(argv, log)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # which leads a session, and so a group
        process.wait()


class Guard:
    """A process that removes cgroups (with all processes in them) and directories once we close it or die."""

    def __init__(self, *, cgroups: Iterable[Path] = (), directories: Iterable[Path] = ()) -> None:
        pairs = [*(("--cgroup", c) for c in cgroups), *(("--directory", d) for d in directories)]
        arguments = [str(word) for pair in pairs for word in pair]
        self._process = subprocess.Popen(
            [*_ISOLATED, str(_HERE / "guard.py"), *arguments],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal ends the tests, not their cleaner
        )

    def close(self) -> None:
        """Clean now and return when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
