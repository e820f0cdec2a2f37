import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from safetensors.torch import load_file

import osmose
from osmose import grid, jobs
from osmose.errors import UserError
from osmose.recipe import Recipe, resolve

MLP, CNN = "fresh:zoo:mlp-xs", "fresh:zoo:cnn-xs"
BASE = {"data": {"name": "fashion-mnist-mini", "fraction": 0.02}, "epochs": 1, "batch_size": 64}
PAIRS: dict[str, Any] = {
    "base": BASE,
    "students": [MLP, CNN],
    "teachers": [MLP, CNN],
    "methods": {"kl": {"method": "distill"}, "ce": {"teacher": None, "method": "supervised"}},
}


def study(**changes: Any) -> dict[str, Any]:
    return {**PAIRS, **changes}


def names(values: Mapping[str, Any]) -> list[str]:
    return [cell.name for cell in grid.expand(values)]


# What runs there are


def test_every_combination_is_a_run_but_a_student_that_teaches_itself() -> None:
    assert names(study(seeds=[0, 7])) == [
        "fresh-mlp-xs-from-fresh-cnn-xs-kl-seed0",
        "fresh-mlp-xs-from-fresh-cnn-xs-kl-seed7",
        "fresh-cnn-xs-from-fresh-mlp-xs-kl-seed0",
        "fresh-cnn-xs-from-fresh-mlp-xs-kl-seed7",
        "fresh-mlp-xs-ce-seed0",
        "fresh-mlp-xs-ce-seed7",
        "fresh-cnn-xs-ce-seed0",
        "fresh-cnn-xs-ce-seed7",
    ]
    assert len(names(study(skip_same=False))) == 4 + 2


def test_a_runs_recipe_is_the_variant_laid_over_the_base() -> None:
    (cell,) = grid.expand(
        {
            "recipe": "zoo-cnn",
            "base": {"epochs": 3, "method": {"name": "distill", "target": "partition", "temperature": 2.0}},
            "students": [CNN],
            "teachers": [MLP],
            "methods": {"xe": {"method": {"kl_weight": 0.5}}},
            "seeds": [4],
        }
    )
    assert cell.recipe == resolve(
        {
            "student": CNN,
            "teacher": MLP,
            "data": "fashion-mnist-mini",
            "view": {"crop": "shift", "pad": 2, "colour": 0.0, "grayscale": 0.0},
            "method": {"name": "distill", "target": "partition", "temperature": 2.0, "kl_weight": 0.5},
            "epochs": 3,
            "batch_size": 128,
            "threads": 1,
            "log_every": 500,
            "seed": 4,
        }
    )


def test_settings_are_crossed_where_a_variant_does_not_fix_them() -> None:
    cells = grid.expand(
        study(
            students=[CNN],
            teachers=[MLP],
            settings={"epochs": [1, 2]},
            methods={
                "kl": {"method": "distill", "settings": {"method.optimiser.lr": [0.1, 0.01]}},
                "long": {"method": "distill", "epochs": 9},
            },
        )
    )
    found = [(cell.method, cell.recipe.epochs, cell.recipe.method["optimiser"]["lr"]) for cell in cells]
    assert found == [("kl", 1, 0.1), ("kl", 1, 0.01), ("kl", 2, 0.1), ("kl", 2, 0.01), ("long", 9, 1e-4)]
    assert cells[1].name == "fresh-cnn-xs-from-fresh-mlp-xs-kl-epochs=1-lr=0.01-seed0"
    assert cells[1].row({})["settings"] == "epochs=1, method.optimiser.lr=0.01"


def test_long_names_keep_their_ends_and_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems allow 255 bytes; beside the run's folder stand files with longer names."""
    monkeypatch.setattr(grid, "check_names", lambda recipes: None)  # of files that are not there
    place = "file:runs/" + "déep" * 60
    long = study(
        students=[CNN], teachers=[f"{place}/one", f"{place}/two"], methods={"kl": {"method": "distill"}}, seeds=[0, 1]
    )
    found = names(long)
    assert len(set(found)) == len(found) == 4
    for name in found:
        assert len(name.encode()) <= 200
        assert name.startswith("fresh-cnn-xs-from-file-runs-déepdéep")
        assert name.endswith(("-kl-seed0", "-kl-seed1"))
    assert found == names(long)


