"""The command line: one function a command; results on stdout, all else on stderr."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import osmose
from osmose.errors import UserError, first_line
from osmose.user_code import import_file

if TYPE_CHECKING:
    from rich.console import Console

_SHORT = {
    "method": "method.name",
    "data": "data.name",
    "target": "method.target",
    "temperature": "method.temperature",
    "lr": "method.optimiser.lr",
    "optimiser": "method.optimiser.name",
}
"""Flags that are short for a recipe key; any other key is a flag under its own name."""

_RECIPE_HELP = """\
Any key of the recipe is a flag too: --view.crop shift, --method.kl_weight 0.5, --data.fraction 0.1.
`osmose show methods`, `osmose show recipes` and `osmose show settings` list them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for a user's mistake, 130 or 143 when interrupted."""
    # Threads that spin while they wait make a step several times slower as soon as another program wants a core.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else every process warns that no parameter went unused
    try:
        code = _command(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"osmose: {error}", file=sys.stderr)
        code = 2
    except RuntimeError as error:
        if "torch" not in sys.modules or not isinstance(error, sys.modules["torch"].OutOfMemoryError):
            raise
        cure = "end what else runs on it, or put CUDA_VISIBLE_DEVICES= before the command to use the CPU"
        print(f"osmose: the GPU's memory is full ({first_line(error)}): {cure}", file=sys.stderr)
        code = 2
    except SystemExit as stopped:
        if not _is_one_of_several():
            raise
        code = int(stopped.code or 0)  # another process has told the user why
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        code = 0
    if _is_one_of_several():
        # Without Python's clean-up: while the other processes end too, gloo's threads abort in it or wait for ever.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def _command(given: list[str]) -> int:
    """Run what was typed and return the exit code."""
    if given and given[0].startswith("-") and given[0] not in ("-h", "--help", "--version"):
        raise UserError(
            f"'{given[0]}' stands before the command: write osmose COMMAND {given[0]} ...; see osmose --help"
        )
    options, extra = _parser().parse_known_args(given)
    command: Callable[[argparse.Namespace, dict[str, Any]], int] = options.run
    changes = _changes(options, extra)
    for path in options.imports:
        import_file(path)
    return command(options, changes)


