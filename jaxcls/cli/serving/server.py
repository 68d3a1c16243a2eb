"""Runs a service until a signal stops it."""

import asyncio
import socket
import time
from collections.abc import Callable

import uvicorn

from jaxcls._utils.errors import InputError
from jaxcls.cli.serving import app
from jaxcls.cli.serving.service import Service
from jaxcls.data.formats import images

# For requests that are being computed when the server stops.
_SECONDS_TO_STOP = 30
# For connections that are kept open between requests: a request that is on its way when one is closed would be lost.
_SECONDS_TO_CLOSE = 2
_BACKLOG = 2048


def serve(service: Service, host: str, port: int, limits: app.Limits, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; requests that have arrived are answered before it returns.

    Args:
      host: address to listen at.
      port: 0 for any free one.
      say: takes a line with the address.

    Raises:
      InputError: the address is in use, or not of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), backlog=_BACKLOG, family=family)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror or error}; give another.") from error
    with listening, images.strict_pillow():
        config = uvicorn.Config(
            app.create(service, limits),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_STOP,
        )
        shown = f"[{host}]" if ":" in host else host
        say(f"serving {service.title} at http://{shown}:{listening.getsockname()[1]} (Ctrl-C to stop)")
        Server(config).run(sockets=[listening])


class Server(uvicorn.Server):
    """Stops without losing a request: each connection is closed with an answer that says so, or when it stays idle."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        state = self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        end = time.monotonic() + _SECONDS_TO_CLOSE
        while state.connections and time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
