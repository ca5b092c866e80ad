"""A small benchmark of our own, and an OpenAI-shaped server whose misbehaviour a test chooses."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Answer = Callable[[dict[str, Any], int], str]
"""From a request's payload and the index of the choice to the completion."""


@dataclass
class Behaviour:
    """`faults` are spent one a request: a status code, "truncate", "drop", "empty", "html", or None for no fault."""

    answer: Answer
    honours_n: bool = True
    refuses_n: bool = False
    faults: list[int | str | None] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], tuple[int, Any] | None] = lambda payload: None
    """A status and a body (JSON, or bytes) in place of the usual answer."""
    models: Any = None
    """What GET /v1/models answers."""
    count: Callable[[list[dict[str, str]]], int] | None = None
    """How many tokens POST /tokenize counts; None: there is no such path."""
    counted: list[dict[str, Any]] = field(default_factory=list)
    delay: Callable[[], None] = lambda: None
    most_at_once: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            known = behaviour.models is not None and self.path == "/v1/models"
            self._send(200 if known else 404, json.dumps(behaviour.models).encode())

        def _tokenize(self, payload: dict[str, Any]) -> None:
            behaviour.counted.append(payload)
            if behaviour.count is None:
                return self._send(404, b"{}")
            self._send(200, json.dumps({"count": behaviour.count(payload["messages"])}).encode())

        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                return self._tokenize(payload)
            with behaviour.lock:
                behaviour.payloads.append(payload)
                fault = behaviour.faults.pop(0) if behaviour.faults else None
                behaviour.now += 1
                behaviour.most_at_once = max(behaviour.most_at_once, behaviour.now)
            behaviour.delay()
            with suppress(BrokenPipeError, ConnectionResetError):
                self._respond(payload, fault)
            with behaviour.lock:
                behaviour.now -= 1

        def _respond(self, payload: dict[str, Any], fault: int | str | None) -> None:
            other = behaviour.reply(payload)
            if other is not None:
                return self._send(other[0], other[1] if isinstance(other[1], bytes) else json.dumps(other[1]).encode())
            if behaviour.refuses_n and payload["n"] > 1:
                fault = 400
            if fault == "drop":
                self.close_connection = True
                return
            if isinstance(fault, int):
                return self._send(fault, b'{"error": {"message": "no"}}', {"Retry-After": "0"})
            if fault == "html":
                return self._send(200, b"<html>gateway</html>")
            count = 0 if fault == "empty" else payload["n"] if behaviour.honours_n else 1
            choices = [
                {
                    "index": i,
                    "message": {"role": "assistant", "content": behaviour.answer(payload, i)},
                    "finish_reason": "stop",
                }
                for i in range(count)
            ]
            body = json.dumps({"choices": choices, "usage": {"completion_tokens": 7 * count}}).encode()
            self._send(200, body, cut=fault == "truncate")

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

    return Handler


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve until the block ends; yields the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(behaviour))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


TESTBENCH = """`timescale 1 ps/1 ps
`define OK 12

module stimulus_gen (input clk, output logic [3:0] d, output logic rst);
  task settle(input int edges);
    repeat (edges) @(posedge clk, negedge clk);
  endtask
  initial begin
    rst = 1;
    d = 0;
    settle(4);
    rst = 0;
    repeat (60) @(posedge clk, negedge clk) begin
      d <= $random;
      rst <= ($random & 15) == 0;
    end
    #1 $finish;
  end
endmodule

module tb();
  typedef struct packed { int errors; int errortime; int errors_q; int errortime_q; int clocks; } stats;
  stats stats1;

  reg clk = 0;
  initial forever #5 clk = ~clk;

  logic [3:0] d;
  logic rst;
  logic [3:0] q_ref, q_dut;

  initial begin
    $dumpfile("wave.vcd");
    $dumpvars(1, stim1.clk, tb_mismatch, d, rst, q_ref, q_dut);
  end

  wire tb_match;
  wire tb_mismatch = ~tb_match;

  stimulus_gen stim1 (.clk, .*, .d, .rst);
  RefModule good1 (.clk, .rst, .d, .q(q_ref));
  TopModule top_module1 (.clk, .rst, .d, .q(q_dut));

  final begin
    if (stats1.errors_q) $display("Hint: Output '%s' has %0d mismatches. First mismatch occurred at time %0d.",
      "q", stats1.errors_q, stats1.errortime_q);
    else $display("Hint: Output '%s' has no mismatches.", "q");
    $display("Mismatches: %1d in %1d samples", stats1.errors, stats1.clocks);
  end

  assign tb_match = ({ q_ref } === ({ q_ref } ^ { q_dut } ^ { q_ref }));
  always @(posedge clk, negedge clk) begin
    stats1.clocks++;
    if (!tb_match) begin
      if (stats1.errors == 0) stats1.errortime = $time;
      stats1.errors++;
    end
    if (q_ref !== (q_ref ^ q_dut ^ q_ref)) begin
      if (stats1.errors_q == 0) stats1.errortime_q = $time;
      stats1.errors_q = stats1.errors_q + 1'b1;
    end
  end

  initial begin
    #100000
    $display("TIMEOUT");
    $finish();
  end
endmodule
"""

HEADER = "(input clk, input rst, input [3:0] d, output reg [3:0] q)"
PORTS = f"TopModule {HEADER}"
BODIES = {
    "Prob001_register": "always @(posedge clk) if (rst) q <= 0; else q <= d;",
    "Prob002_sum": "always @(posedge clk) if (rst) q <= 0; else q <= q + d;",
    "Prob003_parity": (
        "wire p; parity_of h (.d(d), .p(p)); always @* q = {rst, 2'b0, p};\nendmodule\n"
        "module parity_of (input [3:0] d, output p); assign p = ^d;"
    ),
}


def module(header: str, body: str) -> str:
    return f"module {header};\n{body}\nendmodule\n"


def write_benchmark(folder: Path) -> Path:
    """Three small problems in VerilogEval's layout."""
    folder.mkdir(exist_ok=True)
    for task, body in BODIES.items():
        (folder / f"{task}_prompt.txt").write_text(f"\nImplement {task} as TopModule.\n\n")
        (folder / f"{task}_ref.sv").write_text(module(f"RefModule {HEADER}", body))
        (folder / f"{task}_test.sv").write_text(TESTBENCH)
    return folder


def solution(task: str) -> str:
    return module(PORTS, BODIES[task])


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def solve() -> Callable[[str], str]:
    """From a task's id to a right answer."""
    return solution


@pytest.fixture(scope="session")
def top() -> Callable[[str], str]:
    """From a body to a TopModule with the benchmark's ports."""
    return lambda body: module(PORTS, body)


@pytest.fixture
def behave() -> type[Behaviour]:
    return Behaviour


@pytest.fixture
def serve_openai() -> Callable[[Behaviour], AbstractContextManager[str]]:
    return serving
