# SPDX-License-Identifier: Apache-2.0
"""What must be true on a booted host, a function for each: scenes share one machine, their points
run in order."""
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
CHAT = """-H 'Content-Type: application/json' -d '{"messages":[{"role":"user","content":"hello"}]}'"""
UNIT = "microgpt-fcgi"
CONF = "/etc/microgpt/microgpt.conf"
CURRENT = "/var/lib/microgpt/models/current"


def point(text):
    def mark(f):
        f.point = text
        return f
    return mark


class Scene:
    suites = ("bookworm", "trixie")
    always = ()     # points that the others need, run with every --only

    def __init__(self, m, deb, old):
        self.m, self.deb, self.old = m, deb, old

    @classmethod
    def points(cls):
        return [(f.point, f) for f in vars(cls).values() if hasattr(f, "point")]

    def prepare(self):
        """Stock nginx with a site of its own; the packages within reach."""
        m = self.m
        m.put(self.deb, "/root/new.deb")
        m.put(self.old, "/root/old.deb")
        m.put(ROOT / "tests/host/load.py", "/root/load.py")
        m.run("""rm -f /etc/nginx/sites-enabled/default; mkdir -p /var/www/site
            echo the site > /var/www/site/index.html; echo "the site's errors" > /var/www/site/errors.html
            openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=site.example -days 2 -keyout /etc/ssl/site.key -out /etc/ssl/site.pem""")
        self.site("")
        m.run("systemctl restart nginx")

    def site(self, include):
        self.m.write("/etc/nginx/sites-enabled/site", SITE.replace("INCLUDE", include))

    def nginx(self):
        """Take what was written into force: -t must pass, and new connections get it."""
        self.m.run("nginx -t -q && systemctl reload nginx")

    def curl(self, arguments, path="/microgpt/v1/chat", base="http://127.0.0.1"):
        """Status, headers and body."""
        out = self.m.run(f"curl -sik -m 60 {arguments} {base}{path}", check=False).out
        head, _, body = out.replace("\r", "").partition("\n\n")
        while body.startswith("HTTP/"):
            head, _, body = body.partition("\n\n")
        status = re.search(r"^HTTP/\S+ (\d+)", head)
        return (int(status.group(1)) if status else 0), head, body

    def serves(self, seconds=30):
        self.m.eventually(lambda: self.curl("", "/microgpt/health")[0] == 200, seconds)
        status, head, body = self.curl(CHAT)
        assert status == 200 and '"role":"assistant"' in body, (status, head, body)

    def is_json(self, reply, status):
        assert reply[0] == status, reply
        assert list(json.loads(reply[2])) == ["error"], reply
        return reply

    def journal(self, unit=UNIT):
        return self.m.run(f"journalctl -o cat --no-pager -u {unit}").out

    def under_load(self, script, path="/microgpt/v1/generate"):
        """Run it while clients ask; every reply must be a 200."""
        m = self.m
        m.run("rm -f /root/load.*[!y]; rm -f /root/l /root/l.*")
        load = subprocess.Popen(["nsenter", "-t", m.leader, "-m", "-n", "-p", "-r", "-w", "--", "python3", "/root/load.py", "/root/l", path])
        def more(n):
            at = Path(f"{m.root}/root/l")
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

    def example(self, *pairs):
        for source, target in pairs:
            self.m.run(f"mkdir -p $(dirname {target}) && cp {EXAMPLES}/{source} {target}")

    def master(self, unit=UNIT):
        return self.m.run(f"systemctl show -p MainPID --value {unit}").out.strip()

    def believe_the_proxy(self):
        """For the load: each request may come from another address."""
        self.example(("real-ip.conf", "/etc/nginx/conf.d/real-ip.conf"))
        self.nginx()


