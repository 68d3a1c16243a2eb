"""Runs a service until a signal stops it."""

import socket
from collections.abc import Callable

import uvicorn

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import images
from jaxcls.serving import app
from jaxcls.serving.service import Service

# For requests that are being computed when the server stops.
_SECONDS_TO_STOP = 30
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
        uvicorn.Server(config).run(sockets=[listening])