def _is_one_of_several() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="osmose", description="Move knowledge between trained neural networks.")
    parser.add_argument("--version", action="version", version=osmose.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace, dict[str, Any]], int], text: str, under: Any = commands
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = under.add_parser(
            name, help=text, description=text, epilog=_RECIPE_HELP if name in ("transfer", "run", "build") else None,
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        )  # fmt: skip
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="one JSON object on stdout")
        added.add_argument(
            "--import", dest="imports", action="append", default=[], metavar="FILE",
            help="Python file to run first, which may register methods, targets, models and data",
        )  # fmt: skip
        return added

    transfer = command(
        "transfer", _transfer, "Teach a student what a teacher knows; without arguments the default recipe."
    )
    _model_flags(transfer)
    _run_flags(transfer)
    run = command("run", _run, "Execute a recipe, stage by stage.")
    run.add_argument("recipe", metavar="RECIPE", help="a YAML file or a packaged recipe's name")
    _model_flags(run)
    _run_flags(run)
    evaluate = command(
        "evaluate", _evaluate, "Accuracy of a model on a data set's test part, or scores of a language model."
    )
    evaluate.add_argument("model", metavar="MODEL")
    evaluate.add_argument("--data", metavar="DATA", default="fashion-mnist-mini", help="and --data.image_size N, ...")
    evaluate.add_argument("--part", choices=["test", "heldout", "train", "all"], default="test", help="all: of text")
    evaluate.add_argument(
        "--features", action="store_true",
        help="what neighbours and a linear classifier read from its features; of a network without a head always",
    )  # fmt: skip
    evaluate.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME:PATH",
        help="of a language model: tasks of lm-evaluation-harness with files of their data, as lambada_openai:lambada.jsonl",
    )  # fmt: skip
    evaluate.add_argument(
        "--bank", type=int, metavar="N", help="with --features: so many training images are known, not 50,000"
    )
    evaluate.add_argument("--teacher", metavar="MODEL", help="with --tasks: how much of this model's scores MODEL has")
    evaluate.add_argument("--shots", type=int, metavar="N", help="with --tasks: examples before each question")
    evaluate.add_argument("--limit", type=int, metavar="N", help="with --tasks: so many questions a task")
    robustness = command(
        "robustness", _robustness, "Accuracy of models on corrupted images and on other folders of images."
    )
    robustness.add_argument("models", metavar="MODEL", nargs="+", help="gaps are measured from the first")
    robustness.add_argument("--data", metavar="DATA", default="fashion-mnist-mini", help="and --data.image_size N, ...")
    robustness.add_argument(
        "--corruptions", nargs="*", default=["all"], metavar="NAME",
        help="fog at five severities, fog:3 at one, translate, or all for ImageNet-C's nineteen (default)",
    )  # fmt: skip
    robustness.add_argument("--in-domain", nargs="*", default=[], metavar="DIR", help="folders of more test images")
    robustness.add_argument("--out-of-domain", nargs="*", default=[], metavar="DIR", help="folders of other images")
    robustness.add_argument("--part", choices=["test", "heldout"], default="test", help="whose images are corrupted")
    robustness.add_argument("--samples", type=int, metavar="N", help="so many of them (default: all)")
    robustness.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that corrupt"
    )
    compare = command("compare", _compare, "Who knows what: models side by side, before any transfer.")
    compare.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="zoo:* for the whole zoo; logits:FILE for logits from elsewhere (parquet)",
    )
    compare.add_argument("--data", metavar="DATA", help="and --data.image_size N, ... (default: fashion-mnist-mini)")
    compare.add_argument("--part", choices=["heldout", "test", "train"], default="heldout")
    compare.add_argument(
        "--features", action="store_true",
        help="compare what neighbours in their features answer; of networks without a head always",
    )  # fmt: skip
    compare.add_argument("--student", metavar="MODEL", help="one of the models: rank the others as its teachers")
    compare.add_argument("--classes", metavar="NAME,...", default="", help="rank by what they know of these classes")
    compare.add_argument("--encoder", metavar="DIR", help="sentence encoder that tells how alike class names are")
    compare.add_argument("--pairs", type=int, metavar="N", help="so many random ordered pairs (default: all)")
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="of their choice")
    compare.add_argument("--output", metavar="DIR", help="write the numbers and a page with their figures there")
    compare.add_argument("--keep", metavar="DIR", help="write every model's logits there")
    study = command("study", _study, "Run a grid of recipes and tabulate it; finished runs are not run again.")
    study.add_argument("study", metavar="STUDY", help="a YAML file or a packaged study's name")
    study.add_argument("--output", metavar="DIR", help="the study's folder (default: studies/NAME)")
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    text = "Stores of what frozen networks said, kept for the runs that ask again."
    signals = commands.add_parser("signals", help=text, description=text, allow_abbrev=False)
    actions = signals.add_subparsers(title="actions", required=True, metavar="ACTION")
    build = command("build", _build, "Compute beforehand all signals that a run will ask for.", actions)
    build.add_argument("--recipe", metavar="RECIPE", help="as of `osmose run`; without one as `osmose transfer`")
    _model_flags(build)
    listing = command("list", _list, "Whose signals a store has, of what, and how large.", actions)
    verify = command("verify", _verify, "Read every record and count those that are damaged.", actions)
    remove = command("remove", _remove, "Delete the signals under some keys.", actions)
    for action in (listing, verify, remove):
        action.add_argument("store", metavar="DIR", help="the store")
    remove.add_argument("keys", metavar="KEY", nargs="+", help="as listed, or all")
    report = command(
        "report",
        _report,
        "Write the report of a run, a comparison or a study again: one HTML file that needs nothing else.",
    )
    report.add_argument("folder", metavar="DIR", help="folder of a run, a study, or of compare --output")
    show = command("show", _show, "List what there is.")
    show.add_argument("what", choices=["models", "data", "methods", "augmentors", "recipes", "studies", "settings"])
    return parser


