"""Commands as the pages of docs/ show them, and a reader who types them into a shell."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(page: str) -> list[str]:
    """Return the commands of a page of docs/ in order: lines that go on are joined, comments taken away."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", "\n".join(blocks)).splitlines()
    return [text for line in lines if (text := re.sub(r"(^|\s+)#\s.*$", "", line).strip())]


def command(page: str, start: str) -> str:
    """Return the command of *page* that begins with *start*; raise AssertionError unless there is just one."""
    found = {text for text in commands(page) if text.startswith(start)}
    assert len(found) == 1, f"{page}: {len(found)} commands begin with {start!r}"
    return found.pop()


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Somebody with a shell in a directory."""

    directory: Path
    environ: Mapping[str, str]

    def types(self, text: str, within_s: float = 120) -> str:
        """Run a command as it is; return what it prints, or raise AssertionError with its words if it fails."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", text],
            cwd=self.directory,
            env=dict(self.environ),
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert 0 == done.returncode, f"$ {text}\n{done.stdout}{done.stderr}"
        return done.stdout
