"""The tree of a settings file -> `Settings`, or every problem in it.

Answers "is each key known, each value right, and do they fit each other?". One pass; a value that is wrong
is noted and left out, so that one fault does not hide the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from selftune.domain import Confirm, Identity, PolicyName, Problem, Rule, Target
from selftune.settings import ExcursionBudget, Governance, Limit, Loan, Settings, digest_of
from selftune.settings_fields import (
    FIELDS,
    LARGEST,
    LIMIT_KEYS,
    NAMED,
    RULE_KEYS,
    TARGET_KEYS,
    Field,
    Kind,
    Misfit,
    boolean,
    check_name,
    children,
    choice,
    home_of,
    is_null,
    nearest,
    number,
    within,
)
from selftune.settings_yaml import MAX_PROBLEMS, List, Map, Node, Pair, Path, Scalar, dotted

GOOD_SHARE = 0.03  # improvement that counts, in shares of the target's scale, where safety.good is silent
_T = TypeVar("_T")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_HOST = re.compile(r"[A-Za-z0-9.*:\[\]_-]{1,255}")


def build(root: Map, file: str, noted: Iterable[Problem] = ()) -> tuple[Settings | None, list[Problem]]:
    """The settings, or None and every problem, in the order of the lines; `noted` were found before."""
    check = _Check(file, list(noted))
    check.unknown_keys(root, "")
    targets = check.named(root, "targets", check.target)
    rules = check.named(root, "rules", check.rule)
    for section, found in (("targets", targets), ("rules", rules)):
        if not found and not check.has_problem_at(section):
            check.fail("missing_key", root, (section,))
    values = {path: check.field(root, field) for path, field in FIELDS.items()}
    parts = _Parts(check, root, targets, rules, values)
    settings = parts.settings() if not check.problems else None
    return settings, sorted(check.problems, key=lambda p: p.line or 0)


class _Parts:
    """The sections that refer to targets and rules, checked against them."""

    def __init__(
        self,
        check: _Check,
        root: Map,
        targets: Mapping[str, Target],
        rules: Mapping[str, Rule],
        values: Mapping[str, Any],
    ) -> None:
        self.targets, self.values = targets, values
        known_metrics = check.names_in(root, "targets")
        known_rules = check.names_in(root, "rules")

        def of_metric(section: str, read: Callable[[Pair, Path], _T | None]) -> dict[str, _T]:
            return check.named(root, section, read, known=("unknown_metric", known_metrics))

        self.weights = of_metric("strategy.objective_weights", check.weight)
        check.weights(root, self.weights)
        good = of_metric("safety.good", lambda p, path: check.good(p, path, targets.get(p.key.text)))
        self.good = {m: good.get(m, GOOD_SHARE * t.scale) for m, t in targets.items()}
        self.warn = of_metric("safety.warn", check.warn)
        self.hard = of_metric("safety.hard", check.hard)
        direction = check.named(
            root, "strategy.direction", check.direction, known=("unknown_rule", known_rules)
        )
        self.rules = {n: replace(r, direction=direction.get(n, 0)) for n, r in rules.items()}
        self.readiness = check.named(root, "governance.readiness", check.weight)
        check.steps_visible(root, rules, values["strategy.resolution"])

    def settings(self) -> Settings:
        v = self.values
        governance = Governance(
            approvals_required=v["governance.approvals_required"],
            manual_apply=v["governance.manual_apply"],
            identity=Identity(v["governance.identity"]),
            public_view=v["governance.public_view"],
            allowed_hosts=v["governance.allowed_hosts"],
            loan=Loan(
                changes=v["governance.loan.changes"],
                displacement=v["governance.loan.displacement"],
                hours=v["governance.loan.hours"],
            ),
            readiness=self.readiness,
        )
        plain = Settings(
            targets=self.targets,
            rules=self.rules,
            weights=self.weights,
            good=self.good,
            warn=self.warn,
            phase_bad=v["safety.warn.phase_bad"],
            hard=self.hard,
            dry_run=v["strategy.dry_run"],
            max_concurrent_changes=v["strategy.max_concurrent_changes"],
            policy=PolicyName(v["strategy.policy"]),
            auto_rollback=v["strategy.auto_rollback"],
            confirm=Confirm(v["strategy.confirm"]),
            excursion=ExcursionBudget(
                max_steps=v["strategy.excursion.max_steps"], max_s=v["strategy.excursion.max_s"]
            ),
            rollback_limit=v["strategy.rollback_limit"],
            proposal_ttl_s=v["strategy.proposal_ttl_s"],
            resolution=v["strategy.resolution"],
            observe_window_s=v["observe_window_s"],
            min_samples=v["min_samples"],
            cooldown_s=v["cooldown_s"],
            settle_s=v["settle_s"],
            history_s=v["history_s"],
            timezone=v["timezone"],
            language=v["language"],
            rate_hz=v["metrics.rate_hz"],
            max_age_s=v["metrics.max_age_s"],
            metrics_source=v["metrics.source"],
            governance=governance,
            retention_days=v["logs.retention_days"],
            digest="",
        )
        return replace(plain, digest=digest_of(plain))


class _Check:
    """Reads values out of the tree and notes what is wrong with them."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file, self.problems = file, problems
        self._not_sections: set[str] = set()

    # -- notes
    def fail(self, code: str, node: Node, path: Path, **params: Any) -> None:
        shown = {k: v[:200] if isinstance(v, str) else v for k, v in params.items()}
        problem = Problem(code=code, file=self.file, line=node.line, key=dotted(path), params=shown)
        if problem not in self.problems:
            self.problems.append(problem)

    def has_problem_at(self, section: str) -> bool:
        return any(p.key == section or (p.key or "").startswith(f"{section}.") for p in self.problems)

    def guarded(self, node: Node, path: Path, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except Misfit as misfit:
            self.fail(misfit.code, node, path, **misfit.params)
            return None

    # -- sections
    def section(self, root: Map, section: str) -> Map | None:
        """The mapping at `section`; None when absent, or when something else stands there (noted once)."""
        node: Node | None = root
        path: Path = ()
        for key in section.split(".") if section else ():
            if not isinstance(node, Map):
                return None
            path = (*path, key)
            node = node.get(key)
            if node is not None and not isinstance(node, Map):
                if dotted(path) not in self._not_sections:
                    self._not_sections.add(dotted(path))
                    empty = isinstance(node, Scalar) and is_null(node.text, node.plain)
                    self.fail("empty_section" if empty else "not_a_section", node, path)
                return None
        return node if isinstance(node, Map) else None

    def names_in(self, root: Map, section: str) -> tuple[str, ...]:
        found = self.section(root, section)
        return tuple(p.key.text for p in found.pairs) if found else ()

    def unknown_keys(self, root: Map, section: str) -> None:
        found = self.section(root, section)
        known = children(section)
        for pair in found.pairs if found else ():
            name = pair.key.text
            path = f"{section}.{name}" if section else name
            if name not in known:
                crowd = len(self.problems) >= MAX_PROBLEMS  # beyond it nobody is shown a suggestion
                near = None if crowd else nearest(name, known) or home_of(name)
                self.fail("unknown_key", pair.key, tuple(path.split(".")), found=name, nearest=near)
            elif path not in NAMED and path not in FIELDS:
                self.unknown_keys(root, path)

    def named(
        self,
        root: Map,
        section: str,
        read: Callable[[Pair, Path], _T | None],
        known: tuple[str, tuple[str, ...]] | None = None,
    ) -> dict[str, _T]:
        """The entries of a section whose keys are names; with `known` a name must be one of them."""
        found: dict[str, _T] = {}
        entries = self.section(root, section)
        for pair in entries.pairs if entries else ():
            name, path = pair.key.text, (*section.split("."), pair.key.text)
            if ".".join(path) in FIELDS and not isinstance(pair.value, Map):
                continue  # `safety.warn.phase_bad` is a number beside the metrics
            if known and name not in known[1]:
                self.fail(known[0], pair.key, path, found=name, nearest=nearest(name, known[1]))
                continue
            if name == "<<" and pair.key.plain:
                self.fail("merge_key", pair.key, path)
                continue
            try:
                check_name(name)
            except Misfit as misfit:
                self.fail(misfit.code, pair.key, path, **misfit.params)
                continue
            value = read(pair, path)
            if value is not None:
                found.setdefault(name, value)
        return found

    def entries(self, pair: Pair, path: Path, known: tuple[str, ...]) -> dict[str, Node] | None:
        """The keys below one name, unknown ones noted; None when no mapping stands there."""
        node = pair.value
        if not isinstance(node, Map):
            empty = isinstance(node, Scalar) and is_null(node.text, node.plain)
            self.fail("empty_section" if empty else "not_a_section", node, path)
            return None
        for inner in node.pairs:
            name = inner.key.text
            if name not in known and name.isdigit() and node.flow:
                self.fail("decimal_comma", inner.key, path, found=name)  # `{ max: 0,05 }` is two entries
            elif name not in known:
                near = nearest(name, known)
                self.fail("unknown_key", inner.key, (*path, name), found=name, nearest=near)
        return {p.key.text: p.value for p in reversed(node.pairs) if p.key.text in known}

    # -- scalars
    def number(self, node: Node | None, path: Path, *, field: Field | None = None) -> float | None:
        if node is None:
            return None
        limits = field or Field(dotted(path), Kind.NUMBER, None, least=-LARGEST, most=LARGEST)
        if not isinstance(node, Scalar):
            self.fail("not_a_number", node, path, found="{}" if isinstance(node, Map) else "[]", mend=None)
            return None
        if is_null(node.text, node.plain):
            self.fail("empty_value", node, path)
            return None
        scalar = node

        def read() -> float:
            value = number(scalar.text, scalar.plain)
            within(value, limits, scalar.text)
            return value

        return self.guarded(node, path, read)

    def field(self, root: Map, field: Field) -> Any:
        """The value of a key with a fixed path, else its default."""
        *above, last = field.path.split(".")
        parent = self.section(root, ".".join(above))
        node = parent.get(last) if parent else None
        path = tuple(field.path.split("."))
        if node is None or (field.path == "safety.warn.phase_bad" and isinstance(node, Map)):
            return field.default
        if field.kind is Kind.LIST:
            return self.hosts(node, path)
        if field.kind in (Kind.NUMBER, Kind.WHOLE) and not (
            field.nullable and isinstance(node, Scalar) and is_null(node.text, node.plain)
        ):
            value = self.number(node, path, field=field)
            return int(value) if value is not None and field.kind is Kind.WHOLE else value
        if not isinstance(node, Scalar):
            self.fail("not_a_scalar", node, path)
            return field.default
        if is_null(node.text, node.plain):
            if not field.nullable:
                self.fail("empty_value", node, path)
            return None
        return self.guarded(node, path, lambda: _scalar(field, node))

    def hosts(self, node: Node, path: Path) -> tuple[str, ...]:
        if not isinstance(node, List):
            self.fail("not_a_list", node, path)
            return ()
        for i, item in enumerate(node.items):
            if not isinstance(item, Scalar) or not _HOST.fullmatch(item.text):
                found = item.text if isinstance(item, Scalar) else "{}"
                self.fail("bad_host", item, (*path, str(i)), found=found)
        return tuple(i.text for i in node.items if isinstance(i, Scalar))

    # -- entries
    def target(self, pair: Pair, path: Path) -> Target | None:
        before = len(self.problems)
        keys = self.entries(pair, path, TARGET_KEYS)
        if keys is None:
            return None
        top, bottom = (self.number(keys.get(k), (*path, k)) for k in LIMIT_KEYS)
        scale_field = Field("scale", Kind.NUMBER, None, least=0, most=LARGEST, above=True)
        scale = self.number(keys.get("scale"), (*path, "scale"), field=scale_field)
        lo, hi = self.range(keys.get("range"), (*path, "range"))
        if len(self.problems) > before:
            return None
        limit = bottom if top is None else top
        if limit is None:
            self.fail("target_without_limit", pair.key, path)
            return None
        if top is not None and bottom is not None and bottom > top:
            self.fail("min_above_max", pair.key, path, min=bottom, max=top)
            return None
        if scale is None and limit == 0:
            self.fail("scale_needed", pair.key, path)
            return None
        return Target(metric=pair.key.text, max=top, min=bottom, scale=scale or abs(limit), lo=lo, hi=hi)

    def range(self, node: Node | None, path: Path) -> tuple[float | None, float | None]:
        if node is None:
            return None, None
        if not isinstance(node, List) or len(node.items) != 2:
            self.fail("range_not_two", node, path)
            return None, None
        lo, hi = (self.number(item, (*path, str(i))) for i, item in enumerate(node.items))
        if lo is not None and hi is not None and lo >= hi:
            self.fail("range_reversed", node, path, lo=lo, hi=hi)
        return lo, hi

    def rule(self, pair: Pair, path: Path) -> Rule | None:
        keys = self.entries(pair, path, RULE_KEYS)
        if keys is None:
            return None
        for missing in (k for k in ("init", "min", "max", "lr") if k not in keys):
            self.fail("missing_key", pair.key, (*path, missing))
        positive = Field("lr", Kind.NUMBER, None, least=0, most=LARGEST, above=True)
        weight_field = Field("weight", Kind.NUMBER, None, least=0, most=LARGEST)
        init, lo, hi = (self.number(keys.get(k), (*path, k)) for k in ("init", "min", "max"))
        lr = self.number(keys.get("lr"), (*path, "lr"), field=positive)
        weight = self.number(keys.get("weight"), (*path, "weight"), field=weight_field)
        if lo is not None and hi is not None and lo >= hi:
            self.fail("min_not_below_max", keys["min"], (*path, "min"), min=lo, max=hi)
            return None
        if None not in (init, lo, hi) and not lo <= init <= hi:  # type: ignore[operator]
            self.fail("init_outside", keys["init"], (*path, "init"), found=init, min=lo, max=hi)
        if None not in (lr, lo, hi) and lr > (hi - lo) * (1 + 1e-9):  # type: ignore[operator]
            self.fail("lr_too_large", keys["lr"], (*path, "lr"), found=lr, limit=hi - lo)  # type: ignore[operator]
        if init is None or lo is None or hi is None or lr is None:
            return None
        return Rule(
            name=pair.key.text, init=init, min=lo, max=hi, lr=lr, weight=1.0 if weight is None else weight
        )

    def limit(self, pair: Pair, path: Path) -> Limit | None:
        keys = self.entries(pair, path, LIMIT_KEYS)
        if keys is None:
            return None
        before = len(self.problems)
        top, bottom = (self.number(keys.get(k), (*path, k)) for k in LIMIT_KEYS)
        if top is None and bottom is None:
            if len(self.problems) == before and all(p.key.text in LIMIT_KEYS for p in _pairs(pair.value)):
                self.fail("limit_missing", pair.key, path)
            return None
        return Limit(max=top, min=bottom)

    def hard(self, pair: Pair, path: Path) -> Limit | None:
        limit = self.limit(pair, path)
        if limit and limit.max is not None and limit.min is not None and limit.min >= limit.max:
            self.fail("min_not_below_max", pair.key, path, min=limit.min, max=limit.max)
        return limit

    def warn(self, pair: Pair, path: Path) -> Limit | None:
        """`min: 0.03` warns at a rise of 0.03 and more, `max: -0.03` at a fall: so `max` lies below `min`."""
        limit = self.limit(pair, path)
        if limit and limit.max is not None and limit.min is not None and limit.max >= limit.min:
            self.fail("warn_always", pair.key, path, min=limit.min, max=limit.max)
        return limit

    def good(self, pair: Pair, path: Path, target: Target | None) -> float | None:
        """|limit| of one side; the sign must be an improvement's: a fall for `max`, a rise for `min`."""
        limit = self.limit(pair, path)
        if limit is None:
            return None
        if limit.max is not None and limit.min is not None:
            self.fail("good_one_side", pair.key, path)
            return None
        side, value = ("max", limit.max) if limit.max is not None else ("min", limit.min)
        assert value is not None  # limit() gives at least one side
        if value == 0:
            self.fail("good_zero", pair.key, (*path, side))
            return None
        down = side == "max"
        two_sided = target is not None and target.max is not None and target.min is not None
        wrong_side = target is not None and not two_sided and target.down_is_good != down
        if wrong_side or (value < 0) != down:
            fall = target.down_is_good if wrong_side and target else down
            mend = f"max: -{abs(value):g}" if fall else f"min: +{abs(value):g}"
            code = "good_fall" if fall else "good_rise"
            self.fail(code, pair.key, path, found=f"{side}: {value:g}", mend=mend)
        return abs(value)

    def weight(self, pair: Pair, path: Path) -> float | None:
        return self.number(pair.value, path, field=Field("w", Kind.NUMBER, None, least=0, most=LARGEST))

    def weights(self, root: Map, weights: Mapping[str, float]) -> None:
        path = ("strategy", "objective_weights")
        section = self.section(root, ".".join(path))
        if section is None and not self.has_problem_at("strategy"):
            self.fail("missing_key", root.get("strategy") or root, path)
        elif section is not None and not self.has_problem_at(".".join(path)) and not sum(weights.values()):
            self.fail("weights_sum_zero", section, path)

    def direction(self, pair: Pair, path: Path) -> int | None:
        value = self.number(pair.value, path)
        if value is None:
            return None
        if value not in (-1.0, 0.0, 1.0):
            self.fail("bad_direction", pair.value, path, found=getattr(pair.value, "text", ""))
            return None
        return int(value)

    def steps_visible(self, root: Map, rules: Mapping[str, Rule], resolution: int | None) -> None:
        """A step that rounds to nothing would be an event without a change."""
        section = self.section(root, "rules")
        for pair in section.pairs if section and resolution is not None else ():
            rule = rules.get(pair.key.text)
            if rule and round(rule.lr, resolution or 0) == 0:
                path = ("rules", rule.name, "lr")
                self.fail("step_below_resolution", pair.key, path, found=rule.lr, resolution=resolution)


def _pairs(node: Node) -> tuple[Pair, ...]:
    return node.pairs if isinstance(node, Map) else ()


def _scalar(field: Field, node: Scalar) -> Any:
    if field.kind is Kind.BOOLEAN:
        return boolean(node.text, node.plain)
    if field.kind is Kind.CHOICE:
        return choice(node.text, field.choices)
    return zone(node.text) if field.path == "timezone" else inside_root(node.text)


def zone(name: str) -> str:
    """`name` when the time zone data know it. Raises: Misfit."""
    try:
        if len(name) <= 64 and _ZONE.fullmatch(name):
            ZoneInfo(name)
            return name
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # OSError: the name is a folder of zones, as `Asia`
    raise Misfit("unknown_timezone", found=name, nearest=_near_zone(name))


def _near_zone(name: str) -> str | None:
    known = available_timezones()
    city = [z for z in known if z.rsplit("/", 1)[-1].casefold() == name.strip().casefold()]
    return min(city) if city else nearest(name, [z for z in known if z[:1].casefold() == name[:1].casefold()])


def inside_root(path: str) -> str:
    """`path` when it stays below the data root: relative, no `..`, no drive. Raises: Misfit."""
    parts = path.replace("\\", "/").split("/")
    if not path.isprintable() or not 0 < len(path) <= 300 or ":" in path or {"", ".."} & set(parts):
        raise Misfit("path_outside", found=path)
    return path
