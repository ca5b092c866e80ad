"""The recipe's `serve` section, and what the stage reads."""

from typing import Annotated, Literal

from pydantic import Field

from common.schema import Day, Place, Section
from models.config import AttentionName

VERSION = 1


class ServeConfig(Section):
    """`serve`: the inference engine and its server."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535, description="0: any free port")
    slots: int = Field(default=64, ge=1, description="Sequences decoded together")
    max_length: int = Field(default=1024, ge=16, description="Longest prompt plus completion, in tokens")
    max_waiting: int = Field(default=1024, ge=1, description="Samples queued before clients are answered 429")
    decode_steps: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        default="auto", description="Tokens per sequence in one dispatch to the device; auto: 1 on CPU, 8 elsewhere"
    )
    drain_seconds: int = Field(default=5, ge=0, description="After SIGTERM, time that open requests get to finish")
    api_keys: str | None = Field(
        default=None, description="File of API keys, one a line, of which clients must send one; None: no keys"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Names that clients may call the server by, besides localhost; on localhost only these"
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Sites whose pages may ask this server, such as https://example.org; *: any"
    )
    max_body_mib: int = Field(default=4, ge=1, description="Largest request, in MiB")
    max_connections: int = Field(default=2048, ge=1, description="Clients connected at a time")
    client_seconds: int = Field(
        default=30, ge=1, description="Time for a request's head, for its body, and between two requests"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Literal["int8", "int4", "nf4"] | None = Field(
        default=None, description="Quantize the weights so while loading; None: as the model's files hold them"
    )
    tp: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="Devices that heads are spread over; auto: as many as the model's sizes allow"
    )
    replicate: Literal["none", "kv", "all"] = Field(
        default="kv", description="What may be held whole on every device where tp does not divide it"
    )
    attention: AttentionName = Field(default="auto", description="How prompts are attended to: as train.attention")
    date: Day | None = Field(
        default=None, description="The day that a chat template is told it is; None: the day of the data trained on"
    )


class ServeInputs(Section):
    model: Place = Field(description="Folder of the model, in Hugging Face layout")
    adapter: Place | None = Field(default=None, description="Folder of a PEFT adapter, applied beside the weights")
    name: str = Field(default="model", description="Model name that clients use")
    probes: Place | None = Field(
        default=None, description="Artifact of the data stage, whose prompts must tokenise alike"
    )
