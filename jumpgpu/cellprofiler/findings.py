"""What is not the same in an imported pipeline, and why something of it cannot be made."""

from dataclasses import dataclass, field

from ..settings import steps as kinds

LEVELS = ("labels", "values", "columns", "image tables", "output", "note")


@dataclass(frozen=True)
class Finding:
    """A line of what is not the same. `number` is the module's in `file`; 0 for the pipeline as a whole."""

    level: str
    file: str
    module: str
    number: int
    text: str


@dataclass(frozen=True)
class Source:
    """Where a pipeline's images are.

    pattern  of file names, with groups well, site, ...; None: none is told
    assign   channel -> regular expression of the paths of its files
    table    the name of LoadData's file
    """

    pattern: str | None = None
    assign: dict[str, str] = field(default_factory=dict)
    table: str = ""


@dataclass
class Translated:
    """Steps, and findings in the order of LEVELS. `channels`: of the images that the steps load, `functions`: of functions.

    `missing`: object sets that cannot be made. `function_steps` make the plate's illumination functions.
    `source`: where the images are.
    """

    steps: tuple[kinds.Step, ...]
    channels: tuple[str, ...]
    functions: tuple[str, ...]
    findings: list[Finding]
    objects: tuple[str, ...]
    missing: tuple[str, ...]
    function_steps: tuple[kinds.Step, ...] = ()
    source: Source = field(default_factory=Source)

    def of_level(self, *levels: str) -> list[Finding]:
        return [f for f in self.findings if f.level in levels]

    @property
    def verdict(self) -> dict[str, str]:
        """How labels, object columns and image tables come out beside CellProfiler's."""
        result = {f.level for f in self.findings}
        labels = (
            "refused"
            if self.missing or not (self.steps or self.function_steps)
            else "differ"
            if "labels" in result
            else "equal"
        )
        columns = (
            "missing"
            if "columns" in result or labels == "refused"
            else "differ"
            if result & {"values", "labels"}
            else "equal"
        )
        return {"labels": labels, "columns": columns, "image_tables": "missing" if "image tables" in result else "equal"}


@dataclass(frozen=True)
class Cause:
    """Why something cannot be made: the module that cannot be honoured, and what of it."""

    module: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.module} (module {self.number}): {self.text}"


class Unsupported(ValueError):
    """A setting of a module that cannot be honoured; the text says which. `cause`: an earlier module's, on which it
    hangs."""

    def __init__(self, text: str, cause: Cause | None = None):
        super().__init__(text)
        self.cause = cause
