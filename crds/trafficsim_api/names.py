"""Every string that reaches an API: group, labels, annotations, object names, field managers, conditions, reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Final

__all__ = [
    "API_VERSION",
    "APPLIED_ANNOTATION",
    "COMMAND_ANNOTATION",
    "GROUP",
    "KIND",
    "MANAGED_BY",
    "PLURAL",
    "SHORT_NAME",
    "VERSION",
    "Condition",
    "Event",
    "FieldManager",
    "Label",
    "Reason",
    "deployment_name",
    "hash8",
    "keys_name",
    "labels",
    "revision_of",
    "saved_name",
    "totals_name",
]

GROUP: Final = "trafficsim.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "TrafficSimulation"
PLURAL: Final = "trafficsimulations"
SHORT_NAME: Final = "tsim"

# {"id", "action", "attempt"?}: done once per id, answered in status.lastCommand, never removed by us.
COMMAND_ANNOTATION: Final = "trafficsim.io/command"

# On a Deployment: the pod template as it was applied, in JSON. Drift is what differs from it, and a repair applies it
# again, so that an operator which builds templates differently restarts no runner.
APPLIED_ANNOTATION: Final = "trafficsim.io/applied-template"

MANAGED_BY: Final = "trafficsim"


class Label(StrEnum):
    """Labels of every object that we make."""

    MANAGED_BY = "app.kubernetes.io/managed-by"
    NAME = "app.kubernetes.io/name"
    SIMULATION = "trafficsim.io/simulation"
    SIMULATION_UID = "trafficsim.io/simulation-uid"
    """A resource may be made anew under an old name: selectors need the UID."""
    REVISION = "trafficsim.io/revision"


class FieldManager(StrEnum):
    """Who owns which fields under server-side apply."""

    OBJECTS = "trafficsim"
    """A child object as a whole, applied once."""
    SCALE = "trafficsim-scale"
    """spec.replicas of a Deployment, applied with its uid."""
    STATUS = "trafficsim-status"
    """The status document, complete, applied with resourceVersion."""


class Condition(StrEnum):
    """Condition types; each carries the observedGeneration of the write."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    ACCEPTED = "Accepted"
    PREFLIGHT = "Preflight"
    RUNNERS_HEALTHY = "RunnersHealthy"
    GENERATOR_SATURATED = "GeneratorSaturated"
    FINISHED = "Finished"
    PASSED = "Passed"
    ROLLOUT_PAUSED = "RolloutPaused"
    AUTOSCALER_CONFLICT = "AutoscalerConflict"


class Reason(StrEnum):
    """Condition reasons: one word for machines, beside a sentence for people."""

    ACCEPTED = "Accepted"
    REFUSED = "Refused"
    INVALID = "Invalid"
    NAME_TAKEN = "NameTaken"
    TARGET_UNREACHABLE = "TargetUnreachable"
    TARGET_REACHABLE = "TargetReachable"
    START_TIMEOUT = "StartTimeout"
    RUNNERS_FAILING = "RunnersFailing"
    RUNNERS_READY = "RunnersReady"
    RUNNERS_STARTING = "RunnersStarting"
    ASSIGNMENT_REFUSED = "AssignmentRefused"
    RUNNERS_LOST = "RunnersLost"
    USER_TIME_LOST = "UserTimeLost"
    """More than is tolerated, though no runner was lost."""
    UNREACHABLE = "Unreachable"
    IN_PROGRESS = "InProgress"
    WITHIN_LIMITS = "WithinLimits"
    GENERATOR_SATURATED = "GeneratorSaturated"
    TOO_FEW_SAMPLES = "TooFewSamples"
    NUMBERS_MISSING = "NumbersMissing"
    STOPPED = "Stopped"
    PASSED = "Passed"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    COMPLETED = "Completed"
    PENDING = "Pending"
    DRAINING = "Draining"
    STARTING = "Starting"
    SETUP_FAILED = "SetupFailed"
    ROLLING_OUT = "RollingOut"
    REVISION_REJECTED = "RevisionRejected"
    NOT_PAUSED = "NotPaused"
    PREPARE_TIMEOUT = "PrepareTimeout"
    SHIFT_TIMEOUT = "ShiftTimeout"
    ANALYSIS_FAILED = "AnalysisFailed"
    CANDIDATE_SILENT = "CandidateSilent"
    CANDIDATE_FAILING = "CandidateFailing"
    ABORTED = "Aborted"
    WITHDRAWN = "Withdrawn"
    """The spec asks for the stable version again."""
    SUPERSEDED = "Superseded"
    SIMULATION_ENDED = "SimulationEnded"
    PROMOTED = "Promoted"
    FOREIGN_SCALER = "ForeignScaler"
    NO_CONFLICT = "NoConflict"
    POSSIBLE_DOUBLE_LOAD = "PossibleDoubleLoad"


