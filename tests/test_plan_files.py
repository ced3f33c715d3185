"""A plan measured on tiny graphs, written, found again and used; refused where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_up_profiles import DEEP
from tiny_families import write_bundle
from typer.testing import CliRunner

import edgegen
from edgegen.bundle import Bundle
from edgegen.cli import app
from edgegen.devices import DeviceOptions
from edgegen.devices.device import Feeds, Tensor
from edgegen.devices.fake import FakeDevice, Faults
from edgegen.devices.ort_cpu import OrtCpu
from edgegen.errors import DeviceError, EdgegenWarning, InputError, UnknownName
from edgegen.profiles import placing
from edgegen.profiles.placing import Planning, Trial
from edgegen.runtime.engine import Engine
from edgegen.runtime.placement import Plan, drivers, read_plan, usual_file, write_plan

TEXT = "the cat sat"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both") / "t5"
    return write_bundle(folder, "t5-tied", formats=("onnx", "openvino"))


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placing, "SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def plan(both: Path, quick: None) -> Plan:
    asked = Planning(bundle=both, devices=("all",), source_tokens=8, new_tokens=8, rounds=1)
    return placing.plan(asked)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_part_is_measured_on_every_device_that_takes_it(plan: Plan) -> None:
    assert set(plan.devices) == {"encode", "decode"}
    for part in ("encode", "decode"):
        rows = [row for row in plan.measured if row["part"] == part]
        assert {row["device"] for row in rows} >= {"ort-cpu", "ov-cpu"}
        assert all(float(row["ms"]) > 0 for row in rows if "ms" in row)
    ways = {(row["from"], row["device"]) for row in plan.measured if row["part"] == "first"}
    assert ways >= {("ort-cpu", "ov-cpu"), ("ov-cpu", "ort-cpu"), ("ov-cpu", "ov-cpu")}
    assert any(row["part"] == "draft" for row in plan.measured)
    assert plan.source_tokens == plan.new_tokens == 8
    assert any(line.startswith("encode on") for line in plan.reasons)
    assert any(line.startswith("draft aggressive+suffix") for line in plan.reasons)


def test_a_device_that_runs_only_some_parts_is_measured_on_those(
    tmp_path: Path, quick: None
) -> None:
    bundle = write_bundle(tmp_path / "onnx", "t5-tied")
    found = placing.plan(Planning(bundle=bundle, source_tokens=8, new_tokens=8, rounds=1))
    assert "ov-cpu" not in found.devices.values()
    with pytest.raises(DeviceError, match="no device here runs its encode"):
        placing.plan(Planning(bundle=bundle, devices=("ov-cpu",), source_tokens=8, new_tokens=8))


def test_a_draft_model_is_tried_on_each_device(both: Path, quick: None) -> None:
    asked = Planning(
        bundle=both, devices=("ort-cpu", "ov-cpu"), source_tokens=8, new_tokens=8, rounds=1,
        draft_model=both,
    )  # fmt: skip
    said = [line for line in placing.plan(asked).reasons if line.startswith("draft model on")]
    assert [line.split()[3] for line in said] == ["ort-cpu", "ov-cpu"]


def test_mistakes_are_told_before_anything_is_measured(both: Path) -> None:
    with pytest.raises(UnknownName, match="goal"):
        placing.plan(Planning(bundle=both, goal="speed"))
    with pytest.raises(UnknownName, match="device"):
        placing.plan(Planning(bundle=both, devices=("ort-gpu",)))
    for asked in (Planning(bundle=both, rounds=0), Planning(bundle=both, threads=0)):
        with pytest.raises(InputError, match="must be at least 1, got 0"):
            placing.plan(asked)


def test_a_memory_bound_that_nothing_keeps_is_told(both: Path, quick: None) -> None:
    asked = Planning(
        bundle=both, source_tokens=8, new_tokens=8, rounds=1, memory_limit_mb=-1.0
    )  # fmt: skip
    with pytest.raises(InputError, match="no placement fits in -1 MB"):
        placing.plan(asked)


# ------------------------------------------------------------------ devices that fail


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_a_plan_that_ends_while_devices_are_opened_closes_those_that_are(
    part: str, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Engine] = []
    closed: list[Engine] = []

    class Counted(Engine):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            opened.append(self)

        def close(self) -> None:
            super().close()
            closed.append(self)

        def session(self, name: str) -> Any:
            if len(opened) == 2 and name == part:
                raise MemoryError("the second device")
            return super().session(name)

    monkeypatch.setattr(placing, "Engine", Counted)
    with pytest.raises(MemoryError, match="the second device"):
        placing.plan(Planning(bundle=both, devices=("ort-cpu", "ov-cpu"), source_tokens=8))
    assert len(opened) == 2 and opened == closed


class OnePart(OrtCpu):
    """ONNX Runtime that takes one part of an encoder-decoder."""

    def __init__(self, part: str) -> None:
        kinds = ("none",) if part == "encode" else ("in_place", "append")
        self.limits = replace(OrtCpu.limits, caches=kinds)


def broken(fault: str) -> FakeDevice:
    """Takes every part and fails at all, when it compiles them or when it runs them."""

    def fail(feeds: Feeds) -> Mapping[str, Tensor]:
        raise DeviceError("fake is out of order.")

    return FakeDevice({"encode": fail, "decode": fail}, Faults(compiling=fault == "compiling"))


@pytest.mark.parametrize("fault", ["compiling", "running"])
@pytest.mark.parametrize("part", ["encode", "decode"])
def test_the_device_that_fails_is_left_out_and_not_the_one_it_was_to_help(
    part: str, fault: str, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: dict[str, Any] = {"one": OnePart(part), "fake": broken(fault), "ort-cpu": OrtCpu()}
    for name, device in devices.items():
        monkeypatch.setattr(device, "name", name)
    monkeypatch.setattr(placing, "device_named", devices.__getitem__)

    def tried(*names: str) -> Trial:
        asked = Planning(bundle=both, devices=names, source_tokens=8, new_tokens=8)
        trial = Trial(asked, lambda said: None)
        try:
            trial.open()
        finally:
            trial.close()
        return trial

    found = tried(*devices)
    (line,) = found.left_out
    assert line.startswith("fake is left out: fake ")
    assert {*found.engines} == {*found.takers[part]} == {"one", "ort-cpu"}
    with pytest.raises(DeviceError, match="fake"):
        tried("one", "fake")


# ------------------------------------------------------------------ files


def mixed(plan: Plan, **changes: Any) -> Plan:
    """The plan with its parts on two backends and no drafts."""
    devices = {"encode": "ov-cpu", "decode": "ort-cpu"}
    said = {"devices": devices, "drivers": drivers(devices), "draft": "none", **changes}
    return msgspec.structs.replace(plan, **said)


def test_a_plan_written_and_read_is_the_same_and_decides(
    plan: Plan, both: Path, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "placement.json"
    write_plan(mixed(plan), file)
    assert read_plan(file) == mixed(plan)
    with edgegen.load(both) as plain, edgegen.load(both, placement=file) as pipeline:
        found = pipeline.generate(TEXT)
        assert found.tokens == plain.generate(TEXT).tokens
    assert found.devices == {"encode": "ov-cpu", "decode": "ort-cpu"}
    assert found.placement == str(file)
    assert found.timings.draft_tokens_proposed == 0
    assert pipeline.defaults.draft == "none"


def test_the_plan_of_this_machine_is_found_again(plan: Plan, both: Path, cache: Path) -> None:
    with edgegen.load(both, placement="auto") as pipeline:
        assert pipeline.placement == ""
    file = usual_file(Bundle.open(both), DeviceOptions())
    assert cache in file.parents
    assert both not in file.parents
    write_plan(mixed(plan), file)
    with edgegen.load(both, placement="auto") as pipeline:
        assert pipeline.placement == str(file)
        assert pipeline.engine.devices == {"encode": "ov-cpu", "decode": "ort-cpu"}
    with edgegen.load(both, threads=2, placement="auto") as pipeline:
        assert pipeline.placement == ""


def test_other_software_is_told_and_a_found_plan_not_used(
    plan: Plan, both: Path, tmp_path: Path
) -> None:
    old = mixed(plan, drivers={"ov-cpu": {"openvino": "1"}})
    for file in (tmp_path / "p.json", usual_file(Bundle.open(both), DeviceOptions())):
        write_plan(old, file)
    with (
        pytest.warns(EdgegenWarning, match="the forecast may not hold") as told,
        edgegen.load(both, placement=tmp_path / "p.json") as pipeline,
    ):
        assert pipeline.engine.devices["encode"] == "ov-cpu"
    assert [warning.filename for warning in told] == [__file__]  # whoever called load
    with (
        pytest.warns(EdgegenWarning, match="other software for ov-cpu; it is not used") as told,
        edgegen.load(both, placement="auto") as pipeline,
    ):
        assert pipeline.engine.devices["encode"] == "ort-cpu"
    assert [warning.filename for warning in told] == [__file__]


def test_a_plan_that_is_not_of_this_bundle_or_no_plan_is_refused(
    plan: Plan, both: Path, tmp_path: Path
) -> None:
    file = tmp_path / "placement.json"
    write_plan(mixed(plan, bundle="0" * 64), file)
    faults: list[tuple[str, dict[str, Any]]] = [
        ("measured for another bundle", {}),
        ("both a device and a placement", {"device": "ort-cpu"}),
    ]
    for said, options in faults:
        with pytest.raises(InputError, match=said):
            edgegen.load(both, placement=file, **options)
    with pytest.raises(InputError, match="cannot be read"):
        edgegen.load(both, placement=tmp_path / "none.json")
    spoiled = msgspec.json.encode(mixed(plan, draft="often"))
    deep = b'{"more": %b}' % DEEP
    for data in (b"", b"[]", b'{"format": 1}', b"\x00", spoiled, deep, b'{"bundle": "\xff"}'):
        file.write_bytes(data)
        with pytest.raises(InputError, match="not one that this version wrote"):
            read_plan(file)


@pytest.mark.parametrize("text", ["", '{"format": 1', "other", "gone"])
def test_a_found_plan_that_is_damaged_is_told_and_does_not_stand_in_the_way(
    text: str, plan: Plan, both: Path
) -> None:
    file = usual_file(Bundle.open(both), DeviceOptions())
    spoiled: dict[str, dict[str, Any]] = {
        "other": {"bundle": "0" * 64},
        "gone": {"drivers": {"gone": {}}},
    }
    changes = spoiled.get(text, {})
    write_plan(mixed(plan, **changes), file)
    if not changes:
        file.write_text(text)
    with (
        pytest.warns(EdgegenWarning, match=f"plan found in {file} is not used"),
        edgegen.load(both, placement="auto") as pipeline,
    ):
        assert pipeline.placement == ""
    assert f"plan found in {file} is not used" in edge("run", str(both), TEXT).stderr


# ----------------------------------------------------------- the command line


def edge(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_commands_write_a_plan_and_use_it(both: Path, quick: None, tmp_path: Path) -> None:
    where = str(both)
    plans = ("profile", where, "--devices", "all", "--plan", "-p", "8", "-n", "8", "-r", "1")
    done = edge(*plans, "--for", "ttft", "--write", "--placement", str(tmp_path / "p.json"))
    assert done.exit_code == 0, done.output
    assert "encode on" in done.output
    found = json.loads(edge("run", where, TEXT, "--json").stdout)
    assert found["placement"] == str(usual_file(Bundle.open(both), DeviceOptions()))
    plain = json.loads(edge("run", where, TEXT, "--json", "--device", "ort-cpu").stdout)
    assert plain["placement"] == ""
    assert plain["tokens"] == found["tokens"]
    named = json.loads(
        edge("run", where, TEXT, "--json", "--placement", str(tmp_path / "p.json")).stdout
    )
    assert named["devices"] == found["devices"]
    more = edge("run", where, TEXT, "--placement", str(tmp_path / "p.json"), "--threads", "2")
    assert "the forecast may not hold" in more.stderr


@pytest.mark.parametrize(
    "words", [("--plan", "--html", "x.html"), ("--plan", "-o", "csv"), ("--write",), ("-d", ",")]
)
def test_an_option_that_would_change_nothing_is_refused(words: tuple[str, ...], both: Path) -> None:
    done = edge("profile", str(both), *words)
    assert isinstance(done.exception, InputError)


def test_run_takes_devices_by_part_fallbacks_and_a_cache(tmp_path: Path, both: Path) -> None:
    mixed = edge("run", str(both), TEXT, TEXT, "--json", "--device", "encode=ov-cpu",
                 "--source-cache", "8")  # fmt: skip
    first, again = (json.loads(line) for line in mixed.stdout.splitlines())
    assert first["devices"] == {"encode": "ov-cpu", "decode": "ort-cpu"}
    assert (first["cached_source"], again["cached_source"]) == (False, True)
    onnx = write_bundle(tmp_path / "onnx", "t5-tied")
    moved = edge("run", str(onnx), TEXT, "--json", "--device", "ov-cpu", "--fallback", "ort-cpu")
    assert moved.exit_code == 0, moved.output
    found = json.loads(moved.stdout)
    assert {(one["device"], one["to"]) for one in found["fallbacks"]} == {("ov-cpu", "ort-cpu")}
    assert "decode went on on ort-cpu" in moved.stderr
    absent = edge("run", str(onnx), TEXT, "--device", "ov-npu", "--fallback", "ort-cpu")
    assert "encode, decode went on on ort-cpu: device ov-npu cannot be used" in absent.stderr
