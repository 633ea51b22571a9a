"""Probes of a container, as a kubelet runs them: httpGet and tcpSocket."""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp

from trafficsim_operator.testing.apiserver import Object
from trafficsim_operator.testing.podspec import CannotRun

# Until a container was ready once we look more often than its spec says: it only makes start-up known sooner.
_EAGER: Final = 0.2  # seconds


def check(container: Object) -> None:
    """Raise `CannotRun` when a probe is of a kind that cannot be run here."""
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(name)
        if not probe:
            continue
        action = probe.get("httpGet") or probe.get("tcpSocket")
        if not action:
            raise CannotRun("CreateContainerConfigError", f"{name}: only httpGet and tcpSocket are supported")
        try:
            port(action, container)
        except ValueError as error:
            raise CannotRun("CreateContainerConfigError", f"{name}: no port is named {action['port']}") from error


async def watch(
    probe: Object, container: Object, address: str, report: Callable[[bool, str], None], *, eager: bool = False
) -> None:
    """
    Run *probe* for ever and call *report* with (passes, message) whenever a threshold is reached.

    failureThreshold failures in a row fail it, successThreshold successes in a row pass it; a failing probe reports
    at every further multiple of the threshold. *eager* probes look every 0.2 s until they passed once, and until then
    report no failure.
    """
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    period = float(probe.get("periodSeconds", 10))
    needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
    loop = asyncio.get_running_loop()
    passing, row, last, message = False, 0, None, ""
    while True:
        began = loop.time()
        seen, message = await attempt(probe, container, address)
        row = row + 1 if seen is last else 1
        last = seen
        if row % needed[seen] == 0 and not (passing if seen else eager):
            passing = seen
            report(seen, message)
        eager = eager and not passing
        pause = min(period, _EAGER) if eager else period
        await asyncio.sleep(max(0.0, began + pause - loop.time()))


async def attempt(probe: Object, container: Object, address: str) -> tuple[bool, str]:
    """Run *probe* once; any status from 200 to 399 passes, redirects are not followed."""
    limit = float(probe.get("timeoutSeconds", 1))
    if "tcpSocket" in probe:
        return await _connects(probe["tcpSocket"].get("host", address), port(probe["tcpSocket"], container), limit)
    get = probe["httpGet"]
    scheme, path = get.get("scheme", "HTTP").lower(), get.get("path", "/")
    url = f"{scheme}://{get.get('host') or address}:{port(get, container)}{path}"
    headers = {"User-Agent": "kube-probe/1.34", "Connection": "close"}
    headers |= {header["name"]: header["value"] for header in get.get("httpHeaders", ())}
    timeout = aiohttp.ClientTimeout(total=limit)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.get(url, headers=headers, allow_redirects=False, ssl=False) as response,
        ):
            if 200 <= response.status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {response.status}"
    except TimeoutError:
        return False, f"Get {url}: no answer within {limit:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return False, f"Get {url}: {error}"


def port(action: Object, container: Object) -> int:
    """Return the port of a probe, which may be the name of a container port."""
    value = action["port"]
    if isinstance(value, int):
        return value
    named = {p.get("name"): int(p["containerPort"]) for p in container.get("ports", ())}
    return named[value] if value in named else int(value)


async def _connects(host: str, number: int, limit: float) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(host, number)
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        return False, f"dial tcp {host}:{number}: {error}"
    return True, ""
