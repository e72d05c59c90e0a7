"""Why a request is refused, besides :class:`agent_flows.validation.Invalid`."""


class NotFound(Exception):
    """There is no such resource."""

    def __init__(self, resource: str, resource_id: str) -> None:
        super().__init__(f"there is no {resource} {resource_id}")


class Conflict(Exception):
    """The request is valid, but in conflict with what exists.

    ``field`` names the field at fault, None if it is the whole resource.
    """

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


class Unavailable(Exception):
    """Something that this request needs does not answer now."""
