"""Progress bars of sweeps and searches."""

import math
from collections import Counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unlearnbench.cli.tables import console
from unlearnbench.core.errors import printable
from unlearnbench.sweep import local as launch
from unlearnbench.sweep.plan import Event, Plan


class JobProgressBar(launch.Watcher):
    """A progress bar with the number of remaining jobs by kind, and the remaining time."""

    def __init__(self, plan: Plan) -> None:
        console.print(str(plan))
        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self.left = {
            kind: sum(job.kind == kind for job in plan.jobs) for kind in (*plan.in_store, "rows")
        }
        is_visible = bool(plan.jobs)
        self.bar = self.progress.add_task("starting", total=len(plan.jobs), visible=is_visible)

    def __enter__(self) -> "JobProgressBar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def event(self, event: Event) -> None:
        """Count a finished job."""
        self.left[event.kind] -= 1
        remaining = ", ".join(f"{count} {kind}" for kind, count in self.left.items() if count)
        self.progress.update(
            self.bar, advance=1, description=f"left: {remaining}" if remaining else "done"
        )


class TrialProgressBar(launch.Watcher):
    """A progress bar with the number of trials, the remaining time and the latest best score."""

    def __init__(self, plan: Plan) -> None:
        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self.methods = {job.key: job.cells[0].names["method"] for job in plan.jobs if job.slot}
        self.fresh = {job.key for job in plan.jobs if job.slot and job.slot.fresh}
        self.best: dict[str, float] = {}
        self.said: Counter[tuple[str, str]] = Counter()
        is_visible = bool(plan.jobs)
        self.bar = self.progress.add_task("starting", total=len(plan.jobs), visible=is_visible)

    def __enter__(self) -> "TrialProgressBar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        for (status, reason), count in self.said.items():
            console.print(f"{status}: {count:,} jobs: {reason}", soft_wrap=True)

    def event(self, event: Event) -> None:
        """Count a finished job."""
        self.progress.advance(self.bar)
        if event.status != "done" and event.key not in self.fresh:
            self.said[event.status, event.reason] += 1
        method = self.methods.get(event.key, "")
        if event.score is not None and event.score < self.best.get(method, math.inf):
            self.best[method] = event.score
            description = f"best of {printable(method)}: {event.score:.4f}"
            self.progress.update(self.bar, description=description)
