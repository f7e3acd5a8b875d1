"""What runs on the lab's machines: web servers that answer with their name, mail servers, UDP echo. Each is its own process.

The web server is nginx where it is installed, else a small one of ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any, NoReturn

import h11

from relevo.host import libc

_NGINX = """
{user} daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; default_type text/plain;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen {address}:{port}; location / {{ return 200 "{name}\\n"; }} }}
}}
"""


def nginx() -> str | None:
    """Path of nginx, if it is installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


def serve(kind: str, name: str, address: str, port: int, folder: Path) -> NoReturn:
    """Run the server in a forked child inside its machine; never returns. ``folder`` is for its files alone."""
    libc.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    binary = nginx() if kind == "http" else None
    if binary is not None:
        file = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # a user namespace has no other user
        file.write_text(_NGINX.format(user=user, folder=folder, address=address, port=port, name=name))
        os.execv(binary, [binary, "-e", str(folder / "error.log"), "-c", str(file)])
    work = {"http": _web, "smtp": _mail, "inbox": _mail, "udp": _echo}[kind]
    asyncio.run(work(name, address, port, folder))
    os._exit(0)


def _listener(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.setblocking(False)
    return sock


async def _web(name: str, address: str, port: int, folder: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = f"{name}\n".encode()
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65_536))
                elif isinstance(event, h11.EndOfMessage):
                    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
                    for part in (h11.Response(status_code=200, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                        writer.write(connection.send(part) or b"")
                    await writer.drain()
                    if connection.our_state is h11.MUST_CLOSE:
                        return
                    connection.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except (OSError, h11.ProtocolError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, sock=_listener(address, port), backlog=1024)
    await server.serve_forever()


class _Inbox:
    """Writes each received mail as a line of JSON."""

    def __init__(self, file: Path, name: str) -> None:
        self._file = file
        self._name = name

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's hook
        record = {
            "at": time.time(),
            "server": self._name,
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "text": envelope.content.decode("utf-8", "replace"),
        }
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return "250 Message accepted for delivery"


async def _mail(name: str, address: str, port: int, folder: Path) -> None:
    from aiosmtpd.smtp import SMTP

    logging.disable()  # aiosmtpd logs every unusual command, and health checks send some
    inbox = _Inbox(folder / "inbox.jsonl", name)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, hostname=name, ident="Relevo lab"), sock=_listener(address, port))
    await server.serve_forever()


async def _echo(name: str, address: str, port: int, folder: Path) -> None:
    sock = _listener(address, port, socket.SOCK_DGRAM)
    loop = asyncio.get_running_loop()
    while True:
        data, client = await loop.sock_recvfrom(sock, 65_535)
        await loop.sock_sendto(sock, f"{name} ".encode() + data, client)


def inbox_records(folder: Path) -> list[dict[str, Any]]:
    """Return the mails that the server with this ``folder`` received."""
    try:
        with open(folder / "inbox.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []
