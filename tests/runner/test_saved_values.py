"""What setup saved, in the requests of users: there from the first one on, until a user saves its own."""

import json

from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.program import RequestStep
from trafficsim_runner.stats.account import Tally
from trafficsim_runner.users import User


def compiled(*flow, **saved):
    fields = {"target": {"url": "http://shop"}, "archetypes": [{"name": "a", "flow": flow}], "saved": saved}
    load = Load.model_validate_json(json.dumps(fields))
    actions = {action: number for number, action in enumerate(actions_of(load.archetypes))}
    program = compile_load(load, endpoint_of(load.target), actions, [Tally(n) for n in range(len(actions))], {})
    step = program.tops[0]
    assert isinstance(step, RequestStep)
    return step


def test_a_value_nobody_else_saves_is_part_of_the_request():
    """Its bytes are the same for every user, so the hot loop sends them as they are."""
    step = compiled({"request": {"get": "/x", "headers": {"authorization": "Bearer {{token}}"}}}, token="t")
    assert step.ready is step
    assert b"authorization: Bearer t\r\n" in step.wire


def test_a_users_own_value_counts_for_that_user():
    """Until it saved one it has setup's; what another name holds changes nothing."""
    step = compiled({"request": {"get": "/{{token}}"}, "save": {"token": "json.t"}}, token="a b")
    user = User()
    assert step.render(user).startswith(b"GET /a%20b HTTP")
    user.saved = {"other": "o"}
    assert step.render(user).startswith(b"GET /a%20b HTTP")
    user.saved = {"token": "mine"}
    assert step.render(user).startswith(b"GET /mine HTTP")


def test_it_is_encoded_for_where_it_stands():
    """In JSON as in a header; what no header can hold drops the action."""
    step = compiled({"request": {"post": "/", "json": {"t": "{{token}}"}}}, token='a"b\n')
    assert b'{"t":"a\\"b\\n"}' in step.wire
    assert compiled({"request": {"get": "/", "headers": {"x": "{{token}}"}}}, token="a\nb").render(User()) is None


def test_what_setup_did_not_save_is_missing():
    """A choice of it may have saved nothing."""
    assert compiled({"request": {"get": "/{{token}}"}}, other="x").render(User()) is None
