"""The Docker daemon's image store: layers that it can no longer read or write.

Reads the daemon's own entries (identifier `dockerd`), never what containers print into the journal through it.
"""

from __future__ import annotations

from nodehealth.model import Action, Example, Pattern, Reason, Repetition, Severity, Subsystem, journal, kernel_line, quiet

_DOCKERD = (journal("dockerd"),)
_NPD = "node-problem-detector test"

REASONS = (
    Reason(
        name="CorruptDockerImage",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="Docker cannot store a layer of an image because its image store is in disorder; pulls of that image fail.",
        remedy=(
            "Check the file system that holds Docker's data (`docker info -f '{{.DockerRootDir}}'`, `df`, `dmesg`); then drain the "
            "node, stop Docker, remove the directory that the line names and pull again."
        ),
        clears=(quiet(hours=1),),
        joins=5,
        patterns=(
            Pattern(
                _DOCKERD,
                r"failed to register layer: (?:rename \S{1,250}/image/\S{1,250} \S{1,250}: (?:directory not empty|file exists)"
                r"|open \S{1,250}/committed: is a directory)",
                (
                    Example(
                        "Error trying v2 registry: failed to register layer: rename /var/lib/docker/image/overlay2/layerdb/tmp/write-set-1 /var/lib/docker/image/overlay2/layerdb/sha256/ab: directory not empty",
                        origin=_NPD,
                    ),
                    Example(
                        'time="2024-05-02T10:11:12.131415161Z" level=error msg="Attempting next endpoint for pull after error: failed to register layer: rename /data/docker/image/overlay2/layerdb/tmp/write-set-3141 /data/docker/image/overlay2/layerdb/sha256/0f3c: file exists"',
                        origin="composed from moby distribution/pull.go",
                    ),
                    Example(
                        'time="2024-05-02T10:11:12.131415161Z" level=info msg="Attempting next endpoint for pull after error: failed to register layer: open /var/lib/docker/overlay2/2b1d/committed: is a directory"',
                        origin="composed from moby daemon/graphdriver/overlay2",
                    ),
                ),
                lookalikes=(
                    "failed to register layer: Error processing tar file(exit status 1): write /usr/lib/libfoo.so: no space left on device",
                    "failed to register layer: Error processing tar file(exit status 1): lchown /app: invalid argument",
                    'time="2024-05-02T10:11:12Z" level=warning msg="rmdir /var/lib/docker/tmp/x: directory not empty"',
                    "Error trying v2 registry: manifest unknown",
                ),
            ),
        ),
    ),
    Reason(
        name="CorruptDockerOverlay2",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.REPLACE_NODE,
        summary="Docker's overlay2 storage has lost links between image layers; containers that use them cannot start.",
        remedy=(
            "Drain the node, stop Docker, remove `/var/lib/docker/overlay2` and `/var/lib/docker/image` and start Docker again, or "
            "replace the node. Check the disk first: `dmesg | grep -iE 'I/O error|EXT4-fs|XFS'`."
        ),
        clears=(quiet(hours=1),),
        repeats=Repetition(10, 300),
        patterns=(
            Pattern(
                _DOCKERD,
                r"\breadlink [^\s:]{1,200}/overlay2(?:/[^\s:]{0,200})?: (?:invalid argument|no such file or directory)",
                (
                    Example("returned error: readlink /var/lib/docker/overlay2/l/ABC: invalid argument", origin=_NPD),
                    Example(
                        'time="2019-03-04T05:06:07.080910111Z" level=error msg="Handler for POST /v1.38/containers/create returned error: readlink /var/lib/docker/overlay2: invalid argument"',
                        origin=_NPD,
                    ),
                    Example(
                        'time="2024-05-02T10:11:12Z" level=error msg="Handler for POST /v1.44/containers/4b2c/start returned error: readlink /mnt/docker/overlay2/l/7QZXW3: no such file or directory"',
                        origin="composed from moby daemon/graphdriver/overlay2",
                    ),
                ),
                lookalikes=(
                    'level=info msg="[graphdriver] using prior storage driver: overlay2"',
                    "readlink /proc/4242/exe: no such file or directory",
                    "returned error: stat /var/lib/docker/overlay2/l/ABC: permission denied",
                    "error creating overlay mount to /var/lib/docker/overlay2/ab-init/merged: device or resource busy",
                ),
            ),
        ),
    ),
)

CONTEXT = (
    kernel_line(  # printed at every mount of the old aufs storage driver
        r"^aufs au_opts_verify:\d{1,6}:[^\n]{1,48}: dirperm1 breaks the protection",
        Example(
            "aufs au_opts_verify:1570:docker[0000]: dirperm1 breaks the protection by the permission bits on the lower branch"
        ),
    ),
)