class Event(StrEnum):
    """Reasons of the events about a simulation."""

    REFUSED = "Refused"
    PHASE = "PhaseChanged"
    SCALED = "Scaled"
    RUNNER_LOST = "RunnerLost"
    RUNNER_RETIRED = "RunnerRetired"
    DRIFT_REPAIRED = "DriftRepaired"
    COMMAND = "CommandDone"
    DATA_MISSING = "DataMissing"
    NUMBERS_NOT_KEPT = "NumbersNotKept"
    ASSIGNMENT_REFUSED = "AssignmentRefused"
    FINISHED = "Finished"
    FAILED = "Failed"
    SETUP = "Setup"
    TEARDOWN = "Teardown"
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_STEP = "RolloutStep"
    STEP_PASSED = "StepPassed"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_RESUMED = "RolloutResumed"
    ROLLOUT_ABORTED = "RolloutAborted"
    REVISION_REJECTED = "RevisionRejected"
    PROMOTED = "Promoted"
    ROLLOUT_ENDED = "RolloutEnded"
    POSSIBLE_DOUBLE_LOAD = "PossibleDoubleLoad"
    START_MOVED = "StartMoved"
    START_MEASURED = "StartMeasured"
    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    FORECAST_OFF = "ForecastOff"
    FORECAST_ON = "ForecastOn"
    AUTOSCALER_CONFLICT = "AutoscalerConflict"


def hash8(*parts: object) -> str:
    """Return 8 hex digits over *parts*, stable over processes and versions of Python."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return sha256(text.encode()).hexdigest()[:8]


def revision_of(template: Mapping[str, object]) -> str:
    """Return the revision of a normalised runner template (the dumped `spec.runner`, image resolved)."""
    return hash8(template)


def deployment_name(simulation: str, uid: str, revision: str) -> str:
    """
    Return the name of the Deployment of one runner revision: `<simulation>-<hash8(uid, revision)>`.

    The UID is in it, so that a resource made anew under an old name never meets the old one's Deployment.
    """
    return f"{simulation}-{hash8(uid, revision)}"


def keys_name(simulation: str, uid: str) -> str:
    """Return the name of the ConfigMap with the public keys that the simulation's runners trust."""
    return f"{simulation}-{hash8(uid, 'keys')}-keys"


def totals_name(simulation: str, uid: str) -> str:
    """Return the name of the ConfigMap with the totals of the simulation's ended runners."""
    return f"{simulation}-{hash8(uid, 'totals')}-totals"


def saved_name(simulation: str, uid: str) -> str:
    """Return the name of the ConfigMap with what the run's setup saved, sealed for the operator (see sealed.py)."""
    return f"{simulation}-{hash8(uid, 'saved')}-saved"


def labels(simulation: str, revision: str | None = None, uid: str | None = None) -> dict[str, str]:
    """Return the labels of an object of *simulation* (of one of its runner revisions, of the resource with *uid*)."""
    found = {
        Label.MANAGED_BY.value: MANAGED_BY,
        Label.NAME.value: "trafficsim-runner",
        Label.SIMULATION.value: simulation,
    }
    found |= {Label.REVISION.value: revision} if revision else {}
    return found | ({Label.SIMULATION_UID.value: uid} if uid else {})
