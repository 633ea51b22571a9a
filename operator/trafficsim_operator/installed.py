"""
Whether an installation works, as somebody in the cluster sees it: the kind is served, and the operator answers.

`helm test` runs it in a pod of the operator's image: `trafficsim-operator --check http://trafficsim-operator:8080`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

from trafficsim_api import names
from trafficsim_operator.kube import SIMULATIONS, KubeApi

__all__ = ["PATIENCE_S", "problem"]

PATIENCE_S: Final = 60.0
"""How long an operator that was just started may take: its first list, and some replica with the Lease."""
_AGAIN_S: Final = 1.0
# The first needs a replica that is ready, the second one that works, whichever of them is asked.
_PAGES: Final = ("/readyz", "/simulations")


async def problem(api: KubeApi, http: httpx.AsyncClient, url: str, patience_s: float = PATIENCE_S) -> str:
    """Return what does not work of the operator whose pages are at *url*, "" when everything does."""
    if not await api.served(SIMULATIONS):
        return (
            f"the cluster knows no {names.PLURAL}.{names.GROUP}/{names.VERSION}: install the CustomResourceDefinition"
        )
    for page in _PAGES:
        if found := await _refused(http, f"{url.rstrip('/')}{page}", patience_s):
            return found
    return ""


async def _refused(http: httpx.AsyncClient, page: str, patience_s: float) -> str:
    """Return why *page* is not given within *patience_s*, "" when it is."""
    why = "no answer"
    try:
        async with asyncio.timeout(patience_s):
            while True:
                why = await _asked(http, page)
                if not why:
                    return ""
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError:
        return f"{page}: {why}"


async def _asked(http: httpx.AsyncClient, page: str) -> str:
    try:
        answer = await http.get(page)
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    return "" if answer.is_success else f"{answer.status_code} {answer.text.strip()}"
