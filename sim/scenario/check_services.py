"""The check of what a service sends against what its deployments serve: tokens to LLMs, items to batchers."""

from __future__ import annotations

from sim.errors import Problems
from sim.scenario.model import TIMEOUTS, Deployment, Scenario, SegmentRules, Service

MOST_WAITING = 10**9


def check_kinds(name: str, service: Service, scenario: Scenario, problems: Problems) -> None:
    """Add what is wrong between a service and the kinds of its deployments.

    Parameters
    ----------
    name : of the service. service : itself, its own settings checked already.
    """
    path = f"services.{name}"
    deployments = {each: scenario.deployments[each] for each in service.deployments if each in scenario.deployments}
    batchers = [each for each, deployment in deployments.items() if deployment.batcher is not None]
    _check_rules(path, service, bool(batchers), problems)
    if service.workload.is_backlog():
        _check_backlog(path, service, deployments, problems)
    if batchers and len(batchers) < len(deployments):
        others = ", ".join(each for each in deployments if each not in batchers)
        message = f"has both kinds: {', '.join(batchers)} with a batcher, and {others} of LLMs"
        problems.add(f"{path}.deployments", service.deployments, message, "one kind")
    elif batchers:
        _check_items(path, service, deployments, problems)
    elif deployments and not _wrong(f"{path}.workload", problems) and service.workload.largest_items() is not None:
        choice = getattr(service.workload, "choice_name", "")
        problems.add(
            f"{path}.workload", choice, "sends items, but its deployments serve LLMs", "a workload of tokens, or a batcher"
        )


def _check_items(path: str, service: Service, deployments: dict[str, Deployment], problems: Problems) -> None:
    """Check a service all of whose deployments have batchers."""
    for target in ("ttft_s", "tpot_s"):
        value = getattr(service.slo, target)
        message = "there is no such time: the answer for all items comes in one piece"
        problems.check(value is None, f"{path}.slo.{target}", value, message, "slo.e2e_s")
    if _wrong(f"{path}.workload", problems):
        return
    largest = service.workload.largest_items()
    if largest is None:
        choice = getattr(service.workload, "choice_name", "")
        problems.add(f"{path}.workload", choice, "sends tokens, but its deployments have batchers", "items")
        return
    for name, deployment in deployments.items():
        assert deployment.batcher is not None
        most = deployment.batcher.max_batch
        message = f"its largest request has more items than deployments.{name}.batcher.max_batch"
        problems.check(largest <= most, f"{path}.workload.items", largest, message, f"at most {most}")


def _check_backlog(path: str, service: Service, deployments: dict[str, Deployment], problems: Problems) -> None:
    """Check a service of batch jobs: what binds single requests as they arrive says nothing here."""
    for target in ("ttft_s", "tpot_s", "e2e_s"):
        value = getattr(service.slo, target)
        problems.check(value is None, f"{path}.slo.{target}", value, "the target of a batch job is workload.due", "unset")
    for name in ("queue_timeout_s", "max_queue"):
        value = getattr(service, name)
        problems.check(
            value is None, f"{path}.{name}", value, "requests of a batch job wait in their backlog, not in a queue", "unset"
        )
    takers = [name for name, deployment in deployments.items() if deployment.backlog_seats != 0]
    message = "has a backlog, and none of its deployments takes any: their backlog_seats are 0"
    problems.check(bool(takers) or not deployments, f"{path}.deployments", service.deployments, message, "one with backlog_seats")


def _check_rules(path: str, service: Service, batched: bool, problems: Problems) -> None:
    """Check how requests wait in a batcher, for the service and for its segments."""
    segments = service.workload.segment_names()
    own = SegmentRules(service.priority, service.max_waiting, service.timeout_action)
    for where, rules in (("", own), *((f".segment_rules.{name}", rules) for name, rules in service.segment_rules.items())):
        _check_segment(f"{path}{where}", rules, batched, problems)
    for name in service.segment_rules:
        known = segments is None or name in segments
        problems.check(known, f"{path}.segment_rules.{name}", name, "is not a segment of the workload", choices=segments or ())


def _check_segment(path: str, rules: SegmentRules, batched: bool, problems: Problems) -> None:
    if rules.priority is not None:
        problems.check(-1000 <= rules.priority <= 1000, f"{path}.priority", rules.priority, "is out of range", "-1000 to 1000")
    action = rules.timeout_action
    if action is not None:
        problems.check(action in TIMEOUTS, f"{path}.timeout_action", action, "is not what can be done", choices=TIMEOUTS)
        set_for_nothing = not batched and action == "wait"
        problems.check(not set_for_nothing, f"{path}.timeout_action", action, "is for deployments with a batcher", "abandon")
    waiting = rules.max_waiting
    if waiting is not None:
        problems.check(batched, f"{path}.max_waiting", waiting, "is for deployments with a batcher", "unset, or max_queue")
        problems.check(0 <= waiting <= MOST_WAITING, f"{path}.max_waiting", waiting, "is out of range", f"0 to {MOST_WAITING}")


def _wrong(path: str, problems: Problems) -> bool:
    return any(problem.path.startswith(path) for problem in problems.found)
