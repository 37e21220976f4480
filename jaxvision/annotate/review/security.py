"""Who may talk to the review server: the browser of the one who was given its address, from its own page alone.

A page of another site can make a browser send requests to a server on this machine, under the server's own name too (DNS
rebinding). So each request must name the server by an address or a name of this machine, come from its own page if it says
where it comes from, and bring the token that only the printed address holds.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from jaxvision.errors import DataError

MOST_BYTES = 1 << 20
"""Bytes of a request's body; one of more is refused."""
LOOPBACK = frozenset({"localhost", "localhost.localdomain"})
"""Names of this machine that no DNS server can take over."""
POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)
"""Content-Security-Policy of every answer: nothing inline runs, nothing comes from elsewhere."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""Headers of every answer."""
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class Refusal(NamedTuple):
    """Answer to a request that is not let in."""

    status: int
    text: str


class Door(NamedTuple):
    """What a request must bring to be let in."""

    token: str
    cookie: str
    """Name of the cookie that holds the token; cookies know no ports, so it has the port in it."""
    names: frozenset[str] = LOOPBACK
    """Names of the server, in lower case; addresses of numbers are allowed beside them: no DNS is asked for those."""

    def refusal(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is not let in; None if it is.

        Args:
          method: of HTTP.
          path: of the address, decoded.
          query: of the address, as it was sent.
          headers: by their names in lower case.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_named(host):
            return Refusal(403, "the request names another server")
        if origin is not None and not _same(origin, host):
            return Refusal(403, "the request comes from another page")
        opens = method == "GET" and path == "/"
        if not opens and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return Refusal(403, "the request comes from another page")
        if method not in ("GET", "HEAD") and origin is None:
            return Refusal(403, "the request does not say from which page it comes")
        if not self.is_known(headers) and not (opens and self.opens(query)):
            return Refusal(403, "no token: open the address that the command printed")
        if not 0 <= _length(headers) <= MOST_BYTES:
            return Refusal(413, f"a body may have {MOST_BYTES:,} bytes")
        return None

    def is_known(self, headers: Mapping[str, str]) -> bool:
        """Whether the cookie of a request holds the token."""
        pairs = (each.strip().partition("=") for each in headers.get("cookie", "").split(";"))
        return any(name == self.cookie and self._is_token(value) for name, _, value in pairs)

    def opens(self, query: str) -> bool:
        """Whether the query of an address holds the token."""
        return any(map(self._is_token, parse_qs(query, max_num_fields=8).get("token", [])))

    def set_cookie(self) -> str:
        """The header that gives the token to the browser: no script can read it, no other site makes the browser send it."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self.token.encode())

    def _is_named(self, host: str) -> bool:
        name = _hostname(host)
        return name is not None and (name in self.names or _is_address(name))


class Guard:
    """An ASGI application behind a door; what is not let in never reaches it."""

    def __init__(self, app: App, door: Door):
        self.app, self.door = app, door

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a web socket, which the page has no use for
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        method, path, query = scope["method"], scope["path"], scope["query_string"].decode("latin-1")
        try:
            refusal = self.door.refusal(method, path, query, headers)
        except ValueError:  # an address or a header that is none
            refusal = Refusal(403, "the request can't be read")
        gives = path == "/" and refusal is None and not self.door.is_known(headers)
        sending = _with_headers(send, self.door.set_cookie() if gives else None)
        if refusal is not None:
            return await _answer(sending, refusal)
        await self.app(scope, _bounded(receive), sending)


class TooLarge(DataError):
    """A body of more bytes than are allowed, in pieces, which does not say so beforehand."""


def _bounded(receive: Receive) -> Receive:
    """The pieces of a body; raises TooLarge at the first that is too much."""
    seen = 0

    async def next_piece() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise TooLarge
        return message

    return next_piece


def _with_headers(send: Send, cookie: str | None) -> Send:
    more = [*HEADERS.items()] + ([("set-cookie", cookie)] if cookie else [])
    added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in more]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _answer(send: Send, refusal: Refusal) -> None:
    body = f"jaxvision: {refusal.text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _hostname(host: str) -> str | None:
    """The name or address in a Host header, in lower case; None where it is none."""
    parts = urlsplit(f"//{host}")
    if not host or parts.netloc != host or "@" in host or parts.path:
        return None
    _ = parts.port  # ValueError for what is no port
    return parts.hostname


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(origin: str, host: str) -> bool:
    """Whether a page's origin is the server that the request names."""
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and rest.lower() == host.lower()


def _length(headers: Mapping[str, str]) -> int:
    """Bytes that a body is said to have; -1 for what is no number."""
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdecimal() else -1
