"""A client of an ASGI application without sockets: one request at a time, and the cookies that it was given."""

import asyncio
import json
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote, urlencode


class Response(NamedTuple):
    status: int
    headers: dict
    content: bytes

    def json(self):
        return json.loads(self.content)


class Client:
    def __init__(self, application, **headers):
        self.application, self.headers = application, headers

    def get(self, path, query=None, **headers):
        return self.request("GET", path + (f"?{urlencode(query)}" if query else ""), [], headers)

    def post(self, path, body, **headers):
        """`body` is JSON, text, or an iterable of bytes that are sent in pieces without saying how many they are."""
        if isinstance(body, Iterable) and not isinstance(body, str | dict):
            return self.request("POST", path, list(body), headers)
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        return self.request("POST", path, [data], {"content-length": str(len(data)), **headers})

    def request(self, method, path, body, headers):
        response = asyncio.run(self._request(method, path, body, {**self.headers, **headers}))
        if "set-cookie" in response.headers:
            self.headers["cookie"] = response.headers["set-cookie"].partition(";")[0]
        return response

    async def _request(self, method, path, body, headers):
        name, _, query = path.partition("?")
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
        scope |= {"path": unquote(name), "raw_path": name.encode(), "query_string": query.encode(), "root_path": ""}
        scope["headers"] = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        pieces = iter(body)
        left, sent = len(body), []

        async def receive():
            nonlocal left
            left -= 1
            return {"type": "http.request", "body": next(pieces, b""), "more_body": left > 0}

        async def send(message):
            sent.append(message)

        await self.application(scope, receive, send)
        start, *rest = sent
        found = {key.decode(): value.decode() for key, value in start["headers"]}
        return Response(start["status"], found, b"".join(each.get("body", b"") for each in rest))