class Package(Scene):
    always = ("install", "include")

    @point("1: apt-get install ends without an error line, the service runs, the last words are the next steps")
    def install(self):
        out = self.m.run("apt-get install -y --no-install-recommends /root/new.deb").out
        assert not re.search(r"(?i)error|fail|could not|warning", out), out
        assert "include snippets/microgpt[.]conf;" in out.splitlines()[-4] + out.splitlines()[-5] + "".join(out.splitlines()[-8:]), out
        self.m.run(f"systemctl is-active {UNIT} && systemctl is-enabled {UNIT}")

    @point("1: after the one include line the demo answers, and the site is as it was")
    def include(self):
        self.site(INCLUDE)
        self.nginx()
        self.serves()
        assert self.curl("", "/health")[2] == "the site's own\n"
        assert "the site's errors" in self.curl("", "/nope")[2]
        self.believe_the_proxy()

    @point("2: start, stop, restart, reload in any order")
    def any_order(self):
        m = self.m
        for verb, works in (("stop", 0), ("start", 1), ("start", 1), ("restart", 1), ("reload", 1), ("stop", 0), ("restart", 1),
                            ("restart", 1), ("stop", 0), ("stop", 0), ("start", 1), ("reload", 1), ("restart", 1)):
            m.run(f"systemctl {verb} {UNIT}")
            if works:
                self.serves()
            else:
                self.is_json(self.curl(CHAT), 502)
                assert m.run(f"systemctl is-active {UNIT}", check=False).out.strip() == "inactive"
        assert m.run(f"systemctl stop {UNIT}; systemctl reload {UNIT}", check=False).code != 0
        for _ in range(15):  # no start limit to reset
            m.run(f"systemctl restart {UNIT}")
        self.serves()

    @point("2: a start with a bad model says so and fails; repaired, restart serves, requests came meanwhile")
    def bad_model(self):
        m = self.m
        m.run(f"ln -sfn /nonexistent {CURRENT}")
        done = m.run(f"systemctl restart {UNIT}", check=False)
        assert done.code != 0, done.out
        assert "/nonexistent" in self.journal() or CURRENT in self.journal(), self.journal()[-500:]
        for _ in range(5):
            self.is_json(self.curl(CHAT), 502)
        m.run(f"ln -sfn /usr/share/microgpt/demo/chat {CURRENT} && systemctl restart {UNIT}")
        self.serves()

    @point("2: a reload with a bad model or configuration is non-zero, and the old generation goes on")
    def bad_reload(self):
        m = self.m
        for break_it, repair in ((f"ln -sfn /nonexistent {CURRENT}", f"ln -sfn /usr/share/microgpt/demo/chat {CURRENT}"),
                                 (f"cp {CONF} /root/c; echo colour = blue >> {CONF}", f"cp /root/c {CONF}")):
            m.run(break_it)
            code = m.run(f"systemctl reload {UNIT}", check=False).code
            m.run(repair)
            self.serves()
            assert code != 0
            m.run(f"systemctl reload {UNIT}")
            self.serves()

    @point("2: a reload takes the user's model in place of the demo")
    def other_model(self):
        m = self.m
        m.run(f"cp -r /usr/share/microgpt/demo/names /var/lib/microgpt/models/mine; cd /var/lib/microgpt/models; "
              f"ln -sfn mine tmp && mv -T tmp current && systemctl reload {UNIT}")
        self.m.eventually(lambda: self.curl(CHAT)[0] == 400)
        m.run(f"ln -sfn /usr/share/microgpt/demo/chat {CURRENT}; systemctl reload {UNIT}")
        self.m.eventually(lambda: self.curl(CHAT)[0] == 200)

    @point("3: ten restarts under load lose no request")
    def restart_load(self):
        self.under_load(f"for i in $(seq 10); do systemctl restart {UNIT} || exit 1; done")

    @point("3: ten reloads under load lose no request")
    def reload_load(self):
        self.under_load(f"for i in $(seq 10); do systemctl reload {UNIT} || exit 1; done")

    @point("3: needrestart's way, try-restart of what uses a replaced library, under load")
    def needrestart(self):
        self.under_load(f"cp -p /usr/lib/*/libjansson.so.4 /root/j; cp /root/j $(realpath /usr/lib/*/libjansson.so.4).new; "
                        f"mv $(realpath /usr/lib/*/libjansson.so.4).new $(realpath /usr/lib/*/libjansson.so.4); systemctl try-restart {UNIT}")

    @point("3: --reinstall under load loses no request")
    def reinstall(self):
        self.under_load("apt-get install -y --no-install-recommends --reinstall /root/new.deb")

    @point("3: a master that is killed comes back, no connection is refused")
    def killed(self):
        before = self.master()
        self.m.run(f"kill -9 {before}")
        self.m.eventually(lambda: self.master() not in ("0", before))
        self.serves()

    @point("3: logrotate with a log file")
    def logrotate(self):
        m = self.m
        m.run(f"echo log_file = /var/log/microgpt/microgpt.log >> {CONF}; systemctl restart {UNIT}")
        self.serves()
        m.run("logrotate -f /etc/logrotate.d/microgpt")
        self.serves()
        m.eventually(lambda: "endpoint=chat" in m.run("cat /var/log/microgpt/microgpt.log", check=False).out)
        assert "endpoint=chat" in m.read("/var/log/microgpt/microgpt.log.1")
        m.run(f"sed -i /log_file.=/d {CONF}; echo >> {CONF}; systemctl restart {UNIT}")

    @point("3: reboot, and it serves")
    def reboot(self):
        self.m.reboot()
        self.serves()

    @point("5: systemd-analyze security is below 1.0 for what runs")
    def security(self):
        out = self.m.run(f"systemd-analyze security --no-pager {UNIT} | tail -1").out
        assert float(re.search(r": (\d+\.\d+)", out).group(1)) < 1.0, out
        out = self.m.run(f"systemctl show -p PrivateUsers -p PrivateNetwork -p NoNewPrivileges -p ProtectSystem {UNIT}").out
        assert out.count("=yes") == 3 and "ProtectSystem=strict" in out, out

    @point("5: template workers with the hardening")
    def template_workers(self):
        m = self.m
        m.run(f"systemctl stop {UNIT}; systemctl start microgpt-worker.socket microgpt-worker@1 microgpt-worker@2")
        self.serves()
        m.run("systemctl restart microgpt-worker@1")
        self.serves()
        m.run(f"systemctl stop microgpt-worker.socket 'microgpt-worker@*'; systemctl start {UNIT}")
        self.serves()

    @point("5: the optional socket unit, and after a failed start the service alone")
    def socket_unit(self):
        m = self.m
        m.run(f"systemctl stop {UNIT}; systemctl start {UNIT}.socket")
        self.serves()
        m.run(f"ln -sfn /nonexistent {CURRENT}; systemctl restart {UNIT}", check=False)
        self.curl("-m 3 " + CHAT)
        m.run(f"ln -sfn /usr/share/microgpt/demo/chat {CURRENT}; systemctl restart {UNIT}")
        self.serves()
        m.run(f"systemctl stop {UNIT}.socket {UNIT}; systemctl start {UNIT}")
        self.serves()

    @point("8: -t refuses drain_timeout below timeout")
    def test_drain(self):
        done = self.m.run(f"microgpt-fcgi -t -c {CONF} --timeout=60s", check=False)
        assert done.code == 78 and "drain_timeout" in done.out, done.out

    @point("8: -t as the service refuses a model that it may not read")
    def test_as_service(self):
        m = self.m
        m.run("cp -r /usr/share/microgpt/demo/names /var/lib/microgpt/models/closed; chmod 700 /var/lib/microgpt/models/closed")
        done = m.run(f"setpriv --reuid=microgpt --regid=www-data --clear-groups microgpt-fcgi -t -c {CONF} "
                     "--model_dir=/var/lib/microgpt/models/closed", check=False)
        assert done.code in (66, 77), done.out

    @point("6: a second model by the example, verbatim; @names follows a reinstall")
    def second_model(self):
        m = self.m
        self.example(("second-model/names.conf", "/etc/microgpt/names.conf"),
                     ("second-model/names.http.conf", "/etc/nginx/microgpt.d/names.http.conf"),
                     ("second-model/names.server.conf", "/etc/nginx/microgpt.d/names.server.conf"))
        m.run(f"systemctl enable --now {UNIT}@names")
        self.nginx()
        body = "-H 'Content-Type: application/json' -d '{}'"
        m.eventually(lambda: self.curl(body, "/names/v1/generate")[0] == 200)
        assert self.curl("", "/names/health")[2] == "Ok"
        assert self.curl("", "/names/metrics")[0] == self.curl("", "/names/status")[0] == 200
        for path in ("/names", "/names/nope"):
            self.is_json(self.curl("", path), 404)
        before = self.master(f"{UNIT}@names")
        self.under_load("apt-get install -y --no-install-recommends --reinstall /root/new.deb", "/names/v1/generate")
        assert before != self.master(f"{UNIT}@names")
        assert "deleted" not in m.run(f"readlink /proc/{self.master(UNIT + '@names')}/exe").out

    @point("6: API keys by the example: byte compare, 401 with WWW-Authenticate, guesses and keys limited, name in the log")
    def keys(self):
        self.example(("api-keys/microgpt.keys", "/etc/nginx/microgpt.keys"),
                     ("api-keys/keys.http.conf", "/etc/nginx/microgpt.d/keys.http.conf"),
                     ("api-keys/keys.api.conf", "/etc/nginx/microgpt.d/keys.api.conf"),
                     ("api-keys/keys.server.conf", "/etc/nginx/microgpt.d/keys.server.conf"))
        self.nginx()
        key = lambda k, i: f"-H 'Authorization: Bearer {k}' -H 'X-Forwarded-For: 9.9.9.{i}' " + CHAT
        good = "change-me-1111111111111111"
        self.m.eventually(lambda: self.curl(CHAT)[0] == 401)
        assert self.curl(key(good, 1))[0] == 200
        for i, wrong in enumerate((good.upper(), good + "x", good[1:], "x")):
            reply = self.is_json(self.curl(key(wrong, 10 + i)), 401)
            assert 'WWW-Authenticate: Bearer realm="microgpt"' in reply[1], reply
            self.is_json(self.curl(key(wrong, 20 + i), "/names/v1/generate"), 401)
        got = [self.curl(key("guess", 77))[0] for _ in range(12)]
        assert got[:5] == [401] * 5 and 429 in got[5:], got
        ask = "curl -s -o /dev/null -w '%{http_code} ' http://localhost/microgpt/v1/chat " + key("change-me-2222222222222222", "$i")
        ask = ask.replace("'X-Forwarded-For: 9.9.9.$i'", '"X-Forwarded-For: 9.9.9.$i"')
        got = self.m.run(f"for i in $(seq 60); do {ask} & done; wait").out.split()
        assert set(got) == {"200", "429"} and len(got) == 60, got
        log = self.m.read("/var/log/nginx/microgpt-keys.log")
        assert "key=alice" in log and "key=bob" in log and good not in log
        assert self.curl("", "/microgpt/health")[0] == 200

    @point("6: CORS by the example, with keys: preflight 204 without a key, headers on 200, 401, 405, 413, 429, 502")
    def cors(self):
        self.example(("cors/cors.http.conf", "/etc/nginx/microgpt.d/cors.http.conf"),
                     ("cors/cors.headers.conf", "/etc/nginx/microgpt.d/cors.headers.conf"),
                     ("cors/cors.api.conf", "/etc/nginx/microgpt.d/cors.api.conf"))
        self.nginx()
        origin = "-H 'Origin: https://app.example' "
        allowed = "Access-Control-Allow-Origin: https://app.example"
        self.m.eventually(lambda: self.curl(origin + "-X OPTIONS")[0] == 204)
        reply = self.curl(origin + "-X OPTIONS -H 'Access-Control-Request-Method: POST'")
        assert reply[0] == 204 and allowed in reply[1] and "Access-Control-Allow-Headers: Authorization, Content-Type" in reply[1], reply
        assert "Access-Control-Allow-Origin" not in self.curl("-H 'Origin: https://evil.example' -X OPTIONS")[1]
        good = origin + "-H 'Authorization: Bearer change-me-1111111111111111' -H 'X-Forwarded-For: 9.8.{}.1' "
        seen = {}
        self.m.run("head -c 5000000 /dev/zero > /root/big")
        for i, more in enumerate((good + CHAT, origin + CHAT, good + "-X PUT", good + "-H 'Content-Type: application/json' --data-binary @/root/big")):
            reply = self.curl(more.replace("{}", str(i), 1))
            seen[reply[0]] = reply[1]
        for _ in range(12):
            reply = self.curl(origin + "-H 'Authorization: Bearer no' -H 'X-Forwarded-For: 9.9.9.78' " + CHAT)
            seen[reply[0]] = reply[1]
        self.m.run(f"systemctl stop {UNIT}")
        reply = self.curl((good + CHAT).replace("{}", "7", 1))
        seen[reply[0]] = reply[1]
        self.m.run(f"systemctl start {UNIT}")
        assert set(seen) == {200, 401, 405, 413, 429, 502}, sorted(seen)
        for status, head in seen.items():
            assert allowed in head and head.count("Access-Control-Allow-Origin") == 1, (status, head)
        self.m.run("rm /etc/nginx/microgpt.d/keys.* /etc/nginx/microgpt.d/cors.*")
        self.nginx()

    @point("6, 7: TLS with h2 by the example, HSTS on our replies; 413 and 404 over h2 are JSON")
    def tls(self):
        m = self.m
        self.example(("tls.conf", "/etc/nginx/sites-enabled/tls"), ("hsts.headers.conf", "/etc/nginx/microgpt.d/hsts.headers.conf"))
        m.run("cp /etc/ssl/site.pem /etc/ssl/chat.example.pem; cp /etc/ssl/site.key /etc/ssl/private/chat.example.key")
        self.nginx()
        to = "--http2 --resolve chat.example:443:127.0.0.1 -H 'X-Forwarded-For: 7.7.7.{}' "
        ask = lambda more, i, path="/microgpt/v1/chat": self.curl(to.format(i) + more, path, "https://chat.example")
        m.eventually(lambda: ask(CHAT, 1)[0] == 200)
        reply = ask(CHAT, 2)
        assert reply[1].startswith("HTTP/2 200") and reply[1].lower().count("strict-transport-security") == 1, reply
        m.run("head -c 5000000 /dev/zero > /root/big")
        reply = self.is_json(ask("-H 'Content-Type: application/json' --data-binary @/root/big", 3), 413)
        assert reply[1].startswith("HTTP/2"), reply
        self.is_json(ask("", 4, "/microgpt/nope"), 404)
        self.is_json(self.curl("-H 'Content-Type: application/json' --data-binary @/root/big"), 413)
        m.run("rm /etc/nginx/sites-enabled/tls /etc/nginx/microgpt.d/hsts.headers.conf")
        self.nginx()

    @point("5, 6: several hosts by the example: TCP drop-in verbatim, pool verbatim but for addresses")
    def hosts(self):
        m = self.m
        self.example(("several-hosts/50-tcp.conf", f"/etc/systemd/system/{UNIT}.service.d/50-tcp.conf"),
                     ("several-hosts/hosts.http.conf", "/etc/nginx/microgpt.d/hosts.http.conf"),
                     ("several-hosts/hosts.pool.conf", "/etc/nginx/microgpt.d/hosts.pool.conf"))
        m.run(f"ip addr add 10.0.0.1/24 dev lo; ip addr add 10.0.0.2/24 dev lo; ip addr add 10.0.0.3/24 dev lo; cp {CONF} /root/c; "
              f"echo listen = 10.0.0.2:9000 >> {CONF}; systemctl daemon-reload; systemctl restart {UNIT}")
        self.nginx()
        self.m.eventually(lambda: self.curl(CHAT)[0] == 200)
        self.serves()  # 10.0.0.3 is dead: the next host answers
        m.run(f"systemctl restart {UNIT}")
        self.serves()
        m.run(f"cp /root/c {CONF}; rm -r /etc/systemd/system/{UNIT}.service.d /etc/nginx/microgpt.d/hosts.http.conf "
              f"/etc/nginx/microgpt.d/hosts.pool.conf; systemctl daemon-reload; systemctl restart {UNIT}")
        self.nginx()
        self.serves()

    @point("6: spawn-fcgi by the example's script")
    def spawn(self):
        m = self.m
        m.run(f"systemctl stop {UNIT}; WORKERS=2 {EXAMPLES}/spawn-fcgi/microgpt-spawn start >/root/spawn.log 2>&1")
        self.serves()
        m.run(f"{EXAMPLES}/spawn-fcgi/microgpt-spawn stop; systemctl start {UNIT}")
        self.serves()

    @point("6: the metrics server by the example")
    def scrape(self):
        self.example(("prometheus/metrics.http.conf", "/etc/nginx/microgpt.d/metrics.http.conf"))
        self.nginx()
        self.m.eventually(lambda: "microgpt_model_info" in self.curl("", "/microgpt/metrics", "http://localhost:9145")[2])
        assert self.curl("", "/", "http://localhost:9145")[0] == 404

    @point("4: remove stops and forgets every unit and instance, and warns of a leftover include")
    def remove(self):
        m = self.m
        self.site("include snippets/microgpt.conf;")
        out = m.run("apt-get remove -y microgpt-serve").out
        assert "/etc/nginx/sites-enabled/site" in out, out
        # (the link of the unit itself stays until the purge, as debhelper keeps what was enabled)
        left = m.run("systemctl list-units --all --plain --no-legend 'microgpt*' | grep -v not-found; pgrep -a microgpt; "
                     "ls /etc/systemd/system/*.wants | grep microgpt.*@", check=False).out
        assert not left.strip(), left
        m.run("nginx -t -q && test -e /etc/microgpt/microgpt.conf && systemctl reload nginx")
        self.is_json(self.curl(CHAT), 502)

    @point("4: purge leaves nothing but models and the operator's files, and nginx -t passes with a leftover include")
    def purge(self):
        m = self.m
        m.run("apt-get purge -y microgpt-serve && nginx -t -q")
        self.site(INCLUDE)
        m.run("rm -f /etc/nginx/snippets/microgpt.conf; nginx -t -q")
        left = m.run("find /etc /usr /lib /var /run -xdev -name '*microgpt*' -not -path '/var/lib/microgpt*' -not -path '/var/log/nginx/*' -not -path '/var/lib/dpkg/*'").out.split()
        mine = {"/etc/microgpt", "/etc/nginx/microgpt.d", "/etc/nginx/microgpt.keys"}
        assert set(left) <= mine, set(left) - mine
        m.run("test -d /var/lib/microgpt/models/mine && test ! -e /var/lib/microgpt/models/current && test -e /etc/microgpt/names.conf")


