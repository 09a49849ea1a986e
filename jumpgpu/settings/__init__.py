"""Settings. Takes TOML files and names; gives frozen dataclasses and the spelling of columns. Imports nothing of the
package."""

from . import table_steps as table_steps  # its kinds, and those of steps, are what config reads of [[steps]]
from . import steps as steps
