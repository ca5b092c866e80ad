"""The base of every recipe section, and paths that are read relative to the recipe file.

Sections are frozen and refuse unknown keys. A field typed `InputPath` names a file or folder whose *content*
belongs to a stage's fingerprint; its own spelling does not.
"""

import datetime
import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_remote(path: str) -> bool:
    """Whether a model's path names nothing here, but is a URL or can be a Hub id. `./x` and `../x` are paths."""
    return "://" in path or (_HUB_ID.fullmatch(path) is not None and not os.path.exists(path))


def absolute(path: str) -> str:
    """A path of this machine, made absolute from the working folder; what lies elsewhere, and "", is left as it is."""
    return path if not path or is_remote(path) else os.path.abspath(os.path.expanduser(path))


Place = Annotated[str, AfterValidator(absolute)]
"""A file or folder that a stage reads; a job file may name it relative to the working folder."""


class InputMarker:
    """Annotation that marks a field as the path of an input (see `InputPath`)."""


def _beside_recipe(path: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if base is None or "://" in path or os.path.isabs(path):
        return path
    beside = os.path.normpath(os.path.join(base, os.path.expanduser(path)))
    return beside if os.path.exists(beside) else path


InputPath = Annotated[str, AfterValidator(_beside_recipe), InputMarker()]
"""A path relative to the recipe file where it exists there; else left as written (a Hub id, gs://, or relative to the
working directory). Validate with `context={"base": folder_of_recipe}`."""


def _day(value: Any) -> Any:
    return None if value is None else datetime.date.fromisoformat(str(value)).isoformat()


Day = Annotated[str, BeforeValidator(_day)]
"""A date, as YYYY-MM-DD; YAML reads an unquoted one as a date of its own."""
Stamped = tuple[int, int, int, int, str]
"""Size, inode, time of modification and of change (ns) of a file, and the sha256 that it has while they stay."""
Known = dict[str, Stamped]
"""Digests by resolved path, for a stage that would else compute them again (see `common.digests.known`)."""
