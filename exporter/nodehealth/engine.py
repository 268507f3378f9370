"""The core loop: takes batches from the followers, folds them into the state, commits, publishes.

It alone touches the state.  A batch's effect is on disk before the page shows it, and the loop itself never waits for a
file, a device or, for longer than 50 ms, for the disk.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from queue import Empty, SimpleQueue

from nodehealth import __version__, logs
from nodehealth.catalog import is_driver_line
from nodehealth.checks import Measurement, Metric, Pass, Planned, Sample
from nodehealth.inspector import Inspected, Inspector
from nodehealth.model import KERNEL_LOG, Record, Severity
from nodehealth.runner import Changed, Delivery, Runner
from nodehealth.settings import SettingsError, Trust
from nodehealth.sources.follower import Batch, Follower, Position
from nodehealth.sources.host import Gpu
from nodehealth.state import Change, Moment, State
from nodehealth.store import Transaction
from nodehealth.view import CheckView, Happening, Occurrence, Outcome, SelfView, SourceState, SourceView, View
from nodehealth.wiring import Wiring, hardware_of, plan

TICK_SECONDS = 1.0
BACKLOG_SECONDS = 30.0  # after that the page is shown although the backlog is not read
SUMMARY_SECONDS = 300.0
MAX_BATCHES = 64  # handled as one transaction
RELOAD, WAKE = "reload", "wake"

log = logging.getLogger("nodehealth")


def _level(occurrence: Occurrence) -> int:
    """Critical findings pass every `--log.level`."""
    if occurrence.happening is not Happening.FOUND:
        return logging.INFO
    levels = {Severity.CRITICAL: logging.ERROR, Severity.WARNING: logging.WARNING}
    return levels.get(Severity(occurrence.severity), logging.INFO)


class Engine:
    """The running exporter without its reporters."""

    def __init__(self, wiring: Wiring, publish: Callable[[View], None], *, once: bool = False) -> None:
        self._wiring = wiring
        self._publish_view = publish
        self._once = once
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._runners: dict[str, Runner] = {}
        self._stopping = threading.Event()
        self._positions: dict[str, Position] = dict(wiring.saved.positions)
        self._unsaved = Transaction()
        self._losses: dict[tuple[str, str], int] = dict(wiring.saved.losses)
        self._sources: dict[str, SourceView] = {}
        self._changed = True
        self._config_ok = True
        self._begun = False
        self._inspector: Inspector | None = None
        self._checks: dict[str, CheckView] = {}
        self._measured: dict[str, dict[Metric, tuple[Measurement, ...]]] = {}
        self._samples: dict[str, tuple[float, Sample]] = dict(wiring.saved.samples)
        clock = wiring.host.clock
        self._started = clock.monotonic()
        self._summary_due = self._started + SUMMARY_SECONDS
        self.heartbeat = self._started
        gpus = tuple(wiring.host.gpus())
        self.state = self._state(gpus)
        self_view = SelfView(__version__, clock.now(), persistent=wiring.store is not None, state_note=wiring.note)
        self._view = View(wiring.catalog.reasons, self.state.hardware, gpus, self_view)

    def _state(self, gpus: Iterable[Gpu]) -> State:
        host, saved, settings = self._wiring.host, self._wiring.saved, self._wiring.settings
        state = State(
            self._wiring.catalog.reasons,
            boot_id=host.log_boot_id,
            devices=[device.address for device in host.pci_devices()],
            hardware=hardware_of(host),
            uuids={gpu.pci_bus_id: gpu.uuid for gpu in gpus if gpu.uuid},
            first_start=saved.fresh,
            backlog_max_age=settings.backlog_max_age,
        )
        moment = self._moment()
        same_boot = bool(host.log_boot_id) and saved.boot_id == host.log_boot_id
        state.restore(saved.counts, saved.numbers, saved.problems, saved.recent, moment, same_boot=same_boot)
        state.history[:] = saved.history
        if saved.boot_id and host.log_boot_id and saved.boot_id != host.log_boot_id:
            state.rebooted(moment)
        return state

    def _moment(self) -> Moment:
        clock = self._wiring.host.clock
        return Moment(clock.now(), clock.monotonic())

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop` (or, once, until everything that is there has been read)."""
        self._unsaved.meta["boot_id"] = self._wiring.host.log_boot_id
        self._follow_plan()
        self._inspect_plan()
        self._settle()
        while not self._stopping.is_set() and not (self._once and self._all_caught_up()):
            self._step(TICK_SECONDS)
        self._finish()

    def stop(self) -> None:
        """End soon; safe to call from a signal handler."""
        self._stopping.set()
        self._queue.put(WAKE)

    def reload(self) -> None:
        """Read the configuration again soon; safe to call from a signal handler."""
        self._queue.put(RELOAD)

    def _step(self, seconds: float) -> None:
        reload = False
        for message in self._messages(seconds):
            if isinstance(message, Delivery):
                self._take(message)
            elif isinstance(message, Inspected):
                self._take_inspection(message)
            reload |= message is RELOAD
        if reload and not self._stopping.is_set():
            self._reload()
        now = self._wiring.host.clock.monotonic()
        due = now - self.heartbeat >= TICK_SECONDS
        if due:
            self._tick()
            self.heartbeat = now
        self._settle(everything=due)

    def _messages(self, seconds: float) -> Iterator[object]:
        """What waits, after waiting for the first one."""
        try:
            yield self._queue.get(timeout=seconds)
            for _ in range(MAX_BATCHES - 1):
                yield self._queue.get_nowait()
        except Empty:
            return

    def _tick(self) -> None:
        self.state.tick(self._moment())
        self._do_commands()
        logs.say_suppressed()
        self._changed = True
        if self._wiring.host.clock.monotonic() >= self._summary_due:
            self._summary_due += SUMMARY_SECONDS
            self._log_summary()

    def _finish(self) -> None:
        for runner in self._runners.values():
            runner.stop()
        if self._inspector is not None:
            self._inspector.stop()
            self._inspector.join()
        for runner in self._runners.values():
            runner.join()
        for message in self._messages(0.01):
            if isinstance(message, Delivery):
                self._take(message)
        self._settle(everything=True)
        if self._wiring.store is not None:
            self._wiring.store.close()

    # -- followers -----------------------------------------------------------------------------------------------------

    def _follow_plan(self) -> None:
        """Start what the catalog needs and does not run yet, and end what it no longer needs."""
        planned = plan(self._wiring, self._positions)
        for name in set(self._sources) - set(planned.followers):
            del self._sources[name]
            if name in self._runners:
                self._runners.pop(name).stop()
        for name, (follower, serves) in planned.followers.items():
            known = self._sources.get(name)
            if known is None or known.serves != serves:
                self._exchange(follower, serves)
        for name, why in planned.replaced.items():
            self._sources[name] = replace(self._source_view(name, frozenset()), state=SourceState.ABSENT, detail=why)
            log.info("source is replaced", extra={"source": name, "why": why})
        for name, source in self._sources.items():
            self._sources[name] = replace(source, required=False)
        for name in self._wiring.settings.required_sources:
            known = self._sources.get(name) or SourceView(name, detail="required, but nothing reads it")
            absent = name not in planned.followers
            self._sources[name] = replace(known, required=True, state=SourceState.DOWN if absent else known.state)

    def _exchange(self, follower: Follower, serves: frozenset[str]) -> None:
        """Run this follower instead of the one with its name."""
        name = follower.name
        if name in self._runners:
            self._runners.pop(name).stop()
        known = self._sources.get(name) or self._source_view(name, serves)
        self._sources[name] = replace(known, serves=serves, state=SourceState.STARTING, detail="", caught_up=False)
        self._runners[name] = Runner(follower, self._positions.get(name), self._queue, once=self._once)

    def _source_view(self, name: str, serves: frozenset[str]) -> SourceView:
        return SourceView(
            name,
            serves=serves,
            lost=self._losses.get(("lost", name), 0),
            gaps=self._losses.get(("gaps", name), 0),
        )

    def _take(self, delivery: Delivery) -> None:
        """Take what a follower hands over, unless another one has its place by now: that one reads it again itself."""
        message = delivery.message
        delivery.runner.handled(message)
        if self._runners.get(message.source) is not delivery.runner:
            return
        if isinstance(message, Batch):
            self._take_batch(message)
        else:
            self._take_change(message)

    def _take_change(self, changed: Changed) -> None:
        source = self._sources[changed.source]
        state = changed.state
        if state is SourceState.ABSENT and source.required:
            state = SourceState.DOWN
        if (state, changed.detail) != (source.state, source.detail):
            level = logging.INFO if state is SourceState.ABSENT else logging.WARNING
            log.log(level, "source is %s", state, extra={"source": source.name, "why": changed.detail})
            self._changed = True
        if changed.position is not None and changed.position != self._positions.get(source.name):
            self._positions[source.name] = self._unsaved.positions[source.name] = changed.position
        errors = source.errors + changed.error
        self._sources[source.name] = replace(source, state=state, detail=changed.detail, caught_up=True, errors=errors)
        if source.name == KERNEL_LOG:
            self._follow_plan()  # the journal that can stand in may have appeared since

    # -- batches -------------------------------------------------------------------------------------------------------

    def _take_batch(self, batch: Batch) -> None:
        moment = self._moment()
        matched = unmatched = 0
        errors = 0
        for record in batch.records:
            recognised: list[bool] = []
            errors += bool(self._guarded(partial(self._read, record, moment, recognised), source=batch.source))
            matched += bool(recognised)
            unmatched += not recognised and not self._ignored(record) and is_driver_line(record.text)
        batch = replace(batch, malformed=batch.malformed + errors) if errors else batch
        self._tally(batch, matched, unmatched)
        if batch.position is not None:
            self._positions[batch.source] = self._unsaved.positions[batch.source] = batch.position
        if batch.kernel is not None:
            self._positions[KERNEL_LOG] = self._unsaved.positions[KERNEL_LOG] = batch.kernel

    def _read(self, record: Record, moment: Moment, recognised: list[bool]) -> None:
        """Fold what the catalog says of one record; an entry in `recognised` for each rule that knows it."""
        if self._ignored(record):
            return
        injected = record.user and self._wiring.settings.trust_user_records is Trust.DRILL
        for match in self._wiring.catalog.read(record):
            recognised.append(True)
            for event in match.events:
                self.state.apply(event, record, moment, injected=injected)

    def _ignored(self, record: Record) -> bool:
        return record.user and self._wiring.settings.trust_user_records is Trust.NEVER

    def _guarded(self, work: Callable[[], None], **what: str) -> str:
        """Do it; a fault of ours in one record or one judge is logged and counted, and ends nothing else."""
        try:
            work()
        except Exception as error:  # the one place in the loop: without it one bad record would end every start again
            log.exception("a record or a check could not be judged", extra=what)
            return f"{type(error).__name__}: {error}"
        return ""

    def _tally(self, batch: Batch, matched: int, unmatched: int) -> None:
        source = self._sources[batch.source]
        came_up = source.state is not SourceState.UP
        for kind, grown in (("lost", batch.lost), ("gaps", batch.gaps)):
            if grown:
                key = (kind, batch.source)
                self._losses[key] = self._unsaved.losses[key] = self._losses.get(key, 0) + grown
        if batch.lost or batch.gaps:
            log.warning("records were lost", extra={"source": batch.source, "lost": batch.lost, "gaps": batch.gaps})
        if came_up:
            log.info("source is up", extra={"source": batch.source})
        self._sources[batch.source] = replace(
            source,
            state=SourceState.UP,
            detail="",
            records=source.records + len(batch.records),
            matched=source.matched + matched,
            unmatched_driver_lines=source.unmatched_driver_lines + unmatched,
            errors=source.errors + batch.malformed,
            cut=source.cut + batch.cut,
            lost=source.lost + batch.lost,
            gaps=source.gaps + batch.gaps,
            last_record=batch.records[-1].time if batch.records else source.last_record,
            caught_up=source.caught_up or batch.caught_up,
        )
        self._changed |= came_up or bool(batch.lost or batch.gaps or batch.malformed)

    # -- checks --------------------------------------------------------------------------------------------------------

    def _inspect_plan(self) -> None:
        """Run the checks of the catalog; what a check measured before a reload stays until it runs again."""
        if self._inspector is not None:
            self._inspector.stop()
        planned = {name: each for name, each in self._wiring.catalog.checks.items() if each.check.enabled}
        known = self._checks
        self._checks = {name: known.get(name) or CheckView(name, each.check.subsystem) for name, each in planned.items()}
        self._measured = {name: each for name, each in self._measured.items() if name in planned}
        for name in set(self._wiring.catalog.checks) - set(planned):
            self.state.unchecked(name, self._moment())
        self._inspector = Inspector(self._wiring.host, planned.values(), self._queue, once=self._once, ask=self._wiring.ask)

    def _take_inspection(self, inspected: Inspected) -> None:
        planned = self._wiring.catalog.checks.get(inspected.check)
        if planned is None or inspected.check not in self._checks:
            return
        outcome, detail = self._outcome(inspected)
        if outcome is Outcome.SUCCESS:
            error = self._guarded(partial(self._judge, planned, inspected), check=inspected.check)
            outcome, detail = (Outcome.FAILED, error) if error else (outcome, detail)
        else:
            self._measured.pop(inspected.check, None)
        if outcome is Outcome.ABSENT:  # positive evidence: what cannot exist cannot be wrong
            self.state.checked(planned.check.reasons, (), f"check:{inspected.check}", self._moment())
        before = self._checks[inspected.check]
        if (before.outcome, before.detail) != (outcome, detail) and outcome is Outcome.FAILED:
            log.warning("check failed", extra={"check": inspected.check, "why": detail})
        self._checks[inspected.check] = replace(
            before, outcome=outcome, detail=detail, duration=inspected.duration, last_run=inspected.time
        )
        self._changed = True

    def _outcome(self, inspected: Inspected) -> tuple[Outcome, str]:
        if inspected.failed:
            return Outcome.FAILED, inspected.failed
        return (Outcome.ABSENT, inspected.absent) if inspected.absent else (Outcome.SUCCESS, "")

    def _judge(self, planned: Planned, inspected: Inspected) -> None:
        """Let the pure judge say what the sample means, and fold it in."""
        check = planned.check
        at, previous = self._samples.get(check.name, (None, None))
        elapsed = None if at is None else max(0.0, inspected.time - at)
        verdict = check.judge(Pass(inspected.sample, planned.thresholds, previous, elapsed))
        if check.keeps:
            self._samples[check.name] = self._unsaved.samples[check.name] = (inspected.time, inspected.sample)
        measured: dict[Metric, list[Measurement]] = {metric: [] for metric in check.metrics}
        for each in verdict.measurements:
            measured[each.metric].append(each)
        self._measured[check.name] = {metric: tuple(values) for metric, values in measured.items()}
        self.state.checked(check.reasons, verdict.findings, f"check:{check.name}", self._moment())

    # -- commit and publish --------------------------------------------------------------------------------------------

    def _settle(self, *, everything: bool = False) -> None:
        """Commit what changed, then show it.

        An effect and the position behind it are one transaction, always.  Positions and samples without an effect wait for
        the tick (`everything`): what lies behind them would only be read again.
        """
        if not self._view.self_.ready:
            self.state.tick(self._moment())  # what was over before the backlog ended is not shown as holding
        change = self.state.take_change()
        unsaved = self._unsaved
        if change or unsaved.losses or unsaved.commands or unsaved.meta or (everything and unsaved):
            transaction, self._unsaved = replace(self._unsaved, change=change), Transaction()
            if self._wiring.store is not None:
                self._wiring.store.commit(transaction)
            for occurrence in change.history:
                uuid = self.state.uuids.get(occurrence.object)
                log.log(_level(occurrence), "%s", occurrence.happening, extra={"occurrence": occurrence, "uuid": uuid})
            self._changed = True
        ready = self._view.self_.ready or self._is_ready()
        if self._wiring.saved.fresh and not self._begun and self._is_caught_up():
            self._begun = True  # from now on a start is no first start any more
            self._unsaved.meta["begun"] = "1"
        if self._changed or ready != self._view.self_.ready:
            self._changed = False
            self._publish(change, ready=ready)

    def _publish(self, change: Change, *, ready: bool) -> None:
        """Show the state; what did not change stays the same object, so that it is not rendered again."""
        store, view, state = self._wiring.store, self._view, self.state
        saved = store is not None and store.saved
        self_view = replace(
            view.self_, ready=ready, saved=saved, cut_objects=state.cut_objects, config_reload_ok=self._config_ok
        )
        first = not view.self_.ready
        sources = tuple(self._sources[name] for name in sorted(self._sources))
        checks = tuple(self._checks[name] for name in sorted(self._checks))
        impossible = self._impossible()
        measured = {metric: values for group in self._measured.values() for metric, values in group.items()}
        shown = replace(
            view,
            reasons=state.reasons,
            hardware=state.hardware,
            self_=view.self_ if self_view == view.self_ else self_view,
            sources=view.sources if sources == view.sources else sources,
            checks=view.checks if checks == view.checks else checks,
            measurements=view.measurements if measured == view.measurements else measured,
            impossible=view.impossible if impossible == view.impossible else impossible,
            counts=dict(state.counts) if first or change.counts else view.counts,
            numbers=dict(state.numbers) if first or change.numbers else view.numbers,
            problems=tuple(state.problems.values()) if first or change.problems else view.problems,
            history=tuple(state.history) if first or change.history else view.history,
        )
        if any(getattr(shown, each.name) is not getattr(view, each.name) for each in fields(View)):
            self._view = shown
            self._publish_view(shown)

    def _impossible(self) -> frozenset[str]:
        """Reasons that no log proves and whose checks are all absent or disabled."""
        looking: set[str] = set()
        checked: set[str] = set()
        for name, planned in self._wiring.catalog.checks.items():
            names = {reason.name for reason in planned.check.reasons}
            checked |= names
            if name in self._checks and self._checks[name].outcome is not Outcome.ABSENT:
                looking |= names
        return frozenset(name for name in checked - looking if not self._wiring.catalog.reasons[name].patterns)

    def _all_caught_up(self) -> bool:
        busy = any(runner.alive for runner in self._runners.values()) or (self._inspector and self._inspector.alive)
        return not busy and self._queue.empty()

    def _is_ready(self) -> bool:
        late = self._wiring.host.clock.monotonic() - self._started > BACKLOG_SECONDS
        return late or self._is_caught_up()

    def _is_caught_up(self) -> bool:
        return all(source.caught_up for source in self._sources.values() if source.name in self._runners)

    # -- orders --------------------------------------------------------------------------------------------------------

    def _do_commands(self) -> None:
        if self._wiring.store is None or not self._view.self_.ready:
            return  # a clear that was left while nobody ran comes after what was logged before it
        for command in self._wiring.store.commands():
            before = command.time if command.time < self._view.self_.started else math.inf
            ended = self.state.clear(command.reason, command.object, self._moment(), before=before)
            self._unsaved.commands[command.id] = ended
            log.info("cleared by an operator", extra={"reason": command.reason, "object": command.object, "ended": ended})

    def _reload(self) -> None:
        if self._wiring.load is None:
            return
        try:
            settings, catalog = self._wiring.load()
        except SettingsError as error:
            log.error("configuration refused, the old one stays", extra={"why": str(error)})  # noqa: TRY400
            self._config_ok = False
        else:
            self._wiring.settings, self._wiring.catalog = settings, catalog
            self.state.regrade(catalog.reasons, self._moment())
            self._follow_plan()
            self._inspect_plan()
            self._config_ok = True
            log.info("configuration reloaded")
        self._changed = True

    def _log_summary(self) -> None:
        for source in self._sources.values():
            if source.state is SourceState.UP:
                log.info(
                    "source summary",
                    extra={
                        "source": source.name,
                        "read": source.records,
                        "matched": source.matched,
                        "unmatched_driver_lines": source.unmatched_driver_lines,
                        "lost": source.lost,
                        "gaps": source.gaps,
                    },
                )
