"""What decides whether the stack is built anew, and how failures of the tools are told."""

import os
import sys
from pathlib import Path

import pytest

from local.stack import RUNTIMES, StackError, architecture, hash_of_inputs, python_runtime, run

OVERRIDES = {"PythonRuntime": "python3.13", "Architecture": "x86_64"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "template.yaml").write_text("Resources: {}\n")
    (tmp_path / "functions" / "api").mkdir(parents=True)
    (tmp_path / "functions" / "api" / "app.py").write_text("handler = None\n")
    (tmp_path / "layers" / "core").mkdir(parents=True)
    (tmp_path / "layers" / "core" / "requirements.txt").write_text("boto3\n")
    return tmp_path


@pytest.mark.parametrize(
    "changed", ["template.yaml", "functions/api/app.py", "layers/core/requirements.txt", "functions/new.py"]
)
def test_a_changed_input_is_noticed(root: Path, changed: str) -> None:
    before = hash_of_inputs(root, OVERRIDES)
    assert hash_of_inputs(root, OVERRIDES) == before
    (root / changed).write_text("something else\n")
    assert hash_of_inputs(root, OVERRIDES) != before


def test_a_moved_line_between_two_files_is_noticed(root: Path) -> None:
    (root / "functions" / "a.py").write_text("1\n")
    (root / "functions" / "b.py").write_text("2\n")
    before = hash_of_inputs(root, OVERRIDES)
    (root / "functions" / "a.py").write_text("1\n2\n")
    (root / "functions" / "b.py").write_text("")
    assert hash_of_inputs(root, OVERRIDES) != before


def test_other_parameters_are_noticed_and_bytecode_is_not(root: Path) -> None:
    before = hash_of_inputs(root, OVERRIDES)
    (root / "functions" / "__pycache__").mkdir()
    (root / "functions" / "__pycache__" / "app.pyc").write_bytes(b"\0")
    assert hash_of_inputs(root, OVERRIDES) == before
    assert hash_of_inputs(root, {**OVERRIDES, "Architecture": "arm64"}) != before


def test_a_failing_tool_is_told_with_its_last_words(tmp_path: Path) -> None:
    script = "print('no such template'); raise SystemExit(2)"
    with pytest.raises(StackError, match=r"failed with status 2:\n  no such template"):
        run([sys.executable, "-c", script], {}, tmp_path)


def test_tools_see_no_account_of_the_users_and_this_environments_programs_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("SAM_CONFIG_FILE", "/elsewhere")
    script = "import os; open('seen', 'w').write('\\n'.join(f'{n}={v}' for n, v in os.environ.items()))"
    run([sys.executable, "-c", script], {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, tmp_path)
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert "AWS_PROFILE" not in seen
    assert "SAM_CONFIG_FILE" not in seen
    assert seen["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert seen["SAM_CLI_TELEMETRY"] == "0"
    assert seen["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_this_interpreter_and_machine_have_names_that_lambda_knows() -> None:
    assert python_runtime() in RUNTIMES
    assert architecture() in {"x86_64", "arm64"}