def test_a_teacher_of_each_seed() -> None:
    cells = grid.expand(study(teachers=["fresh:zoo:vit-xs,depth=$seed"], methods={"kl": {}}, seeds=[3, 4]))
    assert {(cell.recipe.seed, cell.recipe.teacher) for cell in cells} == {
        (3, "fresh:zoo:vit-xs,depth=3"),
        (4, "fresh:zoo:vit-xs,depth=4"),
    }


def test_models_of_each_value_of_a_setting() -> None:
    cells = grid.expand(
        study(
            students=["fresh:zoo:vit-xs,depth=$epochs"],
            teachers=["fresh:zoo:vit-xs,depth=$count"],
            methods={"kl": {}},
            settings={"epochs": [1, 2], "view.count": [3]},
            seeds=[7],
        )
    )
    assert [(cell.recipe.student, cell.recipe.teacher) for cell in cells] == [
        ("fresh:zoo:vit-xs,depth=1", "fresh:zoo:vit-xs,depth=3"),
        ("fresh:zoo:vit-xs,depth=2", "fresh:zoo:vit-xs,depth=3"),
    ]


def test_controls_fix_their_teacher() -> None:
    cells = grid.expand(study(methods={"self": {"teacher": "$student"}, "random": {"teacher": "fresh:zoo:vit-xs"}}))
    assert [(cell.method, cell.recipe.student, cell.recipe.teacher) for cell in cells] == [
        ("self", MLP, MLP),
        ("self", CNN, CNN),
        ("random", MLP, "fresh:zoo:vit-xs"),
        ("random", CNN, "fresh:zoo:vit-xs"),
    ]


def test_several_teachers_at_once_are_an_entry_of_teachers() -> None:
    (cell,) = grid.expand(
        study(students=["fresh:zoo:vit-xs"], teachers=[[MLP, CNN]], methods={"dp": {"method": {"name": "distill"}}})
    )
    assert cell.recipe.teacher == [MLP, CNN]
    assert cell.name == "fresh-vit-xs-from-fresh-mlp-xs+fresh-cnn-xs-dp-seed0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": [MLP]}, "unknown study key 'student': did you mean 'students'"),
        ({"students": MLP}, r"study key 'students' is 'fresh:zoo:mlp-xs': give a list"),
        ({"seeds": ["x"]}, r"study key 'seeds' is \['x'\]: give a list"),
        ({"settings": {"epochs": 3}}, "study key 'epochs' is 3: give a list"),
        ({"methods": {"kl": "distill"}}, "study method 'kl' is 'distill': give recipe keys"),
        ({"methods": {"kl": {"method": {"name": "distil"}}}}, "study method 'kl': unknown method 'distil'"),
        ({"settings": {"epoch": [3]}}, "study method 'kl': unknown key 'epoch': did you mean 'epochs'"),
        ({"settings": {"epochs": ["many"]}}, "key 'epochs' is 'many'"),
        ({"seeds": [0, 0]}, "two runs called 'fresh-mlp-xs-from-fresh-cnn-xs-kl-seed0'"),
        ({"students": [MLP], "teachers": [MLP], "methods": {}}, "the study has no runs"),
        ({"teachers": ["zoo:cnnn-s"]}, "unknown zoo model 'cnnn-s'"),
        ({"base": {**BASE, "data": "fashion"}}, "fashion"),
    ],
)
def test_a_mistake_in_any_run_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        grid.expand(study(**changes))
    assert "\n" not in str(error.value)


def test_a_setting_that_a_variant_fixes_and_varies_is_a_mistake() -> None:
    variant = {"method": {"name": "distill", "kl_weight": 0.5}, "settings": {"method.kl_weight": [0.2, 0.4]}}
    with pytest.raises(
        UserError, match="'kd' has both a value and a list for 'method.kl_weight': leave one of them out"
    ):
        grid.expand(study(methods={"kd": variant}))


def test_packaged_studies_load_by_name_and_unknown_ones_are_named() -> None:
    pairs = {**grid.load("pairs"), "students": [MLP, CNN], "teachers": [MLP, CNN]}  # needs no packaged weights
    assert len(grid.expand(pairs)) == 2 * len(pairs["methods"])
    with pytest.raises(UserError, match="'pair': did you mean 'pairs'"):
        grid.load("pair")


# Running them, with runs that take no time


