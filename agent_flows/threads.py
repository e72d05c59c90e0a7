"""Has oslo.service use threads where it would use eventlet."""

import importlib.metadata
import sys

from oslo_service import backend

# oslo.service 4.1, which Neutron 26 runs with, has eventlet only.
_HAS_THREADS = hasattr(backend, "register_backend_default_hook")


def prefer() -> None:
    """Make threads the backend that oslo.service takes if it is asked before one was chosen.

    oslo.messaging asks as soon as it is imported. Nothing is changed where
    oslo.service has no threads, nor in a process whose threads are eventlet's
    (Neutron 26's).
    """
    patcher = sys.modules.get("eventlet.patcher")
    if _HAS_THREADS and not (patcher and patcher.is_monkey_patched("thread")):
        backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)


def use(prog: str) -> None:
    """Choose threads, in the process of ``prog``, which cannot run without them.

    Raises :class:`SystemExit` with one line if oslo.service has none.
    """
    if not _HAS_THREADS:
        version = importlib.metadata.version("oslo.service")
        raise SystemExit(
            f"{prog}: needs oslo.service 4.2 or newer (the extra 'standalone'), here is {version}; "
            "install agent_flows into an environment of its own"
        )
    backend.init_backend(backend.BackendType.THREADING)
