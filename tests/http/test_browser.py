# SPDX-License-Identifier: Apache-2.0
"""A real browser's cache: Chromium asks again with If-None-Match and shows what it has on 304; what
stands under a fingerprint it does not ask for again."""
import html
import re
import shutil
import subprocess

import attempts
import conftest
import pytest
import stack
from counting import not_possible
from lib import GENERATE, ask

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def shown(profile, url):
    """What a new Chromium with this profile shows at url."""
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                           "--no-first-run", "--no-proxy-server", f"--user-data-dir={profile}", "--dump-dom", url],
                          capture_output=True, text=True, timeout=150)
    found = re.search("<pre[^>]*>(.*?)</pre>", done.stdout, re.S)
    assert found, (done.stdout, done.stderr[-2000:])
    return html.unescape(found.group(1))


@pytest.mark.limit(600)
def test_chromium_keeps_replies(tmp_path):
    if not CHROMIUM:
        not_possible("no chromium")
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=1) as s:
        mine = s.status()["model"]["fingerprint"]
        asked = f"http://127.0.0.1:{s.port}{GENERATE}?seed=21&num_samples=2"
        pinned = f"http://127.0.0.1:{s.port}/microgpt/v1/m/{mine}/generate?seed=22"
        for url in (asked, pinned):
            wanted = ask(s.port, "GET", url.partition(str(s.port))[2]).body.decode()
            assert shown(tmp_path / "profile", url) == shown(tmp_path / "profile", url) == wanted
        log = attempts.lines(s.nginx)
    seen = [(x["uri"], x["status"]) for x in log if "generate" in x["uri"]]
    path, kept = (url.partition(str(s.port))[2] for url in (asked, pinned))
    assert seen == [(path, 200), (path, 200), (path, 304),  # we, Chromium, Chromium again
                    (kept, 200), (kept, 200)]  # and this it does not ask for again
