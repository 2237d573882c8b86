"""The tree of a settings file -> `Settings`, or every problem in it.

Answers "is each key known, each value right, and do they fit each other?". One pass; a value that is wrong
is noted and left out, so that one fault does not hide the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from selftune.domain import Confirm, Identity, PolicyName, Problem, Rule, Target
from selftune.settings import ExcursionBudget, Governance, Limit, Loan, Proxy, Settings, digest_of
from selftune.settings_fields import (
    FIELDS,
    LARGEST,
    LIMIT_KEYS,
    RULE_KEYS,
    TARGET_KEYS,
    Field,
    Kind,
)
from selftune.settings_walk import Walk
from selftune.settings_yaml import List, Map, Node, Pair, Path

GOOD_SHARE = 0.03  # improvement that counts, in shares of the target's scale, where safety.good is silent
_T = TypeVar("_T")


def build(root: Map, file: str, noted: Iterable[Problem] = ()) -> tuple[Settings | None, list[Problem]]:
    """The settings, or None and every problem, in the order of the lines; `noted` were found before."""
    check = _Check(file, list(noted))
    check.unknown_keys(root, "")
    targets = check.named(root, "targets", check.target)
    rules = check.named(root, "rules", check.rule)
    for section, found in (("targets", targets), ("rules", rules)):
        if not found and not check.has_problem_at(section):
            check.missing(root, (section,))
    values = {path: check.field(root, field) for path, field in FIELDS.items()}
    parts = _Parts(check, root, targets, rules, values)
    settings = parts.settings() if not check.problems else None
    return settings, sorted(check.problems, key=lambda p: p.line or 0)


def _known(code: str, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """What other sections may refer to; None where the section itself is at fault: that is said once."""
    return (code, names) if names else None


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
        known_metrics = _known("unknown_metric", check.names_in(root, "targets"))
        known_rules = _known("unknown_rule", check.names_in(root, "rules"))

        def of_metric(section: str, read: Callable[[Pair, Path], _T | None]) -> dict[str, _T]:
            return check.named(root, section, read, known=known_metrics)

        self.weights = of_metric("strategy.objective_weights", check.weight)
        check.weights(root, self.weights)
        good = of_metric("safety.good", lambda p, path: check.good(p, path, targets.get(p.key.text)))
        self.good = {m: good.get(m, GOOD_SHARE * t.scale) for m, t in targets.items()}
        self.warn = of_metric("safety.warn", check.warn)
        self.hard = of_metric("safety.hard", check.hard)
        direction = check.named(root, "strategy.direction", check.direction, known=known_rules)
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
            proxy=Proxy(peers=v["governance.proxy.peers"], user_header=v["governance.proxy.user_header"]),
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


class _Check(Walk):
    """The entries of each section, each checked by itself and against its target."""

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
            self.missing(pair.key, (*path, missing))
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
            self.missing(root.get("strategy") or root, path)
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
