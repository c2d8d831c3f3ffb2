from __future__ import annotations

import pytest

from policy_accel.cli import main
from policy_accel.commands.arguments import build_parser
from policy_accel.commands.overview import SUMMARIES, Readable

NESTED = [["data", action] for action in ("inspect", "fetch", "convert", "encode", "decode", "generate")] + [
    ["benchmark", what] for what in ("step", "sample", "latency", "rollouts", "time-to-score")
]


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


@pytest.mark.parametrize("words", [[], *([name] for name in SUMMARIES), *NESTED], ids=" ".join)
def test_a_help_fits_80_columns(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_a_long_example_goes_on_behind_a_backslash() -> None:
    text = Readable("program", width=40)._fill_text("examples:\n  program one --two three --four five", 30, "")
    assert text == "examples:\n  program one --two three \\\n      --four five"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--foo"], "policy-accel: error: unrecognized arguments: --foo"),
        (
            ["train", "--print-confg"],
            "policy-accel train: error: unrecognized arguments: --print-confg; did you mean --print-config?",
        ),
        (["data", "inspect", "x", "--shet"], "policy-accel data inspect: error: unrecognized arguments: --shet"),
        (["train", "--seed=1"], "policy-accel train: error: unrecognized arguments: --seed=1; a setting has no dashes"),
        (["train", "--seed", "1"], "unrecognized arguments: --seed; a setting has no dashes: seed=1"),
        (["train", "task=lift", "--seed", "1"], "unrecognized arguments: --seed 1; a setting has no dashes: seed=1"),
        (["train", "--seed"], "unrecognized arguments: --seed\n"),
        (["list"], "policy-accel list: error: the following arguments are required: KIND\n"),
        (["diagnose"], "policy-accel diagnose: error: the following arguments are required: DATASET\n"),
        (["distill"], "policy-accel distill: error: the following arguments are required: RUN, --evaluations\n"),
        (
            ["evaluate", "x", "--episodes", "ten"],
            "policy-accel evaluate: error: argument --episodes: 'ten' is no whole",
        ),
        (
            ["evaluate", "x", "--guidance", "ten"],
            "policy-accel evaluate: error: argument --guidance: 'ten' is no number",
        ),
    ],
)
def test_a_mistake_is_named_by_the_command(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With its usage where that is short, else with the command that explains it."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") <= 6
    assert ("usage:" in err) != ("--help` explains" in err)


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "no command 'trian'; did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["data", "inspect", ""], ["evaluate", "run", "--data", ""], ["report", "run", ""]])
def test_an_empty_word_is_no_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As `Path("")` is."""
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"policy-accel: argument {len(words)} is empty, as a variable")
