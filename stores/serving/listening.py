"""Listening on an address, and running a web application on it."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Callable


def listen(host: str = "127.0.0.1", port: int = 5000) -> socket.socket:
    """
    Open a listening socket. Port 0 stands for any free port.

    Raises
    ------
    MatrisError
        If the address is in use or does not belong to this machine.

    Examples
    --------
    >>> with listen(port=0) as listener:
    ...     host, port = listener.getsockname()
    >>> host, port > 0
    ('127.0.0.1', True)
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise MatrisError(f"cannot listen on {host}, port {port}: {error}") from error


def address_of(listener: socket.socket) -> str:
    """
    Write the address of a listening socket for a browser.

    Examples
    --------
    >>> with listen(port=0) as listener:
    ...     address_of(listener).rpartition(":")[0]
    'http://127.0.0.1'
    """
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """
    Tell whether only programs of this machine reach an address.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("cluster.example.org")
    (True, True, False, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(app: Callable[..., Any], listener: socket.socket) -> None:
    """
    Serve a web application until the process is interrupted.

    Parameters
    ----------
    app
        An ASGI application.
    listener
        Socket to accept connections on, see `listen`.
    """
    import uvicorn

    with suppress(KeyboardInterrupt):  # uvicorn has shut down by then
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
