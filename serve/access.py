"""Who may ask the server, from its configuration: keys, names, sizes. A warning where anyone may."""

import ipaddress
import resource
import socket
from pathlib import Path

from common.errors import UserError
from common.progress import log
from serve.api.guard import Rules, digests
from serve.config import ServeConfig

MIB = 1 << 20
OTHER_FILES = 64
"""Descriptors for all but clients: libraries, the log, pipes."""


def rules(config: ServeConfig, address: str) -> Rules:
    """The guard's rules at the address that serve.host has become; raises UserError where the file of keys cannot be
    used."""
    keys = read_keys(config.api_keys) if config.api_keys is not None else []
    local = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    if not local and not keys:
        log(
            f"warning: serve.host {config.host} lets everyone who reaches this machine use the model; "
            "set serve.api_keys to a file of keys"
        )
    return Rules(host_names(config, local), digests(keys), config.max_body_mib * MIB, config.client_seconds)


def host_names(config: ServeConfig, local: bool) -> frozenset[str] | None:
    """On localhost a page of any site could reach us by a name of its own that resolves here; its Host tells."""
    if not local and not config.allowed_hosts:
        return None
    names = {"localhost", "127.0.0.1", "::1", config.host, *config.allowed_hosts}
    return frozenset(name.lower() for name in names)


def url_of(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/v1"


def room_for(connections: int) -> int:
    """As many of these clients as the process may have files open; its limit is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    room = max(1, soft - OTHER_FILES)
    log(f"warning: only {room} of serve.max_connections {connections} clients: this process may open {soft} files")
    return room


def read_keys(path: str) -> list[str]:
    """Keys, one a line; blank lines and those that begin with # are none. Raises UserError where there are none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "name a text file with one key a line in serve.api_keys"
        raise UserError("the API keys cannot be read", where=path, fix=fix) from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise UserError("no API key in the file", where=path, fix="write one key a line, or unset serve.api_keys")
    return keys
