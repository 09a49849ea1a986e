"""Settings. Takes TOML files and names; gives frozen dataclasses and the spelling of columns. Imports nothing of the
package."""

from . import table_steps as table_steps  # with steps: the kinds that config reads of [[steps]]
