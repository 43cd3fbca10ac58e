# SPDX-License-Identifier: Apache-2.0
"""The kernels built for aarch64 give the bits of this machine (make test-arm, under qemu-user)."""
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]


@pytest.mark.limit(580)
def test_arm_gives_the_same_bits():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"1 not possible here: no {' and no '.join(missing)}")
    done = subprocess.run(["make", "--no-print-directory", "test-arm"], cwd=ROOT, text=True,
                          capture_output=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "neon: " in done.stderr
