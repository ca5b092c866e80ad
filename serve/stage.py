"""Stage 4: load a model, prove that it tokenises as the data stage did, compile, announce the endpoint, serve."""

import socket
import time
from pathlib import Path
from typing import Any, NoReturn

from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.files import read_json, write_json
from common.progress import log
from common.stage import METRICS
from models.adapters.lora import attach, known_products
from models.adapters.peft import read_peft_adapter
from models.folder.load import load_decoder
from models.folder.opened import ModelFolder
from models.mesh import serving_mesh
from models.text.day import noted_day
from models.text.eos_ids import eos_ids
from models.text.prompt import load_tokenizer, prompt_ids
from models.text.template import template_digest
from serve.access import room_for, rules, url_of
from serve.api.app import build_app
from serve.api.connection import build_server, end_on_signals
from serve.api.jobs import Hub
from serve.api.prompts import Model
from serve.config import ServeConfig, ServeInputs
from serve.engine.cache import spreads
from serve.engine.definitions import Definitions, steps_of
from serve.engine.engine import Engine
from serve.engine.metrics import Metrics
from serve.engine.programs import Programs
from serve.engine.scheduler import Scheduler

ENDPOINT = "endpoint.json"
CPU_PREFILL_TOKENS = 512
"""Of the prompts that run between two dispatches on CPU, where each token is time that running samples wait for."""
PREFILL_LENGTHS = 2
"""Full-length prompts that run between two dispatches elsewhere."""


def run(config: ServeConfig, inputs: ServeInputs, out: Path) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C, then exit 0. `out` gets its files when the server is ready, and none after that:
    it may be committed, that is renamed, while the server lives. So this returns no metrics; it raises SystemExit."""
    listener = bind(config.host, config.port)
    allowed = rules(config, listener.getsockname()[0])
    started = time.monotonic()
    dataset = None if inputs.probes is None else read_dataset(Path(inputs.probes) / "dataset.json")
    tokenizer = load_tokenizer(inputs.model, day_of(config, dataset, inputs.adapter))
    if dataset is not None:
        check_probes(tokenizer, dataset, Path(inputs.probes or "") / "dataset.json")
    engine, vocabulary_size = build_engine(config, inputs.model, tokenizer, inputs.adapter)
    load_seconds = time.monotonic() - started
    warmup_seconds = engine.programs.warm_up()
    model = Model(inputs.name, tokenizer, config.max_length, vocabulary_size, int(time.time()))
    hub = Hub(engine, config.max_waiting)
    server = build_server(
        build_app(hub, model, allowed, config.cors_origins),
        hub,
        seconds=config.client_seconds,
        connections=room_for(config.max_connections),
        drain_seconds=config.drain_seconds,
    )
    end_on_signals(server)
    listen(listener)
    url = url_of(config.host, listener)
    write_json(
        out / METRICS,
        {
            "load_seconds": round(load_seconds, 3),
            "warmup_seconds": round(warmup_seconds, 3),
            "programs": len(engine.programs),
            "slots": config.slots,
            "max_length": config.max_length,
        },
    )
    write_json(out / ENDPOINT, {"url": url, "name": inputs.name})
    log(f"serving {inputs.name} at {url}")
    server.run(sockets=[listener])
    if engine.error is not None:
        raise engine.error
    raise SystemExit(0)


def build_engine(
    config: ServeConfig, folder: str, tokenizer: PreTrainedTokenizerFast, adapter: str | None = None
) -> tuple[Engine, int]:
    """The engine of a model folder (and an adapter), nothing compiled yet, and the size of the model's vocabulary."""
    model = ModelFolder(Path(folder))
    mesh = serving_mesh(config.tp, config.replicate, model.spec)
    decoder = load_decoder(model, config.dtype, False, mesh, config.weights, config.attention)
    if adapter is not None:
        found = read_peft_adapter(Path(adapter), known_products(decoder))
        attached = attach(decoder, mesh, found, config.dtype)
        skipped = f", {len(attached.untrained)} never trained and not of this model" if attached.untrained else ""
        log(f"adapter: {len(found.pairs) - len(attached.untrained)} tensors, rank {attached.rank}{skipped}")
    if (copies := max((over.copies for over in spreads(decoder, config.slots) if over), default=1)) > 1:
        log(f"serve.slots = {config.slots} does not divide over the devices: {copies} hold the same keys and values")
    ends = eos_ids(folder, tokenizer)
    on_cpu = decoder.attention.platform == "cpu"
    steps = steps_of(config.decode_steps, decoder.attention.platform)
    programs = Programs(Definitions(decoder, config.slots, config.max_length, steps, ends))
    scheduler = Scheduler(config.slots, CPU_PREFILL_TOKENS if on_cpu else PREFILL_LENGTHS * config.max_length)
    engine = Engine(programs, scheduler, max_waiting=config.max_waiting, metrics=Metrics(), deliver=lambda events: None)
    return engine, decoder.spec.vocab


def read_dataset(path: Path) -> dict[str, Any]:
    """dataset.json of a data artifact. Raises UserError where there is none."""
    if not path.is_file():
        raise UserError("no such data artifact", where=str(path), fix="name the data stage's output folder")
    return read_json(path)


def day_of(config: ServeConfig, dataset: dict[str, Any] | None, adapter: str | None) -> str | None:
    """The day that the chat template is told: the recipe's, the data's or the adapter's; None: the model's, if any."""
    return config.date or (dataset or {}).get("date") or (None if adapter is None else noted_day(adapter))


def check_probes(tokenizer: PreTrainedTokenizerFast, dataset: dict[str, Any], path: Path) -> None:
    """The data stage's probes, rendered by this model's tokenizer, must give the ids that were trained on. Raises
    UserError for the first that does not."""
    fix = "serve the model with the tokenizer and chat template it was trained with"
    if dataset["template_digest"] != template_digest(tokenizer):
        raise UserError("the chat template is not the one of the training data", where=str(path), fix=fix)
    for number, probe in enumerate(dataset["probes"]):
        if prompt_ids(tokenizer, probe["messages"], probe.get("tools", ())) != probe["ids"]:
            raise UserError("a training prompt tokenises differently here", where=f"{path}: probes.{number}", fix=fix)


def bind(host: str, port: int) -> socket.socket:
    """Take the port early, before minutes of loading; clients are refused until `listen`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise _no_port(f"{host}:{port}", error) from None
    return listener


def listen(listener: socket.socket) -> None:
    try:
        listener.listen(2048)
    except OSError as error:
        raise _no_port("{}:{}".format(*listener.getsockname()[:2]), error) from None


def _no_port(address: str, error: OSError) -> UserError:
    return UserError(
        f"cannot listen: {error.strerror or error}",
        where=address,
        fix="set serve.host to an address of this machine, or choose another serve.port (0 takes any free one)",
    )
