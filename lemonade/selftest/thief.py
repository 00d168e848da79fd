"""Another program at an engine's port: it answers everything, and wrongly.

It stands for what may happen on any machine between the moment a port is found free and the moment
an engine takes it, or after an engine has died.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Final, Self

_TAKES_WITHIN: Final = 1.0
_ANSWER: Final = b'{"status": "ok", "choices": [{"message": {"content": "stolen"}}]}'


class Thief:
    """Listens on a port of the loopback from `__enter__` to `__exit__`, if it can have it.

    Attributes:
        listens: whether it got the port.
        asked: the requests for answers that came to it; probes are none.
    """

    def __init__(self, port: int) -> None:
        self.listens = False
        self.asked: list[str] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port = port
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        limit = time.monotonic() + _TAKES_WITHIN
        while not self.listens and time.monotonic() < limit:
            try:
                self._listener.bind(("127.0.0.1", self._port))
                self._listener.listen()
                self.listens = True
                self._thread.start()
            except OSError:  # the engine has it still
                time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        if self.listens:
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes who waits in accept
            self._thread.join(1.0)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(_TAKES_WITHIN)
        with client:
            try:
                head = client.recv(4096).split(b"\r\n", 1)[0].decode("latin-1")
                if head.startswith("POST"):
                    self.asked.append(head)
                client.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(_ANSWER) + _ANSWER
                )
            except OSError:
                return
