# SPDX-License-Identifier: Apache-2.0
"""From the installation of the package on: start, stop, restart, reload, what a host does to a service,
every mode with its hardening, and -t."""
import re

import tools
from scene import AS_SERVICE, CHAT, CONF, CURRENT, DEMO, INCLUDE, INSTALL, JSON, MODELS, ROOT, UNIT, EXAMPLES, Scene, point


class Service(Scene):
    always = ("install", "include")

    @point("1: apt-get install ends without an error line, the service runs, the last words are the next steps")
    def install(self):
        out = self.m.run(f"{INSTALL} /root/new.deb").out
        assert not re.search(r"(?i)error|fail|could not|warning", out), out
        last = "\n".join(out.splitlines()[-8:])
        assert all(word in last for word in ("include snippets/microgpt[.]conf;", "curl ", MODELS)), out
        m = self.m
        m.run(f"systemctl is-active {UNIT} && systemctl is-enabled {UNIT} && id microgpt && microgpt check {CURRENT}")
        assert m.run("stat -c '%a %U %G' /run/microgpt/fcgi.sock").out == "660 microgpt www-data\n"
        assert m.run(f"readlink {CURRENT}; dpkg -L microgpt-serve | grep -c 'man[0-9]/.*gz'").out.split() == [DEMO, "5"]

    @point("1: after the one include line the demo answers, and the site is as it was")
    def include(self):
        self.site(INCLUDE)
        self.nginx()
        self.serves()
        assert self.curl("", "/health")[2] == "the site's own\n"
        assert "the site's errors" in self.curl("", "/nope")[2]
        self.believe_the_proxy()

    @point("1: README.Debian's commands put a model of the operator in the demo's place")
    def readme(self):
        text = self.m.read("/usr/share/doc/microgpt-serve/README.Debian")
        commands = re.search(r"^3\. .*?\n\n(.*?)\n\n", text, re.S | re.M).group(1)
        self.m.run(f"cp -r /usr/share/microgpt/demo/names /root/my-model; cd /root; set -e\n{commands}")
        assert self.asked(CHAT)[0] == 400  # that model is for no chat
        self.m.run(f"rm -r {MODELS}/my-model; ln -sfn {DEMO} {CURRENT} && systemctl reload {UNIT}")
        self.serves()

    @point("12: the metrics, as promtool likes them")
    def metrics(self):
        text = self.curl("", "/microgpt/metrics")[2]
        assert "microgpt_model_info" in text
        tools.promtool("check", "metrics", given=text)

    @point("2: start, stop, restart, reload in any order")
    def any_order(self):
        m = self.m
        for verb, works in (("stop", 0), ("start", 1), ("start", 1), ("restart", 1), ("reload", 1), ("stop", 0), ("restart", 1),
                            ("restart", 1), ("stop", 0), ("stop", 0), ("start", 1), ("reload", 1), ("restart", 1)):
            m.run(f"systemctl {verb} {UNIT}")
            if works:
                self.serves()
            else:
                self.is_json(self.asked(CHAT), 502)
                assert m.run(f"systemctl is-active {UNIT}", check=False).out.strip() == "inactive"
        assert m.run(f"systemctl stop {UNIT}; systemctl reload {UNIT}", check=False).code != 0
        m.run(f"for i in $(seq 15); do systemctl restart {UNIT} || exit 1; done")  # no start limit to reset
        self.serves()

    def fails(self, verb, word):
        """Non-zero, and the reason is in the terminal or in one of the last lines of the journal."""
        done = self.m.run(f"systemctl {verb} {UNIT}", check=False)
        said = done.out + self.journal(lines=12)
        assert done.code != 0 and word in said, (done.code, said)

    @point("2: a start with a bad model or configuration fails and says why; repaired, restart serves, whatever came meanwhile")
    def bad_start(self):
        m = self.m
        for break_it, repair, word in ((f"ln -sfn /nonexistent {CURRENT}", f"ln -sfn {DEMO} {CURRENT}", CURRENT),
                                       (f"cp {CONF} /root/c; echo colour = blue >> {CONF}", f"cp /root/c {CONF}", "colour")):
            m.run(break_it)
            for verb in ("restart", "start"):
                self.fails(verb, word)
                for _ in range(3):
                    self.is_json(self.asked(CHAT), 502)
            m.run(f"{repair} && systemctl restart {UNIT}")
            self.serves()

    @point("2: a reload with a bad model or configuration is non-zero and says why, and the old generation goes on")
    def bad_reload(self):
        m = self.m
        master = self.master()
        m.run(f"cp -r {DEMO} {MODELS}/cut; truncate -s 1000 {MODELS}/cut/weights.safetensors")
        for break_it, repair, word in ((f"ln -sfn /nonexistent {CURRENT}", f"ln -sfn {DEMO} {CURRENT}", CURRENT),
                                       (f"ln -sfn cut {CURRENT}", f"ln -sfn {DEMO} {CURRENT}", "weights.safetensors"),
                                       (f"cp {CONF} /root/c; echo colour = blue >> {CONF}", f"cp /root/c {CONF}", "colour")):
            m.run(break_it)
            self.fails("reload", word)
            self.serves()
            m.run(repair)
            m.run(f"systemctl reload {UNIT}")
            self.serves()
        assert master == self.master() and "restarts_total 0\n" in self.curl("", "/microgpt/metrics")[2]
        m.run(f"rm -r {MODELS}/cut")

    @point("2: reload returns when the new model serves")
    def reload_waits(self):
        for _ in range(5):
            self.m.run(f"ln -sfn /usr/share/microgpt/demo/names {CURRENT}; systemctl reload {UNIT}")
            assert self.asked(CHAT)[0] == 400
            self.m.run(f"ln -sfn {DEMO} {CURRENT}; systemctl reload {UNIT}")
            assert self.asked(CHAT)[0] == 200

    @point("3: ten restarts under load lose no request")
    def restart_load(self):
        self.under_load(f"for i in $(seq 10); do systemctl restart {UNIT} || exit 1; done")

    @point("3: ten reloads under load lose no request")
    def reload_load(self):
        self.under_load(f"for i in $(seq 10); do systemctl reload {UNIT} || exit 1; done")

    @point("3: needrestart's way after a library update: a restart of what maps the deleted file, under load")
    def needrestart(self):
        m = self.m
        m.run("lib=$(realpath /usr/lib/*/libjansson.so.4); cp -p $lib $lib.new && mv $lib.new $lib")
        maps = lambda: m.run(f"cat /proc/{self.master()}/maps").out
        assert "libjansson" in maps() and "(deleted)" in maps()
        self.under_load(f"systemctl restart {UNIT}")
        assert not re.search(r"libjansson.*\(deleted\)", maps())

    @point("3: --reinstall under load loses no request")
    def reinstall(self):
        self.under_load(f"{INSTALL} --reinstall /root/new.deb")

    @point("3: a master that is killed comes back, a worker too")
    def killed(self):
        before = self.master()
        worker = self.m.run(f"pgrep -P {before} | head -1").out.strip()
        self.m.run(f"kill -9 {worker}")
        self.serves()
        assert self.master() == before
        self.m.run(f"kill -9 {before}")
        self.m.eventually(lambda: self.master() not in ("0", before))
        self.serves()

    @point("3, 5: logrotate under load, with a log file and the hardening")
    def logrotate(self):
        m = self.m
        m.run(f"cp {CONF} /root/c; echo log_file = /var/log/microgpt/microgpt.log >> {CONF}; systemctl restart {UNIT}")
        self.is_hardened()
        self.serves()
        self.under_load("logrotate -f /etc/logrotate.d/microgpt")
        self.serves()
        assert "endpoint=generate" in m.read("/var/log/microgpt/microgpt.log.1")
        m.eventually(lambda: "endpoint=chat" in m.read("/var/log/microgpt/microgpt.log"))
        m.run(f"cp /root/c {CONF}; systemctl restart {UNIT}")

    @point("3: reboot, and it serves")
    def reboot(self):
        self.m.reboot()
        self.serves()

    @point("5: the hardening that ships is what runs, and systemd-analyze security is below 1.0")
    def security(self):
        self.is_hardened()
        out = self.m.run(f"systemd-analyze security --no-pager {UNIT} | tail -1").out
        assert float(re.search(r": (\d+\.\d+)", out).group(1)) < 1.0, out

    @point("3, 5: template workers with the hardening, and they follow an upgrade")
    def template_workers(self):
        m = self.m
        m.run(f"systemctl disable --now {UNIT}; systemctl enable --now microgpt-worker.socket microgpt-worker@1 microgpt-worker@2")
        self.serves()
        self.is_hardened("microgpt-worker@1")
        before = self.master("microgpt-worker@1"), self.master("microgpt-worker@2")
        self.under_load(f"{INSTALL} --reinstall /root/new.deb")
        after = self.master("microgpt-worker@1"), self.master("microgpt-worker@2")
        assert not set(before) & set(after) and "0" not in after, (before, after)
        assert m.run(f"systemctl is-active {UNIT}", check=False).out.strip() == "inactive"
        m.run(f"systemctl disable --now microgpt-worker.socket microgpt-worker@1 microgpt-worker@2; systemctl enable --now {UNIT}")
        self.serves()

    @point("3, 5: the optional socket unit with the hardening, an upgrade with it; after a failed start the service alone serves")
    def socket_unit(self):
        m = self.m
        m.run(f"systemctl disable --now {UNIT}; systemctl enable --now {UNIT}.socket")
        self.serves()
        self.is_hardened()
        self.under_load(f"{INSTALL} --reinstall /root/new.deb")
        m.run(f"ln -sfn /nonexistent {CURRENT}; systemctl restart {UNIT}", check=False)
        for _ in range(3):
            assert self.curl("-m 3 " + CHAT)[0] != 200
        m.run(f"ln -sfn {DEMO} {CURRENT}; systemctl restart {UNIT}")
        self.serves()
        m.run(f"systemctl disable --now {UNIT}.socket; systemctl stop {UNIT}; systemctl enable --now {UNIT}")
        self.serves()

    @point("5, 6: spawn-fcgi by the example's script")
    def spawn(self):
        m = self.m
        m.run(f"systemctl stop {UNIT}; WORKERS=2 {EXAMPLES}/spawn-fcgi/microgpt-spawn start >/root/spawn.log 2>&1")
        self.serves()
        m.run(f"{EXAMPLES}/spawn-fcgi/microgpt-spawn stop; systemctl start {UNIT}")
        self.serves()

    @point("8: -t as the service's user: ok, and refuses drain_timeout, a model, a socket group and a directory that would fail")
    def check(self):
        m = self.m
        m.run(f"cp -r {DEMO} {MODELS}/closed; chmod 700 {MODELS}/closed")
        ask = lambda more: m.run(f"{AS_SERVICE} microgpt-fcgi -t -c {CONF} {more}", check=False)
        assert ask("").code == 0, ask("").out
        for more, code, word in (("--timeout=60s", 78, "drain_timeout"), (f"--model_dir={MODELS}/closed", 66, "closed/meta.json: Permission denied"),
                                 ("--socket_group=adm", 77, "adm"), ("--socket_group=nosuch", 78, "nosuch"),
                                 ("--listen=unix:/run/nowhere/s", 78, "/run/nowhere"), ("--listen=unix:/root/s", 77, "/root")):
            done = ask(more)
            assert (done.code, word in done.out, done.out.count("\n")) == (code, True, 1), (more, done.code, done.out)
        m.run(f"rm -r {MODELS}/closed")
        self.serves()

    @point("8: -t in a sandbox like the unit's, before the first start of a further model, by README's line")
    def check_in_sandbox(self):
        m = self.m
        self.example(("second-model/names.conf", "/etc/microgpt/names.conf"))
        line = re.search(r"`sudo (systemd-run [^`]*)`", (ROOT / "README.md").read_text()).group(1)
        assert "configuration ok" in m.run(f"! test -e /run/microgpt-names && {line}").out
        done = m.run(f"{line} --socket_group=adm", check=False)
        assert done.code == 77 and "adm" in done.out, done.out
        m.run("rm /etc/microgpt/names.conf")

    @point("11: what is no request is the host's page, a 40 kB header its 400")
    def big_header(self):
        self.m.run("printf 'X-Big: %040000d' 0 > /root/header")
        reply = self.curl("-H @/root/header " + JSON, "/microgpt/health")
        assert reply[0] == 400 and "<html>" in reply[2], reply[:2]
        self.serves()
