"""Setup and teardown as a document may have them, and the box that what setup saved travels in."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis.strategies import dictionaries, text

from trafficsim_api.document import load_spec
from trafficsim_api.errors import SpecError
from trafficsim_api.sealed import public_of, reader_of, seal, unseal

SAVE = {"request": {"post": "/login"}, "save": {"token": "json.token"}}
USE = {"request": {"get": "/", "headers": {"authorization": "{{token}}"}}}
PLAIN = {"request": {"get": "/"}}
OWN = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def load(**spec):
    return load_spec(
        {
            "apiVersion": "trafficsim.io/v1alpha1",
            "kind": "TrafficSimulation",
            "metadata": {"name": "x"},
            "spec": {"target": {"url": "http://shop"}, "archetypes": [{"name": "a", "flow": [PLAIN]}], **spec},
        }
    ).spec


@pytest.mark.parametrize(
    "spec",
    [
        {"setup": {"flow": [SAVE, USE, {"think": {"constant": "1s"}}]}},
        {"setup": {"flow": [{"repeat": {"times": 3, "flow": [SAVE]}}]}, "teardown": {"flow": [USE]}},
        {"setup": {"flow": [SAVE]}, "archetypes": [{"name": "a", "flow": [{"repeat": {"times": 2, "flow": [USE]}}]}]},
        {"setup": {"flow": [{"choose": [{"flow": [SAVE]}, {"flow": [PLAIN]}]}]}, "teardown": {"flow": [USE, SAVE]}},
        {"teardown": {"flow": [SAVE, USE], "timeout": "1h"}},
        {"setup": {"flow": [{"request": {"get": "/{{env.TENANT}}"}}]}},
    ],
)
def test_what_setup_saves_is_known_to_all(spec):
    """To users and to teardown, and in setup itself from the step on that saves it."""
    assert load(**spec)


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        (
            {"setup": {"flow": [USE, SAVE]}},
            "setup.flow[0].request.headers",
            "{{token}} is not saved by an earlier step",
        ),
        (
            {"setup": {"flow": [SAVE]}, "archetypes": [{"name": "a", "flow": [{"request": {"get": "/{{id}}"}}]}]},
            "archetypes[0].flow[0].request.get",
            "{{id}} is not saved by an earlier step or setup",
        ),
        (
            {"teardown": {"flow": [USE]}},
            "teardown.flow[0].request.headers",
            "{{token}} is not saved by an earlier step",
        ),
        (
            {"setup": {"flow": [{"request": {"get": "/{{user.id}}"}}]}},
            "setup.flow[0].request.get",
            "{{user.id}} belongs to a user: none is at work here",
        ),
        ({"setup": {"flow": [{"think": {"constant": "1s"}}]}}, "setup.flow", "at least one request is needed"),
        ({"setup": {}}, "setup.flow", "is needed"),
        ({"teardown": {"flow": [PLAIN], "timeout": "500ms"}}, "teardown.timeout", "from 1s to 1h is needed"),
        ({"setup": {"flow": [PLAIN], "timeout": "2h"}}, "setup.timeout", "from 1s to 1h is needed"),
        ({"setup": {"flow": [PLAIN], "retries": 2}}, "setup.retries", "unknown field"),
        ({"setup": {"flow": [{"request": {"get": "/{{a b}}"}}]}}, "setup.flow[0].request.get", "is not a template"),
    ],
)
def test_what_cannot_be_is_named(spec, field, reason):
    """The field, in the user's words."""
    with pytest.raises(SpecError) as caught:
        load(**spec)
    problem = caught.value.problems[0]
    assert field == problem.field
    assert reason in problem.reason


def test_the_time_out_is_five_minutes_unless_given():
    """For each of the two."""
    spec = load(setup={"flow": [PLAIN]}, teardown={"flow": [PLAIN], "timeout": "90s"})
    assert (300, 90) == (spec.setup.timeout.total_seconds(), spec.teardown.timeout.total_seconds())


@given(dictionaries(text(max_size=20), text(max_size=50), max_size=5))
def test_a_box_opens_for_its_reader_alone(values):
    """The same key opens it again after a restart; another one, or another run's name, does not."""
    reader = reader_of(OWN)
    box = seal(values, public_of(reader), "uid/1-setup")
    assert values == unseal(box, reader_of(OWN), "uid/1-setup")
    for other, context in ((reader_of(OTHER), "uid/1-setup"), (reader, "uid/2-setup")):
        with pytest.raises(ValueError, match="sealed for another"):
            unseal(box, other, context)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "A" * 80])
def test_what_is_no_box_is_refused(text):
    """ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 - several texts, one kind
        unseal(text, reader_of(OWN), "uid/1-setup")
    with pytest.raises(ValueError):  # noqa: PT011
        seal({}, text, "uid/1-setup")
