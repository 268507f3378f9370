"""AWS Neuron hardware errors that the Neuron driver prints to the kernel log."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Hardware, Reason, Severity, Subsystem, kernel_line

_NMA = "EKS Node Monitoring Agent, monitors/neuron"


def _error(name: str, word: str, what: str) -> Reason:
    return Reason(
        name=name,
        subsystem=Subsystem.ACCELERATED_HARDWARE,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary=f"A Neuron device reported {what}.",
        remedy="Drain the node and replace it: AWS documents these errors as hardware failures of the device.",
        clears=(REBOOT,),
        needs=Hardware.NEURON,
        patterns=(
            kernel_line(
                rf"^(?:[\w .:,#+-]{{0,80}}[: ])?NEURON_HW_ERR={word}\b",
                Example(f"kernel: NEURON_HW_ERR={word} affecting neuron devices", origin=_NMA),
                Example(
                    f"neuron0: NEURON_HW_ERR={word} instance-id=i-0 nd-id=0 nc-id=0", origin="AWS Neuron documentation"
                ),
                lookalikes=(
                    f"neuron: NEURON_HW_ERR_{word} counter registered",
                    f"NEURON_HW_ERR={word}S",
                    f"agent[7]: saw NEURON_HW_ERR={word}",
                ),
            ),
        ),
    )


REASONS = (
    _error("NeuronSRAMUncorrectableError", "SRAM_UNCORRECTABLE_ERROR", "an uncorrectable error in its on-chip SRAM"),
    _error("NeuronNCUncorrectableError", "NC_UNCORRECTABLE_ERROR", "an uncorrectable error in a NeuronCore"),
    _error("NeuronHBMUncorrectableError", "HBM_UNCORRECTABLE_ERROR", "an uncorrectable error in its HBM"),
    _error("NeuronDMAError", "DMA_ERROR", "a DMA error"),
)
