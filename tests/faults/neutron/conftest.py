"""The stage of this folder: a live Neutron."""

import pytest

from tests.faults.any_stage import AnyStage
from tests.faults.neutron.stage import NeutronStage


@pytest.fixture
def stage_class() -> type[AnyStage]:
    return NeutronStage
