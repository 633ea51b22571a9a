"""The policy document from a mounted file, read again when it changes; without a file the shipped default."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import yaml
from pydantic import ValidationError

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.policy import DEFAULT, Policy

__all__ = ["PolicyFile", "read_policy"]

log = logging.getLogger(__name__)


def read_policy(text: str) -> Policy:
    """Return the policy in *text* (YAML); raise SpecError naming the field that is wrong."""
    try:
        raw = yaml.safe_load(text)
        return Policy.model_validate_json(json.dumps({} if raw is None else raw, default=str))
    except yaml.YAMLError as error:
        raise SpecError(Problem(field="", reason=f"not YAML: {error}")) from error
    except ValidationError as error:
        found = (Problem(field=".".join(map(str, e["loc"])), reason=e["msg"]) for e in error.errors())
        raise SpecError(*found) from error


class PolicyFile:
    """
    Call it for the policy in force.

    A change that cannot be read leaves the policy as it was and is logged once: a typing error must not open or close
    everything.
    """

    def __init__(self, path: Path | None) -> None:
        """Read *path* now; raise SpecError or OSError, so that an operator does not start without its policy."""
        self._path = path
        self._text = path.read_text() if path else ""
        self._policy = read_policy(self._text) if path else DEFAULT

    def __call__(self) -> Policy:
        """Return the policy; a small file is read each time, since a mounted one changes without its time doing so."""
        if self._path is None:
            return self._policy
        try:
            text = self._path.read_text()
        except OSError as error:
            log.warning("the policy file can't be read, the last policy stays", extra={"error": str(error)})
            return self._policy
        if text != self._text:
            self._text = text
            try:
                self._policy = read_policy(text)
                log.info("policy read again", extra={"file": str(self._path)})
            except SpecError as error:
                log.error("the policy file is wrong, the last policy stays", extra={"error": str(error)})
        return self._policy
