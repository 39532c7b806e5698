"""Which of CTranslate2's kernels the engine asks for."""

import subprocess
import sys
from pathlib import Path

import pytest

from config import inherited_environment
from engines.processor import WIDE, cpu_flags, use_wide_vectors


def test_ctranslate2_uses_the_widest_vectors_that_the_processor_has() -> None:
    code = (
        "from engines.processor import use_wide_vectors; use_wide_vectors()\n"
        "import ctranslate2; ctranslate2.models.Whisper('demo/model')\n"
    )
    environment = {**inherited_environment(), "CT2_VERBOSE": "1"}
    environment.pop("CT2_FORCE_CPU_ISA", None)  # an engine in this process may have asked for it
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert ("Selected ISA: AVX512" in done.stderr) == cpu_flags().issuperset(WIDE)


def test_what_the_operator_tells_ctranslate2_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.processor.cpu_flags", lambda: frozenset(WIDE))
    monkeypatch.setenv("CT2_FORCE_CPU_ISA", "GENERIC")
    use_wide_vectors()
    assert inherited_environment()["CT2_FORCE_CPU_ISA"] == "GENERIC"


def test_flags_are_those_that_the_system_names(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx512f"}
    assert cpu_flags(tmp_path / "elsewhere") == frozenset()
