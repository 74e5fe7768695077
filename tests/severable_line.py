"""A TCP line to a server that keeps running behind it: cut, stopped or forgetful as a test asks."""

import socket
import threading
from contextlib import suppress

CHUNK = 65536


class Line:
    """Forwards connections from a port of its own to another port of this machine.

    Args:
        server: The port that is forwarded to.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._forget: list[bytes] = []
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._accept_in_background()

    @property
    def url(self) -> str:
        """The address to give to a client."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection and refuse new ones, as a dead server's machine does."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _end(end)

    def stop(self) -> None:
        """Take connections and requests, and answer nothing, as a stopped process does."""
        self._flowing.clear()

    def mend(self) -> None:
        """Carry on; what a stopped line had taken is delivered now."""
        self._flowing.set()
        if self._listener.fileno() == -1:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self._accept_in_background()

    def lose_answer(self, word: bytes, times: int = 1) -> None:
        """Deliver the next requests that hold this word, and lose the answers to them.

        aiohttp sends a request once more by itself where a used connection ends under it.
        """
        self._forget += [word] * times

    @property
    def answers_lost(self) -> bool:
        """Whether every answer that was to be lost has been."""
        return not self._forget

    def close(self) -> None:
        """End everything."""
        self._flowing.set()
        self.cut()

    def _accept_in_background(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            losing = threading.Event()
            for source, target, way in ((near, far, self._asked), (far, near, self._answered)):
                threading.Thread(
                    target=self._pump, args=(source, target, way, losing), daemon=True
                ).start()

    def _pump(self, source, target, way, losing) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                self._flowing.wait()
                if not way(data, losing):
                    break
                target.sendall(data)
        for end in (source, target):
            _end(end)
        with self._lock:
            self._open -= {source, target}

    def _asked(self, data: bytes, losing: threading.Event) -> bool:
        self.requests += 1
        for word in {word for word in self._forget if word in data}:
            self._forget.remove(word)
            losing.set()
        return True

    def _answered(self, data: bytes, losing: threading.Event) -> bool:
        # "100 Continue" is said before the request's body has come.
        return not losing.is_set() or data.startswith(b"HTTP/1.1 100")


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
