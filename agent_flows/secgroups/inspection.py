"""Is the switch as it should be: the cookies it holds against those compiled. Pure."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass, replace

from agent_flows.report import TaskError
from agent_flows.secgroups import cookie
from agent_flows.secgroups.conjunction import Conjunctions
from agent_flows.secgroups.cookie import Kind
from agent_flows.secgroups.installed import Installed, Standing, shared_keys


@dataclass(frozen=True)
class Inspection:
    """``installed`` is what is now known to stand: where the switch differs, without what it
    lacks and with what it has too much, so that the next plan mends it."""

    errors: Mapping[str, TaskError]
    installed: Installed
    base_missing: bool


def inspect(
    port_ids: Iterable[str],
    seen: Mapping[int, int],
    base: Iterable[int],
    installed: Installed,
    conjunctions: Conjunctions,
) -> Inspection:
    """Compare for ``port_ids`` what is ``installed`` with the cookies ``seen`` and how often."""
    by_ofport: defaultdict[int, set[int]] = defaultdict(set)
    for each in seen:
        if cookie.kind(each) == Kind.PORT:
            by_ofport[cookie.serial(each)].add(each)
    base_missing = [each for each in base if each not in seen]
    missing = {key for key, each in installed.shared.items() if each not in seen}
    errors: dict[str, TaskError] = {}
    strays = dict(installed.strays)
    for port_id in port_ids:
        standing = installed.ports.get(port_id)
        if standing is None:
            errors[port_id] = _error("the port's flows were not applied")
            continue
        expected = standing.cookies()
        surplus = by_ofport[standing.programme.ofport] - expected.keys()
        if base_missing:
            message = f"{len(base_missing)} flows of the pipeline itself are missing"
        else:
            message = _difference(expected, seen, surplus) or _missing_shared(
                standing, missing, installed, conjunctions
            )
        if surplus:
            strays[standing.programme.ofport] = frozenset(surplus)
        if message:
            errors[port_id] = _error(message)
    if errors:
        installed = replace(
            installed,
            shared={key: each for key, each in installed.shared.items() if key not in missing},
            strays=strays,
            doubtful=installed.doubtful | errors.keys(),
        )
    return Inspection(errors, installed, bool(base_missing))


def _error(message: str) -> TaskError:
    return TaskError("NotAsCompiled", message)


def _difference(expected: Counter[int], seen: Mapping[int, int], surplus: Set[int]) -> str:
    if any(seen.get(each, 0) != count for each, count in expected.items()):
        held = sum(seen.get(each, 0) for each in expected)
        return f"the switch holds {held} of the {expected.total()} flows compiled"
    if surplus:
        return f"the switch holds flows of {len(surplus)} other generations of the port"
    return ""


def _missing_shared(
    standing: Standing,
    missing: Container[str],
    installed: Installed,
    conjunctions: Conjunctions,
) -> str:
    if not missing:
        return ""
    for key in shared_keys(standing.programme, installed, conjunctions):
        if key in missing:
            return f"a flow the port shares with others is missing or says something else: {key}"
    return ""
