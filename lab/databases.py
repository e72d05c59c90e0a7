"""PostgreSQL and MariaDB of our own: private directories and sockets, unprivileged.

No TCP, except by TLS for those with an authority.
"""

import abc
import contextlib
import itertools
import pwd
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import sqlalchemy

from lab.certificates import Authority
from lab.lifetime import Lifetime
from lab.namespace import mark
from lab.process import Daemon, free_port, held, run

_POSTGRESQL = Path("/usr/lib/postgresql/15/bin")
_READY_SECONDS = 60
_numbers = itertools.count(1)


class DatabaseServer(Protocol):
    """Something that gives empty databases."""

    def new_url(self) -> str:
        """SQLAlchemy's URL of a database made for the caller."""
        ...


def _as_user(name: str, *argv: str) -> list[str]:
    # Changing the user clears the wish to end with one's parent, so it comes last.
    return [
        "setpriv",
        *(f"--reuid={name}", f"--regid={name}", "--clear-groups", "--pdeathsig", "TERM"),
        *argv,
    ]


class _Server(Lifetime):
    """One database daemon; ``user`` is the unprivileged account it runs as.

    With an ``authority`` it takes clients by TLS on 127.0.0.1, too.
    """

    user: str
    name: str
    _break_off = signal.SIGTERM

    def __init__(self, authority: Authority | None = None) -> None:
        super().__init__()
        self._authority = authority
        self.port = free_port()

    def _start(self) -> None:
        # Sockets have short names: 108 bytes hold the path.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{mark()}{self.name[:2]}-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        account = pwd.getpwnam(self.user)
        self.directory.chmod(0o711)
        for place in ("data", "run"):
            (self.directory / place).mkdir(mode=0o700)
            shutil.chown(self.directory / place, account.pw_uid, account.pw_gid)
        # Its clients may be any user.
        (self.directory / "run").chmod(0o711)
        self._initialise()
        argv = _as_user(self.user, *self._argv())
        self._daemon = Daemon(self.name, argv, self.directory / "log")
        self._stack.enter_context(self._daemon)
        self._daemon.ready(self._answers, _READY_SECONDS)

    def pause(self) -> None:
        """An outage: it ends in order, breaks off every connection and keeps its data."""
        self._daemon.end(self._break_off, _READY_SECONDS)

    def resume(self) -> None:
        """The outage is over."""
        self._daemon.start()
        self._daemon.ready(self._answers, _READY_SECONDS)

    def new_url(self) -> str:
        name = f"agent_flows_{next(_numbers)}"
        engine = sqlalchemy.create_engine(self._url(self._first), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It runs, takes connections, and answers nothing: SIGSTOP to all its processes."""
        pid = self._daemon.pid
        # In this order: a process that has stopped has no more children later.
        with held(pid):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            with held(*map(int, children)):
                yield

    def _issue(self, authority: Authority) -> tuple[Path, Path, Path]:
        """Files of key, certificate and authority, of its user."""
        account = pwd.getpwnam(self.user)
        files = []
        for file in (*authority.issue(self.name), authority.ca):
            copied = Path(shutil.copy(file, self.directory / "run"))
            copied.chmod(0o600)
            shutil.chown(copied, account.pw_uid, account.pw_gid)
            files.append(copied)
        key, certificate, ca = files
        return key, certificate, ca

    def _answers(self) -> bool:
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(str(self._socket()))
        except OSError:
            return False
        finally:
            probe.close()
        engine = sqlalchemy.create_engine(self._url(self._first))
        try:
            with engine.connect():
                return True
        except sqlalchemy.exc.OperationalError:
            return False  # it still recovers or sets up its first tables
        finally:
            engine.dispose()

    _first: str

    @abc.abstractmethod
    def _initialise(self) -> None: ...

    @abc.abstractmethod
    def _argv(self) -> list[str]: ...

    @abc.abstractmethod
    def _socket(self) -> Path: ...

    @abc.abstractmethod
    def _url(self, database: str) -> str: ...


class PostgreSQL(_Server):
    """With a ``leader`` it is that one's standby, until it takes over."""

    name, user, _first = "postgresql", "postgres", "postgres"
    # "Fast shutdown"; after SIGTERM it would wait for its clients to leave.
    _break_off = signal.SIGINT

    def __init__(
        self, authority: Authority | None = None, leader: "PostgreSQL | None" = None
    ) -> None:
        super().__init__(authority)
        self._leader = leader

    def _start(self) -> None:
        super()._start()
        if self._leader is not None:
            # What it acknowledges is on both.
            self._leader.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self._leader.execute("SELECT pg_reload_conf()")

    def take_over(self) -> None:
        """The leader is killed (kill -9); this one serves its clients, at the leader's address."""
        leader = self._leader
        if leader is None:
            raise RuntimeError("it follows no one")
        leader._daemon.kill()
        self.execute("SELECT pg_promote()")
        address = leader.directory / "run"
        address.rename(leader.directory / "dead")
        address.symlink_to(self.directory / "run")

    def execute(self, statement: str) -> None:
        engine = sqlalchemy.create_engine(self._url(self._first), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def _initialise(self) -> None:
        data = str(self.directory / "data")
        if self._leader is not None:
            backup = [str(_POSTGRESQL / "pg_basebackup"), "--checkpoint=fast", "-R", "-D", data]
            where = ["-h", str(self._leader.directory / "run"), "-p", str(self._leader._port)]
            run(_as_user(self.user, *backup, *where), timeout=120)
            return
        initdb = str(_POSTGRESQL / "initdb")
        run(
            _as_user(
                self.user, initdb, "-D", data, "-A", "trust", "-E", "UTF8", "-N", "--no-locale"
            ),
            timeout=120,
        )

    def _argv(self) -> list[str]:
        listens = ["-c", "listen_addresses="]
        if self._authority is not None:
            key, certificate, _ = self._issue(self._authority)
            listens = ["-c", "listen_addresses=127.0.0.1", "-p", str(self.port), "-c", "ssl=on"]
            listens += ["-c", f"ssl_key_file={key}", "-c", f"ssl_cert_file={certificate}"]
        return [
            str(_POSTGRESQL / "postgres"),
            *("-D", str(self.directory / "data"), "-k", str(self.directory / "run")),
            *(*listens, "-c", "fsync=off", "-c", "max_connections=200"),
            # What is being tested may lock itself out for a moment.
            *("-c", "deadlock_timeout=100ms"),
        ]

    def _socket(self) -> Path:
        return self.directory / "run" / f".s.PGSQL.{self._port}"

    def _url(self, database: str) -> str:
        where = f"host={self.directory / 'run'}&port={self._port}"
        return f"postgresql+psycopg2://postgres@/{database}?{where}"

    @property
    def _port(self) -> int:
        return 5432 if self._authority is None else self.port


class MariaDB(_Server):
    name, user, _first = "mariadb", "mysql", "mysql"

    def _initialise(self) -> None:
        install = _as_user(
            self.user,
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.directory / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
            # Two that use the same directory at a time trip over each other.
            f"--tmpdir={self.directory / 'run'}",
        )
        run(install, timeout=120)

    def _argv(self) -> list[str]:
        return [
            *("mariadbd", "--no-defaults", f"--datadir={self.directory / 'data'}"),
            *(f"--socket={self._socket()}", *self._listens(), "--skip-log-bin"),
            *(f"--pid-file={self.directory / 'run' / 'pid'}", "--max-connections=200"),
            # That of its environment may be closed to its user.
            *("--innodb-flush-log-at-trx-commit=0", f"--tmpdir={self.directory / 'run'}"),
        ]

    def _listens(self) -> list[str]:
        if self._authority is None:
            return ["--skip-networking"]
        key, certificate, ca = self._issue(self._authority)
        return [
            *("--bind-address=127.0.0.1", f"--port={self.port}"),
            *(f"--ssl-key={key}", f"--ssl-cert={certificate}", f"--ssl-ca={ca}"),
        ]

    def _socket(self) -> Path:
        return self.directory / "run" / "socket"

    def _url(self, database: str) -> str:
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self._socket()}"


class SQLite:
    """Files in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new_url(self) -> str:
        return f"sqlite:///{self._directory / f'{next(_numbers)}.sqlite'}"
