"""Server of the review page: on this machine, for the one who has its address."""

import asyncio
import errno
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.annotate.previews import images_of
from jaxvision.annotate.review.desk import Desk, Missing, Outdated
from jaxvision.annotate.review.security import LOOPBACK, Door, Guard, TooLarge
from jaxvision.annotate.store import Store
from jaxvision.errors import ConfigError, DataError, UserError, WorkdirError
from jaxvision.formats.image_file import BadImage

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PORT = 8017
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Types of the files that the page is made of."""
ACTIONS = ("change", "many", "finish", "undo", "redo")
"""What a person can do, each a method of `Desk`."""

STATUS: Mapping[Any, int] = {Missing: 404, BadImage: 404, WorkdirError: 503, DataError: 400}
"""Status of an answer by the error that it tells, the first that fits."""


def check_installed() -> None:
    """Raises ConfigError if what serves the page is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigError("the review page needs starlette and uvicorn: pip install 'jaxvision[review]'") from None


def review(path: Path, *, images: Path | None, host: str, port: int, who: str, told: Callable[[str], None]) -> None:
    """Serves the page until the process is told to end. Everything that a person does is stored at once.

    Args:
      path: file of the store.
      images: folder of the images; None for the one that the store names.
      host: address or name of this machine to listen at.
      port: to listen at; 0 for any that is free.
      who: name of the person.
      told: is told the address to open, token and all, once the server listens.

    Raises:
      ConfigError: for a port in use, a host that is none of this machine, no folder of images, or a missing package.
      DataError: where there is no store.
    """
    check_installed()
    with Store(path) as store:
        folder = images_of(store, images)
        with listening(host, port) as sock:
            serve(Desk(store, folder, who), sock, host, told)


def serve(desk: Desk, sock: socket.socket, host: str, told: Callable[[str], None]) -> None:
    """Answers at a socket that listens, until the process is told to end."""
    import uvicorn

    port = sock.getsockname()[1]
    door = Door(secrets.token_urlsafe(32), f"jaxvision-{port}", names_of(host))
    options: dict[str, Any] = {"http": "h11", "ws": "none", "lifespan": "off", "access_log": False}
    options |= {"log_level": "warning", "log_config": None, "server_header": False, "proxy_headers": False}
    options |= {"timeout_graceful_shutdown": 3, "limit_concurrency": 64}
    told(address(host, port, door.token))
    uvicorn.Server(uvicorn.Config(application(desk, door), **options)).run(sockets=[sock])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      ConfigError: for a port in use, or a host that is none of this machine.
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"--host={host}: {error.strerror or error}") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(where)
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is in use; --port=0 takes one that is free") from None
        raise ConfigError(f"port {port} of {host} can't be listened at: {error.strerror or error}") from None
    return sock


def names_of(host: str) -> frozenset[str]:
    """Names under which the server is reached; addresses of numbers need none."""
    return LOOPBACK if is_loopback(host) else LOOPBACK | {host.lower(), socket.gethostname().lower()}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK


def address(host: str, port: int, token: str) -> str:
    """The address to open."""
    everywhere = host in ("0.0.0.0", "::", "")
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/?token={token}"


def application(desk: Desk, door: Door) -> Guard:
    """The server as an ASGI application, behind its door."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    storing, seeing = ThreadPoolExecutor(1, "store"), ThreadPoolExecutor(2, "pictures")
    routes = [
        Route("/", _static),
        Route("/static/{name}", _static),
        Route("/image/{number:int}", _picture(seeing, desk)),
        Route("/api/session", _asked(storing, lambda request: desk.session())),
        Route("/api/queue", _asked(storing, lambda request: desk.queue(request.query_params))),
        Route("/api/record/{number:int}", _asked(storing, lambda request: desk.record(request.path_params["number"]))),
        Route("/api/file/{number:int}", _asked(seeing, lambda request: desk.file(request.path_params["number"]))),
        *(Route(f"/api/{action}", _done(storing, desk, action), methods=["POST"]) for action in ACTIONS),
    ]
    return Guard(Starlette(routes=routes), door)  # pyright: ignore[reportArgumentType]


async def _run(pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def _asked(pool: ThreadPoolExecutor, function: Callable[["Request"], Any]) -> Callable:
    """The endpoint that answers with what the function, in a thread of the pool, says of a request."""

    async def answer(request: "Request") -> "Response":
        try:
            return _json(await _run(pool, function, request))
        except UserError as error:
            return _failure(error)

    return answer


def _done(pool: ThreadPoolExecutor, desk: Desk, action: str) -> Callable:
    """The endpoint of an action, of which the body of the request says more."""

    async def answer(request: "Request") -> "Response":
        try:
            return _json(await _run(pool, desk.once, action, _body(await request.body())))
        except TooLarge:
            return _json({"error": "the body is too large"}, 413)
        except UserError as error:
            return _failure(error)

    return answer


def _picture(pool: ThreadPoolExecutor, desk: Desk) -> Callable:
    """The endpoint of the images."""
    from starlette.responses import Response

    async def answer(request: "Request") -> "Response":
        try:
            found, version = await _run(pool, desk.picture, request.path_params["number"])
        except UserError as error:
            return _failure(error)
        kept = "private, max-age=31536000, immutable" if request.query_params.get("v") == version else "no-store"
        return Response(found.data, headers={"content-type": found.type, "cache-control": kept})

    return answer


async def _static(request: "Request") -> "Response":
    """A file that the page is made of."""
    from starlette.responses import Response

    name = request.path_params.get("name", "page.html")
    file = files("jaxvision.annotate.review") / "static" / name
    suffix = Path(name).suffix
    if suffix not in TYPES or "/" in name or "\\" in name or not file.is_file():
        return _json({"error": "there is no such file"}, 404)
    headers = {"content-type": f"{TYPES[suffix]}; charset=utf-8", "cache-control": "no-store"}
    return Response(file.read_bytes(), headers=headers)


def _body(data: bytes) -> dict[str, Any]:
    """What the page sends. Raises DataError for anything but a JSON object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError("the body is no JSON") from None
    if not isinstance(found, dict):
        raise DataError("the body is no JSON object")
    return found


def _json(answer: dict[str, Any], status: int = 200) -> "Response":
    from starlette.responses import Response

    data = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    headers = {"content-type": "application/json; charset=utf-8", "cache-control": "no-store"}
    return Response(data, status, headers=headers)


def _failure(error: UserError) -> "Response":
    """What the page is told of an error: 409 for what has changed meanwhile, with the record as it is now.

    503 says that the action was right, but the store can't be used now: the page sends it again.
    """
    if isinstance(error, Outdated):
        return _json({"error": str(error), "record": error.record}, 409)
    for error_type, status in STATUS.items():
        if isinstance(error, error_type):
            return _json({"error": str(error)}, status)
    return _json({"error": str(error)}, 500)
