"""Settings. Takes TOML files and names; gives frozen dataclasses and the spelling of columns. Imports nothing of the
package."""

from . import steps as steps  # its kinds are what config reads of [[steps]]