class FakeRuns:
    """Starts runs that end at the third look; those whose name holds "ce" fail."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.threads: list[int | None] = []
        self.running = self.most = 0
        self.said = "epoch 1\nosmose: the loss is nan: lower lr\n"

    def __call__(self, recipe: Recipe, folder: Path, lock: int) -> "FakeRun":
        self.started.append(folder.name)
        self.threads.append(recipe.threads)
        self.running += 1
        self.most = max(self.most, self.running)
        return FakeRun(self, recipe, folder)


class FakeRun:
    def __init__(self, runs: FakeRuns, recipe: Recipe, folder: Path) -> None:
        self.runs, self.recipe, self.folder, self.looks = runs, recipe, folder, 0

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks < 3:
            return None
        self.runs.running -= 1
        if "-ce-" in self.folder.name:
            with self.folder.with_name(self.folder.name + ".log").open("a") as log:
                log.write(self.runs.said)
            return 2
        finish(self.recipe, self.folder)
        return 0

    def terminate(self) -> None:
        raise AssertionError("nothing interrupts these runs")

    def wait(self) -> int:
        raise AssertionError("nothing interrupts these runs")


def finish(recipe: Recipe, folder: Path) -> None:
    """What a finished run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.plain()))
    numbers = {
        "accuracy_after": 80.5,
        "transfer_delta": 0.5,
        "knowledge_gain": 1.0,
        "knowledge_loss": 0.5,
        "mcnemar_p": 0.04,
    }
    result = {"teacher": recipe.teacher, "seed": recipe.seed, **numbers, "seconds": 1.0, "environment": {"cores": 2}}
    (folder / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 10, "heldout_accuracy": 80.0}\n')
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_POLL", 0.001)


def execute(folder: Path, values: Mapping[str, Any], **more: Any) -> tuple[dict[str, Any], FakeRuns]:
    runs = FakeRuns()
    return grid.run(values, folder, command="osmose study it.yaml", start=runs, **more), runs


def test_a_run_that_fails_anew_is_told_by_what_it_said_now(tmp_path: Path) -> None:
    """What an earlier attempt said is still in its log."""
    execute(tmp_path, PAIRS)
    runs = FakeRuns()
    runs.said = "Traceback (most recent call last):\nRuntimeError: out of luck\n"
    numbers = grid.run(PAIRS, tmp_path, command="osmose study it.yaml", start=runs)
    assert set(numbers["failed"].values()) == {"RuntimeError: out of luck"}
    logs = [path.read_text() for path in (tmp_path / "runs").glob("*-ce-*.log")]
    assert all("lower lr" in text and "out of luck" in text for text in logs)


def test_failed_runs_are_told_and_the_others_tabulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, runs = execute(tmp_path, PAIRS, jobs=3, quiet=False)
    assert runs.started == names(PAIRS)
    assert runs.most == 3
    assert (numbers["runs"], numbers["finished"]) == (4, 2)
    picture = (tmp_path / "accuracy.svg").read_text()
    assert "held-out accuracy" in picture
    assert "<!-- kl -->" in picture
    assert "<!-- ce -->" not in picture  # its runs failed
    assert numbers["failed"] == dict.fromkeys(
        ["fresh-mlp-xs-ce-seed0", "fresh-cnn-xs-ce-seed0"], "the loss is nan: lower lr"
    )
    rows = pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert [(row["student"], row["teacher"], row["transfer_delta"]) for row in rows] == [
        (MLP, CNN, 0.5),
        (CNN, MLP, 0.5),
    ]
    assert (tmp_path / rows[0]["folder"] / "result.json").exists()
    text = (tmp_path / "table.md").read_text()
    assert "- Made by: `osmose study it.yaml`" in text
    assert "- Runs: 2 of 4 finished" in text
    assert "- Machine: cores 2" in text
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert sorted(int(line[1]) for line in lines) == [1, 2, 3, 4]
    assert "fresh-mlp-xs-ce-seed0 failed: the loss is nan: lower lr; " in output.err
    assert lines[-1].endswith("0:00:00 left")


def test_the_same_call_runs_only_what_is_missing(tmp_path: Path) -> None:
    execute(tmp_path, PAIRS)
    more = study(seeds=[0, 1], methods={"kl": PAIRS["methods"]["kl"]})
    numbers, runs = execute(tmp_path, more)
    assert runs.started == [name for name in names(more) if name.endswith("seed1")]
    assert numbers["finished"] == 4
    assert numbers["summary"][0]["pairs"] == 2
    assert execute(tmp_path, more)[1].started == []


