"""The notebooks run from top to bottom, and git holds them without their outputs."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def execute(path: Path, folder: Path) -> list[dict]:
    """The outputs of the notebook, started in `folder`."""
    book = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=place).execute()
    return [output for cell in book.cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def started(
    trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, tuple[Future, Path]]]:
    """Notebook -> its outputs to come and its folder, which was empty; two run at a time."""
    code = shutil.copytree(PROJECT / "src", trained / "src")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("PYTHONPATH", str(code))  # makes the small project the root
        folders = {path: tmp_path_factory.mktemp("elsewhere") for path in NOTEBOOKS}
        yield {path: (pool.submit(execute, path, at), at) for path, at in folders.items()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, started):
    """It starts in an unrelated folder, finds the project all the same, and leaves no file."""
    outputs, folder = started[path]
    figures = [output for output in outputs.result() if "image/png" in output.get("data", {})]
    assert figures, "no figure is shown"
    assert not list(folder.iterdir())


def committed(path: Path) -> str:
    """The notebook as git holds it; the file itself if git does not know it."""
    command = ["git", "-C", str(path.parent), "show", f":./{path.name}"]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")
    except (OSError, subprocess.CalledProcessError):
        return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_without_outputs(path):
    cells = json.loads(committed(path))["cells"]
    ids = [cell["id"] for cell in cells]
    assert len(ids) == len(set(ids))
    for cell in cells:
        if cell["cell_type"] == "code":
            clean = not cell["outputs"] and cell["execution_count"] is None
            assert clean, f"cell {cell['id']}: run nbstripout, or commit with the hooks"
