"""The HTTP side of the page: routes, and who may use them."""

import asyncio
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pudistill.exceptions import InputError
from pudistill.review.filters import SCOPES, Filter

if TYPE_CHECKING:
    from pudistill.review.session import ReviewSession

COOKIE = "pudistill-review"  # a port follows: browsers send cookies to all ports of a host
LARGEST_REQUEST = 2**20  # bytes
SECONDS_AFTER_WRONG_PASSWORD = 1.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_FORBIDDEN = (
    "This page belongs to another browser or to an earlier start of pudistill review: open the "
    "address that the command printed."
)


class Access:
    """Who may use the page: browsers that came with the token, or that know the password.

    Parameters
    ----------
    hosts : set of str
        Values of the header ``Host`` that are answered; empty: all, if there is a password.
    port : int
        The port, for the name of the cookie.
    password : str, optional
        The password; without it, only the token opens the page.
    """

    def __init__(self, hosts: set[str], port: int, password: str | None = None) -> None:
        self.hosts, self.password = hosts, password
        self.token, self._secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.cookie = f"{COOKIE}-{port}"
        self._one_try_at_a_time = asyncio.Lock()

    def knows(self, request: Request) -> bool:
        """Whether a request has the cookie."""
        return _same(request.cookies.get(self.cookie, ""), self._secret)

    def opens(self, token: str) -> bool:
        """Whether a token is the right one; if there is a password, none is."""
        return self.password is None and _same(token, self.token)

    async def is_password(self, password: str) -> bool:
        """Whether a password is the right one; a wrong one takes a second."""
        async with self._one_try_at_a_time:
            if self.password is not None and _same(password, self.password):
                return True
            await asyncio.sleep(SECONDS_AFTER_WRONG_PASSWORD)
            return False

    def admit(self, response: Response) -> Response:
        """Give a browser the cookie."""
        response.set_cookie(self.cookie, self._secret, httponly=True, samesite="strict", path="/")
        return response

    def refusal(self, request: Request) -> str | None:
        """Return why a request is not answered at all: another site may have sent it."""
        host = request.headers.get("host", "")
        if self.hosts and host not in self.hosts:
            return f"This server is not called {host!r:.200}: open the address that it printed."
        origin = request.headers.get("origin")
        if origin != f"http://{host}" and (origin is not None or request.method != "GET"):
            return "Another site sent this request, and it was not answered."
        if request.headers.get("sec-fetch-site") == "cross-site" and request.url.path != "/":
            return "Another site sent this request, and it was not answered."
        return None


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


class _Guard:
    """Checks every request, and adds the headers that protect the page."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                for name, value in _HEADERS.items():
                    if name.lower().encode() not in names:
                        message["headers"].append((name.lower().encode(), value.encode()))
            await send(message)

        answer = self._answer(Request(scope)) or self.app
        await answer(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> ASGIApp | None:
        """Return the answer to a request that does not reach the routes."""
        if reason := self.access.refusal(request):
            return PlainTextResponse(reason, 403)
        path = request.url.path
        if path in ("/", "/login") or path.startswith("/static/"):  # they check for themselves
            return None
        if not self.access.knows(request):
            return JSONResponse({"error": _FORBIDDEN}, 403)
        return None


def make_app(
    wait_for_session: "Callable[[], Awaitable[ReviewSession]]",
    access: Access,
    on_change: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the application.

    Parameters
    ----------
    wait_for_session : coroutine function
        Returns the session, as soon as the run is read.
    access : Access
        Who may use it.
    on_change : callable
        Called after each decision.

    Returns
    -------
    app : Starlette
    """
    routes = _Routes(wait_for_session, access, on_change)
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/login", routes.login, methods=["POST"]),
            Route("/api/about", routes.about),
            Route("/api/promises", routes.promises),
            Route("/api/next", routes.take, methods=["POST"]),
            Route("/api/decide", routes.decide, methods=["POST"]),
            Route("/api/undo", routes.undo, methods=["POST"]),
            Route("/api/grid", routes.grid, methods=["POST"]),
            Route("/api/keep", routes.keep, methods=["POST"]),
            Route("/api/more", routes.more, methods=["POST"]),
            Route("/api/suggestion/{row:int}", routes.suggestion),
            Route("/picture/{row:int}", routes.picture),
            Route("/text/{row:int}", routes.text),
            Mount("/static", StaticFiles(packages=[("pudistill.review", "static")])),
        ],
        middleware=[Middleware(_Guard, access=access)],
        exception_handlers={InputError: _refused, OSError: _failed},
    )


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409)


