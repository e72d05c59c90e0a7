"""agent-flows apply: desired state from a file, for people without an orchestrator."""

import argparse
import dataclasses
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_flows.cli.api_command import ListCommand
from agent_flows.cli.failure import CommandFailed, ExitCode

# What others refer to comes first.
_SECTIONS = {
    "networks": "networks",
    "address_groups": "address-groups",
    "security_groups": "security-groups",
    "ports": "ports",
}
_GROUPS, _RULES = "security_groups", "security_group_rules"
_APPLIED = "applied"


class Apply(ListCommand):
    """Put the networks, address groups, security groups and ports of a YAML or JSON document.

    The document has the keys networks, address_groups, security_groups and
    ports, each a list of objects as the REST API takes them, each with its id.
    What is there already is replaced; what the document does not name stays.
    A refused object does not keep the others from being applied. Security
    groups whose rules name each other are made without these rules first.
    """

    examples = """
        agent-flows apply cloud.yaml
        generate-cloud | agent-flows apply -
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="The document; - reads standard input.")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._refused = False
        code: int = super().run(parsed_args)
        return ExitCode.FAILED if self._refused else code

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        resources = list(_resources(_read(parsed_args.file)))
        groups = {each.id: each for each in resources if each.section == _GROUPS}
        results: dict[tuple[str, str], str] = {}
        for section in _SECTIONS:
            if section == _GROUPS:
                results |= self._put_groups(groups)
            else:
                found = [each for each in resources if each.section == section]
                results |= {(section, each.id): self._put(each) for each in found}
        self._refused = any(result != _APPLIED for result in results.values())
        return ("kind", "id", "result"), [(*key, result) for key, result in results.items()]

    def _put_groups(self, groups: Mapping[str, "_Resource"]) -> dict[tuple[str, str], str]:
        """Every group after those its rules name, as far as there is such an order.

        Where groups name each other in a circle, one that is new comes without
        the rules that cannot be taken yet, and is put whole in the end. One
        that is there already keeps its rules until it is put whole.
        """
        results: dict[str, str] = {}
        later: dict[str, int] = {}
        for group in in_order(groups):
            missing = {
                each
                for each in group.remote_groups
                if each in groups and each not in results and not self._exists(each)
            } - {group.id}
            if missing and self._exists(group.id):
                later[group.id] = 0
                continue
            reduced, left_out = group.without_rules_of(missing)
            results[group.id] = self._put(reduced)
            if left_out and results[group.id] == _APPLIED:
                later[group.id] = left_out
        for group_id, left_out in later.items():
            result = self._put(groups[group_id])
            if left_out and result != _APPLIED:
                result = f"applied without {left_out} of its rules: {result}"
            results[group_id] = result
        return {(_GROUPS, group_id): results[group_id] for group_id in groups}

    def _exists(self, group_id: str) -> bool:
        try:
            self.api.show(_SECTIONS[_GROUPS], group_id)
        except CommandFailed as exc:
            # Any other failure is told by the PUT that follows.
            return exc.exit_code is not ExitCode.NOT_FOUND
        return True

    def _put(self, resource: "_Resource") -> str:
        try:
            self.api.put(_SECTIONS[resource.section], resource.id, resource.body)
        except CommandFailed as exc:
            return str(exc)
        return _APPLIED


@dataclasses.dataclass(frozen=True)
class _Resource:
    """One object of the document, without its id."""

    section: str
    id: str
    body: Mapping[str, object]

    @property
    def remote_groups(self) -> frozenset[str]:
        """The security groups that its rules name."""
        named = (_remote_group(rule) for rule in self._rules)
        return frozenset(each for each in named if each is not None)

    def without_rules_of(self, groups: Collection[str]) -> tuple["_Resource", int]:
        """This group without the rules that name one of ``groups``, and how many these are."""
        rules = [rule for rule in self._rules if _remote_group(rule) not in groups]
        left_out = len(self._rules) - len(rules)
        if not left_out:
            return self, 0
        return dataclasses.replace(self, body={**self.body, _RULES: rules}), left_out

    @property
    def _rules(self) -> Sequence[object]:
        rules = self.body.get(_RULES)
        return rules if isinstance(rules, list) else ()


def _remote_group(rule: object) -> str | None:
    value = rule.get("remote_group_id") if isinstance(rule, Mapping) else None
    return value if isinstance(value, str) else None


def in_order(groups: Mapping[str, _Resource]) -> Iterator[_Resource]:
    """Each group once, after those its rules name; a circle begins with its first."""
    left = {group_id: group.remote_groups - {group_id} for group_id, group in groups.items()}
    while left:
        ready = [group_id for group_id, named in left.items() if left.keys().isdisjoint(named)]
        for group_id in ready or [next(iter(left))]:
            del left[group_id]
            yield groups[group_id]


def _read(file: str) -> object:
    import yaml

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return yaml.safe_load(text)  # JSON is YAML
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"Cannot read {file}: {exc}", ExitCode.USAGE) from None
    except yaml.YAMLError as exc:
        raise CommandFailed(f"{file} is no YAML: {exc}", ExitCode.USAGE) from None


def _resources(document: object) -> Iterator[_Resource]:
    """Every resource of the document, section by section.

    Raises :class:`CommandFailed` that names the part at fault; nothing is sent then.
    """
    if not isinstance(document, Mapping):
        raise CommandFailed("The document must be an object.", ExitCode.USAGE)
    unknown = [str(key) for key in document if key not in _SECTIONS]
    if unknown:
        known = ", ".join(_SECTIONS)
        raise CommandFailed(f"{unknown[0]}: unknown; there are {known}.", ExitCode.USAGE)
    for section in _SECTIONS:
        items = document.get(section)
        if items is None:
            continue
        if not isinstance(items, list):
            raise CommandFailed(f"{section}: must be a list.", ExitCode.USAGE)
        ids: set[str] = set()
        for place, item in enumerate(items):
            if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
                raise CommandFailed(
                    f"{section}.{place}.id: every object needs its UUID.", ExitCode.USAGE
                )
            if item["id"] in ids:
                raise CommandFailed(
                    f"{section}.{place}.id: {item['id']} comes twice.", ExitCode.USAGE
                )
            ids.add(item["id"])
            body = {str(key): value for key, value in item.items() if key != "id"}
            yield _Resource(section, item["id"], body)
