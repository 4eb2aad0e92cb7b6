from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from data_pipeline.build.build_job import check_work


@pytest.mark.parametrize("name", ["report.html", "chains.jsonl"])
def test_files_that_no_build_has_written_are_not_replaced(tmp_path: Path, name: str) -> None:
    check_work(str(tmp_path), tmp_path.parent / "out")
    (tmp_path / name).write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=f"--work: .*holds a {name} that no build has written"):
        check_work(str(tmp_path), tmp_path.parent / "out")
    (tmp_path / "stages").mkdir()
    check_work(str(tmp_path), tmp_path.parent / "out")


@pytest.mark.parametrize("work", ["data", "data/work", "data/."])
def test_the_dataset_folder_is_no_work_folder(tmp_path: Path, work: str) -> None:
    with pytest.raises(UserError, match=r"--work: .*name another folder"):
        check_work(f"{tmp_path}/{work}", f"{tmp_path}/data")
    check_work(f"{tmp_path}/data.work", f"{tmp_path}/data")
