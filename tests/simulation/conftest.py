"""A search by ``--examples`` takes as long as it takes."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--examples", default=None):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
