"""Every metric family: its name, type, help, and how it is read from a View.  A public interface: names only change with
a major version.

One row for each family; `section` says on which part of the View it depends, so that it is rendered again only when that
part changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nodehealth.checks import Metric as Measured
from nodehealth.model import Health, Reason
from nodehealth.numbers import Family
from nodehealth.reporters.objects import ObjectRows
from nodehealth.view import Outcome, SourceState, SourceView, View

Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: `kind` is gauge or counter, `read` yields label values and value."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    section: Callable[[View], object]
    read: Callable[[View], Iterable[Sample]]


def _self(view: View) -> object:
    return view.self_


def _problems(view: View) -> object:
    return view.problems, view.reasons, view.hardware, view.impossible, *(source.state for source in view.sources)


def _counts(view: View) -> object:
    return view.counts, view.reasons, view.hardware, view.impossible


def _numbers(view: View) -> object:
    return view.numbers


def _sources(view: View) -> object:
    return view.sources


def _gpus(view: View) -> object:
    return view.gpus


def _row(reason: Reason) -> tuple[str, str, str, str]:
    return reason.subsystem, reason.name, reason.severity, reason.action


def _subsystem_healthy(view: View) -> Iterator[Sample]:
    for subsystem, health in view.health.items():
        if health is not Health.UNKNOWN:
            yield (subsystem,), float(health is not Health.UNHEALTHY)


def _subsystem_state(view: View) -> Iterator[Sample]:
    for subsystem, health in view.health.items():
        yield from (((subsystem, state), float(state is health)) for state in Health)


def _problem_active(view: View) -> Iterator[Sample]:
    objects: dict[str, set[str]] = {}
    for problem in view.problems:
        if problem.active:
            objects.setdefault(problem.reason.name, set()).add(problem.object)
    for reason in view.possible:
        yield _row(reason), float(len(objects.get(reason.name, ())))


_ROWS = ObjectRows()


def _problem_object_active(view: View) -> Iterator[Sample]:
    for row in _ROWS.of(view):
        gpu, uuid = (str(row.gpu.index), row.gpu.uuid) if row.gpu else ("", "")
        yield (*_row(row.reason), row.object, gpu, uuid, row.pci_bus_id), float(row.active)


def _problem_injected(view: View) -> Iterator[Sample]:
    return (((row.reason.name, row.object), float(row.active)) for row in _ROWS.of(view) if row.injected)


def _problems_total(view: View) -> Iterator[Sample]:
    for reason in view.possible:
        count = view.counts.get(reason.name)
        yield (reason.subsystem, reason.name), float(count.value if count else 0)


def _problem_last_seen(view: View) -> Iterator[Sample]:
    for reason in view.possible:
        if count := view.counts.get(reason.name):
            yield (reason.subsystem, reason.name), count.last_seen


def _number_counts(family: str) -> Callable[[View], Iterator[Sample]]:
    def read(view: View) -> Iterator[Sample]:
        return ((key[1:], float(count.value)) for key, count in view.numbers.items() if key[0] == family)

    return read


def _number_last_seen(family: str) -> Callable[[View], Iterator[Sample]]:
    def read(view: View) -> Iterator[Sample]:
        return ((key[1:], count.last_seen) for key, count in view.numbers.items() if key[0] == family)

    return read


def _number_info(family: Family) -> Callable[[View], Iterator[Sample]]:
    def read(view: View) -> Iterator[Sample]:
        for code in sorted({key[2] for key in view.numbers if key[0] == family.name}):
            number = int(code) if code.isdigit() else -1
            row = family.table.get(number)
            severity, action = family.overridden(number, family.class_of(number))
            yield (code, row.name if row else "", severity, action), 1.0

    return read


def _each_source(read: Callable[[SourceView], float | None]) -> Callable[[View], Iterator[Sample]]:
    """One sample for each source that can exist here."""

    def samples(view: View) -> Iterator[Sample]:
        for source in view.sources:
            value = read(source)
            if value is not None and (source.state is not SourceState.ABSENT or source.records):
                yield (source.name,), float(value)

    return samples


def _checks(view: View) -> object:
    return view.checks


def _check_success(view: View) -> Iterator[Sample]:
    for check in view.checks:
        if check.outcome in {Outcome.SUCCESS, Outcome.FAILED}:
            yield (check.name,), float(check.outcome is Outcome.SUCCESS)


def _check_duration(view: View) -> Iterator[Sample]:
    return (((check.name,), check.duration) for check in view.checks if check.outcome in {Outcome.SUCCESS, Outcome.FAILED})


def _check_last_run(view: View) -> Iterator[Sample]:
    return (((check.name,), check.last_run) for check in view.checks if check.outcome in {Outcome.SUCCESS, Outcome.FAILED})


def measured(metric: Measured) -> Metric:
    """The family of one metric that a check measures."""

    def section(view: View) -> object:
        return view.measurements.get(metric, ())

    def read(view: View) -> Iterator[Sample]:
        return ((each.labels, each.value) for each in view.measurements.get(metric, ()))

    return Metric(metric.name, metric.kind, metric.help, metric.labels, section, read)


def _xid_source(view: View) -> Iterator[Sample]:
    serving = next((s.name for s in view.sources if s.state is SourceState.UP and "kmsg" in s.serves), "")
    if serving and view.gpus:
        yield (serving,), 1.0


def metrics(families: Iterable[Family], measures: Iterable[Measured] = ()) -> tuple[Metric, ...]:
    """Every family of the page; `families` are the number tables under the present configuration, `measures` what
    the checks measure.
    """
    reason_labels = ("subsystem", "reason", "severity", "action")
    by_name = {family.name: family for family in families}
    gauge, counter = "gauge", "counter"
    return (
        Metric("nodehealth_subsystem_healthy", gauge, "1: observed and nothing critical; 0: something critical; absent: not observed.",
               ("subsystem",), _problems, _subsystem_healthy),
        Metric("nodehealth_subsystem_state", gauge, "State of each subsystem; exactly one state is 1.",
               ("subsystem", "state"), _problems, _subsystem_state),
        Metric("nodehealth_problem_active", gauge, "Objects that have this problem now.", reason_labels, _problems, _problem_active),
        Metric("nodehealth_problem_object_active", gauge, "1 for each object that has this problem now.",
               (*reason_labels, "object", "gpu", "uuid", "pci_bus_id"), lambda view: (view.problems, view.gpus), _problem_object_active),
        Metric("nodehealth_problem_injected", gauge, "1 while this problem comes from user space and not from a driver.",
               ("reason", "object"), lambda view: (view.problems, view.gpus), _problem_injected),
        Metric("nodehealth_problems", counter, "Occurrences of this problem; continues over restarts and reboots.",
               ("subsystem", "reason"), _counts, _problems_total),
        Metric("nodehealth_problem_last_seen_timestamp_seconds", gauge, "When this problem last occurred.",
               ("subsystem", "reason"), _counts, _problem_last_seen),
        Metric("nodehealth_reason_info", gauge, "The catalog's row of each reason that can occur here.", reason_labels,
               lambda view: (view.reasons, view.hardware, view.impossible), lambda view: ((_row(reason), 1.0) for reason in view.possible)),
        Metric("nodehealth_gpu_xid_errors", counter, "Xid messages of the NVIDIA driver; continues over restarts and reboots.",
               ("pci_bus_id", "xid"), _numbers, _number_counts("xid")),
        Metric("nodehealth_gpu_xid_last_seen_timestamp_seconds", gauge, "When this Xid was last seen on this GPU.",
               ("pci_bus_id", "xid"), _numbers, _number_last_seen("xid")),
        Metric("nodehealth_xid_info", gauge, "The catalog's row of each Xid that was seen.",
               ("xid", "name", "severity", "action"), _numbers, _number_info(by_name["xid"])),
        Metric("nodehealth_nvswitch_sxid_errors", counter, "SXid errors of the NVSwitch driver; continues over restarts and reboots.",
               ("pci_bus_id", "sxid"), _numbers, _number_counts("sxid")),
        Metric("nodehealth_nvswitch_sxid_last_seen_timestamp_seconds", gauge, "When this SXid was last seen on this NVSwitch.",
               ("pci_bus_id", "sxid"), _numbers, _number_last_seen("sxid")),
        Metric("nodehealth_sxid_info", gauge, "The catalog's row of each SXid that was seen.",
               ("sxid", "name", "severity", "action"), _numbers, _number_info(by_name["sxid"])),
        Metric("nodehealth_gpu_xid_source", gauge, "1 for the source that the Xid counter follows.", ("source",), _sources, _xid_source),
        Metric("nodehealth_gpu_info", gauge, "Identity of each NVIDIA GPU on the PCI bus.", ("gpu", "uuid", "pci_bus_id", "model"), _gpus,
               lambda view: (((str(gpu.index), gpu.uuid, gpu.pci_bus_id, gpu.model), 1.0) for gpu in view.gpus)),
        Metric("nodehealth_gpus_expected", gauge, "NVIDIA GPUs on the PCI bus.", (), _gpus,
               lambda view: [((), float(len(view.gpus)))] if view.gpus else []),
        Metric("nodehealth_source_up", gauge, "1: the source is being read; 0: it should be there and cannot be read.", ("source",),
               _sources, _each_source(lambda source: float(source.state is SourceState.UP))),
        Metric("nodehealth_source_records", counter, "Records read since the exporter started.", ("source",), _sources,
               _each_source(lambda source: source.records)),
        Metric("nodehealth_source_matched_records", counter, "Records that a rule recognised since the exporter started.",
               ("source",), _sources, _each_source(lambda source: source.matched)),
        Metric("nodehealth_source_lost_records", counter, "Records lost before they could be read; continues over restarts.",
               ("source",), _sources, _each_source(lambda source: source.lost)),
        Metric("nodehealth_source_gaps", counter, "Places where an unknown number of records may be lost; continues over restarts.",
               ("source",), _sources, _each_source(lambda source: source.gaps)),
        Metric("nodehealth_source_cut_lines", counter, "Lines that were too long and were cut.", ("source",), _sources,
               _each_source(lambda source: source.cut)),
        Metric("nodehealth_source_unmatched_driver_lines", counter, "Lines of a known driver that no rule recognised.", ("source",),
               _sources, _each_source(lambda source: source.unmatched_driver_lines)),
        Metric("nodehealth_source_errors", counter, "Malformed records and failures to read the source.", ("source",), _sources,
               _each_source(lambda source: source.errors)),
        Metric("nodehealth_source_last_record_timestamp_seconds", gauge, "When the last record happened.", ("source",), _sources,
               _each_source(lambda source: source.last_record)),
        Metric("nodehealth_check_success", gauge, "1: the last pass of the check succeeded; 0: it failed.", ("check",), _checks,
               _check_success),
        Metric("nodehealth_check_duration_seconds", gauge, "How long the last pass of the check took.", ("check",), _checks,
               _check_duration),
        Metric("nodehealth_check_last_run_timestamp_seconds", gauge, "When the check last ran.", ("check",), _checks,
               _check_last_run),
        *(measured(each) for each in measures),
        Metric("nodehealth_objects_cut", counter, 'Objects, devices or numbers that a cap folded into "other".', (), _self,
               lambda view: [((), float(view.self_.cut_objects))]),
        Metric("nodehealth_config_last_reload_success", gauge, "Whether the last load of the configuration succeeded.", (), _self,
               lambda view: [((), float(view.self_.config_reload_ok))]),
        Metric("nodehealth_state_persistent", gauge, "Whether counters and problems are kept over a restart.", (), _self,
               lambda view: [((), float(view.self_.persistent))]),
        Metric("nodehealth_state_saved", gauge, "Whether everything on this page is on disk.", (), _self,
               lambda view: [((), float(view.self_.saved))]),
        Metric("nodehealth_start_time_seconds", gauge, "When the exporter started.", (), _self,
               lambda view: [((), view.self_.started)]),
        Metric("nodehealth_build_info", gauge, "The running release.", ("version",), _self,
               lambda view: [((view.self_.version,), 1.0)]),
    )  # fmt: skip
