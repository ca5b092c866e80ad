"""The stage around the server: its files, its probes, its port, its end."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import UserError
from models.text.day import NOTE, note_of
from models.text.prompt import load_tokenizer, prompt_ids
from models.text.template import template_digest
from serve.access import url_of
from serve.config import ServeConfig
from serve.stage import bind, check_probes, day_of, read_dataset
from tests.serve.conftest import await_ready, start, write_job


def failure(job: Path) -> str:
    process = start(job)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    return errors


def write_probes(folder: Path, model: Path, **changes: Any) -> Path:
    tokenizer = load_tokenizer(str(model))
    messages = [{"role": "user", "content": "a counter"}]
    record = {
        "template_digest": template_digest(tokenizer),
        "probes": [{"messages": messages, "ids": prompt_ids(tokenizer, messages)}],
    }
    (folder / "dataset.json").write_text(json.dumps({**record, **changes}))
    return folder


def test_ready_files_and_a_clean_end_after_the_folder_was_renamed(model_folder: Path, tmp_path: Path) -> None:
    probes = write_probes(tmp_path, model_folder)
    process = start(write_job(tmp_path, model_folder, probes=probes, slots=2, max_length=32, decode_steps=2))
    served = await_ready(process, tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"load_seconds", "warmup_seconds", "programs"} <= metrics.keys() and metrics["programs"] > 0
    (tmp_path / "out").rename(tmp_path / "committed")
    assert httpx.get(f"http://127.0.0.1:{served.port}/health").status_code == 200
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (0, False), errors
    assert sorted(path.name for path in (tmp_path / "committed").iterdir()) == ["endpoint.json", "metrics.json"]
    assert not (tmp_path / "out").exists()


def test_a_url_names_an_address_as_urls_do() -> None:
    with bind("localhost", 0) as four:
        assert url_of("localhost", four) == f"http://localhost:{four.getsockname()[1]}/v1"
    with socket.socket(socket.AF_INET6) as six:
        assert httpx.URL(url_of("::1", six)).host == "::1"


def test_a_port_in_use_is_a_user_error(model_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"where: 127.0.0.1:{port}" in failure(write_job(tmp_path, model_folder, port=port))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template_digest": "0" * 64}, "template is not the one of the training data"),
        ({"probes": [{"messages": [{"role": "user", "content": "a"}], "ids": [2, 3]}]}, "probes.0"),
    ],
)
def test_a_model_that_tokenises_otherwise_is_refused(
    model_folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    probes = write_probes(tmp_path, model_folder, **changes)
    assert said in failure(write_job(tmp_path, model_folder, probes=probes))


def test_prompts_are_rendered_on_the_day_of_the_data(model_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "dated"
    model.mkdir()
    for file in model_folder.glob("*token*"):
        (model / file.name).write_bytes(file.read_bytes())
    dated = "{{ strftime_now('%d %b %Y') }}" + (model_folder / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(dated)
    messages = [{"role": "user", "content": "a counter"}]
    ids = prompt_ids(load_tokenizer(str(model), "2020-02-29"), messages)
    path = write_probes(tmp_path, model, probes=[{"messages": messages, "ids": ids}], date="2020-02-29")
    dataset = read_dataset(path / "dataset.json")
    for config in (ServeConfig(), ServeConfig.model_validate({"date": "2020-02-29"})):
        check_probes(load_tokenizer(str(model), day_of(config, dataset, None)), dataset, path)
    other = day_of(ServeConfig.model_validate({"date": "2021-01-01"}), dataset, None)
    with pytest.raises(UserError, match="tokenises differently"):
        check_probes(load_tokenizer(str(model), other), dataset, path)
    (tmp_path / NOTE).write_bytes(note_of("2020-02-29"))  # as `convert` leaves it in an adapter or a model
    check_probes(load_tokenizer(str(model), day_of(ServeConfig(), None, str(tmp_path))), dataset, path)
    assert day_of(ServeConfig(), None, str(model)) is None
    (model / NOTE).write_bytes(note_of("2020-02-29"))
    check_probes(load_tokenizer(str(model), day_of(ServeConfig(), None, None)), dataset, path)
