# SPDX-License-Identifier: Apache-2.0
"""In the machine: clients that ask through nginx without pause until FILE.stop appears, each request
from another address. FILE holds counts all the while.  load.py FILE PATH [CLIENTS]"""
import http.client
import json
import os
import sys
import threading

out, path, clients = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 4
lock, count = threading.Lock(), {"ok": 0, "bad": []}


def note(status, body=b""):
    with lock:
        if status == 200:
            count["ok"] += 1
        else:
            count["bad"].append([status, body.decode(errors="replace")[:200]])
        if count["ok"] % 10 == 0 or status != 200:
            with open(out + ".new", "w") as f:
                json.dump(count, f)
            os.rename(out + ".new", out)


def client(number):
    connection, i = None, 0
    while not os.path.exists(out + ".stop"):
        i += 1
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", 80, timeout=60)
            connection.request("POST", path, '{"max_tokens":8}', {"Content-Type": "application/json", "X-Forwarded-For": f"10.{number}.{i // 250 % 250}.{i % 250}"})
            reply = connection.getresponse()
            note(reply.status, reply.read())
        except (OSError, http.client.HTTPException) as error:
            note(0, repr(error).encode())
            connection = None


threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
for t in threads:
    t.start()
for t in threads:
    t.join()
with open(out + ".end", "w") as f:
    json.dump(count, f)