def test_the_table_grows_with_every_finished_run(tmp_path: Path) -> None:
    seen = []

    class Looking(FakeRuns):
        def __call__(self, recipe: Recipe, folder: Path, lock: int) -> FakeRun:
            path = tmp_path / "table.parquet"
            seen.append(pyarrow.parquet.read_table(path).num_rows if path.exists() else 0)
            return super().__call__(recipe, folder, lock)

    values = study(methods={"kl": {"method": "distill"}}, seeds=[0, 1])
    grid.run(values, tmp_path, command="", start=Looking())
    assert seen == [0, 1, 2, 3]


def test_threads_are_shared_out_unless_the_study_says_and_begun_runs_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    kl = study(methods={"kl": {"method": "distill"}})
    assert execute(tmp_path / "a", kl, jobs=3)[1].threads == [2, 2]
    for result in (tmp_path / "a").glob("runs/*-mlp-xs-kl*/result.json"):
        result.unlink()
    again = execute(tmp_path / "a", kl, jobs=8)[1]
    assert again.threads == [2]
    assert execute(tmp_path / "b", {**kl, "base": {**BASE, "threads": 5}}, jobs=3)[1].threads == [5, 5]


def test_a_folder_with_another_recipe_is_an_error_and_stays(tmp_path: Path) -> None:
    execute(tmp_path, PAIRS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"another recipe \(epochs: 1 there, 2 now\): delete it") as error:
        execute(tmp_path, study(base={**BASE, "epochs": 2}))
    assert "fresh-mlp-xs-from-fresh-cnn-xs-kl-seed0" in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@contextmanager
def raised(number: int) -> Iterator[None]:
    """Inside the block the signal's usual course is an error, which must come."""

    def course(number: int, frame: Any) -> None:
        raise InterruptedError(number)

    before = signal.signal(number, course)
    try:
        with pytest.raises(InterruptedError):
            yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_to_the_runs_and_then_take_their_course(tmp_path: Path, number: signal.Signals) -> None:
    asked: list[str] = []
    ended = []

    class Endless:
        def __init__(self, recipe: Recipe, folder: Path, lock: int) -> None:
            self.name = folder.name

        def poll(self) -> int | None:
            if not asked:
                asked.append(self.name)
                os.kill(os.getpid(), number)
            return None

        def terminate(self) -> None:
            ended.append(("terminate", self.name))

        def wait(self) -> int:
            ended.append(("wait", self.name))
            return 143

    with raised(number):
        grid.run(PAIRS, tmp_path, command="", jobs=2, start=Endless)
    first, second = names(PAIRS)[:2]
    assert ended == [("terminate", first), ("terminate", second), ("wait", first), ("wait", second)]


def test_a_run_that_ends_well_after_the_signal_is_not_said_to_be_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class AtItsEnd:
        def __init__(self, recipe: Recipe, folder: Path, lock: int) -> None:
            self.recipe, self.folder = recipe, folder

        def poll(self) -> int | None:
            os.kill(os.getpid(), signal.SIGTERM)
            return None

        def terminate(self) -> None:
            if self.folder.name == names(PAIRS)[0]:
                finish(self.recipe, self.folder)

        def wait(self) -> int:
            return 0

    with raised(signal.SIGTERM):
        grid.run(PAIRS, tmp_path, command="", jobs=2, quiet=False, start=AtItsEnd)
    assert "interrupted with 3 runs left; the same command goes on" in capsys.readouterr().err


def test_a_study_waits_for_runs_that_a_killed_one_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with jobs.locked(tmp_path, quiet=False) as lock:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"], pass_fds=[lock])
    assert capsys.readouterr().err == ""
    with jobs.locked(tmp_path, quiet=False):
        assert left.wait(timeout=0.5) == 0
    assert "waiting for another study's runs" in capsys.readouterr().err


def test_missing_extra_and_mistakes_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--jobs is 0"):
        execute(tmp_path / "new", PAIRS, jobs=0)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="extra 'study'"):
        execute(tmp_path / "new", PAIRS)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        execute(tmp_path / "file" / "study", PAIRS)


# Running them for good


@pytest.fixture
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**PAIRS, "students": [MLP], "teachers": [CNN]}))
    return path


