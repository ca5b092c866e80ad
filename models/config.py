"""The recipe's `model` and `hardware` sections."""

from typing import Annotated, Literal

from pydantic import Field

from common.schema import InputPath, Section

AttentionName = Literal["auto", "exact", "blockwise", "splash", "cudnn"]


class ModelConfig(Section):
    """`model`: the base model."""

    path: InputPath = Field(description="Folder with config.json, tokenizer and safetensors, a Hub id, or gs://...")
    revision: str | None = Field(default=None, description="Of a Hub id: a commit, tag or branch")
    staging: str | None = Field(
        default=None,
        description="Folder that models are fetched to; None: Hugging Face's cache, ~/.cache/tapeout for URLs",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Type the weights are held and computed in"
    )


class HardwareConfig(Section):
    """`hardware`: how devices are laid out."""

    mesh: Literal["auto"] | dict[Literal["data", "fsdp", "tp"], Annotated[int, Field(ge=1)]] = Field(
        default="auto", description="Devices along each mesh axis; their product must be the number of devices"
    )
    replicate: Literal["none", "kv", "all"] = Field(
        default="none",
        description="What may be held whole on every device along tp where tp does not divide it: nothing, key-value "
        "heads, or any axis",
    )
    devices: int | None = Field(
        default=None, ge=1, description="Virtual CPU devices (for trying a mesh); None: what there is"
    )
    compile_cache: bool = Field(
        default=True, description="Keep compiled programs under the runs folder, or in $JAX_COMPILATION_CACHE_DIR"
    )
