# SPDX-License-Identifier: Apache-2.0
"""What lies before the service: every example used as it is, errors over HTTP/1.1, h2 and h3; and in the
end, with all that in place, removal and purge."""
import re

from scene import CHAT, CONF, EXAMPLES, INCLUDE, INSTALL, JSON, MODELS, UNIT, Scene, point

BIG = JSON + "--data-binary @/root/big"
ERRORS = (400, 401, 403, 404, 405, 411,    # (408 nginx makes by closing)
           413, 414, 429, 500, 501, 502, 503, 504, 505)


class Edge(Scene):
    always = ("second_model",)

    def prepare(self):
        super().prepare()
        self.installed()

    def tidy(self):
        """After a point that failed: what only it needs is not in the way of the others."""
        self.m.run(f"cd /etc/nginx; rm -f microgpt.d/{{keys,cors,make,hsts,hosts}}.* conf.d/host-cache.conf sites-enabled/tls; "
                   f"! test -e /root/c || mv /root/c {CONF}; rm -rf /etc/systemd/system/{UNIT}.service.d; "
                   f"systemctl daemon-reload; systemctl restart {UNIT}", check=False)
        self.nginx()

    @point("6: a second model by the example, verbatim; @names follows a reinstall")
    def second_model(self):
        m = self.m
        self.example(("second-model/names.conf", "/etc/microgpt/names.conf"),
                     ("second-model/names.http.conf", "/etc/nginx/microgpt.d/names.http.conf"),
                     ("second-model/names.server.conf", "/etc/nginx/microgpt.d/names.server.conf"))
        m.run(f"systemctl enable --now {UNIT}@names")
        self.is_hardened(f"{UNIT}@names")
        self.nginx()
        body = JSON + "-d '{}'"
        m.eventually(lambda: self.curl(body, "/names/v1/generate")[0] == 200)
        assert self.curl("", "/names/health")[2] == "Ok"
        assert self.curl("", "/names/metrics")[0] == self.curl("", "/names/status")[0] == 200
        for path in ("/names", "/names/nope"):
            self.is_json(self.curl("", path), 404)
        before = self.master(f"{UNIT}@names")
        self.under_load(f"{INSTALL} --reinstall /root/new.deb", "/names/v1/generate")
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

    @point("6: CORS by the example, with keys: preflight 204 without a key, headers on 200 and every error")
    def cors(self):
        self.example(("cors/cors.http.conf", "/etc/nginx/microgpt.d/cors.http.conf"),
                     ("cors/cors.headers.conf", "/etc/nginx/microgpt.d/cors.headers.conf"),
                     ("cors/cors.api.conf", "/etc/nginx/microgpt.d/cors.api.conf"))
        self.makes_errors()
        self.nginx()
        origin = "-H 'Origin: https://app.example' "
        allowed = "Access-Control-Allow-Origin: https://app.example"
        self.m.eventually(lambda: self.curl(origin + "-X OPTIONS")[0] == 204)
        reply = self.curl(origin + "-X OPTIONS -H 'Access-Control-Request-Method: POST'")
        assert reply[0] == 204 and allowed in reply[1] and "Access-Control-Allow-Headers: Authorization, Content-Type" in reply[1], reply
        assert "Access-Control-Allow-Origin" not in self.curl("-H 'Origin: https://evil.example' -X OPTIONS")[1]
        good = origin + "-H 'Authorization: Bearer change-me-1111111111111111' -H 'X-Forwarded-For: 9.8.{}.1' "
        seen = {}
        for i, more in enumerate((good + CHAT, origin + CHAT, good + "-X PUT", good + BIG)):
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
        for status in ERRORS:
            seen[status] = self.is_json(self.curl(origin + f"-H 'X-Make: {status}'"), status)[1]
        for status, head in seen.items():
            assert allowed in head and head.count("Access-Control-Allow-Origin") == 1, (status, head)
        self.tidy()

    def makes_errors(self):
        """A request with X-Make: 503 is answered by nginx as if it had found that."""
        self.m.write("/etc/nginx/microgpt.d/make.api.conf",
                     "".join(f"if ($http_x_make = {status}) {{ return {status}; }}\n" for status in ERRORS))

    @point("6, 7: TLS with h2 by the example, HSTS on our replies; every error over 1.1, h2 and, where nginx has it, h3 is JSON")
    def tls(self):
        m = self.m
        self.example(("tls.conf", "/etc/nginx/sites-enabled/tls"), ("hsts.headers.conf", "/etc/nginx/microgpt.d/hsts.headers.conf"))
        m.run("cp /etc/ssl/site.pem /etc/ssl/chat.example.pem; cp /etc/ssl/site.key /etc/ssl/private/chat.example.key")
        has = m.run("nginx -V; curl -V").out
        versions = {"--http1.1": "HTTP/1.1", "--http2": "HTTP/2"}
        if "http_v3_module" in has and "HTTP3" in has:
            m.run("sed -i '0,/listen 443/s//listen 443 quic reuseport; listen 443/' /etc/nginx/sites-enabled/tls")
            versions["--http3-only"] = "HTTP/3"
        self.makes_errors()
        self.nginx()
        number = iter(range(250))

        def ask(more, path="/microgpt/v1/chat"):
            to = f"{option} --resolve chat.example:443:127.0.0.1 -H 'X-Forwarded-For: 7.7.7.{next(number)}' "
            reply = self.curl(to + more, path, "https://chat.example")
            head = reply[1].lower()
            if not reply[0] and more == BIG: # told before it had sent all, curl may lose the answer
                reply = self.curl(to + more, path, "https://chat.example")
                head = reply[1].lower()
            assert reply[1].startswith(version), (option, more, reply)
            assert head.count("strict-transport-security") == head.count("x-request-id") == 1, reply
            return reply
        for option, version in versions.items():
            assert ask(CHAT)[0] == 200
            self.is_json(ask(BIG), 413)
            self.is_json(ask("", "/microgpt/nope"), 404)
            for status in ERRORS:
                self.is_json(ask(f"-H 'X-Make: {status}'"), status)
        print("       " + ", ".join(versions.values()))
        self.is_json(self.curl(BIG), 413)
        self.tidy()

    @point("5, 6: several hosts by the example: TCP drop-in, pool, one host of them dead")
    def hosts(self):
        m = self.m
        self.example(("several-hosts/50-tcp.conf", f"/etc/systemd/system/{UNIT}.service.d/50-tcp.conf"),
                     ("several-hosts/hosts.http.conf", "/etc/nginx/microgpt.d/hosts.http.conf"),
                     ("several-hosts/hosts.pool.conf", "/etc/nginx/microgpt.d/hosts.pool.conf"))
        m.run(f"ip addr add 10.0.0.1/24 dev lo; ip addr add 10.0.0.2/24 dev lo; ip addr add 10.0.0.3/24 dev lo; cp {CONF} /root/c; "
              f"echo listen = 10.0.0.2:9000 >> {CONF}; systemctl daemon-reload; systemctl restart {UNIT}")
        self.nginx()
        self.m.eventually(lambda: self.curl(CHAT)[0] == 200)
        self.is_hardened(network="no")
        for _ in range(10):
            self.serves()  # 10.0.0.3 is dead: the next host answers
        m.run(f"systemctl restart {UNIT}")
        self.serves()
        self.tidy()
        self.serves()

    @point("6: a host that caches FastCGI replies does not cache ours")
    def cache(self):
        m = self.m
        m.write("/etc/nginx/conf.d/host-cache.conf", "fastcgi_cache_path /var/cache/nginx-host keys_zone=host:1m; fastcgi_cache host; "
                "fastcgi_cache_valid any 1m; fastcgi_cache_key $uri; fastcgi_cache_methods POST; fastcgi_ignore_headers Cache-Control;\n")
        self.nginx()
        for _ in range(2):
            self.serves()
        assert not m.run("find /var/cache/nginx-host -type f").out
        self.tidy()

    @point("6: real_ip by the example: who is behind the proxy counts for himself")
    def real_ip(self):
        ask = lambda who: self.curl(f"-H 'X-Forwarded-For: {who}' " + JSON + "-d '{\"max_tokens\":1}'", "/microgpt/v1/generate")[0]
        got = [ask("6.6.6.6") for _ in range(40)]
        assert set(got) == {200, 429} and ask("6.6.6.7") == 200, got

    @point("6: replies of GET kept by nginx, by the example")
    def cache(self):
        m, path = self.m, "/microgpt/v1/generate?seed=8&max_tokens=9"
        self.example(("cache/cache.http.conf", "/etc/nginx/microgpt.d/cache.http.conf"),
                     ("cache/cache.api.conf", "/etc/nginx/microgpt.d/cache.api.conf"))
        self.nginx()
        first, again = self.asked("", path=path), self.asked("", path=path)
        assert (first[0], again[0], first[2]) == (200, 200, again[2]), (first, again)
        assert "X-Cache: MISS" in first[1] and "X-Cache: REVALIDATED" in again[1], (first, again)
        mine = re.search(r"X-Model-Fingerprint: (\w{32})", first[1]).group(1)
        for state in ("MISS", "HIT"):
            kept = self.asked("", path=path.replace("v1/", f"v1/m/{mine}/"))
            assert kept[0] == 200 and kept[2] == first[2] and f"X-Cache: {state}" in kept[1], kept
        m.run("rm /etc/nginx/microgpt.d/cache.*")
        self.nginx()

    @point("6: the metrics server by the example")
    def scrape(self):
        self.example(("prometheus/metrics.http.conf", "/etc/nginx/microgpt.d/metrics.http.conf"))
        self.nginx()
        self.m.eventually(lambda: "microgpt_model_info" in self.curl("", "/microgpt/metrics", "http://localhost:9145")[2])
        assert self.curl("", "/", "http://localhost:9145")[0] == 404

    @point("4: remove stops and forgets every unit and instance, and warns of a leftover include")
    def remove(self):
        m = self.m
        m.run(f"cp -r /usr/share/microgpt/demo/names {MODELS}/mine")
        self.site("include snippets/microgpt.conf;")
        out = m.run("apt-get remove -y microgpt-serve").out
        assert "/etc/nginx/sites-enabled/site" in out, out
        # (the link of the unit itself stays until the purge, as debhelper keeps what was enabled)
        left = m.run("systemctl list-units --all --plain --no-legend 'microgpt*' | grep -v not-found; pgrep -a microgpt; "
                     "ls /etc/systemd/system/*.wants | grep microgpt.*@", check=False).out
        assert not left.strip(), left
        m.run(f"nginx -t -q && test -e {CONF} && systemctl reload nginx")
        self.is_json(self.asked(CHAT), 502)

    @point("4: purge leaves nothing but models and the operator's files, and nginx -t passes with a leftover include")
    def purge(self):
        m = self.m
        m.run("apt-get purge -y microgpt-serve && nginx -t -q")
        self.site(INCLUDE)
        m.run("rm -f /etc/nginx/snippets/microgpt.conf; nginx -t -q")
        left = m.run("find /etc /usr /lib /var /run -xdev -name '*microgpt*' -not -path '/var/lib/microgpt*' "
                     "-not -path '/var/log/nginx/*' -not -path '/var/lib/dpkg/*'").out.split()
        mine = {"/etc/microgpt", "/etc/nginx/microgpt.d", "/etc/nginx/microgpt.keys", "/var/cache/nginx-microgpt"}  # nginx made the last
        assert set(left) <= mine, set(left) - mine
        m.run("test -d /var/lib/microgpt/models/mine && test ! -e /var/lib/microgpt/models/current && test -e /etc/microgpt/names.conf")


