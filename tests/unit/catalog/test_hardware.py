"""hardware: hand-checked samples of each format, the machine's own /proc/cpuinfo, and input that is none of these."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.catalog.conftest import Describe
from tests.unit.catalog.hardware_command import imports, run_hardware

CORPUS = Path(__file__).parent / "corpus" / "hardware"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def sample(name: str) -> str:
    return (CORPUS / f"{name}.txt").read_text(encoding="utf-8")


def x86_cpuinfo(
    *, sockets: int, cores: int, threads: int, model: str = "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
) -> str:
    """/proc/cpuinfo as Linux numbers it: first every core's first thread, then the siblings; core ids have gaps."""
    blocks = []
    for processor in range(sockets * cores * threads):
        place = processor % (sockets * cores)
        socket, core = divmod(place, cores)
        fields = {
            "processor": processor,
            "vendor_id": "GenuineIntel",
            "cpu family": 6,
            "model": 79,
            "model name": model,
            "stepping": 1,
            "microcode": "0xb000040",
            "cpu MHz": f"{1200 + processor}.125",
            "cache size": "35840 KB",
            "physical id": socket,
            "siblings": cores * threads,
            "core id": core * 2,
            "cpu cores": cores,
            "flags": "fpu vme lm vmx sse2 avx2 sse2",
            "bugs": "spectre_v2 meltdown",
            "address sizes": "46 bits physical, 48 bits virtual",
        }
        blocks.append("".join(f"{key}\t: {value}\n" for key, value in fields.items()))
    return "\n".join(blocks) + "\n"


def test_it_imports_reading_writing_and_exiting_only() -> None:
    assert imports() == {f"wasi_snapshot_preview1.{name}" for name in ("fd_read", "fd_write", "proc_exit")}


@pytest.mark.parametrize(("sockets", "cores", "threads"), [(1, 1, 1), (1, 4, 2), (2, 14, 2), (4, 8, 1)])
def test_cpuinfo_tells_sockets_cores_and_threads(hardware: Describe, sockets: int, cores: int, threads: int) -> None:
    cpu = hardware(x86_cpuinfo(sockets=sockets, cores=cores, threads=threads))["cpu"]
    assert (cpu["sockets"], cpu["cores"], cpu["threads"]) == (sockets, sockets * cores, sockets * cores * threads)


def test_cpuinfo_of_a_two_socket_server(hardware: Describe) -> None:
    answer = hardware(x86_cpuinfo(sockets=2, cores=14, threads=2))
    cpu = answer["cpu"]
    assert answer["sources"] == [{"format": "cpuinfo", "line": 1, "lines": 56 * 17 - 1}]
    assert (cpu["vendor"], cpu["architecture"]) == ("GenuineIntel", "x86_64")
    assert cpu["model"] == "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
    assert (cpu["family"], cpu["model_number"], cpu["stepping"], cpu["microcode"]) == (6, 79, 1, "0xb000040")
    assert cpu["frequency_hz"] == {
        "nominal": 2_400_000_000,
        "minimum": None,
        "maximum": None,
        "current_lowest": 1_200_125_000,
        "current_highest": 1_255_125_000,
    }
    assert cpu["caches"] == [
        {"level": None, "type": "last_level", "bytes": 35840 * KIB, "instances": None, "bytes_total": None}
    ]
    assert cpu["flags"] == ["avx2", "fpu", "lm", "sse2", "vme", "vmx"]
    assert cpu["bugs"] == ["meltdown", "spectre_v2"]
    assert cpu["virtualisation"] == {"extension": "VT-x", "hypervisor": None, "guest": False}
    assert cpu["address_bits"] == {"physical": 46, "virtual": 48}
    assert answer["memory"] is None


def test_cpuinfo_of_arm(hardware: Describe) -> None:
    cpu = hardware(sample("raspberry_cpuinfo"))["cpu"]
    assert (cpu["vendor"], cpu["model"], cpu["architecture"], cpu["family"]) == ("ARM", "Cortex-A72", "aarch64", 8)
    assert (cpu["sockets"], cpu["cores"], cpu["threads"], cpu["stepping"]) == (None, None, 4, 3)
    assert cpu["flags"] == ["asimd", "cpuid", "crc32", "evtstrm", "fp"]
    assert cpu["virtualisation"]["guest"] is None


