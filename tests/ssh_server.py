"""A login node for tests: ssh with commands and files, on a port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "open"  # noqa: S105 - of nobody's account


class _Login(paramiko.ServerInterface):
    """Whoever knows the password may run commands."""

    def check_auth_password(self, _username, password):
        return paramiko.AUTH_SUCCESSFUL if password == PASSWORD else paramiko.AUTH_FAILED

    def get_allowed_auths(self, _username):
        return "password"

    def check_channel_request(self, _kind, _chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=_execute, args=(channel, command.decode()), daemon=True).start()
        return True


def _execute(channel, command):
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    channel.sendall(done.stdout)
    channel.sendall_stderr(done.stderr)
    channel.send_exit_status(done.returncode)
    channel.close()


class _Files(paramiko.SFTPServerInterface):
    """The files of this machine."""

    def stat(self, path):
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path, flags, _attr):
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle = paramiko.SFTPHandle(flags)
        mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[flags & os.O_ACCMODE]
        handle.readfile = handle.writefile = os.fdopen(descriptor, mode)
        return handle

    def remove(self, path):
        Path(path).unlink()
        return paramiko.SFTP_OK

    def chattr(self, _path, _attr):
        return paramiko.SFTP_OK


@contextmanager
def login_node() -> Iterator[int]:
    """Give the port."""
    key = paramiko.RSAKey.generate(2048)
    transports = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(client)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
                transport.start_server(server=_Login())
                transports.append(transport)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
    for transport in transports:
        transport.close()
