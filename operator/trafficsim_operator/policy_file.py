"""The policy document from a mounted file, read again when it changes; without a file the shipped default."""

from __future__ import annotations

import logging
from pathlib import Path

from trafficsim_api.document import parse
from trafficsim_api.errors import SpecError
from trafficsim_api.policy import DEFAULT, Policy
from trafficsim_api.problems import read

__all__ = ["PolicyFile", "read_policy"]

log = logging.getLogger(__name__)


def read_policy(data: bytes, source: str) -> Policy:
    """Return the policy in *data* (YAML); raise SpecError naming the field that is wrong."""
    return read(Policy, parse(data, source))


class PolicyFile:
    """
    Call it for the policy in force.

    A change that cannot be read leaves the policy as it was and is logged once: a typing error must not open or close
    everything.
    """

    def __init__(self, path: Path | None) -> None:
        """Read *path* now; raise SpecError or OSError, so that an operator does not start without its policy."""
        self._path = path
        self._text = path.read_bytes() if path else b""
        self._policy = read_policy(self._text, str(path)) if path else DEFAULT

    def __call__(self) -> Policy:
        """Return the policy; a small file is read each time, since a mounted one changes without its time doing so."""
        if self._path is None:
            return self._policy
        try:
            text = self._path.read_bytes()
        except OSError as error:
            log.warning("the policy file can't be read, the last policy stays", extra={"error": str(error)})
            return self._policy
        if text != self._text:
            self._text = text
            try:
                self._policy = read_policy(text, str(self._path))
                log.info("policy read again", extra={"file": str(self._path)})
            except SpecError as error:
                log.error("the policy file is wrong, the last policy stays", extra={"error": str(error)})
        return self._policy
