"""What the operator's /metrics say of rollouts."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from trafficsim_api.names import Reason
from trafficsim_api.phases import Phase
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import ColourFigures, ColourStatus, RolloutStatus, RolloutWindow, Status, Users
from trafficsim_operator.handlers import Key
from trafficsim_operator.observability import Metrics
from trafficsim_operator.rollout_metrics import RolloutMetrics, outcome_of
from trafficsim_operator.store import Document

ANALYZING = RolloutStatus(
    phase=RolloutPhase.ANALYZING,
    attempt=1,
    step=1,
    blue=ColourStatus(users=75),
    green=ColourStatus(users=25),
    windows=(
        RolloutWindow(
            number=4,
            blue=ColourFigures(requests=812, error_rate="0.4%", success="99.9%", p95="120ms"),
            green=ColourFigures(requests=270, error_rate="9.1%", success="88.0%", p95="1.25s"),
        ),
    ),
)


@pytest.mark.parametrize(
    ("before", "after", "reason", "fast", "outcome"),
    [
        ("Analyzing", "Promoting", Reason.PROMOTED, False, "promoted"),
        ("Promoting", "Retiring", Reason.PROMOTED, False, ""),
        ("Retiring", "Stable", Reason.PROMOTED, False, ""),
        ("Shifting", "Promoting", Reason.PROMOTED, True, "rolled_back"),
        ("Analyzing", "Aborting", Reason.ANALYSIS_FAILED, False, "rolled_back"),
        ("Preparing", "Aborting", Reason.CANDIDATE_FAILING, False, "rolled_back"),
        ("Preparing", "Rejected", Reason.PREPARE_TIMEOUT, False, "rolled_back"),
        ("Aborting", "Rejected", Reason.ANALYSIS_FAILED, False, ""),
        ("Rejected", "Preparing", "", False, ""),
        ("Shifting", "Aborting", Reason.ABORTED, False, "aborted"),
        ("Preparing", "Stable", Reason.WITHDRAWN, False, "aborted"),
        ("Shifting", "Superseding", Reason.SUPERSEDED, False, "superseded"),
        ("Superseding", "Preparing", "", False, ""),
        ("Preparing", "Stable", Reason.SIMULATION_ENDED, False, "superseded"),
        ("Aborting", "Stable", Reason.SIMULATION_ENDED, False, ""),
        ("Stable", "Preparing", "", False, ""),
        ("Preparing", "Shifting", "", False, ""),
        ("Analyzing", "Shifting", "", False, ""),
        ("Analyzing", "Analyzing", "", False, ""),
    ],
)
def test_an_attempt_ends_once(before, after, reason, fast, outcome) -> None:
    """Where it is decided, not where the last user has moved."""
    assert outcome == outcome_of(before, RolloutStatus(phase=RolloutPhase(after), reason=reason, fast=fast))


def test_rollouts_in_progress_are_told_by_colour() -> None:
    """Users, share, step and the newest window, in base units; gone with the rollout."""
    registry = CollectorRegistry()
    metrics = RolloutMetrics(registry)
    paused = ANALYZING.model_copy(update={"windows": (), "pause": PauseReason.SPEC, "phase": RolloutPhase.PREPARING})
    metrics.tell([(Key("shop", "web"), ANALYZING), (Key("shop", "api"), paused)])
    text = generate_latest(registry).decode()
    for line in (
        'trafficsim_rollout_step{name="web",namespace="shop"} 2.0',
        'trafficsim_rollout_paused{name="web",namespace="shop"} 0.0',
        'trafficsim_rollout_paused{name="api",namespace="shop"} 1.0',
        'trafficsim_rollout_users{colour="blue",name="web",namespace="shop"} 75.0',
        'trafficsim_rollout_weight{colour="green",name="web",namespace="shop"} 0.25',
        'trafficsim_rollout_requests{colour="green",name="web",namespace="shop"} 270.0',
        'trafficsim_rollout_error_rate{colour="green",name="web",namespace="shop"} 0.091',
        'trafficsim_rollout_success{colour="blue",name="web",namespace="shop"} 0.999',
        'trafficsim_rollout_p95_seconds{colour="blue",name="web",namespace="shop"} 0.12',
        'trafficsim_rollout_p95_seconds{colour="green",name="web",namespace="shop"} 1.25',
    ):
        assert line in text
    assert 'trafficsim_rollout_p95_seconds{colour="blue",name="api"' not in text
    metrics.tell([(Key("shop", "web"), ANALYZING.model_copy(update={"phase": RolloutPhase.RETIRING}))])
    assert "shop" not in generate_latest(registry).decode()


def test_the_operators_page_has_them() -> None:
    """What ended is counted at the write by which it does; what stands comes from the newest status, or from a list."""
    metrics = Metrics()
    aborting = ANALYZING.model_copy(update={"phase": RolloutPhase.ABORTING, "reason": Reason.ANALYSIS_FAILED})
    stood = Status(phase=Phase.RUNNING, users=Users(active=100), rollout=ANALYZING)
    body = {"status": stood.model_dump(mode="json", by_alias=True, exclude_none=True)}
    document = Document(namespace="shop", name="web", uid="u1", generation=1, version="1", body=body)
    metrics.wrote(document, Status(phase=Phase.RUNNING, users=Users(active=100), rollout=aborting))
    metrics.listed({Key("shop", "web"): body, Key("shop", "api"): body})
    text = metrics.text().decode()
    for line in (
        'trafficsim_rollouts_total{outcome="rolled_back"} 1.0',
        'trafficsim_rollouts_total{outcome="promoted"} 0.0',
        'trafficsim_rollout_users{colour="green",name="web",namespace="shop"} 25.0',
        'trafficsim_rollout_step{name="api",namespace="shop"} 2.0',
    ):
        assert line in text
