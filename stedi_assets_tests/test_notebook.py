"""docs/training.ipynb and the README's way to a DataFrame, as they are, on a sample lake."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import nbformat
import pytest
from nbclient import NotebookClient

from stedi_assets import Lakehouse
from stedi_assets.sample_data import write_sample
from stedi_assets_tests.end_to_end.histories import Runner
from stedi_assets_tests.end_to_end.process import stedi, succeeded

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "training.ipynb"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the lake that `make run` makes."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder / "lake")
    runner = Runner(folder / "lake")
    runner.reconcile(False)
    runner.end()
    return folder


README = (ROOT / "README.md").read_text()
FOR_SCIENCE = README.partition("## For data scientists\n")[2].partition("\n## ")[0]


@pytest.mark.long
def test_the_readme_leads_to_a_dataframe_and_a_training_set(sample: Path) -> None:
    first, *others = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = first.replace('Lakehouse("lake")', 'everything = Lakehouse("lake")')
    code += "print(len(everything))\n" + "\n".join(others)
    code += "\nprint(len(frame), len(train))"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=sample, capture_output=True, text=True, check=True
    )
    ((whole, expected),) = duckdb.sql(
        "SELECT count(*), count(*) FILTER (same_customer "
        "AND ingestion_date BETWEEN '2023-08-07' AND '2023-08-12') "
        f"FROM read_parquet('{sample}/lake/step_trainer/curated/*/*.parquet')"
    ).fetchall()
    (snapshot,) = (of for of in Lakehouse(sample / "lake").snapshots() if of.name == "walks-1")
    assert told.stdout.splitlines() == [
        f"{whole}",
        f"{snapshot.rows} reference 2023-08-12 {snapshot.checksum}",
        f"{expected} {snapshot.splits['train']['rows']}",
    ]
    assert told.stderr == ""
    commands = re.findall(r"^stedi .*", FOR_SCIENCE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        succeeded(stedi(str(sample / "lake"), *shlex.split(command, comments=True)[1:]))


def test_the_notebook_is_kept_without_outputs() -> None:
    """They would say what some lake held when somebody last looked."""
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.long
def test_the_notebook_runs_and_its_model_learns_nothing_from_what_is_made_up(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_LAKE", str(sample / "lake"))
    monkeypatch.setenv("IPYTHONDIR", str(sample / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(sample)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert "".join(output.text for output in outputs if output.get("name") == "stderr") == ""
    (picture,) = [of.data for of in outputs if "image/png" in of.get("data", {})]
    assert len(picture["image/png"]) > 20_000
    told = "".join(output.text for output in outputs if output.get("name") == "stdout")
    (snapshot,) = (of for of in Lakehouse(sample / "lake").snapshots() if of.name == "notebook")
    assert f"{snapshot.rows:,} rows, policy reference, checksum {snapshot.checksum}" in told
    found = re.search(r"the model is ([+-]\d+\.\d)% nearer than the guess", told)
    assert found
    assert abs(float(found[1])) < 5, "made-up distances hang on nothing: it has seen them"