def test_cpuinfo_of_two_kinds_of_cores_names_both(hardware: Describe) -> None:
    assert hardware(sample("big_little_cpuinfo"))["cpu"]["model"] == "Cortex-A55 + Cortex-A76"


def test_lscpu_in_sections(hardware: Describe) -> None:
    cpu = hardware(sample("lscpu_sections"))["cpu"]
    assert (cpu["sockets"], cpu["cores"], cpu["threads"], cpu["numa_nodes"]) == (2, 64, 128, 2)
    assert (cpu["vendor"], cpu["model"]) == ("AuthenticAMD", "AMD EPYC 7543 32-Core Processor")
    assert (cpu["family"], cpu["model_number"], cpu["stepping"]) == (25, 1, 1)
    assert cpu["frequency_hz"]["maximum"] == 3_737_889_900
    assert cpu["frequency_hz"]["minimum"] == 1_500_000_000
    assert cpu["caches"] == [
        {"level": 1, "type": "data", "bytes": 32 * KIB, "instances": 64, "bytes_total": 2 * MIB},
        {"level": 1, "type": "instruction", "bytes": 32 * KIB, "instances": 64, "bytes_total": 2 * MIB},
        {"level": 2, "type": "unified", "bytes": 512 * KIB, "instances": 64, "bytes_total": 32 * MIB},
        {"level": 3, "type": "unified", "bytes": 32 * MIB, "instances": 16, "bytes_total": 512 * MIB},
    ]
    assert cpu["virtualisation"] == {"extension": "AMD-V", "hypervisor": None, "guest": False}
    assert cpu["vulnerabilities"] == [
        {"name": "itlb_multihit", "state": "not_affected", "detail": None},
        {"name": "meltdown", "state": "not_affected", "detail": None},
        {
            "name": "retbleed",
            "state": "mitigated",
            "detail": "untrained return thunk; SMT enabled with STIBP protection",
        },
        {"name": "spec_store_bypass", "state": "vulnerable", "detail": None},
        {"name": "spectre_v2", "state": "vulnerable", "detail": "eIBRS with unprivileged eBPF"},
    ]


def test_old_lscpu_gives_the_size_of_one_cache(hardware: Describe) -> None:
    cpu = hardware(sample("lscpu_old"))["cpu"]
    assert (cpu["sockets"], cpu["cores"], cpu["threads"]) == (1, 4, 8)
    assert [(cache["level"], cache["bytes"], cache["bytes_total"]) for cache in cpu["caches"]] == [
        (1, 32 * KIB, None),
        (1, 32 * KIB, None),
        (2, 256 * KIB, None),
        (3, 8192 * KIB, None),
    ]
    assert cpu["frequency_hz"]["nominal"] == 1_900_000_000
    assert cpu["frequency_hz"]["current_lowest"] == 2_100_121_000
    assert cpu["frequency_hz"]["minimum"] == 400_000_000
    assert cpu["frequency_hz"]["maximum"] == 4_200_000_000  # a comma, as some locales print it


def as_json(text: str) -> str:
    """What ``lscpu -J`` prints for the same machine: entries with children."""
    root: list[dict[str, Any]] = []
    open_at: list[tuple[int, list[dict[str, Any]]]] = [(-1, root)]
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        key, _, value = line.strip().partition(":")
        while open_at[-1][0] >= indent:
            open_at.pop()
        entry: dict[str, Any] = {"field": key + ":", "data": value.strip() or None}
        open_at[-1][1].append(entry)
        children: list[dict[str, Any]] = []
        entry["children"] = children
        open_at.append((indent, children))
    return json.dumps({"lscpu": root}, indent=3)


@pytest.mark.parametrize("name", ["lscpu_sections", "lscpu_old"])
def test_lscpu_says_the_same_as_text_and_as_json(hardware: Describe, name: str) -> None:
    from_text, from_json = hardware(sample(name)), hardware(as_json(sample(name)))
    assert from_json["cpu"] == from_text["cpu"]
    assert from_json["sources"][0]["format"] == "lscpu_json"


