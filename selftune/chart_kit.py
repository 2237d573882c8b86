"""What all charts share: the look (layout, language, theme), colours, wall time, the finished view.

Never reads a file and never imports Streamlit: the same charts serve pages, exports and reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from selftune.domain import GuardCheck, Problem, Reason
from selftune.series import Int64s
from selftune.wording import Catalogue, render, sentence, word

JsonDict = dict[str, Any]
Columns = Mapping[str, Any]  # column name -> numpy array or list; all of one length
WallTimes = NDArray[np.datetime64]


@dataclass(frozen=True)
class Say:
    """The catalogue in one language: `say(key, name=value)` is a sentence, `say.metric` a metric's name."""

    language: str
    catalogue: Catalogue
    zone: tzinfo | None = None

    def __call__(self, key: str, /, **slots: Any) -> str:
        return render(key, slots, self.language, self.catalogue, zone=self.zone)

    def metric(self, name: str) -> str:
        """The metric's readable name; one unknown to the catalogue keeps its own."""
        return word("metric", name, self.language, self.catalogue)

    def why(self, item: Reason | Problem | GuardCheck) -> str:
        """The sentence of a reason, a guard's answer or a problem."""
        return sentence(item, self.language, self.catalogue, zone=self.zone)


class Layout(StrEnum):
    WIDE = "wide"
    NARROW = "narrow"


class Theme(StrEnum):
    LIGHT = "light"
    DARK = "dark"


class Outcome(StrEnum):
    """How the life of a change shows on a chart: each has a colour, a shape and a word."""

    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    OPEN = "open"
    BACK = "back"  # the event is itself the way back


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything that a chart's *specification* depends on; specifications are cached by it."""

    layout: Layout = Layout.WIDE
    language: str = "ko"
    theme: Theme = Theme.LIGHT
    zone: str = "Asia/Seoul"

    @property
    def narrow(self) -> bool:
        return self.layout is Layout.NARROW

    @property
    def colours(self) -> Colours:
        return DARK if self.theme is Theme.DARK else LIGHT


@dataclass(frozen=True, kw_only=True)
class ChartView:
    """A finished chart: a cached specification, fresh named datasets, and its words.

    `spec` is shared and must not be changed; draw `{**spec, "datasets": datasets}`. `table` is the
    same content as plain columns under readable headers, for people who cannot use the picture.
    """

    spec: JsonDict
    datasets: Mapping[str, Columns]
    alt: str
    sentence: str
    table: Mapping[str, Sequence[Any]]
    selections: tuple[str, ...] = field(default=())
    packed: Mapping[str, Any] | None = None  # the datasets as they go on the wire, where sessions share them
    listing: Any = None  # the table likewise

    @property
    def empty(self) -> bool:
        """True when there is nothing to draw."""
        frame = ("window", "blind", "goals", "bounds", "zero", "good", "frame", "reach")
        return all(
            len(next(iter(c.values()), ())) == 0 for name, c in self.datasets.items() if name not in frame
        )

    def self_contained(self) -> JsonDict:
        """The specification with its data inside as plain JSON, for exports and tests."""
        return {**self.spec, "datasets": {name: records(c) for name, c in self.datasets.items()}}


@dataclass(frozen=True, kw_only=True)
class Colours:
    """One theme's ink. The verdict colours are Okabe and Ito's, safe for colour-blind readers."""

    ground: str
    text: str
    muted: str
    grid: str
    line: str
    band: str
    band_opacity: float
    shade: str
    shade_opacity: float
    good: str = "#009E73"
    bad: str = "#D55E00"
    unsure: str = "#7F7F7F"
    open: str = "#0072B2"
    categories: tuple[str, ...] = ("#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9", "#D55E00")


LIGHT = Colours(
    ground="#FFFFFF",
    text="#1F2328",
    muted="#57606A",
    grid="#E7EAEE",
    line="#0072B2",
    band="#56B4E9",
    band_opacity=0.30,
    shade="#009E73",
    shade_opacity=0.10,
)
DARK = Colours(
    ground="#11171F",
    text="#E8EAED",
    muted="#A9B3BF",
    grid="#2A333E",
    line="#6CB8F0",
    band="#56B4E9",
    band_opacity=0.35,
    shade="#2BC49A",
    shade_opacity=0.16,
    good="#2BC49A",
    bad="#FF8A47",
    unsure="#A9A9A9",
    open="#6CB8F0",
    categories=("#6CB8F0", "#E3A3C6", "#2BC49A", "#F0C050", "#9AD5F5", "#FF8A47"),
)

FONT = "'Source Sans', 'Noto Sans KR', 'Noto Sans CJK KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif"

# Vega's own names draw `cross` as a plus sign; people read x as "taken back", so it is drawn here.
SHAPE_X = "M-1,-1L1,1M-1,1L1,-1"
OUTCOME_SHAPES: Mapping[Outcome, str] = {
    Outcome.CONFIRMED: "circle",
    Outcome.ROLLED_BACK: SHAPE_X,
    Outcome.INCONCLUSIVE: "circle",
    Outcome.OPEN: "triangle-up",
    Outcome.BACK: "triangle-left",
}
CATEGORY_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
CATEGORY_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])

