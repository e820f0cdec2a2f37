"""What people see."""

import io

from rich.console import Console

from osmose.engine.clock import Clock
from osmose.engine.progress import Progress

CLOCK = Clock(step=0, steps_per_epoch=10, epochs=2, batch_size=32)


def test_plain_lines_without_a_terminal_go_to_stderr(capsys):
    progress = Progress()
    with progress.running(CLOCK):
        progress.advance(10)
        progress.show({"step": 5, "epoch": 1, "loss": 0.5})  # too soon after the start for a line of its own
        progress.show({"step": 10, "epoch": 1, "loss": 0.25, "kl": 0.125})
        progress.show({"step": 10, "epoch": 1, "heldout_accuracy": 80.0})
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("epoch 1/2 step 10/20 loss 0.25 kl 0.125 heldout_accuracy 80 ")
    assert line.endswith("left")


def test_quiet_shows_nothing(capsys):
    progress = Progress(quiet=True)
    with progress.running(CLOCK):
        progress.advance(1)
        progress.show({"step": 10, "epoch": 1, "heldout_accuracy": 80.0})
        progress.message("hello")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_epoch_step_loss_rate_and_time_left():
    screen = io.StringIO()
    progress = Progress()
    progress.console = Console(file=screen, force_terminal=True, width=160)
    with progress.running(CLOCK):
        progress.show({"step": 5, "epoch": 1, "loss": 0.5})
        progress.advance(15)
    text = screen.getvalue()
    for part in ("epoch 2/2", "15/20", "loss 0.5", "samples/s"):
        assert part in text


def test_brackets_in_messages_are_text(capsys):
    Progress().message("note: [bold]x[/bold] [1, 2]")
    assert capsys.readouterr().err == "note: [bold]x[/bold] [1, 2]\n"


def test_a_run_without_evaluations_still_says_where_it_ended(capsys):
    progress = Progress()
    clock = Clock(step=0, steps_per_epoch=2, epochs=2, batch_size=8)
    with progress.running(clock):
        progress.show({"step": 2, "epoch": 1, "loss": 0.5})
        progress.show({"step": 4, "epoch": 2, "loss": 0.25})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 2/2 step 4/4 loss 0.25 ")
