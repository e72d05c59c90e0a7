"""What the operator chose, from the options of ``conf`` to what works by it."""

from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.report import Step
from agent_flows.server.core.gate import Settings
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.sweeper import Limits


def of_the_gate(conf: cfg.ConfigOpts) -> Settings:
    """Raises ValueError without a required step."""
    server = conf[options.SERVER]
    return Settings(
        required_steps=frozenset(Step(step) for step in server.required_steps),
        keep_active_on_refresh_failure=server.on_refresh_failure == "keep",
    )


def of_the_agents(conf: cfg.ConfigOpts) -> Rules:
    server = conf[options.SERVER]
    return Rules(
        server.agent_down_time,
        server.max_idle_agents,
        server.agent_forget_after,
        server.strict_host_keys,
    )


def limits(conf: cfg.ConfigOpts) -> Limits:
    server = conf[options.SERVER]
    return Limits(
        interval=server.sweep_interval,
        report_timeout=server.report_timeout,
        history_attempts=server.history_attempts,
        history_failures=server.history_failures,
        history_after_delete=server.history_after_delete,
    )
