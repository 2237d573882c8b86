"""A client that speaks Streamlit's protocol without a browser, and may lie in every message.

Opens the websocket with any headers, asks for any page, presses any widget by its id. What comes back is
read as a whole: every text that was delivered, every widget that was drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

WITHIN_S = 60.0
EARLY = ForwardMsg.FINISHED_EARLY_FOR_RERUN  # another run follows by itself


@dataclass(frozen=True)
class Widget:
    """One widget of a page: its id, and what kind Streamlit says it is."""

    id: str
    kind: str

    def pressed(self) -> WidgetState:
        """The state that a person's press, tick or text would give it."""
        state = WidgetState(id=self.id)
        if self.kind == "Checkbox":
            state.bool_value = True
        elif self.kind in ("TextArea", "TextInput"):
            state.string_value = "because"
        else:
            state.trigger_value = True
        return state


@dataclass
class Answer:
    """All that one run delivered."""

    messages: list[ForwardMsg] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Every text in it, one a line."""
        return "\n".join(x for m in self.messages for x in _texts(m))

    @property
    def widgets(self) -> dict[str, Widget]:
        """Every widget in it by its id."""
        return {w.id: w for m in self.messages for w in _widgets(m)}

    @property
    def query(self) -> str:
        """The query that the run wrote into the address; '' when it wrote none."""
        said = [m.page_info_changed.query_string for m in self.messages if m.HasField("page_info_changed")]
        return said[-1] if said else ""

    def of(self, *kinds: str) -> list[Widget]:
        return [w for w in self.widgets.values() if w.kind in kinds]


@dataclass
class Raw:
    """One websocket. `refused`: it was not even opened; `lost`: the server closed it."""

    url: str
    cookie: str = ""
    origin: str | None = "own"
    host: str | None = None
    session: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False
    lost: bool = False
    ws: ClientConnection | None = None

    def __enter__(self) -> Raw:
        said = {**self.headers, **({"Cookie": self.cookie} if self.cookie else {})}
        if self.host is not None:
            said["Host"] = self.host
        names = ["streamlit", "-", self.session] if self.session else ["streamlit"]
        try:
            self.ws = connect(
                self.url.replace("http", "ws", 1) + "/_stcore/stream", max_size=None, additional_headers=said,
                origin=Origin(self.url) if self.origin == "own" else self.origin and Origin(self.origin),
                subprotocols=[Subprotocol(x) for x in names], open_timeout=WITHIN_S, compression=None,
                legacy=True,
            )  # fmt: skip
        except (InvalidStatus, ConnectionClosed, EOFError):
            self.refused = True
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.ws is not None:
            self.ws.close()

    def run(
        self, page: str = "", query: str = "", widgets: Iterable[WidgetState] = (), **more: Any
    ) -> Answer:
        """What the server delivers for a run of this page with these widgets pressed."""
        ask = BackMsg()
        ask.rerun_script.page_name = page
        ask.rerun_script.query_string = query
        ask.rerun_script.widget_states.widgets.extend(widgets)
        for name, value in more.items():
            setattr(ask.rerun_script, name, value)
        return self.ask(ask.SerializeToString())

    def ask(self, data: bytes) -> Answer:
        """What comes back until a run is over, or the socket is."""
        answer = Answer()
        if not self.send(data) or self.ws is None:
            return answer
        try:
            while True:
                message = ForwardMsg()
                message.ParseFromString(self.ws.recv(timeout=WITHIN_S))  # type: ignore[arg-type]
                answer.messages.append(message)
                if message.WhichOneof("type") == "script_finished" and message.script_finished != EARLY:
                    return answer
        except ConnectionClosed:
            self.lost = True
            return answer

    def send(self, data: bytes) -> bool:
        """False when there is nobody to send it to."""
        if self.refused or self.lost or self.ws is None:
            return False
        try:
            self.ws.send(data)
        except ConnectionClosed:
            self.lost = True
        return not self.lost


def _texts(m: Message) -> Iterator[str]:
    for f, value in m.ListFields():
        for one in _each(f, value):
            if isinstance(one, Message):
                yield from _texts(one)
            elif isinstance(one, str):
                yield one
            elif isinstance(one, bytes):
                yield one.decode("utf-8", "replace")


def _widgets(m: Message) -> Iterator[Widget]:
    for f, value in m.ListFields():
        for one in _each(f, value):
            if isinstance(one, Message):
                yield from _widgets(one)
            elif f.name == "id" and isinstance(one, str) and one.startswith("$$"):
                yield Widget(id=one, kind=m.DESCRIPTOR.name)


def _each(f: FieldDescriptor, value: Any) -> Iterator[Any]:
    if isinstance(value, (str, bytes, Message)) or not hasattr(value, "__iter__"):
        yield value
    elif hasattr(value, "items"):
        yield from value.values()
    else:
        yield from value


def tree(root: Path, *, but: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below `root`, by its name; `but`: what another process writes meanwhile."""
    left_out = set(but)
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and str(p.relative_to(root)) not in left_out
    }
