"""The resource's models: what follows from a document once it is accepted. What is refused stands in the corpus."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from trafficsim_api.document import load_spec
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.flow import depth_of
from trafficsim_api.resource import Archetype, Quantities, Repeat, Request, Resources, Step, Think, actions_of


def a_simulation(flow, **spec):
    return load_spec(
        {
            "apiVersion": "trafficsim.io/v1alpha1",
            "kind": "TrafficSimulation",
            "metadata": {"name": "x"},
            "spec": {"target": {"url": "http://shop"}, "archetypes": [{"name": "a", "flow": flow}], **spec},
        }
    )


def first_problem(flow, **spec):
    with pytest.raises(SpecError) as error:
        a_simulation(flow, **spec)
    return error.value.problems[0]


@pytest.mark.parametrize("verb", ["get", "head", "post", "put", "patch", "delete", "options"])
def test_every_verb(verb):
    request = Request.model_validate_json(f'{{"{verb}": "/a?b=c"}}')
    assert (verb, "/a?b=c") == (request.verb, request.path)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (Step(action="login", request=Request(post="/auth")), "login"),
        (Step(request=Request(get="/users/{{user.id}}?page=2")), "GET /users/{{user.id}}"),
        (Step(request=Request(delete="/")), "DELETE /"),
    ],
)
def test_action_names(step, name):
    """Given, or verb and path template without its query."""
    assert name == step.name


@pytest.mark.parametrize(("times", "bounds"), [("3", (3, 3)), ("3..10", (3, 10)), ("0..2", (0, 2)), (3, (3, 3))])
def test_repeat_bounds(times, bounds):
    """A number, or a range drawn anew each time."""
    assert bounds == Repeat(times=times, flow=(Step(request=Request(get="/")),)).bounds


def test_actions_in_order_of_first_appearance():
    """The same name in the same group is one action, wherever it stands; another group is another action."""
    get = Step(action="a", request=Request(get="/"))
    again = Step(action="a", group="auth", request=Request(get="/"))
    nested = Step(repeat=Repeat(times="2", flow=(Step(action="b", request=Request(get="/")), get)))
    archetypes = (Archetype(name="x", flow=(get, nested)), Archetype(name="y", flow=(again, get)))
    assert (("a", "user"), ("b", "user"), ("a", "auth")) == actions_of(archetypes)


@pytest.mark.parametrize(
    ("resources", "cpu", "memory"),
    [
        (Resources(), 2000, 2**30),
        (Resources.model_validate_json('{"limits": {"cpu": 4}}'), 4000, 2**30),
        (Resources.model_validate_json('{"requests": {"memory": "512Mi"}}'), 2000, 2**29),
        (Resources.model_validate_json('{"requests": {"cpu": "500m"}, "limits": {"cpu": "0.5"}}'), 500, 2**30),
    ],
    ids=["default", "limits", "requests", "equal in other words"],
)
def test_requests_are_limits(resources, cpu, memory):
    """Requests and limits are one figure; each has a default."""
    assert (cpu, memory) == (resources.cpu, resources.memory)


@pytest.mark.parametrize(
    "request_",
    [
        {"get": "/{{user.id}}/{{user.number}}/{{user.archetype}}/{{user.iteration}}"},
        {"get": "/{{ user.id }}"},
        {"get": "/", "headers": {"authorization": "Bearer {{env.API_TOKEN}}"}},
        {"post": "/", "json": {"a": ["{{user.id}}", {"{{user.id}}": 1}]}},
        {"post": "/", "form": {"a": "{{user.id}}"}},
        {"post": "/", "body": "{{user.id}}"},
        {"get": "/", "params": {"page": 2}},
    ],
    ids=str,
)
def test_templates_that_are_known(request_):
    """The user's own values and the runner's environment are always there."""
    assert a_simulation([{"request": request_}])


def test_a_saved_variable_is_known_to_later_steps():
    """Also out of a repetition, and into one."""
    save = {"request": {"get": "/"}, "save": {"token": "json.token"}}
    use = {"request": {"get": "/{{token}}"}}
    assert a_simulation([save, use])
    assert a_simulation([save, {"repeat": {"times": 2, "flow": [use]}}])
    assert a_simulation([{"repeat": {"times": 2, "flow": [save]}}, use])
    assert Problem(
        field="archetypes[0].flow[0].request.get", reason="{{token}} is not saved by an earlier step"
    ) == first_problem([use, save])


def test_what_a_choice_saves_is_known_after_it_and_not_beside_it():
    """It may be there, so what follows may use it; the other flows never see it."""
    save = {"request": {"get": "/"}, "save": {"token": "json.token"}}
    use = {"request": {"get": "/{{token}}"}}
    assert a_simulation([{"choose": [{"flow": [save, use]}, {"flow": [{"think": {"constant": "1s"}}]}]}, use])
    assert Problem(
        field="archetypes[0].flow[0].choose[1].flow[0].request.get", reason="{{token}} is not saved by an earlier step"
    ) == first_problem([{"choose": [{"flow": [save]}, {"flow": [use]}]}])


@pytest.mark.parametrize("source", ["json.a", "json.a.0.b", "header.location", "cookie.session", "status", "body"])
def test_what_can_be_saved(source):
    assert a_simulation([{"request": {"get": "/"}, "save": {"x": source}}])


@pytest.mark.parametrize(("status", "written"), [(200, "200"), ("2xx", "2xx"), ("200,201,404", "200,201,404")])
def test_expected_status(status, written):
    """A status, a class, or several."""
    flow = a_simulation([{"request": {"get": "/"}, "expect": {"status": status}}]).spec.archetypes[0].flow
    assert written == flow[0].expect.status


@pytest.mark.parametrize(
    "think",
    [{"constant": "1s"}, {"constant": "0s"}, {"min": "1s", "max": "1s"}, {"median": "2s", "p95": "8s"}],
    ids=str,
)
def test_forms_of_a_pause(think):
    assert a_simulation([{"request": {"get": "/"}}, {"think": think}])


@pytest.mark.parametrize(
    "url",
    [
        "http://shop",
        "https://shop.example:8443/base/path",
        "http://127.0.0.1:1",
        "http://[::1]:8080",
        "http://a_b:65535/",
    ],
)
def test_urls(url):
    assert url == a_simulation([{"request": {"get": "/"}}], target={"url": url}).spec.target.url


def test_threshold_of_an_unnamed_action():
    """An action without a name is called by verb and path."""
    assert a_simulation([{"request": {"get": "/a"}}], thresholds=[{"rule": "p95(GET /a) < 1s"}])


def test_flows_nest_four_deep():
    """Four levels are allowed, a fifth is not."""
    flow = [{"request": {"get": "/"}}]
    for _ in range(3):
        flow = [{"repeat": {"times": 2, "flow": flow}}]
    assert a_simulation(flow)
    for deeper in ({"repeat": {"times": 2, "flow": flow}}, {"choose": [{"flow": flow}]}):
        assert "flows may nest at most 4 deep" == first_problem([deeper]).reason


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ([], 1), ({"a": [1, [2]]}, 3)])
def test_depth(value, depth):
    assert depth == depth_of(value)


def test_models_are_frozen():
    """The contract is read, never written."""
    with pytest.raises(ValidationError, match="frozen"):
        Think(constant=timedelta(seconds=1)).constant = timedelta(0)
    assert hash(Quantities(cpu=2)) == hash(Quantities(cpu=2))
