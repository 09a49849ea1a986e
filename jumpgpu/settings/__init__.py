"""Settings: of TOML files and names, frozen dataclasses and the spelling of columns. Imports nothing of the package."""

from . import filter_steps as filter_steps  # with table_steps and steps: the kinds that config reads of [[steps]]
from . import table_steps as table_steps
