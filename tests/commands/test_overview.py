from __future__ import annotations

import pytest

from policy_accel.cli import main
from policy_accel.commands.arguments import build_parser
from policy_accel.commands.overview import SUMMARIES


def test_the_overview_names_every_command_in_thirty_short_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    (commands,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert list(SUMMARIES)
    assert set(SUMMARIES) == set(commands or ())
    for name, summary in SUMMARIES.items():
        assert sum(line[7:] == f"{name:<15}{summary}" for line in lines) == 1
    groups = {line[:7].strip(): line.split()[1] for line in lines if line[:5] in ("Start", "Train", "Judge", "Use  ")}
    assert {"Start": "demo", "Judge": "evaluate", "Use": "sample"}.items() <= groups.items()


def test_the_examples_of_the_overview_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = build_parser().format_help()
    examples = [line.split()[1:] for line in text.splitlines() if line.startswith("  policy-accel ")]
    assert len(examples) == 3
    assert [build_parser().parse_args(words).command for words in examples] == ["demo", "train", "evaluate"]


def test_without_a_command_the_overview_goes_to_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", build_parser().format_help())


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_help_of_a_command_begins_with_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    usage, description, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: policy-accel {name} ")
    assert description[0].isupper()
    assert description.rstrip().endswith((".", ":"))


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "no command 'trian'; did you mean 'train'?" in capsys.readouterr().err