# 24-hour figures read the same in both languages; Vega picks the level by the zoom.
TIME_FORMAT: JsonDict = {
    "milliseconds": "%H:%M:%S.%L",
    "seconds": "%H:%M:%S",
    "minutes": "%H:%M",
    "hours": "%H:%M",
    "date": "%m-%d",
    "week": "%m-%d",
    "month": "%Y-%m",
    "quarter": "%Y-%m",
    "year": "%Y",
}


def outcome_colours(colours: Colours) -> tuple[list[str], list[str]]:
    """(stroke, fill) in the order of `Outcome`: filled, x, hollow, hollow triangle, filled triangle."""
    stroke = [colours.good, colours.bad, colours.unsure, colours.open, colours.unsure]
    fill = [colours.good, "transparent", colours.ground, colours.ground, colours.unsure]
    return stroke, fill


def base_config(look: Look) -> JsonDict:
    """Vega-Lite `config` of one look: quiet axes, readable text, no frame around a panel."""
    c = look.colours
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None, "continuousWidth": 330 if look.narrow else 760},
        "axis": {
            "labelColor": c.muted,
            "titleColor": c.muted,
            "gridColor": c.grid,
            "domainColor": c.grid,
            "tickColor": c.grid,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelPadding": 6,
        },
        "axisX": {
            "grid": False,
            "tickCount": 4 if look.narrow else 8,
            "labelFlush": True,
            "labelOverlap": True,
            "labelSeparation": 6,
            "labelBound": True,
        },
        "axisY": {"domain": False, "ticks": False, "tickCount": 3},
        "legend": {
            "labelColor": c.text,
            "titleColor": c.muted,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolStrokeWidth": 2,
            "columns": 2 if look.narrow else 0,
            "offset": 14,
            "labelLimit": 220,
        },
        "title": {
            "color": c.text,
            "anchor": "start",
            "fontSize": 13,
            "fontWeight": 600,
            "offset": 6,
            "frame": "group",
        },
        "text": {"color": c.text, "fontSize": 12},
        "concat": {"spacing": 14},
    }


def wall_times(ms: Int64s | Sequence[int], zone: str) -> WallTimes:
    """Instants as naive wall time of `zone`, so that every browser shows the same hour.

    Shape: datetime64[ms][n]. The offset is asked for each point only when it changes in between.
    """
    instants = np.asarray(ms, dtype=np.int64)
    if not len(instants):
        return np.empty(0, "datetime64[ms]")
    tz = ZoneInfo(zone)
    lowest, highest = int(instants.min()), int(instants.max())
    probes = np.unique(np.append(np.arange(lowest, highest, 20 * 86_400_000, dtype=np.int64), highest))
    offsets = {_offset_ms(int(p), tz) for p in probes}
    if len(offsets) == 1:
        return np.asarray((instants + offsets.pop()).astype("datetime64[ms]"))
    local = np.fromiter((i + _offset_ms(int(i), tz) for i in instants), np.int64, len(instants))
    return np.asarray(local.astype("datetime64[ms]"))


def _offset_ms(ms: int, tz: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(ms / 1000, UTC).astimezone(tz).utcoffset()
    return int(offset.total_seconds() * 1000) if offset else 0


def clock_text(ms: int, zone: str, *, day: bool = True) -> str:
    """'11-22 09:00:05' (or without the day) in `zone`; the same figures in every language."""
    when = datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone))
    return when.strftime("%m-%d %H:%M:%S" if day else "%H:%M:%S")


def span_text(start_ms: int, end_ms: int, zone: str) -> str:
    """'11-22 09:00 – 15:00', the day repeated only when it changes."""
    a = datetime.fromtimestamp(start_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    b = datetime.fromtimestamp(end_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    tail = "%H:%M" if a.date() == b.date() else "%m-%d %H:%M"
    return f"{a:%m-%d %H:%M} – {b.strftime(tail)}"


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number for people: '0.068', '−0.008', '80.7', '25', '1,204'; '–' where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        digits = 0
    elif abs(value) >= 100:
        digits = min(digits, 1)
    elif abs(value) >= 10:
        digits = 0 if value == int(value) else min(digits, 1)
    if abs(value) < 0.5 * 10**-digits:  # "−0.000" would say a direction that the figures do not show
        value = 0.0
    text = f"{value:+,.{digits}f}" if sign and value else f"{value:,.{digits}f}"
    return text.replace("-", "−")


def records(columns: Columns) -> list[JsonDict]:
    """Columns as JSON rows: NaN becomes null, wall times become ISO text without offset."""
    names = list(columns)
    plain = [_plain(columns[name]) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*plain, strict=True)]


def _plain(column: Any) -> list[Any]:
    array = column if isinstance(column, np.ndarray) else np.asarray(column, dtype=object)
    if array.dtype.kind == "M":
        return [str(v) for v in array.astype("datetime64[ms]")]
    return [None if isinstance(v, float) and not np.isfinite(v) else v for v in array.tolist()]
