"""
Mutants of good simulations, drawn by a seed: odd values, shapes and names, and what the policy of the tests forbids.

A mutant is text, as a client sends it: what no JSON library writes (a field given twice, three thousand levels) is put
into the text last.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from trafficsim_api.names import COMMAND_ANNOTATION

EXAMPLES: Final = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
# Nothing listens there: a mutant that is accepted gets a Deployment, and no node to run it.
TARGET: Final = "http://127.0.0.1:9"
POLICY: Final = {
    "targets": [{"cidr": "127.0.0.0/8", "ports": [9]}],
    "verbs": ["get", "post", "put"],
    "images": ["trafficsim/runner", "shop/runner"],
    "maxUsers": 50,
    "maxRunners": 2,
    "maxDuration": "15m",
}

Path_ = tuple[str | int, ...]

_ODD: Final = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**40, 1.5, -0.0, 1e308, "", " ", "0", "-1", "x" * 3000, "{{a}}", "{{",
    "}}", "{{data.nowhere.x}}", "100%", "1h", "1ms", "99999999999999h", "NaN", "5/s", "1Gi", "0m", [], {}, [[[]]],
    {"a": {}}, {"": ""}, [None], ["a", 1, {}], "null", "~", "<<", "*a", "&a",
)  # fmt: skip
_TEXTS: Final = (
    "é", "\U0001f600", "\ud7ff\ue000", "a\x00b", "a\nb", "a\r\nb: c", "\u202egnp.exe", "\u200b", "ＧＥＴ", "ﬀ",
    "A\u030a", "\x7f", "\x1b[31mred", "../../etc/passwd", "$(id)", "'; drop table users; --", "%s%n", "a" * 254 + ".b",
)  # fmt: skip
_ENUMS: Final = ("", "FOO", "Unique", "poisson ", "closed", "high!", "get,post", "TRACE", "replace\n", "None")
# What the policy above forbids, by where it stands.
_FORBIDDEN: Final[tuple[tuple[Path_, Any], ...]] = (
    *(
        (("spec", "target", "url"), url)
        for url in (
            "http://127.0.0.1:10", "http://127.0.0.1", "https://127.0.0.1", "http://10.0.0.1:9", "http://[::1]:9",
            "http://169.254.169.254:9", "http://169.254.169.254/latest/meta-data", "http://[fe80::1]:9",
            "http://[::ffff:10.0.0.1]:9", "http://[::ffff:169.254.169.254]:9", "http://[64:ff9b::a9fe:a9fe]:9",
            "http://0.0.0.0:9", "http://0:9", "http://2130706433:9", "http://0x0a000001:9", "http://012.0.0.1:9",
            "http://127.0.0.1:9@10.0.0.1:9", "http://127.0.0.1:9#@10.0.0.1:9", "http://10.0.0.1:9/127.0.0.1:9",
            "http://localhost.:10", "file:///etc/passwd", "unix:///run/x.sock", "http://127.0.0.1:99999",
            "http://kubernetes.default.svc:9", "http://metadata.google.internal:9", "http://127.0.0.1:9\\@10.0.0.1:9",
        )
    ),
    *((("spec", "users"), users) for users in (51, 500, 10**6, 2**31 - 1)),
    *((("spec", "duration"), duration) for duration in ("16m", "48h", "365d", None)),
    *(
        (("spec", "runner"), {"image": image})
        for image in (
            "evil/runner", "trafficsim/runner.evil:1", "evil.example/trafficsim/runner:1", "trafficsim/runner/x",
            "trafficsim/runner:1@evil/runner", "TRAFFICSIM/runner", "shop/runner :1", "docker.io/trafficsim/runner",
        )
    ),
    (("spec", "scaling"), {"minRunners": 3}),
    (("spec", "scaling"), {"minRunners": 100, "maxRunners": 100}),
    *(
        (("spec", "archetypes"), [{"name": "a", "flow": flow}])
        for flow in (
            [{"request": {"delete": "/"}}],
            [{"request": {"patch": "/"}}],
            [{"repeat": {"times": 2, "flow": [{"request": {"delete": "/"}}]}}],
            [{"repeat": {"times": 2, "flow": [{"repeat": {"times": 2, "flow": [{"request": {"head": "/"}}]}}]}}],
            [{"choose": [{"weight": 1, "flow": [{"request": {"options": "/"}}]}]}],
        )
    ),
    (("spec", "setup"), {"flow": [{"request": {"delete": "/"}}]}),
    (("spec", "teardown"), {"flow": [{"request": {"patch": "/"}}]}),
)  # fmt: skip
_ANNOTATIONS: Final[tuple[tuple[str, Any], ...]] = (
    *(
        (COMMAND_ANNOTATION, command)
        for command in (
            "", "{", "[]", "null", '{"id": 1}', '{"id": "x", "action": "start"}', "[" * 5000, 7, None, {"id": "x"},
            '{"id": "x", "action": "retry", "attempt": 1e99}', '{"id": "x", "action": "promote-full", "attempt": -1}',
            '{"id": "' + "x" * 5000 + '", "action": "stop"}', '{"id": "x", "action": "drop table"}',
            '{"id": {"a": []}, "action": ["stop"]}',
        )
    ),
    ("trafficsim.io/applied", "{}"), ("kubectl.kubernetes.io/last-applied-configuration", "x" * 100_000),
    ("kopf.zalando.org/last-handled-configuration", "{"), ("a b", "c"), ("x" * 400, "y"), ("é/é", "é"),
    ("example.com/note", "\x00\u202e\U0001f600"), ("example.com/big", "x" * 300_000),
)  # fmt: skip
_META: Final[tuple[tuple[str, Any], ...]] = (
    ("labels", {"trafficsim.io/simulation": "another"}), ("labels", {"app.kubernetes.io/managed-by": "trafficsim"}),
    ("labels", {"a": "not a label"}), ("labels", {"trafficsim.io/simulation-uid": "x" * 63}), ("labels", []),
    ("name", "UPPER"), ("name", "x" * 41), ("name", "x" * 300), ("name", "a.b"), ("name", "-a"), ("name", 5),
    ("name", ""), ("namespace", "kube-system"), ("namespace", None), ("generation", -1), ("uid", "mine"),
    ("resourceVersion", "7"),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}]), ("ownerReferences", "x"),
    ("deletionTimestamp", "2026-01-01T00:00:00Z"), ("creationTimestamp", "yesterday"),
    ("managedFields", [{"manager": "x"}]), ("finalizers", ["no-domain"]), ("finalizers", ["example.com/held"]),
    ("selfLink", "x"), ("annotations", "x"),
)  # fmt: skip
# Of more than 10 000 levels the API server says no more than that.
_DEPTHS: Final = (10, 45, 60, 400, 1200, 3000, 9000)


@dataclass(slots=True, kw_only=True)
class Mutant:
    """A document as *text*, the *places* that were changed in it, and *how*."""

    name: str
    sample: str
    text: str
    strict: bool
    """Whether the client asks the server to refuse fields that it does not know or that are given twice."""
    places: list[Path_]
    how: list[str]

    def __str__(self) -> str:
        return f"{self.name} ({self.sample}: {', '.join(self.how)} at {self.places})"

    def is_named(self, message: str) -> bool:
        """Say whether *message* names a field on the way to one of the places."""
        said = re.sub("[^a-z0-9]", "", message.lower())
        keys = {key for place in self.places for key in place if isinstance(key, str)}
        return any(re.sub("[^a-z0-9]", "", key.lower())[:40] in said for key in keys)


@dataclass(slots=True)
class _Making:
    """A document on its way to a mutant; *raw* texts stand in the place of marks when it is written."""

    document: Any
    draw: random.Random
    raw: dict[str, str] = field(default_factory=dict)
    places: list[Path_] = field(default_factory=list)
    how: list[str] = field(default_factory=list)

    def place(self) -> Path_:
        """Return a place, most often within spec, at any depth."""
        path: list[str | int] = []
        value = self.document
        if isinstance(value, dict) and isinstance(value.get("spec"), dict) and self.draw.random() < 0.95:
            path, value = ["spec"], value["spec"]
        while isinstance(value, dict | list) and value and (not path or path == ["spec"] or self.draw.random() < 0.85):
            key: Any = self.draw.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
            path.append(key)
            value = value[key]
        return tuple(path)

    def get(self, path: Path_) -> Any:
        value = self.document
        for key in path:
            value = value[key]
        return value

    def put(self, path: Path_, value: Any) -> None:
        """Set what stands at *path*, making objects on the way where there are none."""
        self.places.append(path)
        if not path:
            self.document = value
            return
        node = self.document
        for key in path[:-1]:
            if isinstance(key, str):
                if not isinstance(node, dict):
                    return
                node = node.setdefault(key, {})
            else:
                node = node[key]
        if isinstance(node, dict if isinstance(path[-1], str) else list):
            node[path[-1]] = value

    def mark(self, text: str) -> str:
        """Return a mark that *text* takes the place of, its quotes included."""
        mark = f"@@raw-{len(self.raw)}@@"
        self.raw[json.dumps(mark)] = text
        return mark

    def written(self) -> str:
        text = json.dumps(self.document)
        # The last first: one mark may stand within the text of another.
        for mark, raw in reversed(self.raw.items()):
            text = text.replace(mark, raw)
        return text


def _odd(making: _Making) -> None:
    making.put(making.place(), making.draw.choice(_ODD))


def _text(making: _Making) -> None:
    making.put(making.place(), making.draw.choice(_TEXTS))


def _enum(making: _Making) -> None:
    making.put(making.place(), making.draw.choice(_ENUMS))


def _huge(making: _Making) -> None:
    what = making.draw.choice(("x", "é", "{{user.id}}", "a.", "\n", "1"))
    making.put(making.place(), what * (making.draw.choice((5_000, 70_000, 250_000)) // len(what.encode())))


def _removed(making: _Making) -> None:
    path = making.place()
    if path:
        making.places.append(path)
        del making.get(path[:-1])[path[-1]]


def _renamed(making: _Making) -> None:
    path = making.place()
    if path and isinstance(path[-1], str):
        node = making.get(path[:-1])
        name = making.draw.choice((path[-1] + "x", path[-1].upper(), path[-1][:-1] or "_", "é" + path[-1], "a" * 2000))
        node[name] = node.pop(path[-1])
        making.places += [path, (*path[:-1], name)]


def _many(making: _Making) -> None:
    path = making.place()
    value = making.get(path)
    # A megabyte and a half is what etcd takes, whatever stands in it.
    most = max(2, 250_000 // len(json.dumps(value)))
    making.put(path, [value] * min(most, making.draw.choice((2, 33, 129, 2000))))


def _deep(making: _Making) -> None:
    levels = making.draw.choice(_DEPTHS)
    begin, end = making.draw.choice((("[", "]"), ('{"a":', "}"), ('[{"repeat":{"times":1,"flow":', "}}]")))
    path = making.draw.choice((making.place(), ("spec", "archetypes", 0, "flow", 0, "request", "json")))
    count = levels // (begin.count("[") + begin.count("{"))
    try:
        making.put(path, making.mark(begin * count + "1" + end * count))
    except (KeyError, IndexError, TypeError):  # an archetype of the sample has no flow, or lost it before
        making.put(("spec", "deep"), making.mark(begin * count + "1" + end * count))


def _twice(making: _Making) -> None:
    path = making.place()
    if path and isinstance(path[-1], str):
        value, other = making.get(path), making.draw.choice(_ODD)
        making.put(path, making.mark(f"{json.dumps(value)},{json.dumps(path[-1])}:{json.dumps(other)}"))


def _forbidden(making: _Making) -> None:
    path, value = making.draw.choice(_FORBIDDEN)
    if isinstance(making.document, dict):
        making.put(path, deepcopy(value))


def _annotated(making: _Making) -> None:
    key, value = making.draw.choice(_ANNOTATIONS)
    if isinstance(making.document, dict):
        making.put(("metadata", "annotations", key), value)


def _described(making: _Making) -> None:
    key, value = making.draw.choice(_META)
    if isinstance(making.document, dict):
        making.put(("metadata", key), deepcopy(value))


_WAYS: Final[tuple[tuple[int, Callable[[_Making], None]], ...]] = (
    (6, _odd), (3, _text), (2, _enum), (2, _huge), (3, _removed), (2, _renamed), (2, _many), (2, _deep), (2, _twice),
    (6, _forbidden), (2, _annotated), (2, _described),
)  # fmt: skip


def samples() -> dict[str, dict[str, Any]]:
    """Return the examples by name, small, with a target that nobody is behind, as the policy allows them."""
    found = {}
    for path in EXAMPLES:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = document["spec"]
        spec["target"]["url"] = TARGET
        spec["users"] = min(10, spec.get("users", 10))
        spec["duration"] = "5m"
        text = json.dumps(document)
        # The shop's customers delete orders, which the policy of the tests forbids.
        found[path.stem] = json.loads(text.replace('{"delete":', '{"put":'))
    return found


def mutants(namespace: str, seed: int, count: int) -> Iterator[Mutant]:
    """Yield *count* mutants for *namespace*, the same ones for the same *seed*."""
    good = sorted(samples().items())
    ways = [way for weight, way in _WAYS for _ in range(weight)]
    for number in range(count):
        draw = random.Random(f"{seed}-{number}")
        sample, document = draw.choice(good)
        making = _Making(deepcopy(document), draw)
        name = f"m{number}"
        making.document["metadata"] |= {"name": name, "namespace": namespace}
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            way = draw.choice(ways)
            if isinstance(making.document, dict):
                way(making)
                making.how.append(way.__name__[1:])
        yield Mutant(
            name=name,
            sample=sample,
            text=making.written(),
            strict=draw.random() < 0.7,
            places=making.places,
            how=making.how,
        )
