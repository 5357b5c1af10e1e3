"""Processing and enqueueing, side by side: every contender in turn, round after round.

A run has a new server. The tasks are sent one by one, with no worker there; then one worker starts
and answers them all. Its rate is from the first task taken up to the last one that ran, so that
starting is no part of it; for Forebay to the last answer that the queue has said is stored. Then
every answer is read back, and each task must have run once.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.plan import Raw
from bench.queue_contenders import ROOT, Contender, contenders
from bench.queue_plan import QueuePlan
from bench.queue_server import QueueServer, queue_server
from bench.queue_systems.marks import VARIABLE, Marks
from bench.servers import clean_environment, stop

RUN_LIMIT_S = 300.0
SETTLE_S = 0.5
STORE_LIMIT_S = 10.0
_POLL_S = 0.01
_LOG_TAIL = 2000


class QueueRunError(Exception):
    """A run came to nothing: a step failed, or not every task has its answer."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of one contender: its server, its folder, its number of tasks."""

    contender: Contender
    home: Path
    server: QueueServer
    folder: Path
    tasks: int

    def environment(self, role: str) -> dict[str, str]:
        """Return the variables of a process of this run."""
        url = self.server.url(self.contender.transport)
        return clean_environment() | {
            "PYTHONPATH": str(ROOT),
            "QUEUE_URL": url,
            "QUEUE_TASKS": str(self.tasks),
            "QUEUE_SENT": str(self.folder / "sent.json"),
            "QUEUE_FOLDER": str(self.folder),
            "QUEUE_ROLE": role,
            VARIABLE: str(self.folder / "marks"),
            "RQ_REDIS_URL": url,
            "DOCKET_URL": url,
            **self.contender.environment,
        }

    def step(self, name: str) -> str:
        """Run ``send`` or ``read`` to its end; return what it printed."""
        python = str(self.contender.python(self.home))
        done = subprocess.run(
            [python, "-m", "bench.queue_systems", self.contender.system, name],
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise QueueRunError(f"{self.contender.name} cannot {name}: {done.stderr[-_LOG_TAIL:]}")
        return done.stdout

    @contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        """Run the worker until the block ends."""
        log = self.folder / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.contender.command(self.home),
                env=self.environment("work"),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield psutil.Process(process.pid)
            finally:
                stop(process)


def process(plan: QueuePlan, part: str) -> Raw:
    """Measure every contender, ``rounds`` times."""
    everyone = contenders(plan.peers, plan.home)
    raw: Raw = {"contenders": {one.name: about(one, plan.home) for one in everyone}, "rounds": []}
    for number in range(plan.sizes.rounds):
        results: Raw = {}
        raw["rounds"].append(results)
        turn = number % len(everyone)
        for one in [*everyone[turn:], *everyone[:turn]]:
            results[one.name] = measure(plan, one)
            plan.say(f"{part}: round {number + 1}, {one.name}: {_line(results[one.name])}")
            plan.save(part, raw)
    return raw


def about(contender: Contender, home: Path) -> Raw:
    """Return a contender's settings and the versions of its packages."""
    code = (
        "import json, sys; from importlib.metadata import version, packages_distributions as p; "
        "names = {n for all in p().values() for n in all}; "
        "print(json.dumps({n: version(n) for n in sys.argv[1:] if n in names}))"
    )
    said = subprocess.run(
        [str(contender.python(home)), "-c", code, *contender.packages],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "settings": contender.about,
        "transport": contender.transport,
        "stores": contender.stores,
        "command": list(contender.worker),
        "versions": json.loads(said.stdout),
    }


def measure(plan: QueuePlan, contender: Contender) -> Raw:
    """Make one run. A failure is told in the figures; it does not end the comparison."""
    folder = plan.folder(contender.name)
    tasks = max(20, round(contender.tasks * plan.sizes.share))
    try:
        with queue_server(folder / "server") as server:
            return _measure(Bench(contender, plan.home, server, folder, tasks))
    except (QueueRunError, subprocess.TimeoutExpired) as error:
        return {"tasks": tasks, "failed": str(error)}


def _measure(bench: Bench) -> Raw:
    marks = Marks.create(bench.folder / "marks", bench.tasks)
    cpu = bench.server.cpu_s()
    bench.step("send")
    sent = json.loads((bench.folder / "sent.json").read_text(encoding="utf-8"))
    sending_cpu = bench.server.cpu_s() - cpu
    with bench.worker() as worker:
        worked = _watch(bench, marks, worker)
        _verify(bench, marks)  # before it is stopped: the last answers may be on their way
    return {
        "tasks": bench.tasks,
        "server": bench.server.version(),
        "enqueue_per_s": bench.tasks / sent["seconds"],
        "enqueue_client_us": 1e6 * sent["cpu_s"] / bench.tasks,
        "enqueue_server_us": 1e6 * sending_cpu / bench.tasks,
        **worked,
    }


def _watch(bench: Bench, marks: Marks, worker: psutil.Process) -> Raw:
    """Wait until every task ran; return the rate and what the processes used for each task."""
    until = time.monotonic() + RUN_LIMIT_S
    started: tuple[float, float] | None = None
    while not marks.times()[1]:
        if started is None and marks.times()[0]:
            started = cpu_s(worker), bench.server.cpu_s()
        if time.monotonic() > until or _ended(worker):
            raise QueueRunError(f"{sum(marks.runs())} of {bench.tasks} tasks ran: {_tail(bench)}")
        time.sleep(_POLL_S)
    first, last = marks.times()
    used = started or (cpu_s(worker), bench.server.cpu_s())
    return {
        "process_per_s": bench.tasks / (last - first),
        "process_worker_us": 1e6 * (cpu_s(worker) - used[0]) / bench.tasks,
        "process_server_us": 1e6 * (bench.server.cpu_s() - used[1]) / bench.tasks,
    }


def _ended(worker: psutil.Process) -> bool:
    """Whether a worker has ended; nobody has asked for its exit code then."""
    return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def cpu_s(first: psutil.Process) -> float:
    """Return the processor time of a process and its descendants."""
    spent = 0.0
    for one in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            spent += times.user + times.system
    return spent


def _verify(bench: Bench, marks: Marks) -> None:
    """Check that each task ran once and that every answer can be read back.

    The last answers may still be on their way to the server.
    """
    time.sleep(SETTLE_S)
    again = sum(one != 1 for one in marks.runs())
    if again:
        raise QueueRunError(f"{again} of {bench.tasks} tasks did not run exactly once")
    until = time.monotonic() + STORE_LIMIT_S
    while bench.contender.stores and (trouble := _trouble(bench)):
        if time.monotonic() > until:
            raise QueueRunError(trouble)
        time.sleep(SETTLE_S)


def _trouble(bench: Bench) -> str:
    """Return what is wrong with the answers now. Some clients fail where one is not there yet."""
    try:
        answers: list[Any] = json.loads(bench.step("read"))
    except QueueRunError as error:
        return str(error)
    wrong = [(number, one) for number, one in enumerate(answers) if one != number]
    return f"{len(wrong)} of {bench.tasks} answers are wrong: {wrong[:3]}" if wrong else ""


def _tail(bench: Bench) -> str:
    log = bench.folder / "worker.log"
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]


def _line(made: Mapping[str, Any]) -> str:
    if "failed" in made:
        return f"FAILED: {made['failed']}"
    return (
        f"{made['process_per_s']:,.0f}/s processed (a task: worker "
        f"{made['process_worker_us']:.0f} us, server {made['process_server_us']:.0f} us), "
        f"{made['enqueue_per_s']:,.0f}/s enqueued"
    )
