"""Why a request cannot be done, beside :class:`agent_flows.validation.Invalid`."""


class NotFound(Exception):
    """There is no such resource."""

    def __init__(self, resource: str, resource_id: str) -> None:
        super().__init__(f"there is no {resource} {resource_id}")


class Conflict(Exception):
    """The request is sound, but what is there stands against it.

    ``field`` names the field at fault, None if it is the resource as such.
    """

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


class Unavailable(Exception):
    """Something this request needs does not answer at the moment."""
