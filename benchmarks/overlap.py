"""The wall time of a whole eval with our server, against that of its generation alone.

`python -m benchmarks.overlap MODEL BENCHMARK...`: 156 problems x 5, of one dataset or several, repeated where they are
fewer. A small model hardly writes Verilog, and what does not parse is not simulated: so each completion is decoded to
`--tokens`, and then stands for the reference, which is compiled and simulated in full; `--own` keeps the model's words.
Generation alone is the same requests by the same client, before and after the eval.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from common.benchmark import verilog_eval
from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Benchmark
from common.machine import cores
from eval.config import EvalConfig, EvalInputs
from eval.endpoint.client import Client
from eval.grade import harness
from eval.stage import run

PATIENCE_S = 3600.0


def gathered(folders: list[str], count: int, into: Path) -> Benchmark:
    """`count` problems of the folders, by turns through all of them, under names of their own."""
    found = [problem for folder in folders for problem in load_benchmark(folder).problems]
    taken = (found[i % len(found)] for i in range(count))
    renamed = (replace(problem, task_id=f"Prob{i:03d}_{problem.task_id}") for i, problem in enumerate(taken))
    verilog_eval.write(into, renamed)
    print(f"{count} problems, {min(count, len(found))} of them different")
    return load_benchmark(str(into))


@contextlib.contextmanager
def served(model: str, max_length: int) -> Iterator[str]:
    """Our server in a process of its own; yields its base URL."""
    command = [sys.executable, "-m", "tapeout", "serve", "--model", model, "--name", "m", "--port", "0"]
    command += ["--set", f"max_length={max_length}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    try:
        said = next((line for line in child.stdout if line.startswith("serving ")), None)
        if said is None:
            raise SystemExit("the server did not start")
        threading.Thread(target=child.stdout.read, daemon=True).start()
        yield said.split(" at ")[1].strip()
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def standing_for(benchmark: Benchmark, url: str, tokens: int) -> Iterator[str]:
    """A relay to the server: each completion is decoded to its last token, and its text is then the reference's."""
    answers = {p.prompt: f"```verilog\n{harness.reference_as_design(p)}\n```" for p in benchmark.problems}
    http = httpx.Client(timeout=PATIENCE_S)

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = http.post(f"{url}/chat/completions", json=asked | {"ignore_eos": True, "max_tokens": tokens})
            body = reply.content
            if reply.status_code == 200:
                told = reply.json()
                for choice in told["choices"]:
                    choice["message"]["content"] = answers[asked["messages"][-1]["content"]]
                body = json.dumps(told).encode()
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        http.close()


async def _generate(benchmark: Benchmark, config: EvalConfig, url: str) -> int:
    async with Client(url, "m", config) as client:
        rows = await asyncio.gather(*(client.samples(problem, set()) for problem in benchmark.problems))
    return sum(round(each[0]["request"]["completion_tokens"]) for each in rows)


def generation_alone(benchmark: Benchmark, config: EvalConfig, url: str) -> float:
    start = time.perf_counter()
    tokens = asyncio.run(_generate(benchmark, config, url))
    wall = time.perf_counter() - start
    print(f"generation alone: {wall:.1f} s, {tokens} tokens, {tokens / wall:.0f} tokens/s", flush=True)
    return wall


def measure(benchmark: Benchmark, config: EvalConfig, url: str, out: Path) -> None:
    """Warm up, then generation alone, the whole stage, and generation alone again."""
    asyncio.run(_generate(Benchmark("first", benchmark.problems[: config.concurrency]), config, url))
    alone = [generation_alone(benchmark, config, url)]
    metrics = run(config, EvalInputs(endpoint=url, model="m"), out)
    wall = metrics["seconds"]
    print(f"the eval: {wall:.1f} s; the last completion came at {metrics['generation_seconds']:.1f} s", flush=True)
    told = {name.removeprefix("category_"): n for name, n in metrics.items() if name.startswith("category_") and n}
    print(f"  {metrics['samples']} samples, {told}; {metrics['simulation_seconds']:.1f} s of workers' time")
    alone.append(generation_alone(benchmark, config, url))
    print(f"wall time of the eval against generation alone (the faster of two): {wall / min(alone):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("benchmark", nargs="+")
    parser.add_argument("--problems", type=int, default=156)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--own", action="store_true", help="Grade what the model wrote, as short as it ends it")
    parser.add_argument("--max-length", type=int, default=2048)
    options = parser.parse_args()
    print(f"{cores()} cores, load before {os.getloadavg()[0]:.1f}")
    with contextlib.ExitStack() as stack:
        folder, out = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        benchmark = gathered(options.benchmark, options.problems, folder)
        url = stack.enter_context(served(options.model, options.max_length))
        if not options.own:
            url = stack.enter_context(standing_for(benchmark, url, options.tokens))
        config = EvalConfig(benchmark=str(folder), samples=options.samples, max_tokens=options.tokens)
        measure(benchmark, config, url, out)


if __name__ == "__main__":
    main()
