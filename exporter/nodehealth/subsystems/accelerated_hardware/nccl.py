"""Programs that crashed inside NVIDIA's communication library NCCL.

The kernel topic sees the same line as a crash of some program; this one says which library it was.
"""

from __future__ import annotations

from nodehealth.model import Action, Example, Hardware, Reason, Severity, Subsystem, kernel_line, quiet

REASONS = (
    Reason(
        name="NvidiaNCCLError",
        subsystem=Subsystem.ACCELERATED_HARDWARE,
        severity=Severity.WARNING,
        action=Action.RESTART_APP,
        summary="A program crashed inside NVIDIA's communication library NCCL; often another node or a network fault of the same job is the cause.",
        remedy="Restart the job; look for Xid, NVLink and network findings at that time on all of its nodes, and update NCCL when there are none.",
        clears=(quiet(hours=1),),
        patterns=(
            kernel_line(
                r"^(?:[^\n]{1,64}\[\d{1,10}\]: )?segfault at [0-9a-f]{1,16} (?:ip [^\n]{1,100} )?in libnccl\.so",
                Example("segfault at 123 in libnccl.so.2", "", "EKS Node Monitoring Agent test"),
                Example(
                    "[Thu Oct 10 03:06:53 2024] pt_main_thread[2536443]: segfault at 7f797fe00000 ip 00007f7c7ac69996 sp 00007f7c12fd7c30 error 4 in libnccl.so.2[7f7c7ac00000+d3d3000]",
                    "",
                    "GPUd test",
                ),
                Example(
                    "ray::Worker 1[31]: segfault at 0 ip 00007f7c7ac69996 sp 00007f7c12fd7c30 error 6 in libnccl.so.2.21.5[69996,7f7c7ac00000+d3d3000] likely on CPU 3 (core 3, socket 0)",
                    "",
                    "composed from arch/x86/mm/fault.c 6.x",
                ),
                lookalikes=(
                    "python3[77]: segfault at 0 ip 00007f7c7ac69996 sp 00007f7c12fd7c30 error 4 in libc.so.6[7f7c7ac00000+d3d3000]",
                    "python3[77]: segfault at 0 ip 00007f7c7ac69996 sp 00007f7c12fd7c30 error 4 in libnccl-net.so[7f7c7ac00000+1000]",
                    "python3[77]: NCCL INFO found libnccl.so.2, no segfault at start",
                ),
            ),
            kernel_line(
                r"^traps: [^\n]{1,64}\[\d{1,10}\] (?:general protection(?: fault)?|trap [^\n]{1,40}) ip:[^\n]{1,100} in libnccl\.so",
                Example(
                    "traps: pt_main_thread[2536443] general protection fault ip:7f7c7ac69996 sp:7f7c12fd7c30 error:0 in libnccl.so.2[7f7c7ac00000+d3d3000]",
                    "",
                    "composed from arch/x86/kernel/traps.c",
                ),
                lookalikes=(
                    "traps: python3[77] general protection fault ip:7f7c7ac69996 sp:7f7c12fd7c30 error:0 in libcuda.so.1[7f7c7ac00000+d3d3000]",
                    "traps: python3[77] trap int3 ip:7f7c7ac69996 sp:7f7c12fd7c30 error:0 in python3.10[55+1]",
                ),
            ),
        ),
        needs=Hardware.NVIDIA_GPU,
    ),
)
