"""The settings: what is accepted, what is refused and how it is said, and edits that change nothing else."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selftune import config
from selftune.catalogue import load
from selftune.config import Settings, advice, edit, parse, repair
from selftune.domain import Confirm, Identity, PolicyName, Problem, SettingsError
from selftune.wording import sentence

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden" / "settings"
SHIPPED = (HERE.parent / "configs" / "self_tuning.yaml").read_text(encoding="utf-8")
SEED = (GOLDEN / "seed_verbatim.yaml").read_text(encoding="utf-8")

BASE = """\
targets:
  a: { max: 0.5 }
  b: { min: 2 }
rules:
  r: { init: 1, min: 0, max: 2, lr: 0.5 }
strategy:
  objective_weights: { a: 1 }
"""


def problems(text: bytes | str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        parse(text, file="s.yaml")
    return list(caught.value.problems)


def codes(text: bytes | str) -> list[str]:
    return [p.code for p in problems(text)]


def swap(old: str, new: str, text: str = BASE) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
    return text.replace(old, new)


# ----------------------------------------------------------------------------- the seed and the shipped file
def test_the_seeds_own_text_gives_one_message_with_line_key_and_mend() -> None:
    (problem,) = problems(SEED)
    assert problem.code == "missing_space_after_colon"
    assert problem.key == "safety.good.creative_band"
    assert problem.line == SEED[: SEED.index("creative_band:{")].count("\n") + 1
    assert problem.params["mend"] == "creative_band: { min: +0.008 }"


def test_the_seed_repaired_means_what_it_meant() -> None:
    mended, told = repair(SEED)
    assert [p.code for p in told] == ["missing_space_after_colon"]
    assert mended == SEED.replace("creative_band:{", "creative_band: {")
    assert parse(mended) == parse(SHIPPED)
    assert parse(mended).good["creative_band"] == 0.008


def test_the_shipped_file_says_what_other_readers_of_yaml_read() -> None:
    shipped, data = parse(SHIPPED), yaml.safe_load(SHIPPED)
    assert {m: t.max if t.max is not None else t.min for m, t in shipped.targets.items()} == {
        m: next(iter(t.values())) for m, t in data["targets"].items()
    }
    for name, rule in shipped.rules.items():
        raw = data["rules"][name]
        assert [rule.init, rule.min, rule.max, rule.lr, rule.weight] == list(raw.values())
        assert rule.direction == data["strategy"]["direction"][name]
    assert dict(shipped.weights) == data["strategy"]["objective_weights"]
    assert shipped.dry_run is True


def _uncommented() -> str:
    """The shipped file with each commented-out key made live, as its head line explains."""
    lines = []
    for line in SHIPPED.split("\n"):
        body = line.lstrip(" ")
        indent = line[: len(line) - len(body)]
        key = body[2:].split(":")[0].strip()
        known = {
            p
            for path in (*config.FIELDS, "x.hard.risk_band", "governance.readiness")
            for p in path.split(".")
        }
        live = body.startswith("# ") and key in known and ":" in body and "`" not in body
        lines.append(indent + body[2:] if live else line)
    return "\n".join(lines)


def test_every_optional_key_of_the_shipped_file_shows_its_default() -> None:
    text = _uncommented()
    live = parse(text)
    named = yaml.safe_load(text)
    for path in config.FIELDS:
        node = named
        for key in path.split("."):
            assert key in node, f"{path} is not documented in the shipped file"
            node = node[key]
    assert live.hard == {"risk_band": config.Limit(max=0.45)}
    assert live.phase_bad == 0.01
    assert json.dumps(config.canonical(live) | {"safety": 0}) == json.dumps(
        config.canonical(parse(SHIPPED)) | {"safety": 0}
    )


# ----------------------------------------------------------------------------- what is accepted
ACCEPTED = [
    ("observe_window_s: 30", "observe_window_s", 30.0),
    ("min_samples: 10", "min_samples", 10),
    ("cooldown_s: 0", "cooldown_s", 0.0),
    ("settle_s: 0.2", "settle_s", 0.2),
    ("history_s: 4", "history_s", 4.0),
    ("timezone: UTC", "timezone", "UTC"),
    ("language: en", "language", "en"),
    ("metrics: { source: logs/m.csv }", "metrics_source", "logs/m.csv"),
    ("metrics: { rate_hz: 1 }", "rate_hz", 1.0),
    ("metrics: { max_age_s: 60 }", "max_age_s", 60.0),
    ("safety: { good: { a: { max: -0.1 } } }", "good", {"a": 0.1, "b": 0.06}),
    ("safety: { good: { b: { min: 0.1 } } }", "good", {"a": 0.015, "b": 0.1}),
    ("safety: { warn: { b: { min: 0.1, max: -0.1 } } }", "warn", {"b": config.Limit(min=0.1, max=-0.1)}),
    ("safety: { warn: { phase_bad: 0.01 } }", "phase_bad", 0.01),
    ("safety: { hard: { b: { min: 0, max: 9 } } }", "hard", {"b": config.Limit(min=0, max=9)}),
    ("governance: { approvals_required: 0 }", "governance", config.Governance(approvals_required=0)),
    ("governance: { manual_apply: false }", "governance", config.Governance(manual_apply=False)),
    ("governance: { identity: oidc }", "governance", config.Governance(identity=Identity.OIDC)),
    ("governance: { public_view: true }", "governance", config.Governance(public_view=True)),
    ("governance: { allowed_hosts: [x.kr, 'y:85'] }", "governance",
     config.Governance(allowed_hosts=("x.kr", "y:85"))),
    ("governance: { loan: { changes: 3, displacement: 1.5, hours: 2 } }", "governance",
     config.Governance(loan=config.Loan(changes=3, displacement=1.5, hours=2))),
    ("governance: { readiness: { hours: 24 } }", "governance", config.Governance(readiness={"hours": 24})),
    ("logs: { retention_days: 30 }", "retention_days", 30.0),
    ("logs: { retention_days: null }", "retention_days", None),
]  # fmt: skip
IN_STRATEGY = [
    ("dry_run: false", "dry_run", False),
    ("max_concurrent_changes: 2", "max_concurrent_changes", 2),
    ("policy: adaptive", "policy", PolicyName.ADAPTIVE),
    ("policy: none", "policy", PolicyName.NONE),
    ("auto_rollback: false", "auto_rollback", False),
    ("confirm: reversal", "confirm", Confirm.REVERSAL),
    ("excursion: { max_steps: 1, max_s: 60 }", "excursion", config.ExcursionBudget(max_steps=1, max_s=60)),
    ("rollback_limit: 5", "rollback_limit", 5),
    ("proposal_ttl_s: 60", "proposal_ttl_s", 60.0),
    ("resolution: 3", "resolution", 3),
]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [(f"{BASE}{line}\n", n, v) for line, n, v in ACCEPTED]
    + [(f"{BASE}  {line}\n", n, v) for line, n, v in IN_STRATEGY],
)
def test_each_key_has_its_effect(line: str, name: str, value: object) -> None:
    found = getattr(parse(line), name)
    assert found == value
    assert type(found) is type(value)


def test_what_is_not_stated_has_the_default_of_the_contract() -> None:
    s = parse(BASE)
    assert (s.observe_window_s, s.min_samples, s.cooldown_s, s.settle_s, s.history_s) == (
        90,
        300,
        120,
        20,
        600,
    )
    assert (s.timezone, s.language, s.rate_hz, s.max_age_s) == ("Asia/Seoul", "ko", 5, 5)
    assert (s.dry_run, s.policy, s.auto_rollback, s.confirm) == (True, "adaptive", True, "standard")
    assert (s.excursion.max_steps, s.excursion.max_s, s.rollback_limit) == (6, 3600, 3)
    assert (s.proposal_ttl_s, s.resolution, s.max_concurrent_changes) == (600, 6, 1)
    assert s.rules["r"].weight == 1
    assert s.rules["r"].direction == 0
    assert s.targets["b"].scale == 2
    assert s.retention_days is None


@pytest.mark.parametrize("text", ["0.25", "+0.25", ".25", "2.5e-1", "25E-2", "0.250"])
def test_a_number_may_be_written_as_any_plain_decimal(text: str) -> None:
    assert parse(swap("max: 0.5", f"max: {text}")).targets["a"].max == 0.25


@pytest.mark.parametrize("name", ["지연 시간", "p95.ms", "CPU %", "yes", "1", "phase_bad", "ω"])
def test_a_metric_may_have_any_visible_name(name: str) -> None:
    text = swap("a: { max", f'"{name}": {{ max', swap("{ a: 1 }", f'{{ "{name}": 1 }}'))
    text += f'safety: {{ warn: {{ "{name}": {{ min: 1 }} }} }}\n'
    assert parse(text).metrics == (name, "b")
    assert parse(text).warn[name].min == 1


def test_bom_and_windows_line_ends_mean_nothing() -> None:
    windows = "\ufeff" + SHIPPED.replace("\n", "\r\n")
    assert parse(windows) == parse(windows.encode()) == parse(SHIPPED)


# ----------------------------------------------------------------------------- what is refused
REFUSED = [
    ("max: 0.5", "max: '0.5'", "number_as_text", "targets.a.max"),
    ("max: 0.5", "max: true", "not_a_number", "targets.a.max"),
    ("max: 0.5", "max: yes", "not_a_number", "targets.a.max"),
    ("max: 0.5", "max: 1:30", "ambiguous_number", "targets.a.max"),
    ("max: 0.5", "max: 010", "ambiguous_number", "targets.a.max"),
    ("max: 0.5", "max: 0x1F", "ambiguous_number", "targets.a.max"),
    ("max: 0.5", "max: 1_000", "ambiguous_number", "targets.a.max"),
    ("max: 0.5", "max: .nan", "not_finite", "targets.a.max"),
    ("max: 0.5", "max: -.inf", "not_finite", "targets.a.max"),
    ("max: 0.5", "max: nan", "not_finite", "targets.a.max"),
    ("max: 0.5", "max: 1e999", "not_finite", "targets.a.max"),
    ("max: 0.5", "max: 1e300", "too_big", "targets.a.max"),
    ("max: 0.5", "max: 0,5", "decimal_comma", "targets.a"),
    ("max: 0.5", "max:", "empty_value", "targets.a.max"),
    ("max: 0.5", "max: []", "not_a_number", "targets.a.max"),
    ("max: 0.5", "max: 0", "scale_needed", "targets.a"),
    ("max: 0.5", "max: 0.5, scale: 0", "not_above", "targets.a.scale"),
    ("max: 0.5", "max: 0.5, min: 0.6", "min_above_max", "targets.a"),
    ("max: 0.5", "max: 0.5, range: [1, 0]", "range_reversed", "targets.a.range"),
    ("max: 0.5", "max: 0.5, range: [1, 1]", "range_reversed", "targets.a.range"),
    ("max: 0.5", "max: 0.5, range: 1", "range_not_two", "targets.a.range"),
    ("max: 0.5", "max: 0.5, range: [0]", "range_not_two", "targets.a.range"),
    ("max: 0.5", "max: 0.5, rnge: [0, 1]", "unknown_key", "targets.a.rnge"),
    ("{ max: 0.5 }", "{}", "target_without_limit", "targets.a"),
    ("{ max: 0.5 }", "0.5", "not_a_section", "targets.a"),
    ("{ max: 0.5 }", "", "empty_section", "targets.a"),
    ("init: 1", "init: 3", "init_outside", "rules.r.init"),
    ("init: 1, ", "", "missing_key", "rules.r.init"),
    ("min: 0,", "min: 2,", "min_not_below_max", "rules.r.min"),
    ("lr: 0.5", "lr: 0", "not_above", "rules.r.lr"),
    ("lr: 0.5", "lr: -0.1", "not_above", "rules.r.lr"),
    ("lr: 0.5", "lr: 2.1", "lr_too_large", "rules.r.lr"),
    ("lr: 0.5", "lr: 0.0000001", "step_below_resolution", "rules.r.lr"),
    ("lr: 0.5", "lr: 0.5, weight: -1", "too_small", "rules.r.weight"),
    ("{ a: 1 }", "{ a: -1 }", "too_small", "strategy.objective_weights.a"),
    ("{ a: 1 }", "{ a: 0 }", "weights_sum_zero", "strategy.objective_weights"),
    ("{ a: 1 }", "{}", "weights_sum_zero", "strategy.objective_weights"),
    ("{ a: 1 }", "{ c: 1 }", "unknown_metric", "strategy.objective_weights.c"),
    ("strategy:\n  objective_weights: { a: 1 }\n", "", "missing_key", "strategy.objective_weights"),
    ("  r: {", "  'r\\u0000': {".replace("'", '"'), "bad_name", "rules.r\0"),
    ("  r: {", f"  {'r' * 101}: {{", "bad_name", f"rules.{'r' * 101}"),
    ("  r: {", "  <<: {", "merge_key", "rules.<<"),
]
APPENDED = [
    ("observe_windw_s: 1", "unknown_key", "observe_windw_s"),
    ("observe_window_s: 0", "not_above", "observe_window_s"),
    ("cooldown_s: -1", "too_small", "cooldown_s"),
    ("min_samples: 1.5", "not_whole", "min_samples"),
    ("min_samples: 0", "too_small", "min_samples"),
    ("language: fr", "unknown_choice", "language"),
    ("timezone: Asia", "unknown_timezone", "timezone"),
    ("timezone: ../../etc/passwd", "unknown_timezone", "timezone"),
    ("timezone: [a]", "not_a_scalar", "timezone"),
    ("metrics: { source: ../m.csv }", "path_outside", "metrics.source"),
    ("metrics: { source: /etc/passwd }", "path_outside", "metrics.source"),
    ("metrics: { source: 'C:\\m.csv' }", "path_outside", "metrics.source"),
    ("metrics: { rate_hz: 0 }", "not_above", "metrics.rate_hz"),
    ("metrics: 5", "not_a_section", "metrics"),
    ("safety:", "empty_section", "safety"),
    ("safety: { good: { c: { max: -1 } } }", "unknown_metric", "safety.good.c"),
    ("safety: { good: { a: { max: 1 } } }", "good_fall", "safety.good.a"),
    ("safety: { good: { a: { min: 1 } } }", "good_fall", "safety.good.a"),
    ("safety: { good: { b: { min: -1 } } }", "good_rise", "safety.good.b"),
    ("safety: { good: { a: { max: 0 } } }", "good_zero", "safety.good.a.max"),
    ("safety: { good: { a: { max: -1, min: 1 } } }", "good_one_side", "safety.good.a"),
    ("safety: { warn: { a: {} } }", "limit_missing", "safety.warn.a"),
    ("safety: { warn: { a: { min: 1, max: 2 } } }", "warn_always", "safety.warn.a"),
    ("safety: { warn: { phase_bad: x } }", "not_a_number", "safety.warn.phase_bad"),
    ("safety: { hard: { a: { min: 2, max: 1 } } }", "min_not_below_max", "safety.hard.a"),
    ("safety: { hard: { a: { mx: 1 } } }", "unknown_key", "safety.hard.a.mx"),
    ("governance: { approvals_required: -1 }", "too_small", "governance.approvals_required"),
    ("governance: { allowed_hosts: x }", "not_a_list", "governance.allowed_hosts"),
    ("governance: { allowed_hosts: ['a b'] }", "bad_host", "governance.allowed_hosts.0"),
    ("governance: { manual_apply: 1 }", "not_boolean", "governance.manual_apply"),
    ("logs: { retention_days: 0 }", "not_above", "logs.retention_days"),
    ("  direction: { q: 1 }", "unknown_rule", "strategy.direction.q"),
    ("  direction: { r: 2 }", "bad_direction", "strategy.direction.r"),
    ("  policy: heurstic", "unknown_choice", "strategy.policy"),
    ("  excursion: { max_steps: 0 }", "too_small", "strategy.excursion.max_steps"),
    ("  resolution: 13", "too_big", "strategy.resolution"),
]


@pytest.mark.parametrize(
    ("right", "wrong", "lines"),
    [
        ("targets", "tragets", 1),
        ("rules", "rulez", 1),
        ("lr", "lrr", 2),
        ("strategy", "stratgy", 1),
        ("observe_window_s", "observe_windw_s", 1),
    ],
)
def test_one_mistyped_name_is_told_once_without_what_follows_from_it(
    right: str, wrong: str, lines: int
) -> None:
    found = problems(re.sub(rf"^( *){right}:", rf"\1{wrong}:", SHIPPED, flags=re.MULTILINE))
    assert [p.code for p in found] == ["unknown_key"] * lines
    assert {p.params["nearest"] for p in found} == {right}


@pytest.mark.parametrize(
    ("text", "code", "key"),
    [(swap(old, new), code, key) for old, new, code, key in REFUSED]
    + [(f"{BASE}{line}\n", code, key) for line, code, key in APPENDED],
)
def test_each_fault_is_told_with_its_key(text: str, code: str, key: str) -> None:
    found = problems(text)
    assert (code, key) in [(p.code, p.key) for p in found]
    assert all(p.line and p.file == "s.yaml" for p in found)


@pytest.mark.parametrize("value", ["null", "", '"false"', "0", "1", "no", "off", "False_", "[false]", "{}"])
def test_dry_run_is_a_boolean_or_the_file_is_invalid(value: str) -> None:
    (problem,) = problems(f"{BASE}  dry_run: {value}\n")
    assert problem.key == "strategy.dry_run"


@pytest.mark.parametrize("pair", [("true", "false"), ("false", "false")])
def test_dry_run_twice_is_invalid(pair: tuple[str, str]) -> None:
    assert codes(f"{BASE}  dry_run: {pair[0]}\n  dry_run: {pair[1]}\n") == ["duplicate_key"]


def test_all_faults_are_told_at_once_in_the_order_of_the_lines() -> None:
    text = swap("lr: 0.5", "lr: -1", swap("max: 0.5", "max: x")) + "colour: red\nlanguage: de\n"
    found = problems(text)
    assert [p.code for p in found] == ["not_a_number", "not_above", "unknown_key", "unknown_choice"]
    assert [p.line for p in found] == [2, 5, 8, 9]


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("cooldwn_s: 1", "cooldown_s"),
        ("dry_run: true", "strategy.dry_run"),
        ("observe-window-s: 1", "observe_window_s"),
        ("zzzzqq: 1", None),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(line: str, near: str | None) -> None:
    (problem,) = problems(f"{BASE}{line}\n")
    assert problem.params["nearest"] == near


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_file"),
        ("# only a comment\n", "empty_file"),
        ("[]", "not_a_mapping"),
        ("a", "not_a_mapping"),
        (b"\xff\xfet\x00", "not_utf8"),
        ("목표: 1".encode("cp949"), "not_utf8"),
        (BASE.encode() + b"\x00" * 64, "bad_character"),
        (BASE + "\ud800", "bad_character"),
        ("a: [1", "not_closed"),
        ("a: 'x", "not_closed"),
        ("a: b: c", "syntax"),
        ("? [a]\n: 1", "key_not_a_word"),
        ("a: !!python/object/apply:os.system [x]", "tag"),
        ("a: !x 1", "tag"),
        ("a: *b", "alias"),
        ("a: &b 1\nc: *b", "anchor"),
        ("%TAG ! tag:x,2000:\n---\na: 1", "directive"),
        (BASE + "---\n" + BASE, "many_documents"),
        ("a:\n" + "\n".join(f"  k{i}: 1" for i in range(2600)), "too_many_nodes"),
        ("\n".join(f"k{i}: 1" for i in range(30_000)), "too_large"),
        ("[" * 100_000, "too_deep"),
        ("{a: " * 60_000, "too_deep"),
        ("- " * 100_000, "too_deep"),
        ("x" * 300_000, "too_large"),
    ],
)
def test_what_is_no_plain_document_is_refused(text: bytes | str, code: str) -> None:
    assert codes(text)[0] == code


def test_nested_bombs_build_nothing() -> None:
    layers = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9))
    assert set(codes("l0: &l0 [x]\n" + layers)) == {"anchor", "alias"}


def test_a_long_list_of_problems_is_cut_and_says_so() -> None:
    found = problems(BASE + "\n".join(f"k{i}: 1" for i in range(300)))
    assert found[-1].code == "more_problems"
    assert found[-1].params["n"] == 300 - (len(found) - 1)


# ----------------------------------------------------------------------------- golden files
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_wild_file_is_said_as_recorded(path: Path) -> None:
    """`<name>.txt` holds the sentences in both languages; `ok` for a valid file."""
    words = load()
    try:
        parse(path.read_bytes(), file=path.name)
        said = ["ok"]
    except SettingsError as error:
        said = [sentence(p, lang, words) for p in error.problems for lang in ("ko", "en")]
    assert said == path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()


# ----------------------------------------------------------------------------- digest and advice
@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("dry_run: true\n", "dry_run: false\n", True),
        ("# language: ko", "language: en", True),
        ("# settle_s: 20 ", "settle_s: 20.0", True),
        ("max: 0.30", "max: 3e-1", True),
        ("max: 0.30", "max: 0.31", False),
        ("cooldown_s: 120 ", "cooldown_s: 121 ", False),
        ("creative_min: +1", "creative_min: -1", False),
        ("#   approvals_required: 1", "governance:\n  approvals_required: 2", False),
    ],
)
def test_the_digest_follows_the_meaning(old: str, new: str, same: bool) -> None:
    text = SHIPPED.replace("# governance:\n", "") if old.startswith("#   approvals") else SHIPPED
    assert (parse(swap(old, new, text)).digest == parse(SHIPPED).digest) is same


def test_the_digest_is_the_contracts() -> None:
    import hashlib

    document = config.canonical(parse(BASE))
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert parse(BASE).digest == hashlib.sha256(text.encode()).hexdigest()
    assert "dry_run" not in text
    assert "language" not in text


def test_a_root_that_lives_faster_needs_less_of_the_window() -> None:
    """What must remain behind the settle time shrinks with every other time of the root."""
    codes = {p.code for p in advice(parse(BASE + "observe_window_s: 15\nsettle_s: 3\nhistory_s: 90\n"))}
    assert "window_short" not in codes
    codes = {p.code for p in advice(parse(BASE + "observe_window_s: 15\nsettle_s: 3\n"))}
    assert "window_short" in codes


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("observe_window_s: 40", "window_short"),
        ("cooldown_s: 100", "cooldown_short"),
        ("min_samples: 400", "samples_scarce"),
        ("history_s: 100", "history_short"),
        ("metrics: { max_age_s: 0.1 }", "age_below_period"),
        ("  excursion: { max_s: 60 }", "excursion_short"),
        ("  max_concurrent_changes: 2", "more_changes_than_rules"),
        ("  auto_rollback: false", "no_auto_rollback"),
        ("safety: { hard: { a: { max: 0.4 } } }", "hard_inside_target"),
        ("safety: { warn: { phase_bad: 0.1 } }", "phase_bad_alone"),
        ("governance: { approvals_required: 0 }", "no_approval_needed"),
        ("governance: { identity: open }", "nobody_signs_in"),
    ],
)
def test_what_is_doubtful_is_advised(line: str, code: str) -> None:
    calm = BASE.replace("{ a: 1 }", "{ a: 1, b: 1 }") + "  direction: { r: 1 }\n"
    if not line.startswith("cooldown"):
        calm = calm.replace("rules:", "cooldown_s: 180\nrules:")
        assert advice(parse(calm)) == ()
    assert [a.code for a in advice(parse(f"{calm}{line}\n")) if a.code == code] == [code]


def test_the_observed_rate_counts_more_than_the_stated_one() -> None:
    assert "samples_scarce" not in [a.code for a in advice(parse(SHIPPED))]
    assert "samples_scarce" in [a.code for a in advice(parse(SHIPPED), rate_hz=1.0)]


# ----------------------------------------------------------------------------- repair
@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        (BASE.replace("a: { max", "a:{ max"), BASE),
        (BASE.replace("max: 0.5", "max:0.5"), BASE),
        (BASE.replace("    ", "  ").replace("  r:", "\u00a0 r:"), BASE),
        ("\ufeff" + BASE.replace("b: {", "b:{"), "\ufeff" + BASE),
        (BASE.replace("strategy:\n  ", "strategy:\n\t"), BASE),
    ],
)
def test_a_slip_with_one_meaning_is_mended(broken: str, mended: str) -> None:
    text, told = repair(broken)
    assert text == mended
    assert told
    assert codes(broken) == [p.code for p in told]


@pytest.mark.parametrize(
    "text",
    [
        SHIPPED,
        BASE + "governance: { allowed_hosts: [localhost:8501, a:{b] }\n",
        BASE + "# a:{ max: 1 }\ncolour: 'a:{ b'\n",
        BASE.replace("max: 0.5", "max: x"),
        "\x00",
    ],
)
def test_what_is_valid_or_unsure_is_left_alone(text: str) -> None:
    if "a:{b" in text:
        text = text.replace(", a:{b", "")
    assert repair(text) == (text, ())


# ----------------------------------------------------------------------------- edit
def changed_lines(old: str, new: str) -> list[str]:
    diff = difflib.ndiff(old.splitlines(keepends=True), new.splitlines(keepends=True))
    return [line for line in diff if line[0] in "+-"]


def test_an_edit_changes_just_its_scalar() -> None:
    new = edit(SHIPPED, {"rules.risk_max.init": 0.35 - 0.02})
    assert new == SHIPPED.replace("init: 0.35", f"init: {0.35 - 0.02!r}")
    assert edit(SHIPPED, {"strategy.dry_run": False}) == SHIPPED.replace(
        "dry_run: true\n", "dry_run: false\n"
    )


def test_a_value_that_stands_there_already_changes_nothing() -> None:
    assert edit(SHIPPED, {"targets.risk_band.max": 0.3, "min_samples": 300.0, "language": "ko"}) == edit(
        SHIPPED, {"language": "ko"}
    )
    assert edit(SHIPPED, {"targets.risk_band.max": 0.3, "min_samples": 300.0}) == SHIPPED


def test_bom_line_ends_and_quotes_stay() -> None:
    text = "\ufeff" + (BASE + "timezone: 'UTC' # 여기\nlanguage: \"en\"").replace("\n", "\r\n")
    new = edit(text, {"timezone": "Asia/Seoul", "settle_s": 5})
    assert new == text.replace("'UTC'", "'Asia/Seoul'") + "\r\nsettle_s: 5"
    assert edit(text, {"timezone": "Asia/Seoul"}) == text.replace("'UTC'", "'Asia/Seoul'")


@pytest.mark.parametrize(
    ("path", "value", "added"),
    [
        ("settle_s", 5, "settle_s: 5"),
        ("strategy.policy", "none", "  policy: none"),
        ("strategy.excursion.max_steps", 1, "  excursion:\n    max_steps: 1"),
        ("governance.loan.hours", 2.5, "governance:\n  loan:\n    hours: 2.5"),
        ("rules.risk_max.weight", 1.5, None),
        ("targets.risk_band.scale", 0.2, None),
        (("safety", "hard", "risk_band", "max"), 0.45, "  hard:\n    risk_band:\n      max: 0.45"),
        ("logs.retention_days", None, "logs:\n  retention_days: null"),
    ],
)
def test_a_missing_key_is_added_in_its_section(
    path: str, value: float | str | None, added: str | None
) -> None:
    new = edit(SHIPPED, {path: value})
    plus = [line[2:].rstrip("\n") for line in changed_lines(SHIPPED, new) if line[0] == "+"]
    minus = [line for line in changed_lines(SHIPPED, new) if line[0] == "-"]
    if added is not None:
        assert plus == added.split("\n")
        assert minus == []
    else:
        assert len(plus) == len(minus) == 1
    node = yaml.safe_load(new)
    for key in path.split(".") if isinstance(path, str) else path:
        node = node[key]
    assert node == value


def test_a_name_with_dots_is_addressed_quoted_or_as_a_tuple() -> None:
    text = swap("a: { max", '"p95.ms": { max', swap("{ a: 1 }", '{ "p95.ms": 1 }'))
    expected = text.replace("max: 0.5", "max: 0.4")
    assert edit(text, {'targets."p95.ms".max': 0.4}) == expected
    assert edit(text, {("targets", "p95.ms", "max"): 0.4}) == expected
    assert config.split_path(config.dotted(("targets", "p95.ms", "max"))) == ("targets", "p95.ms", "max")


@pytest.mark.parametrize(
    "changes",
    [
        {"rules.risk_max.lr": 5},
        {"strategy.dry_run": "false"},
        {"strategy.dry_run": 0},
        {"targets": 1},
        {"targets.risk_band.max.deep": 1},
        {"no_such_key": 1},
        {"targets.risk_band.max": float("nan")},
        {"timezone": "x\nstrategy: 1"},
        {"": 1},
    ],
)
def test_an_edit_that_would_not_be_valid_is_refused(
    changes: dict[str | tuple[str, ...], float | str],
) -> None:
    with pytest.raises(SettingsError):
        edit(SHIPPED, changes)


def test_an_invalid_text_is_not_edited() -> None:
    with pytest.raises(SettingsError):
        edit(SEED, {"min_samples": 200})


def test_an_element_of_a_list_can_be_edited() -> None:
    text = swap("max: 0.5 }", "max: 0.5, range: [0, 1] }")
    assert edit(text, {"targets.a.range.1": 2}) == text.replace("[0, 1]", "[0, 2]")


# ----------------------------------------------------------------------------- properties
LINES = st.sampled_from(
    [
        *BASE.splitlines(),
        *SEED.splitlines(),
        "a:{ max:0.5",
        "\tx: 1",
        "---",
        "- a",
        "? b",
        "&a [*a]",
        "'",
        "}",
    ]
)


@settings(max_examples=150)
@given(st.one_of(st.text(), st.binary(), st.lists(LINES, max_size=12).map("\n".join)))
@example('x: "\\uD800"')
@example("%YAML 1.1\n%YAML 1.1\n---\n")
def test_any_text_is_settings_or_a_settings_error(text: str | bytes) -> None:
    try:
        found = parse(text)
    except SettingsError as error:
        told = [sentence(p, lang, load()) for p in error.problems for lang in ("ko", "en")]
    else:
        assert isinstance(found, Settings)
        told = ["ok"]
    assert told
    assert all(line.isprintable() for line in told)


@settings(max_examples=100)
@given(st.lists(LINES, max_size=15).map("\n".join))
@example(SEED)
def test_repair_twice_is_repair_once(text: str) -> None:
    once, _ = repair(text)
    assert repair(once)[0] == once


SCALARS = {
    "targets.phase_diff.max": st.floats(0.001, 10),
    "rules.risk_max.max": st.floats(0.36, 10),
    "observe_window_s": st.integers(1, 10_000),
    "min_samples": st.integers(1, 1000),
    "strategy.dry_run": st.booleans(),
    "strategy.direction.risk_max": st.sampled_from([-1, 0, 1]),
    "strategy.objective_weights.risk_band": st.floats(0, 1e6),
    "safety.good.risk_band.max": st.floats(-10, -1e-9),
    "settle_s": st.floats(0, 100),
    "governance.approvals_required": st.integers(0, 9),
}


@settings(max_examples=25)
@given(st.sampled_from(sorted(SCALARS)).flatmap(lambda k: st.tuples(st.just(k), SCALARS[k])))
def test_an_edit_changes_one_line_and_reads_back_exactly(change: tuple[str, float]) -> None:
    path, value = change
    new = edit(SHIPPED, {path: value})
    document = config.canonical(parse(new)) | {"dry_run": parse(new).dry_run}
    node = document
    keys = ["dry_run"] if path == "strategy.dry_run" else path.split(".")
    if path.startswith("safety.good"):
        assert parse(new).good["risk_band"] == -value
    else:
        for key in keys:
            node = node[key]
        assert node == value
    kept = [line for line in SHIPPED.splitlines() if line in new.splitlines()]
    assert len(SHIPPED.splitlines()) - len(kept) <= 1
    assert edit(new, {path: value}) == new
