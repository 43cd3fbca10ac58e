# SPDX-License-Identifier: Apache-2.0
"""A scene is one machine and the points that are walked on it, in order. Here is what scenes share: a
site of its own before the service, requests, load while a script runs."""
import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = "/usr/share/doc/microgpt-serve/examples"
SITE = r"""
server {
    listen 80 default_server;
    listen 443 ssl http2;
    server_name site.example;
    ssl_certificate /etc/ssl/site.pem; ssl_certificate_key /etc/ssl/site.key;
    add_header Strict-Transport-Security "max-age=1" always;
    error_page 404 413 500 502 /errors.html;
    root /var/www/site;
    location = /health { default_type text/plain; return 200 "the site's own\n"; }
    INCLUDE
}
"""
INCLUDE = "include snippets/microgpt[.]conf;"
JSON = "-H 'Content-Type: application/json' "
CHAT = JSON + """-d '{"messages":[{"role":"user","content":"hello"}]}'"""
UNIT = "microgpt-fcgi"
CONF = "/etc/microgpt/microgpt.conf"
DEMO = "/usr/share/microgpt/demo/chat"
MODELS = "/var/lib/microgpt/models"
CURRENT = f"{MODELS}/current"
INSTALL = "apt-get install -y --no-install-recommends "
AS_SERVICE = "setpriv --reuid=microgpt --regid=www-data --clear-groups "


def point(text):
    """The function is one point of the list; text says which and what must be true."""
    def mark(f):
        f.point = text
        return f
    return mark


class Scene:
    suites = None   # all
    always = ()     # points that the others need, run with every --only

    def __init__(self, m, package):
        self.m, self.package = m, package

    @classmethod
    def points(cls):
        return [(f.point, f) for f in vars(cls).values() if hasattr(f, "point")]

    def prepare(self):
        """Stock nginx with a site of its own; the packages within reach."""
        m = self.m
        m.put(self.package.deb, "/root/new.deb")
        m.put(self.package.older, "/root/old.deb")
        m.put(ROOT / "tests/host/load.py", "/root/load.py")
        m.run("""rm -f /etc/nginx/sites-enabled/default; mkdir -p /var/www/site; head -c 5000000 /dev/zero > /root/big
            echo the site > /var/www/site/index.html; echo "the site's errors" > /var/www/site/errors.html
            openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=site.example -days 2 -keyout /etc/ssl/site.key -out /etc/ssl/site.pem""")
        self.site("")
        m.run("systemctl restart nginx")

    def installed(self, deb="new"):
        """For scenes that begin after the installation."""
        self.m.run(f"{INSTALL} /root/{deb}.deb")
        self.site(INCLUDE)
        self.believe_the_proxy()
        self.serves()

    def tidy(self):
        """After a point that failed: what it left is not in the way of the others."""

    # ---- nginx ----

    def site(self, include):
        self.m.write("/etc/nginx/sites-enabled/site", SITE.replace("INCLUDE", include))

    def nginx(self):
        """Take what was written into force: the workers that have it are there, the others take no more."""
        m = self.m
        workers = lambda: set(m.run("pgrep -f '^nginx: worker process$'", check=False).out.split())
        old = workers()
        m.run("nginx -t -q && systemctl reload nginx")
        m.eventually(lambda: (now := workers()) and not now & old)

    def example(self, *pairs):
        """Examples go where they say, as they are."""
        for source, target in pairs:
            self.m.run(f"mkdir -p $(dirname {target}) && cp {EXAMPLES}/{source} {target}")

    def believe_the_proxy(self):
        """For the load: each request may come from another address."""
        self.example(("real-ip.conf", "/etc/nginx/conf.d/real-ip.conf"))
        self.nginx()

    # ---- requests ----

    def curl(self, arguments, path="/microgpt/v1/chat", base="http://127.0.0.1"):
        """Status, headers and body."""
        out = self.m.run(f"curl -sik -m 60 {arguments} {base}{path}", check=False).out
        head, _, body = out.replace("\r", "").partition("\n\n")
        while body.startswith("HTTP/"):
            head, _, body = body.partition("\n\n")
        status = re.search(r"^HTTP/\S+ (\d+)", head)
        return (int(status.group(1)) if status else 0), head, body

    def asked(self, arguments, **more):
        """The same of a client that keeps to the limit of requests: over it, it asks again."""
        replies = []

        def admitted():
            replies.append(self.curl(arguments, **more))
            return replies[-1][0] != 429
        self.m.eventually(admitted)
        return replies[-1]

    def serves(self, seconds=30):
        self.m.eventually(lambda: self.curl("", "/microgpt/health")[0] == 200, seconds)
        status, head, body = self.asked(CHAT)
        assert status == 200 and '"role":"assistant"' in body, (status, head, body)

    def is_json(self, reply, status):
        assert reply[0] == status, reply
        assert list(json.loads(reply[2])) == ["error"], reply
        return reply

    def under_load(self, script, path="/microgpt/v1/generate"):
        """Run it while clients ask; every reply must be a 200."""
        m = self.m
        m.run("rm -f /root/l /root/l.*")
        load = m.start(f"exec python3 /root/load.py /root/l {path}")
        at = Path(f"{m.root}/root/l")

        def more(n):
            was = json.loads(at.read_text())["ok"] if at.exists() else 0
            m.eventually(lambda: at.exists() and json.loads(at.read_text())["ok"] >= was + n, 60)
        try:
            more(20)
            done = m.run(script, check=False, timeout=300)
            more(40)
        finally:
            m.write("/root/l.stop", "")
            load.wait(timeout=90)
        count = json.loads(m.read("/root/l.end"))
        assert done.code == 0, done.out[-3000:]
        assert not count["bad"] and count["ok"] > 50, (count["ok"], len(count["bad"]), count["bad"][:3])
        return done

    # ---- the unit ----

    def journal(self, unit=UNIT, lines="all"):
        return self.m.run(f"journalctl -o cat --no-pager -u {unit} -n {lines}").out

    def master(self, unit=UNIT):
        return self.m.run(f"systemctl show -p MainPID --value {unit}").out.strip()

    def is_hardened(self, unit=UNIT, network="yes"):
        """What runs is what ships: the kernel's and systemd's word on the running process."""
        out = self.m.run(f"systemctl show -p PrivateUsers -p PrivateNetwork -p NoNewPrivileges -p ProtectSystem {unit}").out.split()
        wanted = {"PrivateUsers=yes", f"PrivateNetwork={network}", "NoNewPrivileges=yes", "ProtectSystem=strict"}
        assert wanted <= set(out), out
        pid = self.master(unit)
        status = self.m.run(f"cat /proc/{pid}/status; ls /proc/{pid}/root/home").out
        for line in (r"NoNewPrivs:\s1", r"Seccomp:\s2", r"CapEff:\s0+$", r"CapBnd:\s0+$"):
            assert re.search(line, status, re.M), (line, status)
        users = self.m.run(f"readlink /proc/1/ns/user /proc/{pid}/ns/user").out.split()
        assert users[0] != users[1], users
