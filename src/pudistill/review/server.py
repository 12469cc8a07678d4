"""Starts the page, and stops it."""

import asyncio
import errno
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from pudistill.exceptions import InputError
from pudistill.review.app import Access, make_app

if TYPE_CHECKING:
    from pudistill.review.session import ReviewSession

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_PASSWORD = 8  # characters
SECONDS_OF_A_THREAD = 0.0005
SECONDS_BETWEEN_TABLES = 1.0  # of verified labels, which are written when something has changed


class ReviewServer:
    """A server of the page of one run.

    Parameters
    ----------
    open_session : callable
        Returns the session; it is called in a thread, while the page is already there.
    host : str, default="127.0.0.1"
        Address to listen at; any but that of this machine itself needs a password.
    port : int, default=0
        Port; 0: any that is free.
    password : str, optional
        Password of the page.

    Raises
    ------
    InputError
        If the port is in use, or a password is missing or too short.
    """

    def __init__(
        self,
        open_session: "Callable[[], ReviewSession]",
        host: str = LOOPBACK[0],
        port: int = 0,
        password: str | None = None,
    ) -> None:
        if password is None and host not in LOOPBACK:
            raise InputError(
                f"--host {host} opens the page to other machines: give it a password, with "
                "--password or in PUDISTILL_REVIEW_PASSWORD."
            )
        if password is not None and len(password) < SHORTEST_PASSWORD:
            raise InputError(f"The password is shorter than {SHORTEST_PASSWORD} characters.")
        self._open_session = open_session
        self._socket = _bind(host, port)
        self.port = int(self._socket.getsockname()[1])
        names = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._access = Access(names if host in LOOPBACK else set(), self.port, password)
        shown_host = f"[{host}]" if ":" in host else host
        if host in ("0.0.0.0", "::"):  # all addresses of this machine
            shown_host = socket.gethostname()
        self.address = f"http://{shown_host}:{self.port}/"
        self.session: ReviewSession | None = None
        self._is_open, self._changed = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        app = make_app(self._wait_for_session, self._access, self._changed.set)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="critical",  # requests that wait when the command ends are no errors
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )

    @property
    def url(self) -> str:
        """The address that opens the page; with the token, unless a password opens it."""
        has_password = self._access.password is not None
        return self.address if has_password else f"{self.address}?token={self._access.token}"

    def run(self) -> None:
        """Serve until an interruption; then write the verified labels.

        Raises
        ------
        InputError
            If run or data cannot be read.
        """
        # Keys are answered while another thread reads data, or computes what is promised.
        sys.setswitchinterval(SECONDS_OF_A_THREAD)
        for work in (self._load, self._write_tables):
            threading.Thread(target=work, daemon=True).start()
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            pass
        finally:
            self._socket.close()
        if self.session is not None:
            self.session.write_trusted()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the error that ended the serving, if there was one."""
        if self._error is not None:
            raise self._error

    @property
    def is_done(self) -> bool:
        """Whether all samples of the open session are decided."""
        return self.session is not None and self.session.progress()["n_open"] == 0

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True

    def close_session(self) -> None:
        """Let pages wait until another session is opened."""
        self._is_open.clear()
        if self.session is not None:
            self.session.write_trusted()
        self.session = None

    def open_session(self, open_session: "Callable[[], ReviewSession]") -> None:
        """Open another session, for pages that wait."""
        self._open_session = open_session
        self._load()

    def _load(self) -> None:
        """Read the run, then its data; an error stops the server."""
        try:
            self.session = self._open_session()
            self.session.write_trusted()
            self._is_open.set()
            self.session.load_samples()
        except BaseException as error:  # raised again in `run`
            self._error = error
            self.stop()

    async def _wait_for_session(self) -> "ReviewSession":
        while not self._is_open.is_set():
            if self._server.should_exit:
                raise InputError("The command has ended: its terminal says what was found.")
            await asyncio.sleep(0.01)
        assert self.session is not None
        return self.session

    def _write_tables(self) -> None:
        """Write the verified labels whenever some were added, but not after each key."""
        while True:
            self._changed.wait()
            self._changed.clear()
            session = self.session  # another thread can close it
            if session is not None:
                with suppress(OSError):  # written again after the next decision, and at the end
                    session.write_trusted()
            time.sleep(SECONDS_BETWEEN_TABLES)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(
            family, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )  # asyncio sets TCP_NODELAY
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen(64)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"Port {port} is in use: choose another --port, or leave it out to get a free one."
            ) from None
        reason = error.strerror or error
        raise InputError(f"Cannot listen at {host}, port {port} ({reason}).") from error
    return bound
