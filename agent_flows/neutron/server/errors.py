"""Why a request cannot be done, as Neutron's exceptions, each with its HTTP status."""

from neutron_lib import exceptions


class TaskNotFound(exceptions.NotFound):  # type: ignore[misc]
    message = "Task %(task_id)s could not be found."


class ProblemNotFound(exceptions.NotFound):  # type: ignore[misc]
    message = "Problem %(problem_id)s could not be found; it may be solved."


class HostNotFound(exceptions.NotFound):  # type: ignore[misc]
    message = "No agent with agent_flows was ever seen on host %(host)s."


class NotLookedAfter(exceptions.Conflict):  # type: ignore[misc]
    """The port is not bound to a host whose agent has our extension."""

    message = "Port %(port_id)s is not bound to a host with agent_flows."


class AgentNotTold(exceptions.ServiceUnavailable):  # type: ignore[misc]
    message = "The request could not be sent to the agent of host %(host)s: %(reason)s"
