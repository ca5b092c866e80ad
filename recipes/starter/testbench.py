"""Self-checking testbenches in VerilogEval's layout: stimulus_gen, tb, RefModule against TopModule.

Inputs change one unit after every clock edge and outputs are compared three units later, so no comparison
races with a clock edge, and a reset that comes and goes between edges tells asynchronous from synchronous.
"""

from dataclasses import dataclass

from recipes.starter.words import Port, Reset, vector

EXHAUSTIVE_BITS = 7
RANDOM_SAMPLES = 200
AFTER_PULSE = 130


@dataclass(frozen=True)
class Stimulus:
    clock: str
    reset: Reset | None
    hold: tuple[tuple[str, int], ...]
    directed: tuple[str, ...]
    run: int


def write_testbench(ports: tuple[Port, ...], stimulus: Stimulus) -> str:
    inputs = [p for p in ports if p.direction == "input" and p.name != stimulus.clock]
    outputs = [p for p in ports if p.direction == "output"]
    return (
        "\n\n".join(("`timescale 1 ps/1 ps", _generator(inputs, stimulus), _bench(ports, inputs, outputs, stimulus)))
        + "\n"
    )


def _generator(inputs: list[Port], stimulus: Stimulus) -> str:
    ports = ",\n".join(["  input tb_clk", *(f"  output reg {vector(p.width)}{p.name}" for p in inputs)])
    return f"module stimulus_gen (\n{ports}\n);\n\n{_draw(inputs, stimulus)}\n{_sequence(inputs, stimulus)}\nendmodule"


def _draw(inputs: list[Port], stimulus: Stimulus) -> str:
    """A task that gives every input but the reset a random value, wide ones all zeros or all ones now and then."""
    lines = []
    for p in inputs:
        if stimulus.reset and p.name == stimulus.reset.name:
            continue
        lines.append(f"{p.name} = $urandom;")
        if p.width > 3:
            lines.append(f"if ($urandom % 8 == 0) {p.name} = {{{p.width}{{$urandom % 2 == 0}}}};")
    lines += stimulus.directed
    body = "\n".join(f"      {line}" for line in lines)
    return f"  task draw;\n    begin\n{body}\n    end\n  endtask\n"


def _sequence(inputs: list[Port], stimulus: Stimulus) -> str:
    lines = ["draw;"]
    if stimulus.clock:
        reset = stimulus.reset
        held = " ".join(f"{name} = {value};" for name, value in stimulus.hold)
        if reset:
            lines = [f"{reset.name} = {reset.active};", *lines]
            lines += ["repeat (5) @(tb_clk) #1 draw;", f"{reset.name} = {1 - reset.active};"]
        lines.append(f"repeat ({2 * stimulus.run}) @(tb_clk) #1 begin draw; {held} end".replace("  ", " "))
        if reset:
            # Pulses that cover no rising edge: only an asynchronous reset answers them, perhaps much later.
            on, off = f"{reset.name} = {reset.active};", f"{reset.name} = {1 - reset.active};"
            pulse = f"@(posedge tb_clk) #1 {on} @(negedge tb_clk) #1 {off}"
            after = min(stimulus.run, AFTER_PULSE)
            lines += [pulse, f"repeat ({after}) @(tb_clk) #1 begin draw; {held} end".replace("  ", " ")]
            lines.append(f"repeat (16) begin repeat (6) @(tb_clk) #1 draw; {pulse} end")
        again = f" {reset.name} = $urandom % 16 {'!=' if reset.low else '=='} 0;" if reset else ""
        lines.append(f"repeat ({RANDOM_SAMPLES}) @(tb_clk) #1 begin draw;{again} end")
    else:
        width = sum(p.width for p in inputs)
        if 0 < width <= EXHAUSTIVE_BITS:
            everything = "{" + ", ".join(p.name for p in inputs) + "}"
            lines.append(f"repeat ({1 << width}) @(tb_clk) #1 {everything} = {everything} + 1;")
        lines.append(f"repeat ({RANDOM_SAMPLES}) @(tb_clk) #1 draw;")
    body = "\n".join(f"    {line}" for line in [*lines, "#5 $finish;"])
    return f"  initial begin\n{body}\n  end\n"


def _bench(ports: tuple[Port, ...], inputs: list[Port], outputs: list[Port], stimulus: Stimulus) -> str:
    def instance(module: str, label: str, suffix: str) -> str:
        wires = {p.name: p.name for p in inputs} | {p.name: p.name + suffix for p in outputs}
        pins = ", ".join(f".{p.name}({wires.get(p.name, 'tb_clk')})" for p in ports)
        return f"  {module} {label} ({pins});"

    declared = [f"  wire {vector(p.width)}{p.name};" for p in inputs]
    declared += [f"  wire {vector(p.width)}{p.name}_ref, {p.name}_dut;" for p in outputs]
    declared += [f"  integer tb_bad_{p.name} = 0, tb_first_{p.name} = 0;" for p in outputs]
    pins = ", ".join(f".{p.name}({p.name})" for p in inputs)
    lines = [
        "module tb;",
        "",
        "  reg tb_clk = 0;",
        "  always #5 tb_clk = ~tb_clk;",
        "",
        *declared,
        "  integer tb_samples = 0, tb_errors = 0;",
        "",
        f"  stimulus_gen stim (.tb_clk(tb_clk){', ' if pins else ''}{pins});",
        instance("RefModule", "good", "_ref"),
        instance("TopModule", "dut", "_dut"),
        "",
        "  // An X in the reference matches anything; an X in the design matches only an X.",
        *(f"  wire tb_ok_{p.name} = ({p.name}_dut ==? {p.name}_ref) === 1'b1;" for p in outputs),
        "",
        "  always @(tb_clk) begin",
        "    #4 tb_samples = tb_samples + 1;",
        f"    if (!({' && '.join(f'tb_ok_{p.name}' for p in outputs)})) tb_errors = tb_errors + 1;",
        *(line for p in outputs for line in _count(p.name)),
        "  end",
        "",
        "  final begin",
        *(line for p in outputs for line in _hint(p.name)),
        '    $display("Hint: Total mismatched samples is %0d out of %0d samples\\n", tb_errors, tb_samples);',
        '    $display("Simulation finished at %0d ps", $time);',
        '    $display("Mismatches: %0d in %0d samples", tb_errors, tb_samples);',
        "  end",
        "",
        "  initial begin",
        "    #100000",
        '    $display("TIMEOUT");',
        "    $finish;",
        "  end",
        "",
        "endmodule",
    ]
    return "\n".join(lines)


def _count(name: str) -> list[str]:
    return [
        f"    if (!tb_ok_{name}) begin",
        f"      if (tb_bad_{name} == 0) tb_first_{name} = $time;",
        f"      tb_bad_{name} = tb_bad_{name} + 1;",
        "    end",
    ]


def _hint(name: str) -> list[str]:
    return [
        f"    if (tb_bad_{name} == 0) $display(\"Hint: Output '{name}' has no mismatches.\");",
        f"    else $display(\"Hint: Output '{name}' has %0d mismatches. First mismatch occurred at time %0d.\",",
        f"      tb_bad_{name}, tb_first_{name});",
    ]
