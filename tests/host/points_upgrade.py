# SPDX-License-Identifier: Apache-2.0
"""Old package to new and back under load, and the same place reached by `make install`."""
import shutil

from scene import CONF, INCLUDE, INSTALL, ROOT, UNIT, Scene, point

HTTP_CONF = "/etc/nginx/conf.d/microgpt.conf"
OF_OLD = "# as the older package has it"      # the last line of its conffiles (package.py)


class Upgrade(Scene):
    """From the older package, with the configuration as shipped and edited, under load, an instance beside it."""

    def prepare(self):
        super().prepare()
        self.installed("old")
        self.example(("second-model/names.conf", "/etc/microgpt/names.conf"))
        self.m.run(f"systemctl enable --now {UNIT}@names")

    def follows(self, script):
        """The script, under load; both masters are other ones then and run the program that is there."""
        units = UNIT, f"{UNIT}@names"
        before = [self.master(unit) for unit in units]
        self.under_load(script)
        for unit, was in zip(units, before):
            now = self.master(unit)
            assert now not in (was, "0") and "deleted" not in self.m.run(f"readlink /proc/{now}/exe").out, unit

    @point("3: upgrade under load, conffiles unchanged by the operator become the new ones; @names follows")
    def unchanged(self):
        assert OF_OLD in self.m.read(CONF) and OF_OLD in self.m.read(HTTP_CONF)
        self.follows(f"{INSTALL} /root/new.deb")
        assert OF_OLD not in self.m.read(CONF) + self.m.read(HTTP_CONF)

    @point("3: back to the older package (rollback) under load; @names follows")
    def rollback(self):
        self.follows(f"{INSTALL} --allow-downgrades /root/old.deb")

    @point("3: upgrade under load, conffiles changed by the operator are kept; @names follows")
    def changed(self):
        self.m.run(f"echo workers = 1 >> {CONF}; sed -i 's/keepalive 16;/keepalive 8;/' {HTTP_CONF}; "
                   f"systemctl restart {UNIT}")
        self.nginx()
        self.follows(f"{INSTALL} -o Dpkg::Options::=--force-confold /root/new.deb")
        assert "workers = 1" in self.m.read(CONF) and "keepalive 8;" in self.m.read(HTTP_CONF)
        self.m.run(f"test -e {CONF}.dpkg-dist && test -e {HTTP_CONF}.dpkg-dist")
        self.nginx()
        self.serves()

    @point("3: a service that the operator stopped and disabled stays so over an upgrade")
    def disabled(self):
        self.m.run(f"systemctl disable --now {UNIT}; {INSTALL} --reinstall -o Dpkg::Options::=--force-confold /root/new.deb")
        assert self.m.run(f"systemctl is-active {UNIT}", check=False).out.strip() == "inactive"
        self.m.run(f"systemctl enable --now {UNIT}")
        self.serves()

    @point("14: the package's own test (autopkgtest), on Debian's default site")
    def autopkgtest(self):
        self.m.put(ROOT / "deploy/debian/tests/serves", "/root/serves", 0o755)
        self.m.run("rm /etc/nginx/sites-enabled/site; ln -s ../sites-available/default /etc/nginx/sites-enabled/; /root/serves")


class MakeInstall(Scene):
    always = ("install",)

    @point("1: make install PREFIX=/usr ends in the same state by the commands it prints")
    def install(self):
        m = self.m
        for d in ("conf", "deploy"):
            shutil.copytree(ROOT / d, f"{m.root}/root/{d}", ignore=shutil.ignore_patterns("corpus.jsonl"))
        for f in ("README.md", "NOTICE"):
            m.put(ROOT / f, f"/root/{f}")
        for program in ("microgpt", "microgpt-fcgi"):
            m.put(self.package.programs / program, f"/root/build/{program}", 0o755)
        out = m.run("cd /root && PREFIX=/usr deploy/install.sh install").out
        commands = [line.strip() for line in out.splitlines() if "systemctl" in line or "systemd-" in line]
        assert len(commands) == 3, out
        self.site(INCLUDE)
        for line in commands:
            m.run(line.replace("then:", "").strip())
        self.serves()
        self.is_hardened()
        self.believe_the_proxy()

    @point("3: make install over a running one, under load")
    def again(self):
        self.under_load(f"cd /root && PREFIX=/usr deploy/install.sh install && systemctl daemon-reload && systemctl restart {UNIT}")

    @point("4: make uninstall stops it, leaves no link and no unit, and nginx -t passes")
    def uninstall(self):
        m = self.m
        self.example(("second-model/names.conf", "/etc/microgpt/names.conf"))
        m.run(f"systemctl enable --now {UNIT}@names; cd /root && PREFIX=/usr deploy/install.sh uninstall; nginx -t -q")
        left = m.run("pgrep -a microgpt; find /etc/systemd -name '*microgpt*'; "
                     "systemctl list-units --all --plain --no-legend 'microgpt*'", check=False).out
        assert not left.strip(), left