def test_runs_in_processes_of_their_own(study_file: Path) -> None:
    values = yaml.safe_load(study_file.read_text())
    values["methods"] = {"kl": {"method": "distill", "settings": {"method.top_k": [2, 99]}}}
    study_file.write_text(yaml.safe_dump(values))
    with pytest.raises(
        UserError, match=r"1 of 2 runs failed \(fresh-mlp-xs-.*top_k=99-seed0\), the first with: .*top_k"
    ):
        osmose.study(study_file, jobs=2)
    folder = study_file.parent / "studies" / "small"
    (row,) = pyarrow.parquet.read_table(folder / "table.parquet").to_pylist()
    result = json.loads((folder / row["folder"] / "result.json").read_text())
    assert row["accuracy_after"] == result["accuracy_after"]
    assert row["heldout_knowledge_gain"] == result["heldout"]["knowledge_gain"]
    assert row["chosen_heldout_mcnemar_p"] == result["chosen"]["heldout"]["mcnemar_p"]
    text = (folder / "table.md").read_text()
    assert "`osmose study small.yaml --output studies/small`" in text
    assert f"threads {max(1, (os.cpu_count() or 1) // 2)}" in text
    assert str(study_file.parent) not in text
    values["methods"]["kl"]["settings"]["method.top_k"].remove(99)
    assert osmose.study(values, output=folder)["finished"] == 1


def test_a_mistake_in_any_method_is_said_before_the_first_run(study_file: Path) -> None:
    values = yaml.safe_load(study_file.read_text())
    values["methods"]["lost"] = {"teacher": None, "method": "distill"}
    with pytest.raises(UserError, match=r"fresh-mlp-xs-lost-seed0 cannot run: .*needs a teacher"):
        osmose.study(values, output="studies/small")
    assert os.listdir("studies/small/runs") == ["lock"]
    begun = study_file.parent / "studies" / "small" / "runs" / "fresh-mlp-xs-lost-seed0"
    begun.mkdir()
    (begun / "recipe.yaml").write_text("{}")
    cells = [cell for cell in grid.expand(values) if cell.method == "lost"]
    grid._check(cells, begun.parent)  # what was begun has been through it


def test_a_last_part_that_two_keys_have_stands_for_nothing() -> None:
    lists = {"method.optimiser.lr": [1], "method.communicator_optimiser.lr": [2]}
    two = study(students=["fresh:zoo:vit-xs,depth=$lr"], methods={"one": {"method": "interactive"}}, settings=lists)
    with pytest.raises(UserError, match=r"depth=\$lr' cannot be built"):
        grid.expand(two)


def command(study: Path, output: str) -> list[str]:
    return [sys.executable, "-m", "osmose", "study", str(study), "--output", output, "--jobs", "2", "--json"]


def products(runs: Path) -> dict[str, Any]:
    """Weights and metrics of every run."""
    weights = {
        f"{path.parent.name}/{name}": tensor.tolist()
        for path in runs.glob("*/student.safetensors")
        for name, tensor in load_file(path).items()
    }
    return weights | {path.parent.name: path.read_text() for path in runs.glob("*/metrics.jsonl")}


@pytest.mark.slow
def test_a_terminated_study_goes_on_to_the_results_of_an_undisturbed_one(study_file: Path) -> None:
    values = yaml.safe_load(study_file.read_text())
    data = {"name": "fashion-mnist-mini", "fraction": 0.1}
    # Long enough that the first run is not at its end when the second one writes a checkpoint.
    values["base"] |= {"data": data, "epochs": 100, "checkpoint_every": 5}
    study_file.write_text(yaml.safe_dump(values))
    whole, cut = (study_file.parent / name / "runs" for name in ("whole", "cut"))
    subprocess.run(command(study_file, "whole"), check=True, timeout=300)

    process = subprocess.Popen(command(study_file, "cut"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len({path.parent for path in cut.glob("*/checkpoints/step-*.ckpt")}) < 2:
        assert time.monotonic() < deadline, "the runs write no checkpoints"
        time.sleep(0.05)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGTERM
    assert "interrupted with 2 runs left; the same command goes on" in said
    assert all("interrupted at step" in log.read_text() for log in cut.glob("*.log"))

    done = subprocess.run(command(study_file, "cut"), check=True, capture_output=True, timeout=300)
    assert json.loads(done.stdout)["finished"] == 2
    assert products(cut) == products(whole)
    assert len(list(whole.glob("*/metrics.jsonl"))) == 2
