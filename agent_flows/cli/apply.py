"""agent-flows apply: desired state from a file, for people without an orchestrator."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliff.lister import Lister

from agent_flows.cli.api_command import ApiCommand
from agent_flows.cli.failure import CommandFailed, ExitCode

# What others refer to comes first.
_SECTIONS = {
    "networks": "networks",
    "address_groups": "address-groups",
    "security_groups": "security-groups",
    "ports": "ports",
}
_APPLIED = "applied"


class Apply(ApiCommand, Lister):
    """Put the networks, address groups, security groups and ports of a YAML or JSON document.

    The document has the keys networks, address_groups, security_groups and
    ports, each a list of objects as the REST API takes them, each with its id.
    What is there already is replaced; what the document does not name stays.
    A refused object does not keep the others from being applied.
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
        self._refused = 0
        code: int = super().run(parsed_args)
        return ExitCode.FAILED if self._refused else code

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        rows = [
            (section, resource_id, self._put(section, resource_id, body))
            for section, resource_id, body in list(_resources(_read(parsed_args.file)))
        ]
        return ("kind", "id", "result"), rows

    def _put(self, section: str, resource_id: str, body: Mapping[str, object]) -> str:
        try:
            self.api.put(_SECTIONS[section], resource_id, body)
        except CommandFailed as exc:
            self._refused += 1
            return str(exc)
        return _APPLIED


def _read(file: str) -> object:
    import yaml

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return yaml.safe_load(text)  # JSON is YAML
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"Cannot read {file}: {exc}", ExitCode.USAGE) from None
    except yaml.YAMLError as exc:
        raise CommandFailed(f"{file} is no YAML: {exc}", ExitCode.USAGE) from None


def _resources(document: object) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Section, id and body of every resource, in the order to apply them.

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
        for place, item in enumerate(items):
            if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
                raise CommandFailed(
                    f"{section}.{place}.id: every object needs its UUID.", ExitCode.USAGE
                )
            body = {str(key): value for key, value in item.items() if key != "id"}
            yield section, item["id"], body
