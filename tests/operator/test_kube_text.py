"""What a server-side apply sends: JSON that a reader of YAML understands as it was meant."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_operator.kube import as_yaml

CHARACTERS = {
    "ascii": 'it\'s "quoted" \\ud83d',
    "a plane of its own": "\U0001f600",
    "the last character": "\U0010ffff",
    "breaks of lines": "a\nb\r\x85c\u2028d\u2029e",
    "control": "\x00\x1b\x7f\x9f",
    "byte order mark": "\ufeff\ufffe\uffff",
}


@pytest.mark.parametrize("text", CHARACTERS.values(), ids=CHARACTERS.keys())
def test_a_character_is_the_same_in_both(text):
    sent = as_yaml({"message": text})
    assert {"message": text} == json.loads(sent) == yaml.safe_load(sent)


def test_half_a_pair_is_no_character():
    assert {"message": "a\ufffdb"} == yaml.safe_load(as_yaml({"message": "a\ud83db"}))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_is_the_same_in_both(text):
    sent = as_yaml({text: [text]}).encode()
    assert {text: [text]} == json.loads(sent)
    # As a value: a YAML key longer than 1024 characters would need another form, and ours are names of fields.
    assert [text] == yaml.safe_load(as_yaml({"message": [text]}))["message"]
