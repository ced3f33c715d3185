"""Where the nodes of a bundle really run is told by the backend, graph by graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_families import write_bundle

from edgegen.bundle import Bundle
from edgegen.cli import main
from edgegen.devices import DEVICES, DeviceOptions, Placement, device_named
from edgegen.devices.check import check_device
from edgegen.devices.fake import FakeDevice, Faults
from edgegen.errors import DeviceError, InputError
from edgegen.export.options import StaticSizes

SIZES = StaticSizes(source=(8,), cache=(16,), tokens=(1, 6))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 in both formats, and in fixed sizes."""
    folder = tmp_path_factory.mktemp("both") / "t5"
    return write_bundle(folder, "t5-tied", formats=("onnx", "openvino"), static=SIZES)


def checked(folder: Path, device: Any) -> Any:
    stages: list[str] = []
    found = check_device(Bundle.open(folder), device, DeviceOptions(), stages.append)
    assert len(stages) == len(found.graphs)
    return found


HOMES = {"ort-cpu": "CPUExecutionProvider", "ov-cpu": "CPU"}


@pytest.mark.parametrize("name", HOMES)
def test_every_graph_a_device_takes_is_compiled_and_all_its_nodes_are_there(
    name: str, both: Path
) -> None:
    found = checked(both, device_named(name))
    takes = device_named(name).limits.takes
    components = Bundle.open(both).manifest.components
    taken = [one for part in components.values() for one in part.variants if takes(one)]
    assert found.sound
    assert [graph.file for graph in found.graphs] == [one.file for one in taken]
    assert any(graph.sizes for graph in found.graphs)
    for graph in found.graphs:
        assert list(graph.places) == [HOMES[name]]
        assert graph.places[HOMES[name]] > 10
        assert graph.seconds > 0 and not graph.left and not graph.error


def fake(**faults: Any) -> FakeDevice:
    device = FakeDevice({"encode": dict, "decode": dict}, Faults(**faults))
    device.limits = replace(device.limits, formats=("onnx",))
    return device


def test_a_graph_that_is_refused_is_told_and_the_others_are_checked_all_the_same(
    both: Path,
) -> None:
    found = checked(both, fake(compiling=True, graphs=("encode",)))
    assert not found.sound
    for graph in found.graphs:
        assert bool(graph.error) == (graph.component == "encode")
        assert "\n" not in graph.error
        assert graph.places == ({} if graph.error else {"fake": 1})


def test_a_device_that_is_not_here_or_takes_nothing_says_why_in_a_line(both: Path) -> None:
    absent = checked(both, fake(missing="there is none; buy one"))
    assert (absent.here, absent.why, absent.sound) == (False, "there is none; buy one", False)
    narrow = fake()
    narrow.limits = replace(narrow.limits, weight_formats=("int4",), static_shapes=True)
    found = checked(both, narrow)
    assert found.here and not found.sound
    assert "it takes static onnx in int4; the bundle has onnx fp32" in found.why
    assert "--format onnx --static" in found.why


def test_a_device_of_fixed_sizes_takes_no_other_graphs(both: Path) -> None:
    fixed = fake()
    fixed.limits = replace(fixed.limits, static_shapes=True)
    assert {bool(graph.sizes) for graph in checked(both, fixed).graphs} == {True}


class Helped(FakeDevice):
    """Leaves a Foo to the CPU, where it may."""

    def compile(self, file: Path, variant: Any, options: DeviceOptions) -> Any:
        session: Any = super().compile(file, variant, options)
        if not options.cpu_nodes:
            raise DeviceError("fake leaves nodes to the CPU.")
        nodes = {("fake", "MatMul"): 5, ("CPU", "Foo"): 2}
        session.placement = lambda: Placement(home="fake", nodes=nodes)
        return session


def test_operators_that_were_in_the_way_are_named(both: Path) -> None:
    found = checked(both, Helped({"encode": dict, "decode": dict}))
    assert not found.sound
    for graph in found.graphs:
        assert graph.left == {"Foo": 2}
        assert graph.places == {"fake": 5, "CPU": 2}
        assert "leaves nodes" in graph.error


def test_placements_of_several_graphs_add_up() -> None:
    one = Placement(home="NPU", nodes={("NPU", "MatMul"): 3, ("CPU", "Foo"): 1})
    both = one + Placement(home="NPU", nodes={("NPU", "MatMul"): 2, ("NPU", "Add"): 1})
    assert both.places == {"NPU": 6, "CPU": 1}
    assert both.left == {"Foo": 1}


# ------------------------------------------------------------ the command line


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["devices", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command_tells_of_all_devices_and_fails_for_those_named_that_are_absent(
    both: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegen.commands.console.PIPE_WIDTH", 80)
    status, out, _ = said(capsys, "--check", both)
    assert status == 0
    assert all(name in out for name in DEVICES)
    assert "ov-npu is not here: OpenVINO has no NPU here" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    status, out, err = said(capsys, "--check", both, "--device", "ort-cpu,ov-npu", "--json")
    assert status == 1
    cpu, npu = json.loads(out)
    assert (cpu["device"], cpu["sound"], npu["sound"]) == ("ort-cpu", True, False)
    assert cpu["graphs"][0]["places"].keys() == {"CPUExecutionProvider"}
    assert "ort-cpu: " in err


def test_a_name_there_is_not_and_one_without_a_bundle_are_refused(
    both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "--check", both, "--device", "ort-cqu")[0] == 2
    status, _, err = said(capsys, "--device", "ort-cpu")
    assert (status, "--check" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ort:no_such_package", "no such file or package"),
        ("ort:json", "no such file or package"),
        ("ort:{file}", "cannot load the provider library"),
        ("ov:anything", "kind of device library 'ov'"),
    ],
)
def test_a_plug_in_that_is_none_is_answered_in_a_line(
    name: str, why: str, both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plugin.so"
    file.write_bytes(b"no library")
    status, out, err = said(capsys, "--check", both, "--device", name.format(file=file))
    assert status in (1, 2)
    told = " ".join(f"{out} {err}".split())
    assert why in told


def test_the_listing_says_what_a_device_was_never_run_on() -> None:
    from edgegen.devices.listing import list_devices

    caveats = {one.name: one.caveat for one in list_devices() if one.usable}
    assert {name for name, told in caveats.items() if not told} == {"ort-cpu", "ort-cuda", "ov-cpu"}
    assert "not run on hardware" in caveats["ov-gpu"]
    assert "simulator" in caveats["ort-qnn"]


def test_options_that_mean_nothing_are_an_input_error() -> None:
    from edgegen.commands.devices import devices

    with pytest.raises(InputError, match="--check"):
        devices(names="ort-cpu")