def test_dmidecode_of_a_server(hardware: Describe) -> None:
    answer = hardware(sample("dmidecode_server"))
    assert answer["bios"] == {
        "vendor": "Example Firmware Ltd.",
        "version": "2.11.2",
        "release_date": "04/21/2021",
        "rom_bytes": 32 * MIB,
        "revision": "2.11",
    }
    assert answer["system"]["product"] == "RackServer 2U"
    assert answer["system"]["version"] is None  # "Not Specified"
    assert answer["board"]["version"] == "A02"
    assert answer["chassis"]["type"] == "Rack Mount Chassis"
    memory = answer["memory"]
    assert (memory["bytes_total"], memory["bytes_maximum"]) == (48 * GIB, 3 << 40)
    assert (memory["slots"], memory["slots_used"], memory["error_correction"]) == (4, 2, "Multi-bit ECC")
    first, second = memory["modules"]
    assert first == {
        "locator": "A1",
        "bank": None,
        "bytes": 32 * GIB,
        "type": "DDR4",
        "form_factor": "DIMM",
        "speed_mts": 2666,
        "configured_speed_mts": 2400,
        "manufacturer": "00AD063200AD",
        "part_number": "HMA84GR7AFR4N-VK",
        "serial_number": "12345678",
        "rank": 2,
        "ecc": True,
    }
    assert (second["bytes"], second["configured_speed_mts"]) == (16 * GIB, 2400)
    cpu = answer["cpu"]
    assert (cpu["sockets"], cpu["cores"], cpu["threads"]) == (2, 32, 64)  # the unpopulated socket does not count
    assert (cpu["family"], cpu["model_number"], cpu["stepping"]) == (6, 85, 4)
    assert cpu["frequency_hz"]["maximum"] == 4_000_000_000
    assert cpu["caches"] == [
        {"level": 1, "type": "unified", "bytes": MIB, "instances": 1, "bytes_total": MIB},
        {"level": 3, "type": "unified", "bytes": 22 * MIB, "instances": 2, "bytes_total": 44 * MIB},
    ]


def test_quiet_dmidecode_has_titles_instead_of_handles(hardware: Describe) -> None:
    quiet = re.sub(r"^(?:#|Getting|SMBIOS|Handle).*\n", "", sample("dmidecode_server"), flags=re.MULTILINE)
    assert hardware(quiet)["memory"] == hardware(sample("dmidecode_server"))["memory"]


def test_documents_of_one_machine_are_merged(hardware: Describe) -> None:
    model = "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz"
    together = x86_cpuinfo(sockets=2, cores=16, threads=2, model=model) + "\n" + sample("dmidecode_server")
    answer = hardware(together)
    assert [source["format"] for source in answer["sources"]] == ["cpuinfo", "dmidecode"]
    assert answer["cpu"]["threads"] == 64
    assert answer["cpu"]["microcode"] == "0xb000040"  # only cpuinfo tells
    assert answer["cpu"]["frequency_hz"]["maximum"] == 4_000_000_000  # only dmidecode tells
    assert answer["memory"]["slots"] == 4
    assert answer["warnings"] == []


def test_lscpu_after_dmidecode_and_before_cpuinfo(hardware: Describe) -> None:
    order = [sample("dmidecode_server"), sample("lscpu_sections"), sample("raspberry_cpuinfo")]
    answer = hardware("\n".join(order))
    assert [source["format"] for source in answer["sources"]] == ["dmidecode", "lscpu", "cpuinfo"]
    assert answer["cpu"]["model"] == "AMD EPYC 7543 32-Core Processor"
    messages = [warning["message"] for warning in answer["warnings"]]
    assert any("threads: 128 is kept, 4 is not" in message for message in messages)
    assert any("model" in message for message in messages)


def test_a_second_document_of_one_kind_is_said_to_be_left_out(hardware: Describe) -> None:
    answer = hardware(x86_cpuinfo(sockets=1, cores=2, threads=1) + "\n" + x86_cpuinfo(sockets=1, cores=4, threads=1))
    assert answer["cpu"]["threads"] == 2
    assert [warning["code"] for warning in answer["warnings"]] == ["repeated_source"]


@pytest.mark.parametrize("wrap", ["text", "documents"])
def test_documents_may_come_wrapped_in_json(hardware: Describe, wrap: str) -> None:
    one = sample("lscpu_sections")
    given = {"text": one} if wrap == "text" else {"documents": [one, sample("dmidecode_server")]}
    answer = hardware(json.dumps(given))
    assert answer["cpu"]["model"] == "AMD EPYC 7543 32-Core Processor"
    assert (answer["memory"] is None) == (wrap == "text")


