"""The compiler's text read: loops, branches, fusions and collectives counted as they run."""

import pytest

from common.errors import UserError
from common.machine.chips import CHIPS, slice_of
from common.machine.estimate import estimate
from common.machine.program import Program, array_bytes, group_size

CYCLES = 'backend_config={{"window_config":{{"estimated_cycles":"{}"}}}}'


def op(name: str, shape: str, rest: str, cycles: int = 0) -> str:
    return f"  %{name} = {shape} {rest}" + (f", {CYCLES.format(cycles)}" if cycles else "")


def computation(name: str, *lines: str) -> str:
    return "\n".join([f"{name} (p: (s32[], f32[8,4])) -> f32[8,4] {{", *lines, "}"])


LAYOUT = "f32[8,4]{1,0:T(8,128)S(1)}"
CONDITION = computation(
    "%until.1",
    op("limit", "s32[]{:T(128)}", "constant(7)"),
    op("other", "s32[]{:T(128)}", "constant(99)"),
    op("i", "s32[]{:T(128)}", "get-tuple-element(%p), index=0"),
    "  ROOT " + op("lt", "pred[]{:T(512)}", "compare(%i, %limit), direction=LT").strip(),
)
BODY = computation(
    "%body.1",
    op("a", LAYOUT, "fusion(%p), kind=kLoop, calls=%inner", 10),
    op("b", LAYOUT, "all-reduce(%a), replica_groups={{0,1,2,3}}, to_apply=%add"),
)
PROGRAM = "\n\n".join(
    [
        "HloModule jit_step, is_scheduled=true",
        computation("%inner", op("x", LAYOUT, "add(%p, %p)", 1000)),
        computation(
            "%gathers",
            op(
                "y", "(bf16[2,4]{1,0}, bf16[8,4]{1,0:T(8,128)(2,1)})", "all-gather-start(%p), replica_groups=[2,4]<=[8]"
            ),
        ),
        computation("%cheap", op("z", LAYOUT, "copy(%p)", 3)),
        computation("%dear", op("z", LAYOUT, "copy(%p)", 5)),
        CONDITION,
        BODY,
        computation(
            "ENTRY %main.1",
            op("p0", LAYOUT, "parameter(0)"),
            op("loop", f"(s32[], {LAYOUT})", "while(%t), condition=%until.1, body=%body.1"),
            op("either", LAYOUT, "conditional(%p0, %p0, %p0), branch_computations={%cheap, %dear}"),
            op("fused", LAYOUT, "fusion(%p0), kind=kCustom, calls=%gathers", 2),
            op("s", "((s8[64]{0}), s8[16]{0:T(1024)S(1)}, s32[]{:S(2)})", "slice-start(%p0), slice={[0:16]}"),
        ),
    ]
)


def test_loops_branches_and_fusions_count_as_they_run() -> None:
    cost = Program(PROGRAM).cost
    assert cost.cycles == 7 * 10 + 5 + 2, "seven turns; the dearer branch; a fusion's own cycles"
    assert dict(cost.sent) == {"all-reduce": 7 * 2 * 128 * 3 // 4, "all-gather": 64 * 3 // 4}
    assert (cost.gathered, cost.prefetched) == (64, 16)


def test_a_loop_whose_end_is_data_counts_as_it_is_told() -> None:
    text = PROGRAM.replace("compare(%i, %limit)", "compare(%i, %p)")
    assert Program(text).cost.cycles == 10 + 7
    assert Program(text, open_turns=5).cost.cycles == 50 + 7


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ("bf16[2,3]{1,0:T(8,128)(2,1)}", [12]),
        ("(f32[8]{0}, s4[3]{0}, pred[], u32[]{:S(2)}, f8e4m3fn[2,2]{1,0})", [32, 2, 1, 4, 4]),
        ("token[]", [0]),
    ],
)
def test_bytes_of_shapes(shape: str, sizes: list[int]) -> None:
    assert list(array_bytes(shape)) == sizes


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", 2),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("source_target_pairs={{0,1}}", 1),
    ],
)
def test_how_many_take_part(groups: str, size: int) -> None:
    assert group_size(f"f32[] all-reduce(%x), channel_id=1, {groups}, use_global_device_ids=true") == size


def test_seconds_and_bytes_of_a_chip() -> None:
    class Compiled:
        argument_size_in_bytes, output_size_in_bytes, alias_size_in_bytes = 100, 30, 20
        temp_size_in_bytes, generated_code_size_in_bytes = 7, 3

        def memory_analysis(self) -> "Compiled":
            return self

        def as_text(self) -> str:
            return PROGRAM

    found = estimate(Compiled(), CHIPS["v5p"])
    assert found.memory == 120
    assert found.seconds == pytest.approx(77 / 1.75e9 + (1344 + 48) / 180e9)


def test_slices_by_name() -> None:
    assert [(s.chips, s.topology) for s in map(slice_of, ("v5p-8", "v6e-8", "v6e-1", "v5e-16"))] == [
        (4, "v5p:2x2x1"),
        (8, "v6e:2x4"),
        (1, "v6e:1x1"),
        (16, "v5e:4x4"),
    ]
    with pytest.raises(UserError, match="no TPU slice 'v6e-3' is known"):
        slice_of("v6e-3")
