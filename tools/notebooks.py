"""Run the notebooks of docs/notebooks and write them back with what they showed.

    python -m tools.notebooks

Each runs from its own cells in an empty folder and draws what it needs. Times, machine-dependent paths and large pictures do
not stay: pictures are made small, and a cell tagged `varies` is not compared by the test.
"""

import argparse
import asyncio
import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "docs" / "notebooks"
NOTEBOOKS = ("quick_start", "your_own_masks", "profile_and_score")
WIDEST = 640  # pixels of a picture that stays


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a fresh run in a folder; nbclient's error where a cell fails."""
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    fresh = nbformat.from_dict(notebook)
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "socket"))
    client = NotebookClient(fresh, timeout=300, km=kernel, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute(env={**os.environ, "PYTHONPATH": str(CHECKOUT)}))
    return fresh


def shown(cell: Any) -> list[str]:
    """What a cell shows, without what may vary: text as it is, of pictures and tables that they are there."""
    outputs = cell.get("outputs", ())
    result = ["".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")]
    for output in outputs:
        if output.output_type == "stream":
            continue
        if "image/png" in output.data:
            result.append("picture")
        elif "text/html" in output.data and "<figure" in output.data["text/html"]:
            result.append("card")
        else:
            result.append(output.data["text/plain"])
    return result


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without times, kernel names and large pictures."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        for output in cell.get("outputs", ()):
            if "data" in output and "image/png" in output.data:
                output.data["image/png"] = small(output.data["image/png"])
                output.metadata = nbformat.from_dict({})
    return notebook


def small(png: str) -> str:
    """A picture in base64, at most `WIDEST` wide and of 128 colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(128).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description="Run the notebooks.")
    parser.add_argument("names", nargs="*", default=NOTEBOOKS)
    parser.add_argument("--to", type=Path, default=FOLDER, help="where they are written (default: where they are)")
    options = parser.parse_args()
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            notebook = tidy(run(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), Path(folder)))
        path = options.to / f"{name}.ipynb"
        nbformat.write(notebook, path)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
