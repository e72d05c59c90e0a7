"""Only one process at a time uses a state directory."""

import os
import pathlib

import pytest

from agent_flows.reporting.state_dir import StateDirTaken, take


def test_a_directory_in_use_is_refused_with_its_name_and_the_process(
    tmp_path: pathlib.Path,
) -> None:
    directory = tmp_path / "made" / "here"
    lock = take(directory)
    with pytest.raises(StateDirTaken, match=f"{directory}.*process {os.getpid()}"):
        take(directory)
    lock.close()
    take(directory).close()


@pytest.mark.parametrize("content", ["", "no pid", "\x00\xff", "9" * 400])
def test_a_lock_file_without_a_process_id_is_still_locked(
    tmp_path: pathlib.Path, content: str
) -> None:
    lock = take(tmp_path)
    (tmp_path / "lock").write_text(content, encoding="latin-1")
    with pytest.raises(StateDirTaken, match="another agent"):
        take(tmp_path)
    lock.close()


def test_the_lock_file_of_a_killed_process_is_not_locked(tmp_path: pathlib.Path) -> None:
    (tmp_path / "lock").write_text("12345\n")
    with take(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
