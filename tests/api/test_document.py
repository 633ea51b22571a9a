"""Documents in: whatever the file, the outcome is a simulation or problems that name a field."""

import json
import random
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api import document
from trafficsim_api.document import MAX_BYTES, load, load_spec, parse
from trafficsim_api.errors import Problem, SpecError

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
MINIMAL = b"""\
apiVersion: trafficsim.io/v1alpha1
kind: TrafficSimulation
metadata: {name: shop}
spec:
  target: {url: "http://127.0.0.1:8080"}
  archetypes:
    - name: browser
      flow:
        - request: {get: /}
"""


def problems_of(data: bytes, source: str = "shop.yaml") -> tuple[Problem, ...]:
    """Return what is wrong with *data*, nothing if it is accepted; any other exception is a failure."""
    try:
        load(data, source)
    except SpecError as error:
        return error.problems
    return ()


def with_spec(line: str) -> bytes:
    return MINIMAL + f"  {line}\n".encode()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_accepted(path):
    """What is shipped as an example is a simulation."""
    assert path.stem == load(path.read_bytes(), path.name).metadata.name


def test_defaults():
    """Everything but target.url and archetypes has a default."""
    spec = load(MINIMAL, "shop.yaml").spec
    assert (10, False, 0) == (spec.users, spec.suspend, spec.seed)
    assert (2000, 2**30) == (spec.runner.resources.cpu, spec.runner.resources.memory)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_wrong_files_name_a_field(path):
    """Each wrong file is refused, quickly, with a place and a reason."""
    began = time.monotonic()
    problems = problems_of(path.read_bytes(), path.name)
    assert problems, "accepted"
    assert all(problem.field and problem.reason for problem in problems)
    assert time.monotonic() - began < 5


def test_wrong_files_are_told_in_words(golden):
    """The whole table: file, field, reason. A change of a message is reviewed here."""
    lines = [f"{path.name}: {problem}" for path in CORPUS for problem in problems_of(path.read_bytes(), path.name)]
    golden("corpus.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("line", "users"),
    [
        pytest.param("users: 5", 5, id="a number"),
        pytest.param("users: 1_000", 1000, id="YAML 1.1 digits in groups"),
        pytest.param("users: 0x10", 16, id="hexadecimal"),
        pytest.param("users: 0o17", 15, id="octal"),
        pytest.param("users: 017", 15, id="octal as YAML 1.1 writes it"),
        pytest.param("users: !!int '5'", 5, id="by tag"),
        pytest.param("users: &n 5\n  seed: *n", 5, id="an alias"),
        pytest.param("<<: {users: 5}", 5, id="a merge"),
        pytest.param("<<: [{users: 5}, {users: 6}]", 5, id="the first merge wins"),
        pytest.param("<<: {users: 5}\n  users: 7", 7, id="an own key wins over a merge"),
    ],
)
def test_yaml_means_what_it_means_to_kubectl(line, users):
    assert users == load(with_spec(line), "shop.yaml").spec.users


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("a: 2026-01-01", {"a": "2026-01-01"}, id="timestamps are text"),
        pytest.param("a: 2026-01-01T00:00:00Z", {"a": "2026-01-01T00:00:00Z"}, id="instants are text"),
        pytest.param("a: 1:30", {"a": "1:30"}, id="no sexagesimal numbers"),
        pytest.param("a: 1e3", {"a": 1000.0}, id="an exponent"),
        pytest.param("a: yes", {"a": True}, id="yes is true"),
        pytest.param("a: 'yes'", {"a": "yes"}, id="in quotes it is text"),
        pytest.param("a: !!str 5", {"a": "5"}, id="text by tag"),
        pytest.param("a: ! 5", {"a": "5"}, id="the non-specific tag is text"),
        pytest.param("a:", {"a": None}, id="nothing"),
        pytest.param("5: a", {"5": "a"}, id="a whole number as key is text"),
        pytest.param("\ufeffa: 1", {"a": 1}, id="a byte order mark"),
        pytest.param("---\na: 1\n---\n", {"a": 1}, id="an empty second document"),
        pytest.param('{"a": [1, 2.5, null, "\\u00e9"]}', {"a": [1, 2.5, None, "é"]}, id="JSON"),
        pytest.param('{\n\t"a": 1\n}', {"a": 1}, id="JSON with tabs"),
        pytest.param("{a: 1, b: [2]}", {"a": 1, "b": [2]}, id="flow style that is not JSON"),
        pytest.param("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}, id="an alias is written out"),
        pytest.param("- a\n- b", ["a", "b"], id="a list"),
        pytest.param("a: |\n  x\n  y\n", {"a": "x\ny\n"}, id="a block of text"),
    ],
)
def test_parse(text, value):
    """Plain values come out, the same as kubectl would send."""
    assert value == parse(text.encode())


def test_one_mebibyte_is_the_most():
    """A larger file is refused before it is looked at."""
    (problem,) = problems_of(b"#" * (MAX_BYTES + 1))
    assert "at most 1 MiB is allowed, not 1048577 bytes" == problem.reason


def test_many_problems_are_cut():
    """A file with a thousand mistakes is told the first ones and how many there are."""
    problems = problems_of(with_spec("\n  ".join(f"field{n}: 1" for n in range(1000))))
    assert 26 == len(problems)
    assert "and 975 more problems" == str(problems[-1]).removeprefix(f"{problems[-1].field}: ")


def test_field_names_in_snake_case_are_refused():
    """The resource has one spelling."""
    assert ("warm_up: unknown field (did you mean warmUp?)",) == tuple(map(str, problems_of(with_spec("warm_up: 5s"))))