class Upgrade(Scene):
    """From the lower version, with the configuration as shipped and edited, under load."""
    always = ("install",)

    @point("3: the lower version serves")
    def install(self):
        self.m.run("apt-get install -y --no-install-recommends /root/old.deb")
        self.site(INCLUDE)
        self.believe_the_proxy()
        self.serves()

    @point("3: upgrade under load, conffiles unchanged")
    def unchanged(self):
        before = self.master()
        self.under_load("apt-get install -y --no-install-recommends /root/new.deb")
        assert before != self.master()

    @point("3: back to the lower version (rollback) under load")
    def rollback(self):
        self.under_load("apt-get install -y --no-install-recommends --allow-downgrades /root/old.deb")

    @point("3: upgrade under load, conffiles changed by the operator are kept")
    def changed(self):
        self.m.run(f"echo workers = 1 >> {CONF}; sed -i 's/^    keepalive 16;/    keepalive 8;/' /etc/nginx/conf.d/microgpt.conf; "
                   f"systemctl restart {UNIT}; systemctl reload nginx")
        self.under_load("apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold /root/new.deb")
        assert "workers = 1" in self.m.read(CONF) and "keepalive 8" in self.m.read("/etc/nginx/conf.d/microgpt.conf")
        self.nginx()
        self.serves()


