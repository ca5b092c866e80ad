"""The recipe's `convert` section, and what the stage reads."""

from pydantic import Field

from common.schema import Section

VERSION = 1


class ConvertConfig(Section):
    """`convert`: adapter and base to a model that others load."""

    peft: bool = Field(default=True, description="Also write the adapter in PEFT's layout")
    step: int | None = Field(default=None, ge=1, description="Checkpoint to convert; None: the last")


class ConvertInputs(Section):
    base: str = Field(description="Folder of the base model")
    adapter: str = Field(description="Artifact of the train stage, or a PEFT adapter folder")
