"""agent-flows dashboard: the status page of a cloud."""

import argparse
import os

from cliff.command import Command

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 9798


class Dashboard(Command):
    """Serve the status page of a cloud: what Neutron's API shows, with agent_flows in it.

    The user is the one of --os-cloud (clouds.yaml), of the OS_* variables, or of --os-auth-type and
    its options; a token is enough. Administrators see all of the cloud, others the ports of their
    project. The page changes nothing. Its address, which is printed, has a key: other users of this
    machine, who do not have it, do not see the page. Ctrl-C ends it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            "--os-cloud",
            metavar="NAME",
            default=os.environ.get("OS_CLOUD"),
            help="Cloud in clouds.yaml (OS_CLOUD).",
        )
        parser.add_argument(
            "--os-region-name",
            metavar="NAME",
            default=os.environ.get("OS_REGION_NAME"),
            help="Region of the cloud (OS_REGION_NAME).",
        )
        parser.add_argument(
            "--bind-host",
            metavar="ADDRESS",
            default=DEFAULT_HOST,
            help="Address to listen on (default %(default)s). The page is not encrypted.",
        )
        parser.add_argument(
            "--port",
            type=int,
            metavar="PORT",
            default=DEFAULT_PORT,
            help="TCP port to listen on, 0 for any that is free (default %(default)s).",
        )
        return parser

    def get_epilog(self) -> str:
        return (
            "examples:\n"
            "  agent-flows dashboard --os-cloud mycloud\n"
            "  OS_AUTH_TYPE=token OS_AUTH_URL=https://keystone:5000/v3 OS_TOKEN=... "
            "OS_PROJECT_NAME=admin OS_PROJECT_DOMAIN_ID=default agent-flows dashboard\n"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        # openstacksdk, falcon and waitress, which no other command needs.
        from agent_flows.dashboard import service

        client = service.connect(self.app.options, parsed_args.os_cloud, parsed_args.os_region_name)
        with service.Service(client, parsed_args.bind_host, parsed_args.port) as serving:
            self.app.stdout.write(serving.address + "\n")
            self.app.stdout.flush()
            serving.run()
        return 0