def _model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher", nargs="+", metavar="MODEL", help="zoo:NAME, timm:NAME, file:PATH; several for target partition"
    )
    parser.add_argument(
        "--student",
        nargs="+",
        metavar="MODEL",
        help="the same; fresh:zoo:NAME for new weights, head:... for a new head; several for methods mokd, mutual and dino",
    )
    parser.add_argument("--data", metavar="DATA", help="a data set, for example parquet:DIR; see `osmose show data`")
    parser.add_argument("--method", metavar="NAME", help="see `osmose show methods`")
    parser.add_argument("--target", metavar="NAME", help="who teaches which sample: teacher, partition, ...")
    parser.add_argument("--temperature", metavar="T", help="of the softened distributions")
    parser.add_argument("--lr", metavar="RATE", help="learning rate for a batch of 256")
    parser.add_argument("--optimiser", metavar="NAME", help="sgd, adam or adamw")
    parser.add_argument("--epochs", metavar="N", help="passes over the training part")
    parser.add_argument("--batch-size", dest="batch_size", metavar="N", help="samples in an optimiser step")
    parser.add_argument("--devices", metavar="N", help="processes, each with its device")
    parser.add_argument("--precision", metavar="P", help="32-true or bf16-mixed")
    parser.add_argument("--seed", metavar="N", help="seed of the run")


def _run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="DIR", help="the run's folder (default: runs/..., the same for the same recipe)"
    )
    parser.add_argument("--fresh", action="store_true", help="discard what an earlier run left in the folder")
    parser.add_argument("--dry-run", dest="dry_run", action="store_true", help="tell time, disk and memory, and stop")


def _changes(options: argparse.Namespace, extra: list[str]) -> dict[str, Any]:
    """The recipe keys given as flags, as nested plain values."""
    given = {key: getattr(options, key, None) for key in
             ("teacher", "student", "epochs", "batch_size", "devices", "precision", "seed", *_SHORT)}  # fmt: skip
    pairs = [(_SHORT.get(key, key), value) for key, value in given.items() if value is not None]
    sections = {
        _transfer: "--",
        _run: "--",
        _build: "--",
        _evaluate: "--data.",
        _robustness: "--data.",
        _compare: "--data.",
    }
    foreign = [
        flag for flag in extra if flag.startswith("--") and not flag.startswith(sections.get(options.run, "-- "))
    ]
    if foreign or (extra and options.run not in sections):
        raise UserError(f"unknown argument '{(foreign or extra)[0]}': see osmose --help")
    while extra:
        flag = extra.pop(0)
        name, equals, value = flag.partition("=")
        if not name.startswith("--") or name == "--":
            raise UserError(f"unknown argument '{flag}': flags begin with --; see osmose transfer --help")
        if not equals:
            if not extra or extra[0].startswith("--"):
                raise UserError(f"{name} needs a value: {name} VALUE")
            value = extra.pop(0)
        pairs.append((name[2:].replace("-", "_"), value))
    changes: dict[str, Any] = {}
    for key, value in pairs:
        section = changes
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UserError(f"--{key} is inside '{parent}', which is a single value: see osmose show settings")
        if isinstance(value, list):
            section[last] = _value(value[0]) if len(value) == 1 else value
        else:
            section[last] = _value(value) if isinstance(value, str) else value
    return changes