@pytest.mark.parametrize("pure", [False, True], ids=["libyaml", "pure Python"])
def test_deep_nesting_never_reaches_the_stack(monkeypatch, pure):
    """Depth is bounded while reading, in both parsers and in JSON."""
    if pure:
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    for data in (b"[" * 200_000, b"{a: " * 20_000, b'{"a":' * 100_000, b"- " * 50_000, b"? " * 50_000):
        (problem,) = problems_of(data)
        assert "nested more than 48 levels deep" == problem.reason, data[:5]


def test_objects_of_the_api_server():
    """Metadata of the API server's and a status are taken as they come; the same rules hold."""
    simulation = load_spec(
        {
            **parse(MINIMAL),
            "metadata": {"name": "shop", "uid": "u", "generation": 3, "managedFields": [], "labels": {"a": "b"}},
            "status": {"phase": "Running"},
        }
    )
    assert ("u", 3) == (simulation.metadata.uid, simulation.metadata.generation)
    with pytest.raises(SpecError, match=r"^users: at least 0 is needed$"):
        load_spec({**parse(MINIMAL), "spec": {**parse(MINIMAL)["spec"], "users": -1}})


def test_what_was_loaded_is_written_back_the_same():
    """A loaded simulation, written as JSON, loads as the same simulation."""
    simulation = load(EXAMPLES[-1].read_bytes(), "x")
    assert simulation == load(simulation.model_dump_json(exclude_none=True).encode(), "x")


# Fuzz: seeded mutations of good files, on text and on values.

ALPHABET = "{}[]:,-&*!|>'\"%@`# \t\n0aé\x00\ud7ff<?~" + "\U0001f600"
ODD = (None, True, -1, 0, 2**63, 10**40, 1.5, "", "x" * 3000, "{{a}}", "{{", "100%", "1h", [], {}, [[[]]], {"a": {}})


def mutated_text(text: str, draw: random.Random) -> str:
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(text) + 1)
        match draw.randrange(4):
            case 0:
                text = text[:at] + draw.choice(ALPHABET) * draw.choice((1, 1, 1, 60)) + text[at:]
            case 1:
                text = text[:at] + text[at + draw.randint(1, 12) :]
            case 2:
                lines = text.split("\n")
                line = draw.randrange(len(lines))
                lines.insert(draw.randrange(len(lines)), " " * draw.randrange(6) + lines[line].strip())
                text = "\n".join(lines)
            case _:
                end = min(len(text), at + draw.randint(1, 80))
                text = text[:at] + text[at:end] * 2 + text[end:]
    return text


def mutate_value(value: object, draw: random.Random) -> object:
    match value:
        case dict() if value and draw.random() < 0.85:
            key = draw.choice(sorted(value))
            match draw.randrange(12):
                case 0:
                    return {k: v for k, v in value.items() if k != key}
                case 1:
                    return {(k + "x" if k == key else k): v for k, v in value.items()}
                case _:
                    return {**value, key: mutate_value(value[key], draw)}
        case list() if value and draw.random() < 0.85:
            at = draw.randrange(len(value))
            changed = [mutate_value(item, draw) if index == at else item for index, item in enumerate(value)]
            return changed * draw.choice((1, 1, 1, 2)) if draw.random() < 0.9 else changed[:-1]
        case _:
            return draw.choice(ODD)


def assert_accepted_or_named(data: bytes, seed: object) -> None:
    problems = problems_of(data)
    # A loaded document must also be one that can be written; that is checked where it is accepted.
    assert all(p.reason for p in problems), seed
    assert all(p.field for p in problems[:25]), (seed, problems)
    assert all("\n" not in p.field for p in problems), (seed, problems)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_text(path, seed):
    """A good file with random edits is accepted or refused by name; nothing else ever happens."""
    text = path.read_text(encoding="utf-8")
    for n in range(250):
        draw = random.Random(f"{seed}-{n}")
        assert_accepted_or_named(mutated_text(text, draw).encode("utf-8", "surrogatepass"), f"{seed}-{n}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_values(path, seed):
    """A good document with odd values anywhere is accepted or refused by name."""
    good = parse(path.read_bytes())
    for n in range(250):
        draw = random.Random(f"{seed}-{n}")
        value = good
        for _ in range(draw.randint(1, 3)):
            value = mutate_value(value, draw)
        assert_accepted_or_named(json.dumps(value).encode(), f"{seed}-{n}")


@given(data=st.binary(max_size=400))
def test_any_bytes(data):
    """Bytes of any kind are refused with a reason."""
    assert problems_of(data)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20),
        lambda children: st.lists(children, max_size=4)
        | st.dictionaries(st.text(alphabet="abcxyz.-", min_size=1, max_size=8), children, max_size=4),
        max_leaves=20,
    )
)  # fmt: skip
def test_json_and_yaml_give_the_same_value(value):
    """A value written as JSON or as YAML is read as the same value."""
    document_of = {"a": value}
    assert document_of == parse(json.dumps(document_of).encode())
    # In quotes and with tags: PyYAML's own plain style is not quite kubectl's (y, 1e3 and 0o7 are text to it).
    assert document_of == parse(yaml.safe_dump(document_of, allow_unicode=True, default_style='"').encode())


def test_bounds_are_what_the_docs_say():
    assert (2**20, 48, 100_000, 4 * 2**20) == (
        document.MAX_BYTES, document.MAX_DEPTH, document.MAX_VALUES, document.MAX_TEXT,
    )  # fmt: skip
