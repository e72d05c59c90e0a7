"""The one place where the server's time comes from."""

import datetime


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
