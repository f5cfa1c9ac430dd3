"""Reading one file from an http(s) address: bounded in size and time, and never another scheme."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO

from tinyseg.arguments import is_url
from tinyseg.errors import DataError
from tinyseg.version import __version__

MAX_BYTES = 64 << 20
SILENCE_SECONDS = 10.0  # without a byte from the server
TOTAL_SECONDS = 60.0
CHUNK_BYTES = 1 << 16


def fetch(url: str) -> bytes:
    """The bytes at an http(s) address: at most 64 MiB in 60 s. Redirects are followed to http(s) only. Raises DataError."""
    if not is_url(url):
        raise DataError(f"{url} is no http or https address")
    try:
        urllib.parse.urlsplit(url)
    except ValueError as exc:
        raise DataError(f"{url} cannot be read: {exc}") from exc
    request = urllib.request.Request(
        url, headers={"User-Agent": f"tinyseg/{__version__}", "Accept": "image/*, */*;q=0.1"}
    )
    # Proxies are the environment's; file, ftp and data addresses have no handler here.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(), _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    start = time.monotonic()
    data = bytearray()
    try:
        with opener.open(request, timeout=SILENCE_SECONDS) as response:
            while chunk := response.read(CHUNK_BYTES):
                data += chunk
                if len(data) > MAX_BYTES:
                    raise DataError(
                        f"{url} is larger than {MAX_BYTES >> 20} MiB; download it yourself and give the file"
                    )
                if time.monotonic() - start > TOTAL_SECONDS:
                    raise DataError(f"{url} did not arrive within {TOTAL_SECONDS:.0f} s; download it and give the file")
            stated = response.headers.get("Content-Length")
            if stated is not None and stated.isdigit() and len(data) < int(stated):  # read() does not tell
                raise DataError(f"{url} cannot be read: the server sent {len(data)} of {stated} bytes; try again")
    except urllib.error.HTTPError as exc:
        exc.close()
        raise DataError(f"{url} cannot be read: the server answered {exc.code} {exc.reason}") from exc
    except (OSError, HTTPException, ValueError) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        raise DataError(f"{url} cannot be read: {reason}") from exc
    return bytes(data)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not is_url(newurl):
            raise DataError(f"{req.full_url} leads to {newurl:.80}, which is no http or https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
