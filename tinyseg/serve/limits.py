"""How much a stranger may ask for. Everything that grows has its limit here."""

from __future__ import annotations

BODY_BYTES = 16 << 20  # of a request: an uploaded photograph in base64
OPEN_BODY_BYTES = 64 << 10  # of a request that needs no token: the token itself
MESSAGE_BYTES = 64 << 10  # of a websocket message
UPLOAD_PIXELS = 32_000_000  # of an uploaded picture, before anything of it is decoded
UPLOAD_PROMPTS = 64  # in one request
UPLOADS_WAITING = 4  # pictures that wait for the engine; more are told to come back

OBJECTS = 32  # followed at once
POINTS = 64  # of one object in one frame
NAME_LETTERS = 80
COORDINATE = 16384  # largest one that any frame has

VIEWERS = 32  # streams and websockets, each
ACTIONS_WAITING = 256  # that were asked for and not done yet
ACTION_SECONDS = 30.0  # after which who asked is told that nothing happened; compiling a graph may take a while

# A client address: a bucket of so many requests, refilled at this rate.
REQUESTS_BURST, REQUESTS_PER_SECOND = 120, 40.0
MESSAGES_BURST, MESSAGES_PER_SECOND = 120, 60.0
WRONG_TOKENS_BURST, WRONG_TOKENS_PER_SECOND = 10, 1 / 6
ADDRESSES = 4096  # whose buckets are remembered

SEND_SECONDS = 10.0  # a viewer that takes nothing for so long is let go
KEEP_ALIVE_SECONDS = 5.0  # a picture that does not change is sent again after this
SOCKET_BYTES = 256 << 10  # the kernel queues no more for a viewer: what waits there is old when it arrives

FRAMES_KEPT = 8  # the newest ones, so that a click means the picture that was clicked
RECORDED_BYTES = 1 << 30  # of one recording
RECORDINGS = 8
DISK_RESERVE_BYTES = 256 << 20  # what recordings leave free