class MakeInstall(Scene):
    suites = ("bookworm",)  # the programs are built on this one
    always = ("install",)

    @point("1: make install PREFIX=/usr ends in the same state by the commands it prints")
    def install(self):
        m = self.m
        subprocess.run(["cp", "-r", *(str(ROOT / d) for d in ("conf", "deploy", "README.md", "NOTICE")), f"{m.root}/root/"], check=True)
        (m.root / "root/build").mkdir()
        for program in ("microgpt", "microgpt-fcgi"):
            m.put(ROOT / "build" / program, f"/root/build/{program}", 0o755)
        out = m.run("cd /root && PREFIX=/usr deploy/install.sh install").out
        commands = [line.strip() for line in out.splitlines() if "systemctl" in line or "systemd-" in line]
        assert len(commands) == 3, out
        self.site(INCLUDE)
        for line in commands:
            m.run(line.replace("then:", "").strip())
        self.serves()
        self.believe_the_proxy()

    @point("3: make install over a running one, under load")
    def again(self):
        self.under_load(f"cd /root && PREFIX=/usr deploy/install.sh install && systemctl daemon-reload && systemctl restart {UNIT}")

    @point("4: make uninstall stops it and leaves no link")
    def uninstall(self):
        m = self.m
        m.run("cd /root && PREFIX=/usr deploy/install.sh uninstall; nginx -t -q")
        left = m.run("pgrep -a microgpt; find /etc/systemd -name '*microgpt*'; systemctl list-units --plain --no-legend 'microgpt*'", check=False).out
        assert not left.strip(), left


SCENES = [Package, Upgrade, MakeInstall]
