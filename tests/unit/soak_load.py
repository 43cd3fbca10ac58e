# SPDX-License-Identifier: Apache-2.0
"""Random damage to a checkpoint for minutes: refused or loaded, never a crash (make soak)."""
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MG_BUILD", ROOT / "build"))
SECONDS = int(os.environ.get("MG_SOAK_SECONDS", 300))


@pytest.mark.limit(SECONDS + 600)
def test_random_damage():
    program = BUILD / "san" / "tests" / "unit" / "test_load_mutate"
    subprocess.run(["make", "--no-print-directory", "SAN=address,undefined", f"B={BUILD}/san",
                    str(program)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run([program, str(SECONDS)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
