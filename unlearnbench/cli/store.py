"""The command ``unlearnbench store``: verify checksums, report sizes, delete unneeded files."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from unlearnbench.config import compose
from unlearnbench.core.cell import KEEP
from unlearnbench.core.errors import ConfigError
from unlearnbench.store.artifacts import Store
from unlearnbench.store.maintenance import clear, damaged, size_of, taken, waste, weights

console = Console(highlight=False, soft_wrap=True)

DAYS = 7.0
"""Days after which an artifact that no sweep needs may be deleted."""


def command(argv: Sequence[str]) -> bool:
    """``unlearnbench store``: what the words ask for, on the store that they or the config name.

    Returns:
        Whether nothing is damaged.

    Raises:
        ConfigError: an override is not valid.
        FileNotFoundError: there is no store.
    """
    parser = ArgumentParser(prog="unlearnbench store", description=command.__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("verify", help="read all files and compare them with their checksums")
    commands.add_parser("du", help="bytes by kind")
    gc = commands.add_parser("gc", help="list what nobody needs, and with --delete delete it")
    gc.add_argument("--delete", action="store_true", help="delete it; without this nothing is")
    gc.add_argument("--days", type=float, default=DAYS, help="least age of artifacts that go")
    args, overrides = parser.parse_known_args(list(argv))
    for argument in overrides:
        if argument.startswith("-"):
            parser.error(f"unrecognized arguments: {argument}")
    settings = compose.settings(overrides)
    store = Store(Path(settings["paths"]["store"]))
    if not store.root.is_dir():
        raise FileNotFoundError(f"no store in {store.root}: name another with paths.store=…")
    if settings["store"]["keep"] not in KEEP:
        raise ConfigError(f"store.keep={settings['store']['keep']}: all or predictions")
    subcommand = {"verify": _verify, "du": _du, "gc": _gc}[args.what]
    return subcommand(store, args, settings["store"]["keep"])


def _verify(store: Store, args: Namespace, keep: str) -> bool:
    n_damaged = 0
    for line in damaged(store):
        n_damaged += 1
        console.print(line, markup=False)
    console.print(f"{sum(1 for _ in store.artifacts())} artifacts, {n_damaged} files damaged")
    if n_damaged:
        console.print("delete the folders named above: the next run makes again what it needs")
    return not n_damaged


def _du(store: Store, args: Namespace, keep: str) -> bool:
    kinds = taken(store)
    for kind, (number, size) in kinds.items():
        console.print(f"{kind:<14}{number:>10,}{_human(size):>12}")
    total = sum(size for _, size in kinds.values())
    console.print(f"{'all':<14}{sum(count for count, _ in kinds.values()):>10,}{_human(total):>12}")
    return True


def _human(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _gc(store: Store, args: Namespace, keep: str) -> bool:
    unneeded = waste(store, days=args.days, keep=keep)
    sweeps = store.references()
    console.print(f"needed by {len(sweeps)} sweeps: {', '.join(sweeps) or 'none'}", markup=False)
    files = [store.path(key) / name for key in unneeded.weights for name in weights(store, key)]
    for label, paths in {
        f"artifacts that none of them needs, older than {args.days:g} days": [
            store.path(key) for key in unneeded.artifacts
        ],
        "weights of unlearned models": files,
        "locks and files of processes that are gone": unneeded.left,
    }.items():
        console.print(f"{len(paths):>10,} {label}, {_human(sum(map(size_of, paths)))}")
    if not args.delete:
        console.print("nothing is deleted without --delete")
        return True
    for key in unneeded.artifacts:
        with suppress(FileNotFoundError):
            store.remove(key)
    for key in unneeded.weights:
        for name in weights(store, key):
            store.drop(key, name)
    for path in unneeded.left:
        clear(path)
    console.print("deleted")
    return True