def test_lines_that_belong_nowhere_are_counted(hardware: Describe) -> None:
    answer = hardware("$ cat /proc/cpuinfo\n" + sample("raspberry_cpuinfo"))
    assert answer["warnings"] == [{"code": "unrecognised_lines", "message": "1 lines belong to no known document"}]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "no_input"),
        (b" \n\t\n", "no_input"),
        (b"hello", "unrecognised_input"),
        (b"key: value\nother: thing\n", "unrecognised_input"),
        (b'{"a": 1}', "invalid_json"),
        (b'{"lscpu": [1]}', "invalid_json"),
        (b'{"lscpu": ', "unrecognised_input"),
        (b"\x7fELF\x00\x00", "unrecognised_input"),
        (b"x" * (9 << 20), "input_too_large"),
    ],
)
def test_unusable_input_ends_with_a_json_error(data: bytes, code: str) -> None:
    status, output, errors = run_hardware(data)
    assert (status, output) == (1, "")
    assert json.loads(errors)["error"]["code"] == code


def test_bytes_that_are_not_utf8_do_not_reach_the_answer(hardware: Describe) -> None:
    given = sample("dmidecode_server").encode().replace(b"Example Systems", b"Ex\xff\xc3ple \x00Systems")
    assert hardware(given)["system"]["manufacturer"] == "Ex??ple ?Systems"


OWN = Path("/proc/cpuinfo")


@pytest.mark.skipif(not OWN.exists(), reason="no /proc/cpuinfo here")
def test_this_machine_as_an_independent_reader_sees_it(hardware: Describe) -> None:
    text = OWN.read_text(encoding="utf-8", errors="replace")
    blocks = [
        dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(.*)$", block, re.MULTILINE)) for block in text.strip().split("\n\n")
    ]
    processors = [block for block in blocks if "processor" in block]
    cpu = hardware(text)["cpu"]
    assert cpu["threads"] == len(processors)
    first = processors[0]
    if "flags" in first:
        assert cpu["flags"] == sorted(set(first["flags"].split()))
        assert cpu["model"] == first["model name"].strip()
        assert cpu["vendor"] == first["vendor_id"]
    if "physical id" in first:
        assert cpu["sockets"] == len({block["physical id"] for block in processors})
        cores = {(block["physical id"], block["core id"]) for block in processors}
        assert cpu["cores"] >= len(cores)
    if "cpu MHz" in first:
        speeds = [round(float(block["cpu MHz"]) * 1_000_000) for block in processors]
        assert cpu["frequency_hz"]["current_lowest"] == min(speeds)
        assert cpu["frequency_hz"]["current_highest"] == max(speeds)


PIECES = st.sampled_from(
    [
        *(CORPUS / "dmidecode_server.txt").read_text(encoding="utf-8").splitlines(),
        *(CORPUS / "lscpu_sections.txt").read_text(encoding="utf-8").splitlines(),
        *(CORPUS / "raspberry_cpuinfo.txt").read_text(encoding="utf-8").splitlines(),
        "processor\t: 99999999999999999999999",
        "cpu MHz\t: 99999999999999999999.99999999999999999999",
        "cache size\t: 18446744073709551615 TB",
        "Socket(s): 18446744073709551615",
        "Core(s) per socket: 18446744073709551615",
        "\tSize: 18446744073709551615 GB",
        "L1d: 1 KiB (0 instances)",
        "Handle 0x, DMI type ",
        '{"lscpu": [{"field": "CPU(s):", "data": "4", "children": [{"field": 1}]}]}',
        "{" * 40,
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=30)), max_size=40))
def test_any_mixture_of_lines_is_answered_or_refused(lines: list[str]) -> None:
    status, output, errors = run_hardware("\n".join(lines).encode("utf-8", "replace"))
    assert status in {0, 1}
    assert set(json.loads(output)) >= {"cpu", "memory", "warnings"} if status == 0 else "error" in json.loads(errors)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    status, _, errors = run_hardware(data)
    assert status == 0 or "error" in json.loads(errors)
