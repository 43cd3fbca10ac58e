# SPDX-License-Identifier: Apache-2.0
"""What needs a tool and no machine: the alerts, as Prometheus understands them."""
import shutil
import subprocess
import tempfile
from pathlib import Path

from build import ROOT

EXAMPLES = ROOT / "deploy/examples/prometheus"
# one host of two is dead: it has no series but `up`
TEST = """
rule_files: [alerts.yml]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {series: 'up{job="microgpt",instance="a:80"}', values: '1x20'}
      - {series: 'up{job="microgpt",instance="b:80"}', values: '0x20'}
      - {series: 'microgpt_workers{job="microgpt",instance="a:80",state="ready"}', values: '2x20'}
      - {series: 'up{job="microgpt",instance="c:80"}', values: '1x20'}
      - {series: 'microgpt_workers{job="microgpt",instance="c:80",state="ready"}', values: '0x20'}
    alert_rule_test:
      - eval_time: 5m
        alertname: MicrogptDown
        exp_alerts:
          - exp_labels: {severity: page, job: microgpt, instance: 'b:80'}
            exp_annotations: &why
              summary: "no worker of microgpt is ready"
              description: "Clients get 502. journalctl -u microgpt-fcgi says why; microgpt-fcgi -t checks configuration and model."
          - exp_labels: {severity: page, instance: 'c:80'}
            exp_annotations: *why
"""


def promtool(*arguments, cwd=EXAMPLES, given=None):
    done = subprocess.run(["promtool", *arguments], cwd=cwd, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules():
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


def one_of_three_is_dead():
    with tempfile.TemporaryDirectory() as d:
        shutil.copy(EXAMPLES / "alerts.yml", d)
        (Path(d) / "test.yml").write_text(TEST)
        promtool("test", "rules", "test.yml", cwd=d)


def run(count):
    if not shutil.which("promtool"):
        print("2 not possible here: promtool is not installed")
        return
    count.take("6: scrape configuration and alerts by promtool", rules)
    count.take("12: MicrogptDown names the dead host of several, and the one without a worker", one_of_three_is_dead)
