"""Outputs and inputs apart: nothing of the user's is deleted, nothing that is no model's gets into the merged one."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from common.errors import UserError
from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run
from pipeline.run.alone import stage_step

BELONGS = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"),
    *("additional_chat_templates/tools.jinja", "tokenizer.model", "vocab.json", "merges.txt"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", "chat_template.json"),
    *("LICENSE", "license.txt", "NOTICE.md", "USE_POLICY.md", "README.md", "configuration_own.py"),
)
IS_OF_NO_MODEL = (
    *("NOTES.txt", "train.py", "adapter_config.json", "adapter_model.safetensors", "adapter.json", "metrics.json"),
    *("optimizer.pt", "pytorch_model.bin", "model.gguf", "trainer_state.json", "events.out.tfevents.1", "x.partial"),
    *("tokenizer.json.bak", "consolidated.safetensors", "data.jsonl", "log/progress.txt"),
    *("merged/model/config.json", "merged/model/tokenizer.json", "merged.partial/model/model.safetensors"),
    *("checkpoint-7/adapter_config.json", "original/LICENSE"),
)


def write(folder: Path, names: tuple[str, ...], content: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_of_no_model_stays_behind_and_the_rest_comes_along(make_base, make_adapter, convert) -> None:
    base = make_base()
    adapter = make_adapter(base)
    before = set(contents(base))
    write(base, (*BELONGS, *IS_OF_NO_MODEL, ".git/config"))
    out, _ = convert(base, adapter, quantize="int8")
    for folder in ("model", "quantized"):
        assert set(contents(out / folder)) == before | set(BELONGS)
    left_out = json.loads((out / "certificate.json").read_text())["left_out"]
    assert {name.split("/")[0] for name in left_out} == {name.split("/")[0] for name in IS_OF_NO_MODEL}
    AutoModelForCausalLM.from_pretrained(out / "model")


PLACES: dict[str, Callable[[Path], Path]] = {
    "itself": lambda each: each,
    "inside": lambda each: each / "merged",
    "deep inside": lambda each: each / "runs" / "a" / "b",
    "around": lambda each: each.parent,
    "by a link": lambda each: Path(shutil.copytree(each, each.with_name("elsewhere"), symlinks=True)).parent / "link",
    "by dots": lambda each: each.parent / "none" / ".." / each.name / "merged",
}


@pytest.mark.parametrize("which", ["base", "adapter", "probes"])
@pytest.mark.parametrize("how", PLACES)
def test_an_output_and_an_input_in_one_another_are_refused(tmp_path, how, which) -> None:
    inputs = {name: tmp_path / f"of-{name}" / name for name in ("base", "adapter", "probes")}
    for place in inputs.values():
        write(place, ("config.json",))
    out = PLACES[how](inputs[which])
    if how == "by a link":
        out.symlink_to(inputs[which])
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"an input \({which}\) lie in one another") as caught:
        run(ConvertConfig(), ConvertInputs.model_validate({name: str(path) for name, path in inputs.items()}), out)
    assert caught.value.fix and contents(tmp_path) == before


def test_a_result_in_the_base_is_refused_from_flags_as_well(tmp_path, monkeypatch) -> None:
    for name in ("base", "adapter"):
        write(tmp_path / name, ("config.json",))
    monkeypatch.chdir(tmp_path / "base")
    for out in ("merged", ".", "../adapter/merged", ".."):
        with pytest.raises(UserError, match="lie in one another"):
            stage_step("convert", {}, {"base": ".", "adapter": "../adapter"}, [], Path(out))


def test_what_no_conversion_wrote_is_in_the_way_and_stays(make_base, make_adapter, convert, tmp_path) -> None:
    base = make_base()
    adapter = make_adapter(base)
    for folder in ("model", "adapter", "quantized"):
        for name in ("mine.txt", "model.safetensors", "config.json", "below/mine.safetensors", "a.partial"):
            write(tmp_path / "out" / folder, (name,), "mine")
            with pytest.raises(UserError, match="no conversion wrote here") as caught:
                convert(base, adapter, quantize="int8")
            assert caught.value.where == str(tmp_path / "out" / folder / name)
            assert contents(tmp_path / "out") == {f"{folder}/{name}": b"mine"}
            shutil.rmtree(tmp_path / "out")


def test_the_next_conversion_replaces_the_files_of_the_last_and_no_others(make_base, make_adapter, convert) -> None:
    base = make_base(shard="12KB")
    adapter = make_adapter(base)
    write(base, ("LICENSE",))
    out, _ = convert(base, adapter, quantize="int8", max_shard_size="20KB")
    (base / "LICENSE").unlink()
    convert(base, adapter)
    assert not (out / "quantized").exists() or not contents(out / "quantized")
    assert contents(out) == contents(convert(base, adapter, "fresh")[0])
    (out / "model" / "mine.txt").write_text("mine")
    before = contents(out)
    with pytest.raises(UserError, match="no conversion wrote here"):
        convert(base, adapter)
    assert contents(out) == before


def test_two_at_once_in_one_folder_are_one(make_base, make_adapter, convert, tmp_path) -> None:
    base = make_base()
    adapter = make_adapter(base)
    want = contents(convert(base, adapter, "alone")[0])
    refused: list[UserError] = []

    def one() -> None:
        try:
            convert(base, adapter)
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(tmp_path / "out") == want
    assert all("another tapeout process" in str(error) for error in refused) and refused
