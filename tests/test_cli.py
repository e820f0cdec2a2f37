"""The command line as a user meets it: exit codes, one line an error, one JSON object."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
import yaml

from osmose.cli import main
from osmose.models import load_model
from osmose.user_code import import_file

SHORT = ["--epochs", "1", "--batch-size", "40", "--threads", "1"]


@pytest.fixture
def short(grey):
    return [
        "--teacher", "fresh:zoo:cnn-xs", "--student", "fresh:zoo:mlp-xs", "--data", grey, "--method", "distill", *SHORT,
    ]  # fmt: skip


@pytest.fixture
def go(capsys):
    """Runs a command in this process: exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def mistake(go):
    """Runs a command that must fail with exit code 2 and one line; the line."""

    def run(*arguments):
        code, out, err = go(*arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("osmose: ")
        return line.removeprefix("osmose: ")

    return run


def test_a_transfer_ends_with_a_table(go, short, tmp_path):
    code, out, err = go("transfer", *short, "--output", tmp_path / "run")
    assert code == 0
    for text in ("test accuracy", "transfer delta", "McNemar p", "teacher accuracy", f"folder {tmp_path / 'run'}"):
        assert text in out
    assert "step 6/6" in err
    code, again, err = go("transfer", *short, "--output", tmp_path / "run")
    assert (code, again) == (0, out)
    assert err == f"{tmp_path / 'run'} is finished; --fresh runs it again\n"


def commands(short, grey, tmp_path):
    load_model("fresh:zoo:mlp-xs", num_classes=4, channels=1, image_size=(12, 12)).save(tmp_path / "model.safetensors")
    (tmp_path / "stages.yaml").write_text(
        yaml.safe_dump(
            {
                "data": grey, "epochs": 1, "batch_size": 40, "threads": 1, "teacher": "fresh:zoo:cnn-xs",
                "stages": [{"name": "one", "student": "fresh:zoo:mlp-xs"}, {"name": "two", "student": "$one"}],
            }
        )
    )  # fmt: skip
    return {
        "transfer": ["transfer", *short, "--output", tmp_path / "run"],
        "dry run": ["transfer", *short, "--dry-run"],
        "supervised": ["transfer", "--student", "fresh:zoo:mlp-xs", "--data", grey, "--method", "supervised", *SHORT, "--output",
                       tmp_path / "alone"],
        "run": ["run", tmp_path / "stages.yaml", "--output", tmp_path / "stages"],
        "dry run of stages": ["run", tmp_path / "stages.yaml", "--dry-run"],
        "evaluate": ["evaluate", f"file:{tmp_path / 'model.safetensors'}", "--data", grey],
        "robustness": ["robustness", *[f"file:{tmp_path / 'model.safetensors'}"] * 2, "--data", grey,
                       "--corruptions", "translate", "--samples", "20", "--workers", "0", "--part", "heldout"],
        **{f"show {what}": ["show", what] for what in ("models", "data", "methods", "recipes", "settings")},
    }  # fmt: skip


def test_json_is_exactly_one_object_on_stdout(go, short, grey, tmp_path):
    printed = {}
    for name, command in commands(short, grey, tmp_path).items():
        code, out, _ = go(*command, "--json")
        assert code == 0, name
        (line,) = out.splitlines()
        printed[name] = json.loads(line)
        assert isinstance(printed[name], dict), name
    assert printed["transfer"] == {
        **json.loads((tmp_path / "run" / "result.json").read_text()), "folder": str(tmp_path / "run"),
    }  # fmt: skip
    assert list(printed["run"]["stages"]) == ["one", "two"]
    assert printed["dry run"]["stages"][""]["steps"] == 6
    assert list(printed["dry run of stages"]["stages"]) == ["one"]
    assert printed["evaluate"]["samples"] == 80
    assert {"model", "clean", "corrupted", "translate"} == set(printed["robustness"]["summary"][0])
    assert len(printed["robustness"]["rows"]) == 2 * (1 + 5)
    assert len(printed["robustness"]["gaps"]) == 1
    names = [row["name"] for row in printed["show models"]["models"]]
    assert len([name for name in names if name.startswith("zoo:")]) >= 9
    assert {"zoo:cnn-s", "timm:NAME", "file:PATH", "hf:FOLDER"} <= set(names)
    assert {row["name"] for row in printed["show methods"]["methods"]} >= {
        "distill",
        "supervised",
        "partition",
        "flip-avg",
    }
    assert {row["name"] for row in printed["show recipes"]["recipes"]} >= {"default", "zoo-cnn"}
    assert {row["key"] for row in printed["show settings"]["settings"]} >= {
        "epochs",
        "view.crop",
        "method.optimiser.lr",
    }
    assert "fashion-mnist-mini" in {row["name"] for row in printed["show data"]["data"]}


def test_without_json_every_command_prints_something_readable(go, short, grey, tmp_path):
    for name, command in commands(short, grey, tmp_path).items():
        code, out, _ = go(*command)
        assert code == 0, name
        assert out.strip(), name
        with pytest.raises(ValueError, match=r"Extra data|Expecting value"):
            json.loads(out)


def test_a_dry_run_writes_nothing(go, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert go("transfer", *short, "--dry-run")[0] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher", "zoo:cnn-x"], "unknown zoo model 'cnn-x': did you mean 'cnn-xs'?"),
        (["--student", "zoq:cnn-s"], "unknown model 'zoq:cnn-s': did you mean 'zoo:cnn-s'?"),
        (["--data", "fashion-mnits"], "unknown data set 'fashion-mnits': did you mean 'fashion-mnist'?"),
        (["--method", "distil"], "unknown method 'distil': did you mean 'distill'?"),
        (["--target", "partitoin"], "unknown target 'partitoin': did you mean 'partition'?"),
        (["--epoch", "3"], "unknown key 'epoch': did you mean 'epochs'?"),
        (["--method.temprature", "3"], "unknown key 'method.temprature': did you mean 'method.temperature'?"),
        (["--epochs", "many"], "key 'epochs' is 'many': expected int"),
        (["--epochs", "0"], "key 'epochs' is 0: set it to at least 1"),
        (["--batch-size", "7", "--accumulate", "2"], "batch size 7 does not divide into 2 equal shards (accumulation steps x "
         "processes): set it to a multiple of 2"),
        (["--lr", "fast"], "key 'method.optimiser.lr' is 'fast': expected float"),
        (["--data", "5"], "key 'data.name' is 5: expected str"),
        (["--data", "ratings:"], ". holds no ratings: give a folder with NAME.inter and NAME.item, u.data and u.item, "
         "ratings.dat and movies.dat, or ratings.csv and movies.csv"),
        (["--view", "crop: shfit"], None),
        (["--data", "idx:nowhere"], None),
        (["--data", "parquet:nowhere"], None),
        (["--data", "imagefolder:nowhere"], None),
        (["--teacher", "file:nowhere"], "there is no file 'nowhere': check the path"),
        (["--data.name.x", "3"], "--data.name.x is inside 'name', which is a single value: see osmose show settings"),
        (["--epochs"], "argument --epochs: expected one argument; see osmose transfer --help"),
        (["--view.crop"], "--view.crop needs a value: --view.crop VALUE"),
        (["--teacher", "resnet50"], "unknown model 'resnet50': names begin with their source, for example zoo:cnn-s, or "
         "timm:resnet50"),
        (["--teacher", "weights.pt"], "model 'weights.pt' is a path: write file:weights.pt"),
        (["stray"], "unknown argument 'stray': flags begin with --; see osmose transfer --help"),
        (["--import", "nowhere.py"], "cannot import nowhere.py: there is no such Python file; give the path of a .py file"),
        (["--accelerator", "cuda", "--devices", "999"], None),
        (["--student", "null"], "key 'student' is empty: give it a value, or leave it out for its default"),
    ],
)  # fmt: skip
def test_mistakes_in_flags(mistake, short, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    line = mistake("transfer", *short, *flags)
    if message:
        assert line == message
    assert {path.name for path in tmp_path.rglob("*")} <= {"runs"}  # no run is left behind


@pytest.mark.parametrize(
    "command",
    [
        ["trasnfer"], ["transfer", "--data"], ["show"], ["show", "modles"], ["run"], ["run", "defualt"], ["run", "nothing.yaml"],
        ["evaluate"], ["evaluate", "zoo:nothing"], ["evaluate", "fresh:zoo:mlp-xs", "--bogus", "3"],
        ["evaluate", "fresh:zoo:mlp-xs", "--part", "heldot"], [],
        ["robustness"], ["robustness", "zoo:nothing"], ["robustness", "zoo:cnn-s", "--data", "cosine"],
        ["robustness", "zoo:cnn-s", "--corruptions", "foog"], ["robustness", "zoo:cnn-s", "--corruptions", "fog:7"],
        ["robustness", "zoo:cnn-s", "--samples", "0"], ["robustness", "zoo:cnn-s", "--workers", "-1"],
        ["robustness", "zoo:cnn-s", "--corruptions", "translate:1", "--out-of-domain", "nowhere"],
    ],
)  # fmt: skip
def test_mistakes_in_commands(mistake, command):
    assert mistake(*command)


def test_foreign_and_damaged_files(mistake, short, tmp_path, grey):
    (tmp_path / "weights.safetensors").write_bytes(b"no weights at all")
    assert "truncated or not a safetensors file" in mistake(
        "transfer", *short, "--teacher", f"file:{tmp_path}/weights.safetensors"
    )
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    assert "is a pickle: weights that can execute code are not loaded" in mistake(
        "transfer", *short, "--teacher", f"file:{tmp_path}/weights.pt"
    )
    folder = tmp_path / "data"
    folder.mkdir()
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"foreign")
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"foreign")
    assert str(folder) in mistake("transfer", *short, "--data", f"idx:{folder}")
    network = load_model("fresh:zoo:cnn-xs", num_classes=4, channels=1, image_size=(12, 12))
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    network.save(tmp_path / "nan.safetensors")
    assert "holds NaN or infinity in 'head.weight'" in mistake(
        "transfer", *short, "--teacher", f"file:{tmp_path}/nan.safetensors"
    )
    load_model("fresh:zoo:cnn-xs", num_classes=7, channels=1, image_size=(12, 12)).save(tmp_path / "seven.safetensors")
    assert "knows 7 classes, student fresh:zoo:mlp-xs 4" in mistake(
        "transfer", *short, "--teacher", f"file:{tmp_path}/seven.safetensors"
    )


