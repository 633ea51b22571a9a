"""What the API server holds is parsed, however deep somebody nested it."""

import sys

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_operator.kube import _document, allow_deep_json

# What the API server takes at most, in an event of the watch.
LEVELS = 10_001
DEEP = b'{"a":' * LEVELS + b"1" + b"}" * LEVELS


@pytest.fixture
def limit():
    """Return what sets the limit of levels; it is as before after the test."""
    before = sys.getrecursionlimit()
    yield sys.setrecursionlimit
    sys.setrecursionlimit(before)


def test_a_deep_document_is_no_fault_of_the_api_server(limit):
    """Without the operator's limit it is told as an answer that can't be read, and with it it is a document."""
    limit(1000)
    with pytest.raises(Unavailable):
        _document(DEEP)
    allow_deep_json()
    assert ["a"] == list(_document(DEEP))


def test_a_limit_that_is_higher_stays(limit):
    limit(50_000)
    allow_deep_json()
    assert 50_000 == sys.getrecursionlimit()
