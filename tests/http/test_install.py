# SPDX-License-Identifier: Apache-2.0
"""What is installed: make install into DESTDIR, run from there, uninstall; the commented
configuration, the manuals and the completion against the program's own table of keys."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import stack
from counting import not_possible

ROOT = stack.ROOT
MANUALS = [ROOT / "deploy/man" / n for n in ("microgpt.1", "microgpt.conf.5", "microgpt-fcgi.8",
                                               "microgpt-checkpoint.5", "microgpt-api.7")]


def make(target, destdir, **more):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-s", "--no-print-directory", target, f"B={stack.BUILD}",
                           f"DESTDIR={destdir}", *[f"{k}={v}" for k, v in more.items()]],
                          cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(directory):
    return sorted(str(f.relative_to(directory)) for f in Path(directory).rglob("*") if not f.is_dir())


def keys_of_program():
    """name -> default, as the program prints them"""
    env = {"PATH": os.environ["PATH"]}
    text = subprocess.run([stack.FAST, "--help"], env=env, capture_output=True, text=True, check=True).stdout
    table = text[text.index("Keys and defaults:"):text.index("Signals:")]
    found = dict(re.findall(r"^  (\w+) +(\S+) ", table, re.M))
    assert len(found) > 20, text
    return found


def test_install_run_uninstall(tmp_path):
    make("install", tmp_path, PREFIX="/usr", SYSCONFDIR="/etc")
    have = files(tmp_path)
    for wanted in ("usr/sbin/microgpt-fcgi", "usr/bin/microgpt", "etc/microgpt/microgpt.conf",
                   "etc/nginx/conf.d/microgpt.conf", "etc/nginx/snippets/microgpt.conf",
                   "usr/lib/sysusers.d/microgpt.conf",
                   "usr/lib/tmpfiles.d/microgpt.conf", "usr/share/man/man1/microgpt.1",
                   "usr/share/man/man5/microgpt.conf.5", "usr/share/man/man8/microgpt-fcgi.8",
                   "usr/share/microgpt/demo/chat/weights.safetensors",
                   "usr/share/microgpt/demo/names/meta.json",
                   "usr/share/bash-completion/completions/microgpt"):
        assert wanted in have, wanted
    for unit in ("microgpt-fcgi.service", "microgpt-fcgi@.service", "microgpt-fcgi.socket", "microgpt-worker@.service"):
        # /lib/systemd or /usr/lib/systemd, as this host's systemd says
        assert [f for f in have if re.fullmatch(f"(usr/)?lib/systemd/system/{re.escape(unit)}", f)], unit
    # the installed program serves the installed demo with the installed configuration
    with stack.Service(tmp_path / "usr/share/microgpt/demo/chat",
                       program=tmp_path / "usr/sbin/microgpt-fcgi", workers=1) as s:
        assert "demo" in str(s.keys["model_dir"])
    test = subprocess.run([tmp_path / "usr/sbin/microgpt-fcgi", "-t", "-c", tmp_path / "etc/microgpt/microgpt.conf",
                           f"--model_dir={tmp_path}/usr/share/microgpt/demo/names",
                           f"--listen=unix:{tmp_path}/s"], capture_output=True, text=True)
    assert test.returncode == 0 and "configuration ok" in test.stdout, test
    # an edited configuration survives both a second install and an uninstall
    conf = tmp_path / "etc/microgpt/microgpt.conf"
    conf.write_text("workers = 3\n")
    said = make("install", tmp_path, PREFIX="/usr", SYSCONFDIR="/etc")
    assert conf.read_text() == "workers = 3\n" and "kept /etc/microgpt/microgpt.conf" in said, said
    assert (tmp_path / "etc/microgpt/microgpt.conf.new").exists()
    model = tmp_path / "var/lib/microgpt/models/mine/meta.json"
    model.parent.mkdir(parents=True)
    model.write_text("{}")
    make("uninstall", tmp_path, PREFIX="/usr", SYSCONFDIR="/etc")
    left = files(tmp_path)
    assert all(f.startswith(("etc/", "var/lib/microgpt/")) for f in left), left
    assert "var/lib/microgpt/models/mine/meta.json" in left and "etc/microgpt/microgpt.conf" in left
    assert not [d for d in tmp_path.rglob("*microgpt*") if d.is_dir() and not any(d.iterdir())]


def test_paths_follow_the_prefix(tmp_path):
    make("install", tmp_path, PREFIX="/opt/m", SYSCONFDIR="/opt/m/etc")
    unit = (tmp_path / "opt/m/lib/systemd/system/microgpt-fcgi.service").read_text()
    assert "ExecStart=/opt/m/sbin/microgpt-fcgi -c /opt/m/etc/microgpt/microgpt.conf" in unit
    assert all(f.startswith("opt/m/") for f in files(tmp_path)), files(tmp_path)
    make("uninstall", tmp_path, PREFIX="/opt/m", SYSCONFDIR="/opt/m/etc")
    assert all(f.startswith("opt/m/etc/") for f in files(tmp_path)), files(tmp_path)


def test_commented_configuration_has_every_key_and_default():
    text = (ROOT / "conf/microgpt.conf").read_text()
    shown = dict(re.findall(r"^#(\w+) = (\S+)$", text, re.M))
    assert shown == keys_of_program()


def test_commented_configuration_is_accepted_as_it_is_and_uncommented(tmp_path):
    text = (ROOT / "conf/microgpt.conf").read_text()
    every = "\n".join(line[1:] for line in text.splitlines() if re.match(r"#\w+ = ", line)) + "\n"
    for name, content in (("shipped", text), ("every", every)):
        (tmp_path / name).write_text(content)
        done = subprocess.run([stack.FAST, "-T", "-c", tmp_path / name], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == len(keys_of_program())
    assert f"{tmp_path}/every:" in done.stdout


def test_manual_has_every_key_and_default():
    text = MANUALS[1].read_text()
    assert dict(re.findall(r"^\.It Ic (\w+) No = (\S+)$", text, re.M)) == keys_of_program()


def test_completion_has_every_key():
    text = (ROOT / "deploy/completion/microgpt-fcgi").read_text()
    keys = re.search(r'local keys="([^"]*)"', text).group(1).split()
    assert sorted(keys) == sorted(keys_of_program())


def test_manual_has_every_option_of_microgpt():
    text = MANUALS[0].read_text()
    program = stack.BUILD / "microgpt"
    listed = subprocess.run([program, "help"], capture_output=True, text=True).stdout
    for command in ("train", "info", "check", "generate", "chat", "export"):
        assert re.search(rf"\b{command}\b", listed), listed
        usage = subprocess.run([program, command, "--help"], capture_output=True, text=True)
        assert usage.returncode == 0, (command, usage)
        for option in re.findall(r"^  --([a-z-]+)", usage.stdout, re.M):
            assert option == "help" or f"Fl Fl {option}" in text, (command, option)


def test_exit_codes_of_the_manual_are_the_programs():
    number = dict(re.findall(r"#define\s+(EX_\w+)\s+(\d+)", Path("/usr/include/sysexits.h").read_text()))
    source = "".join(f.read_text() for f in (ROOT / "fcgi").glob("*.c"))
    codes = {number[name] for name in re.findall(r"\bEX_[A-Z]+\b", source)} | {"0"}
    manual = MANUALS[2].read_text()
    section = manual[manual.index(".Sh EXIT STATUS"):manual.index(".Sh EXAMPLES")]
    assert set(re.findall(r"^\.It (\d+)$", section, re.M)) == codes


def test_manuals_are_clean():
    if not shutil.which("mandoc"):
        not_possible("mandoc is not installed")
    done = subprocess.run(["mandoc", "-Tlint", *MANUALS], capture_output=True, text=True)
    # whether the manuals of others are installed here, and ours, is not the matter
    lines = [x for x in done.stdout.splitlines() if "referenced manual not found" not in x]
    assert not lines, lines


def test_alert_rules_and_dashboard_ask_for_metrics_there_are():
    text = (ROOT / "deploy/examples/prometheus/alerts.yml").read_text() + (ROOT / "deploy/grafana/dashboard.json").read_text()
    import json
    json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
    used = set(re.findall(r"microgpt_\w+", text))
    assert len(used) > 10
    with stack.Service(stack.model(n_embd=16, n_head=4, n_layer=1, block_size=16), program=stack.FAST, workers=1) as s:
        import fcgi
        have = fcgi.ask(s.address, method="GET", path="/metrics", content_type="")[2].decode()
    names = set(re.findall(r"^(microgpt_\w+)", have, re.M))
    assert used <= names, used - names