def test_recipes_that_are_wrong(mistake, tmp_path):
    for text in ("[1, 2", "- a", "student: zoo:mlp-xs\nepoch: 3", "stages: []", "stages: [{name: a, student: $b}]"):
        (tmp_path / "r.yaml").write_text(text)
        assert mistake("run", tmp_path / "r.yaml", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written(mistake, short, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", "/proc/osmose-run"):
        assert mistake("transfer", *short, "--output", place).startswith(f"cannot write {place}: ")


def test_another_recipe_in_the_folder_and_fresh(go, mistake, short, tmp_path):
    assert go("transfer", *short, "--output", tmp_path / "run")[0] == 0
    line = mistake("transfer", *short, "--seed", "1", "--output", tmp_path / "run")
    assert line.endswith("(seed: 0 there, 1 now): give another --output, or --fresh to discard it")
    assert go("transfer", *short, "--seed", "1", "--output", tmp_path / "run", "--fresh")[0] == 0


def test_a_full_gpu_is_a_mistake_and_other_errors_are_not(mistake, monkeypatch, grey):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")

    monkeypatch.setattr("osmose.api.labelled_part", full)
    said = mistake("evaluate", "zoo:mlp-xs", "--data", grey)
    assert (
        "the GPU's memory is full (CUDA out of memory. Tried to allocate 2 GiB.): end what else runs on it, or" in said
    )

    def broken(*_):
        raise RuntimeError("another")

    monkeypatch.setattr("osmose.api.labelled_part", broken)
    with pytest.raises(RuntimeError, match="another"):
        main(["evaluate", "zoo:mlp-xs", "--data", grey])


def test_run_lays_flags_over_every_stage(go, grey, tmp_path, short):
    commands(short, grey, tmp_path)
    code, out, _ = go(
        "run", tmp_path / "stages.yaml", "--seed", "5", "--temperature", "3", "--output", tmp_path / "out", "--json"
    )
    assert code == 0
    for stage in ("one", "two"):
        recipe = yaml.safe_load((tmp_path / "out" / stage / "recipe.yaml").read_text())
        assert (recipe["seed"], recipe["method"]["temperature"]) == (5, 3.0)
    assert {stage["seed"] for stage in json.loads(out)["stages"].values()} == {5}


def test_ones_own_targets_by_import(go, short, tmp_path):
    (tmp_path / "mine.py").write_text("from osmose.targets import TARGETS\nTARGETS['mine'] = TARGETS['teacher']\n")
    from osmose.targets import TARGETS

    try:
        flags = ["--import", tmp_path / "mine.py", "--target", "mine", "--output", tmp_path / "run"]
        assert go("transfer", *short, *flags)[0] == 0
    finally:
        TARGETS.pop("mine")


def test_imported_files_of_one_name_are_two_modules(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"WHO = {name!r}\n")
        import_file(tmp_path / name / "mine.py")
    found = {key: module for key, module in list(sys.modules.items()) if getattr(module, "WHO", None) in ("a", "b")}
    assert sorted(module.WHO for module in found.values()) == ["a", "b"]
    for key in found:
        del sys.modules[key]


OWN_MODEL = """
from torch import nn

from osmose.models import Network, Preprocessing
from osmose.models.sources import SOURCES


def build(key, arguments):
    return nn.Sequential(nn.Flatten(), nn.Linear(144, int(key)), nn.ReLU(), nn.Linear(int(key), 4))


def fresh(key, request):
    return Network(
        build(key, {}), name=request.name, classes=None, num_classes=4,
        architecture={"source": "own", "name": key, "arguments": {}},
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,), channels=1, size=(12, 12)),
    )


SOURCES["own"] = __name__
"""


def test_ones_own_models_by_import_in_every_command(start, grey, tmp_path):
    (tmp_path / "own.py").write_text(OWN_MODEL)
    study = {
        "base": {"data": grey, "epochs": 1, "batch_size": 40, "threads": 1, "method": "supervised"},
        "students": ["fresh:own:8"],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    own = ("--import", "own.py")
    process = start("study", "study.yaml", "--output", "study", *own)
    _, err = process.communicate()
    assert process.returncode == 0, err
    made_by = "`osmose study study.yaml --import own.py --output study`"
    assert made_by in (tmp_path / "study" / "table.md").read_text()
    (run,) = (tmp_path / "study" / "runs").glob("*/student.safetensors")
    process = start("evaluate", f"file:{run}", "--data", grey, "--json", *own)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["samples"] == 80


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = x + nothing\n", "NameError: name 'nothing' is not defined (line 2)"),
        ("x = 1\n\nif x\n", "SyntaxError: expected ':' (line 3)"),
        ("import json\njson.loads('{')\n", "line 2"),
    ],
)
def test_a_mistake_in_ones_own_file_is_one_line(mistake, tmp_path, text, said):
    (tmp_path / "own.py").write_text(text)
    line = mistake("show", "models", "--import", tmp_path / "own.py")
    assert line.startswith(f"cannot import {tmp_path / 'own.py'}: ")
    assert said in line
    assert line.endswith("; mend the file")


def test_help_is_there_within_a_second_and_without_torch():
    script = (
        "import sys\nfrom osmose.cli import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print([m for m in ('torch', 'numpy', 'yaml', 'rich') if m in sys.modules], file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - started)
        assert "transfer" in done.stdout
        assert done.stderr == "[]\n"
    assert min(seconds) < 1


@pytest.mark.parametrize("command", ["transfer", "run", "evaluate", "robustness", "study", "show"])
def test_every_command_has_help_and_a_version_is_told(command, capsys):
    for arguments in ([command, "--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert capsys.readouterr().out.strip()


def test_a_mistake_in_a_process_of_its_own_is_one_line_without_a_traceback(start):
    process = start("transfer", "--teacher", "zoo:nothing", "--student", "fresh:zoo:mlp-xs")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("osmose: unknown zoo model 'nothing': ")
    assert len(err.splitlines()) == 1


def test_output_that_nobody_reads_is_no_error(grey):
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "osmose", "show", "settings"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("text", "value"), [("null", None), ("~", None), ("\n\n", "\n\n"), ("---", "---"), ("###", "###"), ("3", 3)]
)
def test_values_of_flags(text, value):
    from osmose import cli

    assert cli._value(text) == value
