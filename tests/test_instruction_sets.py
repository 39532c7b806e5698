"""What is heard does not hang on the processor: the tests of native numbers pass with fewer instructions, too."""

import subprocess
import sys

import pytest

from config import inherited_environment
from tests.test_engine_conformance import ROOT

NUMBERS = ("tests/test_audio_vad.py", "tests/test_engine_raw.py", "tests/test_engine_short_windows.py")
ENCODER = "tests/test_engine_encoder.py"
# CTranslate2, numpy's OpenBLAS (its wheels need Nehalem's SSE4.2; older kernels crash), oneDNN of OpenVINO.
FEWER = {
    "generic": {"CT2_FORCE_CPU_ISA": "GENERIC", "OPENBLAS_CORETYPE": "Nehalem", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx2": {"CT2_FORCE_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
WITHOUT_OPENVINO = """
from config import Settings
from engines import open_engine
from tests.test_engine_conformance import OPTIONS, decoded
(segments,) = open_engine(Settings(device="cpu", cpu_encoder="openvino")).load("demo", "int8").transcribe(
    [decoded("english.wav")], OPTIONS)
print("".join(segment.text for segment in segments))
"""


def with_fewer(instructions: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        (sys.executable, *command), cwd=ROOT, env=inherited_environment() | instructions,
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(520)
@pytest.mark.parametrize("name", FEWER)
def test_numbers_of_native_code_stay_in_their_bounds(name: str) -> None:
    assert " passed" in with_fewer(
        FEWER[name], "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *NUMBERS, ENCODER
    )


def test_where_openvino_cannot_compute_in_8_bits_ctranslate2_does_it() -> None:
    said = with_fewer({"ONEDNN_MAX_CPU_ISA": "SSE41"}, "-c", WITHOUT_OPENVINO)
    assert "one two three four five six seven" in said
