"""The key of pseudonyms: made once, read by its owner only, seen in no query."""

import hashlib
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import ibis
import pytest

from stedi_assets import resources
from stedi_assets.engines.duckdb import DuckDBEngine
from stedi_assets.lake import Lake, open_lake
from stedi_assets.privacy.pseudonyms import KEY_FILE, local_key, pseudonym
from stedi_assets.resources import open_engine, pseudonym_key
from stedi_assets.tables import TABLES
from stedi_assets_tests.conftest import Bucket

KEY = "k" * 16 + "-from-outside"


def pseudonym_by(engine: DuckDBEngine, value: str) -> str:
    return engine.ibis.to_pyarrow(pseudonym(ibis.literal(value))).as_py()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_lake_has_one_key_from_the_first_call_on(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there yet"
    key = local_key(root)
    assert len(key) == 64
    assert int(key, 16)
    assert [local_key(root), (root / KEY_FILE).read_text()] == [key, key]
    assert [path.name for path in root.rglob("*") if path.is_file()] == [KEY_FILE]


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    local_key(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_key_is_made_where_it_is_removed_if_the_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile: list[str] = []

    def token(size: int) -> str:
        meanwhile.extend(path.parts[len(tmp_path.parts)] for path in tmp_path.rglob("*"))
        return "00" * size

    monkeypatch.setattr("secrets.token_hex", token)
    assert local_key(tmp_path) == "00" * 32
    assert {*meanwhile} == {"_staging"}


def test_two_lakes_have_two_keys(tmp_path: Path) -> None:
    assert local_key(tmp_path / "one") != local_key(tmp_path / "two")


def test_processes_that_come_at_once_get_the_same_key(tmp_path: Path) -> None:
    roots = [tmp_path / f"lake {number}" for number in range(20)]
    program = (
        "import sys; from pathlib import Path; "
        "from stedi_assets.privacy.pseudonyms import local_key; "
        "print(end='ready', flush=True); sys.stdin.read(1); "
        "print('', *(local_key(Path(root)) for root in sys.argv[1:]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, roots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.read(len("ready")) == "ready"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.communicate(timeout=30)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert found == [[local_key(root) for root in roots]] * 4
    assert len(set(found[0])) == len(roots)


def test_threads_that_come_at_once_get_the_same_key(tmp_path: Path) -> None:
    threads = 8
    barrier = Barrier(threads)

    def key_of(root: Path) -> str:
        barrier.wait()
        return local_key(root)

    with ThreadPoolExecutor(threads) as pool:
        for number in range(50):
            root = tmp_path / f"lake {number}"
            keys = set(pool.map(key_of, [root] * threads))
            assert keys == {local_key(root)}
            assert [path.name for path in root.rglob("*") if path.is_file()] == [KEY_FILE]


def test_the_key_of_the_environment_goes_before_the_lake_s_own(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    assert pseudonym_key(lake) == KEY
    assert not (lake.storage.root / KEY_FILE).exists()
    with open_engine(lake) as engine:
        assert pseudonym_by(engine, "ann@stedi.com") == sha256(KEY + "ann@stedi.com")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "")
    assert pseudonym_key(lake) == local_key(lake.storage.root)


def test_no_pseudonym_is_made_with_a_blank_key(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", " \n")
    with pytest.raises(ValueError, match="STEDI_PSEUDONYM_KEY is blank"):
        pseudonym_key(lake)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY_SECRET", "stedi")
    monkeypatch.setattr(resources, "_secret", lambda _: "")
    with pytest.raises(ValueError, match="'stedi', which is blank"):
        pseudonym_key(lake)


def test_a_key_s_file_that_was_emptied_is_not_taken_for_a_key(tmp_path: Path) -> None:
    key = local_key(tmp_path)
    (tmp_path / KEY_FILE).write_text("\n")
    with pytest.raises(ValueError, match=r"is blank\. Put it back from a copy"):
        local_key(tmp_path)
    (tmp_path / KEY_FILE).write_text(key)
    assert local_key(tmp_path) == key


def test_a_lake_on_s3_has_no_key_of_its_own(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = open_lake(f"s3://{bucket.name}", tmp_path)
    with pytest.raises(ValueError, match="STEDI_PSEUDONYM_KEY is not set: set it to a secret"):
        pseudonym_key(lake)
    with pytest.raises(ValueError, match="STEDI_PSEUDONYM_KEY"), open_engine(lake):
        pass
    assert bucket.keys == []
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    assert pseudonym_key(lake) == KEY


def test_every_engine_over_a_lake_gives_a_value_the_same_pseudonym(lake: Lake) -> None:
    found = []
    for _ in range(2):
        with open_engine(lake) as engine:
            found.append(pseudonym_by(engine, "zoë@stedi.com"))
    assert found == [sha256(local_key(lake.storage.root) + "zoë@stedi.com")] * 2


def test_the_key_is_in_no_query_of_a_curated_table(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedi_assets.assets.curated import customers_curated, machine_learning_curated

    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    with open_engine(lake) as engine:
        for definition in (customers_curated, machine_learning_curated):
            upstream = {name: engine.table(TABLES[name], {}) for name in definition.needs}
            expression = definition(**upstream)
            for sql in (
                ibis.to_sql(expression, dialect="duckdb"),
                str(engine.ibis.compile(expression)),
                str(engine.ibis.compile(expression, pretty=True)),
            ):
                assert "pseudonym" in sql.lower()
                assert KEY not in sql
            engine.connection.execute(f"CREATE OR REPLACE VIEW looked_at AS {sql}")
            views = engine.connection.execute("SELECT sql FROM duckdb_views()").fetchall()
            macros = engine.connection.execute(
                "SELECT macro_definition FROM duckdb_functions() WHERE function_name = 'pseudonym'"
            ).fetchall()
            assert macros
            assert not any(KEY in (sql or "") for (sql,) in [*views, *macros])
