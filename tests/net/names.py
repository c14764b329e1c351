"""A name service of the tests' own, in the place of the system's."""

from __future__ import annotations

import socket
import threading
from typing import Any, TypeAlias

Answer: TypeAlias = "list[str] | socket.gaierror | threading.Event"

NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
TRY_AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Names:
    """Answers as it is told to. Literals and all other names go to the system.

    An answer is the addresses; or what is raised; or an event, for which one caller is held as a silent
    server holds it, before it has the next answer. The last answer of a name is given ever again.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], list[Answer]] = {}
        self._lock = threading.Lock()
        self._system = socket.getaddrinfo
        # Families asked for, in order.
        self.asked: list[int] = []

    def answer(self, name: str, family: socket.AddressFamily, *answers: Answer) -> None:
        self._answers[name, family] = list(answers)

    def _next(self, answers: list[Answer]) -> Answer:
        with self._lock:
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def getaddrinfo(
        self, host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        answers = self._answers.get((host, family))
        if answers is None or flags & socket.AI_NUMERICHOST:
            return self._system(host, port, family, type, proto, flags)
        with self._lock:
            self.asked.append(family)
        answer = self._next(answers)
        while isinstance(answer, threading.Event):
            answer.wait()
            answer = self._next(answers)
        if isinstance(answer, OSError):
            raise answer
        return [entry for text in answer for entry in self._system(text, port, family, type, proto, flags)]