def _value(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if value is None:
        return None if text in ("", "~", "null", "Null", "NULL") else text  # such as "\n\n" or "---"
    name = isinstance(value, dict) and list(value.values()) == [None] and not text.lstrip().startswith("{")
    return text if name else value  # such as "ratings:"


def _transfer(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import recipe as recipes

    return _execute(options, recipes.merge(recipes.defaults(changes), changes))


def _run(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import recipe as recipes

    return _execute(options, recipes.changed_stages(recipes.load(options.recipe), changes))


def _execute(options: argparse.Namespace, values: dict[str, Any]) -> int:
    from osmose import api
    from osmose.engine.interrupt import Interrupted
    from osmose.processes import is_first

    try:
        if options.dry_run:
            numbers, show = api.estimate(values, quiet=False), _show_estimate
        else:
            result = api.run(values, output=options.output, fresh=options.fresh, quiet=False)
            numbers, show = {**result.numbers, "folder": str(result.folder)}, _show_result
    except Interrupted as stopped:
        if is_first():
            print(f"osmose: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    if is_first():
        _print(options, numbers, show)
    return 0


def _evaluate(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import api

    if options.tasks:
        numbers = api.evaluate_tasks(
            options.model, options.tasks, teacher=options.teacher, shots=options.shots, limit=options.limit
        )
        _print(options, numbers, lambda shown: _show_rows(shown["rows"]))
        return 0
    for flag in ("teacher", "shots", "limit"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag} goes with --tasks: leave it out, or give tasks")
    given = {} if options.bank is None else {"bank": options.bank}
    numbers = api.evaluate(options.model, data=changes["data"], part=options.part, features=options.features, **given)
    _print(options, numbers, _show_scores)
    return 0


def _robustness(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import api

    numbers = api.robustness(
        options.models, data=changes["data"], corruptions=options.corruptions, in_domain=options.in_domain,
        out_of_domain=options.out_of_domain, part=options.part, samples=options.samples, workers=options.workers,
        quiet=options.json,
    )  # fmt: skip
    _print(options, numbers, _show_robustness)
    return 0


def _compare(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose.answers import LOGITS
    from osmose.comparison import compare

    networks = [model for model in options.models if not model.startswith(LOGITS)]
    data = changes.get("data", "fashion-mnist-mini" if networks else None)
    numbers = compare(
        options.models, data=data, part=options.part, features=options.features, student=options.student,
        classes=[name for name in options.classes.split(",") if name], encoder=options.encoder, pairs=options.pairs,
        seed=options.seed, output=options.output, keep=options.keep,
    )  # fmt: skip
    _print(options, numbers, _show_comparison)
    if options.output and not options.json:
        print(f"report {Path(options.output) / 'report.html'}")
    return 0


def _study(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import api

    numbers = api.study(options.study, output=options.output, jobs=options.jobs, quiet=False)
    _print(options, numbers, _show_study)
    return 0


def _build(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import recipe as recipes
    from osmose import stores
    from osmose.processes import is_first

    given = recipes.load(options.recipe) if options.recipe else recipes.defaults(changes)
    if "stages" in given:
        raise UserError(f"recipe {options.recipe} has stages: build takes the recipe of one run")
    numbers = stores.build(recipes.resolve(recipes.merge(given, changes)), quiet=options.json)
    if is_first():
        _print(options, numbers, _show_pairs)
    return 0


def _list(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import stores

    rows = stores.listed(Path(options.store))
    _print(options, {"signals": rows}, lambda _: _show_rows(rows))
    return 0


def _verify(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import stores

    rows = stores.verify(Path(options.store))
    _print(options, {"signals": rows}, lambda _: _show_rows(rows))
    return 0


def _remove(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import stores

    removed = stores.remove(Path(options.store), options.keys)
    _print(options, {"removed": removed}, lambda _: print(*removed, sep="\n"))
    return 0


def _report(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose.report import report

    written = [str(path) for path in report(Path(options.folder))]
    _print(options, {"reports": written}, lambda _: print(*written, sep="\n"))
    return 0


def _show(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    from osmose import shelf

    rows = getattr(shelf, options.what)()
    _print(options, {options.what: rows}, lambda _: _show_rows(rows))
    return 0


def _print(options: argparse.Namespace, values: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    if options.json:
        print(json.dumps(values))
    else:
        show(values)


def _show_result(numbers: dict[str, Any]) -> None:
    from rich.console import Console

    for name, stage in numbers.get("stages", {"": numbers}).items():
        if name:
            print(f"stage {name}")
        show_transfer(stage, Console(highlight=False))
    print(f"folder {numbers['folder']}")
    if (report := Path(numbers["folder"]) / "report.html").exists():
        print(f"report {report}")


def show_transfer(numbers: dict[str, Any], console: "Console") -> None:
    """Print a finished run's numbers as a table before and after."""
    from rich import box
    from rich.table import Table

    if "perplexity_after" in numbers:
        _show_text(numbers, console)
        return
    if "rmse_after" in numbers:
        _show_ratings(numbers, console)
        return
    if "networks" in numbers:
        _show_features(numbers, console)
        return
    if "accuracy_after" not in numbers:
        _show_pairs({key: numbers[key] for key in ("student", "mse_before", "mse_after")})
        return
    table = Table(
        title=f"{numbers['student']} taught by {numbers['taught_by']}; {numbers['samples']} test samples",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("", "before", "after", "chosen on held-out"):
        table.add_column(column, justify="left" if not column else "right")
    chosen = numbers.get("chosen") or {}

    def row(text: str, before: str | None, after: str, form: str = "{:.2f} %") -> None:
        cells = [numbers.get(before) if before else None, numbers.get(after), chosen.get(after)]
        table.add_row(text, *("" if cell is None else form.format(cell) for cell in cells))

    row("test accuracy", "accuracy_before", "accuracy_after")
    row("transfer delta", None, "transfer_delta", "{:+.2f} points")
    row("newly right (gain)", None, "knowledge_gain")
    row("newly wrong (loss)", None, "knowledge_loss")
    if "corrupted" in numbers:
        corrupted = numbers["corrupted"]
        cells = [corrupted["before"], corrupted["after"], corrupted.get("chosen")]
        table.add_row("accuracy on corrupted images", *("" if cell is None else f"{cell:.2f} %" for cell in cells))
    row("McNemar p", None, "mcnemar_p", "{:.2g}")
    if "positive_flips_after" in numbers:
        row("teacher right, student wrong", "positive_flips_before", "positive_flips_after")
        row("student right, teacher wrong", "negative_flips_before", "negative_flips_after")
    console.print(table)
    accuracies = numbers.get("teacher_accuracy")
    if accuracies is not None:
        several = accuracies if isinstance(accuracies, list) else [accuracies]
        console.print("teacher accuracy " + ", ".join(f"{value:.2f} %" for value in several))
    on_corrupted = [value for role, value in numbers.get("corrupted", {}).items() if role.startswith("teacher")]
    if on_corrupted:
        console.print("teacher accuracy on corrupted images " + ", ".join(f"{value:.2f} %" for value in on_corrupted))
    if numbers["share"]:
        console.print(
            "share of samples taught by " + ", ".join(f"{who} {v:.1%}" for who, v in numbers["share"].items())
        )
    console.print(f"trained in {numbers['seconds']} s")


def _show_text(numbers: dict[str, Any], console: "Console") -> None:
    """The scores before and after, of each text that the models were tested on."""
    from osmose.report.text import score_table

    for name, found in {numbers["data"]: numbers, **numbers["others"]}.items():
        console.print(f"{numbers['student']} taught by {numbers['taught_by']}; {found['tokens']} test tokens of {name}")
        _show_table(console, *score_table(found))
        console.print(
            f"next tokens newly right {found['knowledge_gain']:.2f} %, newly wrong {found['knowledge_loss']:.2f} %"
        )
    if numbers["share"]:
        console.print("share of tokens taught by " + ", ".join(f"{who} {v:.1%}" for who, v in numbers["share"].items()))
    console.print(f"trained in {numbers['seconds']} s")


def _show_ratings(numbers: dict[str, Any], console: "Console") -> None:
    """The errors of all, and of the ratings of each genre."""
    from osmose.report.ratings import genre_table, teachers

    console.print(
        f"{numbers['student']} taught by {numbers['taught_by']}; root mean squared error in stars on {numbers['ratings']} "
        "test ratings"
    )
    everyone = {"before": numbers["rmse_before"], "after": numbers["rmse_after"]}
    everyone |= {role: found["rmse"] for role, found in teachers(numbers).items()}
    columns, rows = genre_table(numbers)
    shown = [["all", str(numbers["ratings"]), *(f"{value:.4f}" for value in everyone.values())], *rows]
    _show_rows([dict(zip(columns, row, strict=True)) for row in shown])
    console.print(f"trained in {numbers['seconds']} s")


def _show_features(numbers: dict[str, Any], console: "Console") -> None:
    """What neighbours and linear classifiers read from each network's features."""
    from osmose.report.backbones import NOTHING_READ, feature_table

    columns, rows = feature_table(numbers)
    of = f"; {numbers['samples']} test samples" if rows else ""
    console.print(f"{numbers['student']} taught by {numbers['taught_by']}{of}")
    if rows:
        _show_table(console, columns, rows)
    else:
        console.print(NOTHING_READ)
    if "agreement_after" in numbers:
        before, after = numbers["agreement_before"], numbers["agreement_after"]
        console.print(f"neighbours of the networks agree on {after:.2f} %, before on {before:.2f} %")
    console.print(f"trained in {numbers['seconds']} s")


def _show_robustness(numbers: dict[str, Any]) -> None:
    """A column a model and then a column of each model's gap to the first."""
    first, *_ = summary = numbers["summary"]
    columns = {row["model"]: row for row in summary}
    columns |= {f"{row['model']}_behind": row for row in numbers["gaps"]}
    keys = [key for key in first if key != "model"]
    _show_rows([{"accuracy": key, **{name: round(row[key], 2) for name, row in columns.items()}} for key in keys])
    print(
        f"percent of {numbers['samples']} samples of {numbers['data']}, part {numbers['part']}, each the mean over its parts"
    )


def _show_comparison(numbers: dict[str, Any]) -> None:
    _show_rows([{**row, "accuracy": round(row["accuracy"], 2)} for row in numbers["models"]])
    columns = ("accuracy_difference", "positive_flips", "negative_flips", "agreement", "entropy")
    rows = [
        {
            "teacher": pair["teacher"],
            "student": pair["student"],
            **{name: None if pair[name] is None else round(pair[name], 2) for name in columns},
            "half_of_them_in": ", ".join(pair["top"][-1]["classes"]),
        }
        for pair in numbers["pairs"]
    ]
    print()
    _show_rows(rows)
    print(
        f"percent of {numbers['samples']} samples"
        + (f" of {numbers['data']}" if numbers["data"] else "")
        + f", part {numbers['part']}; entropy in nats, evenly spread over classes {numbers['uniform_entropy']:.2f}"
    )
    if numbers["ranking"]:
        print("\nteachers, best first")
        _show_rows([{**row, **{k: round(row[k], 2) for k in row if k != "teacher"}} for row in numbers["ranking"]])


def _show_study(numbers: dict[str, Any]) -> None:
    from osmose.table import NUMBERS

    shown = {
        "part": "on", "method": "method", "settings": "settings", "networks": "networks", "runs": "runs",
        "success_rate_median": "success",
        "success_rate_pooled": "pooled", "delta_mean": "delta", "delta_seed_sd": "seed_sd",
        "significantly_better": "better", "significantly_worse": "worse",
        **{f"student{role}_{key}_mean": f"{text}{role}" for role in NUMBERS
           for key, text in (("neighbours", "neighbours"), ("probe", "linear"))},
        "agreement_mean": "agreement",
        "rmse_mean": "rmse", "rmse_se": "s.e.", "mse_median": "median_mse", "mse_min": "smallest", "mse_max": "largest",
        "perplexity_mean": "perplexity", "perplexity_sd": "sd", "last_word_accuracy_mean": "last_words",
        "retention_mean": "retained", "others_mean": "other_texts",
    }  # fmt: skip
    _show_rows(
        [{text: row[key] for key, text in shown.items() if row.get(key) is not None} for row in numbers["summary"]]
    )
    print(f"{numbers['finished']} of {numbers['runs']} runs finished; table {numbers['table']}")


def _show_estimate(numbers: dict[str, Any]) -> None:
    for name, stage in numbers["stages"].items():
        text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in stage.items())
        print(f"{name}: {text}" if name else text)


def _show_scores(numbers: dict[str, Any]) -> None:
    _show_pairs({key: value for key, value in numbers.items() if key != "by_genre"})
    if "by_genre" in numbers:
        _show_rows([{"genre": genre, **found} for genre, found in numbers["by_genre"].items()])


def _show_pairs(values: dict[str, Any]) -> None:
    for key, value in values.items():
        print(f"{key.replace('_', ' ')}: {round(value, 4) if isinstance(value, float) else value}")


def _show_table(console: "Console", columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, whose first column has no heading."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for cells in rows:
        table.add_row(*cells)
    console.print(table)


def _show_rows(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in dict.fromkeys(key for row in rows for key in row if not isinstance(row[key], list | dict)):
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column in ("name", "key"))
    columns = [str(column.header).replace(" ", "_") for column in table.columns]
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else 160
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
