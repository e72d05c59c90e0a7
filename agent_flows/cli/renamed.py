"""The names that the ``openstack`` commands had before, for one more release."""

import argparse
from typing import Any, ClassVar

from agent_flows.cli import agent, port, task
from agent_flows.cli.api_command import ApiCommand


# Without a docstring: the description of a command is that of its class.
class _Renamed(ApiCommand):
    new_name: ClassVar[str]
    # cliff leaves it out of the list of commands.
    deprecated = True

    def get_description(self) -> str:
        return f"Deprecated: use openstack {self.new_name}.\n\n{super().get_description()}"

    def run(self, parsed_args: argparse.Namespace) -> Any:
        self.say(f"This name is deprecated: use openstack {self.new_name}")
        return super().run(parsed_args)


class ListTasks(_Renamed, task.ListTasks):
    new_name = "network port task list"


class ShowTask(_Renamed, task.ShowTask):
    new_name = "network port task show"


class ListPorts(_Renamed, port.ListPorts):
    new_name = "network port sync list"


class ShowPort(_Renamed, port.ShowPort):
    new_name = "network port sync show"


class WaitForPort(_Renamed, port.WaitForPort):
    new_name = "network port sync wait"


class ResyncPorts(_Renamed, port.ResyncPorts):
    new_name = "network port resync"


class ListHosts(_Renamed, agent.ListAgents):
    new_name = "network agent sync list"


class ShowHost(_Renamed, agent.ShowAgent):
    new_name = "network agent sync show"