async def _failed(_: Request, error: Exception) -> Response:
    reason = getattr(error, "strerror", None) or error
    where = getattr(error, "filename", None) or "A file"
    return JSONResponse({"error": f"{where}: {reason}. Nothing was decided."}, 500)


class _Routes:
    """The routes; each answers with what the session says."""

    def __init__(
        self,
        wait_for_session: "Callable[[], Awaitable[ReviewSession]]",
        access: Access,
        on_change: Callable[[], None],
    ) -> None:
        self._session, self._access, self._on_change = wait_for_session, access, on_change
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("pudistill.review"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        self._one_promise = asyncio.Lock()

    async def page(self, request: Request) -> Response:
        """Return the page, or where to log in."""
        access = self._access
        if access.knows(request) or access.opens(request.query_params.get("token", "")):
            return access.admit(HTMLResponse(self._templates.get_template("page.html").render()))
        if access.password is not None:
            return HTMLResponse(self._templates.get_template("login.html").render())
        page = self._templates.get_template("forbidden.html").render(sentence=_FORBIDDEN)
        return HTMLResponse(page, 403)

    async def login(self, request: Request) -> Response:
        """Admit who knows the password."""
        asked = await _content(request)
        if await self._access.is_password(str(asked.get("password", ""))):
            return self._access.admit(JSONResponse({}))
        return JSONResponse({"error": "This is not the password."}, 403)

    async def about(self, _: Request) -> Response:
        """Return what the page has to know first."""
        session = await self._session()
        return JSONResponse(session.about())

    async def take(self, request: Request) -> Response:
        """Return the next sample."""
        asked, session = await _content(request), await self._session()
        return await self._next(session, asked)

    async def _next(self, session: "ReviewSession", asked: dict[str, Any]) -> Response:
        def work() -> dict[str, Any]:
            found = session.take(asked["page"], asked["who"], asked["scope"], _filter(asked))
            sample = session.show(found[0]) if found else None
            return {"sample": sample, "progress": session.progress()}

        return JSONResponse(await run_in_threadpool(work))

    async def decide(self, request: Request) -> Response:
        """Write a decision, and return the next sample."""
        asked, session = await _content(request), await self._session()
        rows = _rows(asked)
        if not rows:
            raise InputError("The page sent no samples: load it again.")
        label = asked.get("label")
        await run_in_threadpool(
            session.decide,
            rows,
            str(asked.get("action")),
            label if isinstance(label, str) else None,
            asked["who"],
            asked["session"],
            page=asked["page"],
            saw=bool(asked.get("saw")),
        )
        self._on_change()
        if asked.get("many"):
            return JSONResponse({"progress": await run_in_threadpool(session.progress)})
        return await self._next(session, asked)

    async def undo(self, request: Request) -> Response:
        """Take the last decision back, and return its sample."""
        asked, session = await _content(request), await self._session()

        def work() -> dict[str, Any]:
            entry = session.undo(asked["session"], asked["who"], asked["page"])
            sample = None if entry is None else session.show(entry)
            return {"sample": sample, "progress": session.progress()}

        result = await run_in_threadpool(work)
        self._on_change()
        return JSONResponse(result)

    async def grid(self, request: Request) -> Response:
        """Return many samples."""
        asked, session = await _content(request), await self._session()

        def work() -> dict[str, Any]:
            sheet = asked.get("sheet")
            sheet = sheet if type(sheet) is int and sheet >= 0 else 0
            found = session.grid(asked["page"], asked["who"], asked["scope"], _filter(asked), sheet)
            return found | {"progress": session.progress()}

        return JSONResponse(await run_in_threadpool(work))

    async def keep(self, request: Request) -> Response:
        """Keep the samples of a page from others; without samples, give all of them up."""
        asked, session = await _content(request), await self._session()
        kept = await run_in_threadpool(session.keep, asked["page"], _rows(asked))
        return JSONResponse({"kept": kept})

    async def more(self, request: Request) -> Response:
        """Go on with another queue."""
        asked, session = await _content(request), await self._session()
        await run_in_threadpool(session.more)
        return await self._next(session, asked)

    async def suggestion(self, request: Request) -> Response:
        """Return the corrected label of a sample."""
        session = await self._session()
        return JSONResponse(session.suggestion(_row(request, session)))

    async def picture(self, request: Request) -> Response:
        """Return the picture of a sample."""
        session = await self._session()
        row = _row(request, session)

        def work() -> bytes:
            samples = session.samples
            if samples.kind != "picture":
                raise InputError("The samples of this run are no pictures.")
            return samples.picture(row)

        content = await run_in_threadpool(work)
        kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
        kept = {"Cache-Control": "private, max-age=3600"}
        return Response(content, media_type=kind, headers=kept)

    async def text(self, request: Request) -> Response:
        """Return the whole text of a sample."""
        session = await self._session()
        row = _row(request, session)
        samples = await run_in_threadpool(lambda: session.samples)
        if samples.kind != "text":
            raise InputError("The samples of this run are no texts.")
        return PlainTextResponse(samples.text(row).encode("utf-8", "replace"))

    async def promises(self, _: Request) -> Response:
        """Return what is promised now."""
        session = await self._session()
        async with self._one_promise:
            return JSONResponse({"promises": await run_in_threadpool(_promised, session)})


def _promised(session: "ReviewSession") -> dict[str, Any]:
    from pudistill.review.promised import as_rows

    try:
        return as_rows(session.promises())
    except InputError as error:
        return {"rows": [], "note": str(error)}


async def _content(request: Request) -> dict[str, Any]:
    """Return the JSON of a request, with names of session and reviewer, and the scope."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_REQUEST:
            raise InputError("The page sent more than it should: load it again.")
    try:
        asked = json.loads(content)
        if not isinstance(asked, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"The page sent no JSON ({error}): load it again.") from error
    scope = asked.get("scope")
    return (
        asked
        | {
            "session": str(asked.get("session", ""))[:64],  # of a tab, also after a reload
            "page": str(asked.get("page", ""))[:64],  # until a reload
            "who": str(asked.get("who", "")).strip()[:100],
            "scope": scope if scope in SCOPES else SCOPES[0],
        }
    )


def _rows(asked: dict[str, Any]) -> list[int]:
    rows = asked.get("rows")
    if not isinstance(rows, list) or not all(type(row) is int for row in rows):
        raise InputError("The page sent no rows of samples: load it again.")
    return rows


def _filter(asked: dict[str, Any]) -> Filter:
    """Return the filter that a page asks for; what is of another type is left out."""
    wanted = asked.get("filter")
    wanted = wanted if isinstance(wanted, dict) else {}
    kept: dict[str, Any] = {}
    for name, default in asdict(Filter()).items():
        value = wanted.get(name)
        kinds: tuple[type, ...] = (str,)
        if name in ("low", "high"):
            kinds = (int, float)
        elif name == "changed":
            kinds = (bool,)
        kept[name] = value if type(value) in kinds else default
    return Filter(**kept)


def _row(request: Request, session: "ReviewSession") -> int:
    row = int(request.path_params["row"])
    if row >= len(session.table):
        raise InputError(f"The run has no sample {row + 1:,}: load the page again.")
    return row
