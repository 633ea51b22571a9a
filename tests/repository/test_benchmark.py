"""The benchmark: its simulations are accepted, its bars judge as they say, its figures are what their names say."""

import os
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trafficsim_api.document import load
from trafficsim_api.policy import Policy
from trafficsim_operator.policy_file import read_policy

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

from bars import Outcome, bars_of  # noqa: E402 - the path to it is set above
from cases import CASES, entries  # noqa: E402
from clients import ClientFailed, Locust, Order, Ours, Vegeta, Wrk, requests_in  # noqa: E402
from measure import Round  # noqa: E402
from processes import family_of, pss_bytes, waited_s  # noqa: E402
from report import Results, document_of, markdown_of  # noqa: E402

CLIENTS = [
    Wrk(binary=Path("wrk")), Vegeta(binary=Path("vegeta")), Locust(binary=Path("locust")), Ours(name="ours_pure")
]  # fmt: skip


def a_round(**figures):
    return Round(
        figures={"cpu_us_per_request": 5.0, **figures}, server_requests=1001, client_requests=1000
    )  # fmt: skip


def bar(bars, case, text):
    return next(bar for bar in bars if bar.case == case and text in bar.text)


def spread(value):
    return {"median": value, "min": value, "max": value}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_simulation_is_accepted(case, tmp_path):
    """What is filled into a simulation makes one that the product takes."""
    for entry in entries(case, CLIENTS):
        if isinstance(entry.client, Ours):
            order = Order(
                load=entry.load, seconds=10, url="http://127.0.0.1:1", authority=Path("ca"), directory=tmp_path
            )
            try:
                entry.client.command(order)
            except ClientFailed as error:
                pytest.skip(str(error))
            text = (tmp_path / "simulation.yaml").read_bytes()
            assert entry.load.users == load(text, "the benchmark").spec.users
            assert b"${" not in text


def test_the_policy_allows_what_the_cases_need():
    """Ten thousand connections of one runner."""
    policy = read_policy((BENCH / "simulations" / "policy.yaml").read_bytes(), "the benchmark")
    assert isinstance(policy, Policy)
    assert policy.max_connections >= max(case.load.users for case in CASES)


def test_the_flows_ask_for_the_same():
    """Locust's flow has the actions and shares of ours."""
    ours = string.Template((BENCH / "simulations" / "flow.yaml").read_text()).substitute(
        URL="http://127.0.0.1:1", TLS="", USERS=64, SECONDS=9, PROCESSES=1
    )
    spec = load(ours.encode(), "the benchmark").spec
    theirs = (BENCH / "peers" / "locust" / "flow.py").read_text()
    for archetype in spec.archetypes:
        assert f"class {archetype.name.title()}(" in theirs
        assert f"weight = {archetype.weight}\n" in theirs
        for step in archetype.flow:
            for inner in step.repeat.flow if step.repeat else (step,):
                assert inner.action == "login" or f'name="{inner.action}"' in theirs


@pytest.mark.parametrize(
    ("ours", "outcome"),
    [
        pytest.param(6.0, Outcome.PASS, id="below"),
        pytest.param(9.9, Outcome.MISSED, id="above"),
        pytest.param(None, Outcome.NOT_MEASURED, id="without-a-figure"),
    ],
)
def test_a_ratio_is_held_against_its_limit(ours, outcome):
    """Ours ÷ wrk's, medians of one run."""
    cases = {"tls64": {"wrk": {"cpu_us_per_request": spread(5.0)}, "ours_pure": {}}}
    if ours is not None:
        cases["tls64"]["ours_pure"]["cpu_us_per_request"] = spread(ours)
    assert outcome == bar(bars_of(cases, {}, cores=2), "tls64", "wrk").outcome


def test_what_a_machine_cannot_measure_is_neither_passed_nor_missed():
    """Two workers and a server need three cores for the CPU, four for the rate; what was seen is shown in brackets."""
    figures = {"cpu_us_per_request": spread(5.0), "requests_per_second": spread(100.0)}
    cases = {"workers2": {"ours_pure": figures, "ours_pure_one_worker": figures}}
    outcomes = {
        cores: [b.outcome for b in bars_of(cases, {}, cores=cores) if b.case == "workers2"] for cores in (2, 3, 4)
    }
    assert {
        2: [Outcome.NOT_MEASURED, Outcome.NOT_MEASURED],
        3: [Outcome.PASS, Outcome.NOT_MEASURED],
        4: [Outcome.PASS, Outcome.MISSED],
    } == outcomes


@pytest.mark.parametrize(
    ("waited", "outcome"), [(0.0, Outcome.MISSED), (0.05, Outcome.MISSED), (0.4, Outcome.NOT_MEASURED)]
)
def test_lag_of_a_worker_without_its_core_is_not_its_own(waited, outcome):
    """Lag and service time say something of the neighbours when those had the core for more than a twentieth."""
    figures = {"lag_p99_ms": spread(40.0), "service_p50_ms": spread(6.0), "waited_share": spread(waited)}
    bars = bars_of({"users10000": {"ours_pure": figures}}, {}, cores=2)
    assert [outcome] * 2 == [bar(bars, "users10000", text).outcome for text in ("lag p99", "service time")]


def test_an_absent_peer_is_named_with_its_reason():
    """A comparison that was not made says why."""
    cases = {"keepalive64": {"ours_pure": {"cpu_us_per_request": spread(5.0)}}}
    bars = bars_of(cases, {"vegeta": "Go is not installed"}, cores=2)
    assert "Go is not installed" == bar(bars, "keepalive64", "vegeta").why
    assert "AGPL" in bar(bars, "keepalive64", "k6").why


def test_missed_bars_stand_in_the_page():
    """Nothing is hidden: figures with their spread, the missed bar, the failed client."""
    rounds = [a_round(bytes_per_user=value) for value in (2000.0, 2100.0, 3000.0)]
    results = Results(rounds={"users5000": {"ours_pure": rounds}}, failures={"users5000": {"locust": "it broke"}})
    document = document_of(results, rounds=3, window_s=1)
    assert {"median": 2100.0, "min": 2000.0, "max": 3000.0} == document["cases"]["users5000"]["ours_pure"][
        "bytes_per_user"
    ]
    page = markdown_of(document, CASES)
    assert "| 2100 | **MISSED** |" in page
    assert "2100 (2000 – 3000)" in page
    assert "users5000: locust failed: it broke" in page


def test_a_run_with_failures_is_no_measurement():
    """A request that failed is cheaper than one that was answered."""
    assert 7 == requests_in({"requests": 7, "failed": 0, "actions": [{"checks_failed": 0}]})
    with pytest.raises(ClientFailed, match="1 failures and 2 missed"):
        requests_in({"requests": 7, "failed": 1, "actions": [{"checks_failed": 2}]})


def test_a_family_is_a_process_with_its_descendants():
    """Its figures never fall: a child that ended is in its parent's."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        family = family_of(os.getpid())
        assert {os.getpid(), child.pid} <= family.keys()
        assert os.getpid() == family[child.pid].parent
        assert pss_bytes(os.getpid()) > 2**20
        assert 0.0 <= waited_s(os.getpid()) < time.monotonic()
        assert 0.0 == waited_s(1 << 22)
        before = family[os.getpid()].cpu
    finally:
        child.communicate(b"\n")
    assert family_of(os.getpid())[os.getpid()].cpu >= before
    assert child.pid not in family_of(os.getpid())
