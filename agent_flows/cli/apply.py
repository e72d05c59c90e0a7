"""agent-flows apply: desired state from a file, without an orchestrator."""

import argparse
import dataclasses
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_flows.cli.api_command import ListCommand
from agent_flows.cli.failure import CommandFailed, ExitCode

# In the order of references: a section refers only to those before it, or to itself.
_SECTIONS = {
    "networks": "networks",
    "address_groups": "address-groups",
    "security_groups": "security-groups",
    "ports": "ports",
}
_GROUPS, _RULES = "security_groups", "security_group_rules"
_APPLIED = "applied"


class Apply(ListCommand):
    """Apply the networks, address groups, security groups and ports of a YAML or JSON document.

    The document has the keys networks, address_groups, security_groups and
    ports, each a list of objects as the REST API takes them, each with its id.
    Existing objects are replaced; objects that the document does not contain stay.
    A refused object does not stop the others. New security groups whose rules
    refer to each other are first created without these rules.
    """

    examples = """
        agent-flows apply cloud.yaml
        generate-cloud | agent-flows apply -
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="The document; - for standard input.")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._refused = False
        code: int = super().run(parsed_args)
        return ExitCode.FAILED if self._refused else code

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        resources = list(_resources(_read(parsed_args.file)))
        groups = {group.id: group for group in resources if group.section == _GROUPS}
        results: dict[tuple[str, str], str] = {}
        for section in _SECTIONS:
            if section == _GROUPS:
                results |= self._put_groups(groups)
            else:
                results |= {
                    (section, r.id): self._put(r) for r in resources if r.section == section
                }
        self._refused = any(result != _APPLIED for result in results.values())
        return ("kind", "id", "result"), [(*key, result) for key, result in results.items()]

    def _put_groups(self, groups: Mapping[str, "_Resource"]) -> dict[tuple[str, str], str]:
        """Put every group after those its rules refer to, where such an order exists.

        In a circle of references a new group is first put without the rules that
        refer to a missing group, and complete at the end. An existing group keeps
        its rules until it is put complete.
        """
        results: dict[str, str] = {}
        later: dict[str, int] = {}
        for group in in_order(groups):
            missing = {
                remote
                for remote in group.remote_groups
                if remote in groups and remote not in results and not self._exists(remote)
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
            # The PUT that follows reports any other failure.
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
        """The security groups that its rules refer to."""
        return frozenset(filter(None, map(_remote_group, self._rules)))

    def without_rules_of(self, groups: Collection[str]) -> tuple["_Resource", int]:
        """This group without the rules that refer to one of ``groups``, and their number."""
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
    """Each group once, after those its rules refer to; a circle begins with its first."""
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
        raise CommandFailed(f"{file} is not YAML: {exc}", ExitCode.USAGE) from None


def _resources(document: object) -> Iterator[_Resource]:
    """Every resource of the document, section by section.

    Raises :class:`CommandFailed` that names the part at fault, before anything is sent.
    """
    if not isinstance(document, Mapping):
        raise CommandFailed("The document must be an object.", ExitCode.USAGE)
    unknown = [str(key) for key in document if key not in _SECTIONS]
    if unknown:
        known = ", ".join(_SECTIONS)
        raise CommandFailed(f"{unknown[0]}: unknown key; the keys are {known}.", ExitCode.USAGE)
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
                    f"{section}.{place}.id: every object needs a UUID.", ExitCode.USAGE
                )
            if item["id"] in ids:
                raise CommandFailed(
                    f"{section}.{place}.id: {item['id']} is there twice.", ExitCode.USAGE
                )
            ids.add(item["id"])
            body = {str(key): value for key, value in item.items() if key != "id"}
            yield _Resource(section, item["id"], body)
