"""The socket of the server, opened before anything slow is imported: a port that is taken is told at once."""

import socket

from coi_jax.common.errors import UserError


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
      host: the address to listen at.
      port: to listen on; 0 takes any that is free.

    Raises:
      UserError: the port is taken, this user may not listen on it, or the host is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError("--host", host, f"{getattr(error, 'strerror', None) or error}; name an address") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise UserError("--port", f"{host}:{port}", f"{error.strerror}; name another, or 0 for any") from None
    return listening
