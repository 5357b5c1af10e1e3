"""Where the queue's server is, read from a URL: one server, Sentinels or a cluster's nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

FORMS: Final = (
    "unix:///path/to.sock, redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE?db=0 "
    "or redis+cluster://HOST:PORT,HOST:PORT; rediss for TLS"
)
SERVER_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
MAX_HOSTS: Final = 64

HostPort = tuple[str, int]


class Form(StrEnum):
    """What is behind the address."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are. ``password_file`` is read at every connection: a new password needs no restart.

    ``sentinel_password``: of the Sentinels themselves, where they want one.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    sentinel_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a TLS server is verified, and how we show who we are; PEM files.

    ``ca``: the authority to trust instead of the system's. ``verify`` False takes any certificate:
    whoever is in between can read everything.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A queue server. ``hosts`` is empty where ``socket`` is set; ``service`` is the Sentinels'."""

    form: Form
    hosts: tuple[HostPort, ...] = ()
    socket: Path | None = None
    service: str = ""
    db: int = 0
    login: Login = field(default_factory=Login)
    tls: Tls | None = None

    def __str__(self) -> str:
        """Return the address without any secret, for logs and errors."""
        if self.socket is not None:
            return f"unix://{self.socket}"
        scheme = "rediss" if self.tls else "redis"
        form = "" if self.form is Form.SINGLE else f"+{self.form.value}"
        hosts = ",".join(shown(one) for one in self.hosts)
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}{form}://{hosts}{service}"


def shown(place: HostPort) -> str:
    """Return a host and port as they stand in a URL."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(url: str, login: Login | None = None, tls: Tls | None = None) -> ServerAddress:
    """Read a queue's URL; ``login`` fills what the URL leaves out, ``tls`` is for rediss only.

    Raises ValueError, which never repeats the URL: a password may be in it.
    """
    parts = _split(url)
    login = login or Login()
    if parts.scheme == "unix":
        return _unix(parts, login)
    secure, form = _scheme(parts.scheme)
    user, password, places = _authority(parts.netloc)
    hosts = _hosts(places, SENTINEL_PORT if form is Form.SENTINEL else SERVER_PORT)
    if form is Form.SINGLE and len(hosts) != 1:
        raise ValueError(f"one host for one server; several are of the form {FORMS}")
    path = unquote(parts.path.strip("/"))
    query = _query(parts)
    db = query
    service = ""
    if form is Form.SENTINEL:
        service = path
        if not service:
            raise ValueError("name the Sentinels' service: redis+sentinel://HOST:PORT/SERVICE")
    elif path:
        db = _db(path)
    if form is Form.CLUSTER and db:
        raise ValueError("a cluster has only database 0")
    return ServerAddress(
        form,
        hosts,
        service=service,
        db=db,
        login=_login(user, password, login),
        tls=(tls or Tls()) if secure else None,
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        # Its own message may repeat the host part, and with it a password.
        raise ValueError(f"not a URL; the forms are {FORMS}") from None


def _scheme(scheme: str) -> tuple[bool, Form]:
    base, _, form = scheme.partition("+")
    if base not in ("redis", "rediss", "valkey", "valkeys") or form not in (
        "",
        "sentinel",
        "cluster",
    ):
        raise ValueError(f"a queue's URL is of the form {FORMS}")
    return base in ("rediss", "valkeys"), Form(form or "single")


def _unix(parts: SplitResult, login: Login) -> ServerAddress:
    user, password, _ = _authority(parts.netloc)
    path = unquote(parts.path)
    if not path:
        raise ValueError("unix:// needs the socket's absolute path: unix:///run/valkey.sock")
    return ServerAddress(
        Form.SINGLE,
        socket=Path(path),
        db=_query(parts),
        login=_login(user, password, login),
    )


def _authority(netloc: str) -> tuple[str | None, str | None, str]:
    credentials, at, places = netloc.rpartition("@")
    if not at:
        return None, None, places
    user, colon, password = credentials.partition(":")
    return unquote(user) or None, unquote(password) if colon else None, places


def _hosts(text: str, default_port: int) -> tuple[HostPort, ...]:
    places = [one.strip() for one in text.split(",") if one.strip()]
    if not 1 <= len(places) <= MAX_HOSTS:
        raise ValueError(f"name the host (at most {MAX_HOSTS}); the forms are {FORMS}")
    return tuple(_host(place, default_port) for place in places)


def _host(place: str, default_port: int) -> HostPort:
    host, port = place, ""
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in place:
        host, _, port = place.rpartition(":")
    if not host:
        raise ValueError(f"a host is missing; the forms are {FORMS}")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("a port is a number from 1 to 65535")
    return host, int(port) if port else default_port


def _query(parts: SplitResult) -> int:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    db = given.pop("db", "0")
    if given or parts.fragment:
        raise ValueError(
            "a queue's URL takes no option but db; passwords and certificates have settings"
        )
    return _db(db)


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise ValueError("a database is a number, 0 or more")
    return int(text)


def _login(user: str | None, password: str | None, login: Login) -> Login:
    own = password is not None
    return Login(
        username=user or login.username,
        password=password if own else login.password,
        password_file=None if own else login.password_file,
        sentinel_password=login.sentinel_password,
    )
