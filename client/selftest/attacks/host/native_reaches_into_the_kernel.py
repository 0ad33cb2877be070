"""Native code in a worker's jail that calls the parts of the kernel that break most often.

Source: CVE-2022-2602 (io_uring), CVE-2021-3490 (bpf), CVE-2016-0728 (keyctl). Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted(
    "io_uring",
    "bpf",
    "userfaultfd",
    "keyctl",
    "perf_event_open",
    "load a module",
    "a call that does not exist",
)
